"""Many contigs, one after the other: every one counted, the largest kept for a track of their own.

ContigTrack, ContigTrack, ... -> Ledger.add -> rows, sums, counts of lengths, the summaries to draw
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError

from .encoding import visible
from .histogram import COUNTED, count_lengths
from .records import Budget, ContigTrack
from .track import ContigSummary, Shares, contig_payload, summarise


@dataclass(slots=True)
class Row:
    """One line of the contig table; rows add up."""

    name: str = ""
    contigs: int = 0
    bases: int = 0
    patches: int = 0
    longest: int = 0  # bases of the longest patch
    score_total: float = 0.0  # nats, summed over the bases that have a score
    score_bases: int = 0

    def add(self, other: Row) -> None:
        """Count another row into this one."""
        self.contigs += other.contigs
        self.bases += other.bases
        self.patches += other.patches
        self.longest = max(self.longest, other.longest)
        self.score_total += other.score_total
        self.score_bases += other.score_bases

    @property
    def mean_length(self) -> float | None:
        """Bases per patch, which is the compression ratio too."""
        return self.bases / self.patches if self.patches else None

    @property
    def score_bits(self) -> float | None:
        """Mean score in bits per base."""
        return self.score_total / self.score_bases / np.log(2.0) if self.score_bases else None


@dataclass(slots=True)
class Ledger:
    """Sums over all contigs seen, and the largest of them. Memory does not grow with their number."""

    budget: Budget
    total: Row = field(default_factory=Row)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(COUNTED + 2, np.int64))
    largest: list[tuple[int, int, Row, ContigSummary]] = field(default_factory=list)  # heap: (length, -index, ...)

    def add(self, track: ContigTrack) -> None:
        """Count a contig; keep it if it is among the largest so far (of equals, the earlier)."""
        row = row_of(track)
        key = (track.length, -self.total.contigs)
        self.total.add(row)
        self.counts += count_lengths(track.patch_lengths)
        if track.length == 0:
            return
        if len(self.largest) < self.budget.contigs:
            heapq.heappush(self.largest, (*key, row, summarise(track, self.budget)))
        elif key > self.largest[0][:2]:
            heapq.heapreplace(self.largest, (*key, row, summarise(track, self.budget)))

    def shown(self) -> list[tuple[Row, ContigSummary]]:
        """Return the contigs with a track of their own, in the order they came."""
        return [(row, summary) for _, _, row, summary in sorted(self.largest, key=lambda kept: -kept[1])]


def row_of(track: ContigTrack) -> Row:
    """Sum one track."""
    lengths, known = track.patch_lengths, np.isfinite(track.patch_scores)
    return Row(
        name=visible(track.name),
        contigs=1,
        bases=track.length,
        patches=lengths.size,
        longest=int(lengths.max(initial=0)),
        score_total=float(np.dot(np.where(known, track.patch_scores, 0).astype(np.float64), lengths)),
        score_bases=int(lengths.sum(where=known)),
    )


def whole_input(total: Row, given: Mapping[str, int]) -> Row:
    """Return the sums of the whole input: those given, else those of the contigs seen.

    Raises:
        ConfigError: A given total is smaller than what the contigs hold.
    """
    whole = Row(**{name: getattr(total, name) for name in Row.__slots__})
    for name, value in given.items():
        if value < getattr(total, name):
            raise ConfigError(f"totals: expected at least {getattr(total, name)} {name}, as in contigs, got {value}")
        setattr(whole, name, value)
    return whole


def not_shown(whole: Row, rows: list[Row]) -> Row | None:
    """Return what the rows leave out, as one row; None where they leave nothing out."""
    shown = Row()
    for row in rows:
        shown.add(row)
    rest = Row(
        contigs=whole.contigs - shown.contigs,
        bases=whole.bases - shown.bases,
        patches=whole.patches - shown.patches,
        score_total=whole.score_total - shown.score_total,
        score_bases=whole.score_bases - shown.score_bases,
    )
    return rest if rest.contigs else None


def fair_shares(needs: list[int], budget: int) -> list[int]:
    """Divide a budget evenly; what one does not need goes to the others.

    Example:
        >>> fair_shares([10, 100, 100], 90)
        [10, 40, 40]
    """
    shares = [0] * len(needs)
    for served, i in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        shares[i] = min(needs[i], budget // (len(needs) - served))
        budget -= shares[i]
    return shares


def contig_payloads(contigs: list[ContigSummary], budget: Budget) -> list[dict[str, Any]]:
    """Divide the budget over the contigs and write what the page draws of each."""
    by_length = sorted(range(len(contigs)), key=lambda i: -contigs[i].length)
    with_bases = set(by_length[: budget.base_contigs])
    bases = [c.length if i in with_bases and c.entropies is not None else 0 for i, c in enumerate(contigs)]
    columns = zip(
        fair_shares([c.bins.starts.size for c in contigs], budget.bins),
        fair_shares([c.num_patches for c in contigs], budget.patches),
        fair_shares(bases, budget.bases),
        fair_shares([len(c.features) for c in contigs], budget.features),
        fair_shares([len(c.ambiguous) for c in contigs], budget.runs),
        strict=True,
    )
    return [
        contig_payload(contig, Shares(bins=a, patches=b, bases=c, features=d, runs=e))
        for contig, (a, b, c, d, e) in zip(contigs, columns, strict=True)
    ]
