"""Convolution of every channel with its own filter, by whichever way is fastest at this length.

Many ways, one result: shifted multiply-adds and direct sums for few taps, the FFT in overlapping pieces for
filters much shorter than the signal, one FFT for the rest. The definition is in `reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hyena_glt.ops.shifted_sum import short_conv

SHIFTED_TAPS = 8
DIRECT_TAPS = 64
OVERLAP_RATIO = 4
BLOCK_ELEMENTS = 1 << 20


def causal_conv(u: Tensor, h: Tensor) -> Tensor:
    """y[t] = sum over s <= t of h[s] u[t - s] (Hyena, arXiv:2302.10866).

    Args:
        u: `(batch, channels, length)`.
        h: `(channels, taps)`; taps beyond the length are never read.

    Returns:
        `(batch, channels, length)` in the dtype of `u`; computed in float32 at least. The FFT leaks rounding
        (about 1e-7 of the largest product sum) into earlier positions, the direct ways leak nothing.
    """
    return two_sided_conv(u, h[:, : max(u.shape[-1], 1)], lead=0)


def two_sided_conv(u: Tensor, h: Tensor, lead: int) -> Tensor:
    """y[t] = sum over k of h[k] u[t + lead - k]: the first `lead` taps look ahead; else as `causal_conv`."""
    precise = torch.promote_types(u.dtype, torch.float32)
    with torch.autocast(u.device.type, enabled=False):
        method = choose_method(u.shape[-1], h.shape[-1])
        return method(u.to(precise), h.to(precise), lead).to(u.dtype)


def choose_method(length: int, taps: int) -> Callable[[Tensor, Tensor, int], Tensor]:
    """The fastest way for this size, as measured on one AVX-512 core."""
    if taps <= SHIFTED_TAPS or length == 0:
        return shifted_conv
    if taps <= DIRECT_TAPS:
        return direct_conv
    return overlap_conv if OVERLAP_RATIO * taps <= length else fft_conv


def shifted_conv(u: Tensor, h: Tensor, lead: int) -> Tensor:
    """One pass over the signal per tap."""
    return short_conv(u, h, lead=lead)


def direct_conv(u: Tensor, h: Tensor, lead: int) -> Tensor:
    """The library's depthwise convolution."""
    padded = F.pad(u, (h.shape[-1] - 1 - lead, lead))
    return F.conv1d(padded, h.flip(-1).unsqueeze(1), groups=h.shape[0])


def fft_conv(u: Tensor, h: Tensor, lead: int) -> Tensor:
    """One FFT over the whole length, a block of channels at a time so that it stays in the cache."""
    size = fft_size(u.shape[-1] + h.shape[-1] - 1)
    block = max(1, BLOCK_ELEMENTS // (size * max(u.shape[0], 1)))
    pairs = zip(u.split(block, dim=1), h.split(block), strict=True)
    return torch.cat([_circular(part, taps, size)[..., lead : lead + u.shape[-1]] for part, taps in pairs], dim=1)


def overlap_conv(u: Tensor, h: Tensor, lead: int) -> Tensor:
    """Overlap-save: pieces of the signal, each with its `taps - 1` predecessors, convolved on their own."""
    taps = h.shape[-1]
    size = fft_size(OVERLAP_RATIO * taps)
    block = max(1, BLOCK_ELEMENTS // (2 * u.shape[-1] * max(u.shape[0], 1)))
    pairs = zip(u.split(block, dim=1), h.split(block), strict=True)
    return torch.cat([_overlap_block(part, part_taps, lead, size) for part, part_taps in pairs], dim=1)


def _overlap_block(u: Tensor, h: Tensor, lead: int, size: int) -> Tensor:
    length, taps = u.shape[-1], h.shape[-1]
    step = size - taps + 1
    pieces = -(-length // step)
    padded = F.pad(u, (taps - 1 - lead, pieces * step - length + lead))
    framed = padded.unfold(-1, size, step)  # (batch, channels, pieces, size)
    y = _circular(framed, h.unsqueeze(1), size)[..., taps - 1 :]
    return y.flatten(-2)[..., :length]


def _circular(u: Tensor, h: Tensor, size: int) -> Tensor:
    spectrum = torch.fft.rfft(u, n=size) * torch.fft.rfft(h, n=size)
    return torch.fft.irfft(spectrum, n=size)


def fft_size(minimum: int) -> int:
    """The smallest size of the form 2^a, 3 * 2^a or 5 * 2^a, even, that holds `minimum` samples."""
    return min(_doubled(base, minimum) for base in (2, 6, 10))


def _doubled(base: int, minimum: int) -> int:
    while base < minimum:
        base *= 2
    return base
