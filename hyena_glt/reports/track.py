"""One contig at every zoom: overview bins, its patches, its bases.

    ContigTrack -> summarise -> ContigSummary (bounded memory) -> contig_payload, within the page's budget

Bins are kept as sums and extremes, so that they can be merged to fewer bins once it is known how many contigs
share the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encoding import quantise, varint_text, visible
from .features import LaneFeature, features_payload, lane_features, longest
from .records import Budget, ContigTrack

BASES_PER_BIN = 32  # bins are not made finer than this


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Bins:
    """Consecutive stretches of `width` bases (the last may be shorter), each array `(num_bins,)`."""

    width: int
    lowest: NDArray[np.float32]  # of the entropies, NaN in a bin without any
    highest: NDArray[np.float32]
    total: NDArray[np.float64]  # sum of the entropies
    bases: NDArray[np.int64]  # bases with an entropy
    score_total: NDArray[np.float64]  # sum over bases of their patch's score
    score_bases: NDArray[np.float64]  # bases whose patch has a score
    starts: NDArray[np.int64]  # patches that start here


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ContigSummary:
    """What is kept of a contig that may be drawn: bounded by the budget, whatever the contig's length."""

    name: str
    length: int
    offset: int
    num_patches: int
    bins: Bins
    patch_lengths: NDArray[np.int64]  # the first patches
    patch_scores: NDArray[np.float32]
    entropies: (
        NDArray[np.float32] | None
    )  # of the first bases, NaN where ambiguous; None where none were given
    features: list[LaneFeature]  # the longest
    num_features: int
    ambiguous: NDArray[np.int64]  # (num_runs, 2) on the track, the longest
    num_runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """How much of the budget one contig gets."""

    bins: int
    patches: int
    bases: int
    features: int
    runs: int


def bins_needed(length: int, budget: Budget) -> int:
    """Return the bins that a contig can use."""
    return min(budget.bins, -(-length // BASES_PER_BIN))


def summarise(track: ContigTrack, budget: Budget) -> ContigSummary:
    """Reduce a track to what a page could show of it alone."""
    runs = np.empty((0, 2), np.int64) if track.ambiguous is None else track.ambiguous - track.offset
    entropies = None if track.entropies is None else without_ambiguous(track.entropies, runs)
    lengths, scores = track.patch_lengths, track.patch_scores.astype(np.float32, copy=False)
    features = lane_features(track.features, track.offset, track.length)
    return ContigSummary(
        name=visible(track.name),
        length=track.length,
        offset=track.offset,
        num_patches=lengths.size,
        bins=bin_track(lengths, scores, entropies, bins_needed(track.length, budget)),
        patch_lengths=lengths[: budget.patches].copy(),
        patch_scores=scores[: budget.patches].copy(),
        entropies=None if entropies is None else entropies[: budget.bases].copy(),
        features=longest(features, budget.features),
        num_features=len(features),
        ambiguous=longest_runs(runs, budget.runs),
        num_runs=len(runs),
    )


def without_ambiguous(entropies: NDArray[np.floating], runs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the entropies with NaN at ambiguous symbols, after which nothing was predicted."""
    entropies = entropies.astype(np.float32, copy=False)
    if runs.size == 0:
        return entropies
    edges = np.zeros(entropies.size + 1, np.int8)
    np.add.at(edges, runs[:, 0], 1)
    np.add.at(edges, runs[:, 1], -1)
    return np.where(np.cumsum(edges[:-1], dtype=np.int8) > 0, np.float32(np.nan), entropies)


def bin_track(
    lengths: NDArray[np.int64],
    scores: NDArray[np.float32],
    entropies: NDArray[np.float32] | None,
    max_bins: int,
) -> Bins:
    """Reduce a track, not empty, to at most `max_bins` bins; without entropies the scores stand in."""
    length = int(lengths.sum())
    values = np.repeat(scores, lengths) if entropies is None else entropies
    width = -(-length // max_bins)
    edges = np.arange(0, length, width)
    known = np.isfinite(values)
    score_total, score_bases = score_sums(lengths, scores, np.append(edges, length))
    starts = np.cumsum(lengths) - lengths
    return Bins(
        width=width,
        lowest=np.fmin.reduceat(values, edges),
        highest=np.fmax.reduceat(values, edges),
        total=np.add.reduceat(np.where(known, values, 0), edges, dtype=np.float64),
        bases=np.add.reduceat(known, edges, dtype=np.int64),
        score_total=score_total,
        score_bases=score_bases,
        starts=np.bincount(starts // width, minlength=edges.size),
    )


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
    factor = -(-bins.starts.size // max(1, max_bins))
    if factor == 1:
        return bins
    first = np.arange(0, bins.starts.size, factor)
    sums = ("total", "bases", "score_total", "score_bases", "starts")
    return Bins(
        width=bins.width * factor,
        lowest=np.fmin.reduceat(bins.lowest, first),
        highest=np.fmax.reduceat(bins.highest, first),
        **{name: np.add.reduceat(getattr(bins, name), first) for name in sums},
    )


def longest_runs(runs: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Keep the `limit` longest runs, in their order."""
    order = np.argsort(runs[:, 0] - runs[:, 1], kind="stable")[:limit]
    return runs[np.sort(order)]


def contig_payload(contig: ContigSummary, shares: Shares) -> dict[str, Any]:
    """What the page draws of one contig."""
    features, runs = longest(contig.features, shares.features), longest_runs(contig.ambiguous, shares.runs)
    patches = patches_payload(contig, shares.patches)
    bases = 0 if contig.entropies is None else min(shares.bases, contig.entropies.size)
    return {
        "name": contig.name,
        "length": contig.length,
        "offset": contig.offset,
        "patches": contig.num_patches,
        "scored": contig.entropies is not None,
        "bins": bins_payload(merged_bins(contig.bins, shares.bins)),
        "detail": patches,
        "bases": quantise(contig.entropies[:bases], np.uint16).payload()
        if contig.entropies is not None
        else None,
        "runs": runs.tolist(),
        "features": features_payload(features),
        "notes": detail_notes(contig, patches["covered"], patches["count"], bases, len(features), len(runs)),
    }


def bins_payload(bins: Bins) -> dict[str, Any]:
    """Bins as codes: entropies in 16 bits, scores in 8, starts as varints."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, score = bins.total / bins.bases, bins.score_total / bins.score_bases
    return {
        "width": bins.width,
        "lowest": quantise(bins.lowest, np.uint16).payload(),
        "mean": quantise(mean, np.uint16).payload(),
        "highest": quantise(bins.highest, np.uint16).payload(),
        "score": quantise(score, np.uint8).payload(),
        "starts": varint_text(bins.starts),
    }


def patches_payload(contig: ContigSummary, count: int) -> dict[str, Any]:
    """The first patches: lengths as varints, scores in 8 bits."""
    lengths = contig.patch_lengths[:count]
    return {
        "count": lengths.size,
        "covered": int(lengths.sum()),
        "lengths": varint_text(lengths),
        "scores": quantise(contig.patch_scores[:count], np.uint8).payload(),
    }


def detail_notes(
    contig: ContigSummary, covered: int, patches: int, bases: int, features: int, runs: int
) -> list[str]:
    """Say in words what detail of a contig this page left out."""
    notes = []
    if patches < contig.num_patches:
        notes.append(
            f"To keep this file small, single patches stop after the first {covered:,} bases "
            f"({patches:,} of {contig.num_patches:,} patches); beyond, bins show their mean."
        )
    if contig.entropies is None:
        notes.append("No entropy per base was given: the curve shows the scores of the patches.")
    elif bases < contig.length:
        notes.append(
            f"To keep this file small, single-base entropies stop after the first {bases:,} bases; "
            "beyond, bins show their range and mean."
        )
    if features < contig.num_features:
        notes.append(f"The {features:,} longest of {contig.num_features:,} features are drawn.")
    if runs < contig.num_runs:
        notes.append(f"The {runs:,} longest of {contig.num_runs:,} ambiguous runs are greyed.")
    return notes
