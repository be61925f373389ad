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
from typing import Any, NamedTuple

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
    """Patches of several mean lengths, each coarse patch a union of fine ones; `OnlineHierarchy` does it in a stream.

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
    _, rows, scored, rule = _read(patcher_or_args, sequence_or_tokens, target_lengths, entropies)
    scores = scored.scores.cpu().numpy()
    by_row = []
    for index, length in enumerate(rows.lengths):
        by_row.append(nested_lengths(scores[index, :length], _forced(scored, index, length), rule, target_lengths))
    return [_lay_out_level([levels[level] for levels in by_row], rows) for level in range(len(target_lengths))]


def nested_lengths(scores: Floats, forced: Bools, rule: ScanRule, targets: Sequence[float]) -> list[Lengths]:
    """Patch lengths of one row on every level, finest first; arguments as `nested_levels`."""
    return [level.lengths for level in nested_levels(scores, forced, rule, targets)]


class Level(NamedTuple):
    """One level of a hierarchy."""

    threshold: float  # nats
    lengths: Lengths  # (num_patches,) int64


def nested_levels(scores: Floats, forced: Bools, rule: ScanRule, targets: Sequence[float]) -> list[Level]:
    """Threshold and patch lengths of one row on every level, finest first.

    Args:
        scores: `(length,)` float32 nats.
        forced: `(length,)` bool, starts on every level.
        rule: Mode threshold, monotone or dual, with the limits of the finest level; its threshold is replaced.
        targets: Tokens per patch of each level, ascending.
    """
    levels = [finest_level(scores, forced, rule, targets[0])]
    values = start_values(scores, rule)
    for target in targets[1:]:
        shortest, cap = grown_limits(rule, target / targets[0])
        levels.append(coarser_level(levels[-1].lengths, values, forced, target, shortest, cap))
    return levels


def grown_limits(rule: ScanRule, growth: float) -> tuple[int, int]:
    """The shortest and the longest patch of a level, in tokens, `growth` times those of the finest."""
    shortest = int(rule.shortest * growth) if rule.min_patch_length else 1
    return shortest, int(rule.cap * growth) if rule.max_patch_length else NO_CAP


def finest_level(scores: Floats, forced: Bools, rule: ScanRule, target: float) -> Level:
    """Patch lengths under the rule, with the threshold whose mean is nearest to the target."""
    rows = ScoreRows([scores], [forced])
    threshold = 0.0  # decides nothing in a row without decisive values
    if decisive_values(rows, rule).size:
        threshold = find_threshold(rows, rule, target).threshold
    scanner = Scanner(replace(rule, threshold=threshold))
    return Level(threshold, np.concatenate([scanner.feed(scores, forced), scanner.finish()]))


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


def coarser_level(fine: Lengths, values: Floats, forced: Bools, target: float, shortest: int, cap: int) -> Level:
    """Unions of fine patches, with the threshold whose mean length is nearest to the target.

    Args:
        fine: `(num_patches,)` int64 lengths of the level below.
        values: `(length,)` float32 as `start_values` gives them.
        forced: `(length,)` bool, starts that are kept whatever their value.
        target: Tokens per patch.
        shortest, cap: Tokens, `1 <= shortest <= cap`.
    """
    if not fine.size:
        return Level(0.0, fine)
    starts = fine.cumsum() - fine
    at_starts, kept = values[starts], forced[starts]
    merged = np.empty_like(fine)
    thresholds = np.unique(np.append(at_starts[np.isfinite(at_starts)], np.float32(-np.inf)))

    def count(index: int) -> int:
        return merge_patches(fine, at_starts, kept, thresholds[index], shortest, cap, merged)

    best = _nearest(count, thresholds.size, forced.size / target)
    return Level(float(thresholds[best]), merged[: count(best)].copy())


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
def join_patches(lengths, values, forced, threshold, shortest, cap, open_length, joined, firsts):
    """Join neighbouring patches wherever the start between them is not kept.

    Args:
        lengths: `(n,)` int64.
        values: `(n,)` float32; the start of a patch is kept above the threshold, once `shortest` is reached.
        forced: `(n,)` bool, starts that are kept in any case.
        shortest, cap: Tokens; a patch ends before the one that would take it past the cap.
        open_length: Tokens of the patch that is open before these; 0 for none.
        joined: int64, written: lengths of the patches completed, at most `n`, one fewer if none was open before.
        firsts: int64 of the same size, written: which fine patch each of them begins with, -1 the one open before.

    Returns:
        `(count, open_length, open_first)`.
    """
    count, first = 0, -1
    for i in range(lengths.size):
        due = values[i] > threshold and open_length >= shortest
        if open_length > 0 and (due or forced[i] or open_length + lengths[i] > cap):
            joined[count], firsts[count] = open_length, first
            count += 1
            open_length = 0
        if open_length == 0:
            first = i
        open_length += lengths[i]
    return count, open_length, first


@njit(cache=True, nogil=True)
def merge_patches(lengths, values, forced, threshold, shortest, cap, merged):
    """Join all patches of a sequence, the last open one too.

    Args:
        lengths, values, forced, threshold, shortest, cap: As `join_patches`, n >= 1.
        merged: `(n,)` int64, written.

    Returns:
        Patches written.
    """
    firsts = np.empty(lengths.size, np.int64)
    count, open_length, _ = join_patches(lengths, values, forced, threshold, shortest, cap, 0, merged, firsts)
    merged[count] = open_length
    return count + 1


def calibrate_hierarchy(
    patcher_or_args: Patcher | PatcherArgs,
    sequences: Any,
    target_lengths: Sequence[float] = (8, 64, 512),
    *,
    entropies: Any = None,
) -> tuple[float, ...]:
    """The thresholds of every level that give the wanted mean lengths on all sequences together.

    Args:
        patcher_or_args, target_lengths, entropies: As `patch_hierarchy`.
        sequences: What `Patcher.patch` takes.

    Returns:
        Nats of each level, finest first, for `OnlineHierarchy`.

    Raises:
        ConfigError, PatchingError: As `patch_hierarchy`.
    """
    _, rows, scored, rule = _read(patcher_or_args, sequences, target_lengths, entropies)
    lengths = rows.lengths.tolist()
    forced = [_forced(scored, index, length) for index, length in enumerate(lengths)]
    for row in forced[1:]:
        row[:1] = True  # a sequence begins
    scores = np.concatenate([scored.scores[index, :length].cpu().numpy() for index, length in enumerate(lengths)])
    levels = nested_levels(scores, np.concatenate(forced), rule, target_lengths)
    return tuple(level.threshold for level in levels)


def _read(
    patcher_or_args: Patcher | PatcherArgs, tokens: Any, targets: Sequence[float], entropies: Any
) -> tuple[Patcher, TokenRows, Scored, ScanRule]:
    """Checked arguments, rows and their scores; the rule's threshold is still to be found."""
    patcher = patcher_or_args if isinstance(patcher_or_args, Patcher) else patcher_or_args.build()
    check_hierarchy(patcher.args, targets)
    rows = read_rows(_batch_of(tokens), patcher.args.encoding, resolve_device(patcher.args.device))
    scored = _score(patcher, rows, _batch_of(entropies))
    return patcher, rows, scored, ScanRule.from_args(patcher.args, threshold=0.0)


def _forced(scored: Scored, index: int, length: int) -> Bools:
    return np.zeros(length, np.bool_) if scored.forced is None else scored.forced[index, :length].copy()


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


def check_hierarchy(args: PatcherArgs, targets: Sequence[float]) -> None:
    """Refuse modes without scores, and targets that are no ascending lengths.

    Raises:
        ConfigError: Either of these.
    """
    if not args.uses_scores:
        raise ConfigError(f"patching_mode: expected entropy or track for a hierarchy, got {args.patching_mode}")
    finite = all(math.isfinite(target) and target >= 1 for target in targets)
    if not targets or not finite or any(one >= two for one, two in pairwise(targets)):
        raise ConfigError(f"target_lengths: expected ascending tokens per patch from at least 1, got {targets}")


def _lay_out_level(lengths: list[Lengths], rows: TokenRows) -> Tensor:
    """`(batch, num_patches)` int64 on the device of the tokens, right-padded with 0."""
    flat = np.concatenate([np.zeros(0, np.int64), *lengths])
    return lay_out(RowPatches(flat, np.array([row.size for row in lengths], np.int64)), rows)
