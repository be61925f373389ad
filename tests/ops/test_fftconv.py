"""Every way of convolving equals the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.ops import causal_conv, two_sided_conv
from hyena_glt.ops.fftconv import (
    choose_method,
    direct_conv,
    fft_conv,
    fft_size,
    overlap_conv,
    shifted_conv,
)
from hyena_glt.ops.reference import two_sided_conv_reference

METHODS = [shifted_conv, direct_conv, overlap_conv, fft_conv]


def signal_and_filter(length: int, taps: int, seed: int = 0, batch: int = 2, channels: int = 3):
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(batch, channels, length, generator=generator, dtype=torch.float64)
    return u, torch.randn(channels, taps, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 70), taps=st.integers(1, 70), lead=st.integers(0, 69))
def test_every_method_equals_the_definition(method, length, taps, lead):
    u, h = signal_and_filter(length, taps)
    lead = min(lead, taps - 1)
    torch.testing.assert_close(method(u, h, lead), two_sided_conv_reference(u, h, lead), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("length", "taps"), [(9, 9), (90, 64), (90, 65), (150, 150), (270, 66), (40, 500)])
def test_the_chosen_method_equals_the_definition(length, taps):
    u, h = signal_and_filter(length, taps, batch=1, channels=2)
    expected = two_sided_conv_reference(u, h, 0)
    torch.testing.assert_close(causal_conv(u, h), expected, atol=1e-11, rtol=0)


def test_each_size_has_its_method():
    assert choose_method(1000, 7) is shifted_conv
    assert choose_method(1000, 64) is direct_conv
    assert choose_method(1000, 128) is overlap_conv
    assert choose_method(1000, 1000) is fft_conv


def test_float32_error_stays_below_a_millionth_of_the_largest_sum():
    u, h = signal_and_filter(2048, 2048, batch=1)
    exact = causal_conv(u, h)
    error = (causal_conv(u.float(), h.float()) - exact).abs().max()
    assert error < 1e-6 * (u.abs().sum(-1).max() * h.abs().max())


@pytest.mark.parametrize(("length", "taps"), [(60, 7), (60, 40), (900, 100), (200, 200)])
def test_a_late_change_leaks_only_rounding_into_the_past(length, taps):
    u, h = signal_and_filter(length, taps)
    u, h = u.float(), h.float()
    changed = u.clone()
    changed[..., length // 2 :] += 100
    after, before = causal_conv(changed, h), causal_conv(u, h)
    leak = (after - before)[..., : length // 2].abs().max()
    assert leak <= (0 if taps <= 64 else 1e-6 * after.abs().max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lead", [0, 2])
def test_gradients_are_those_of_the_sum(method, lead):
    u, h = signal_and_filter(11, 5, batch=1, channels=2)
    inputs = (u.requires_grad_(), h.requires_grad_())
    assert torch.autograd.gradcheck(lambda u, h: method(u, h, lead), inputs)


def test_channel_blocks_change_nothing(monkeypatch):
    u, h = signal_and_filter(100, 90, channels=5)
    whole = fft_conv(u, h, 0), overlap_conv(u, h[:, :20], 3)
    monkeypatch.setattr("hyena_glt.ops.fftconv.BLOCK_ELEMENTS", 1)
    assert torch.equal(fft_conv(u, h, 0), whole[0])
    assert torch.equal(overlap_conv(u, h[:, :20], 3), whole[1])


@pytest.mark.parametrize("shape", [(1, 3, 0), (0, 3, 10)])
def test_nothing_in_gives_nothing_out(shape):
    assert causal_conv(torch.zeros(shape), torch.ones(3, 100)).shape == shape


def test_half_precision_is_convolved_in_float32_and_given_back():
    u, h = signal_and_filter(200, 200, batch=1)
    result = two_sided_conv(u.bfloat16(), h.bfloat16(), 0)
    exact = two_sided_conv(u.bfloat16().float(), h.bfloat16().float(), 0)
    assert result.dtype is torch.bfloat16
    assert torch.equal(result, exact.bfloat16())


@given(st.integers(1, 1 << 20))
def test_fft_sizes_are_smooth_even_and_close(minimum):
    size = fft_size(minimum)
    assert minimum <= size < max(2 * minimum, 3)
    odd = size
    while odd % 2 == 0:
        odd //= 2
    assert size % 2 == 0
    assert odd in (1, 3, 5)
