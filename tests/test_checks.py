"""Messages about options and JSON: the key, the expectation, the place, the way out."""

from __future__ import annotations

import pytest

from hyena_glt.checks import build_config, load_config, nearest_name, parse_json
from hyena_glt.config import HyenaGLTConfig, PatcherFields
from hyena_glt.errors import ConfigError, ModelFileError, SystemProblem


def test_an_unknown_key_is_named_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"^run.json: treshold: unknown key; did you mean threshold\?$"):
        build_config(PatcherFields, {"treshold": 1.0}, place="run.json")


def test_a_key_like_no_other_gets_no_guess():
    with pytest.raises(ConfigError, match=r"^xyzzy: unknown key$"):
        build_config(PatcherFields, {"xyzzy": 1.0})


def test_a_wrong_type_is_named_with_its_path():
    with pytest.raises(ConfigError, match=r"ngram_sizes\.1: expected a number, got 'six'"):
        build_config(HyenaGLTConfig, {"ngram_sizes": [3, "six"]})


def test_every_fault_is_in_one_line():
    with pytest.raises(ConfigError) as caught:
        build_config(HyenaGLTConfig, {"hidden_size": -1, "dropout": float("nan"), "mixed_precision": "x" * 500})
    message = str(caught.value)
    assert "\n" not in message
    assert all(key in message for key in ("hidden_size", "dropout", "mixed_precision"))
    assert len(message) < 400


def test_sound_options_are_built():
    assert build_config(PatcherFields, {"patching_mode": "byte"}).patching_mode == "byte"


def test_nearest_name_finds_a_slip_and_nothing_else():
    assert nearest_name("hiden_size", ["hidden_size", "num_layers"]) == "hidden_size"
    assert nearest_name("colour", ["hidden_size", "num_layers"]) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "'a' appears more than once"),
        ('{"a": {"b": 1, "b": 1}}', "'b' appears more than once"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ("[1]", "expected a JSON object, got list"),
        ("", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_no_plain_object_is_refused(text, reason):
    with pytest.raises(ModelFileError, match=reason):
        parse_json(text, path="x.json")


def test_a_syntax_error_has_its_line():
    with pytest.raises(ModelFileError, match=r"^x\.json:3: not JSON"):
        parse_json('{\n "a": 1,\n }', path="x.json")


def test_a_configuration_file_is_named_in_the_message(tmp_path):
    path = tmp_path / "net.json"
    path.write_text('{"num_layer": 3}')
    with pytest.raises(ConfigError, match=r"net\.json: num_layer: unknown key; did you mean num_layers\?"):
        load_config(HyenaGLTConfig, path)


def test_a_missing_configuration_file_is_a_system_problem(tmp_path):
    with pytest.raises(SystemProblem, match="No such file"):
        load_config(HyenaGLTConfig, tmp_path / "absent.json")
