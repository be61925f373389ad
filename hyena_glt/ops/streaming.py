"""Convolutions of a stream that comes in pieces of any size, down to single steps, equal to one over the whole.

Short filters remember their last inputs, long ones a `History`; a sum of exponentials remembers one number per
exponential, whatever the length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hyena_glt.ops.fftconv import (
    DIRECT_TAPS,
    OVERLAP_RATIO,
    SHIFTED_TAPS,
    channel_block,
    circular_conv,
    fft_size,
    overlap_conv,
    spectrum,
)
from hyena_glt.ops.shifted_sum import short_conv
from hyena_glt.ops.stream_state import History, PastInputs

DOT_STEPS = 12  # beyond, one FFT of the history is faster (256 to 32,768 values, one AVX-512 core)
DOT_ELEMENTS = 1 << 18
FEW_TAPS = 4  # up to here adding tap by tap is faster than one product and one sum


def stream_short_conv(u: Tensor, h: Tensor, state: PastInputs | None, *, dim: int = -1) -> tuple[Tensor, PastInputs]:
    """`short_conv` of a stream's next piece.

    Args:
        u: `(batch, channels, n)`, or `(batch, n, channels)` with `dim=1`.
        h: `(channels, taps)`.
        state: What the piece before returned; None at the beginning.
        dim: Dimension of the length.

    Returns:
        The shape of `u`, and the state after it.
    """
    dim, kept = dim % u.ndim, h.shape[-1] - 1
    window, left = with_past(u, kept, state, dim=dim)
    if u.shape[dim] == 1:
        return _step_short_conv(window, h, dim), left
    return short_conv(window, h, dim=dim).narrow(dim, kept, u.shape[dim]), left


def with_past(u: Tensor, kept: int, state: PastInputs | None, *, dim: int = -1) -> tuple[Tensor, PastInputs]:
    """A piece behind the `kept` inputs before it, which are 0 where the stream began, and the last `kept` of both."""
    dim %= u.ndim
    past = (_no_past(u, kept, dim) if state is None else state.values).to(u.dtype)
    window = torch.cat([past, u], dim=dim)
    return window, PastInputs(values=window.narrow(dim, u.shape[dim], kept).clone())


def _step_short_conv(window: Tensor, h: Tensor, dim: int) -> Tensor:
    """The last step of a window: the inputs times their taps, all channels in one expression."""
    kept = h.shape[-1] - 1
    if kept >= FEW_TAPS:
        weights = h.flip(-1).T if dim == 1 else h.flip(-1)
        return (window * weights).sum(dim, keepdim=True)
    inputs, taps = window.unbind(dim), h.unbind(-1)
    y = inputs[kept] * taps[0]
    for lag in range(1, kept + 1):
        y = y + inputs[kept - lag] * taps[lag]
    return y.unsqueeze(dim)


def _no_past(u: Tensor, kept: int, dim: int) -> Tensor:
    shape = list(u.shape)
    shape[dim] = kept
    return u.new_zeros(shape)


def stream_conv(u: Tensor, h: Tensor, state: History | None = None, reach: int | None = None) -> tuple[Tensor, History]:
    """`causal_conv` of a stream's next piece.

    Args:
        u: `(batch, channels, n)`; a single step (n = 1) is a dot product with the history.
        h: `(channels, taps)`, as many taps as the stream will have steps after this piece, or all there are.
        state: What the piece before returned; None at the beginning.
        reach: Taps that the whole filter has, so that older values are dropped; None: no end.

    Returns:
        `(batch, channels, n)` in the dtype of `u`, computed in float32 at least, and the state after it.
    """
    precise = u.to(torch.promote_types(torch.promote_types(u.dtype, h.dtype), torch.float32))
    with torch.autocast(u.device.type, enabled=False):
        history = extend(precise, state, reach)
        y = conv_end(history.last(history.length), h.to(precise.dtype).flip(-1), u.shape[-1])
    return y.to(u.dtype), history.trimmed(kept_values(reach))


def extend(u: Tensor, state: History | None, reach: int | None) -> History:
    """The history with a piece at its end; at least the `reach - 1` values before the piece are kept."""
    before = History.of(u[..., :0]) if state is None else state
    return before.append(u, kept_values(reach))


def kept_values(reach: int | None) -> int | None:
    """Values that a filter of this reach needs of the past."""
    return None if reach is None else max(reach - 1, 0)


def conv_end(values: Tensor, reversed_taps: Tensor, n: int) -> Tensor:
    """The last `n` outputs of a causal convolution, by whichever way is fastest.

    Args:
        values: `(batch, channels, m)`, all inputs that can matter, the newest last.
        reversed_taps: `(channels, taps)`, lag 0 last.
        n: Outputs wanted, at most `m`.

    Returns:
        `(batch, channels, n)`.
    """
    taps = min(reversed_taps.shape[-1], values.shape[-1])
    reversed_taps = reversed_taps[:, reversed_taps.shape[-1] - taps :]
    values = values[..., max(values.shape[-1] - (taps - 1 + n), 0) :]
    if taps == 0:
        return torch.zeros_like(values[..., :n])
    if n <= DOT_STEPS:
        return _dot_products(values, reversed_taps, n)
    if taps <= SHIFTED_TAPS:
        return short_conv(values, reversed_taps.flip(-1))[..., -n:]
    if taps <= DIRECT_TAPS:
        padded = F.pad(values, (taps - 1 + n - values.shape[-1], 0))
        return F.conv1d(padded, reversed_taps.unsqueeze(1), groups=len(reversed_taps))
    if OVERLAP_RATIO * taps <= n:
        return overlap_conv(values, reversed_taps.flip(-1), 0)[..., -n:]
    return _fft_end(values, reversed_taps.flip(-1), n)


def _dot_products(values: Tensor, reversed_taps: Tensor, n: int) -> Tensor:
    length, taps = values.shape[-1], reversed_taps.shape[-1]
    block = max(1, DOT_ELEMENTS // (len(values) * taps + 1))
    if n == 1 and block >= len(reversed_taps):
        return torch.linalg.vecdot(values[..., length - min(length, taps) :], reversed_taps).unsqueeze(-1)
    pairs = zip(values.split(block, dim=1), reversed_taps.split(block), strict=True)
    parts = []
    for part, part_taps in pairs:
        steps = []
        for end in range(length - n + 1, length + 1):
            seen = min(end, taps)
            steps.append(torch.linalg.vecdot(part[..., end - seen : end], part_taps[:, taps - seen :]))
        parts.append(torch.stack(steps, dim=-1))
    return torch.cat(parts, dim=1)


def _fft_end(values: Tensor, h: Tensor, n: int) -> Tensor:
    """One FFT: what wraps round falls on outputs that nobody asked for."""
    length = values.shape[-1]
    size = fft_size(max(length, h.shape[-1] + n - 1))
    block = channel_block(size * len(values))
    pairs = zip(values.split(block, dim=1), h.split(block), strict=True)
    parts = [circular_conv(part, spectrum(taps, size), size)[..., length - n : length] for part, taps in pairs]
    return torch.cat(parts, dim=1)


def step_exponentials(u: Tensor, decays: Tensor, weights: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a sum of exponentials, s <- s * decay + u, y = sum of weight * s.

    Args:
        u: `(batch, channels, 1)`.
        decays: `(channels, exponentials)`, exp(-rate).
        weights: `(channels, exponentials)`.
        sums: `(batch, channels, exponentials)` s before the step.

    Returns:
        `(batch, channels, 1)` and s after the step.
    """
    sums = sums * decays + u
    return (sums * weights).sum(-1, keepdim=True), sums
