"""`hyena-glt distances`: metrics, files, resuming, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hyena_glt.evolution.comparison import genome_distances
from hyena_glt.evolution.genome import Genome
from hyena_glt.evolution.matrix_files import read_distances


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Five genomes in one FASTA file, and one file each."""
    folder = tmp_path_factory.mktemp("family")
    generator = np.random.default_rng(0)
    root = generator.integers(0, 4, 900)
    texts = {}
    for name in "abcde":
        codes = root.copy()
        places = generator.choice(900, 30, replace=False)
        codes[places] = (codes[places] + 1) % 4
        texts[name] = "".join("ACGT"[code] for code in codes)
        (folder / f"{name}.fa").write_text(f">one\n{texts[name][:500]}\n>two\n{texts[name][500:]}\n")
    (folder / "all.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    return folder, texts


@pytest.mark.parametrize("metric", ["compression", "kmer"])
def test_records_of_one_file_to_phylip(cli, family, tmp_path, metric):
    folder, texts = family
    done = cli("distances", folder / "all.fa", "--metric", metric, "-o", tmp_path / "d.phy")
    assert done.code == 0, done.err
    found = read_distances(tmp_path / "d.phy")
    expected = genome_distances([Genome.of(name, text) for name, text in texts.items()], metric)
    assert found.names == expected.names
    assert np.array_equal(found.values, expected.values)
    provenance = json.loads((tmp_path / "d.phy.json").read_text())["provenance"]
    assert provenance["metric"] == metric
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.phy", "d.phy.json"]


def test_files_are_genomes_and_stdout_is_a_table(cli, family):
    folder, _ = family
    done = cli("distances", *(folder / f"{name}.fa" for name in "abc"), "--metric", "kmer", "-k", 9)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if not line.startswith("##")]
    assert lines[0] == "name\ta\tb\tc"
    assert "##hyena_glt_k=9" in done.out


def test_a_net_from_a_folder(cli, family, tmp_path):
    from hyena_glt import HyenaGLT, HyenaGLTConfig

    config = HyenaGLTConfig.preset("tiny", causal=False, genomic_vocab_size=4, alphabet="dna")
    HyenaGLT(config).save_pretrained(tmp_path / "net")
    for metric in ("representation", "wasserstein", "combined"):
        path = tmp_path / f"{metric}.tsv"
        done = cli("distances", family[0] / "all.fa", "--metric", metric, "--model", tmp_path / "net", "-o", path)
        assert done.code == 0, done.err
        assert read_distances(path).values.max() > 0
        assert "##hyena_glt_weights=" in path.read_text()


def test_done_is_done_and_other_output_is_refused(cli, family, tmp_path):
    words = ("distances", family[0] / "all.fa", "--metric", "kmer", "-o", tmp_path / "d.phy")
    plot = ("--plot", tmp_path / "h.png")
    assert cli(*words, *plot).code == 0
    assert "already done" in cli(*words, *plot).err
    other = cli(*words, "-k", 9)
    assert other.code == 2
    assert "--force" in other.err
    assert cli(*words, "-k", 9, "--force").code == 0


def test_an_interrupted_run_goes_on(cli, family, tmp_path, monkeypatch):
    from hyena_glt.evolution.kmers import SharedWords

    whole = SharedWords.row

    def stops(self, index):
        if index == 3:
            raise KeyboardInterrupt
        return whole(self, index)

    words = ("distances", family[0] / "all.fa", "--metric", "kmer", "-@", 1, "-o", tmp_path / "d.phy")
    monkeypatch.setattr(SharedWords, "row", stops)
    done = cli(*words)
    assert done.code == 130
    assert "3 finished rows are kept" in done.err
    assert not (tmp_path / "d.phy").exists()
    monkeypatch.setattr(SharedWords, "row", whole)
    other = cli(*words, "-k", 9)
    assert other.code == 2
    assert "whose k was 11, now 9" in other.err
    damaged = next((tmp_path / "d.phy.parts").glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = cli(*words)
    assert again.code == 0, again.err
    assert "3 finished rows found" in again.err
    assert "made again" in again.err
    assert not (tmp_path / "d.phy.parts").exists()
    assert cli(*words[:-1], tmp_path / "e.phy").code == 0
    assert (tmp_path / "d.phy").read_bytes() == (tmp_path / "e.phy").read_bytes()


def test_gaps_are_refused_or_counted(cli, tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(">a\nACGT--ACGTACGTT\n>b\nACGTAC.GTACGTAA\n")
    refused = cli("distances", path, "--metric", "kmer", "-k", 3)
    assert refused.code == 1
    assert "--degap" in refused.err
    done = cli("distances", path, "--metric", "kmer", "-k", 3, "--degap")
    assert done.code == 0, done.err
    assert "3 gaps removed" in done.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-k", "5"], 2, "-k: only --metric kmer"),
        (["--metric", "kmer", "--order", "5"], 2, "--order: only --metric compression"),
        (["--untrained"], 2, "asks no net"),
        (["-o", "d.xlsx"], 2, "the suffix tells no format"),
        (["--strict-names"], 2, "only PHYLIP"),
        (["--metric", "kmer", "-k", "40"], 1, "k: expected 1 to 31"),
    ],
)
def test_what_is_refused(cli, family, words, code, message):
    done = cli("distances", family[0] / "all.fa", *words)
    assert done.code == code
    assert message in done.err


def test_two_files_of_one_name_and_one_genome(cli, family, tmp_path):
    (tmp_path / "a.fasta").write_text(">x\nACGT\n")
    twice = cli("distances", family[0] / "a.fa", tmp_path / "a.fasta")
    assert twice.code == 2
    assert "of the name a" in twice.err
    alone = cli("distances", tmp_path / "a.fasta")
    assert alone.code == 1
    assert "two genomes or more" in alone.err
