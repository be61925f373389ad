"""Nested patches of a stream: each level's patches as soon as they are complete, each coarse one a union of fine ones.

    chunk -> scores -> Scanner -> finest patches, with the value of their starts -> LevelMerger -> ... -> coarsest

The thresholds are known beforehand (`calibrate_hierarchy`), so whatever the chunks, the result is that of one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.hierarchy import check_hierarchy, grown_limits, join_patches
from hyena_glt.patching.online import TokenSequence
from hyena_glt.patching.patcher import Patcher
from hyena_glt.patching.scan import Bools, Floats, Lengths, Scanner, ScanRule


class OnlineHierarchy:
    """Cuts sequences into patches of several mean lengths as they arrive, in memory that does not grow with them.

    Args:
        patcher_or_args: As `patch_hierarchy`; in entropy mode the source must stream, or the scores be given.
        thresholds: Nats of each level, finest first, as `calibrate_hierarchy` finds them.
        target_lengths: Tokens per patch of each level: how the limits of the finest level grow.

    Raises:
        ConfigError: A mode without scores, targets that do not ascend, or another number of thresholds.

    Example:
        >>> from hyena_glt.entropies import MarkovEntropy
        >>> args = PatcherArgs(entropy_model=MarkovEntropy.fit("ACGTTGCATTAGC" * 40))
        >>> online = OnlineHierarchy(args, thresholds=(0.5, 0.9), target_lengths=(4, 16))
        >>> fed, rest = online.feed("ACGTTGCATTAGC" * 2), online.finish()
        >>> [int(torch.cat(level).sum()) for level in zip(fed, rest)]
        [26, 26]
    """

    def __init__(
        self,
        patcher_or_args: Patcher | PatcherArgs,
        *,
        thresholds: Sequence[float],
        target_lengths: Sequence[float] = (8, 64, 512),
    ) -> None:
        self.patcher = patcher_or_args if isinstance(patcher_or_args, Patcher) else patcher_or_args.build()
        check_hierarchy(self.patcher.args, target_lengths)
        if len(thresholds) != len(target_lengths):
            raise ConfigError(
                f"thresholds: expected one for each of {len(target_lengths)} levels, got {len(thresholds)}"
            )
        self._thresholds, self._targets = tuple(thresholds), tuple(target_lengths)
        self._begin()

    def _begin(self) -> None:
        rule = replace(ScanRule.from_args(self.patcher.args, threshold=0.0), threshold=self._thresholds[0])
        self._sequence = TokenSequence(self.patcher)
        self._finest = FinestLevel(rule)
        self._mergers = [
            LevelMerger(threshold, *grown_limits(rule, target / self._targets[0]))
            for threshold, target in zip(self._thresholds[1:], self._targets[1:], strict=True)
        ]

    def feed(self, chunk: Any, entropies: Any = None) -> list[Tensor]:
        """Take the next tokens of the sequence.

        Args:
            chunk, entropies: As `OnlinePatcher.feed`.

        Returns:
            For each level, finest first, `(num_patches,)` int64: the patches completed by these tokens.

        Raises:
            ConfigError, PatchingError: As `OnlinePatcher.feed`.
        """
        symbols = self._sequence.symbols(chunk)
        scores, forced = self._sequence.score(symbols, entropies, None)
        return self._merged(self._finest.feed(scores, forced), ends=False)

    def finish(self) -> list[Tensor]:
        """End the sequence and give the rest of each level; the next `feed` begins another one."""
        rest = self._merged(self._finest.finish(), ends=True)
        self._begin()
        return rest

    def _merged(self, patches: Patches, *, ends: bool) -> list[Tensor]:
        levels = [patches]
        for merger in self._mergers:
            levels.append(merger.feed(levels[-1], ends=ends))
        return [torch.from_numpy(level.lengths) for level in levels]


class Patches(NamedTuple):
    """Completed patches of a level, and what decides whether their starts are starts of the next level."""

    lengths: Lengths  # (n,) int64
    values: Floats  # (n,) float32, what the start is compared by
    forced: Bools  # (n,) bool, kept whatever the value


class FinestLevel:
    """A `Scanner` that keeps the value of each start."""

    def __init__(self, rule: ScanRule) -> None:
        self._rule = rule
        self._scanner = Scanner(rule)
        self._seen = 0  # tokens fed
        self._open_start = 0  # first token of the open patch
        self._open = (np.float32(np.inf), False)  # value of its start and whether it is forced, once it was fed
        self._last_scores = np.zeros(2, np.float32)

    def feed(self, scores: Floats, forced: Bools | None) -> Patches:
        """The patches completed by tokens with these scores."""
        first, values = self._seen, self._values(scores)
        edges = np.zeros(scores.size, np.bool_) if forced is None else forced
        self._seen += scores.size
        return self._with_starts(self._scanner.feed(scores, forced), first, values, edges)

    def finish(self) -> Patches:
        """The patch that was open."""
        nothing = np.zeros(0, np.float32)
        return self._with_starts(self._scanner.finish(), self._seen, nothing, nothing.astype(np.bool_))

    def _with_starts(self, lengths: Lengths, first: int, values: Floats, forced: Bools) -> Patches:
        """The completed patches with what was fed about their starts; `first` is the first token of this chunk."""
        places = self._open_start + lengths.cumsum() - lengths - first + 1  # 0: the start of the patch open before
        places = np.maximum(places, 0)
        at_starts, edges = np.append(self._open[0], values)[places], np.append(self._open[1], forced)[places]
        self._open_start += int(lengths.sum())
        patches = Patches(lengths, at_starts, edges)
        place = self._open_start - first
        if 0 <= place < values.size:
            self._open = values[place], bool(forced[place])
        return patches

    def _values(self, scores: Floats) -> Floats:
        """What the start of each token is decided by: the score, or the rise, of the token before it."""
        rule, settled = self._rule.score_rule, self._rule.score_rule.always + 1
        known = np.concatenate([self._last_scores, scores])
        self._last_scores = known[-2:].copy()
        before, rises = known[1:-1], known[1:-1] - known[:-2]
        values = rises if self._rule.mode == "monotone" else before.copy()
        if self._rule.mode == "dual":
            values[rises <= rule.rise] = -np.inf
        values[: max(settled - self._seen, 0)] = np.inf
        if rule.never >= 0 and 0 <= rule.never + 1 - self._seen < values.size:
            values[rule.never + 1 - self._seen] = -np.inf
        return values


class LevelMerger:
    """Joins neighbouring patches of a level to those of the next, as they arrive."""

    def __init__(self, threshold: float, shortest: int, cap: int) -> None:
        self._threshold, self._shortest, self._cap = np.float32(threshold), shortest, cap
        self._open_length = 0
        self._open = (np.float32(np.inf), False)

    def feed(self, patches: Patches, *, ends: bool) -> Patches:
        """The patches completed by those of the finer level; the open one too where the sequence ends."""
        lengths = np.append(patches.lengths, 0)  # room for the open patch
        firsts = np.empty(lengths.size, np.int64)
        count, self._open_length, open_first = join_patches(
            *patches, self._threshold, self._shortest, self._cap, self._open_length, lengths, firsts
        )
        values, forced = np.append(patches.values, self._open[0]), np.append(patches.forced, self._open[1])
        self._open = values[open_first], bool(forced[open_first])
        if ends and self._open_length:
            lengths[count], firsts[count] = self._open_length, open_first
            count, self._open_length = count + 1, 0
        return Patches(lengths[:count], values[firsts[:count]], forced[firsts[:count]])
