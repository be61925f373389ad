"""Options: what they refuse, what they imply, and that they survive a file."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from hyena_glt.checks import load_config
from hyena_glt.config import AdvancedPatcherConfig, HyenaGLTConfig, PatcherFields, PatchingModeEnum
from hyena_glt.errors import ConfigError


def test_importing_the_options_imports_no_torch():
    code = "import hyena_glt.config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_patching_modes_are_their_names():
    assert {mode.value for mode in PatchingModeEnum} == {
        "entropy", "bpe", "bpe_patcher", "space", "static", "byte", "track",
    }  # fmt: skip
    assert PatchingModeEnum.static == "static"


def test_patcher_defaults_are_the_documents():
    fields = PatcherFields()
    assert fields.patching_mode is PatchingModeEnum.entropy
    assert fields.threshold == 1.335442066192627
    assert fields.threshold_add is None
    assert fields.patch_size == 4.5
    assert fields.encoding == "utf-8"
    assert fields.device == fields.patching_device == "auto"


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, 4.5), ({"max_patch_length": 64}, 64), ({"max_patch_length": 64, "patch_size": 16}, 16)],
)
def test_an_explicit_patch_size_rules_then_the_cap_then_the_default(options, size):
    assert PatcherFields(**options).static_patch_size == size


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": float("nan")},
        {"threshold": float("inf")},
        {"threshold": "1.3"},
        {"threshold_add": float("nan")},
        {"max_patch_length": 0},
        {"max_patch_length": True},
        {"min_patch_length": 0},
        {"min_patch_length": 9, "max_patch_length": 8},
        {"overlap": -1},
        {"patch_size": 0},
        {"patching_batch_size": 0},
        {"delimiter_chars": ["ab"]},
        {"delimiter_chars": []},
        {"encoding": "utf-99"},
        {"monotonicity": "yes"},
        {"patching_mode": "words"},
        {"tresholds": 1.0},
    ],
)
def test_patcher_fields_refuse_what_makes_no_sense(options):
    with pytest.raises(ValidationError):
        PatcherFields(**options)


def test_assignment_is_checked_too():
    fields = PatcherFields()
    with pytest.raises(ValidationError):
        fields.threshold = float("nan")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"monotonicity": True, "threshold_add": 0.1}, "threshold_add"),
        ({"monotonicity": True, "threshold": None}, "monotonicity"),
        ({"overlap": 2}, "overlap"),
        ({"patching_mode": "static", "patch_size": 8, "overlap": 8}, "overlap"),
        ({"delimiter_chars": ["-"]}, "delimiter_chars"),
        ({"preserve_delimiters": False}, "preserve_delimiters"),
    ],
)
def test_validate_names_the_contradiction(options, named):
    with pytest.raises(ConfigError, match=named):
        AdvancedPatcherConfig(**options).validate()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patching_mode": "static", "patch_size": 8, "overlap": 7},
        {"patching_mode": "space", "delimiter_chars": ["-", "."], "preserve_delimiters": False},
        {"patching_mode": "entropy", "monotonicity": True},
    ],
)
def test_validate_returns_a_sound_configuration(options):
    config = AdvancedPatcherConfig(**options, device="cpu")
    assert config.validate() is config
    assert (config.batch_size, config.no_cache) == (32, False)


@pytest.mark.parametrize(
    ("size", "hidden", "layers"), [("tiny", 128, 2), ("small", 256, 6), ("base", 512, 12), ("large", 768, 24)]
)
def test_presets_have_the_published_sizes(size, hidden, layers):
    config = HyenaGLTConfig.preset(size)
    assert (config.hidden_size, config.num_layers) == (hidden, layers)


def test_a_preset_takes_any_field_and_no_other():
    assert HyenaGLTConfig.preset("tiny", causal=False, hidden_size=64).hidden_size == 64
    with pytest.raises(ValidationError):
        HyenaGLTConfig.preset("tiny", hiden_size=64)
    with pytest.raises(ConfigError, match="tiny, small, base, large"):
        HyenaGLTConfig.preset("huge")


@pytest.mark.parametrize(("letters", "vocab", "alphabet"), [(256, 260, "bytes"), (4, 9, "dna"), (20, 25, "protein")])
def test_the_vocabulary_has_room_for_specials_and_ambiguity(letters, vocab, alphabet):
    config = HyenaGLTConfig(genomic_vocab_size=letters)
    assert (config.vocab_size, config.alphabet_name) == (vocab, alphabet)


@pytest.mark.parametrize(
    "options",
    [
        {"genomic_vocab_size": 5},
        {"genomic_vocab_size": 4, "alphabet": "protein"},
        {"local_hidden_size": 30, "bridge_heads": 4},
        {"trunk_layout": []},
        {"trunk_layout": ["wide"]},
        {"mixed_precision": "int8"},
        {"dropout": 1.0},
        {"ngram_sizes": [1]},
        {"hidden_size": "512"},
    ],
)
def test_a_net_configuration_refuses_what_cannot_be_built(options):
    with pytest.raises(ValidationError):
        HyenaGLTConfig(**options)


def test_a_copy_is_independent_and_update_changes_in_place():
    base = HyenaGLTConfig.preset("tiny")
    rna = base.copy()
    assert rna.update({"genomic_vocab_size": 4}, alphabet="rna") is rna
    assert (rna.vocab_size, rna.alphabet_name) == (9, "rna")
    assert base.vocab_size == 260


def test_a_refused_update_changes_nothing():
    config = HyenaGLTConfig.preset("tiny")
    before = config.model_dump()
    with pytest.raises(ValidationError):
        config.update(hidden_size=64, dropout=2.0)
    assert config.model_dump() == before


def test_a_configuration_survives_its_file(tmp_path):
    config = HyenaGLTConfig.preset("small", trunk_layout=("long", "short"), ngram_sizes=(), causal=False)
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    assert load_config(HyenaGLTConfig, path) == config


def test_every_field_says_what_it_means():
    for model in (AdvancedPatcherConfig, HyenaGLTConfig):
        assert all(field.description for field in model.model_fields.values())
