"""What lies between the products of a gated convolution, compiled: one pass for the norm, one for taps and gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hyena_glt.ops.shifted_sum import own_array
from hyena_glt.ops.single_exp import LARGEST, ONE, exp_single


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
    oldest_first = own_array(taps.flip(-1).T)
    gate_loop(len(oldest_first))(y.numpy(), projected.unflatten(-1, (2, -1)).numpy(), oldest_first, lead)
    return y


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def norm_rows(y, x, weight, epsilon):
    """Layer norm of the rows of `x` `(rows, dim)` into `y`."""
    rows, dim = x.shape
    for t in range(rows):
        row, result = x[t], y[t]
        first, total, squares = row[0], np.float32(0), np.float32(0)
        for c in range(row.size):
            d = row[c] - first  # the variance of what is far from 0 as a whole keeps its digits
            total += d
            squares += d * d
        mean = total / np.float32(dim)
        variance = max(squares / np.float32(dim) - mean * mean, np.float32(0))
        scale = ONE / np.sqrt(variance + epsilon)
        center = first + mean
        for c in range(row.size):
            result[c] = (row[c] - center) * scale * weight[c]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def silu(x):
    """x / (1 + exp(-x))."""
    d = -x
    d = d if d < LARGEST else LARGEST
    return x / (ONE + exp_single(d if d > -LARGEST else -LARGEST))


@lru_cache(maxsize=16)
def gate_loop(num_taps: int) -> Callable[..., None]:
    """The loop of `gated_rows` for this number of taps: a sum of constant length goes into vector instructions."""

    @njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
    def gate_rows(y, projected, taps, lead):
        """`y` `(batch, length, dim)` from `(batch, length, 2, dim)` and `(taps, dim)`, the oldest tap first."""
        batch, length, _ = y.shape
        for b in range(batch):
            for t in range(length):
                row, gate, first = y[b, t], projected[b, t, 1], t + lead - num_taps + 1
                if first >= 0 and first + num_taps <= length:
                    window = projected[b, first : first + num_taps]
                    for c in range(row.size):
                        total = np.float32(0)
                        for tap in range(num_taps):
                            total += taps[tap, c] * window[tap, 0, c]
                        row[c] = total * silu(gate[c])
                    continue
                row[:] = 0
                for tap in range(max(-first, 0), min(num_taps, length - first)):
                    signal = projected[b, first + tap, 0]
                    for c in range(row.size):
                        row[c] += taps[tap, c] * signal[c]
                for c in range(row.size):
                    row[c] *= silu(gate[c])

    return gate_rows
