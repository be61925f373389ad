"""Adapters: nothing at first, the same bits after merging, and only what is adapted learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError
from hyena_glt.model import HyenaGLT, HyenaGLTForSequenceClassification
from hyena_glt.training.low_rank import LowRankLinear, adapt_layer, adapted_layers, add_adapters, merge_adapters

CONFIG = {"hidden_size": 24, "num_layers": 3, "local_hidden_size": 16, "ngram_table_size": 64, "filter_hidden_size": 8}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return HyenaGLTForSequenceClassification(HyenaGLTConfig(**CONFIG, causal=False)).eval()


TOKENS = torch.randint(69, 73, (2, 40), generator=torch.Generator().manual_seed(0)) // 2 * 2
LENGTHS = torch.full((2, 8), 5)


def disturb(net: nn.Module) -> None:
    """Adapters that change something."""
    with torch.no_grad():
        for _, layer in adapted_layers(net):
            layer.adapter_b.normal_(std=0.3)


def test_an_adapter_changes_nothing_at_first_and_the_weight_afterwards():
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 3), torch.randn(4, 5)
    before, weight = layer(x), layer.weight.detach().clone()
    adapted = adapt_layer(layer, 2, 6.0)
    assert adapted is layer
    assert torch.equal(adapted(x), before)
    disturb(adapted)
    expected = weight + 3.0 * adapted.adapter_b @ adapted.adapter_a
    torch.testing.assert_close(adapted(x), x @ expected.T + adapted.bias)
    assert sorted(adapted.state_dict()) == ["adapter_a", "adapter_b", "bias", "weight"]
    assert torch.equal(adapted.state_dict()["weight"], weight)


def test_merging_gives_the_same_bits_and_the_same_names(net):
    names = list(net.state_dict())
    untouched = net(TOKENS, LENGTHS).logits
    chosen = add_adapters(net.net, "trunk.*", rank=4)
    assert chosen == [name for name in chosen if name.startswith("trunk.")]
    assert torch.equal(net(TOKENS, LENGTHS).logits, untouched)
    disturb(net)
    with torch.no_grad():
        adapted = net(TOKENS, LENGTHS).logits
        assert not torch.allclose(adapted, untouched, atol=1e-4)
        assert set(names) < set(net.state_dict())
        merge_adapters(net)
        assert torch.equal(net(TOKENS, LENGTHS).logits, adapted)
    assert list(net.state_dict()) == names
    assert not any(isinstance(module, LowRankLinear) for module in net.modules())


@pytest.mark.parametrize("pooling", ["bytes", "patches"])
def test_every_adapter_of_every_layer_gets_a_gradient(pooling):
    torch.manual_seed(0)
    net = HyenaGLTForSequenceClassification(HyenaGLTConfig(**CONFIG, head_pooling=pooling))
    chosen = add_adapters(net.net, "*")
    disturb(net)
    net(TOKENS, LENGTHS, labels=torch.tensor([0, 1])).loss.backward()
    layers = dict(adapted_layers(net.net))
    assert sorted(layers) == sorted(chosen)
    assert "head.project" not in layers  # of the next byte: this task does not read it
    for name, layer in layers.items():
        assert layer.frozen_weight.grad is None, name
        assert layer.adapter_a.grad.any(), name
        assert layer.adapter_b.grad.any(), name


def test_a_net_with_adapters_moves_between_types(net):
    add_adapters(net.net)
    disturb(net)
    with torch.no_grad():
        torch.testing.assert_close(
            net.double()(TOKENS, LENGTHS).logits.float(), net.float()(TOKENS, LENGTHS).logits, atol=1e-4, rtol=0
        )


def test_bad_adapters_are_refused():
    net = HyenaGLT(HyenaGLTConfig(**CONFIG))
    with pytest.raises(ConfigError, match=r"no linear layer fits 'trunks"):
        add_adapters(net, "trunks.*")
    with pytest.raises(ConfigError, match="rank"):
        add_adapters(net, rank=0)
    with pytest.raises(ConfigError, match="rank, alpha"):
        adapt_layer(nn.Linear(3, 3), 4, 1.0)
    with pytest.raises(ConfigError, match="rank, alpha"):
        adapt_layer(nn.Linear(3, 3), 1, 0.0)
    with pytest.raises(ConfigError, match="plain linear layer"):
        adapt_layer(adapt_layer(nn.Linear(3, 3), 1, 1.0), 1, 1.0)
