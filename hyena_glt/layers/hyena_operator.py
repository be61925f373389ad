"""The Hyena operator of order 2: y = q * (h conv (k * v)), each projection short-filtered first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.errors import ConfigError
from hyena_glt.layers.lag_filter import PreparedConv, check_streamable, prepared_blocks
from hyena_glt.layers.operator_loops import gated_input, gated_output
from hyena_glt.ops.allocation import empty_large
from hyena_glt.ops.shifted_sum import compiled_loops_read, short_conv
from hyena_glt.ops.stream_state import PastInputs, StreamState, check_piece
from hyena_glt.ops.streaming import stream_short_conv, with_past

PROJECTION_TAPS = 3
BLOCK_ELEMENTS = 1 << 18
LONG, LONG_BLOCK_ELEMENTS = 16384, 1 << 20  # long FFTs gain more from many at once than from the cache


@dataclass(frozen=True, kw_only=True, eq=False)
class OperatorState(StreamState):
    """What a `HyenaOperator` remembers of a stream."""

    short: PastInputs  # (batch, 3 * hidden, 2) projections
    long: StreamState  # the filter's own


class HyenaOperator(nn.Module):
    """Mixes a sequence along its length (Hyena, arXiv:2302.10866, definition 3.1).

    Args:
        hidden: Width.
        make_filter: Builds the filter of `hidden` channels: length -> `(hidden, taps)`.
        causal: Look back only. Otherwise a second filter looks ahead.
    """

    def __init__(self, hidden: int, make_filter: Callable[[], nn.Module], *, causal: bool = True) -> None:
        super().__init__()
        self.project_in = nn.Linear(hidden, 3 * hidden, bias=False)
        self.project_out = nn.Linear(hidden, hidden, bias=False)
        self.short_taps = nn.Parameter(torch.randn(3 * hidden, PROJECTION_TAPS) / PROJECTION_TAPS**0.5)
        self.bypass = nn.Parameter(torch.ones(hidden))
        self.past = make_filter()
        self.future = None if causal else make_filter()

    def taps(self, length: int) -> tuple[Tensor, int]:
        """The whole filter and how many of its taps look ahead: `(hidden, taps)` float32, int."""
        past = self.past(length)
        if self.future is None:
            return past, 0
        ahead = self.future(max(length - 1, 0)).flip(-1)
        return torch.cat([ahead, past], dim=1), ahead.shape[1]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix along the length.

        Args:
            x: `(batch, length, hidden)`.
            mask: `(batch, length)` bool, False in padding; needed only where padding could be seen (not
                causal).

        Returns:
            `(batch, length, hidden)`.
        """
        x = x if mask is None else x * mask.unsqueeze(-1)
        weight = self.project_in.weight.expand(len(x), -1, -1)
        projected = torch.bmm(weight, x.transpose(1, 2))  # (batch, 3 hidden, length), the length contiguous
        mixed = self.mix(projected.unflatten(1, (3, -1)), None if mask is None else mask.unsqueeze(1))
        return torch.bmm(mixed.transpose(1, 2), self.project_out.weight.T.expand(len(x), -1, -1))

    def mix(self, projected: Tensor, seen: Tensor | None) -> Tensor:
        """Query, key and value `(batch, 3, hidden, length)` to `(batch, hidden, length)`.

        A block of channels goes through the whole formula before the next, so that it stays in the cache.
        """
        batch, _, hidden, length = projected.shape
        size = channels_per_block(batch, length)
        dtype = torch.promote_types(projected.dtype, self.short_taps.dtype)
        filters = prepared_blocks(self.past, self.future, channels=hidden, length=length, size=size, dtype=dtype)
        if dtype is torch.float32 and may_run_compiled(projected, self.bypass):
            return self._mix_compiled(projected, filters, size, seen)
        parts = (
            projected.split(size, dim=2),
            self.short_taps.unflatten(0, (3, -1)).split(size, dim=1),
            filters,
            self.bypass.split(size),
        )
        return torch.cat([self._mix_block(*part, seen) for part in zip(*parts, strict=True)], dim=1)

    def _mix_compiled(
        self, projected: Tensor, filters: Iterable[PreparedConv], size: int, seen: Tensor | None
    ) -> Tensor:
        """`mix` without gradients on the CPU: all that lies around the long convolution is two passes."""
        batch, _, hidden, length = projected.shape
        lead, short = self._short_lead, self.short_taps.unflatten(0, (3, -1))
        mixed = empty_large(projected, batch, hidden, length)
        for start, conv in zip(range(0, hidden, size), filters, strict=True):
            channels = slice(start, min(start + size, hidden))
            gated = gated_input(projected, short, lead, channels)
            if seen is not None:
                gated *= seen
            mixed[:, channels] = gated_output(conv(gated), gated, self.bypass, projected, short, lead, channels)
        return mixed

    def _mix_block(
        self, projected: Tensor, short: Tensor, conv: PreparedConv, bypass: Tensor, seen: Tensor | None
    ) -> Tensor:
        filtered = zip(projected.unbind(1), short.unbind(0), strict=True)
        query, key, value = (short_conv(signal, weight, lead=self._short_lead) for signal, weight in filtered)
        gated = key * value if seen is None else key * value * seen
        return query * (conv(gated) + bypass.unsqueeze(-1) * gated)

    @property
    def _short_lead(self) -> int:
        """Taps of the short filters that look ahead."""
        return 0 if self.future is None else PROJECTION_TAPS // 2

    def stream(self, x: Tensor, state: OperatorState | None = None) -> tuple[Tensor, OperatorState | None]:
        """Mix a stream's next piece; all pieces together equal `forward` of the whole.

        Args:
            x: `(batch, n, hidden)`; n = 1 is a step of generation.
            state: What the piece before returned, which stays valid; None at the beginning.

        Returns:
            `(batch, n, hidden)`, and the state after it.

        Raises:
            ConfigError: The operator looks ahead, or `x` or the state has another shape.
        """
        if self.future is not None:
            raise ConfigError("stream: expected a causal operator; this one looks ahead")
        check_piece(x, self.bypass.shape[0], state)
        if x.shape[1] == 0:
            return x, state
        if x.shape[1] == 1:
            return self._step(x, state)
        projected = torch.bmm(self.project_in.weight.expand(len(x), -1, -1), x.transpose(1, 2))
        mixed, state = self._stream_mix(projected, state)
        return torch.bmm(mixed.transpose(1, 2), self.project_out.weight.T.expand(len(x), -1, -1)), state

    def _stream_mix(self, projected: Tensor, state: OperatorState | None) -> tuple[Tensor, OperatorState]:
        """`mix` of a stream's next piece, `(batch, 3 * hidden, n)` to `(batch, hidden, n)`."""
        old_short, old_long = (None, None) if state is None else (state.short, state.long)
        past = check_streamable(self.past)
        if not may_run_compiled(projected, self.bypass):
            filtered, short = stream_short_conv(projected, self.short_taps, old_short)
            query, key, value = filtered.unflatten(1, (3, -1)).unbind(1)
            gated = key * value
            convolved, long = past.stream(gated, old_long)
            return query * (convolved + self.bypass.unsqueeze(-1) * gated), OperatorState(short=short, long=long)
        n, before, every = projected.shape[-1], PROJECTION_TAPS - 1, slice(0, len(self.bypass))
        projected, short = with_past(projected, before, old_short)
        parts = projected.unflatten(1, (3, -1)), self.short_taps.unflatten(0, (3, -1)), before, every
        gated = gated_input(*parts, n)
        convolved, long = past.stream(gated, old_long)
        return gated_output(convolved, gated, self.bypass, *parts), OperatorState(short=short, long=long)

    def _step(self, x: Tensor, state: OperatorState | None) -> tuple[Tensor, OperatorState]:
        """`stream` of one step: the products are matrix times vector, so nothing needs to be laid out by channel."""
        old_short, old_long = (None, None) if state is None else (state.short, state.long)
        projected = F.linear(x, self.project_in.weight).transpose(1, 2)  # (batch, 3 hidden, 1)
        filtered, short = stream_short_conv(projected, self.short_taps, old_short)
        query, key, value = filtered.squeeze(-1).chunk(3, dim=1)
        gated = key * value
        convolved, long = check_streamable(self.past).stream(gated.unsqueeze(-1), old_long)
        mixed = query * (convolved.squeeze(-1) + self.bypass * gated)
        return F.linear(mixed, self.project_out.weight).unsqueeze(1), OperatorState(short=short, long=long)


def may_run_compiled(projected: Tensor, weight: Tensor) -> bool:
    """Whether compiled passes may stand for what lies around the long convolution: no gradient, float32 on the CPU."""
    return not torch.is_grad_enabled() and projected.dtype is torch.float32 and compiled_loops_read(projected, weight)


def channels_per_block(batch: int, length: int) -> int:
    """Channels that go through the operator together, as measured on one AVX-512 core."""
    elements = LONG_BLOCK_ELEMENTS if length >= LONG else BLOCK_ELEMENTS
    return max(1, elements // max(1, batch * length))
