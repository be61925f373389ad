"""Layer norm as one compiled pass, for many blocks of one forward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from hyena_glt.ops.shifted_sum import own_array

ONE = np.float32(1)


def prepared_norm(norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
    """A layer norm without bias on the CPU and without gradients: `(..., dim)` contiguous to the same."""
    if norm.weight.dtype is not torch.float32:
        return norm
    write = norm_writer(norm)

    def normed(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        write(y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1]))
        return y

    return normed


def norm_writer(norm: nn.LayerNorm) -> Callable[[Tensor, Tensor], None]:
    """The same, into the first columns of `(rows, dim or more)` from `(rows, dim)`."""
    weight, epsilon = own_array(norm.weight), np.float32(norm.eps)

    def write(y: Tensor, x: Tensor) -> None:
        if norm.weight.dtype is torch.float32:
            norm_rows(y.numpy(), x.numpy(), weight, epsilon)
        else:
            y[:, : x.shape[1]] = norm(x)

    return write


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def norm_rows(y, x, weight, epsilon):
    """Layer norm of the rows of `x` `(rows, dim)` into the first columns of `y`."""
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
        scale, center = ONE / np.sqrt(variance + epsilon), first + mean
        for c in range(row.size):
            result[c] = (row[c] - center) * scale * weight[c]
