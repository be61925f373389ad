"""What a causal module remembers between the pieces of a stream.

States are immutable: `stream` returns a new one, and the old one stays valid, so a caller may keep it and go on
from it again (a beam, a second sample). `History` shares memory with its successors to avoid copies; it never
writes where an earlier state reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from hyena_glt.errors import ConfigError

LEAST_CAPACITY = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamState:
    """Base of all states; every tensor in it has the batch first."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same state with `change` applied to every tensor."""
        return replace(self, **{field.name: _mapped(getattr(self, field.name), change) for field in fields(self)})

    def tensors(self) -> list[Tensor]:
        """Every tensor of the state."""
        found: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.map(note)
        return found

    def to(self, device: torch.device | str) -> Self:
        """The state on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def detach(self) -> Self:
        """The state cut from the graph: for truncated backpropagation through a stream."""
        return self.map(torch.Tensor.detach)

    def clone(self) -> Self:
        """The state in memory of its own."""
        return self.map(torch.Tensor.clone)

    @property
    def num_bytes(self) -> int:
        """Memory that the state's tensors take."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self.tensors())


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, StreamState):
        return value.map(change)
    if isinstance(value, tuple):
        return tuple(_mapped(part, change) for part in value)
    return value


@dataclass(frozen=True, kw_only=True, eq=False)
class PastInputs(StreamState):
    """The last `taps - 1` inputs of a short convolution, 0 before the stream began."""

    values: Tensor  # (batch, channels, taps - 1) or, channels last, (batch, taps - 1, channels)


@dataclass(frozen=True, kw_only=True, eq=False)
class ExponentialSums(StreamState):
    """The running sum under each exponential of a filter."""

    sums: Tensor  # (batch, channels, exponentials)


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamStates(StreamState):
    """The states of a module's parts, in order; None for a part that has seen nothing or keeps nothing."""

    parts: tuple[StreamState | None, ...]


class _Filled:
    """How far a buffer has been written by any of the states that share it."""

    def __init__(self, count: int) -> None:
        self.count = count


@dataclass(frozen=True, kw_only=True, eq=False)
class History(StreamState):
    """The values seen so far, or the last of them, in a buffer with room to grow."""

    buffer: Tensor  # (batch, channels, capacity); the values are `buffer[..., :length]`
    length: int
    filled: _Filled

    @classmethod
    def of(cls, values: Tensor) -> History:
        """A history of exactly these values: `(batch, channels, length)`."""
        return cls(buffer=values, length=values.shape[-1], filled=_Filled(values.shape[-1]))

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same values with `change` applied, in a buffer that no other state shares."""
        changed = change(self.last(self.length))
        return replace(self, buffer=changed, filled=_Filled(self.length))

    def last(self, count: int) -> Tensor:
        """The last `count` values: `(batch, channels, count)`, not to be written to."""
        return self.buffer.narrow(-1, self.length - count, count)

    def append(self, u: Tensor, keep: int | None) -> History:
        """The history with `u` `(batch, channels, n)` at its end.

        Amortised constant time per value: written behind the present end, where no state reads yet, while there
        is room; copied into a larger buffer otherwise. With gradients on it is always copied.

        Args:
            u: New values.
            keep: Values before `u` that are still needed; None: all.
        """
        past = self.length if keep is None else min(self.length, keep)
        if torch.is_grad_enabled():
            return History.of(torch.cat([self.last(past), u], dim=-1))
        total = self.length + u.shape[-1]
        if not self._has_room(total):
            return self._moved(past, u)
        self.buffer[..., self.length : total] = u
        self.filled.count = total
        return History(buffer=self.buffer, length=total, filled=self.filled)

    def trimmed(self, keep: int | None) -> History:
        """The last `keep` values in a buffer of their own, where the present one is much larger than they are."""
        if keep is None or self.buffer.shape[-1] <= 4 * keep + LEAST_CAPACITY:
            return self
        return History.of(self.last(min(keep, self.length)).clone())

    def _has_room(self, total: int) -> bool:
        writable = torch.is_inference_mode_enabled() or not self.buffer.is_inference()
        return writable and self.filled.count == self.length and total <= self.buffer.shape[-1]

    def _moved(self, past: int, u: Tensor) -> History:
        total = past + u.shape[-1]
        buffer = self.buffer.new_empty(*u.shape[:-1], max(2 * total, LEAST_CAPACITY))
        buffer[..., :past] = self.last(past)
        buffer[..., past:total] = u
        return History(buffer=buffer, length=total, filled=_Filled(total))


def check_piece(x: Tensor, width: int, state: StreamState | None) -> None:
    """A piece of a stream has three dimensions, the module's width and the state's batch.

    Raises:
        ConfigError: It has not.
    """
    if x.ndim != 3 or x.shape[-1] != width:
        raise ConfigError(f"stream: expected (batch, n, {width}), got shape {tuple(x.shape)}")
    if state is None:
        return
    batches = {len(tensor) for tensor in state.tensors()}
    if batches - {len(x)}:
        raise ConfigError(f"state: expected batch {len(x)}, as the input, got {', '.join(map(str, sorted(batches)))}")


def stream_through(modules: Iterable[Any], x: Tensor, state: StreamStates | None) -> tuple[Tensor, StreamStates]:
    """One piece of a stream through modules in a row, each with its own state."""
    modules = list(modules)
    olds = [None] * len(modules) if state is None else state.parts
    news = []
    for module, old in zip(modules, olds, strict=True):
        x, new = module.stream(x, old)
        news.append(new)
    return x, StreamStates(parts=tuple(news))
