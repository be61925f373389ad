"""The compiled passes of a gated convolution against torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.layers import gated_conv
from hyena_glt.layers.gated_conv import GatedConv
from hyena_glt.layers.gated_loops import prepared_gate
from hyena_glt.ops.shifted_sum import short_conv


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(0, 40),
    taps=st.integers(1, 9),
    lead=st.integers(0, 8),
    seed=st.integers(0, 99),
)
def test_taps_and_gate_equal_the_separate_steps(batch, length, taps, lead, seed):
    generator = torch.Generator().manual_seed(seed)
    projected = 20 * torch.randn(batch, length, 24, generator=generator)
    weights, lead = torch.randn(12, taps, generator=generator), min(lead, taps - 1)
    signal, gate = projected.double().chunk(2, dim=-1)
    expected = short_conv(signal, weights.double(), lead=lead, dim=1) * F.silu(gate)
    error = (prepared_gate(weights, lead)(projected) - expected).abs()
    assert not error.numel() or error.max() < 1e-6 * (1 + expected.abs().max())


@pytest.mark.parametrize("gate", [-1e30, -200.0, -88.0, -1.0, 0.0, 1.0, 88.0, 200.0, 1e30])
def test_every_finite_gate_has_its_silu(gate):
    projected = torch.tensor([[[1.0, gate]]])
    found = prepared_gate(torch.ones(1, 1), 0)(projected).item()
    assert found == pytest.approx(F.silu(torch.tensor(gate)).item(), rel=1e-6, abs=1e-7)


def test_nan_stays_nan():
    gate = prepared_gate(torch.ones(1, 1), 0)
    assert gate(torch.tensor([[[1.0, float("nan")]]])).isnan().all()
    assert gate(torch.tensor([[[float("nan"), 1.0]]])).isnan().all()


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_a_layer_gives_the_same_both_ways(causal, masked, monkeypatch):
    torch.manual_seed(0)
    layer, x = GatedConv(16, 7, causal=causal), torch.randn(2, 50, 16)
    mask = torch.arange(50) < torch.tensor([[50], [31]]) if masked else None
    compiled = layer(x, mask)
    monkeypatch.setattr(gated_conv, "compiled_loops_read", lambda *tensors: False)
    torch.testing.assert_close(compiled, layer(x, mask), atol=1e-5, rtol=1e-5)
