"""`hyena-glt calibrate`: a patcher that other genomes can be patched with."""

from __future__ import annotations

import json

import pytest

from hyena_glt import Patcher
from hyena_glt.sequences.simulate import generate_random_genomic_sequence


def test_the_saved_patcher_reaches_its_target(cli, genome, bed, tmp_path):
    saved = tmp_path / "patcher.json"
    done = cli("calibrate", genome, "--target-length", "8", "--max-patch-length", "32", "-o", saved, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    rows = bed(cli("patch", genome, "--patcher", saved, "-o", "-").out)
    lengths = [end - start for _, start, end, _, _ in rows]
    assert sum(lengths) / len(lengths) == pytest.approx(8, rel=0.02)
    assert max(lengths) <= 32
    patcher = Patcher.load(saved)
    assert patcher.threshold == facts["threshold"]
    assert patcher.args.calibration.target_mean_length == 8


def test_monotonicity_is_calibrated_on_the_rise(cli, genome, bed, tmp_path):
    saved = tmp_path / "patcher.json"
    assert cli("calibrate", genome, "--target-length", "6", "--monotonicity", "-o", saved).code == 0
    assert Patcher.load(saved).monotonicity
    rows = bed(cli("patch", genome, "--patcher", saved, "-o", "-").out)
    assert sum(end - start for _, start, end, _, _ in rows) / len(rows) == pytest.approx(6, rel=0.05)


def test_a_patcher_brings_its_own_rule(cli, genome, tmp_path):
    saved = tmp_path / "patcher.json"
    assert cli("calibrate", genome, "-o", saved).code == 0
    done = cli("patch", genome, "--patcher", saved, "--threshold", "1", "-o", "-")
    assert done.code == 2
    assert "--patcher brings its own rule" in done.err


def test_an_unreachable_target_is_said(cli, genome):
    done = cli("patch", genome, "--target-length", "64", "--max-patch-length", "8", "-o", "-")
    assert done.code == 0
    assert "out of reach" in done.err


def test_a_damaged_patcher_is_refused(cli, genome, tmp_path):
    saved = tmp_path / "patcher.json"
    assert cli("calibrate", genome, "-o", saved).code == 0
    model = tmp_path / "patcher.entropy_model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    done = cli("patch", genome, "--patcher", saved, "-o", "-")
    assert done.code == 1
    assert "sha256" in done.err


def test_several_genomes_are_pooled(cli, genome, tmp_path):
    other = tmp_path / "other.fa"
    other.write_text(">other\n" + generate_random_genomic_sequence(30_000, seed=5) + "\n")
    done = cli("calibrate", genome, other, "-o", tmp_path / "both.json", "--json")
    assert done.code == 0, done.err
    model = json.loads(done.out)["entropy_model"]
    alone = json.loads(cli("calibrate", other, "-o", tmp_path / "one.json", "--json").out)["entropy_model"]
    assert model["symbols"] > alone["symbols"] == 30_000
    assert (
        f"already done: {tmp_path / 'both.json'}"
        in cli("calibrate", genome, other, "-o", tmp_path / "both.json", "--json").err
    )
    refused = cli("calibrate", genome, "-", "-o", tmp_path / "x.json", stdin=b">a\nACGT\n")
    assert refused.code == 2
