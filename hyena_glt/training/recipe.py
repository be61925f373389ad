"""What a training run is: read from YAML and `--set a.b=c`, every option checked and named by its key path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, field_validator, model_validator

from hyena_glt.checks import LARGEST_RATE, build_config, nearest_name
from hyena_glt.config import PRESETS, VOCABULARY_LETTERS, AlphabetName, HyenaGLTConfig, PositiveWhole, Real, Whole
from hyena_glt.errors import ConfigError, ModelFileError, SystemProblem, UsageError
from hyena_glt.training.strict_yaml import line_of, parse_yaml, parse_yaml_value

PatchingName = Literal["byte", "static", "entropy", "mix", "track", "random", "learned"]
LARGEST_FILE = 1 << 20  # bytes of YAML that are read
PATCHING_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "byte": (),
    "static": ("size",),
    "entropy": ("target_length", "min_length", "max_length", "patcher", "fit_bases"),
    "mix": ("target_length", "min_length", "max_length", "fit_bases"),
    "track": ("track", "threshold", "min_length", "max_length"),
    "random": ("target_length", "min_length", "max_length", "patcher", "fit_bases"),
    "learned": ("target_length", "min_length", "max_length"),
}
LETTER_BLIND = ("byte", "static", "track", "random", "learned")  # patches that do not tell which letters are hidden
DEFAULT_PRESET = "small"
DEFAULT_STEPS = 1000

Share = Annotated[Real, Field(ge=0, lt=1)]
PositiveReal = Annotated[Real, Field(gt=0)]
Rate = Annotated[Real, Field(gt=0, le=LARGEST_RATE)]
Decay = Annotated[Real, Field(ge=0, le=LARGEST_RATE)]


class Section(BaseModel):
    """One part of a recipe: fixed once read, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataSection(Section):
    """Which sequence is learned and which is held out."""

    files: tuple[str, ...] = Field(
        default=(), description="FASTA files, beside the recipe; the command line overrides them"
    )
    alphabet: AlphabetName = Field(default="dna", description="what the sequences may hold")
    keep_case: StrictBool = Field(default=False, description="tell soft-masked (lower-case) letters from others")
    window: Annotated[Whole, Field(ge=2)] = Field(default=8192, description="bases in a window")
    stride: PositiveWhole | None = Field(default=None, description="bases from a window to the next; None: no overlap")
    max_ambiguous_share: Annotated[Real, Field(ge=0, le=1)] = Field(
        default=0.5, description="windows with a larger share of N and other ambiguity symbols are left out"
    )
    held_out_contigs: tuple[str, ...] = Field(default=(), description="contigs that are only evaluated on, by name")
    held_out_share: Share = Field(default=0.0, description="share of the sequence that is only evaluated on")
    block: PositiveWhole = Field(default=1 << 20, description="bases of a held-out block")
    gap: Annotated[Whole, Field(ge=0)] = Field(
        default=8192, description="unused bases on each side of a held-out block"
    )
    reverse_complement: StrictBool = Field(default=True, description="learn each window on either strand")
    shift: StrictBool = Field(default=False, description="move all windows by some bases, drawn anew in each epoch")


class PatchingSection(Section):
    """Where patches start."""

    mode: PatchingName = Field(default="static", description="random: the lengths of entropy patches, in random order")
    size: Annotated[Real, Field(ge=1)] = Field(default=16.0, description="bases per patch of static mode")
    target_length: Annotated[Real, Field(gt=1)] = Field(default=16.0, description="wanted mean bases per patch")
    min_length: PositiveWhole | None = Field(default=None, description="bases; earlier starts are ignored")
    max_length: PositiveWhole | None = Field(default=None, description="bases; longer patches are cut")
    patcher: str | None = Field(
        default=None, description="a patcher saved by calibrate, beside the recipe; None: fit one"
    )
    fit_bases: PositiveWhole = Field(
        default=1 << 26, description="training bases that entropy model and threshold are fit on"
    )
    track: str | None = Field(default=None, description="bigWig or bedGraph of track mode, beside the recipe")
    threshold: Real | None = Field(default=None, description="a patch starts behind a base whose score is above it")

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        allowed = PATCHING_OPTIONS[self.mode]
        useless = sorted(self.model_fields_set - {"mode", *allowed} - self._as_default())
        if useless:
            raise ValueError(f"{useless[0]}: has no meaning with patching.mode {self.mode}")
        if self.mode == "track" and (self.track is None or self.threshold is None):
            missing = "track" if self.track is None else "threshold"
            raise ValueError(f"{missing}: expected with patching.mode track, got None")
        fitted = sorted((self.model_fields_set - {"mode", "patcher"}) - self._as_default())
        if self.patcher is not None and fitted:
            raise ValueError(f"{fitted[0]}: has no meaning beside patching.patcher, which is fitted already")
        return self

    def _as_default(self) -> set[str]:
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default}


class ObjectiveSection(Section):
    """What is predicted."""

    kind: Literal["next_byte", "masked_byte"] = Field(
        default="next_byte", description="masked_byte: a net that sees both sides"
    )
    mask_rate: Annotated[Real, Field(gt=0, lt=1)] = Field(default=0.15, description="chance that a letter is hidden")


class OptimizerSection(Section):
    """AdamW."""

    lr: Rate = Field(default=2e-3, description="highest learning rate")
    betas: tuple[Share, Share] = Field(default=(0.9, 0.95), description="of the running means")
    weight_decay: Decay = Field(default=0.1, description="of the matrices of linear layers, no others")
    clip_norm: PositiveReal = Field(default=1.0, description="longest gradient, all parameters together")


class ScheduleSection(Section):
    """How long: the learning rate goes up a line, then down a cosine."""

    steps: PositiveWhole | None = Field(default=None, description="updates; None: 1000, or those that `seconds` allows")
    seconds: PositiveReal | None = Field(default=None, description="longest training time; what it cuts off varies")
    warm_up: Share = Field(default=0.05, description="share of the training in which the rate rises")
    floor: Annotated[Real, Field(ge=0, le=1)] = Field(default=0.1, description="last rate, as a share of the highest")

    @property
    def most_steps(self) -> int | None:
        """Updates after which training ends, if it ends by count."""
        return DEFAULT_STEPS if self.steps is None and self.seconds is None else self.steps


class BatchSection(Section):
    """Windows of an update: size x accumulate x processes."""

    size: PositiveWhole = Field(default=8, description="windows of a forward, in each process")
    accumulate: PositiveWhole = Field(default=1, description="forwards of an update")


class EvaluationSection(Section):
    """Bits per base on held-out sequence."""

    every: PositiveWhole | None = Field(default=500, description="updates from one to the next; None: at the end only")
    batches: PositiveWhole | None = Field(
        default=64, description="batches, spread over the held-out windows; None: all"
    )
    keep: Literal["last", "best"] = Field(
        default="last", description="weights of the finished net: the last ones, or those with the fewest held-out bits"
    )
    patience: PositiveWhole | None = Field(
        default=None, description="with keep best: training ends after so many evaluations without a better one"
    )

    @model_validator(mode="after")
    def _best_can_be_found(self) -> Self:
        if self.patience is not None and (self.keep != "best" or self.every is None):
            raise ValueError("patience: has no meaning without keep best and every")
        return self


class SamplesSection(Section):
    """Sequence that the net writes on the way."""

    every: PositiveWhole | None = Field(default=None, description="updates from one to the next; None: never")
    length: PositiveWhole = Field(default=200, description="bases")


class CheckpointSection(Section):
    """What a run continues from."""

    every: PositiveWhole = Field(default=500, description="updates from one to the next")
    keep: PositiveWhole = Field(default=3, description="newest checkpoints that stay")


def _named_kind(value: object) -> object:
    """`objective: masked_byte` for `objective: {kind: masked_byte}`."""
    return {"kind": value} if isinstance(value, str) else value


class Recipe(Section):
    """A training run, as a file says it.

    Example:
        >>> recipe = build_recipe({"model": {"preset": "tiny"}, "objective": "masked_byte"})
        >>> recipe.model.hidden_size, recipe.model.causal
        (128, False)
    """

    model: HyenaGLTConfig = Field(description="preset, and any field of HyenaGLTConfig")
    data: DataSection = DataSection()
    patching: PatchingSection = PatchingSection()
    objective: Annotated[ObjectiveSection, BeforeValidator(_named_kind)] = ObjectiveSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    batch: BatchSection = BatchSection()
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16: matrix products of the training in bf16"
    )
    gradient_checkpointing: StrictBool = Field(default=False, description="recompute the trunk backwards: less memory")
    compile: StrictBool = Field(default=False, description="torch.compile the net")
    evaluation: EvaluationSection = EvaluationSection()
    samples: SamplesSection = SamplesSection()
    checkpoint: CheckpointSection = CheckpointSection()
    seed: Annotated[Whole, Field(ge=0, lt=1 << 63)] = Field(
        default=0, description="of weights, order, strands and masks"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete_model(cls, options: Any) -> Any:
        """Put the preset and what the other sections imply into the model's fields."""
        model = options.get("model", {})
        if not isinstance(model, Mapping):
            return options
        model = dict(model)
        preset = model.pop("preset", None if "hidden_size" in model else DEFAULT_PRESET)
        implied = {**_implied(options), **(_preset(preset) if preset is not None else {})}
        return {**options, "model": {**implied, **model}}

    @field_validator("model")
    @classmethod
    def _trainable(cls, model: HyenaGLTConfig) -> HyenaGLTConfig:
        if model.mixed_precision == "fp16":
            raise ValueError("mixed_precision: expected fp32 or bf16 in training; fp16 gradients vanish")
        return model

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for wrong, message in self._contradictions():
            if wrong:
                raise ValueError(message)
        return self

    def _contradictions(self) -> Iterator[tuple[bool, str]]:
        masked, mode = self.objective.kind == "masked_byte", self.patching.mode
        learned, letters = mode == "learned", VOCABULARY_LETTERS[self.model.genomic_vocab_size]
        yield (
            masked == self.model.causal,
            f"model.causal: expected {not masked} with objective {self.objective.kind}, got {self.model.causal}",
        )
        yield (
            learned != (self.model.boundaries == "learned"),
            f"model.boundaries: expected '{'learned' if learned else 'patcher'}' with patching.mode {mode}, "
            f"got '{self.model.boundaries}'",
        )
        yield (
            masked and mode not in LETTER_BLIND,
            f"patching.mode: expected one of {', '.join(LETTER_BLIND)} with objective masked_byte, got {mode}: "
            "patches cut by the letters tell what is hidden",
        )
        yield (
            self.data.alphabet not in letters,
            f"data.alphabet: expected one of {', '.join(letters)} with model.genomic_vocab_size "
            f"{self.model.genomic_vocab_size}, got {self.data.alphabet}",
        )
        yield (
            self.data.reverse_complement and self.data.alphabet not in ("dna", "rna"),
            f"data.reverse_complement: expected false with data.alphabet {self.data.alphabet}, which has one strand",
        )
        yield (
            self.data.reverse_complement and mode == "track",
            "data.reverse_complement: expected false with patching.mode track, which scores the forward strand",
        )
        yield (
            self.evaluation.keep == "best" and not (self.data.held_out_share or self.data.held_out_contigs),
            "evaluation.keep: expected last where nothing is held out (data.held_out_share, data.held_out_contigs)",
        )

    def facts(self) -> dict[str, Any]:
        """Every option as JSON, the names of the input files left out: their content counts."""
        return self.model_dump(mode="json", exclude={"data": {"files"}})


def _implied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the net that follow from other sections, unless the recipe sets them."""
    objective, patching, data = (options.get(name) for name in ("objective", "patching", "data"))
    kind = objective.get("kind") if isinstance(objective, Mapping) else objective
    implied: dict[str, Any] = {"causal": kind != "masked_byte"}
    alphabet = data.get("alphabet", "dna") if isinstance(data, Mapping) else "dna"
    if alphabet in VOCABULARY_LETTERS[256]:
        implied["alphabet"] = alphabet
    if isinstance(patching, Mapping) and patching.get("mode") == "learned":
        implied["boundaries"] = "learned"
        names = {"target_length": "target_patch_length", "min_length": "min_patch_length"}
        names["max_length"] = "max_patch_length"
        implied |= {names[key]: patching[key] for key in names if key in patching}
    return implied


def _preset(name: object) -> Mapping[str, Any]:
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"model.preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]


def load_recipe(path: str | os.PathLike[str], changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML with the sections of `Recipe`.
        changes: `"a.b=c"` each, as `--set` gives them; the value is YAML.

    Returns:
        The recipe; `data.files`, `patching.patcher` and `patching.track` that are no absolute paths are taken from its
        folder.

    Raises:
        ModelFileError: No YAML mapping, a key twice, NaN or infinity; line and key path are named.
        ConfigError: Unknown, wrong or contradicting options in the file, by line and key path.
        UsageError: The same in a change, or one without `=`.
        SystemProblem: The file cannot be read.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise SystemProblem(f"{name}: cannot read: {error.strerror}") from error
    if len(text) > LARGEST_FILE:
        raise ModelFileError(f"expected a recipe of at most {LARGEST_FILE:,} bytes", path=name)
    options = parse_yaml(text, path=name)
    _anchor(options, Path(name).parent)
    for change in changes:
        _apply(options, change)
    try:
        return build_recipe(options)
    except ConfigError as problem:
        key = str(problem).partition(": ")[0]
        line = line_of(text, key)
        for path in (change.partition("=")[0].strip() for change in changes):
            if f"{key}.".startswith(f"{path}.") or (not line and f"{path}.".startswith(f"{key}.")):
                raise UsageError(f"--set {path}: {problem}") from None
        raise ConfigError(f"{name}{line}: {problem}") from None


def build_recipe(options: Mapping[str, Any]) -> Recipe:
    """A recipe from nested options, by section; a missing section has its defaults.

    Raises:
        ConfigError: Unknown, wrong or contradicting options, by key path.
    """
    fault = next(_unknown_keys(Recipe, options), None)
    if fault is not None:
        raise ConfigError(fault)
    given = {name: value for name, value in options.items() if value is not None}  # `data:` and nothing below
    return build_config(Recipe, {"model": {}, **given})


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Key paths whose values differ, as `"a.b: 1, now 2"`."""
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before!r}, now {after!r}")
    return found


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    kind = model.model_fields[name].annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _known(model: type[BaseModel]) -> list[str]:
    return [*model.model_fields, *(["preset"] if model is HyenaGLTConfig else [])]


def _unknown_keys(model: type[BaseModel], options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A message for each key that no section has, with the nearest key path."""
    known = _known(model)
    for key, value in options.items():
        if key not in known:
            near = nearest_name(str(key), known)
            meant = f"{prefix}{near}" if near else _elsewhere(str(key))
            yield f"{prefix}{key}: unknown key" + (f"; did you mean {meant}?" if meant else "")
        elif isinstance(value, Mapping) and key in model.model_fields:
            section = _section(model, key)
            if section is not None:
                yield from _unknown_keys(section, value, f"{prefix}{key}.")


def _elsewhere(key: str) -> str | None:
    """The key path in any section whose last part comes nearest."""
    paths: dict[str, str] = {}
    for name in Recipe.model_fields:
        section = _section(Recipe, name)
        paths |= {field: f"{name}.{field}" for field in (_known(section) if section else [])}
    near = nearest_name(key.rpartition(".")[2], paths)
    return paths[near] if near else None


def _anchor(options: dict[str, Any], folder: Path) -> None:
    """Make the relative paths of a recipe's file start at its folder."""
    data, patching = options.get("data"), options.get("patching")
    if isinstance(data, dict) and isinstance(data.get("files"), list):
        data["files"] = [str(folder / name) if isinstance(name, str) else name for name in data["files"]]
    for key in ("patcher", "track"):
        if isinstance(patching, dict) and isinstance(patching.get(key), str):
            patching[key] = str(folder / patching[key])


def _apply(options: dict[str, Any], change: str) -> None:
    """Set one `a.b=c`."""
    path, equals, text = change.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set: expected key.path=value, got {change!r}")
    value = parse_yaml_value(text, place=f"--set {path}")
    nested: dict[str, Any] = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        nested = {key: nested}
    fault = next(_unknown_keys(Recipe, nested), None)
    if fault is not None:
        raise UsageError(f"--set: {fault}")
    place = options
    for key in keys[:-1]:
        inner = place.get(key)
        if isinstance(inner, str) and key == "objective":
            inner = {"kind": inner}
        if inner is not None and not isinstance(inner, Mapping):
            return  # no section at all; the check of the whole recipe says so
        place[key] = dict(inner or {})
        place = place[key]
    place[keys[-1]] = value
