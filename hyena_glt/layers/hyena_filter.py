"""Filters of the Hyena operator: lag -> one weight per channel, in float32 at least, whatever autocast says.

A filter depends on the lag alone, never on the length of the batch, so padding changes no result:
`filter(length)[:, :n]` equals `filter(n)`. The layout short, medium, long is that of StripedHyena 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FEATURE_WAVELENGTHS = 8
SLOWEST_HALF_LIFE = 32768.0
LAG_BLOCK = 128


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


class ExplicitFilter(nn.Module):
    """One free weight per tap, with a learned decay where the filter is long enough to need one.

    Args:
        channels: Channels, each with its own filter.
        num_taps: Lags 0 to `num_taps - 1`.
        decays: Multiply by an exponential with half-lives from 2 lags to `num_taps`.
    """

    def __init__(self, channels: int, num_taps: int, *, decays: bool = False) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.randn(channels, num_taps) / math.sqrt(num_taps))
        self.log_rate = nn.Parameter(half_life_rates(channels, 2, num_taps)) if decays else None

    def forward(self, length: int) -> Tensor:
        """`(channels, min(length, num_taps))` float32."""
        taps = self.taps[:, :length]
        return taps if self.log_rate is None else taps * decay(self.log_rate, taps.shape[1])


class ImplicitFilter(nn.Module):
    """A small network of the lag under an exponential window (Hyena, arXiv:2302.10866, section 3.3).

    Unlike the paper, the features are of the absolute lag, not of the lag over the length, and each
    channel starts at unit energy: the network's output is scaled by sqrt(1 - exp(-2 rate)).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(1 + 2 * FEATURE_WAVELENGTHS, hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, channels, bias=False)
        self.log_rate = nn.Parameter(half_life_rates(channels, 4, SLOWEST_HALF_LIFE))
        nn.init.normal_(self.outer.weight, std=math.sqrt(2 / hidden))

    def forward(self, length: int) -> Tensor:
        """`(channels, length)` float32."""
        with torch.autocast(self.log_rate.device.type, enabled=False):
            features = lag_features(length, self.log_rate.device).to(self.log_rate.dtype)
            hidden = self.inner(features).sin()
            hidden = self.middle(hidden).sin()
            window = decay(self.log_rate, length) * unit_energy(self.log_rate)
            return self.outer.weight @ hidden.T * window


class ExponentialFilter(nn.Module):
    """A sum of real exponentials per channel: a long filter that also runs in constant memory per step."""

    def __init__(self, channels: int, num_exponentials: int) -> None:
        super().__init__()
        rates = half_life_rates(num_exponentials, 1, SLOWEST_HALF_LIFE)
        self.log_rate = nn.Parameter(rates.repeat(channels, 1))  # (channels, exponentials)
        self.amplitude = nn.Parameter(torch.randn(channels, num_exponentials) / math.sqrt(num_exponentials))

    def forward(self, length: int) -> Tensor:
        """`(channels, length)` float32; never a tensor of `(channels, exponentials, length)`."""
        with torch.autocast(self.log_rate.device.type, enabled=False):
            coarse, fine = decay_tables(self.log_rate, length)
            weighted = fine * (self.amplitude.unsqueeze(-1) * unit_energy(self.log_rate))
            return torch.einsum("cka,ckb->cab", coarse, weighted).flatten(1)[:, :length]


class SummedFilter(nn.Module):
    """The sum of several filters."""

    def __init__(self, *filters: nn.Module) -> None:
        super().__init__()
        self.filters = nn.ModuleList(filters)

    def forward(self, length: int) -> Tensor:
        """`(channels, length)` float32."""
        return torch.stack([part(length) for part in self.filters]).sum(0)


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
