"""What lies between the products of a gated convolution, compiled: taps and gate in one pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import njit
from torch import Tensor

from hyena_glt.ops.shifted_sum import own_array
from hyena_glt.ops.single_exp import LARGEST, ONE, exp_single


def prepared_gate(taps: Tensor, lead: int) -> Callable[[Tensor], Tensor]:
    """`conv(signal) * silu(gate)` in float32 on the CPU, for many blocks of one forward.

    Args:
        taps: `(dim, taps)`.
        lead: Taps that look ahead.

    Returns:
        From `(batch, length, 2 * dim)` contiguous, signal and gate, to `(batch, length, dim)`.
    """
    oldest_first = own_array(taps.flip(-1).T)
    loop = gate_loop(len(oldest_first))

    def gated(projected: Tensor) -> Tensor:
        batch, length, width = projected.shape
        y = projected.new_empty(batch, length, width // 2)
        loop(y.numpy(), projected.view(batch, length, 2, width // 2).numpy(), oldest_first, lead)
        return y

    return gated


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
