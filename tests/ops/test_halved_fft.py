"""Two transforms of half the size make the causal convolution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.ops import causal_conv, prepare_filter
from hyena_glt.ops.fftconv import HALVED_LENGTH
from hyena_glt.ops.halved_fft import halved_conv, halved_spectrum
from hyena_glt.ops.reference import two_sided_conv_reference


def signal_and_filter(length: int, taps: int):
    generator = torch.Generator().manual_seed(length * 1000 + taps)
    u = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
    return u, torch.randn(3, taps, generator=generator, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 60), taps=st.integers(1, 60), room=st.integers(0, 20))
def test_it_equals_the_definition(length, taps, room):
    u, h = signal_and_filter(length, taps)
    size = 2 * ((max(length, taps) + room + 1) // 2)
    given_signal = u.clone()
    result = halved_conv(u, halved_spectrum(h, size), size)
    torch.testing.assert_close(result, two_sided_conv_reference(u, h), atol=1e-12, rtol=0)
    assert torch.equal(u, given_signal)


@torch.no_grad()
@pytest.mark.parametrize("length", [HALVED_LENGTH, HALVED_LENGTH + 1, 10240])
def test_long_prepared_filters_use_it_and_float32_stays_within_the_bound(length):
    u, h = signal_and_filter(length, length)
    prepared = prepare_filter(h.float(), length)
    assert prepared.method is halved_conv
    exact = causal_conv(u.float().double(), h.float().double())
    error = (prepared(u.float()).double() - exact).abs().max()
    assert error < 1e-6 * exact.abs().max()


def test_with_gradients_on_the_plain_fft_is_used():
    u, h = signal_and_filter(HALVED_LENGTH, HALVED_LENGTH)
    prepared = prepare_filter(h.requires_grad_(), HALVED_LENGTH)
    assert prepared.method is not halved_conv
    prepared(u).sum().backward()
    assert h.grad is not None
