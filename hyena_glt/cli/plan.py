"""How a genome is going to be patched: the model, the rule and the threshold that a command's options ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyena_glt.cli.runtime import note, prefetched, progress
from hyena_glt.cli.source import GenomeSource, counted
from hyena_glt.errors import DataError, UsageError
from hyena_glt.sequences.regions import check_regions

if TYPE_CHECKING:
    from hyena_glt.entropies.markov import MarkovEntropy
    from hyena_glt.patching.args import PatcherArgs
    from hyena_glt.patching.genome import GenomeSurvey

DEFAULT_TARGET_LENGTH = 16.0
TOLERANCE = 0.02  # share of the target by which a calibrated mean may miss it without a note


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """The patching options of a command line, before anything is read."""

    mode: str = "entropy"
    threshold: float | None = None
    threshold_add: float | None = None
    monotonicity: bool = False
    target_length: float | None = None
    patch_size: float | None = None
    min_patch_length: int | None = None
    max_patch_length: int | None = None
    order: int | None = None
    entropy_model: Path | None = None
    patcher: Path | None = None
    threads: int = 1

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: Two options that cannot both hold.
        """
        rules = ["threshold", "threshold_add", "target_length", "patch_size", "min_patch_length"]
        rules += ["max_patch_length", "order", "entropy_model"]
        if self.patcher is not None and (given := [name for name in rules if getattr(self, name) is not None]):
            raise UsageError(f"--patcher brings its own rule and model; leave out {_flags(given)}")
        if self.threshold is not None and self.target_length is not None:
            raise UsageError("--threshold and --target-length exclude each other")
        if self.entropy_model is not None and self.order is not None:
            raise UsageError("--entropy-model has its own order; leave out --order")
        entropy_only = ("threshold", "threshold_add", "target_length")
        if self.mode != "entropy" and (given := [n for n in entropy_only if getattr(self, n) is not None]):
            raise UsageError(f"{_flags(given)} belongs to --mode entropy, not {self.mode}")
        if self.mode != "static" and self.patch_size is not None:
            raise UsageError(f"--patch-size belongs to --mode static, not {self.mode}")
        if self.monotonicity and self.threshold_add is not None:
            raise UsageError("--monotonicity and --threshold-add are two rules; give one")

    def patcher_args(self) -> PatcherArgs:
        """The patcher that the options stand for; a threshold that is to be calibrated is 0 for now."""
        from hyena_glt.patching.args import PatcherArgs

        fields: dict[str, Any] = {
            "patching_mode": self.mode,
            "threshold_add": self.threshold_add,
            "monotonicity": self.monotonicity,
            "min_patch_length": self.min_patch_length,
            "max_patch_length": self.max_patch_length,
        }
        if self.mode == "entropy":
            fields["threshold"] = self.threshold or 0.0
        if self.patch_size is not None:
            fields["patch_size"] = self.patch_size
        return PatcherArgs(**fields)


@dataclass(frozen=True, kw_only=True)
class PatchPlan:
    """What `patch_blocks` needs, and what outputs say about it."""

    args: PatcherArgs
    model: MarkovEntropy
    survey: GenomeSurvey | None

    @property
    def target_length(self) -> float | None:
        """The mean patch length that the threshold was calibrated to."""
        return self.args.calibration.target_mean_length if self.args.calibration else None

    @property
    def threshold(self) -> float | None:
        """Nats; None in modes without one."""
        return self.args.threshold if self.args.uses_scores else None

    def describe(self) -> dict[str, Any]:
        """For provenance."""
        rule = self.args.model_dump(mode="json", exclude_defaults=True, exclude={"calibration"})
        return {
            "patching": {"patching_mode": str(self.args.patching_mode), **rule},
            "entropy_model": self.model.describe(),
        }


def make_plan(source: GenomeSource, options: PatchOptions, *, survey: bool = False) -> PatchPlan:
    """Decide rule, model and threshold, reading the input once if that is needed.

    Args:
        source: The genome.
        options: Checked options.
        survey: Read the input in any case (a writer needs the contig lengths).

    Raises:
        UsageError: The saved patcher or model is for another alphabet.
        DataError: The input is bad.
    """
    args, model = _saved(options)
    _check_alphabet(model, source)
    if options.mode == "space" and source.alphabet.name != "bytes":
        note(f"--mode space cuts after separators, and {source.alphabet.name} has none: expect one long patch")
    calibrates = args is None and options.mode == "entropy" and options.threshold is None
    seen = None
    if survey or model is None or calibrates:
        seen = _survey(source, options, model)
        model = seen.model
    assert model is not None
    args = options.patcher_args() if args is None else args
    if calibrates:
        assert seen is not None
        args = _calibrated(seen, args, options.target_length or DEFAULT_TARGET_LENGTH, source)
    args.entropy_model = model
    return PatchPlan(args=args, model=model, survey=seen)


def fitted_model(source: GenomeSource, options: PatchOptions) -> GenomeSurvey:
    """Read the input once for its contig lengths, and for a model unless `options` names a saved one."""
    _, model = _saved(options)
    _check_alphabet(model, source)
    return _survey(source, options, model)


def needs_two_passes(options: PatchOptions) -> bool:
    """Whether the input has to be read before it is patched."""
    has_model = options.patcher is not None or options.entropy_model is not None
    has_rule = options.patcher is not None or options.mode != "entropy" or options.threshold is not None
    return not (has_model and has_rule)


def _saved(options: PatchOptions) -> tuple[PatcherArgs | None, MarkovEntropy | None]:
    """Options and model of `--patcher`, or the model of `--entropy-model`."""
    from hyena_glt.entropies.markov import MarkovEntropy

    if options.patcher is not None:
        from hyena_glt.patching.saved import load_patcher

        args = load_patcher(options.patcher)
        if args.uses_scores and not isinstance(args.entropy_model, MarkovEntropy):
            raise DataError(
                "this patcher was saved without an entropy model; make one with calibrate", path=options.patcher
            )
        return args, args.entropy_model
    if options.entropy_model is not None:
        return None, MarkovEntropy.load(options.entropy_model)
    return None, None


def _check_alphabet(model: MarkovEntropy | None, source: GenomeSource) -> None:
    nucleic = {"dna", "rna"}
    if model is None or model.alphabet == source.alphabet or {model.alphabet.name, source.alphabet.name} <= nucleic:
        return
    raise UsageError(
        f"the entropy model is for {model.alphabet.name}, the input is {source.alphabet.name}; "
        f"give --alphabet {model.alphabet.name} or another model"
    )


def _survey(source: GenomeSource, options: PatchOptions, model: MarkovEntropy | None) -> GenomeSurvey:
    from hyena_glt.patching.genome import survey_genome

    with progress("fitting" if model is None else "reading") as advance:
        blocks = prefetched(counted(source.all_blocks(), advance), options.threads)
        survey = survey_genome(blocks, source.alphabet, model=model, order=options.order)
    check_regions(source.regions, survey.contig_lengths, source.name)
    return survey


def _calibrated(survey: GenomeSurvey, args: PatcherArgs, target: float, source: GenomeSource) -> PatcherArgs:
    """The options with the threshold for the wanted mean length, or the nearest that this input allows."""
    from hyena_glt.patching.args import CalibrationRecord
    from hyena_glt.patching.genome import scan_rule

    if not survey.sample:
        note("no letter in the input, nothing to calibrate on")
        return args
    found = survey.calibrate(scan_rule(args), target)
    if abs(found.mean_length - target) > TOLERANCE * target:
        note(
            f"a mean patch length of {target:g} is out of reach with this input; the nearest is {found.mean_length:.2f}"
        )
    record = CalibrationRecord(
        target_mean_length=target,
        mean_length=found.mean_length,
        num_tokens=sum(map(len, survey.sample)),
        data_sha256=source.sha256 or "",
        entropy_model=survey.model.name if survey.model else None,
    )
    return args.model_copy(update={"threshold": found.threshold, "calibration": record})


def _flags(names: list[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)
