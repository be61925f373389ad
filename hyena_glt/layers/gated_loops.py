"""What lies between the products of a gated convolution, compiled: one pass for the norm, one for taps and gate."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hyena_glt.ops.shifted_sum import own_array
from hyena_glt.ops.single_exp import LARGEST, ONE, fraction, power_bits

BLOCK_ROWS = 256  # so that they stay in the cache


def normed_rows(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Layer norm without bias of contiguous float32 `(..., dim)` on the CPU."""
    y = torch.empty_like(x)
    norm_rows(y.view(-1, x.shape[-1]).numpy(), x.view(-1, x.shape[-1]).numpy(), own_array(weight), np.float32(epsilon))
    return y


def gated_rows(projected: Tensor, taps: Tensor, lead: int) -> Tensor:
    """`conv(signal) * silu(gate)`, float32 `(batch, length, dim)` on the CPU.

    Args:
        projected: `(batch, length, 2 * dim)` contiguous, signal and gate.
        taps: `(dim, taps)`.
        lead: Taps that look ahead.
    """
    batch, length, width = projected.shape
    y = projected.new_empty(batch, length, width // 2)
    gate_rows(y.numpy(), projected.numpy(), own_array(taps.T), lead)
    return y


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def norm_rows(y, x, weight, epsilon):
    """Layer norm of the rows of `x` `(rows, dim)` into `y`."""
    rows, dim = x.shape
    for t in range(rows):
        row, result = x[t], y[t]
        total = np.float32(0)
        for c in range(dim):
            total += row[c]
        mean = total / np.float32(dim)
        squares = np.float32(0)
        for c in range(dim):
            squares += (row[c] - mean) * (row[c] - mean)
        scale = ONE / np.sqrt(squares / np.float32(dim) + epsilon)
        for c in range(dim):
            result[c] = (row[c] - mean) * scale * weight[c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def gate_rows(y, projected, taps, lead):
    """See `gated_rows`; `taps` `(taps, dim)`."""
    batch, length, dim = y.shape
    for b in range(batch):
        for first in range(0, length, BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, length)
            for t in range(first, last):
                row = y[b, t]
                row[:] = 0
                for tap in range(max(t + lead - length + 1, 0), min(t + lead + 1, taps.shape[0])):
                    weights, signal = taps[tap], projected[b, t + lead - tap, :dim]
                    for c in range(dim):
                        row[c] += weights[c] * signal[c]
            times_silu(y[b, first:last], projected[b, first:last])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def times_silu(y, projected):
    """Multiplies the rows of `y` `(rows, dim)` by `silu(gate)`, the gate being the second half of `(rows, 2 dim)`."""
    dim = y.shape[1]
    bits, fractions = np.empty(dim, np.int32), np.empty(dim, np.float32)
    powers = bits.view(np.float32)
    for t in range(y.shape[0]):
        row, gate = y[t], projected[t, dim:]
        for c in range(dim):
            d = -gate[c]
            d = d if d < LARGEST else LARGEST
            bits[c] = power_bits(d if d > -LARGEST else -LARGEST)
        for c in range(dim):
            d = -gate[c]
            d = d if d < LARGEST else LARGEST
            fractions[c] = fraction(d if d > -LARGEST else -LARGEST)
        for c in range(dim):
            row[c] *= gate[c] / (ONE + fractions[c] * powers[c])
