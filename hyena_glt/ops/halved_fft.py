"""A causal convolution by two transforms of half the size: modulo x^n - 1 and modulo x^n + 1.

A product p of degree below 2 n is low + x^n high; the first remainder is low + high, the second low - high, so
their mean is low, which is all that a causal convolution wants. Nothing is padded, and the transforms are of a
size that the FFT library is much faster at (see benchmarks/long_conv.py). The second remainder is a complex FFT
of n / 2 points after folding, since x^(n/2) acts as i, and a twist by exp(i pi t / n).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def halved_spectrum(h: Tensor, size: int) -> Tensor:
    """What `halved_conv` multiplies with: `(channels, size + 1)` complex, both remainders and the scale.

    Args:
        h: `(channels, taps)`, at most `size` taps.
        size: Even, at least the length of the signals to come.
    """
    h = F.pad(h, (0, size - h.shape[-1]))
    cyclic = torch.fft.rfft(h)
    negacyclic = torch.fft.fft(folded(h) * twist(size, h.dtype, h.device))
    return torch.cat([cyclic / (2 * size), negacyclic / size], dim=-1)


def halved_conv(u: Tensor, spectrum: Tensor, size: int) -> Tensor:
    """The causal convolution of signals with the filter of a spectrum; no gradients.

    Args:
        u: `(batch, channels, length)`, at most `size` long.
        spectrum: From `halved_spectrum`.
        size: As given there.

    Returns:
        `(batch, channels, length)` in the dtype of `u`.
    """
    length, half = u.shape[-1], size // 2
    u = u if length == size else F.pad(u, (0, size - length))
    cyclic, negacyclic = spectrum.split([half + 1, half], dim=-1)
    y = torch.fft.irfft(torch.fft.rfft(u).mul_(cyclic), n=size, norm="forward")
    twisted = twist(size, u.dtype, u.device)
    z = torch.fft.fft(folded(u).mul_(twisted)).mul_(negacyclic)
    z = torch.view_as_real(torch.fft.ifft(z, norm="forward").mul_(twist(size, u.dtype, u.device, -1)))
    y[..., :half] += z[..., 0]
    y[..., half:] += z[..., 1]
    return y[..., :length]


def folded(u: Tensor) -> Tensor:
    """First half + i second half: `(..., size / 2)` complex."""
    first, second = u.chunk(2, dim=-1)
    return torch.complex(first, second)


@lru_cache(maxsize=8)
def twist(size: int, dtype: torch.dtype, device: torch.device, sign: int = 1) -> Tensor:
    """exp(sign i pi t / size) for t below size / 2, computed in float64; not to be written to."""
    with torch.inference_mode(False):
        angles = torch.arange(size // 2, dtype=torch.float64, device=device) * (sign * math.pi / size)
        return torch.polar(torch.ones_like(angles), angles).to(dtype.to_complex())
