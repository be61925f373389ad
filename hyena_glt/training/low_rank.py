"""Low-rank adapters: a linear layer keeps its weight W and learns W + (alpha / rank) B A (LoRA, arXiv:2106.09685).

The sum is taken where the weight is read, so layers that use `layer.weight` without calling the layer are adapted
too, and merging changes no bit of what the net gives. Names in the state dict stay: `x.weight` is W, and `x.adapter_a`
and `x.adapter_b` come to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn

from hyena_glt.errors import ConfigError

ADAPTERS = "trunk.*"  # the layers that are adapted by default


class LowRankLinear(nn.Linear):
    """A linear layer with an adapter; made of one by `adapt_layer`, in place, and turned back by `merge_layer`."""

    scale: float  # alpha / rank
    adapter_a: nn.Parameter  # (rank, in)
    adapter_b: nn.Parameter  # (out, rank), zeros at first

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W + scale B A, `(out, in)`."""
        return self.frozen_weight + self.scale * (self.adapter_b @ self.adapter_a)

    @property
    def frozen_weight(self) -> nn.Parameter:
        """W, `(out, in)`."""
        return cast(nn.Parameter, self._parameters["weight"])


def adapt_layer(layer: nn.Linear, rank: int, alpha: float) -> LowRankLinear:
    """Give a layer an adapter, in place; at first it changes nothing. W and the bias want no gradient any more.

    Args:
        layer: A plain linear layer.
        rank: From 1 to the smaller of its two sizes.
        alpha: Above 0.

    Raises:
        ConfigError: A number out of range, or a layer that is no plain linear one.
    """
    if type(layer) is not nn.Linear:
        raise ConfigError(f"adapter: expected a plain linear layer, got {type(layer).__name__}")
    largest = min(layer.weight.shape)
    if not 1 <= rank <= largest or not 0 < alpha < math.inf:
        raise ConfigError(f"rank, alpha: expected 1 to {largest} and a number above 0, got {rank} and {alpha}")
    layer.requires_grad_(False)
    weight = layer.weight
    options: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    first = torch.randn(rank, layer.in_features, **options) / math.sqrt(layer.in_features)
    layer.register_parameter("adapter_a", nn.Parameter(first))
    layer.register_parameter("adapter_b", nn.Parameter(torch.zeros(layer.out_features, rank, **options)))
    layer.__class__ = LowRankLinear
    adapted = cast(LowRankLinear, layer)
    adapted.scale = alpha / rank
    return adapted


def merge_layer(layer: LowRankLinear) -> nn.Linear:
    """Put the adapter into the weight, in place; the layer is a plain linear one again."""
    with torch.no_grad():
        layer.frozen_weight.copy_(layer.weight)
    del layer.adapter_a, layer.adapter_b, layer.scale
    plain = cast(nn.Linear, layer)
    plain.__class__ = nn.Linear
    return plain


def add_adapters(net: nn.Module, pattern: str = ADAPTERS, *, rank: int = 8, alpha: float = 16.0) -> list[str]:
    """Adapt the linear layers whose name fits a pattern; those without gradient, which are not read, stay as they are.

    The draws are those of torch's generator.

    Args:
        net: Of its layers' names.
        pattern: As for file names: `*` is any text, dots included.
        rank, alpha: As in `adapt_layer`; the rank is cut to the smaller size of a layer.

    Returns:
        Names of the adapted layers.

    Raises:
        ConfigError: No layer fits, or a number out of range.
    """
    if rank < 1:
        raise ConfigError(f"rank: expected at least 1, got {rank}")
    layers = {
        name: module
        for name, module in net.named_modules()
        if type(module) is nn.Linear and module.weight.requires_grad
    }
    chosen = [name for name in layers if fnmatchcase(name, pattern)]
    if not chosen:
        raise ConfigError(f"adapters: no linear layer fits {pattern!r}; there are {', '.join(list(layers)[:6])}, ...")
    for name in chosen:
        adapt_layer(layers[name], min(rank, *layers[name].weight.shape), alpha)
    return chosen


def adapted_layers(net: nn.Module) -> Iterator[tuple[str, LowRankLinear]]:
    """The layers with an adapter, by name."""
    return ((name, module) for name, module in net.named_modules() if isinstance(module, LowRankLinear))


def merge_adapters(net: nn.Module) -> None:
    """Put every adapter into its weight."""
    for _, layer in list(adapted_layers(net)):
        merge_layer(layer)
