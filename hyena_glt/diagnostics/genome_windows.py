"""Evenly spaced windows of a genome, taken in one pass over its blocks.

contig lengths -> spans -> blocks -> the bytes of each span
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hyena_glt.sequences.alphabets import AMBIGUOUS, Alphabet
from hyena_glt.sequences.records import Block

CANDIDATES = 4  # spans looked at for each window that is wanted, since some are mostly N
MOST_AMBIGUOUS = 0.5  # share of a window


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of one contig."""

    contig: int  # 0-based, in the order of the file
    start: int  # 0-based
    end: int


def spread_spans(contig_lengths: Sequence[int], window: int, count: int, *, whole_only: bool = True) -> list[Span]:
    """Spans of one window each, evenly spaced over the contigs that hold one.

    Args:
        contig_lengths: Symbols of each contig.
        window: Symbols of a span.
        count: Spans wanted; fewer where there is no room.
        whole_only: Only spans of a full window. False: where no contig is that long, the contigs themselves.
    """
    slots = np.array([length // window for length in contig_lengths], dtype=np.int64)
    if not slots.sum() and not whole_only:
        contigs = [index for index, length in enumerate(contig_lengths) if length]
        return [Span(contigs[i], 0, contig_lengths[contigs[i]]) for i in _evenly(len(contigs), count)]
    last = slots.cumsum()
    spans = []
    for slot in _evenly(int(slots.sum()), count):
        contig = int(np.searchsorted(last, slot, side="right"))
        start = (slot - int(last[contig] - slots[contig])) * window
        spans.append(Span(contig, start, start + window))
    return spans


def _evenly(total: int, count: int) -> list[int]:
    """At most `count` of `total` numbers, in the middles of equal parts."""
    count = min(total, count)
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


def cut_spans(blocks: Iterable[Block], spans: Sequence[Span]) -> list[bytes]:
    """The symbols of each span, in order.

    Args:
        blocks: The genome from its beginning.
        spans: Ascending, none overlapping the next.
    """
    found: list[list[bytes]] = [[] for _ in spans]
    contig, first = 0, 0
    for block in blocks:
        end = block.start + len(block.sequence)
        while first < len(spans) and (spans[first].contig, spans[first].end) <= (contig, block.start):
            first += 1
        for index in range(first, len(spans)):
            span = spans[index]
            if (span.contig, span.start) >= (contig, end):
                break
            found[index].append(block.sequence[max(span.start - block.start, 0) : span.end - block.start])
        contig += block.last
    return [b"".join(parts) for parts in found]


def genome_windows(
    blocks: Iterable[Block],
    alphabet: Alphabet,
    contig_lengths: Sequence[int],
    window: int,
    count: int,
    *,
    whole_only: bool = True,
) -> list[bytes]:
    """At most `count` windows, evenly spaced, none of them mostly ambiguity symbols.

    Args:
        blocks: The genome from its beginning.
        alphabet: Its own.
        contig_lengths, window, count, whole_only: As `spread_spans` has them.
    """
    spans = spread_spans(contig_lengths, window, CANDIDATES * count, whole_only=whole_only)
    kept = list(_mostly_letters(cut_spans(blocks, spans), alphabet)) if spans else []
    return [kept[index] for index in _evenly(len(kept), count)]


def _mostly_letters(windows: Iterable[bytes], alphabet: Alphabet) -> Iterator[bytes]:
    for window in windows:
        if float((alphabet.encode(window) == AMBIGUOUS).mean()) <= MOST_AMBIGUOUS:
            yield window
