"""The compiled passes around the long convolution against the operator's own steps."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.layers import ExplicitFilter, HyenaOperator, hyena_operator


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 50, 3000])
@pytest.mark.parametrize("block", [1 << 9, 1 << 18])
def test_an_operator_gives_the_same_both_ways(causal, length, block, monkeypatch):
    monkeypatch.setattr(hyena_operator, "BLOCK_ELEMENTS", block)
    torch.manual_seed(0)
    operator, x = HyenaOperator(12, lambda: ExplicitFilter(12, 40), causal=causal), torch.randn(2, length, 12)
    mask = None if causal else torch.arange(length) < torch.tensor([[length], [length // 2]])
    compiled = operator(x, mask)
    monkeypatch.setattr(hyena_operator, "compiled_loops_read", lambda *tensors: False)
    torch.testing.assert_close(compiled, operator(x, mask), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_ends_see_nothing_beyond_them():
    operator = HyenaOperator(4, lambda: ExplicitFilter(4, 8), causal=True)
    x = torch.randn(1, 20, 4)
    whole = operator(x)
    for length in (1, 2, 5, 19):
        torch.testing.assert_close(operator(x[:, :length]), whole[:, :length], atol=1e-6, rtol=1e-5)
