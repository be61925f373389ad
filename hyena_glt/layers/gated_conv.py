"""Short gated convolutions: the narrow layers that run once per byte."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.errors import ConfigError
from hyena_glt.layers.feed_forward import in_blocks
from hyena_glt.layers.gated_loops import prepared_gate
from hyena_glt.layers.norm_loops import prepared_norm
from hyena_glt.ops.shifted_sum import compiled_loops_read, short_conv
from hyena_glt.ops.stream_state import PastInputs, StreamStates, check_piece, stream_through
from hyena_glt.ops.streaming import stream_short_conv

MaskedPass = Callable[..., Tensor]  # from `(batch, n, dim)` and a mask `(batch, n)` or None to `(batch, n, dim)`

BLOCK_BYTES = 2048  # that go through all layers together, so that what lies between them stays in the cache


class GatedConv(nn.Module):
    """x + W (conv(a) * silu(b)), with a and b linear in the normalised input; channels stay last throughout.

    Args:
        dim: Width.
        num_taps: Bytes seen: the byte and those before it, or half on each side where not causal.
        causal: Look back only.
    """

    def __init__(self, dim: int, num_taps: int, *, causal: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.project_in = nn.Linear(dim, 2 * dim, bias=False)
        self.project_out = nn.Linear(dim, dim, bias=False)
        self.taps = nn.Parameter(torch.randn(dim, num_taps) / num_taps**0.5)
        self.lead = 0 if causal else num_taps // 2

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, length, dim)` to the same; `mask` `(batch, length)` is False in padding."""
        if can_be_prepared(self, x):
            return PreparedGatedConv(self)(x.clone(memory_format=torch.contiguous_format), mask)
        signal, gate = self.project_in(self.norm(x)).chunk(2, dim=-1)
        signal = signal if mask is None else signal * mask.unsqueeze(-1)
        mixed = short_conv(signal, self.taps.to(signal.dtype), lead=self.lead, dim=1)
        return x + self.project_out(mixed * F.silu(gate))

    def stream(self, x: Tensor, state: PastInputs | None = None) -> tuple[Tensor, PastInputs]:
        """A stream's next piece, `(batch, n, dim)`; the state is the last `num_taps - 1` inputs of the taps.

        Raises:
            ConfigError: The layer looks ahead, or `x` or the state has another shape.
        """
        if self.lead:
            raise ConfigError("stream: expected a causal layer; this one looks ahead")
        check_piece(x, self.taps.shape[0], state)
        signal, gate = self.project_in(self.norm(x)).chunk(2, dim=-1)
        mixed, state = stream_short_conv(signal, self.taps.to(signal.dtype), state, dim=1)
        return x + self.project_out(mixed * F.silu(gate)), state


class PreparedGatedConv:
    """A layer for many blocks, where `can_be_prepared`; blocks are contiguous and written over."""

    def __init__(self, layer: GatedConv) -> None:
        self.dim, self.past = len(layer.taps), layer.taps.shape[1] - 1
        self._norm, self._gate = prepared_norm(layer.norm), prepared_gate(layer.taps, layer.lead)
        self._weight_in, self._weight_out = (
            part.weight.T.contiguous() for part in (layer.project_in, layer.project_out)
        )

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As the layer's `forward`."""
        projected = torch.mm(self._norm(x).view(-1, self.dim), self._weight_in).view(*x.shape[:2], 2 * self.dim)
        if mask is not None:
            projected[..., : self.dim] *= mask.unsqueeze(-1)
        return self._added(x, self._gate(projected))

    def stream(self, x: Tensor, state: PastInputs | None) -> tuple[Tensor, PastInputs]:
        """As the layer's `stream`: the taps see the signals before the block, whose gates nobody reads."""
        projected = x.new_empty(len(x), self.past + x.shape[1], 2 * self.dim)
        projected[:, : self.past] = 0
        if state is not None:
            projected[:, : self.past, : self.dim] = state.values
        torch.bmm(self._norm(x), self._weight_in.expand(len(x), -1, -1), out=projected[:, self.past :])
        left = projected[:, x.shape[1] :, : self.dim].clone()
        return self._added(x, self._gate(projected)[:, self.past :].contiguous()), PastInputs(values=left)

    def _added(self, x: Tensor, gated: Tensor) -> Tensor:
        x.view(-1, self.dim).addmm_(gated.view(-1, self.dim), self._weight_out)
        return x


class GatedConvStack(nn.Module):
    """Several gated convolutions."""

    def __init__(self, dim: int, num_layers: int, num_taps: int, *, causal: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GatedConv(dim, num_taps, causal=causal) for _ in range(num_layers))
        ahead = 0 if causal else num_taps // 2
        self.reach = num_layers * (num_taps - 1 - ahead), num_layers * ahead  # bytes to the left and to the right

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, length, dim)` to the same; `mask` `(batch, length)` is False in padding."""
        if torch.is_grad_enabled():
            return self.run_whole(x, mask)
        run, (before, after) = self.prepared(x), self.reach

        def on_copy(part: Tensor, seen: Tensor | None) -> Tensor:
            return run(part.clone(), seen)

        return in_blocks(on_copy, x, mask, size=BLOCK_BYTES, before=before, after=after)

    def run_whole(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`forward` in one piece."""
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def prepared(self, like: Tensor) -> MaskedPass:
        """`run_whole` for many blocks of the dtype and device of `like`; it may overwrite them."""
        layers = self._prepared_layers(like)
        if layers is None:
            return self.run_whole

        def run(x: Tensor, mask: Tensor | None = None) -> Tensor:
            x = x.contiguous()
            for layer in layers:
                x = layer(x, mask)
            return x

        return run

    def stream(self, x: Tensor, state: StreamStates | None = None) -> tuple[Tensor, StreamStates]:
        """A stream's next piece, `(batch, n, dim)`; the state holds one per layer.

        Raises:
            ConfigError: The layers look ahead, or `x` or the state has another shape.
        """
        layers = self._prepared_layers(x) if x.shape[1] > 1 and not self.reach[1] else None
        if layers is None:
            return stream_through(self.layers, x, state)
        states = StreamStates(parts=(None,) * len(layers)) if state is None else state
        for layer, old in zip(layers, states.parts, strict=True):
            check_piece(x, layer.dim, old)
        y = torch.empty_like(x)
        for block, result in zip(x.split(BLOCK_BYTES, dim=1), y.split(BLOCK_BYTES, dim=1), strict=True):
            read, states = stream_through(layers, block.clone(memory_format=torch.contiguous_format), states)
            result.copy_(read)
        return y, states

    def _prepared_layers(self, like: Tensor) -> list[PreparedGatedConv] | None:
        """All layers for blocks of the dtype and device of `like`; None where one cannot be prepared."""
        layers = [layer for layer in self.layers if isinstance(layer, GatedConv) and can_be_prepared(layer, like)]
        return [PreparedGatedConv(layer) for layer in layers] if len(layers) == len(self.layers) else None


def can_be_prepared(layer: GatedConv, x: Tensor) -> bool:
    """Whether compiled passes may stand for the layer: no gradient, float32 on the CPU."""
    return not torch.is_grad_enabled() and x.dtype is torch.float32 and compiled_loops_read(x, layer.taps)
