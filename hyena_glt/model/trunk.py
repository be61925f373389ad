"""The Hyena trunk over patches: all the width and all the depth of the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hyena_glt.config import FilterKind, HyenaGLTConfig
from hyena_glt.errors import ConfigError
from hyena_glt.layers.feed_forward import FeedForward
from hyena_glt.layers.hyena_filter import ExplicitFilter, ExponentialFilter, ImplicitFilter, SummedFilter
from hyena_glt.layers.hyena_operator import HyenaOperator, OperatorState
from hyena_glt.ops.stream_state import StreamStates, stream_through


class TrunkBlock(nn.Module):
    """x + operator(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: HyenaGLTConfig, kind: FilterKind) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.operator_norm = nn.LayerNorm(hidden, bias=False)
        self.operator = HyenaOperator(hidden, filter_maker(config, kind), causal=config.causal)
        self.feed_forward_norm = nn.LayerNorm(hidden, bias=False)
        self.feed_forward = FeedForward(hidden, config.feed_forward_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, num_patches, hidden)` to the same; `mask` is False in padding."""
        x = x + self.dropout(self.operator(self.operator_norm(x), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def stream(self, x: Tensor, state: OperatorState | None = None) -> tuple[Tensor, OperatorState | None]:
        """The next patches of a stream, `(batch, n, hidden)`, and the state after them.

        Raises:
            ConfigError: The block is not causal, or `x` or the state has another shape.
        """
        mixed, state = self.operator.stream(self.operator_norm(x), state)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), state


class HyenaTrunk(nn.Module):
    """Blocks whose filters follow `trunk_layout`, repeated in order, and a final norm.

    In causal mode state `p` depends on patches up to `p` alone.
    """

    def __init__(self, config: HyenaGLTConfig) -> None:
        super().__init__()
        layout = config.trunk_layout
        kinds = [layout[index % len(layout)] for index in range(config.num_layers)]
        self.blocks = nn.ModuleList(TrunkBlock(config, kind) for kind in kinds)
        self.norm = nn.LayerNorm(config.hidden_size, bias=False)
        self._scale_residuals()

    def _scale_residuals(self) -> None:
        """Start every branch small enough that the sum over depth keeps its variance."""
        factor = (2 * len(self.blocks)) ** -0.5
        with torch.no_grad():
            for name, weight in self.blocks.named_parameters():
                if name.endswith("project_out.weight"):
                    weight.mul_(factor)

    def forward(self, x: Tensor, mask: Tensor | None = None, recompute: bool = False) -> Tensor:
        """Run all blocks.

        Args:
            x: `(batch, num_patches, hidden)`.
            mask: `(batch, num_patches)` bool, False in padding; needed where padding could be seen.
            recompute: Keep only the blocks' inputs for the backward pass.

        Returns:
            `(batch, num_patches, hidden)`.
        """
        recompute = recompute and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, mask, use_reentrant=False) if recompute else block(x, mask)
        return self.norm(x)

    def hidden_states(self, x: Tensor, mask: Tensor | None = None, layer: int = -1) -> Tensor:
        """Run the blocks up to one layer and no further.

        Args:
            x: `(batch, num_patches, hidden)`.
            mask: As in `forward`.
            layer: Blocks that run; 0 gives `x`, `len(blocks)` what `forward` gives, final norm included. Negative
                numbers count from the end, -1 being the last.

        Returns:
            `(batch, num_patches, hidden)`.

        Raises:
            ConfigError: There is no such layer.
        """
        depth = len(self.blocks)
        if not -depth - 1 <= layer <= depth:
            raise ConfigError(f"layer: expected {-depth - 1} to {depth} in a trunk of {depth} layers, got {layer}")
        last = layer % (depth + 1)
        for block in self.blocks[:last]:
            x = block(x, mask)
        return self.norm(x) if last == depth else x

    def stream(self, x: Tensor, state: StreamStates | None = None) -> tuple[Tensor, StreamStates]:
        """Run all blocks on the next patches of a stream; all pieces together equal `forward` of the whole.

        Args:
            x: `(batch, n, hidden)`; n = 1 is a step of generation.
            state: What the piece before returned, which stays valid; None at the beginning.

        Returns:
            `(batch, n, hidden)`, and the state after it: one per block.

        Raises:
            ConfigError: The trunk is not causal, or `x` or the state has another shape.
        """
        x, state = stream_through(self.blocks, x, state)
        return self.norm(x), state


def filter_maker(config: HyenaGLTConfig, kind: FilterKind) -> Callable[[], nn.Module]:
    """What builds the filter of one block."""
    hidden = config.hidden_size
    if kind == "short":
        return partial(ExplicitFilter, hidden, config.short_filter_length)
    if kind == "medium":
        return partial(ExplicitFilter, hidden, config.medium_filter_length, decays=True)
    implicit = partial(ImplicitFilter, hidden, config.filter_hidden_size)
    exponential = partial(ExponentialFilter, hidden, config.filter_num_exponentials)
    makers: dict[str, Callable[[], nn.Module]] = {
        "implicit": implicit,
        "exponential": exponential,
        "both": lambda: SummedFilter(implicit(), exponential()),
    }
    return makers[config.long_filter]
