"""How a genome is going to be patched: the model, the rule and the threshold that a command's options ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hyena_glt.cli.runtime import note, prefetched, progress
from hyena_glt.cli.source import GenomeSource, counted
from hyena_glt.errors import DataError, UsageError
from hyena_glt.sequences.regions import check_regions

if TYPE_CHECKING:
    from hyena_glt.patching.args import PatcherArgs
    from hyena_glt.patching.calibration import ContigThresholds
    from hyena_glt.patching.survey import GenomeSurvey

DEFAULT_TARGET_LENGTH = 16.0
MIX = "mix"  # names the model that learns as it reads and has no file
MIX_CAP = 1024  # bases
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
    fit_share: float | None = None
    entropy_model: Path | None = None
    tokenizer: Path | None = None
    bpe_patcher: Path | None = None
    track: Path | None = None
    missing: str | None = None
    half_life: float | None = None
    patcher: Path | None = None
    threads: int = 1

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: Two options that cannot both hold.
        """
        rules = ["threshold", "threshold_add", "target_length", "patch_size", "min_patch_length"]
        rules += ["max_patch_length", "order", "fit_share", "entropy_model", "tokenizer", "bpe_patcher", "track"]
        if self.patcher is not None and (given := [name for name in rules if getattr(self, name) is not None]):
            raise UsageError(f"--patcher brings its own rule and model; leave out {_flags(given)}")
        if self.threshold is not None and self.target_length is not None:
            raise UsageError("--threshold and --target-length exclude each other")
        if self.entropy_model is not None and (self.order is not None or self.fit_share is not None):
            raise UsageError("--entropy-model was fitted before; leave out --order and --fit-share")
        scored_only = ("threshold", "threshold_add", "target_length")
        if not self.is_scored and (given := [n for n in scored_only if getattr(self, n) is not None]):
            raise UsageError(f"{_flags(given)} belongs to --mode entropy or track, not {self.mode}")
        for mode, name in (("bpe", "tokenizer"), ("bpe_patcher", "bpe_patcher"), ("track", "track")):
            if (self.mode == mode) != (getattr(self, name) is not None) and self.patcher is None:
                raise UsageError(f"--mode {mode} and {_flags([name])} FILE go together")
        if self.mode == "track" and self.entropy_model is not None:
            raise UsageError("--mode track takes its scores from --track; leave out --entropy-model")
        if self.half_life is not None and (not self.is_scored or self.threshold is not None or self.is_dual):
            raise UsageError(
                "--half-life lets a calibrated threshold follow; it belongs to --mode entropy or track alone"
            )
        if self.missing is not None and self.track is None:
            raise UsageError("--missing says what a gap in --track counts for; give --track FILE")
        if self.mode != "static" and self.patch_size is not None:
            raise UsageError(f"--patch-size belongs to --mode static, not {self.mode}")
        if self.monotonicity and self.threshold_add is not None:
            raise UsageError("--monotonicity and --threshold-add are two rules; give one")

    @property
    def is_dual(self) -> bool:
        """Whether the rise of the entropy counts."""
        return self.monotonicity or self.threshold_add is not None

    @property
    def is_scored(self) -> bool:
        """Whether a threshold decides where patches start."""
        return self.mode in ("entropy", "track")

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
        if self.is_scored:
            fields["threshold"] = self.threshold or 0.0
        if self.tokenizer is not None:
            fields["model_name"] = str(self.tokenizer)
        if self.patch_size is not None:
            fields["patch_size"] = self.patch_size
        return PatcherArgs(**fields)


@dataclass(frozen=True, kw_only=True)
class PatchPlan:
    """What `patch_blocks` needs, and what outputs say about it."""

    args: PatcherArgs
    model: Any  # an entropy source with streams, which scores every base
    survey: GenomeSurvey | None
    contigs: ContigThresholds | None = None  # thresholds that differ from contig to contig
    half_life: float | None = None  # bases; None: the threshold stays

    def args_of(self, contig: str) -> PatcherArgs:
        """Where the patches of a contig start."""
        return self.args if self.contigs is None else self.contigs.args_for(contig)

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
        own = {} if self.contigs is None else {"contigs_with_own_threshold": len(self.contigs.contigs)}
        follows = {} if self.half_life is None else {"half_life": self.half_life}
        return {
            "patching": {"patching_mode": str(self.args.patching_mode), **rule, **own, **follows},
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
    args, model, contigs = _saved(options, source)
    _check_alphabet(model, source)
    if options.mode == "space" and source.alphabet.name != "bytes":
        note(f"--mode space cuts after separators, and {source.alphabet.name} has none: expect one long patch")
    calibrates = args is None and options.is_scored and options.threshold is None
    seen = None
    if survey or model is None or calibrates:
        seen = _survey(source, options, model)
        model = seen.model
    assert model is not None
    args = _with_cap(options.patcher_args(), model) if args is None else args
    if calibrates:
        assert seen is not None
        args = _calibrated(seen, args, options.target_length or DEFAULT_TARGET_LENGTH, source)
    if args.patching_mode != "bpe_patcher":
        args.entropy_model = model
    elif options.bpe_patcher is not None:
        args.entropy_model = _network(options.bpe_patcher)
    return PatchPlan(args=args, model=model, survey=seen, contigs=contigs, half_life=options.half_life)


def known_plan(source: GenomeSource, options: PatchOptions) -> PatchPlan:
    """The plan of an input that is read only once, so that nothing can be learned from it beforehand.

    Args:
        source: The genome.
        options: Checked options that name the rule, and the model if the rule needs one.
    """
    from hyena_glt.entropies.markov import MarkovEntropy

    args, model, contigs = _saved(options, source)
    _check_alphabet(model, source)
    model = MarkovEntropy.uniform(source.alphabet.name) if model is None else model
    args = _with_cap(options.patcher_args(), model) if args is None else args
    args.entropy_model = model
    return PatchPlan(args=args, model=model, survey=None, contigs=contigs)


def fitted_model(source: GenomeSource, options: PatchOptions) -> GenomeSurvey:
    """Read the input once for its contig lengths, and for a model unless `options` names a saved one."""
    model = _saved(options, source).model
    _check_alphabet(model, source)
    return _survey(source, options, model)


def needs_two_passes(options: PatchOptions) -> bool:
    """Whether the input has to be read before it is patched."""
    has_model = any(given is not None for given in (options.patcher, options.entropy_model, options.track))
    has_rule = options.patcher is not None or not options.is_scored or options.threshold is not None
    return not (has_model and has_rule)


class _Saved(NamedTuple):
    """What files say about rule and model."""

    args: PatcherArgs | None = None
    model: Any = None  # an entropy source
    contigs: ContigThresholds | None = None


def _saved(options: PatchOptions, source: GenomeSource) -> _Saved:
    """Options and model of `--patcher`, or the source that `--entropy-model` or `--track` names."""
    if options.patcher is not None:
        args, contigs = _load_patcher(options.patcher)
        if args.uses_scores and not hasattr(args.entropy_model, "stream"):
            raise DataError(
                "this patcher was saved without an entropy model; make one with calibrate", path=options.patcher
            )
        if options.half_life is not None and (args.calibration is None or args.monotonicity):
            raise UsageError("--half-life needs a patcher with a threshold calibrated to a mean length")
        return _Saved(args, args.entropy_model if args.patching_mode != "bpe_patcher" else None, contigs)
    if options.track is not None:
        from hyena_glt.entropies.track import TrackEntropy

        missing = _missing_rule(options.missing)
        return _Saved(model=TrackEntropy(options.track, missing=missing, alphabet=source.alphabet))
    if options.entropy_model is None:
        return _Saved()
    if str(options.entropy_model) == MIX:
        from hyena_glt.entropies.mixing import MixEntropy

        return _Saved(model=MixEntropy(source.alphabet))
    from hyena_glt.entropies.saved_sources import load_source

    return _Saved(model=load_source(options.entropy_model))


def _load_patcher(path: Path) -> tuple[PatcherArgs, ContigThresholds | None]:
    """A saved patcher, or the thresholds of contigs beside one."""
    from hyena_glt.patching.calibration import CONTIGS_SUFFIX, load_contig_thresholds
    from hyena_glt.patching.saved import load_patcher

    if not path.name.endswith(CONTIGS_SUFFIX):
        return load_patcher(path), None
    contigs = load_contig_thresholds(path)
    return contigs.args, contigs


def _missing_rule(text: str | None) -> str | float:
    """What `--missing` says: a rule by name, or a number."""
    try:
        return float(text or "")
    except ValueError:
        return text or "zero"


def _network(path: Path) -> Any:
    """The network that predicts BPE delimiters."""
    from hyena_glt.patching.bpe_network import BpePatcherNetwork

    return BpePatcherNetwork.load(path)


def _with_cap(args: PatcherArgs, model: Any) -> PatcherArgs:
    """The options with a longest patch where the model needs one: in a repeat, one that learns is never surprised."""
    if args.max_patch_length is None and args.uses_scores and getattr(model, "learns", False):
        note(f"--entropy-model {model.name} sees repeats; patches are cut at {MIX_CAP:,} (--max-patch-length)")
        return args.model_copy(update={"max_patch_length": MIX_CAP})
    return args


def _check_alphabet(model: Any, source: GenomeSource) -> None:
    nucleic = {"dna", "rna"}
    if (
        getattr(model, "alphabet", None) is None
        or model.alphabet == source.alphabet
        or {model.alphabet.name, source.alphabet.name} <= nucleic
    ):
        return
    raise UsageError(
        f"the entropy model is for {model.alphabet.name}, the input is {source.alphabet.name}; "
        f"give --alphabet {model.alphabet.name} or another model"
    )


def _survey(source: GenomeSource, options: PatchOptions, model: Any) -> GenomeSurvey:
    from hyena_glt.patching.survey import survey_genome

    with progress("fitting" if model is None else "reading") as advance:
        blocks = prefetched(counted(source.all_blocks(), advance), options.threads)
        survey = survey_genome(blocks, source.alphabet, model=model, order=options.order, fit_share=options.fit_share)
    check_regions(source.regions, survey.contig_lengths, source.name)
    return survey


def _calibrated(survey: GenomeSurvey, args: PatcherArgs, target: float, source: GenomeSource) -> PatcherArgs:
    """The options with the threshold for the wanted mean length, or the nearest that this input allows."""
    from hyena_glt.patching.args import CalibrationRecord
    from hyena_glt.patching.block_decisions import scan_rule

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
