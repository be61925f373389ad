"""The trunk: its layout, its branches, and recomputation."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.layers import ExplicitFilter, ExponentialFilter, ImplicitFilter
from hyena_glt.layers.hyena_filter import SummedFilter
from hyena_glt.model import HyenaTrunk


def test_filters_follow_the_layout_in_order(small_config):
    trunk = HyenaTrunk(small_config(num_layers=5))
    kinds = [type(block.operator.past) for block in trunk.blocks]
    assert kinds == [ExplicitFilter, ExplicitFilter, ImplicitFilter, ExplicitFilter, ExplicitFilter]
    assert [block.operator.past(1000).shape[1] for block in trunk.blocks] == [7, 24, 1000, 7, 24]


@pytest.mark.parametrize(
    ("name", "kind"), [("implicit", ImplicitFilter), ("exponential", ExponentialFilter), ("both", SummedFilter)]
)
def test_the_long_filter_is_the_one_that_is_named(small_config, name, kind):
    trunk = HyenaTrunk(small_config(num_layers=1, trunk_layout=("long",), long_filter=name))
    assert isinstance(trunk.blocks[0].operator.past, kind)


def test_recomputing_gives_the_same_gradients(small_config):
    torch.manual_seed(0)
    trunk, x = HyenaTrunk(small_config()), torch.randn(2, 9, 24)
    gradients = []
    for recompute in (False, True):
        trunk.zero_grad()
        trunk(x, recompute=recompute).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in trunk.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def test_dropout_works_in_training_alone(small_config):
    torch.manual_seed(0)
    trunk, x = HyenaTrunk(small_config(dropout=0.5)), torch.randn(1, 9, 24)
    assert not torch.equal(trunk(x), trunk(x))
    trunk.eval()
    assert torch.equal(trunk(x), trunk(x))
