"""Gated convolutions equal their formula and keep to their side."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.layers import GatedConvStack
from hyena_glt.ops.reference import two_sided_conv_reference


def stack(causal: bool = True, num_layers: int = 2) -> GatedConvStack:
    torch.manual_seed(0)
    return GatedConvStack(8, num_layers, 5, causal=causal)


@pytest.mark.parametrize("causal", [True, False])
def test_a_layer_equals_its_formula(causal):
    layer = stack(causal, 1).layers[0]
    x = torch.randn(2, 11, 8)
    signal, gate = layer.project_in(layer.norm(x)).chunk(2, dim=-1)
    mixed = two_sided_conv_reference(signal.transpose(1, 2), layer.taps, 0 if causal else 2).transpose(1, 2)
    torch.testing.assert_close(layer(x), x + layer.project_out(mixed * F.silu(gate)))


def test_the_past_never_sees_the_future():
    layers, x = stack(), torch.randn(1, 20, 8)
    changed = x.clone()
    changed[:, 12:] = torch.randn(8, 8)
    assert torch.equal(layers(x)[:, :12], layers(changed)[:, :12])
    assert not torch.allclose(layers(x)[:, 12], layers(changed)[:, 12], atol=0.1)


def test_a_symmetric_stack_sees_both_sides_but_no_padding():
    layers, x = stack(causal=False), torch.randn(1, 9, 8)
    padded = torch.cat([x, torch.full((1, 4, 8), 1e3)], dim=1)
    mask = torch.arange(13)[None] < 9
    torch.testing.assert_close(layers(padded, mask)[:, :9], layers(x))
    changed = x.clone()
    changed[:, 5] = torch.randn(8)
    assert (layers(changed) - layers(x))[0, 4].abs().max() > 1e-4


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 40), sizes=st.lists(st.integers(1, 15), max_size=6))
def test_any_chunking_of_a_stream_equals_the_whole(length, sizes):
    layers = stack()
    x = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(length))
    pieces, start, state = [], 0, None
    for size in [*sizes, length]:
        y, state = layers.stream(x[:, start : start + size], state)
        pieces.append(y)
        start += size
    torch.testing.assert_close(torch.cat(pieces, dim=1), layers(x), atol=5e-6, rtol=0)
    assert state.num_bytes == 2 * 4 * (2 * 4 * 8)  # two layers, float32, (batch, taps - 1, dim)


def test_a_kept_state_is_not_changed_by_going_on():
    layers, x = stack(), torch.randn(1, 9, 8)
    _, state = layers.stream(x[:, :5])
    first, _ = layers.stream(x[:, 5:], state)
    again, _ = layers.stream(x[:, 5:], state)
    assert torch.equal(first, again)


def test_what_looks_ahead_cannot_be_streamed():
    with pytest.raises(ConfigError, match="causal"):
        stack(causal=False).stream(torch.zeros(1, 2, 8))
