"""What all filters of the Hyena operator share: generation in blocks of channels, cached spectra, streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hyena_glt.errors import ConfigError
from hyena_glt.ops.exponential_conv import ExponentialConv
from hyena_glt.ops.fftconv import PreparedFilter, fft_size, prepare_filter
from hyena_glt.ops.stream_state import StreamState
from hyena_glt.ops.streaming import conv_end, extend, kept_values
from hyena_glt.ops.weight_cache import WEIGHT_CACHE

PreparedConv = PreparedFilter | ExponentialConv


class LagFilter(nn.Module, ABC):
    """A filter whose weight depends on the lag alone: `filter(length)[:, :n]` equals `filter(n)`.

    Args:
        channels: Channels, each with its own weights.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, length: int) -> Tensor:
        """`(channels, taps)` float32 at least; `length` taps, or all there are."""
        return torch.cat(list(self.blocks(length, max(self.channels, 1))))

    @abstractmethod
    def blocks(self, length: int, size: int) -> Iterator[Tensor]:
        """The filter, `size` channels at a time; no tensor of all channels and all lags is made."""

    def prepared(self, length: int, size: int, dtype: torch.dtype) -> Iterator[PreparedConv]:
        """The causal convolution with the filter, ready for signals of one length, `size` channels at a time."""
        for taps in self.blocks(length, size):
            yield prepare_filter(taps, length, 0, dtype)

    def reach(self) -> int | None:
        """Lags after which the filter is 0, or below 1e-8 of its window; None: it has no end."""
        return None

    def stream(self, u: Tensor, state: Any = None) -> tuple[Tensor, StreamState]:
        """The causal convolution of a stream's next piece.

        Args:
            u: `(batch, channels, n)` float32 at least.
            state: What the piece before returned; None at the beginning.

        Returns:
            `(batch, channels, n)`, and the state after it. Here the state is the history, as long as the filter
            reaches; the taps are kept between the pieces while gradients are off.
        """
        reach, taps = self.stream_taps(u.shape[-1] + (0 if state is None else state.length))
        history = extend(u, state, reach)
        y = conv_end(history.last(history.length), taps.to(u.dtype), u.shape[-1])
        return y, history.trimmed(kept_values(reach))

    def stream_taps(self, length: int) -> tuple[int | None, Tensor]:
        """`reach()`, and the taps that `length` values can meet, lag 0 last.

        Lengths are rounded up to powers of two, so that a growing history asks for new ones ever more rarely.
        """
        length = 1 << max(length - 1, 0).bit_length()

        def made() -> tuple[int | None, Tensor]:
            reach = self.reach()
            return reach, self(length if reach is None else min(length, reach)).flip(-1)

        return WEIGHT_CACHE.get(("taps", length, *described(self)), weights_of(self), made, lambda made: [made[1]])


def stream_reach(taps: LagFilter) -> int | None:
    """`reach()`, kept while the weights stay as they are: it can cost a pass over them."""
    return WEIGHT_CACHE.get(("reach", *described(taps)), weights_of(taps), taps.reach, lambda reach: [])


def described(module: nn.Module | None) -> tuple[str, str]:
    """What a filter depends on beside its weights: its class and the numbers that `extra_repr` shows."""
    return type(module).__qualname__, "" if module is None else module.extra_repr()


def weights_of(*modules: nn.Module | None) -> list[Tensor]:
    """Parameters and buffers of the modules."""
    present = [module for module in modules if module is not None]
    return [tensor for module in present for tensor in (*module.parameters(), *module.buffers())]


def filter_blocks(taps: nn.Module, length: int, size: int) -> Iterator[Tensor]:
    """`LagFilter.blocks` of any module that gives `(channels, taps)` for a length."""
    return taps.blocks(length, size) if isinstance(taps, LagFilter) else iter(taps(length).split(size))


def two_sided_blocks(past: nn.Module, future: nn.Module | None, length: int, size: int) -> Iterator[tuple[Tensor, int]]:
    """Taps of both sides in one, and how many look ahead: `(channels, taps)`, int; `size` channels at a time."""
    behind = filter_blocks(past, length, size)
    if future is None:
        for taps in behind:
            yield taps, 0
        return
    for taps, ahead in zip(behind, filter_blocks(future, max(length - 1, 0), size), strict=True):
        yield torch.cat([ahead.flip(-1), taps], dim=1), ahead.shape[1]


def prepared_blocks(
    past: nn.Module, future: nn.Module | None, *, channels: int, length: int, size: int, dtype: torch.dtype
) -> Iterator[PreparedConv] | Sequence[PreparedConv]:
    """The filter ready for signals of one length, `size` channels at a time.

    All blocks are kept for the next call while gradients are off, the weights stay as they are and the cache has
    room; otherwise each block is made when its turn comes.
    """

    def made() -> Iterator[PreparedConv]:
        if future is None and isinstance(past, LagFilter):
            yield from past.prepared(length, size, dtype)
            return
        for taps, lead in two_sided_blocks(past, future, length, size):
            yield prepare_filter(taps, length, lead, dtype)

    weights = weights_of(past, future)
    sides = 1 if future is None else 2
    most = channels * (fft_size(max((1 + sides) * length, 1)) + 2) * torch.promote_types(dtype, torch.float32).itemsize
    if not weights or not WEIGHT_CACHE.accepts(weights, most):
        return made()
    kind = ("prepared", length, size, dtype, *described(past), *described(future))
    return WEIGHT_CACHE.get(
        kind, weights, lambda: list(made()), lambda blocks: [t for conv in blocks for t in conv.tensors]
    )


def check_streamable(taps: nn.Module) -> LagFilter:
    """The filter, if it can be streamed.

    Raises:
        ConfigError: It is no `LagFilter`.
    """
    if isinstance(taps, LagFilter):
        return taps
    raise ConfigError(f"stream: expected a filter that is a LagFilter, got {type(taps).__name__}")
