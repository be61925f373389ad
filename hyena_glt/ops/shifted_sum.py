"""Convolutions of a few taps as shifted multiply-adds, in either memory layout.

Cheaper than a library convolution up to about 8 taps, and it needs no transpose when the channels come last. On the
CPU a compiled loop takes all taps in one pass over the signal; elsewhere each tap is a pass of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

TIME_BLOCK = 2048


def short_conv(u: Tensor, h: Tensor, *, lead: int = 0, dim: int = -1) -> Tensor:
    """y[t] = sum over k of h[k] u[t + lead - k], per channel; u is 0 outside its length.

    Args:
        u: `(batch, channels, length)`, or `(batch, length, channels)` with `dim=1`.
        h: `(channels, taps)`; tap `k` looks `k - lead` steps back.
        lead: Taps that look ahead; 0 is causal. It may pass the last tap: then every tap looks ahead.
        dim: Dimension of the length.

    Returns:
        The shape of `u`, in the wider of the two dtypes.
    """
    dtype = torch.promote_types(u.dtype, h.dtype)
    return _ShortConv.apply(u.to(dtype), h.to(dtype), lead, dim % u.ndim)


class _ShortConv(torch.autograd.Function):
    """Own backward: that of a sum of slices would write a full-length tensor for every tap."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, h: Tensor, lead: int, dim: int) -> Tensor:
        ctx.save_for_backward(u, h)
        ctx.lead, ctx.dim = lead, dim
        return _shifted_sum(u, h, lead, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        u, h = ctx.saved_tensors
        taps = h.shape[-1]
        grad_u = _shifted_sum(grad, h.flip(-1), taps - 1 - ctx.lead, ctx.dim)
        return grad_u, _tap_gradients(grad, u, taps, ctx.lead, ctx.dim), None, None


def compiled_loops_read(*tensors: Tensor) -> bool:
    """Whether compiled loops can read these tensors, and what follows from them: plain, on the CPU, of one precision.

    That is float32 or float64, and no autocast, no compiler and no functional transform at work.
    """
    first = tensors[0].dtype
    return (
        first in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and all(type(t) in (Tensor, torch.nn.Parameter) and t.is_cpu and t.dtype is first for t in tensors)
        and not any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in tensors)
    )


def own_array(weight: Tensor) -> NDArray[Any]:
    """The values of a weight, copied: FSDP2 frees the memory of weights, which it cannot once an array shows it."""
    return weight.detach().clone(memory_format=torch.contiguous_format).numpy()


def flat_memory(x: Tensor) -> NDArray[Any]:
    """The memory from the first element of a tensor to its last, as one contiguous array; strides say what is what."""
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((reach + 1,), (1,)).numpy()


def _shifted_sum(u: Tensor, h: Tensor, lead: int, dim: int) -> Tensor:
    if u.numel() == 0 or u.ndim != 3 or not compiled_loops_read(u, h):
        return _sum_of_passes(u, h, lead, dim)
    u = u if u.stride(-1) == 1 else u.contiguous()
    y = torch.empty(u.shape, dtype=u.dtype)
    memory, strides = flat_memory(u), (u.stride(0), u.stride(1))
    if dim == 1:
        sum_rows(y.numpy(), memory, strides, own_array(h.T), lead)
    else:
        sum_channels(y.numpy(), memory, strides, own_array(h), lead)
    return y


@njit(cache=True, nogil=True, error_model="numpy")
def sum_rows(y, u, strides, h, lead):
    """`y` `(batch, length, channels)` from the memory of `u` and `h` `(taps, channels)`."""
    batch, length, channels = y.shape
    for b in range(batch):
        for t in range(length):
            row = y[b, t]
            row[:] = 0
            for tap in range(max(t + lead - length + 1, 0), min(t + lead + 1, h.shape[0])):
                start = b * strides[0] + (t + lead - tap) * strides[1]
                weights, seen = h[tap], u[start : start + channels]  # slices: an index that is a sum is not vectorised
                for c in range(channels):
                    row[c] += weights[c] * seen[c]


@njit(cache=True, nogil=True, error_model="numpy")
def sum_channels(y, u, strides, h, lead):
    """`y` `(batch, channels, length)` from the memory of `u` and `h` `(channels, taps)`; blocks stay in the cache."""
    batch, channels, length = y.shape
    for b in range(batch):
        for c in range(channels):
            start = b * strides[0] + c * strides[1]
            for first in range(0, length, TIME_BLOCK):
                last = min(first + TIME_BLOCK, length)
                y[b, c, first:last] = 0
                for tap in range(h.shape[1]):
                    weight, lag = h[c, tap], tap - lead
                    begin, end = max(first, lag), min(last, length + lag)
                    if begin < end:
                        row, seen = y[b, c, begin:end], u[start + begin - lag : start + end - lag]
                        for t in range(row.size):
                            row[t] += weight * seen[t]


def _sum_of_passes(u: Tensor, h: Tensor, lead: int, dim: int) -> Tensor:
    weights = h.unbind(-1) if dim == 1 else h.unsqueeze(-1).unbind(-2)
    y = u * weights[lead] if 0 <= lead < len(weights) else torch.zeros_like(u)
    for tap, weight in enumerate(weights):
        lag = tap - lead
        count = u.shape[dim] - abs(lag)
        if lag and count > 0:
            y.narrow(dim, max(lag, 0), count).addcmul_(u.narrow(dim, max(-lag, 0), count), weight)
    return y


def _tap_gradients(grad: Tensor, u: Tensor, taps: int, lead: int, dim: int) -> Tensor:
    """`(channels, taps)`: sum over batch and time of grad[t] u[t + lead - k]."""
    if u.numel() == 0 or u.ndim != 3 or not compiled_loops_read(grad, u):
        sums = u.new_zeros(u.shape[3 - dim], taps)
        for tap in range(taps):
            sums[:, tap] = _tap_gradient(grad, u, tap - lead, dim)
        return sums
    grad, u = (x if x.stride(-1) == 1 else x.contiguous() for x in (grad, u))
    memories = flat_memory(grad), (grad.stride(0), grad.stride(1)), flat_memory(u), (u.stride(0), u.stride(1))
    if dim == 1:
        sums = torch.zeros(taps, u.shape[-1], dtype=torch.float64)
        add_row_products(sums.numpy(), *memories, (u.shape[0], u.shape[1]), lead)
        return sums.T.to(u.dtype)
    sums = torch.zeros(u.shape[1], taps, dtype=torch.float64)
    add_channel_products(sums.numpy(), *memories, (u.shape[0], u.shape[2]), lead)
    return sums.to(u.dtype)


@njit(cache=True, nogil=True, error_model="numpy")
def add_row_products(sums, grad, grad_strides, u, strides, shape, lead):
    """Adds to `sums` `(taps, channels)`, for channels last; `shape` is (batch, length)."""
    batch, length = shape
    taps, channels = sums.shape
    block = np.empty((taps, channels), grad.dtype)
    for b in range(batch):
        for first in range(0, length, TIME_BLOCK):
            block[:] = 0
            for t in range(first, min(first + TIME_BLOCK, length)):
                at = b * grad_strides[0] + t * grad_strides[1]
                seen_grad = grad[at : at + channels]
                for tap in range(max(t + lead - length + 1, 0), min(t + lead + 1, taps)):
                    start = b * strides[0] + (t + lead - tap) * strides[1]
                    row, seen = block[tap], u[start : start + channels]
                    for c in range(channels):
                        row[c] += seen_grad[c] * seen[c]
            sums += block


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def add_channel_products(sums, grad, grad_strides, u, strides, shape, lead):
    """Adds to `sums` `(channels, taps)`, for the length last; `shape` is (batch, length)."""
    batch, length = shape
    channels, taps = sums.shape
    for b in range(batch):
        for c in range(channels):
            at, start = b * grad_strides[0] + c * grad_strides[1], b * strides[0] + c * strides[1]
            for first in range(0, length, TIME_BLOCK):
                last = min(first + TIME_BLOCK, length)
                for tap in range(taps):
                    lag = tap - lead
                    begin, end = max(first, lag), min(last, length + lag)
                    if begin < end:
                        seen_grad, seen = grad[at + begin : at + end], u[start + begin - lag : start + end - lag]
                        product = seen[0] * 0
                        for t in range(seen.size):
                            product += seen_grad[t] * seen[t]
                        sums[c, tap] += product


def _tap_gradient(grad: Tensor, u: Tensor, lag: int, dim: int) -> Tensor:
    """Gradient of one tap, `(channels,)`: sum over batch and time of grad[t] u[t - lag]."""
    count = max(u.shape[dim] - abs(lag), 0)
    later, earlier = (
        grad.narrow(dim, max(lag, 0) if count else 0, count),
        u.narrow(dim, max(-lag, 0) if count else 0, count),
    )
    return torch.einsum("blc,blc->c" if dim == 1 else "bcl,bcl->c", later, earlier)
