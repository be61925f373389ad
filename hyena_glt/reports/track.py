"""One contig at every zoom: overview bins, its patches, its bases.

ContigTrack -> summarise -> ContigSummary (bounded memory) -> contig_payload, within the page's budget
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bins import Bins, bin_track, merged_bins, without_ambiguous
from .encoding import quantise, varint_text, visible
from .features import LaneFeature, features_payload, lane_features, longest
from .records import Budget, ContigTrack

BASES_PER_BIN = 32  # bins are not made finer than this


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
    entropies: NDArray[np.float32] | None  # of the first bases, NaN where ambiguous; None where none were given
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
    entropies = track.entropies
    lengths, scores = track.patch_lengths, track.patch_scores.astype(np.float32, copy=False)
    features = lane_features(track.features, track.offset, track.length)
    return ContigSummary(
        name=visible(track.name),
        length=track.length,
        offset=track.offset,
        num_patches=lengths.size,
        bins=bin_track(lengths, scores, entropies, runs, bins_needed(track.length, budget)),
        patch_lengths=lengths[: budget.patches].copy(),
        patch_scores=scores[: budget.patches].copy(),
        entropies=None if entropies is None else without_ambiguous(entropies[: budget.bases].copy(), runs),
        features=longest(features, budget.features),
        num_features=len(features),
        ambiguous=longest_runs(runs, budget.runs),
        num_runs=len(runs),
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
        "bins": bins_payload(merged_bins(contig.bins, max(1, shares.bins))),
        "detail": patches,
        "bases": quantise(contig.entropies[:bases], np.uint16).payload() if contig.entropies is not None else None,
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


def detail_notes(contig: ContigSummary, covered: int, patches: int, bases: int, features: int, runs: int) -> list[str]:
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
