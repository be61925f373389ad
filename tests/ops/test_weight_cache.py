"""Values of weights are kept, never stale, and within the bound."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hyena_glt.ops.weight_cache import WeightCache


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


class Counted:
    """Asks a cache for the sum of a layer's weights and counts how often it is computed."""

    def __init__(self, layer: nn.Module, cache: WeightCache) -> None:
        self.layer, self.cache, self.computed = layer, cache, 0

    def compute(self) -> torch.Tensor:
        self.computed += 1
        return sum(weight.double().sum() for weight in self.layer.parameters())

    def __call__(self, kind: str = "sum") -> torch.Tensor:
        with torch.no_grad():
            return self.cache.get(kind, list(self.layer.parameters()), self.compute, lambda value: [value])


def test_the_same_weights_are_computed_once(layer):
    total = Counted(layer, WeightCache())
    assert total() == total() == total()
    assert total.computed == 1
    total("other")
    assert total.computed == 2


def optimizer_step(layer: nn.Module) -> None:
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()


def load_other_weights(layer: nn.Module) -> None:
    layer.load_state_dict({name: tensor + 1 for name, tensor in layer.state_dict().items()})


def assign_other_weights(layer: nn.Module) -> None:
    layer.load_state_dict({name: tensor + 1 for name, tensor in layer.state_dict().items()}, assign=True)


def change_one_weight(layer: nn.Module) -> None:
    with torch.no_grad():
        layer.bias[1] = 7.0


def round_to_half(layer: nn.Module) -> None:
    layer.to(torch.bfloat16).to(torch.float32)


def replace_parameter(layer: nn.Module) -> None:
    layer.weight = nn.Parameter(torch.ones_like(layer.weight))


CHANGES = [
    optimizer_step,
    load_other_weights,
    assign_other_weights,
    change_one_weight,
    round_to_half,
    replace_parameter,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_weights_is_seen(layer, change):
    total = Counted(layer, WeightCache())
    old = total()
    for _ in range(5):  # freed memory tends to be given out again at the same address
        change(layer)
        with torch.no_grad():
            assert total() == total.compute()
    assert total() != old


def test_another_dtype_is_another_value(layer):
    total = Counted(layer, WeightCache())
    total()
    layer.double()
    total()
    assert total.computed == 2


def test_nothing_is_kept_with_gradients_or_of_inference_weights(layer):
    cache = WeightCache()
    total = Counted(layer, cache)
    weights = list(layer.parameters())
    for _ in range(2):
        cache.get("sum", weights, total.compute, lambda value: [value])
    assert total.computed == 2
    with torch.inference_mode():
        total.layer = nn.Linear(4, 3)
    for _ in range(2):
        total()
    assert total.computed == 4
    assert len(cache) == 0


def test_the_bound_holds_and_the_oldest_goes_first(layer):
    cache = WeightCache(max_bytes=1000)
    weights, computed = [layer.bias], []

    @torch.no_grad()
    def ask(kind: int, size: int = 80) -> None:
        cache.get(kind, weights, lambda: computed.append(kind) or torch.zeros(size), lambda value: [value])

    for kind in range(10):
        ask(kind)
        assert cache.num_bytes <= 1000
    assert len(cache) == 3 - (3 * (320 + 12) > 1000)
    ask(9)
    assert computed == list(range(10))
    ask(0)
    assert computed[-1] == 0
    ask(11, size=1000)
    assert cache.num_bytes <= 1000
    cache.clear()
    assert cache.num_bytes == len(cache) == 0


def test_large_values_are_not_accepted(layer):
    cache = WeightCache(max_bytes=1000)
    with torch.no_grad():
        assert cache.accepts([layer.bias], 250)
        assert not cache.accepts([layer.bias], 251)
    assert not cache.accepts([layer.bias], 1)


@torch.no_grad()
def test_tensors_without_storage_are_computed_each_time():
    cache = WeightCache()

    def doubled(weight: torch.Tensor) -> torch.Tensor:
        return cache.get("double", [weight], lambda: 2 * weight, lambda value: [value])

    weights = torch.arange(6.0).view(3, 2)
    assert torch.equal(torch.func.vmap(doubled)(weights), 2 * weights)
    assert len(cache) == 0
