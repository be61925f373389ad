"""The operator equals its formula, looks back only, and never sees padding."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from hyena_glt.layers import ExplicitFilter, HyenaOperator, ImplicitFilter
from hyena_glt.ops.reference import two_sided_conv_reference

HIDDEN = 6


def operator(causal: bool = True, taps: int | None = 5) -> HyenaOperator:
    torch.manual_seed(0)
    make = partial(ImplicitFilter, HIDDEN, 8) if taps is None else partial(ExplicitFilter, HIDDEN, taps)
    return HyenaOperator(HIDDEN, make, causal=causal)


def by_the_formula(layer: HyenaOperator, x: torch.Tensor) -> torch.Tensor:
    causal = layer.future is None
    projected = layer.project_in(x).transpose(1, 2)
    query, key, value = two_sided_conv_reference(projected, layer.short_taps, 0 if causal else 1).chunk(3, 1)
    gated = key * value
    mixed = two_sided_conv_reference(gated, layer.past(x.shape[1]), 0) + layer.bypass[:, None] * gated
    if not causal:
        ahead = layer.future(x.shape[1] - 1)
        flipped = two_sided_conv_reference(gated.flip(-1), ahead, 0).flip(-1)
        mixed = mixed + torch.cat([flipped[..., 1:], torch.zeros_like(flipped[..., :1])], dim=-1)
    return layer.project_out((query * mixed).transpose(1, 2))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("taps", [5, None])
@pytest.mark.parametrize("length", [1, 2, 4, 13])
def test_the_operator_equals_its_formula(causal, taps, length):
    layer = operator(causal, taps)
    x = torch.randn(2, length, HIDDEN)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), by_the_formula(layer, x), atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("taps", [5, 200, None])
def test_nothing_changes_before_a_change(taps):
    layer = operator(taps=taps)
    x = torch.randn(1, 150, HIDDEN)
    changed = x.clone()
    changed[:, 100:] += 1
    with torch.no_grad():
        torch.testing.assert_close(layer(changed)[:, :100], layer(x)[:, :100], atol=1e-5, rtol=0)


def test_a_two_sided_operator_sees_both_sides():
    layer = operator(causal=False, taps=None)
    x = torch.randn(1, 20, HIDDEN)
    changed = x.clone()
    changed[:, 10] += 1
    with torch.no_grad():
        moved = (layer(changed) - layer(x)).abs().amax(-1)[0] > 1e-6
    assert moved.all()


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(causal):
    layer = operator(causal, taps=None)
    x = torch.randn(1, 12, HIDDEN)
    padded = torch.cat([x, torch.full((1, 5, HIDDEN), 1e3)], dim=1)
    mask = torch.arange(17)[None] < 12
    with torch.no_grad():
        torch.testing.assert_close(layer(padded, mask)[:, :12], layer(x), atol=1e-6, rtol=1e-5)


def test_blocks_of_channels_change_nothing(monkeypatch):
    layer, x = operator(taps=None), torch.randn(2, 9, HIDDEN)
    whole = layer(x)
    monkeypatch.setattr("hyena_glt.layers.hyena_operator.BLOCK_ELEMENTS", 1)
    torch.testing.assert_close(layer(x), whole)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 6])
def test_every_parameter_is_part_of_the_graph(causal, length):
    layer = operator(causal, taps=None)
    layer(torch.randn(1, length, HIDDEN)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
