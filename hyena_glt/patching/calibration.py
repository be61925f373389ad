"""Scores -> the threshold that gives a wanted mean patch length, with the minimum and the cap in force.

Between mean patches of 8 and 64 bases the threshold of a context model moves by hundredths of a nat, so it is
found on the data, never guessed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError
from hyena_glt.patching.args import CalibrationRecord, PatcherArgs
from hyena_glt.patching.rows import as_bytes, read_rows
from hyena_glt.patching.scan import Bools, Floats, ScanMode, ScanRule, ScoreRows
from hyena_glt.patching.sources import fit_on_all, resolve_source, score_rows
from hyena_glt.patching.threshold_search import Calibrated, calibrate_rule, find_threshold

__all__ = ["Calibrated", "calibrate", "calibrate_rule", "calibrate_threshold"]

CalibratedRule = Literal["threshold", "monotonicity", "dual"]
SCAN_MODES: dict[str, ScanMode] = {"threshold": "threshold", "monotonicity": "monotone", "dual": "dual"}
DEFAULT_RISE = 0.0  # nats; threshold_add of the dual rule where none is given: any rise
TOLERANCE = 0.02  # share of the target that a mean length may miss it by at the ends of what can be reached
COARSEST = 0.25  # a nearest reachable mean that is further off than this share of the target is refused


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
