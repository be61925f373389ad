"""Convolution of every channel with its own filter, by whichever way is fastest at this length.

Many ways, one result: shifted multiply-adds and direct sums for few taps, the FFT in overlapping pieces for
filters much shorter than the signal, one FFT for the rest. Streams and single steps are in `streaming.py`; the
definition is in `reference.py`. A filter that is used again is prepared once: the FFT ways keep its spectrum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hyena_glt.ops.halved_fft import halved_conv, halved_spectrum
from hyena_glt.ops.partitioned import partition_spectra, partitioned_conv
from hyena_glt.ops.shifted_sum import short_conv

SHIFTED_TAPS = 8
DIRECT_TAPS = 64
OVERLAP_RATIO = 4
HALVED_LENGTH = 8192
LONGEST_FFT = 32768
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
    block = channel_block(size * len(u))
    pairs = zip(u.split(block, dim=1), h.split(block), strict=True)
    return torch.cat([_fft_block(part, spectrum(taps, size), lead, size) for part, taps in pairs], dim=1)


def overlap_conv(u: Tensor, h: Tensor, lead: int) -> Tensor:
    """Overlap-save: pieces of the signal, each with its `taps - 1` predecessors, convolved on their own."""
    taps = h.shape[-1]
    size = fft_size(OVERLAP_RATIO * taps)
    block = channel_block(2 * u.shape[-1] * len(u))
    pairs = zip(u.split(block, dim=1), h.split(block), strict=True)
    parts = [_overlap_block(part, spectrum(part_taps, size), lead, size, taps) for part, part_taps in pairs]
    return torch.cat(parts, dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedFilter:
    """A filter in the form that the convolution of one length reads it in; a block of channels."""

    method: Callable[[Tensor, Tensor, int], Tensor]
    values: Tensor  # (channels, taps) taps, or a complex spectrum (channels, about size / 2)
    lead: int
    taps: int
    size: int  # of the FFT; 0 where there is none

    @property
    def tensors(self) -> list[Tensor]:
        """What is kept."""
        return [self.values]

    def __call__(self, u: Tensor) -> Tensor:
        """`two_sided_conv` of `(batch, channels, length)`, of the length it was prepared for."""
        precise = torch.promote_types(u.dtype, torch.float32)
        with torch.autocast(u.device.type, enabled=False):
            return self._convolve(u.to(precise)).to(u.dtype)

    def _convolve(self, u: Tensor) -> Tensor:
        if self.method is partitioned_conv:
            return partitioned_conv(u, self.values, self.size // 2)
        if self.method is halved_conv:
            return halved_conv(u, self.values, self.size)
        if self.method is fft_conv:
            return _fft_block(u, self.values, self.lead, self.size)
        if self.method is overlap_conv:
            return _overlap_block(u, self.values, self.lead, self.size, self.taps)
        return self.method(u, self.values, self.lead)


def prepare_filter(h: Tensor, length: int, lead: int = 0, dtype: torch.dtype = torch.float32) -> PreparedFilter:
    """What `two_sided_conv` does to a filter before it meets signals of this length.

    Args:
        h: `(channels, taps)`, few enough channels to be convolved in one piece.
        length: Of the signals to come.
        lead: Taps that look ahead.
        dtype: Of the signals; float32 at least is used.
    """
    h = h.to(torch.promote_types(dtype, torch.float32))
    taps = h.shape[-1]
    method = choose_method(length, taps)
    if method not in (fft_conv, overlap_conv):
        return PreparedFilter(method=method, values=h, lead=lead, taps=taps, size=0)
    if method is fft_conv and lead == 0 and max(length, taps) > LONGEST_FFT:
        values = partition_spectra(h, LONGEST_FFT // 2)
        return PreparedFilter(method=partitioned_conv, values=values, lead=0, taps=taps, size=LONGEST_FFT)
    if method is fft_conv and lead == 0 and length >= HALVED_LENGTH and not _recorded(h):
        size = fft_size(max(length, taps))
        return PreparedFilter(method=halved_conv, values=halved_spectrum(h, size), lead=0, taps=taps, size=size)
    size = fft_size(OVERLAP_RATIO * taps if method is overlap_conv else length + taps - 1)
    return PreparedFilter(method=method, values=spectrum(h, size), lead=lead, taps=taps, size=size)


def _recorded(h: Tensor) -> bool:
    """Whether a graph or a compiler follows the filter: then the plain FFT, which both know how to take apart."""
    return torch.compiler.is_compiling() or torch.is_grad_enabled() or h.requires_grad


def channel_block(elements: int) -> int:
    """Channels that are convolved together when one takes this many elements."""
    return max(1, BLOCK_ELEMENTS // max(elements, 1))


def spectrum(h: Tensor, size: int) -> Tensor:
    """The filter's FFT: `(channels, size / 2 + 1)` complex."""
    return torch.fft.rfft(h, n=size)


def _fft_block(u: Tensor, h_spectrum: Tensor, lead: int, size: int) -> Tensor:
    return circular_conv(u, h_spectrum, size)[..., lead : lead + u.shape[-1]]


def _overlap_block(u: Tensor, h_spectrum: Tensor, lead: int, size: int, taps: int) -> Tensor:
    length = u.shape[-1]
    step = size - taps + 1
    pieces = -(-length // step)
    padded = F.pad(u, (taps - 1 - lead, pieces * step - length + lead))
    framed = padded.unfold(-1, size, step)  # (batch, channels, pieces, size)
    y = circular_conv(framed, h_spectrum.unsqueeze(1), size)[..., taps - 1 :]
    return y.flatten(-2)[..., :length]


def circular_conv(u: Tensor, h_spectrum: Tensor, size: int) -> Tensor:
    """The convolution modulo `size` of signals with a filter of this spectrum: `(..., size)`."""
    return torch.fft.irfft(torch.fft.rfft(u, n=size) * h_spectrum, n=size)


def fft_size(minimum: int) -> int:
    """The smallest size of the form 2^a, 3 * 2^a or 5 * 2^a, even, that holds `minimum` samples."""
    return min(_doubled(base, minimum) for base in (2, 6, 10))


def _doubled(base: int, minimum: int) -> int:
    while base < minimum:
        base *= 2
    return base
