"""A track reduced to bins: the curve, the scores and the boundaries of consecutive stretches.

entropies, patch lengths, patch scores -> bin_track -> Bins -> merged_bins, once the page's share is known

Bins are kept as sums and extremes, so that neighbours can be merged. Temporary memory is bounded by a block
of bases, not by the contig.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 22  # bases reduced at a time
SUMS = ("total", "bases", "score_total", "score_bases", "starts")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bins:
    """Consecutive stretches of `width` bases (the last may be shorter), each array `(num_bins,)`."""

    width: int
    lowest: NDArray[np.float32]  # of the curve, NaN in a bin without any value
    highest: NDArray[np.float32]
    total: NDArray[np.float64]  # sum of the curve over the bases that have a value
    bases: NDArray[np.float64]  # number of those bases
    score_total: NDArray[np.float64]  # sum over bases of their patch's score
    score_bases: NDArray[np.float64]  # bases whose patch has a score
    starts: NDArray[np.int64]  # patches that start here


def bin_track(
    lengths: NDArray[np.int64],
    scores: NDArray[np.float32],
    entropies: NDArray[np.floating] | None,
    runs: NDArray[np.int64],
    max_bins: int,
) -> Bins:
    """Reduce a track of at least one base to at most `max_bins` bins.

    The curve is that of the entropies, without the ambiguous `runs`; without entropies, that of the scores.
    """
    length = int(lengths.sum())
    width = -(-length // max_bins)
    edges = np.append(np.arange(0, length, width), length)
    score_total, score_bases = score_sums(lengths, scores, edges)
    if entropies is None:
        curve = {**score_extremes(lengths, scores, edges), "total": score_total, "bases": score_bases}
    else:
        curve = entropy_curve(entropies, runs, width)
    starts = np.bincount((np.cumsum(lengths) - lengths) // width, minlength=edges.size - 1)
    return Bins(width=width, score_total=score_total, score_bases=score_bases, starts=starts, **curve)


def entropy_curve(entropies: NDArray[np.floating], runs: NDArray[np.int64], width: int) -> dict[str, NDArray[Any]]:
    """Reduce entropies to extremes, sums and known bases per bin, one block of whole bins at a time."""
    step = max(1, BLOCK // width) * width
    blocks = [
        block_curve(without_ambiguous(entropies[start : start + step], runs - start), width)
        for start in range(0, entropies.size, step)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def block_curve(values: NDArray[np.float32], width: int) -> dict[str, NDArray[Any]]:
    """Reduce a block that starts with a bin."""
    edges, known = np.arange(0, values.size, width), np.isfinite(values)
    return {
        "lowest": np.fmin.reduceat(values, edges),
        "highest": np.fmax.reduceat(values, edges),
        "total": np.add.reduceat(np.where(known, values, 0), edges, dtype=np.float64),
        "bases": np.add.reduceat(known, edges, dtype=np.float64),
    }


def without_ambiguous(entropies: NDArray[np.floating], runs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the entropies with NaN at ambiguous symbols, after which nothing was predicted.

    Args:
        entropies: `(length,)`.
        runs: `(num_runs, 2)` half-open, counted from the first entropy; parts outside it are left out.
    """
    entropies = entropies.astype(np.float32, copy=False)
    runs = np.clip(runs, 0, entropies.size)
    runs = runs[runs[:, 0] < runs[:, 1]]
    if runs.size == 0:
        return entropies
    edges = np.zeros(entropies.size + 1, np.int8)
    np.add.at(edges, runs[:, 0], 1)
    np.add.at(edges, runs[:, 1], -1)
    return np.where(np.cumsum(edges[:-1], dtype=np.int8) > 0, np.float32(np.nan), entropies)


def score_extremes(
    lengths: NDArray[np.int64], scores: NDArray[np.float32], edges: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Find the lowest and highest score of the patches that touch each bin."""
    ends = np.cumsum(lengths)
    first = np.searchsorted(ends, edges[:-1], side="right")
    behind = np.searchsorted(ends, edges[1:] - 1, side="right") + 1
    pairs = np.stack([first, behind], axis=1).ravel()  # reduceat: every other result is between two bins
    padded = np.append(scores, np.float32(np.nan))
    return {
        "lowest": np.fmin.reduceat(padded, pairs)[::2],
        "highest": np.fmax.reduceat(padded, pairs)[::2],
    }


def score_sums(
    lengths: NDArray[np.int64], scores: NDArray[np.float32], edges: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum the scores over the bases between consecutive edges, and count the bases that have one.

    The running sum over bases is linear within a patch, so it is interpolated at the edges, exactly.
    """
    ends = np.concatenate([[0], np.cumsum(lengths)])
    counted = np.where(np.isfinite(scores), lengths, 0).astype(np.float64)
    summed = np.where(counted > 0, scores, 0).astype(np.float64) * counted
    running = [np.concatenate([[0.0], np.cumsum(column)]) for column in (summed, counted)]
    total, bases = (np.diff(np.interp(edges, ends, column)) for column in running)
    return total, bases


def merged_bins(bins: Bins, max_bins: int) -> Bins:
    """Join neighbouring bins until there are at most `max_bins`."""
    factor = -(-bins.starts.size // max_bins)
    if factor == 1:
        return bins
    first = np.arange(0, bins.starts.size, factor)
    return Bins(
        width=bins.width * factor,
        lowest=np.fmin.reduceat(bins.lowest, first),
        highest=np.fmax.reduceat(bins.highest, first),
        **{name: np.add.reduceat(getattr(bins, name), first) for name in SUMS},
    )
