"""`hyena-glt embed`: vectors that depend on the sequence alone."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from hyena_glt import HyenaGLT, HyenaGLTConfig


def vectors(path):
    return np.stack(pq.read_table(path)["embedding"].to_numpy(zero_copy_only=False))


def test_one_row_per_record_or_window(cli, genome, tmp_path):
    records, windows = tmp_path / "r.parquet", tmp_path / "w.parquet"
    done = cli("embed", genome, "-o", records, "--untrained")
    assert done.code == 0, done.err
    assert "random" in done.err
    table = pq.read_table(records)
    assert table["name"].to_pylist() == ["sim_chr1", "sim_plasmid"]
    assert table["end"].to_pylist() == [30_000, 10_000]
    assert np.isfinite(vectors(records)).all()
    assert json.loads(table.schema.metadata[b"hyena_glt"])["weights"] == "untrained tiny net, seed 0"
    assert cli("embed", genome, "-o", windows, "--untrained", "--per", "window", "--window", "2048").code == 0
    assert pq.read_table(windows).num_rows >= 18


def test_batches_and_threads_change_nothing(cli, genome, tmp_path):
    found = []
    for batch_size, threads in ((1, 1), (7, 2)):
        path = tmp_path / f"{batch_size}.parquet"
        words = ("--per", "window", "--window", "1024", "--batch-size", batch_size, "-@", threads)
        assert cli("embed", genome, "-o", path, "--untrained", *words).code == 0
        found.append(vectors(path))
    assert np.allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_the_seed_makes_the_weights(cli, genome, tmp_path):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        path = tmp_path / f"{number}.parquet"
        assert cli("embed", genome, "-o", path, "--untrained", "--seed", seed, "-r", "sim_plasmid:1-3000").code == 0
        found.append(vectors(path))
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_a_saved_net_is_used(cli, genome, tmp_path):
    HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False, genomic_vocab_size=4)).save_pretrained(tmp_path / "net")
    done = cli("embed", genome, "-o", tmp_path / "e.parquet", "--model", tmp_path / "net", "-r", "sim_plasmid:1-3000")
    assert done.code == 0, done.err
    assert vectors(tmp_path / "e.parquet").shape == (1, 128)


def test_regions_of_one_contig_are_rows_of_their_own(cli, genome, tmp_path):
    words = ("-r", "sim_chr1:1-2000", "-r", "sim_chr1:5001-6000")
    assert cli("embed", genome, "-o", tmp_path / "e.parquet", "--untrained", *words).code == 0
    table = pq.read_table(tmp_path / "e.parquet")
    assert table["start"].to_pylist() == [0, 5000]
    assert table["end"].to_pylist() == [2000, 6000]


def test_random_weights_have_to_be_asked_for(cli, genome, tmp_path):
    done = cli("embed", genome, "-o", tmp_path / "e.parquet")
    assert done.code == 2
    assert "--untrained" in done.err


def test_a_record_without_a_letter_is_said(cli, tmp_path):
    fasta = tmp_path / "n.fa"
    fasta.write_text(">gap\n" + "N" * 300 + "\n>seq\n" + "ACGT" * 80 + "\n")
    done = cli("embed", fasta, "-o", tmp_path / "e.parquet", "--untrained")
    assert done.code == 0
    assert "gap: holds no letter" in done.err
    assert pq.read_table(tmp_path / "e.parquet")["name"].to_pylist() == ["seq"]


def test_proteins_are_embedded(cli, data, tmp_path):
    proteins = data("protein_rna/arabidopsis_chloroplast_proteins_NC_000932.faa")
    done = cli("embed", proteins, "--alphabet", "protein", "-o", tmp_path / "e.parquet", "--untrained")
    assert done.code == 0, done.err
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 85


@pytest.mark.parametrize("words", [("--device", "cuda"), ("--model", "nowhere")])
def test_what_is_not_there_is_said_in_one_line(cli, genome, tmp_path, words):
    untrained = [] if "--model" in words else ["--untrained"]
    done = cli("embed", genome, "-o", tmp_path / "e.parquet", *untrained, *words)
    assert done.code in (1, 3)
    assert done.err.splitlines()[-1].startswith("error: ")
