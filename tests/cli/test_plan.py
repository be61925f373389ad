"""Options of the command line -> model, rule and threshold."""

from __future__ import annotations

import pytest

from hyena_glt.cli.plan import PatchOptions, make_plan, needs_two_passes
from hyena_glt.cli.source import open_genome
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import DataError, UsageError
from hyena_glt.patching import PatcherArgs
from hyena_glt.patching.saved import save_patcher


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({}, True),
        ({"threshold": 1.3}, True),
        ({"mode": "static"}, True),
        ({"threshold": 1.3, "entropy_model": "m"}, False),
        ({"mode": "byte", "entropy_model": "m"}, False),
        ({"entropy_model": "m"}, True),
        ({"patcher": "p"}, False),
    ],
)
def test_the_input_is_read_twice_only_where_something_is_learned_from_it(fields, passes):
    assert needs_two_passes(PatchOptions(**fields)) is passes


def test_the_default_is_calibrated_to_sixteen(genome):
    with open_genome(genome, "dna") as source:
        plan = make_plan(source, PatchOptions())
    assert plan.target_length == 16.0
    assert plan.threshold == plan.args.threshold
    assert plan.args.calibration.mean_length == pytest.approx(16, rel=0.02)
    assert plan.args.calibration.data_sha256 == source.sha256


def test_a_mode_without_scores_has_no_threshold(genome):
    with open_genome(genome, "dna") as source:
        plan = make_plan(source, PatchOptions(mode="static", patch_size=8))
    assert plan.threshold is None
    assert plan.target_length is None
    assert plan.describe()["patching"] == {"patching_mode": "static", "patch_size": 8.0}


def test_a_model_of_another_alphabet_is_refused(genome, tmp_path):
    MarkovEntropy.fit(["MKVLAAGIV" * 9], alphabet="protein").save(tmp_path / "m.safetensors")
    with open_genome(genome, "dna") as source, pytest.raises(UsageError, match="the entropy model is for protein"):
        make_plan(source, PatchOptions(entropy_model=tmp_path / "m.safetensors", threshold=1.0))


def test_a_patcher_without_a_model_is_refused(genome, tmp_path):
    save_patcher(tmp_path / "patcher.json", PatcherArgs(threshold=1.3))
    with open_genome(genome, "dna") as source, pytest.raises(DataError, match="saved without an entropy model"):
        make_plan(source, PatchOptions(patcher=tmp_path / "patcher.json"))
