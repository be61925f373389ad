"""Short gated convolutions: the narrow layers that run once per byte."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.errors import ConfigError
from hyena_glt.layers.feed_forward import in_blocks
from hyena_glt.layers.gated_loops import gated_rows, normed_rows
from hyena_glt.ops.shifted_sum import compiled_loops_read, short_conv
from hyena_glt.ops.stream_state import PastInputs, StreamStates, check_piece, stream_through
from hyena_glt.ops.streaming import stream_short_conv

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
        if not torch.is_grad_enabled() and x.dtype is torch.float32 and compiled_loops_read(x, self.taps):
            return self._forward_compiled(x, mask)
        signal, gate = self.project_in(self.norm(x)).chunk(2, dim=-1)
        signal = signal if mask is None else signal * mask.unsqueeze(-1)
        mixed = short_conv(signal, self.taps.to(signal.dtype), lead=self.lead, dim=1)
        return x + self.project_out(mixed * F.silu(gate))

    def _forward_compiled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`forward` without gradients on the CPU: what lies between the products is one pass each."""
        projected = self.project_in(normed_rows(x.contiguous(), self.norm.weight, self.norm.eps))
        if mask is not None:
            projected[..., : x.shape[-1]] *= mask.unsqueeze(-1)
        mixed = gated_rows(projected, self.taps, self.lead)
        flat = torch.addmm(x.reshape(-1, x.shape[-1]), mixed.flatten(0, 1), self.project_out.weight.T)
        return flat.view(x.shape)

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
        before, after = self.reach
        return in_blocks(self.run_whole, x, mask, size=BLOCK_BYTES, before=before, after=after)

    def run_whole(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`forward` in one piece."""
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def stream(self, x: Tensor, state: StreamStates | None = None) -> tuple[Tensor, StreamStates]:
        """A stream's next piece, `(batch, n, dim)`; the state holds one per layer.

        Raises:
            ConfigError: The layers look ahead, or `x` or the state has another shape.
        """
        return stream_through(self.layers, x, state)
