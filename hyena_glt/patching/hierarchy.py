"""Scores -> patches of several mean lengths, each coarse patch a union of fine ones.

The rule. The finest level is the patcher's own: its score rule and limits, with the threshold calibrated for the
first target. Each coarser level decides among the starts of the level below it: one of them is kept where its score
also crosses the threshold that gives the level's own target, so levels are nested by construction.

- Token 0 starts a patch on every level; so do the tokens that start one whatever the scores (token 1, by BLT's
  convention, and token 2 of a rule on the rise), unless the minimum says otherwise, and those that the source forces
  (the edges of runs of N).
- `min_patch_length` and `max_patch_length` belong to the finest level and grow with the targets: with targets of 8 and
  64, a minimum of 4 and a cap of 16 become 32 and 128. A coarse start is ignored while the open patch is shorter than
  the minimum; a patch that the next fine patch would take past the cap ends before it.
- Every row is calibrated on its own scores, so it gives the same alone and in any batch. A row that cannot reach a
  target (too short, or too many equal scores) gets the nearest mean length that it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from hyena_glt.config import PatchingModeEnum
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.batch_lengths import RowPatches, lay_out
from hyena_glt.patching.devices import resolve_device
from hyena_glt.patching.given import given_scores
from hyena_glt.patching.patcher import Patcher
from hyena_glt.patching.rows import TokenRows, read_rows
from hyena_glt.patching.scan import Bools, Floats, Lengths, Scanner, ScanRule, ScoreRows
from hyena_glt.patching.scan_kernels import NO_CAP
from hyena_glt.patching.sources import Scored, score_rows
from hyena_glt.patching.threshold_search import decisive_values, find_threshold


def patch_hierarchy(
    patcher_or_args: Patcher | PatcherArgs,
    sequence_or_tokens: Any,
    target_lengths: Sequence[float] = (8, 64, 512),
    *,
    entropies: Any = None,
) -> list[Tensor]:
    """Patches of several mean lengths, each coarse patch a union of fine ones.

    Args:
        patcher_or_args: Entropy or track mode: the source of the scores, the rule and the limits of the finest
            level. Its threshold is not used, the targets take its place.
        sequence_or_tokens: One str, bytes or 1-D tokens, or what `Patcher.patch` takes.
        target_lengths: Tokens per patch of each level, ascending.
        entropies: Nats in place of the source's, `(batch, length)`, or `(length,)` for one sequence.

    Returns:
        For each target, finest first, `(batch, num_patches)` int64 patch lengths in tokens, right-padded with 0.

    Raises:
        ConfigError: A mode without scores, or targets that do not ascend from at least 1.
        PatchingError: What `Patcher.patch` refuses.

    Example:
        >>> fine, coarse = patch_hierarchy(PatcherArgs(), "ACGTTGCATTAGC" * 40, target_lengths=(4, 16))
        >>> bool(np.isin(coarse[0].cumsum(0), fine[0].cumsum(0)).all())
        True
    """
    patcher = patcher_or_args if isinstance(patcher_or_args, Patcher) else patcher_or_args.build()
    args = patcher.args
    if not args.uses_scores:
        raise ConfigError(f"patching_mode: expected entropy or track for a hierarchy, got {args.patching_mode}")
    _check_targets(target_lengths)
    rows = read_rows(_batch_of(sequence_or_tokens), args.encoding, resolve_device(args.device))
    scored = _score(patcher, rows, _batch_of(entropies))
    scores, rule = scored.scores.cpu().numpy(), ScanRule.from_args(args, threshold=0.0)
    by_row = []
    for index, length in enumerate(rows.lengths):
        forced = np.zeros(length, np.bool_) if scored.forced is None else scored.forced[index, :length]
        by_row.append(nested_lengths(scores[index, :length], forced, rule, target_lengths))
    return [_lay_out_level([levels[level] for levels in by_row], rows) for level in range(len(target_lengths))]


def nested_lengths(scores: Floats, forced: Bools, rule: ScanRule, targets: Sequence[float]) -> list[Lengths]:
    """Patch lengths of one row on every level, finest first.

    Args:
        scores: `(length,)` float32 nats.
        forced: `(length,)` bool, starts on every level.
        rule: Mode threshold, monotone or dual, with the limits of the finest level; its threshold is replaced.
        targets: Tokens per patch of each level, ascending.
    """
    levels = [finest_lengths(scores, forced, rule, targets[0])]
    values = start_values(scores, rule)
    for target in targets[1:]:
        growth = target / targets[0]
        shortest = int(rule.shortest * growth) if rule.min_patch_length else 1
        cap = int(rule.cap * growth) if rule.max_patch_length else NO_CAP
        levels.append(coarser_lengths(levels[-1], values, forced, target, shortest, cap))
    return levels


def finest_lengths(scores: Floats, forced: Bools, rule: ScanRule, target: float) -> Lengths:
    """Patch lengths under the rule, with the threshold whose mean is nearest to the target."""
    rows = ScoreRows([scores], [forced])
    threshold = 0.0  # decides nothing in a row without decisive values
    if decisive_values(rows, rule).size:
        threshold = find_threshold(rows, rule, target).threshold
    scanner = Scanner(replace(rule, threshold=threshold))
    return np.concatenate([scanner.feed(scores, forced), scanner.finish()])


def start_values(scores: Floats, rule: ScanRule) -> Floats:
    """What the start of each token is decided by, `(length,)` float32: the score or rise of the token before it.

    Infinite at tokens that start a patch whatever the scores, minus infinity at those that start none.
    """
    values = np.full(scores.size, np.inf, np.float32)
    rises = np.diff(scores, prepend=scores[:1])
    decisive = rises if rule.mode == "monotone" else scores
    if rule.mode == "dual":
        decisive = np.where(rises > rule.score_rule.rise, scores, np.float32(-np.inf))
    first = 1 + rule.score_rule.always
    values[first:] = decisive[first - 1 : -1]
    if rule.score_rule.never >= 0:
        values[rule.score_rule.never + 1 : rule.score_rule.never + 2] = -np.inf
    return values


def coarser_lengths(fine: Lengths, values: Floats, forced: Bools, target: float, shortest: int, cap: int) -> Lengths:
    """Unions of fine patches, with the threshold whose mean length is nearest to the target.

    Args:
        fine: `(num_patches,)` int64 lengths of the level below.
        values: `(length,)` float32 as `start_values` gives them.
        forced: `(length,)` bool, starts that are kept whatever their value.
        target: Tokens per patch.
        shortest, cap: Tokens, `1 <= shortest <= cap`.
    """
    if not fine.size:
        return fine
    starts = fine.cumsum() - fine
    at_starts, kept = values[starts], forced[starts]
    merged = np.empty_like(fine)
    thresholds = np.unique(np.append(at_starts[np.isfinite(at_starts)], np.float32(-np.inf)))

    def count(index: int) -> int:
        return merge_patches(fine, at_starts, kept, thresholds[index], shortest, cap, merged)

    best = _nearest(count, thresholds.size, forced.size / target)
    return merged[: count(best)].copy()


def _nearest(count: Callable[[int], int], size: int, wanted: float) -> int:
    """The index in `0 ... size - 1` whose count, which falls with the index, is nearest to the wanted one."""
    low, high = 0, size - 1
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle) >= wanted:
            low = middle
        else:
            high = middle
    return min((low, high), key=lambda index: abs(math.log(count(index) / wanted)))


@njit(cache=True, nogil=True)
def merge_patches(lengths, values, forced, threshold, shortest, cap, merged):
    """Join neighbouring patches wherever the start between them is not kept.

    Args:
        lengths: `(n,)` int64, n >= 1.
        values: `(n,)` float32; the start of a patch is kept above the threshold, once `shortest` is reached.
        forced: `(n,)` bool, starts that are kept in any case.
        shortest, cap: Tokens; a patch ends before the one that would take it past the cap.
        merged: `(n,)` int64, written.

    Returns:
        Patches written.
    """
    count = 0
    open_length = lengths[0]
    for i in range(1, lengths.size):
        due = values[i] > threshold and open_length >= shortest
        if due or forced[i] or open_length + lengths[i] > cap:
            merged[count] = open_length
            count += 1
            open_length = 0
        open_length += lengths[i]
    merged[count] = open_length
    return count + 1


def _score(patcher: Patcher, rows: TokenRows, entropies: Any) -> Scored:
    if entropies is not None:
        return Scored(given_scores(entropies, rows), None)
    if patcher.args.patching_mode is PatchingModeEnum.track and patcher.args.entropy_model is None:
        raise PatchingError("entropies: expected the track's scores in track mode, got None")
    return score_rows(patcher._source(), rows, patcher.args)


def _batch_of(values: Any) -> Any:
    """One row of a tensor or array as a batch; anything else as it is."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return [values] if values.dtype == np.uint8 else values[None]
    return values[None] if isinstance(values, Tensor) and values.dim() == 1 else values


def _check_targets(targets: Sequence[float]) -> None:
    finite = all(math.isfinite(target) and target >= 1 for target in targets)
    if not targets or not finite or any(one >= two for one, two in pairwise(targets)):
        raise ConfigError(f"target_lengths: expected ascending tokens per patch from at least 1, got {targets}")


def _lay_out_level(lengths: list[Lengths], rows: TokenRows) -> Tensor:
    """`(batch, num_patches)` int64 on the device of the tokens, right-padded with 0."""
    flat = np.concatenate([np.zeros(0, np.int64), *lengths])
    return lay_out(RowPatches(flat, np.array([row.size for row in lengths], np.int64)), rows)
