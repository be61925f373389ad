"""What lies around the long convolution of a Hyena operator, compiled: two passes."""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from hyena_glt.ops.shifted_sum import own_array


def gated_input(projected: Tensor, short: Tensor, lead: int, channels: slice, length: int | None = None) -> Tensor:
    """Short-filtered key times short-filtered value, float32 on the CPU without gradients.

    Args:
        projected: `(batch, 3, hidden, length)` contiguous: query, key, value.
        short: `(3, hidden, 3)` taps.
        lead: Taps that look ahead, or steps of `projected` that lie before the first one wanted.
        channels: Which of the hidden ones.
        length: Steps wanted; None: all.

    Returns:
        `(batch, channels, length)`.
    """
    gated = projected.new_empty(len(projected), channels.stop - channels.start, length or projected.shape[-1])
    multiply_filtered(gated.numpy(), projected.numpy(), own_array(short[1:, channels]), lead, channels.start)
    return gated


def gated_output(
    convolved: Tensor, gated: Tensor, bypass: Tensor, projected: Tensor, short: Tensor, lead: int, channels: slice
) -> Tensor:
    """Short-filtered query times (convolved + bypass * gated), in place of `convolved`; shapes as `gated_input`."""
    weights = own_array(bypass[channels]), own_array(short[0, channels])
    convolved = convolved.contiguous()
    finish_filtered(convolved.numpy(), gated.numpy(), projected.numpy(), *weights, lead, channels.start)
    return convolved


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def multiply_filtered(gated, projected, taps, lead, first):
    """See `gated_input`; `taps` `(2, channels, 3)` of key and value."""
    batch, channels, length = gated.shape
    begin, end = inner_part(length, lead)
    for b in range(batch):
        for c in range(channels):
            row, key, value = gated[b, c], projected[b, 1, first + c], projected[b, 2, first + c]
            (k0, k1, k2), (v0, v1, v2) = taps[0, c], taps[1, c]
            inner, start = row[begin:end], begin + lead - 2
            key2, key1, key0 = key[start:], key[start + 1 :], key[start + 2 :]
            value2, value1, value0 = value[start:], value[start + 1 :], value[start + 2 :]
            for t in range(inner.size):
                filtered_key = k0 * key0[t] + k1 * key1[t] + k2 * key2[t]
                inner[t] = filtered_key * (v0 * value0[t] + v1 * value1[t] + v2 * value2[t])
            for t in range(begin):
                row[t] = end_value(key, taps[0, c], lead, t) * end_value(value, taps[1, c], lead, t)
            for t in range(end, length):
                row[t] = end_value(key, taps[0, c], lead, t) * end_value(value, taps[1, c], lead, t)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def finish_filtered(convolved, gated, projected, bypass, taps, lead, first):
    """See `gated_output`; `taps` `(channels, 3)` of the query."""
    batch, channels, length = gated.shape
    begin, end = inner_part(length, lead)
    for b in range(batch):
        for c in range(channels):
            row, direct, query = convolved[b, c], gated[b, c], projected[b, 0, first + c]
            q0, q1, q2 = taps[c]
            share = bypass[c]
            inner, seen, start = row[begin:end], direct[begin:end], begin + lead - 2
            query2, query1, query0 = query[start:], query[start + 1 :], query[start + 2 :]
            for t in range(inner.size):
                filtered = q0 * query0[t] + q1 * query1[t] + q2 * query2[t]
                inner[t] = filtered * (inner[t] + share * seen[t])
            for t in range(begin):
                row[t] = end_value(query, taps[c], lead, t) * (row[t] + share * direct[t])
            for t in range(end, length):
                row[t] = end_value(query, taps[c], lead, t) * (row[t] + share * direct[t])


@njit(cache=True, nogil=True)
def inner_part(length, lead):
    """Where all three taps lie in the row: from, to."""
    begin = min(2 - lead, length)
    return begin, max(length - lead, begin)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def end_value(row, taps, lead, t):
    """One value of a short convolution, of the taps that lie in the row."""
    total = np.float32(0)
    for tap in range(taps.size):
        if 0 <= t + lead - tap < row.size:
            total += taps[tap] * row[t + lead - tap]
    return total
