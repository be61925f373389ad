"""Convolutions of a few taps as shifted multiply-adds, in either memory layout.

Each tap is one pass over the signal: cheaper than a library convolution up to about 8 taps, and it needs no
transpose when the channels come last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def short_conv(u: Tensor, h: Tensor, *, lead: int = 0, dim: int = -1) -> Tensor:
    """y[t] = sum over k of h[k] u[t + lead - k], per channel; u is 0 outside its length.

    Args:
        u: `(batch, channels, length)`, or `(batch, length, channels)` with `dim=1`.
        h: `(channels, taps)`; tap `k` looks `k - lead` steps back.
        lead: Taps that look ahead; 0 is causal.
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
        grad_h = [_tap_gradient(grad, u, tap - ctx.lead, ctx.dim) for tap in range(taps)]
        return grad_u, torch.stack(grad_h, dim=-1), None, None


def _shifted_sum(u: Tensor, h: Tensor, lead: int, dim: int) -> Tensor:
    weights = h.unbind(-1) if dim == 1 else h.unsqueeze(-1).unbind(-2)
    y = u * weights[lead] if lead < len(weights) else torch.zeros_like(u)
    for tap, weight in enumerate(weights):
        lag = tap - lead
        count = u.shape[dim] - abs(lag)
        if lag and count > 0:
            y.narrow(dim, max(lag, 0), count).addcmul_(u.narrow(dim, max(-lag, 0), count), weight)
    return y


def _tap_gradient(grad: Tensor, u: Tensor, lag: int, dim: int) -> Tensor:
    """Gradient of one tap, `(channels,)`: sum over batch and time of grad[t] u[t - lag]."""
    count = max(u.shape[dim] - abs(lag), 0)
    later, earlier = (
        grad.narrow(dim, max(lag, 0) if count else 0, count),
        u.narrow(dim, max(-lag, 0) if count else 0, count),
    )
    return torch.einsum("blc,blc->c" if dim == 1 else "bcl,bcl->c", later, earlier)
