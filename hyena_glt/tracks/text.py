"""Lines of BED and bedGraph made in one pass over arrays: a Python loop would be slower than the patching."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

INTEGER_WIDTH = 20  # digits and sign of the widest int64
CHUNK = 16  # bytes that are copied by one instruction
TAB, NEWLINE, DOT, MINUS, ZERO = 9, 10, 46, 45, 48


@intrinsic
def _copy_chunk(typing_context: Any, out: Any, at: Any, text: Any, start: Any) -> Any:
    """`copy_chunk(out, at, text, start)`: copy `CHUNK` bytes between flat uint8 arrays, wherever they lie."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        chunk = ir.VectorType(ir.IntType(8), CHUNK).as_pointer()
        places = []
        for array, value, index in zip(signature.args[::2], arguments[::2], arguments[1::2], strict=True):
            view = context.make_array(array)(context, builder, value)
            place = cgutils.get_item_pointer(context, builder, array, view, [index], wraparound=False)
            places.append(builder.bitcast(place, chunk))
        builder.store(builder.load(places[1], align=1), places[0], align=1)
        return context.get_dummy_value()

    return types.void(out, at, text, start), generate


copy_chunk: Any = _copy_chunk  # called with four arguments: the typing context is the compiler's


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


@njit(cache=True, nogil=True, inline="always")
def put_text(out, at, text, start, width):
    """Copy `text[start : start + width]` to `at`, `CHUNK` bytes at a time; returns the place behind it.

    Up to `CHUNK` bytes more are read and written: both arrays need that room, and what lies behind in `out` must not
    have been written yet. `text` may be `out` itself, further up.
    """
    for i in range(0, width, CHUNK):
        copy_chunk(out, at + i, text, start + i)
    return at + width


@njit(cache=True, nogil=True)
def counter(value):
    """A decimal number that `add` counts up: `(digits, first)`, its text from `first` on, `CHUNK` bytes more behind it.

    Args:
        value: >= 0.
    """
    digits = np.full(INTEGER_WIDTH + CHUNK, ZERO, dtype=np.uint8)
    width = put_integer(digits, 0, value)
    first = INTEGER_WIDTH - width
    digits[first:INTEGER_WIDTH] = digits[:width].copy()
    digits[: min(first, width)] = ZERO
    return digits, first


@njit(cache=True, nogil=True, inline="always")
def add(digits, first, amount):
    """Add to a number made by `counter`; returns the place of its first digit. Small amounts touch few digits."""
    at, rest, ten = INTEGER_WIDTH, np.uint64(amount), np.uint64(10)
    while rest:
        at -= 1
        rest += np.uint64(digits[at] - ZERO)
        quotient = rest // ten
        digits[at] = ZERO + np.uint8(rest - quotient * ten)
        rest = quotient
    return min(first, at)


@njit(cache=True, nogil=True)
def bed9_lines(out, contig, start, lengths, first_number, scores, colours):
    """Fill `out` with one BED9 line per patch; returns the bytes used.

    Args:
        out: uint8 buffer of at least `bed9_room(...)` bytes.
        contig: Name as uint8.
        start: 0-based start of the first patch on the contig, >= 0.
        lengths: `(patches,)` int64.
        first_number: Running number (the BED name) of the first patch.
        scores: `(patches,)` int64 in [0, 1000].
        colours: `(steps, width)` uint8, itemRgb texts of equal width for equal slices of the score range.
    """
    steps, colour_width = colours.shape
    contig_text = np.empty(contig.size + CHUNK, dtype=np.uint8)
    contig_text[: contig.size] = contig
    colour_texts = np.empty((steps, colour_width + CHUNK), dtype=np.uint8)
    colour_texts[:, :colour_width] = colours
    # Numbers are not made from scratch: the ends and the running number are counted up digit by digit, and a line
    # begins with the end of the line before it.
    place, place_start = counter(start)
    number, number_start = counter(first_number)
    at = 0
    for i in range(lengths.size):
        at = put_text(out, at, contig_text, 0, contig.size)
        out[at] = TAB
        first = at + 1
        at = put_text(out, first, place, place_start, INTEGER_WIDTH - place_start)
        out[at] = TAB
        place_start = add(place, place_start, lengths[i])
        at = put_text(out, at + 1, place, place_start, INTEGER_WIDTH - place_start)
        out[at] = TAB
        behind = at + 1
        at = put_text(out, behind, number, number_start, INTEGER_WIDTH - number_start)
        number_start = add(number, number_start, 1)
        out[at] = TAB
        at = put_integer(out, at + 1, scores[i])
        out[at], out[at + 1], out[at + 2] = TAB, DOT, TAB
        at = put_text(out, at + 3, out, first, behind - first)
        at = put_text(out, at, colour_texts[min(scores[i] * steps // 1000, steps - 1)], 0, colour_width)
        out[at] = NEWLINE
        at += 1
    return at


def bed9_room(contig: np.ndarray, patches: int, colour_width: int) -> int:
    """Bytes that `bed9_lines` may need."""
    return patches * (contig.size + 6 * (INTEGER_WIDTH + 1) + colour_width + 4) + CHUNK


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
