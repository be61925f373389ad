"""Counts of patches under many thresholds -> the threshold whose mean patch length is the wanted one.

The number of patches is a step function of the threshold; the answer is put in the middle of its step, so
that noise in the last bit of a score moves no boundary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError
from hyena_glt.patching.scan import Bools, Floats, ScanRule, ScoreRows

CLOSE_ENOUGH = 1e-4  # share of the wanted number of patches that the search may be off by
SAMPLE_VALUES = 1 << 16  # values that the search takes its first guesses from
GUESS_MARGIN = 0.004  # share of the values by which the guesses lie beside the quantile
LARGEST = np.finfo(np.float32).max
CURVE_POINTS = 60
CURVE_BEGIN, CURVE_END = 1.5, 512.0  # mean lengths, without limits, that a curve goes from and to
CURVE_SAMPLE = 1 << 20  # values that its thresholds and its histogram are taken from
HISTOGRAM_BINS = 90


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold and what it does to the data it was found on."""

    threshold: float  # nats
    mean_length: float  # tokens per patch
    reachable: tuple[float, float]  # mean lengths at the lowest and at the highest threshold
    neighbours: tuple[float, float]  # mean lengths just below and just above the target


def calibrate_rule(
    scores: Sequence[Floats],
    forced: Sequence[Bools] | None = None,
    *,
    rule: ScanRule,
    target_mean_length: float,
) -> Calibrated:
    """The threshold whose mean patch length is nearest to the wanted one, however far that is.

    Args:
        scores: `(length,)` float32 nats of each sequence.
        forced: `(length,)` bool of each sequence; None for none.
        rule: Mode threshold, monotone or dual, with its limits; its threshold is replaced.
        target_mean_length: Tokens per patch.

    Raises:
        ConfigError: A target that is no number of at least 1, a rule without a threshold, or no scores.
        PatchingError: Scores with NaN or of another shape.
    """
    return find_threshold(ScoreRows(scores, forced), rule, target_mean_length)


def find_threshold(rows: ScoreRows, rule: ScanRule, target: float) -> Calibrated:
    """As `calibrate_rule`, of rows that are laid out already."""
    if not (math.isfinite(target) and target >= 1):
        raise ConfigError(f"target_mean_length: expected at least 1 token per patch, got {target}")
    if rule.mode not in ("threshold", "monotone", "dual"):
        raise ConfigError(f"rule: expected mode threshold, monotone or dual, got {rule.mode}")
    values = decisive_values(rows, rule)
    if not values.size:
        raise ConfigError("scores: expected tokens whose start the threshold decides, got none; give longer sequences")
    steps = _Steps(rows, rule, values)
    low, high = steps.around(rows.num_tokens / target)
    means = tuple(rows.num_tokens / steps.count(key) for key in (low, high))
    best = min(zip(means, (low, high), strict=True), key=lambda pair: abs(math.log(pair[0] / target)))
    return Calibrated(
        threshold=middle_of_step(values, _float_of_key(best[1])),
        mean_length=best[0],
        reachable=(rows.num_tokens / steps.count(steps.lowest), rows.num_tokens / steps.count(steps.highest)),
        neighbours=(means[0], means[1]),
    )


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Mean patch lengths under many thresholds, and how the numbers lie that the threshold is compared with."""

    thresholds: NDArray[np.float64]  # (points,) nats, increasing
    mean_lengths: NDArray[np.float64]  # (points,) tokens per patch under the rule
    uncapped_mean_lengths: NDArray[np.float64] | None  # (points,) the same without the cap; None for a rule without one
    histogram_edges: NDArray[np.float64]  # (bins + 1,) nats, from the first threshold to the highest value
    histogram_shares: NDArray[np.float64]  # (bins,) of all values; the others lie left of the edges

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        uncapped = self.uncapped_mean_lengths
        return {
            "thresholds": self.thresholds.tolist(),
            "mean_lengths": self.mean_lengths.tolist(),
            "uncapped_mean_lengths": None if uncapped is None else uncapped.tolist(),
            "histogram_edges": self.histogram_edges.tolist(),
            "histogram_shares": self.histogram_shares.tolist(),
        }


def threshold_curve(
    rows: ScoreRows, rule: ScanRule, *, num_points: int = CURVE_POINTS, heard: Bools | None = None
) -> ThresholdCurve:
    """Count patches under thresholds that spread evenly over the logarithm of the mean length.

    Args:
        rows: Scores of many sequences.
        rule: Mode threshold, monotone or dual, with its limits; its threshold is replaced.
        num_points: Thresholds, at most.
        heard: `(num_tokens,)` bool, tokens whose scores mean something; None for all.

    Raises:
        ConfigError: No score that a threshold decides about.
    """
    values = decisive_values(rows, rule, heard)
    if not values.size:
        raise ConfigError("scores: expected tokens whose start the threshold decides, got none; give longer sequences")
    values = np.sort(values[:: values.size // CURVE_SAMPLE + 1]).astype(np.float64)
    shares = np.geomspace(1.0 / CURVE_BEGIN, 1.0 / min(CURVE_END, max(values.size, 2.0)), num_points)
    thresholds = np.unique(np.quantile(values, 1.0 - shares).astype(np.float32)).astype(np.float64)
    edges = np.histogram_bin_edges(values, HISTOGRAM_BINS, (float(thresholds[0]), float(values[-1])))
    counts, _ = np.histogram(values, edges)
    uncapped = None if rule.max_patch_length is None else replace(rule, max_patch_length=None)
    return ThresholdCurve(
        thresholds=thresholds,
        mean_lengths=_means(rows, rule, thresholds),
        uncapped_mean_lengths=None if uncapped is None else _means(rows, uncapped, thresholds),
        histogram_edges=edges,
        histogram_shares=counts / values.size,
    )


def _means(rows: ScoreRows, rule: ScanRule, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = [rows.count_patches(replace(rule, threshold=threshold)) for threshold in thresholds.tolist()]
    return rows.num_tokens / np.array(counts, np.float64)


class _Steps:
    """Counts of patches under every float32 threshold, found as they are asked for.

    Thresholds are integer keys in the order of the floats, so halving the range of keys ends at neighbouring
    floats.
    """

    def __init__(self, rows: ScoreRows, rule: ScanRule, values: Floats) -> None:
        self._rows, self._rule = rows, rule
        self._counts: dict[int, int] = {}
        self._sample = np.sort(values[:: values.size // SAMPLE_VALUES + 1])
        self.lowest = _key_of_float(max(np.nextafter(values.min(), -LARGEST), -LARGEST))
        self.highest = _key_of_float(min(values.max(), LARGEST))

    def count(self, key: int) -> int:
        """Patches under the threshold of that key."""
        if key not in self._counts:
            rule = replace(self._rule, threshold=float(_float_of_key(key)))
            self._counts[key] = self._rows.count_patches(rule)
        return self._counts[key]

    def around(self, wanted: float) -> tuple[int, int]:
        """Two neighbouring keys, the first with at least the wanted number of patches, the second with fewer.

        Twice the same key where that one is close enough, or where it is the end of the range.
        """
        low, high = self.lowest, self.highest
        if self.count(low) < wanted:
            return low, low
        if self.count(high) >= wanted:
            return high, high
        guesses = self._guesses(wanted)
        halve = False
        while high - low > 1:
            middle = guesses.pop() if guesses else self._between(low, high, wanted, halve=halve)
            middle, halve = min(max(middle, low + 1), high - 1), not halve
            if abs(self.count(middle) - wanted) <= CLOSE_ENOUGH * wanted:
                return middle, middle
            if self.count(middle) >= wanted:
                low = middle
            else:
                high = middle
        return low, high

    def _guesses(self, wanted: float) -> list[int]:
        """Keys on either side of the answer, most likely: quantiles of a sample of the values."""
        share = 1.0 - wanted / self._rows.num_tokens
        places = (np.clip([share - GUESS_MARGIN, share + GUESS_MARGIN], 0, 1) * (self._sample.size - 1)).astype(int)
        return [_key_of_float(self._sample[place]) for place in places]

    def _between(self, low: int, high: int, wanted: float, *, halve: bool) -> int:
        """The middle of the range, or where a straight line between its ends reaches the wanted number."""
        above, below = self.count(low), self.count(high)
        share = 0.5 if halve else (above - wanted) / (above - below)
        return low + int((high - low) * share)


def decisive_values(rows: ScoreRows, rule: ScanRule, heard: Bools | None = None) -> Floats:
    """The numbers that the threshold is compared with, of all tokens but those whose start is settled.

    Args:
        heard: `(num_tokens,)` bool, tokens whose scores mean something; None for all.

    Returns:
        `(n,)` float32: scores, or their rises in mode monotone.
    """
    scores = rows.scores
    values = np.diff(scores, prepend=scores[:1]) if rule.mode == "monotone" else scores
    decides = np.ones(scores.size, np.bool_) if heard is None else heard.copy()
    starts = rows.ends - rows.lengths
    for settled in range(rule.score_rule.always + (rule.score_rule.never >= 0)):
        decides[starts[rows.lengths > settled] + settled] = False
    decides[rows.ends[rows.lengths > 0] - 1] = False
    if rule.mode == "dual":
        decides &= np.diff(scores, prepend=scores[:1]) > rule.score_rule.rise
    return values[decides]


def middle_of_step(values: Floats, threshold: np.float32) -> float:
    """A threshold that selects the same values as `threshold`, as far as can be from those on either side.

    The answer stays on its side when it is rounded to float32.
    """
    below, above = values[values <= threshold], values[values > threshold]
    if not below.size:
        return float(np.nextafter(above.min(), np.float32(-np.inf)))
    highest_below = below.max()
    if not above.size:
        return float(highest_below)
    middle = (float(highest_below) + float(above.min())) / 2
    return middle if np.float32(middle) < above.min() else float(highest_below)


def _key_of_float(value: np.float32) -> int:
    """An integer that orders as the float32 does."""
    bits = int(np.float32(value).view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _float_of_key(key: int) -> np.float32:
    bits = key if key >= 0 else (-key) | 0x80000000
    return np.uint32(bits).view(np.float32)
