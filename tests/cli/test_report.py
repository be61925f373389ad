"""`hyena-glt report`: the page is about the genome it was given."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
from hyena_glt.cli.outputs import read_provenance
from hyena_glt.cli.report_view import principal_components


def test_the_page_names_contigs_genes_and_command(cli, genome, tmp_path):
    page = tmp_path / "report.html"
    gff = genome.with_name("genome.gff3")
    done = cli("report", genome, "--gff", gff, "--no-embed", "-o", page)
    assert done.code == 0, done.err
    text = page.read_text()
    assert "sim_plasmid" in text
    assert "sim_chr1_gene" in text
    assert "40,000" in text
    assert read_provenance(page)["command"] == f"hyena-glt report {genome} --gff {gff} --no-embed -o {page}"
    assert "already done" in cli("report", genome, "--gff", gff, "--no-embed", "-o", page).err
    assert cli("report", genome, "--no-embed", "-o", page).code == 2


@pytest.fixture
def net(tmp_path):
    """A folder with a small net of random weights."""
    folder = tmp_path / "net"
    config = HyenaGLTConfig.preset("tiny", genomic_vocab_size=4, num_layers=1)
    HyenaGLT(config, Patcher(patching_mode="static", patch_size=8)).save_pretrained(folder)
    return folder


def test_windows_of_dna_are_embedded_with_a_net(cli, genome, tmp_path, net):
    page = tmp_path / "r.html"
    done = cli("report", genome, "--model", net, "-o", page)
    assert done.code == 0, done.err
    assert "weights: net, sha256" in done.err
    assert read_provenance(page)["weights"].startswith("net, sha256")
    assert "sim_chr1:1-4096" in page.read_text()
    assert cli("report", genome, "--no-embed", "-o", tmp_path / "plain.html").code == 0
    assert "sim_chr1:1-4096" not in (tmp_path / "plain.html").read_text()


def test_embeddings_are_drawn_from_a_table(cli, genome, tmp_path):
    table, page = tmp_path / "w.parquet", tmp_path / "r.html"
    assert cli("embed", genome, "-o", table, "--untrained", "--per", "window", "--window", "2048").code == 0
    assert cli("report", genome, "--embeddings", table, "-o", page).code == 0
    assert "untrained tiny net, seed 0" in page.read_text()


def test_an_annotation_of_another_genome_is_said(cli, genome, tmp_path):
    gff = tmp_path / "other.gff"
    gff.write_text("##gff-version 3\nchrZ\tx\tgene\t1\t9\t.\t+\t.\tID=g\n")
    done = cli("report", genome, "--gff", gff, "--no-embed", "-o", tmp_path / "r.html")
    assert done.code == 0
    assert "no feature lies on a contig of the input" in done.err


def test_bad_annotation_and_bad_tables_are_one_line(cli, genome, tmp_path):
    gff, table = tmp_path / "bad.gff", tmp_path / "bad.parquet"
    gff.write_text("##gff-version 3\nchr1\tx\tgene\t9\t1\t.\t+\t.\tID=g\n")
    table.write_text("not parquet")
    for words in (("--gff", gff), ("--embeddings", table)):
        done = cli("report", genome, *words, "--no-embed", "-o", tmp_path / "r.html")
        assert done.code == 1
        assert str(words[1]) in done.err
        assert not (tmp_path / "r.html").exists()


def test_principal_components_keep_the_variance():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 2)) @ np.array([[3.0, 0.0, 1.0], [0.0, 0.5, 0.0]])
    points, explained = principal_components(vectors)
    assert sum(explained) == pytest.approx(1.0)
    assert np.linalg.norm(points) == pytest.approx(np.linalg.norm(vectors - vectors.mean(axis=0)))
    same, none = principal_components(np.ones((3, 4)))
    assert not same.any()
    assert none == (0.0, 0.0)


def test_real_genes_are_drawn(cli, data, tmp_path):
    page = tmp_path / "r.html"
    genome = data("genomes/mgenitalium_NC_000908.2.fa.gz")
    done = cli("report", genome, "--gff", data("genomes/mgenitalium_NC_000908.2.gff.gz"), "-o", page)
    assert done.code == 0, done.err
    text = page.read_text()
    assert "dnaA" in text or "dnaN" in text
    assert json.loads(read_provenance(page)["entropy_model"])["order"] == 8
    assert page.stat().st_size < 3 << 20
