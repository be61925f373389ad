"""Scores -> patch lengths in one pass over the tokens, in pieces of any size: the sequential definition.

`Scanner` carries what a boundary depends on (the open patch, the last score, the phase of the stride), so
chunks give exactly what the whole sequence gives. Score `i` decides whether token `i + 1` starts a patch.
numpy and numba only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyena_glt.config import PatcherFields, PatchingModeEnum
from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.patching import scan_kernels as kernels

ScanMode = Literal["threshold", "monotone", "dual", "static", "byte", "mask"]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Lengths = NDArray[np.int64]
LOWEST = np.float32(-np.inf)
NO_BOOLS: Bools = np.zeros(0, np.bool_)
NEEDS = {  # mode -> numbers it cannot do without
    "threshold": ("threshold",),
    "monotone": ("threshold",),
    "dual": ("threshold", "threshold_add"),
    "static": ("patch_size",),
    "byte": (),
    "mask": (),
}


class ScoreRule(NamedTuple):
    """An entropy rule as the compiled loops take it."""

    threshold: np.float32
    rise: np.float32
    by_rise: bool
    always: int  # decisions at the start of a sequence that are True whatever the scores
    never: int  # decision that is False whatever the scores; -1 for none


def score_rule(threshold: float, threshold_add: float | None, monotonicity: bool) -> ScoreRule:
    """The rule of an entropy threshold: on the rise, on both, or on the entropy alone.

    Args:
        threshold, threshold_add: Nats; without `threshold_add` or with `monotonicity` there is one threshold.
        monotonicity: Compare the threshold with the rise.
    """
    if monotonicity:
        return ScoreRule(LOWEST, np.float32(threshold), by_rise=True, always=2, never=-1)
    if threshold_add is None:
        return ScoreRule(np.float32(threshold), LOWEST, by_rise=False, always=1, never=-1)
    return ScoreRule(np.float32(threshold), np.float32(threshold_add), by_rise=True, always=2, never=2)


@dataclass(frozen=True, slots=True)
class ScanRule:
    """Where patches start, and how short or long they may be.

    Args:
        mode: "threshold" (score > threshold), "monotone" (rise > threshold), "dual" (score > threshold and
            rise > threshold_add), "static" (every `patch_size` tokens), "byte" (every token) or "mask"
            (starts are given).
        threshold: Nats.
        threshold_add: Nats; dual only.
        patch_size: Tokens, >= 1, may be fractional; static only.
        min_patch_length: Tokens; a start is ignored while the open patch is shorter.
        max_patch_length: Tokens; a longer patch is cut.

    Raises:
        ConfigError: Unknown mode, a number that the mode needs is missing, a length below 1, or a minimum
            above the cap.
    """

    mode: ScanMode
    threshold: float | None = None
    threshold_add: float | None = None
    patch_size: float | None = None
    min_patch_length: int | None = None
    max_patch_length: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in NEEDS:
            raise ConfigError(f"mode: expected one of {', '.join(NEEDS)}, got {self.mode!r}")
        for name in NEEDS[self.mode]:
            value = getattr(self, name)
            if value is None or not math.isfinite(value):
                raise ConfigError(f"{name}: expected a finite number in mode {self.mode}, got {value}")
        for name in ("patch_size", "min_patch_length", "max_patch_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1 token, got {value}")
        if self.shortest > self.cap:
            raise ConfigError(f"min_patch_length: expected at most max_patch_length {self.cap}, got {self.shortest}")

    @classmethod
    def from_args(cls, args: PatcherFields, threshold: float | None = None) -> ScanRule:
        """The rule that a patcher's options stand for; space and both bpe modes are masks.

        Args:
            args: Options, such as `PatcherArgs`.
            threshold: In place of `args.threshold`; None keeps it.

        Raises:
            ConfigError: Top-k (`threshold=None`), which needs the whole sequence, or overlapping windows.
        """
        if args.overlap:
            raise ConfigError(f"overlap: expected 0, got {args.overlap}; the patches of a scan never overlap")
        limits = {"min_patch_length": args.min_patch_length, "max_patch_length": args.max_patch_length}
        mode = args.patching_mode
        if mode is PatchingModeEnum.static:
            return cls("static", patch_size=args.static_patch_size, **limits)
        if mode not in (PatchingModeEnum.entropy, PatchingModeEnum.track):
            return cls("byte" if mode is PatchingModeEnum.byte else "mask", **limits)
        threshold = args.threshold if threshold is None else threshold
        if threshold is None:
            raise ConfigError("threshold: expected nats, got None; top-k needs the whole sequence, use Patcher.patch")
        if args.monotonicity or args.threshold_add is None:
            return cls("monotone" if args.monotonicity else "threshold", threshold, **limits)
        return cls("dual", threshold, args.threshold_add, **limits)

    @property
    def shortest(self) -> int:
        """Tokens that a patch must have before a start is heeded."""
        return self.min_patch_length or 1

    @property
    def cap(self) -> int:
        """Tokens at which a patch is cut."""
        return self.max_patch_length or kernels.NO_CAP

    @property
    def score_rule(self) -> ScoreRule:
        """The rule of the modes threshold, monotone and dual."""
        rise = self.threshold_add if self.mode == "dual" else None
        return score_rule(self.threshold or 0.0, rise, self.mode == "monotone")


class Scanner:
    """Cuts one sequence into patches as its scores arrive.

    Args:
        rule: Where patches start.

    Example:
        >>> scanner = Scanner(ScanRule("threshold", threshold=1.0))
        >>> scanner.feed(np.array([0, 0, 2, 0], np.float32)).tolist(), scanner.finish().tolist()
        ([1, 2], [1])
    """

    def __init__(self, rule: ScanRule) -> None:
        self.rule = rule
        self._begin()

    def _begin(self) -> None:
        self._seen = 0  # tokens fed
        self._last_start = 0  # first token of the open patch
        self._origin = 0  # token at which the stride began
        self._previous = np.float32(0)  # score of token seen - 1

    def skip(self, num_tokens: int) -> None:
        """Pass over the first tokens of a sequence, which were cut elsewhere; the next token starts a patch."""
        self._begin()
        self._seen = self._last_start = self._origin = num_tokens

    def feed(self, scores: NDArray[Any], forced: Bools | None = None) -> Lengths:
        """Take the scores of the next tokens.

        Args:
            scores: `(n,)` float32 nats, entry `i` of the prediction made after token `i`; in mode threshold also
                `(n,)` bool, scores that were compared already; in mode mask `(n,)` bool, entry `i` about token `i`
                itself; static and byte only count its entries.
            forced: `(n,)` bool, True at tokens that start a patch whatever the rule and the minimum say.

        Returns:
            `(num_patches,)` int64: the patches completed by these tokens. A patch is complete once the token
            after its last one is known to start a patch.

        Raises:
            PatchingError: Not one dimension, NaN, or a forced mask of another shape.
        """
        _check_chunk(scores, forced)
        if not scores.size:
            return np.zeros(0, np.int64)
        if forced is not None and not forced.any():
            forced = None
        if self.rule.mode == "mask":
            return self._close(np.ascontiguousarray(scores, np.bool_), forced, shift=0)
        opening = self._force_first(forced)
        ahead = None if forced is None else np.append(forced[1:], False)
        closed = self._close(self._decide(scores, ahead), ahead, shift=1)
        return np.concatenate([opening, closed]) if opening.size else closed

    def finish(self, next_token: bool = False) -> Lengths:
        """End the sequence; the next `feed` begins another one.

        Args:
            next_token: Count the token after the last one as well (not in mode mask: feed its start instead).

        Returns:
            `(0,)` or `(1,)` int64: the patch that was open.
        """
        length = self._seen + next_token - self._last_start
        self._begin()
        return np.full(1 if length else 0, length, np.int64)

    def _decide(self, scores: NDArray[Any], forced: Bools | None) -> Bools:
        """Whether each token after one of these starts a patch, `(n,)` bool."""
        starts = np.ones(scores.size, np.bool_)
        if self.rule.mode == "static":
            edges = NO_BOOLS if forced is None else forced
            size = float(self.rule.patch_size or 1)
            self._origin = kernels.mark_stride(starts, edges, self._seen + 1, self._origin, size)
        elif self.rule.mode == "threshold" and scores.dtype == np.bool_:
            starts[:] = scores
            starts[: max(self.rule.score_rule.always - self._seen, 0)] = True
        elif self.rule.mode != "byte":
            scores = np.ascontiguousarray(scores, np.float32)
            if kernels.mark_scores(scores, self._seen, self._previous, *self.rule.score_rule, starts):
                place = self._seen + int(np.isnan(scores).argmax())
                raise PatchingError(f"scores: expected numbers, got NaN at token {place}")
            self._previous = scores[-1]
        return starts

    def _force_first(self, forced: Bools | None) -> Lengths:
        """A forced start at the first token of a chunk, whose own decision fell in the chunk before."""
        if forced is None or not forced[0]:
            return np.zeros(0, np.int64)
        length = self._seen - self._last_start
        self._last_start = self._origin = self._seen
        return np.full(1 if length else 0, length, np.int64)

    def _close(self, starts: Bools, forced: Bools | None, shift: int) -> Lengths:
        first, shortest, cap = self._seen + shift, self.rule.shortest, self.rule.cap
        room = int(np.count_nonzero(starts)) + (first + starts.size - self._last_start) // cap
        edges = NO_BOOLS if forced is None else np.ascontiguousarray(forced)
        lengths = np.empty(room + int(np.count_nonzero(edges)), np.int64)
        count, self._last_start = kernels.close_patches(
            starts, edges, first, self._last_start, shortest, cap, lengths, NO_BOOLS
        )
        self._seen += starts.size
        return lengths[:count]


def count_patches(scores: Floats, forced: Bools | None, rule: ScanRule) -> int:
    """Number of patches of one sequence under an entropy rule, without keeping their lengths.

    Args:
        scores: `(length,)` float32 nats.
        forced: `(length,)` bool or None.
        rule: Mode threshold, monotone or dual.
    """
    return ScoreRows([scores], None if forced is None else [forced]).count_patches(rule)


class ScoreRows:
    """Scores of many sequences, one after the other in one array, to be counted under many rules.

    Args:
        scores: `(length,)` float32 arrays, without NaN.
        forced: As many `(length,)` bool arrays, or None.

    Raises:
        PatchingError: Another shape, NaN, or forced starts that do not fit the scores.
    """

    def __init__(self, scores: Sequence[Floats], forced: Sequence[Bools] | None = None) -> None:
        self.lengths = np.array([_row_size(row) for row in scores], np.int64)
        self.ends = self.lengths.cumsum()
        self.scores = _joined(scores, np.float32)
        self.forced = NO_BOOLS if forced is None else _joined(forced, np.bool_)
        if self.forced.size not in (0, self.scores.size):
            raise PatchingError(f"forced: expected {self.scores.size} entries as in scores, got {self.forced.size}")
        if self.scores.size and np.isnan(self.scores.max()):
            raise PatchingError("scores: expected numbers, got NaN; check the entropy source")
        if not self.forced.any():
            self.forced = NO_BOOLS

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences."""
        return self.scores.size

    def count_patches(self, rule: ScanRule) -> int:
        """Patches of all sequences under an entropy rule."""
        return int(kernels.count_rows(self.scores, self.forced, self.ends, *rule.score_rule, rule.shortest, rule.cap))


def _row_size(row: Any) -> int:
    if not isinstance(row, np.ndarray) or row.ndim != 1:
        got = row.shape if isinstance(row, np.ndarray) else type(row).__name__
        raise PatchingError(f"scores: expected one-dimensional arrays, got {got}")
    return row.size


def _joined(rows: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    if len(rows) == 1:
        return np.ascontiguousarray(rows[0], kind)
    return np.concatenate([np.zeros(0, kind), *rows]).astype(kind, copy=False)


def _check_chunk(scores: NDArray[Any], forced: Bools | None) -> None:
    if scores.ndim != 1:
        raise PatchingError(f"scores: expected (n,), got shape {scores.shape}")
    if forced is not None and (forced.shape != scores.shape or forced.dtype != np.bool_):
        raise PatchingError(f"forced: expected bool {scores.shape}, got {forced.dtype} {forced.shape}")
