"""Recipes: defaults, what follows from what, and every mistake named by its key path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.config import PRESETS
from hyena_glt.errors import ConfigError, ModelFileError, SystemProblem, UsageError
from hyena_glt.training.recipe import Recipe, Section, build_recipe, differences, load_recipe


@pytest.fixture
def read(tmp_path):
    """`read(text, "a.b=c")`: the recipe of a file."""

    def load(text: str | bytes, *changes: str) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_recipe(path, changes)

    return load


def test_an_empty_recipe_is_a_whole_one(read):
    recipe = read("")
    assert recipe.model.hidden_size == PRESETS["small"]["hidden_size"]
    assert recipe.model.alphabet == "dna"
    assert recipe.schedule.most_steps == 1000
    assert (recipe.patching.mode, recipe.patching.size) == ("static", 16.0)


def test_sections_and_presets_are_read(read):
    recipe = read(
        "model: {preset: tiny, dropout: 0.1}\noptimizer:\n  lr: 1e-3\ndata:\n# window: 3\nobjective: next_byte\n"
    )
    assert (recipe.model.hidden_size, recipe.model.num_layers, recipe.model.dropout) == (128, 2, 0.1)
    assert recipe.optimizer.lr == 0.001
    assert recipe.data.window == 8192


def test_files_lie_beside_the_recipe(read, tmp_path):
    recipe = read("data: {files: [a.fa, /b.fa]}\npatching: {mode: entropy, patcher: p}")
    assert recipe.data.files == (str(tmp_path / "a.fa"), "/b.fa")
    assert recipe.patching.patcher == str(tmp_path / "p")
    by_track = "patching: {mode: track, track: t.bw, threshold: 0}\ndata: {reverse_complement: false}"
    assert read(by_track).patching.track == str(tmp_path / "t.bw")
    assert "files" not in recipe.facts()["data"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"objective": "masked_byte"}, {"causal": False}),
        ({"objective": {"kind": "masked_byte"}}, {"causal": False}),
        ({"data": {"alphabet": "rna"}}, {"alphabet": "rna", "causal": True}),
        (
            {"patching": {"mode": "learned", "target_length": 6, "max_length": 9}},
            {"boundaries": "learned", "target_patch_length": 6.0, "max_patch_length": 9},
        ),
    ],
)
def test_the_net_follows_from_the_other_sections(given, expected):
    model = build_recipe(given).model
    assert {name: getattr(model, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("modle: {preset: tiny}", ConfigError, ["modle: unknown key; did you mean model?"]),
        ("model: {hiden_size: 3}", ConfigError, ["model.hiden_size: unknown key; did you mean model.hidden_size?"]),
        ("lr: 3", ConfigError, ["lr: unknown key; did you mean optimizer.lr?"]),
        ("model: {preset: huge}", ConfigError, ["model.preset", "tiny", "'huge'"]),
        ("model: {hidden_size: wide}", ConfigError, ["model.hidden_size: expected a number, got 'wide'"]),
        ("model: 3", ConfigError, ["recipe.yaml:1: model: expected a section of options, got 3"]),
        ("seed: 1\noptimizer:\n  lr: -1", ConfigError, ["recipe.yaml:3: optimizer.lr: input"]),
        ("seed: 1\noptimizer:\n  betas:\n  - 0.1\n  - 2", ConfigError, ["recipe.yaml:5: optimizer.betas.1: input"]),
        ("seed: 1\nmodle: 2", ConfigError, ["recipe.yaml:2: modle: unknown key"]),
        ("seed: 1\noptimizer: {lr: .inf}", ModelFileError, ["recipe.yaml:2: optimizer.lr: expected finite"]),
        ("model: {mixed_precision: fp16}", ConfigError, ["mixed_precision: expected fp32 or bf16"]),
        ("optimizer: {lr: '3'}", ConfigError, ["optimizer.lr: expected a number, got '3'"]),
        ("optimizer: {lr: .nan}", ModelFileError, ["optimizer.lr: expected finite numbers"]),
        ("optimizer: {betas: [.inf, 0.9]}", ModelFileError, ["optimizer.betas.0: expected finite numbers"]),
        ("optimizer: {betas: [0.9]}", ConfigError, ["optimizer.betas.1"]),
        ("optimizer: {lr: 1e38}", ConfigError, ["optimizer.lr", "less than or equal to"]),
        ("optimizer: {lr: 0}", ConfigError, ["optimizer.lr", "greater than 0"]),
        ("seed: true", ConfigError, ["seed: expected a number, got True"]),
        ("schedule: {steps: 2019-01-01}", ConfigError, ["schedule.steps"]),
        ("compile: 1", ConfigError, ["compile"]),
        ("seed: 1\nseed: 2", ModelFileError, ["recipe.yaml:2: ", "seed: the key appears more than once"]),
        ("data:\n  gap: 1\n  gap: 2", ModelFileError, [":3: ", "data.gap: the key appears more than once"]),
        ("a: &x 1\nb: *x", ModelFileError, [":2: ", "aliases"]),
        ("a: [", ModelFileError, ["not a recipe"]),
        ("- 1", ModelFileError, ["expected a YAML mapping of sections, got list"]),
        ("1: 2", ModelFileError, ["1: expected a name as key"]),
        ("!!python/object:os.system {}", ModelFileError, ["not a recipe"]),
        (b"\xff\xfe\xfd", ModelFileError, ["not YAML"]),
        ("[" * 100_000, ModelFileError, ["not"]),
        ("objective: masked_byte\nmodel: {causal: true}", ConfigError, ["model.causal: expected False"]),
        ("model: {causal: false}", ConfigError, ["model.causal: expected True"]),
        ("objective: masked_byte\npatching: {mode: entropy}", ConfigError, ["patching.mode", "tell what is hidden"]),
        ("patching: {mode: byte, size: 4}", ConfigError, ["size: has no meaning with patching.mode byte"]),
        ("patching: {mode: entropy, patcher: p, target_length: 9}", ConfigError, ["target_length: has no meaning"]),
        (
            "patching: {mode: track, threshold: 0.5}",
            ConfigError,
            ["track: expected with patching.mode track, got None"],
        ),
        ("patching: {mode: track, track: t.bw}", ConfigError, ["threshold: expected with patching.mode track"]),
        ("patching: {mode: entropy, track: t.bw}", ConfigError, ["track: has no meaning with patching.mode entropy"]),
        (
            "patching: {mode: track, track: t.bw, threshold: 0.5}",
            ConfigError,
            ["data.reverse_complement: expected false with patching.mode track"],
        ),
        ("evaluation: {keep: best}", ConfigError, ["evaluation.keep: expected last where nothing is held out"]),
        ("evaluation: {patience: 2}", ConfigError, ["patience: has no meaning without keep best and every"]),
        ("model: {boundaries: learned}", ConfigError, ["model.boundaries: expected 'patcher'"]),
        ("data: {alphabet: protein}", ConfigError, ["data.reverse_complement: expected false"]),
        ("model: {genomic_vocab_size: 4, alphabet: dna}\ndata: {alphabet: rna}", None, []),
        ("model: {genomic_vocab_size: 20, alphabet: protein}", ConfigError, ["data.alphabet: expected one of protein"]),
    ],
)
def test_a_mistake_is_named_by_its_key_path(read, text, kind, words):
    if kind is None:
        assert read(text).data.alphabet == "rna"
        return
    with pytest.raises(kind) as caught:
        read(text)
    message = str(caught.value)
    assert "recipe.yaml" in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_set_changes_one_option(read):
    recipe = read("optimizer: {lr: 1, weight_decay: 0}\nobjective: masked_byte", "optimizer.lr=3e-4", "data.window=512")
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.data.window) == (3e-4, 0.0, 512)
    recipe = read("objective: masked_byte", "objective.mask_rate=0.3", "data.held_out_contigs=[a, b]")
    assert (recipe.objective.kind, recipe.objective.mask_rate) == ("masked_byte", 0.3)
    assert recipe.data.held_out_contigs == ("a", "b")
    assert read("", "objective=masked_byte").model.causal is False


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ("optimizer.lr", UsageError, "expected key.path=value"),
        ("=3", UsageError, "expected key.path=value"),
        ("optimizer..lr=3", UsageError, "expected key.path=value"),
        ("optimiser.lr=3", UsageError, "--set: optimiser: unknown key; did you mean optimizer?"),
        ("optimizer.lrr=3", UsageError, "--set: optimizer.lrr: unknown key; did you mean optimizer.lr?"),
        ("optimizer.lr=.nan", ModelFileError, "expected finite numbers"),
        ("optimizer.lr=", UsageError, "--set optimizer.lr: optimizer.lr"),
        ("optimizer.lr=-1", UsageError, "--set optimizer.lr: optimizer.lr: input should be greater than 0, got -1"),
        ("data.files=5", UsageError, "--set data.files: data.files: expected a list, got 5"),
        ("patching={mode: byte, size: 4}", UsageError, "--set patching: patching: size: has no meaning"),
        ("optimizer.lr=[", ModelFileError, "--set optimizer.lr"),
    ],
)
def test_a_wrong_change_is_refused(read, change, kind, word):
    with pytest.raises(kind, match=re.escape(word)):
        read("", change)


def test_a_change_does_not_hide_a_wrong_section(read):
    with pytest.raises(ConfigError, match="optimizer"):
        read("optimizer: 3", "optimizer.lr=1")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SystemProblem, match=r"no\.yaml"):
        load_recipe(tmp_path / "no.yaml")


def test_a_file_that_is_too_large_is_refused(read):
    with pytest.raises(ModelFileError, match="at most"):
        read("#" * ((1 << 20) + 1))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.fixed_dictionaries({"preset": st.sampled_from(list(PRESETS))}),
            "optimizer": st.fixed_dictionaries({"lr": st.floats(1e-9, 10)}),
            "schedule": st.fixed_dictionaries({"steps": st.integers(1, 10**9)}),
            "objective": st.sampled_from(["next_byte", "masked_byte"]),
            "patching": st.sampled_from([{"mode": "byte"}, {"mode": "static", "size": 4.5}, {"mode": "learned"}]),
            "seed": st.integers(0, (1 << 63) - 1),
        },
    )
)
def test_the_facts_of_a_recipe_give_it_again(options):
    recipe = build_recipe(options)
    again = build_recipe(recipe.facts())
    assert again == recipe
    assert differences(recipe.facts(), again.facts()) == []


def test_differences_name_key_paths():
    old, new = build_recipe({"model": {"preset": "tiny"}}), build_recipe({"model": {"preset": "tiny"}, "seed": 3})
    assert differences(old.facts(), new.facts()) == ["seed: 0, now 3"]
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}, "d": 1}) == ["a.c: 2, now None", "d: None, now 1"]


DOCS = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def test_the_recipe_of_the_documentation_is_read(read):
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    recipe = read(text)
    assert (recipe.model.hidden_size, recipe.patching.mode, recipe.patching.size) == (128, "static", 16.0)
    assert recipe.optimizer.lr == 2e-3


def test_every_option_is_documented():
    text = DOCS.read_text()
    for name, field in Recipe.model_fields.items():
        assert f"`{name}`" in text
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for option in section.model_fields:
                assert f"`{option}`" in text, f"{name}.{option}"
