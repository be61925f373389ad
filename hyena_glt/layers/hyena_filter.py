"""Filters of the Hyena operator: lag -> one weight per channel, in float32 at least, whatever autocast says.

A filter depends on the lag alone, never on the length of the batch, so padding changes no result:
`filter(length)[:, :n]` equals `filter(n)`. The layout short, medium, long is that of StripedHyena 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hyena_glt.layers.lag_filter import (
    LagFilter,
    PreparedConv,
    check_streamable,
    described,
    filter_blocks,
    stream_reach,
    weights_of,
)
from hyena_glt.ops.exponential_conv import ExponentialConv
from hyena_glt.ops.stream_state import ExponentialSums, StreamState, StreamStates
from hyena_glt.ops.streaming import step_exponentials
from hyena_glt.ops.weight_cache import WEIGHT_CACHE

FEATURE_WAVELENGTHS = 8
SLOWEST_HALF_LIFE = 32768.0
LAG_BLOCK = 128
NEGLIGIBLE = 1e-8
CHUNKED_LENGTH = 1024  # from here on chunks are faster than an FFT (128 channels, one AVX-512 core)


def half_life_rates(channels: int, shortest: float, longest: float) -> Tensor:
    """Log of rates whose half-lives run geometrically from `shortest` to `longest` lags: `(channels,)`."""
    half_lives = torch.logspace(math.log2(shortest), math.log2(longest), channels, base=2.0)
    return (math.log(2) / half_lives).log()


def lag_features(length: int, device: torch.device) -> Tensor:
    """What the implicit filter knows of a lag: log1p and waves of lengths 4, 16, ..., 4^8; `(length, 17)`."""
    lags = torch.arange(length, device=device, dtype=torch.float32)
    wavelengths = 4.0 ** torch.arange(1, FEATURE_WAVELENGTHS + 1, device=device)
    angles = lags.unsqueeze(-1) % wavelengths * (2 * math.pi / wavelengths)
    return torch.cat([lags.log1p().unsqueeze(-1) / 8, angles.sin(), angles.cos()], dim=-1)


class ExplicitFilter(LagFilter):
    """One free weight per tap, with a learned decay where the filter is long enough to need one.

    Args:
        channels: Channels, each with its own filter.
        num_taps: Lags 0 to `num_taps - 1`.
        decays: Multiply by an exponential with half-lives from 2 lags to `num_taps`.
    """

    def __init__(self, channels: int, num_taps: int, *, decays: bool = False) -> None:
        super().__init__(channels)
        self.taps = nn.Parameter(torch.randn(channels, num_taps) / math.sqrt(num_taps))
        self.log_rate = nn.Parameter(half_life_rates(channels, 2, num_taps)) if decays else None

    def forward(self, length: int) -> Tensor:
        """`(channels, min(length, num_taps))` float32."""
        taps = self.taps[:, :length]
        return taps if self.log_rate is None else taps * decay(self.log_rate, taps.shape[1])

    def blocks(self, length: int, size: int) -> Iterator[Tensor]:
        """`size` channels of the filter at a time."""
        return iter(self(length).split(size))

    def reach(self) -> int:
        """`num_taps`."""
        return self.taps.shape[1]


class ImplicitFilter(LagFilter):
    """A small network of the lag under an exponential window (Hyena, arXiv:2302.10866, section 3.3).

    Unlike the paper, the features are of the absolute lag, not of the lag over the length, and each
    channel starts at unit energy: the network's output is scaled by sqrt(1 - exp(-2 rate)).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels)
        self.inner = nn.Linear(1 + 2 * FEATURE_WAVELENGTHS, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, channels, bias=False)
        self.log_rate = nn.Parameter(half_life_rates(channels, 4, SLOWEST_HALF_LIFE))
        nn.init.normal_(self.outer.weight, std=math.sqrt(2 / hidden))

    def blocks(self, length: int, size: int) -> Iterator[Tensor]:
        """`(size, length)` float32 at a time; the network's last hidden layer `(length, hidden)` is shared."""
        with torch.autocast(self.log_rate.device.type, enabled=False):
            hidden = self.hidden(length).T
        for weight, log_rate in zip(self.outer.weight.split(size), self.log_rate.split(size), strict=True):
            with torch.autocast(self.log_rate.device.type, enabled=False):
                block = weight @ hidden * (decay(log_rate, length) * unit_energy(log_rate))
            yield block

    def hidden(self, length: int) -> Tensor:
        """The last hidden layer: `(length, hidden)`."""
        features = lag_features(length, self.log_rate.device).to(self.log_rate.dtype)
        return self.middle(self.inner(features).sin()).sin()

    def reach(self) -> int | None:
        """Lags after which every channel's window has fallen below 1e-8."""
        return decay_reach(self.log_rate)


class ExponentialFilter(LagFilter):
    """A sum of real exponentials per channel: a long filter that also runs in constant memory per step."""

    def __init__(self, channels: int, num_exponentials: int) -> None:
        super().__init__(channels)
        rates = half_life_rates(num_exponentials, 1, SLOWEST_HALF_LIFE)
        self.log_rate = nn.Parameter(rates.repeat(channels, 1))  # (channels, exponentials)
        self.amplitude = nn.Parameter(torch.randn(channels, num_exponentials) / math.sqrt(num_exponentials))

    def blocks(self, length: int, size: int) -> Iterator[Tensor]:
        """`(size, length)` float32 at a time; never a tensor of `(channels, exponentials, length)`."""
        for log_rate, amplitude in zip(self.log_rate.split(size), self.amplitude.split(size), strict=True):
            with torch.autocast(self.log_rate.device.type, enabled=False):
                coarse, fine = decay_tables(log_rate, length)
                weighted = fine * (amplitude.unsqueeze(-1) * unit_energy(log_rate))
                block = torch.einsum("cka,ckb->cab", coarse, weighted).flatten(1)[:, :length]
            yield block

    def prepared(self, length: int, size: int, dtype: torch.dtype) -> Iterator[PreparedConv]:
        """As `LagFilter.prepared`; long signals in time linear in the length, where no graph is recorded."""
        if length < CHUNKED_LENGTH or torch.is_grad_enabled() or torch.compiler.is_compiling():
            yield from super().prepared(length, size, dtype)
            return
        rate, weight = self.rates_and_weights(dtype)
        for part in zip(rate.split(size), weight.split(size), strict=True):
            yield ExponentialConv.of(*part)

    def rates_and_weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The filter is the sum of weight * exp(-rate * lag): both `(channels, exponentials)`, float32 at least."""
        with torch.autocast(self.log_rate.device.type, enabled=False):
            log_rate = self.log_rate.to(torch.promote_types(dtype, torch.float32))
            return log_rate.exp(), self.amplitude.to(log_rate.dtype) * unit_energy(log_rate).squeeze(-1)

    def stream(self, u: Tensor, state: Any = None) -> tuple[Tensor, StreamState]:
        """As `LagFilter.stream`, in constant memory: the state is one sum per exponential."""
        sums = None if state is None else state.sums
        if u.shape[-1] > 1:
            y, sums = self._chunked(u.dtype).stream(u, sums)
            return y, ExponentialSums(sums=sums)
        if sums is None:
            sums = u.new_zeros(*u.shape[:2], self.log_rate.shape[1])
        rate, weight = self.rates_and_weights(u.dtype)
        y, sums = step_exponentials(u, (-rate).exp(), weight, sums)
        return y, ExponentialSums(sums=sums)

    def _chunked(self, dtype: torch.dtype) -> ExponentialConv:
        """All channels in one, kept for the next piece while gradients are off and the weights stay as they are."""

        def made() -> ExponentialConv:
            return ExponentialConv.of(*self.rates_and_weights(dtype))

        return WEIGHT_CACHE.get(("chunked", dtype, *described(self)), weights_of(self), made, lambda conv: conv.tensors)


class SummedFilter(LagFilter):
    """The sum of several filters."""

    def __init__(self, *filters: nn.Module) -> None:
        super().__init__(getattr(filters[0], "channels", 0) if filters else 0)
        self.filters = nn.ModuleList(filters)

    def forward(self, length: int) -> Tensor:
        """`(channels, length)` float32."""
        return torch.stack([part(length) for part in self.filters]).sum(0)

    def blocks(self, length: int, size: int) -> Iterator[Tensor]:
        """`size` channels of every filter at a time, summed."""
        parts = [filter_blocks(part, length, size) for part in self.filters]
        for blocks in zip(*parts, strict=True):
            yield torch.stack(blocks).sum(0)

    def reach(self) -> int | None:
        """The farthest reach of the parts."""
        reaches = [stream_reach(check_streamable(part)) for part in self.filters]
        known = [reach for reach in reaches if reach is not None]
        return max(known) if len(known) == len(reaches) else None

    def stream(self, u: Tensor, state: Any = None) -> tuple[Tensor, StreamState]:
        """Each part's stream, summed; the state holds theirs."""
        states = [None] * len(self.filters) if state is None else state.parts
        parts = [check_streamable(part).stream(u, old) for part, old in zip(self.filters, states, strict=True)]
        return torch.stack([y for y, _ in parts]).sum(0), StreamStates(parts=tuple(new for _, new in parts))


def decay_reach(log_rate: Tensor) -> int | None:
    """Lags after which every exp(-rate * lag) is below 1e-8; None where that is beyond 2^31."""
    slowest = float(log_rate.detach().min().exp())
    lags = -math.log(NEGLIGIBLE) / slowest if slowest > 0 else math.inf
    return math.ceil(lags) if lags < 2**31 else None


def decay(log_rate: Tensor, length: int) -> Tensor:
    """exp(-rate * lag): `(channels, length)`."""
    coarse, fine = decay_tables(log_rate, length)
    return (coarse.unsqueeze(-1) * fine.unsqueeze(-2)).flatten(-2)[..., :length]


def decay_tables(log_rate: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Two factors of exp(-rate * lag), for lag = a * 128 + b: `(..., blocks)` over a and `(..., 128)` over b.

    Exponentials are dear: this takes `length / 128 + 128` of them per rate in place of `length`.
    """
    rate = log_rate.exp().unsqueeze(-1)
    fine = torch.arange(LAG_BLOCK, device=log_rate.device, dtype=torch.float32)
    coarse = torch.arange(-(-length // LAG_BLOCK), device=log_rate.device, dtype=torch.float32) * LAG_BLOCK
    return (-rate * coarse).exp(), (-rate * fine).exp()


def unit_energy(log_rate: Tensor) -> Tensor:
    """The factor that gives exp(-rate * lag) a sum of squares of 1, with a last dimension of 1."""
    return (-torch.expm1(-2 * log_rate.exp())).sqrt().unsqueeze(-1)
