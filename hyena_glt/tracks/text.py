"""Lines of BED and bedGraph made in one pass over arrays: a Python loop would be slower than the patching."""

from __future__ import annotations

import numpy as np
from numba import njit

INTEGER_WIDTH = 20  # digits and sign of the widest int64
TAB, NEWLINE, DOT, MINUS, ZERO = 9, 10, 46, 45, 48


@njit(cache=True, nogil=True, inline="always")
def put_integer(out, at, value):
    """Write a decimal integer at `at`; returns the place behind it."""
    if value < 0:
        out[at] = MINUS
        at += 1
        value = -value
    rest, ten = np.uint64(value), np.uint64(10)  # unsigned: division by a constant is one multiplication
    digits, limit = 1, ten
    while digits < 19 and rest >= limit:
        digits += 1
        limit *= ten
    end = at + digits
    for place in range(end - 1, at - 1, -1):
        quotient = rest // ten
        out[place] = ZERO + np.uint8(rest - quotient * ten)
        rest = quotient
    return end


@njit(cache=True, nogil=True, inline="always")
def put_bytes(out, at, text):
    """Copy bytes to `at`; returns the place behind them."""
    for i in range(text.size):
        out[at + i] = text[i]
    return at + text.size


@njit(cache=True, nogil=True, inline="always")
def put_fixed(out, at, value, decimals):
    """Write a finite number with a fixed number of decimals; returns the place behind it."""
    scale = 10**decimals
    scaled = np.int64(np.rint(value * scale))
    if scaled < 0:
        out[at] = MINUS
        at += 1
        scaled = -scaled
    at = put_integer(out, at, scaled // scale)
    out[at] = DOT
    rest = scaled % scale
    for place in range(at + decimals, at, -1):
        out[place] = ZERO + rest % 10
        rest //= 10
    return at + decimals + 1


@njit(cache=True, nogil=True)
def bed9_lines(out, contig, start, lengths, first_number, scores, colours):
    """Fill `out` with one BED9 line per patch; returns the bytes used.

    Args:
        out: uint8 buffer of at least `bed9_room(...)` bytes.
        contig: Name as uint8.
        start: 0-based start of the first patch on the contig.
        lengths: `(patches,)` int64.
        first_number: Running number (the BED name) of the first patch.
        scores: `(patches,)` int64 in [0, 1000].
        colours: `(steps, width)` uint8, itemRgb texts of equal width for equal slices of the score range.
    """
    steps = colours.shape[0]
    # A line begins with the end of the line before it, so only that text is written twice, never the number.
    place = np.empty(2 * INTEGER_WIDTH, dtype=np.uint8)
    width = put_integer(place, 0, start)
    at = 0
    for i in range(lengths.size):
        end = start + lengths[i]
        at = put_bytes(out, at, contig)
        out[at] = TAB
        first = at + 1
        at = put_bytes(out, first, place[:width])
        out[at] = TAB
        width = put_integer(place, 0, end)
        at = put_bytes(out, at + 1, place[:width])
        out[at] = TAB
        behind = at + 1
        at = put_integer(out, behind, first_number + i)
        out[at] = TAB
        at = put_integer(out, at + 1, scores[i])
        out[at], out[at + 1], out[at + 2] = TAB, DOT, TAB
        at = put_bytes(out, at + 3, out[first:behind])
        at = put_bytes(out, at, colours[min(scores[i] * steps // 1000, steps - 1)])
        out[at] = NEWLINE
        at += 1
        start = end
    return at


def bed9_room(contig: np.ndarray, patches: int, colour_width: int) -> int:
    """Bytes that `bed9_lines` may need."""
    return patches * (contig.size + 6 * (INTEGER_WIDTH + 1) + colour_width + 4)


@njit(cache=True, nogil=True)
def bedgraph_lines(out, contig, starts, ends, values, decimals):
    """Fill `out` with one bedGraph line per interval; returns the bytes used."""
    at = 0
    for i in range(values.size):
        at = put_bytes(out, at, contig)
        out[at] = TAB
        at = put_integer(out, at + 1, starts[i])
        out[at] = TAB
        at = put_integer(out, at + 1, ends[i])
        out[at] = TAB
        at = put_fixed(out, at + 1, values[i], decimals)
        out[at] = NEWLINE
        at += 1
    return at


def bedgraph_room(contig: np.ndarray, intervals: int, decimals: int) -> int:
    """Bytes that `bedgraph_lines` may need."""
    return intervals * (contig.size + 3 * (INTEGER_WIDTH + 1) + decimals + 2)
