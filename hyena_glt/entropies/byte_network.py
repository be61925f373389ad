"""A small causal network over bytes, made of this project's own layers: tokens in, logits out.

Stands behind `NeuralEntropy`, which scores tokens with it, and behind the network of bpe_patcher mode.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hyena_glt.checks import build_config
from hyena_glt.entropies.network_files import load_network, save_network
from hyena_glt.layers.feed_forward import FeedForward
from hyena_glt.layers.gated_conv import GatedConvStack
from hyena_glt.layers.hyena_filter import ExplicitFilter, ImplicitFilter
from hyena_glt.layers.hyena_operator import PROJECTION_TAPS, HyenaOperator

FORMAT = "hyena-glt/byte-network/1"
FILTER_HIDDEN = 32


class ByteNetworkConfig(BaseModel):
    """Sizes of a `ByteNetwork`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(default=260, ge=1, le=1 << 16, description="token ids it reads: bytes + 4")
    outputs: int = Field(default=260, ge=1, le=1 << 16, description="logits after each token")
    width: int = Field(default=64, ge=1, le=1024, description="channels")
    conv_layers: int = Field(default=2, ge=0, le=16, description="gated short convolutions, before the Hyena layers")
    conv_taps: int = Field(default=8, ge=1, le=64, description="tokens that one of them sees")
    layers: int = Field(default=2, ge=0, le=48, description="Hyena layers, each with a feed-forward layer")
    filter_kind: Literal["explicit", "implicit"] = Field(
        default="explicit", description="filters of `filter_taps` free taps, or as long as the input"
    )
    filter_taps: int = Field(default=64, ge=1, le=8192, description="tokens that an explicit filter sees")

    @property
    def reach(self) -> int | None:
        """Earlier tokens that a logit can depend on; None for all of them."""
        if self.filter_kind == "implicit" and self.layers:
            return None
        per_layer = self.filter_taps - 1 + PROJECTION_TAPS - 1
        return self.conv_layers * (self.conv_taps - 1) + self.layers * per_layer


class ByteNetwork(nn.Module):
    """Embedding, gated convolutions, Hyena layers and a linear head; row `i` of the logits predicts token `i + 1`.

    With explicit filters of at most 64 taps a later token changes no bit of an earlier logit; longer filters run
    through an FFT, which lets rounding through (about 1e-7 of the largest product sum).

    Args:
        config: Sizes; None takes the defaults.
        **sizes: Fields of `ByteNetworkConfig`, in place of `config`.

    Raises:
        ConfigError: A size that is unknown or out of range.

    Example:
        >>> ByteNetwork(width=8, outputs=4)(torch.tensor([[69, 71, 75]])).shape
        torch.Size([1, 3, 4])
    """

    def __init__(self, config: ByteNetworkConfig | None = None, **sizes: int | str) -> None:
        super().__init__()
        self.config = config = config or build_config(ByteNetworkConfig, sizes)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.convolutions = GatedConvStack(config.width, config.conv_layers, config.conv_taps)
        self.blocks = nn.ModuleList(ByteBlock(config.width, filter_maker(config)) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, config.outputs)
        self._scale_residuals()

    def _scale_residuals(self) -> None:
        """Start every branch small enough that the sum over depth keeps its variance."""
        branches = self.config.conv_layers + 2 * self.config.layers
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.endswith("project_out.weight"):
                    weight.mul_(max(branches, 1) ** -0.5)

    @property
    def reach(self) -> int | None:
        """Earlier tokens that a logit can depend on; None for all of them."""
        return self.config.reach

    def forward(self, tokens: Tensor) -> Tensor:
        """`(rows, length, outputs)` from `(rows, length)` int64 ids below `vocab_size`."""
        x = self.convolutions(self.embedding(tokens))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write config and weights as one safetensors file, whole or not at all.

        Raises:
            ModelFileError: A weight is NaN or infinite.
        """
        save_network(path, self, {"format": FORMAT, "network": self.config.model_dump()}, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ByteNetwork:
        """Read what `save` wrote, in evaluation mode, on the CPU.

        Raises:
            ModelFileError: Not such a file, damaged, or tensors that do not fit the config.
        """
        network, _ = load_network(path, FORMAT, network_from_config)
        return network


class ByteBlock(nn.Module):
    """x + operator(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, width: int, make_filter: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.operator_norm = nn.LayerNorm(width, bias=False)
        self.operator = HyenaOperator(width, make_filter)
        self.feed_forward_norm = nn.LayerNorm(width, bias=False)
        self.feed_forward = FeedForward(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """`(rows, length, width)` to the same."""
        x = x + self.operator(self.operator_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


def filter_maker(config: ByteNetworkConfig) -> Callable[[], nn.Module]:
    """What builds the filter of one Hyena layer."""
    if config.filter_kind == "implicit":
        return partial(ImplicitFilter, config.width, FILTER_HIDDEN)
    return partial(ExplicitFilter, config.width, config.filter_taps, decays=True)


def network_from_config(options: dict[str, object]) -> ByteNetwork:
    """The network that saved options stand for, with weights yet to be filled in.

    Raises:
        ValidationError: Options that are unknown or out of range.
    """
    return ByteNetwork(ByteNetworkConfig.model_validate(options))
