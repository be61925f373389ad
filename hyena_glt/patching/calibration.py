"""Scores -> the threshold that gives a wanted mean patch length, with the minimum and the cap in force.

Between mean patches of 8 and 64 bases the threshold of a context model moves by hundredths of a nat, so it is
found on the data, never guessed: on all of it, for each domain (chromosomes, plasmids, phages), or for each contig.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hyena_glt.checks import build_config
from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.patching.args import CalibrationRecord, PatcherArgs
from hyena_glt.patching.rows import as_bytes, read_rows
from hyena_glt.patching.saved import load_patcher, patcher_file
from hyena_glt.patching.saved_json import named_beside, read_saved_json, reference_to
from hyena_glt.patching.scan import Bools, Floats, ScanMode, ScanRule, ScoreRows
from hyena_glt.patching.sources import fit_on_all, resolve_source, score_rows
from hyena_glt.patching.threshold_search import Calibrated, calibrate_rule, find_threshold
from hyena_glt.sequences.atomic import atomic_write, sha256_file

__all__ = [
    "Calibrated",
    "ContigThreshold",
    "ContigThresholds",
    "calibrate",
    "calibrate_each",
    "calibrate_rule",
    "calibrate_threshold",
    "contig_thresholds_file",
    "load_contig_thresholds",
    "save_contig_thresholds",
]

CalibratedRule = Literal["threshold", "monotonicity", "dual"]
SCAN_MODES: dict[str, ScanMode] = {"threshold": "threshold", "monotonicity": "monotone", "dual": "dual"}
DEFAULT_RISE = 0.0  # nats; threshold_add of the dual rule where none is given: any rise
TOLERANCE = 0.02  # share of the target that a mean length may miss it by at the ends of what can be reached
COARSEST = 0.25  # a nearest reachable mean that is further off than this share of the target is refused
CONTIGS_FORMAT = "hyena-glt/contig-thresholds/1"
CONTIGS_KEYS = {"format", "patcher", "contigs", "provenance"}
CONTIGS_SUFFIX = ".contigs.json"
LARGEST_CONTIGS_FILE = 1 << 28  # bytes of JSON that are read


def calibrate(
    sequences_or_scores: Any,
    *,
    entropy_model: Any = None,
    target_mean_length: float,
    min_patch_length: int | None = None,
    max_patch_length: int | None = None,
    rule: CalibratedRule = "threshold",
    **fields: Any,
) -> PatcherArgs:
    """Options of a patcher whose patches have a wanted mean length on these data.

    Args:
        sequences_or_scores: Sequences (str, bytes, 1-D uint8 arrays or token tensors) or their scores (1-D
            float arrays or tensors, nats): one, or any iterable of them.
        entropy_model: Scores the sequences; None fits one `MarkovEntropy` on all of them. Kept in the result.
        target_mean_length: Tokens per patch.
        min_patch_length: Tokens; a start is ignored while the open patch is shorter.
        max_patch_length: Tokens; a longer patch is cut.
        rule: "threshold", "monotonicity" (on the rise of the score) or "dual" (`threshold_add` is 0.0 unless
            given).
        **fields: Other fields of `PatcherArgs`.

    Returns:
        Arguments with `threshold`, `entropy_model` and `calibration` set.

    Raises:
        ConfigError: A target that these data cannot reach; the message gives the range that they can.
        PatchingError: Scores with NaN or of another shape.

    Example:
        >>> args = calibrate(["ACGTTGCATTAGC" * 40], target_mean_length=6)
        >>> args.calibration.target_mean_length
        6.0
    """
    if rule not in SCAN_MODES:
        raise ConfigError(f"rule: expected one of {', '.join(SCAN_MODES)}, got {rule!r}")
    if rule == "dual":
        fields.setdefault("threshold_add", DEFAULT_RISE)
    data = _read(sequences_or_scores, entropy_model)
    scan_rule = ScanRule(SCAN_MODES[rule], 0.0, fields.get("threshold_add"), None, min_patch_length, max_patch_length)
    rows = ScoreRows(data.scores, data.forced)
    found = _checked(find_threshold(rows, scan_rule, target_mean_length), target_mean_length)
    return PatcherArgs(
        threshold=found.threshold,
        monotonicity=rule == "monotonicity",
        min_patch_length=min_patch_length,
        max_patch_length=max_patch_length,
        entropy_model=data.model,
        calibration=CalibrationRecord(
            target_mean_length=target_mean_length,
            mean_length=found.mean_length,
            num_tokens=rows.num_tokens,
            data_sha256=data.sha256,
            entropy_model=getattr(data.model, "name", None),
        ),
        **fields,
    )


def calibrate_threshold(
    scores: Sequence[Floats],
    forced: Sequence[Bools] | None = None,
    *,
    target_mean_length: float,
    min_patch_length: int | None = None,
    max_patch_length: int | None = None,
    rule: CalibratedRule = "threshold",
    threshold_add: float | None = None,
) -> float:
    """The threshold that gives a wanted mean patch length.

    Args:
        scores: `(length,)` float32 nats of each sequence.
        forced: `(length,)` bool of each sequence, starts that need no score; None for none.
        target_mean_length: Tokens per patch.
        min_patch_length, max_patch_length: Tokens.
        rule: "threshold", "monotonicity" or "dual".
        threshold_add: Nats; dual only, 0.0 where it is None.

    Raises:
        ConfigError: A target that these scores cannot reach; the message gives the range that they can.
        PatchingError: Scores with NaN or of another shape.
    """
    rise = DEFAULT_RISE if threshold_add is None and rule == "dual" else threshold_add
    scan_rule = ScanRule(SCAN_MODES[rule], 0.0, rise, None, min_patch_length, max_patch_length)
    found = calibrate_rule(scores, forced, rule=scan_rule, target_mean_length=target_mean_length)
    return _checked(found, target_mean_length).threshold


def calibrate_each(
    named_sequences: Mapping[str, Any] | Iterable[tuple[str, Any]],
    *,
    by: Mapping[str, str] | Callable[[str], str] | None = None,
    entropy_model: Any = None,
    shared_model: bool = True,
    target_mean_length: float,
    **options: Any,
) -> dict[str, PatcherArgs]:
    """Options of one patcher for each sequence, or for each domain of sequences, all with one mean patch length.

    Args:
        named_sequences: Sequences or scores by name, as `calibrate` takes them.
        by: The domain of each name, as a mapping or a function; None makes each sequence a domain of its own.
        entropy_model: Scores all sequences; None fits one `MarkovEntropy` on all of them.
        shared_model: False fits a model on each domain alone.
        target_mean_length: Tokens per patch.
        **options: Others of `calibrate`: limits, rule, fields of `PatcherArgs`.

    Returns:
        By domain, in the order in which they appear: arguments whose `calibration` holds the hash of the domain's
        sequences.

    Raises:
        ConfigError: A name given twice or without a domain, a model together with `shared_model=False`, or a target
            that a domain cannot reach; the message names it.
        PatchingError: Scores with NaN or of another shape.

    Example:
        >>> genome = {"chr": "ACGTTGCATTAGC" * 40, "plasmid": "GGCATTAGCCA" * 30}
        >>> {name: args.calibration.num_tokens for name, args in calibrate_each(genome, target_mean_length=6).items()}
        {'chr': 520, 'plasmid': 330}
    """
    if entropy_model is not None and not shared_model:
        raise ConfigError("shared_model: expected True with an entropy_model, got False; a given model is not fitted")
    domains = _by_domain(named_sequences, by)
    if shared_model:
        entropy_model = _shared_model([row for rows in domains.values() for row in rows], entropy_model)
    found = {}
    for name, rows in domains.items():
        try:
            found[name] = calibrate(rows, entropy_model=entropy_model, target_mean_length=target_mean_length, **options)
        except ConfigError as problem:
            raise ConfigError(f"{name}: {problem}") from None
    return found


def _by_domain(
    named: Mapping[str, Any] | Iterable[tuple[str, Any]], by: Mapping[str, str] | Callable[[str], str] | None
) -> dict[str, list[NDArray[Any]]]:
    domains: dict[str, list[NDArray[Any]]] = {}
    seen: set[str] = set()
    for name, sequence in named.items() if isinstance(named, Mapping) else named:
        if name in seen:
            raise ConfigError(f"named_sequences: expected each name once, got {name!r} again")
        seen.add(name)
        if isinstance(by, Mapping) and name not in by:
            raise ConfigError(f"by: expected a domain for each name, got none for {name!r}")
        domain = name if by is None else by[name] if isinstance(by, Mapping) else by(name)
        domains.setdefault(domain, []).append(_as_array(sequence))
    return domains


def _shared_model(rows: list[NDArray[Any]], model: Any) -> Any:
    """The model of all domains; None where scores are given."""
    if model is not None:
        return resolve_source(PatcherArgs(entropy_model=model))
    texts = [row for row in rows if not np.issubdtype(row.dtype, np.floating)]
    return fit_on_all(texts) if texts else None


class ContigThreshold(BaseModel):
    """The threshold of one contig and where it came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(allow_inf_nan=False, description="nats")
    calibration: CalibrationRecord


@dataclass(frozen=True, slots=True)
class ContigThresholds:
    """A patcher whose threshold differs from contig to contig; everything else is the same."""

    args: PatcherArgs  # for contigs without a threshold of their own
    contigs: dict[str, ContigThreshold]

    def args_for(self, contig: str) -> PatcherArgs:
        """The options for one contig; its threshold if it has one, else the patcher's own."""
        own = self.contigs.get(contig)
        if own is None:
            return self.args
        return self.args.model_copy(update={"threshold": own.threshold, "calibration": own.calibration})


def contig_thresholds_file(patcher: str | os.PathLike[str]) -> Path:
    """Where the thresholds of a saved patcher's contigs are: `patcher.contigs.json` beside `patcher.json`."""
    place = patcher_file(patcher)
    return place.with_name(place.stem + CONTIGS_SUFFIX)


def save_contig_thresholds(
    patcher: str | os.PathLike[str],
    contigs: Mapping[str, ContigThreshold],
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write one threshold per contig beside a saved patcher, which the file names by its hash.

    Args:
        patcher: What `save_patcher` wrote: the folder or the `.json` file.
        contigs: By name.
        provenance: Kept in the file as it is.

    Returns:
        The file.

    Raises:
        DataError: There is no such patcher.
        SystemProblem: The folder cannot be written.
    """
    saved = patcher_file(patcher)
    content = {
        "format": CONTIGS_FORMAT,
        "patcher": reference_to(saved),
        "contigs": {name: own.model_dump(mode="json") for name, own in contigs.items()},
        "provenance": dict(provenance or {}),
    }
    target = contig_thresholds_file(patcher)
    with atomic_write(target, "w", overwrite=True) as handle:
        handle.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return target


def load_contig_thresholds(path: str | os.PathLike[str]) -> ContigThresholds:
    """Read what `save_contig_thresholds` wrote, and the patcher beside it.

    Args:
        path: The `.contigs.json` file.

    Raises:
        ModelFileError: A file is missing, damaged, of another format, or the patcher is not the one it was made for.
        ConfigError: Options that are unknown or out of range.
    """
    source = Path(path)
    content = read_saved_json(
        source,
        kind="saved thresholds of contigs",
        file_format=CONTIGS_FORMAT,
        keys=CONTIGS_KEYS,
        mapping="contigs",
        largest=LARGEST_CONTIGS_FILE,
    )
    contigs = {}
    for name, own in content["contigs"].items():
        if not isinstance(own, dict):
            raise ModelFileError(f"{name}: expected threshold and calibration, got {own!r:.60}", path=source)
        contigs[name] = build_config(ContigThreshold, own, place=f"{source}: {name}")
    return ContigThresholds(load_patcher(_patcher_beside(source, content["patcher"])), contigs)


def _patcher_beside(source: Path, reference: Any) -> Path:
    """The patcher that thresholds were made for."""
    place, expected = named_beside(source, reference, key="patcher", suffix=".json")
    if not place.is_file():
        raise ModelFileError(
            f"the patcher {place.name!r} that these thresholds were made for is not beside them", path=source
        )
    if sha256_file(place) != expected:
        raise ModelFileError(
            f"{place.name} is not the patcher that these thresholds were made for; calibrate again", path=source
        )
    return place


def _checked(found: Calibrated, target: float) -> Calibrated:
    shortest, longest = found.reachable
    if not shortest / (1 + TOLERANCE) <= target <= longest * (1 + TOLERANCE):
        raise ConfigError(
            f"target_mean_length: expected between {shortest:.2f} and {longest:.2f} on these data with these "
            f"limits, got {target:g}"
        )
    if abs(math.log(found.mean_length / target)) > math.log1p(COARSEST):
        raise ConfigError(
            f"target_mean_length: {target:g} is out of reach, too many scores are equal; the nearest mean "
            f"lengths are {found.neighbours[0]:.2f} and {found.neighbours[1]:.2f}"
        )
    return found


@dataclass(frozen=True, slots=True)
class _Data:
    scores: list[Floats]
    forced: list[Bools] | None
    model: Any
    sha256: str


def _read(source: Any, model: Any) -> _Data:
    """Scores of whatever was handed in."""
    rows = [_as_array(row) for row in _one_or_many(source)]
    if not rows:
        raise ConfigError("sequences_or_scores: expected at least one sequence or array of scores, got none")
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.ascontiguousarray(row).tobytes() + b"\xff\xff")
    if all(np.issubdtype(row.dtype, np.floating) for row in rows):
        return _Data([row.astype(np.float32) for row in rows], None, model, digest.hexdigest())
    model, scores, forced = _score(rows, model)
    return _Data(scores, forced, model, digest.hexdigest())


def _score(rows: list[NDArray[Any]], model: Any) -> tuple[Any, list[Floats], list[Bools]]:
    args = PatcherArgs(entropy_model=model)
    source = fit_on_all(rows) if model is None else resolve_source(args)
    scores, forced = [], []
    for row in rows:
        tokens = row if row.dtype == np.uint8 else torch.from_numpy(row)
        scored = score_rows(source, read_rows([tokens]), args)
        scores.append(scored.scores[0].cpu().numpy())
        forced.append(np.zeros(row.size, np.bool_) if scored.forced is None else scored.forced[0])
    return source, scores, forced


def _one_or_many(source: Any) -> Iterable[Any]:
    single = isinstance(source, str | bytes | bytearray | memoryview) or getattr(source, "ndim", None) == 1
    return [source] if single else source


def _as_array(row: Any) -> NDArray[Any]:
    """A sequence as uint8 bytes or int64 tokens, scores as floats."""
    if hasattr(row, "detach"):
        row = row.detach().cpu().numpy()
        return row if np.issubdtype(row.dtype, np.floating) else row.astype(np.int64)
    if isinstance(row, np.ndarray) and np.issubdtype(row.dtype, np.floating):
        return row
    return as_bytes(row)
