"""`hyena-glt embed`: vectors that depend on the sequence alone, in every format, and through a kill."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.cli import embed_run, embed_shards, options
from hyena_glt.sequences.alphabets import reverse_complement

PLASMID = ("-r", "sim_plasmid:1-3000")
IN_SHARDS = ("--untrained", "-r", "sim_plasmid", "--window", "512", "--batch-size", "4")


def vectors(path):
    return np.stack(pq.read_table(path)["embedding"].to_numpy(zero_copy_only=False))


def provenance(path):
    return json.loads(pq.read_schema(path).metadata[b"hyena_glt"])


@pytest.fixture(scope="module")
def saved_net(tmp_path_factory):
    """A causal tiny net of random weights with static patches of 16."""
    folder = tmp_path_factory.mktemp("saved") / "net"
    torch.manual_seed(5)
    patcher = Patcher(patching_mode="static", patch_size=16)
    HyenaGLT(HyenaGLTConfig.preset("tiny", genomic_vocab_size=4), patcher).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_second_thread(monkeypatch):
    """Nets this small lose time to a second thread, most of it on a busy machine."""
    monkeypatch.setattr(options, "default_threads", lambda: 1)


@pytest.fixture
def small_shards(monkeypatch):
    """Four shards of the plasmid with `IN_SHARDS`."""
    monkeypatch.setattr(embed_run, "SHARD_BASES", 2048)


def test_one_row_per_record_or_window(cli, genome, tmp_path):
    records, windows = tmp_path / "r.parquet", tmp_path / "w.parquet"
    done = cli("embed", genome, "-o", records, "--untrained")
    assert done.code == 0, done.err
    assert "random" in done.err
    table = pq.read_table(records)
    assert table["name"].to_pylist() == ["sim_chr1", "sim_plasmid"]
    assert table["end"].to_pylist() == [30_000, 10_000]
    assert np.isfinite(vectors(records)).all()
    about = json.loads(table.schema.metadata[b"hyena_glt"])
    assert about["weights"] == "untrained tiny net, seed 0"
    assert {key: about[key] for key in ("per", "pool", "layer", "rc")} == {
        "per": "record",
        "pool": "mean",
        "layer": -1,
        "rc": "none",
    }
    assert cli("embed", genome, "-o", windows, "--untrained", "--per", "window", "--window", "2048").code == 0
    assert pq.read_table(windows).num_rows >= 18
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.parquet", "w.parquet"]


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
        assert cli("embed", genome, "-o", path, "--untrained", "--seed", seed, *PLASMID).code == 0
        found.append(vectors(path))
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_a_saved_net_is_used_with_its_patcher_and_named(cli, genome, saved_net, tmp_path):
    path = tmp_path / "e.parquet"
    done = cli("embed", genome, "-o", path, "--model", saved_net, *PLASMID)
    assert done.code == 0, done.err
    assert vectors(path).shape == (1, 128)
    digest = hashlib.sha256((saved_net / "model.safetensors").read_bytes()).hexdigest()
    assert provenance(path)["weights"] == f"net, sha256 {digest[:12]}"
    assert f"net, sha256 {digest[:12]}" in done.err
    assert provenance(path)["patching"]["patching_mode"] == "static"
    assert pq.read_table(path)["patches"].to_pylist() == [-(-3000 // 16)]


def test_patching_options_replace_the_patcher_of_the_net(cli, genome, saved_net, tmp_path):
    path = tmp_path / "e.parquet"
    assert cli("embed", genome, "-o", path, "--model", saved_net, "--target-length", "12", *PLASMID).code == 0
    assert provenance(path)["patching"]["patching_mode"] == "entropy"


def test_the_net_that_ships_is_the_default(cli, genome, saved_net, tmp_path, monkeypatch):
    from hyena_glt.model import shipped

    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", saved_net)
    given, default = tmp_path / "given.parquet", tmp_path / "default.parquet"
    assert cli("embed", genome, "-o", given, "--model", saved_net, *PLASMID).code == 0
    assert cli("embed", genome, "-o", default, *PLASMID).code == 0
    assert np.array_equal(vectors(given), vectors(default))
    monkeypatch.setattr(shipped, "SHIPPED_FOLDER", tmp_path / "nowhere")
    done = cli("embed", genome, "-o", tmp_path / "e.parquet", *PLASMID)
    assert done.code == 1
    assert "--untrained" in done.err


def test_regions_are_rows_of_their_own(cli, genome, tmp_path):
    words = ("-r", "sim_chr1:1-2000", "-r", "sim_chr1:5001-6000")
    bed = tmp_path / "regions.bed"
    bed.write_text("sim_chr1\t0\t2000\nsim_chr1\t5000\t6000\n")
    found = []
    for per, named in (("record", words), ("region", words), ("region", ("-R", bed))):
        path = tmp_path / f"{len(found)}.parquet"
        assert cli("embed", genome, "-o", path, "--untrained", "--per", per, *named).code == 0
        table = pq.read_table(path)
        assert table["start"].to_pylist() == [0, 5000]
        assert table["end"].to_pylist() == [2000, 6000]
        found.append(vectors(path))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_regions_may_overlap(cli, genome, tmp_path):
    """Genes do; each has the vector that it has alone."""
    bed = tmp_path / "genes.bed"
    bed.write_text("sim_chr1\t2000\t5000\nsim_chr1\t0\t3000\nsim_chr1\t2500\t2600\n")
    words = ("--untrained", "--max-patch-length", "16")
    assert cli("embed", genome, "-o", tmp_path / "all.parquet", "-R", bed, *words).code == 0
    table = pq.read_table(tmp_path / "all.parquet")
    assert table["start"].to_pylist() == [0, 2000, 2500]
    assert table["end"].to_pylist() == [3000, 5000, 2600]
    for row, region in enumerate(("1-3000", "2001-5000", "2501-2600")):
        alone = tmp_path / f"{row}.parquet"
        assert cli("embed", genome, "-o", alone, "-r", f"sim_chr1:{region}", *words).code == 0
        np.testing.assert_allclose(vectors(tmp_path / "all.parquet")[row], vectors(alone)[0], rtol=1e-4, atol=1e-5)


def test_a_region_keeps_its_bounds_where_n_is_left_out(cli, tmp_path):
    fasta = tmp_path / "n.fa"
    fasta.write_text(">c\n" + "N" * 300 + "ACGTTGCAAC" * 20 + "N" * 300 + "\n")
    words = ("--untrained", "--window", "64", "--max-patch-length", "16")
    assert cli("embed", fasta, "-o", tmp_path / "e.parquet", *words).code == 0
    table = pq.read_table(tmp_path / "e.parquet")
    assert (table["start"].to_pylist(), table["end"].to_pylist()) == ([0], [800])


def test_a_row_per_patch_covers_the_record(cli, genome, saved_net, tmp_path):
    path = tmp_path / "p.parquet"
    words = ("--model", saved_net, "--window", "1024", *PLASMID)
    assert cli("embed", genome, "-o", path, "--per", "patch", *words).code == 0
    table = pq.read_table(path)
    starts, ends = table["start"].to_numpy(), table["end"].to_numpy()
    assert starts.tolist() == list(range(0, 3000, 16))
    assert ends.tolist() == [*starts[1:].tolist(), 3000]
    assert set(table["patches"].to_pylist()) == {1}
    also, windows = tmp_path / "also.parquet", tmp_path / "w.parquet"
    assert cli("embed", genome, "-o", also, "--pool", "patch", *words).code == 0
    assert np.array_equal(vectors(path), vectors(also))
    for pool, reduced in (("mean", np.mean), ("max", np.max)):
        assert cli("embed", genome, "-o", windows, "--per", "window", "--pool", pool, *words, "--force").code == 0
        expected = [reduced(vectors(path)[first : first + 64], axis=0) for first in range(0, 188, 64)]
        assert np.allclose(vectors(windows), expected, rtol=1e-5, atol=1e-6)


def test_layers_differ_and_the_last_has_two_names(cli, genome, tmp_path):
    found = {}
    for layer in (-1, 2, 1, 0, -3):
        path = tmp_path / f"{layer}.parquet"
        assert cli("embed", genome, "-o", path, "--untrained", "--layer", layer, *PLASMID).code == 0
        found[layer] = vectors(path)
    assert np.array_equal(found[-1], found[2])
    assert np.array_equal(found[0], found[-3])
    assert not np.allclose(found[1], found[2])
    assert not np.allclose(found[0], found[1])
    done = cli("embed", genome, "-o", tmp_path / "e.parquet", "--untrained", "--layer", "3", *PLASMID)
    assert done.code == 2
    assert "-3 to 2" in done.err
    assert not list(tmp_path.glob("e.parquet*"))


def test_both_strands_of_a_record_have_the_same_average(cli, genome, tmp_path):
    patcher, fasta = tmp_path / "patcher.json", tmp_path / "s.fa"
    assert cli("calibrate", genome, "-o", patcher).code == 0
    sequence = genome.read_bytes().partition(b">sim_plasmid")[2].partition(b"\n")[2].replace(b"\n", b"")[:5000]
    fasta.write_bytes(b">plus\n" + sequence + b"\n>minus\n" + reverse_complement(sequence) + b"\n")
    found = {}
    for rc in ("avg", "none"):
        path = tmp_path / f"{rc}.parquet"
        assert cli("embed", fasta, "-o", path, "--untrained", "--rc", rc, "--patcher", patcher).code == 0
        found[rc] = vectors(path)
    assert np.allclose(found["avg"][0], found["avg"][1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(found["none"][0], found["none"][1], rtol=1e-3, atol=1e-3)
    assert np.allclose(found["avg"][0], found["none"].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_every_format_holds_the_same(cli, genome, tmp_path):
    zarr = pytest.importorskip("zarr")
    words = (*IN_SHARDS, "--per", "window")
    for suffix in ("parquet", "npz", "zarr", "tsv", "tsv.gz"):
        done = cli("embed", genome, "-o", tmp_path / f"e.{suffix}", *words)
        assert done.code == 0, done.err
        assert "already done" in cli("embed", genome, "-o", tmp_path / f"e.{suffix}", *words).err
        other = cli("embed", genome, "-o", tmp_path / f"e.{suffix}", *words, "--seed", "3")
        assert other.code == 2
        assert "--force" in other.err
    table = pq.read_table(tmp_path / "e.parquet")
    expected = {
        "names": table["name"].to_pylist(),
        "starts": table["start"].to_pylist(),
        "ends": table["end"].to_pylist(),
        "patches": table["patches"].to_pylist(),
    }
    arrays, group = np.load(tmp_path / "e.npz", allow_pickle=False), zarr.open_group(tmp_path / "e.zarr", mode="r")
    for name, column in expected.items():
        assert arrays[name].tolist() == column
        assert group[name][:].tolist() == column
    assert np.array_equal(arrays["vectors"], vectors(tmp_path / "e.parquet"))
    assert np.array_equal(group["vectors"][:], vectors(tmp_path / "e.parquet"))
    lines = [line for line in (tmp_path / "e.tsv").read_text().splitlines() if not line.startswith("##")]
    assert lines[0].split("\t")[:5] == ["name", "start", "end", "patches", "v0"]
    rows = [line.split("\t") for line in lines[1:]]
    assert [row[0] for row in rows] == expected["names"]
    assert [int(row[1]) for row in rows] == expected["starts"]
    assert np.array_equal(np.array([row[4:] for row in rows], np.float32), arrays["vectors"])
    for about in (json.loads(str(arrays["provenance"])), dict(group.attrs)["hyena_glt"]):
        assert about["weights"] == "untrained tiny net, seed 0"
    assert not list(tmp_path.glob("*.parts")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", ["parquet", "npz", "tsv"])
def test_without_a_version_two_commands_give_the_same_bytes(cli, genome, tmp_path, suffix):
    tables = [tmp_path / f"{name}.{suffix}" for name in ("a", "b")]
    for table in tables:
        assert cli("embed", genome, "-o", table, *PLASMID, "--untrained", "--no-version").code == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert b"hyena-glt embed" not in tables[0].read_bytes()


def test_a_zarr_table_is_replaced_and_other_folders_are_not(cli, genome, tmp_path):
    zarr = pytest.importorskip("zarr")
    path, mine = tmp_path / "e.zarr", tmp_path / "mine.zarr"
    words = ("--untrained", *PLASMID)
    assert cli("embed", genome, "-o", path, *words).code == 0
    assert cli("embed", genome, "-o", path, *words, "--seed", "1", "--force").code == 0
    assert zarr.open_group(path, mode="r").attrs["hyena_glt"]["weights"] == "untrained tiny net, seed 1"
    mine.mkdir()
    (mine / "precious.txt").write_text("do not remove")
    done = cli("embed", genome, "-o", mine, *words, "--force")
    assert done.code == 2
    assert "remove it" in done.err
    assert (mine / "precious.txt").exists()


def test_stdout_gets_text(cli, genome):
    done = cli("embed", genome, "-o", "-", "--untrained", *PLASMID)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("##hyena_gltVersion=")
    assert lines[-1].startswith("sim_plasmid\t0\t3000\t")
    assert cli("embed", genome, "-o", "-", "-O", "npz", "--untrained", *PLASMID).code == 2


def test_stdin_is_read(cli, genome, tmp_path):
    done = cli("embed", "-o", tmp_path / "e.tsv", "--untrained", stdin=genome.read_bytes())
    assert done.code == 0, done.err
    assert (tmp_path / "e.tsv").read_text().count("\nsim_") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "net", "--untrained"), "exclude"),
        (("--untrained", "--per", "region"), "-R"),
        (("--untrained", "--per", "window", "--pool", "patch"), "--per window"),
        (("--untrained", "--per", "patch", "--pool", "max"), "--pool max"),
        (("--untrained", "--per", "patch", "--rc", "avg"), "--rc avg"),
        (("--untrained", "--alphabet", "protein", "--rc", "avg"), "one strand"),
        (("--untrained", "-O", "csv"), "-O"),
        (("--alphabet", "protein"), "protein"),
    ],
)
def test_options_that_contradict_each_other_are_refused(cli, genome, tmp_path, words, said):
    done = cli("embed", genome, "-o", tmp_path / "e.parquet", *words)
    assert done.code == 2, done.err
    assert said in done.err
    assert not list(tmp_path.iterdir())


def test_a_net_for_another_alphabet_is_refused(cli, tmp_path, saved_net):
    fasta = tmp_path / "p.faa"
    fasta.write_text(">p\nMKVLAARRT\n")
    done = cli("embed", fasta, "--alphabet", "protein", "--model", saved_net, "-o", tmp_path / "e.parquet")
    assert done.code == 2
    assert "knows dna" in done.err


def test_a_missing_zarr_is_named_before_any_work(cli, genome, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    done = cli("embed", genome, "-o", tmp_path / "e.zarr", "--untrained")
    assert done.code == 3
    assert "hyena-glt[zarr]" in done.err
    assert not list(tmp_path.iterdir())


def test_a_record_without_a_letter_is_said(cli, tmp_path):
    fasta = tmp_path / "n.fa"
    gap = "N" * 300
    fasta.write_text(f">gap\n{gap}\n>seq\n{'ACGT' * 80}\n>end\n{gap}\n")
    done = cli("embed", fasta, "-o", tmp_path / "e.parquet", "--untrained")
    assert done.code == 0
    assert "gap: holds no letter" in done.err
    assert "end: holds no letter" in done.err
    assert pq.read_table(tmp_path / "e.parquet")["name"].to_pylist() == ["seq"]
    fasta.write_text(f">gap\n{gap}\n")
    done = cli("embed", fasta, "-o", tmp_path / "f.parquet", "--untrained")
    assert done.code == 1
    assert not list(tmp_path.glob("f.parquet*"))


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


def test_bad_input_leaves_nothing(cli, saved_net, tmp_path, small_shards):
    fasta = tmp_path / "bad.fa"
    fasta.write_bytes(b">good\n" + b"ACGTTGCAAC" * 1000 + b"\n>bad\nACGT!\n")
    words = ("--model", saved_net, "--window", "512", "--batch-size", "4")
    done = cli("embed", fasta, "-o", tmp_path / "e.parquet", *words)
    assert done.code == 1
    assert "bad.fa" in done.err
    assert not list(tmp_path.glob("e.parquet*"))


def interrupted_after(monkeypatch, count, problem):
    """The run stops when so many shards are written."""
    write = embed_shards.Shards.write

    def stop(self, index, rows):
        write(self, index, rows)
        if index + 1 == count:
            raise problem

    monkeypatch.setattr(embed_shards.Shards, "write", stop)
    return lambda: monkeypatch.setattr(embed_shards.Shards, "write", write)


@pytest.mark.parametrize("suffix", ["parquet", "npz", "zarr", "tsv"])
def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(cli, genome, tmp_path, monkeypatch, small_shards, suffix):
    if suffix == "zarr":
        pytest.importorskip("zarr")
    path = tmp_path / f"e.{suffix}"
    words = ("embed", genome, "-o", path, *IN_SHARDS, "--per", "window")
    assert cli(*words).code == 0
    whole = content(path)
    remove(path)
    undo = interrupted_after(monkeypatch, 3, KeyboardInterrupt())
    stopped = cli(*words)
    assert stopped.code == 130
    assert "goes on from there" in stopped.err
    assert len(list(tmp_path.glob("*.parts/*.safetensors"))) == 3
    assert not path.exists()
    undo()
    again = cli(*words)
    assert "3 finished shards found" in again.err
    assert content(path) == whole
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def content(path):
    """Every byte of a file or of a folder's files, by name."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def remove(path):
    import shutil

    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_shards_of_another_run_are_refused_and_named(cli, genome, tmp_path, monkeypatch, small_shards):
    words = ("embed", genome, "-o", tmp_path / "e.parquet", *IN_SHARDS)
    undo = interrupted_after(monkeypatch, 2, KeyboardInterrupt())
    assert cli(*words).code == 130
    undo()
    for more, said in ((("--seed", "1"), "weights"), (("--layer", "0"), "layer"), (("--rc", "avg"), "rc")):
        done = cli(*words, *more)
        assert done.code == 2
        assert f"whose {said} was" in done.err
    other = tmp_path / "other.fa"
    other.write_bytes(genome.read_bytes().replace(b"ACG", b"ATG", 1))
    done = cli("embed", other, *words[2:])
    assert done.code == 2
    assert "input_sha256" in done.err
    assert cli(*words, "--seed", "1", "--force").code == 0
    assert not list(tmp_path.glob("*.parts"))


def test_a_damaged_shard_is_made_again(cli, genome, tmp_path, monkeypatch, small_shards):
    path = tmp_path / "e.parquet"
    words = ("embed", genome, "-o", path, *IN_SHARDS)
    assert cli(*words).code == 0
    whole = path.read_bytes()
    path.unlink()
    undo = interrupted_after(monkeypatch, 3, KeyboardInterrupt())
    assert cli(*words).code == 130
    undo()
    shard = sorted(tmp_path.glob("*.parts/*.safetensors"))[1]
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    done = cli(*words)
    assert "made again" in done.err
    assert path.read_bytes() == whole


def test_a_full_disk_keeps_the_shards_and_closes_the_writer(cli, genome, tmp_path, monkeypatch, small_shards):
    path = tmp_path / "e.parquet"
    words = ("embed", genome, "-o", path, *IN_SHARDS)
    real = pq.ParquetWriter

    class Full(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "ParquetWriter", lambda handle, schema: real(pa.PythonFile(Full(), mode="w"), schema))
    done = cli(*words)
    assert done.code == 3
    assert "No space left" in done.err
    assert not path.exists()
    assert list(tmp_path.glob("*.parts/*.safetensors"))
    monkeypatch.setattr(pq, "ParquetWriter", real)
    done = cli(*words)
    assert "4 finished shards found" in done.err
    assert vectors(path).shape == (1, 128)


def test_two_runs_on_one_output_do_not_mix(cli, genome, tmp_path):
    import fcntl

    parts = tmp_path / "e.parquet.parts"
    parts.mkdir()
    with open(parts / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cli("embed", genome, "-o", tmp_path / "e.parquet", "--untrained", *PLASMID)
    assert done.code == 3
    assert "another process" in done.err


def test_the_shards_of_a_run_killed_at_its_end_are_cleared(cli, genome, tmp_path):
    words = ("embed", genome, "-o", tmp_path / "e.parquet", "--untrained", *PLASMID)
    assert cli(*words).code == 0
    parts = tmp_path / "e.parquet.parts"
    parts.mkdir()
    (parts / "run.json").write_text("{}")
    assert "already done" in cli(*words).err
    assert not parts.exists()


def test_many_genomes_go_into_a_folder_of_shards(cli, genome, saved_net, tmp_path):
    genomes, single = tmp_path / "genomes", tmp_path / "e.parquet"
    genomes.mkdir()
    for number in range(2):
        (genomes / f"{number}.fa").write_bytes(b">c%d\n" % number + b"ACGTTGCAACGGATTACA" * (40 + number) + b"\n")
    words = ("embed", genomes, "--model", saved_net, "-o", tmp_path / "vectors")
    done = cli(*words)
    assert done.code == 0, done.err
    assert cli("embed", genomes / "1.fa", "--model", saved_net, "-o", single).code == 0
    shards = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "vectors").glob("*.parquet"))])
    assert shards["name"].to_pylist() == ["c0", "c1"]
    assert np.allclose(np.stack(shards["embedding"].to_pylist())[1], vectors(single)[0], rtol=1e-5, atol=1e-6)
    manifest = json.loads((tmp_path / "vectors" / "manifest.json").read_text())
    assert manifest["provenance"]["weights"].startswith("net, sha256 ")
    assert "0 shards made" in cli(*words).err
    files = (genomes / "0.fa", genomes / "1.fa")
    assert cli("embed", *files, "--model", saved_net, "-o", tmp_path / "also").code == 0
    for more, said in ((("--rc", "avg"), "--rc"), (("--layer", "0"), "--layer"), (("-o", single), "folder")):
        done = cli("embed", *files, "--model", saved_net, *more)
        assert done.code == 2
        assert said in done.err
    done = cli("embed", *files, "--untrained", "-o", tmp_path / "no")
    assert done.code == 1
    assert "patcher" in done.err


KILLED = """
import sys
from hyena_glt.cli import embed_run
embed_run.SHARD_BASES = 1024
from hyena_glt.cli.main import main
sys.exit(main())
"""


def test_kill_9_and_the_same_command_give_the_same_bytes(genome, tmp_path):
    words = [sys.executable, "-c", KILLED, "embed", str(genome), "-o", "e.parquet", *IN_SHARDS, "-@", "1"]
    folders = tmp_path / "whole", tmp_path / "killed"
    for folder in folders:
        folder.mkdir()
    subprocess.run(words, cwd=folders[0], check=True, capture_output=True, timeout=300)
    process = subprocess.Popen(words, cwd=folders[1], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while len(list(folders[1].glob("*.parts/*.safetensors"))) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folders[1] / "e.parquet").exists()
    again = subprocess.run(words, cwd=folders[1], check=True, capture_output=True, timeout=300, text=True)
    assert "finished shards found" in again.stderr
    assert (folders[1] / "e.parquet").read_bytes() == (folders[0] / "e.parquet").read_bytes()
    assert [entry.name for entry in folders[1].iterdir()] == ["e.parquet"]
