from __future__ import annotations

import pytest

from hyena_glt.config import AdvancedPatcherConfig
from hyena_glt.errors import ConfigError, HyenaGLTError
from hyena_glt.patching import Patcher, PatcherArgs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshhold": 1.0}, "threshhold: unknown key; did you mean threshold"),
        ({"max_patch_length": 0}, "max_patch_length"),
        ({"max_patch_length": -4}, "max_patch_length"),
        ({"min_patch_length": 9, "max_patch_length": 8}, "min_patch_length: expected at most"),
        ({"patching_mode": "words"}, "patching_mode"),
        ({"encoding": "morse"}, "encoding"),
        ({"entropy_model": 5}, "entropy_model: expected 'auto'"),
    ],
)
def test_wrong_options_are_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        Patcher(**fields).patch("ACGT")


def test_wrong_changes_are_named_and_change_nothing():
    args = PatcherArgs(max_patch_length=8)
    with pytest.raises(ConfigError, match="max_patch_length"):
        args.max_patch_length = 0
    assert args.max_patch_length == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overlap": 3}, "overlap: expected 0 in entropy mode"),
        ({"patching_mode": "static", "patch_size": 4, "overlap": 4}, "overlap: expected less than"),
        ({"patching_mode": "static", "patch_size": 4.5, "overlap": 1}, "overlap: expected less than a whole"),
        ({"patching_mode": "static", "patch_size": 0.5}, "patch_size: expected at least 1"),
        ({"delimiter_chars": ["|"]}, "delimiter_chars: expected none in entropy mode"),
        ({"threshold": None, "monotonicity": True}, "threshold: expected nats"),
        ({"threshold": None, "threshold_add": 0.1}, "threshold: expected nats"),
        ({"threshold": None, "patch_size": None}, "patch_size: expected tokens"),
    ],
)
def test_contradictions_are_found_when_the_patcher_is_built(fields, message):
    with pytest.raises(ConfigError, match=message):
        PatcherArgs(**fields).build()


def test_arguments_come_from_a_configuration():
    config = AdvancedPatcherConfig(patching_mode="static", max_patch_length=64, batch_size=7)
    args = PatcherArgs.from_config(config, overlap=8)
    assert (args.patching_mode, args.max_patch_length, args.overlap) == ("static", 64, 8)
    assert args.static_patch_size == 64


def test_a_live_model_is_no_serialised_field():
    args = PatcherArgs(entropy_model=object(), threshold=1.0)
    assert "entropy_model" not in args.model_dump()
    assert "entropy_model=" not in repr(args)


def test_arguments_and_fields_exclude_each_other():
    with pytest.raises(HyenaGLTError, match="got args and threshold"):
        Patcher(PatcherArgs(), threshold=1.0)
