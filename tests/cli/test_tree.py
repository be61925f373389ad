"""`hyena-glt tree`: from genomes, from a matrix, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

skbio = pytest.importorskip("skbio")

MATRIX = "4\na 0 3 3 5\nb 3 0 4 6\nc 3 4 0 4\nd 5 6 4 0\n"


@pytest.fixture
def genomes(tmp_path):
    """((a, b), (c, d)): 2,000 bases, 60 changes on every branch."""
    generator = np.random.default_rng(0)

    def changed(codes):
        codes = codes.copy()
        codes[generator.choice(2000, 60, replace=False)] = generator.integers(0, 4, 60)
        return codes

    root = generator.integers(0, 4, 2000)
    left, right = changed(root), changed(root)
    tips = {"a": changed(left), "b": changed(left), "c": changed(right), "d": changed(right)}
    path = tmp_path / "g.fa"
    path.write_text("".join(f">{name}\n{''.join('ACGT'[c] for c in codes)}\n" for name, codes in tips.items()))
    return path


@pytest.mark.parametrize("metric", ["compression", "kmer"])
def test_genomes_to_a_supported_tree(cli, genomes, tmp_path, metric):
    path, plot = tmp_path / "t.nwk", tmp_path / "t.svg"
    words = ("tree", genomes, "--metric", metric, "--bootstrap", 20, "--root", "midpoint", "-o", path, "--plot", plot)
    done = cli(*words)
    assert done.code == 0, done.err
    found = skbio.TreeNode.read(str(path))
    assert found.compare_rfd(skbio.TreeNode.read(["((a,b),(c,d));"])) == 0
    assert ")100:" in path.read_text()
    assert plot.stat().st_size > 1000
    provenance = json.loads((tmp_path / "t.nwk.json").read_text())["provenance"]
    assert (provenance["bootstrap"], provenance["method"], provenance["metric"]) == (20, "nj", metric)
    assert "already done" in cli(*words).err


def test_the_seed_decides(cli, genomes):
    words = ("tree", genomes, "--metric", "kmer", "--bootstrap", 5, "--seed", 2)
    first, second = cli(*words), cli(*words, "-@", 2)
    assert first.code == 0, first.err
    assert first.out == second.out


def test_copies_of_a_genome_and_several_threads(cli, genomes, tmp_path):
    path = tmp_path / "copies.fa"
    records = genomes.read_text().split(">")[1:]
    path.write_text("".join(f">{record}>again_{record}" for record in records))
    first, second = (cli("tree", path, "--bootstrap", 5, "-@", n, "-o", tmp_path / f"{n}.nwk") for n in (1, 4))
    assert (first.code, second.code) == (0, 0), second.err
    assert (tmp_path / "1.nwk").read_bytes() == (tmp_path / "4.nwk").read_bytes()


@pytest.mark.parametrize("name", ["tt.png", "tt.SVG", "tt.pdf", "tt.jpeg"])
def test_a_picture_is_no_place_for_newick(cli, genomes, tmp_path, name):
    done = cli("tree", genomes, "-o", tmp_path / name)
    assert done.code == 2
    assert "Newick" in done.err
    assert "--plot" in done.err
    assert not (tmp_path / name).exists()


def test_a_matrix_to_a_tree(cli, tmp_path):
    path = tmp_path / "d.phy"
    path.write_text(MATRIX)
    done = cli("tree", path)
    assert done.code == 0, done.err
    assert skbio.TreeNode.read([done.out]).compare_rfd(skbio.TreeNode.read(["((a,b),(c,d));"])) == 0
    clock = cli("tree", path, "--method", "upgma")
    assert clock.code == 0, clock.err
    assert clock.out != done.out


def test_negative_lengths_are_said(cli, tmp_path):
    path = tmp_path / "d.phy"
    path.write_text("4\na 0 1 1 9\nb 1 0 9 1\nc 1 9 0 9\nd 9 1 9 0\n")
    assert "came out negative" in cli("tree", path).err


def test_what_is_refused(cli, genomes, tmp_path):
    path = tmp_path / "d.phy"
    path.write_text(MATRIX)
    drawn = cli("tree", path, "--bootstrap", 10)
    assert drawn.code == 2
    assert "no genomes to draw from" in drawn.err
    rooted = cli("tree", genomes, "--method", "upgma", "--root", "midpoint")
    assert rooted.code == 2
    path.write_text("2\na 0 x\n")
    bad = cli("tree", path)
    assert bad.code == 1
    assert f"{path}:2:" in bad.err
    assert "Traceback" not in bad.err
