"""An allele and its contig -> two windows of equal length, one with REF and one with ALT.

Both windows begin at the same base and are equal up to the variant. From there on the ALT window holds the allele and
then the reference behind it, refilled or cut at its end, so that both have the same number of bases: an insertion or
deletion gains or loses nothing by its length. Where the contig ends before an ALT window with a deletion is full, both
are cut to the shorter.

The other strand is treated as a contig of its own: the edit is mirrored and left-aligned again *there*, so what a
causal net has read before it meets the variant is equal for REF and ALT on either strand.

One rule for letters: case does not count, U is T, and every symbol that is not A, C, G or T becomes N. A base of N is
read by the net but never scored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError
from hyena_glt.sequences.alphabets import DNA, reverse_complement
from hyena_glt.variants.edits import Edit, Fetch, left_aligned

SMALLEST_WINDOW = 16  # bases
WINDOW_STARTS = 16  # windows begin at multiples of a 16th of their length, so that neighbours share one
FOLD = bytes({"A": 65, "C": 67, "G": 71, "T": 84, "U": 84}.get(chr(b).upper(), 78) for b in range(256))
IS_LETTER = np.isin(np.arange(256), np.frombuffer(b"ACGT", np.uint8))


class AlleleWindows(NamedTuple):
    """The same stretch with REF and with ALT, folded to A, C, G, T and N."""

    start: int  # 0-based first base of both, on their strand
    first: int  # place in both from which they may differ
    ref: bytes
    alt: bytes  # as long as `ref`

    @property
    def num_scored(self) -> int:
        """Letters whose log-likelihood counts, the same number in both; see `scored_places`."""
        return min(_letters_from(self.ref, self.first).size, _letters_from(self.alt, self.first).size)


def allele_windows(edit: Edit, fetch: Fetch, length: int, window: int, step: int = 1) -> AlleleWindows:
    """The windows of an edit that is normalised on its strand.

    The variant lies in the middle, or, near an end of the contig, nearer to that end: then the window has more of the
    other side. A contig shorter than the window is taken whole.

    Args:
        edit: From `normalised`, or `on_other_strand`.
        fetch: Bases of the contig, or of its other strand.
        length: Bases of the contig.
        window: Bases of each window, at most.
        step: Windows begin at multiples of this; with more than 1, up to `step - 1` bases more lie before the variant.

    Raises:
        AlphabetError: The reference holds something that is no nucleotide code.
    """
    start = window_start(edit.start, length, window, step)
    room = window - (edit.start - start)
    before = fetch(start, edit.start)
    ref = fetch(edit.start, min(length, edit.start + room))
    behind = max(0, room - len(edit.alt))
    alt = edit.alt[:room] + fetch(edit.end, min(length, edit.end + behind))
    size = min(len(ref), len(alt))
    left = folded(before)
    return AlleleWindows(start, len(left), left + folded(ref[:size]), left + folded(alt[:size]))


def window_start(position: int, length: int, window: int, step: int = 1) -> int:
    """First base of the window around a position, 0-based: a multiple of `step`, unless the contig's end is in it."""
    return max(0, min((position - window // 2) // step * step, length - window))


def window_step(window: int) -> int:
    """How far apart windows begin that are shared by neighbours."""
    return max(1, window // WINDOW_STARTS)


def other_strand(fetch: Fetch, length: int) -> Fetch:
    """Bases of the other strand of a contig, counted from that strand's start."""
    return lambda start, end: reverse_complement(fetch(length - end, length - start))


def on_other_strand(edit: Edit, fetch: Fetch, length: int) -> Edit:
    """A normalised edit as it is on the other strand, left-aligned there.

    Args:
        edit: On the contig.
        fetch: Bases of the other strand.
        length: Bases of the contig.
    """
    mirrored = Edit(length - edit.end, reverse_complement(edit.ref), reverse_complement(edit.alt))
    return left_aligned(mirrored, fetch)


def folded(bases: bytes) -> bytes:
    """Upper-case A, C, G, T, and N for every other nucleotide code; U is T.

    Raises:
        AlphabetError: A byte that is no nucleotide code.
    """
    DNA.encode(bases)
    return bases.translate(FOLD)


def scored_places(window: bytes, first: int, count: int) -> NDArray[np.int64]:
    """Places of a window whose log-likelihoods are summed: `(count,)` int64, ascending.

    The first `count` letters A, C, G, T from the variant on. The window's first base has no prediction and never
    counts.
    """
    return _letters_from(window, first)[:count]


def check_window(window: int) -> None:
    """Refuse a window that holds no context.

    Raises:
        ConfigError: Fewer than `SMALLEST_WINDOW` bases.
    """
    if window < SMALLEST_WINDOW:
        raise ConfigError(f"window: expected at least {SMALLEST_WINDOW} bases, got {window}")


def _letters_from(window: bytes, first: int) -> NDArray[np.int64]:
    begin = max(first, 1)
    return np.flatnonzero(IS_LETTER[np.frombuffer(window, np.uint8)[begin:]]) + begin
