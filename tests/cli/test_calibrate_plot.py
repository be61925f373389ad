"""`hyena-glt calibrate --plot` and `--per-contig`."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from hyena_glt.patching.calibration import load_contig_thresholds
from hyena_glt.patching.saved import load_patcher
from hyena_glt.sequences.fasta import read_blocks


def test_the_figure_and_its_numbers_are_beside_each_other(cli, genome, tmp_path):
    pytest.importorskip("matplotlib")
    saved, plot = tmp_path / "p.json", tmp_path / "curve.png"
    done = cli("calibrate", genome, "--max-patch-length", "64", "--plot", plot, "-o", saved)
    assert done.code == 0, done.err
    assert plot.read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((tmp_path / "curve.png.json").read_text())
    args = load_patcher(saved)
    assert numbers["threshold"] == args.threshold
    curve = numbers["curve"]
    assert np.interp(args.threshold, curve["thresholds"], curve["mean_lengths"]) == pytest.approx(16, rel=0.05)
    assert max(curve["mean_lengths"]) <= 64 < max(curve["uncapped_mean_lengths"])
    assert numbers["provenance"]["command"].startswith("hyena-glt calibrate")


def test_the_same_command_again_does_nothing(cli, genome, tmp_path):
    pytest.importorskip("matplotlib")
    words = ("calibrate", genome, "--plot", tmp_path / "c.svg", "--per-contig", "-o", tmp_path / "p.json")
    assert cli(*words).code == 0
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {"c.svg", "c.svg.json", "p.json", "p.contigs.json"} <= set(before)
    again = cli(*words)
    assert again.code == 0
    assert "already done" in again.err
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    (tmp_path / "c.svg").unlink()
    assert cli(*words).code == 0
    assert (tmp_path / "c.svg").exists()
    other = cli(*words, "--target-length", "8")
    assert other.code == 2
    assert "exists already" in other.err


def test_the_rise_is_drawn_where_the_rise_is_calibrated(cli, genome, tmp_path):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "c.svg"
    words = ("--monotonicity", "--target-length", "6", "--plot", plot, "-o", tmp_path / "p.json")
    assert cli("calibrate", genome, *words).code == 0
    assert json.loads((tmp_path / "c.svg.json").read_text())["threshold"] < 1


@pytest.mark.parametrize("name", ["curve.jpg", "curve", "-"])
def test_a_figure_of_another_format_is_wrong_usage(cli, genome, tmp_path, name):
    done = cli("calibrate", genome, "--plot", name if name == "-" else tmp_path / name, "-o", tmp_path / "p.json")
    assert done.code == 2
    assert "ends with .png, .svg or .pdf" in done.err
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_is_said_before_anything_is_read(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cli("calibrate", tmp_path / "none.fa", "--plot", tmp_path / "c.png", "-o", tmp_path / "p.json")
    assert done.code == 3
    assert "pip install 'hyena-glt[plot]'" in done.err


def test_a_genome_without_letters_cannot_be_calibrated(cli, tmp_path):
    (tmp_path / "n.fa").write_text(">n\n" + "N" * 500 + "\n")
    done = cli("calibrate", tmp_path / "n.fa", "--per-contig", "-o", tmp_path / "p.json")
    assert done.code == 1
    assert "n.fa: no threshold was found: the input has no letter" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["n.fa"]


def test_a_genome_too_short_for_a_curve_is_said(cli, tmp_path):
    (tmp_path / "s.fa").write_text(">s\nA\n")
    done = cli("calibrate", tmp_path / "s.fa", "-o", tmp_path / "p.json")
    assert done.code == 1
    assert "give longer sequences" in done.err


def test_each_contig_reaches_the_mean_with_its_own_threshold(cli, genome, tmp_path):
    done = cli("calibrate", genome, "--target-length", "6", "--per-contig", "-o", tmp_path / "p.json", "--json")
    assert done.code == 0, done.err
    found = load_contig_thresholds(tmp_path / "p.contigs.json")
    assert json.loads(done.out)["contigs_with_own_threshold"] == len(found.contigs) == 2
    for block in read_blocks(genome, alphabet="dna"):
        letters = [part for part in block.sequence.upper().split(b"N") if part]
        args = found.args_for(block.name)
        assert args.calibration.mean_length == pytest.approx(6, rel=0.02)
        lengths, _ = args.build().patch([part.decode() for part in letters])
        assert sum(map(len, letters)) / int((lengths > 0).sum()) == pytest.approx(6, rel=0.03)
    cli("calibrate", genome, "--target-length", "9", "-o", tmp_path / "p.json", "--force")
    with pytest.raises(ValueError, match=r"p\.json is not the patcher that these thresholds were made for"):
        load_contig_thresholds(tmp_path / "p.contigs.json")


def test_small_contigs_keep_the_threshold_of_the_genome(cli, tmp_path):
    random = np.random.default_rng(1)
    texts = {name: "".join(random.choice(list("ACGT"), size)) for name, size in (("big", 20_000), ("small", 900))}
    (tmp_path / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    done = cli("calibrate", tmp_path / "g.fa", "--per-contig", "-o", tmp_path / "p.json")
    assert "thresholds of 1 contigs; 1 too small" in done.err
    found = load_contig_thresholds(tmp_path / "p.contigs.json")
    assert found.args_for("small").threshold == load_patcher(tmp_path / "p.json").threshold
    assert found.args_for("big").threshold == found.contigs["big"].threshold
