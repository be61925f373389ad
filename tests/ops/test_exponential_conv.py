"""Sums of exponentials by chunks against the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.ops.exponential_conv import CHUNK, ExponentialConv, sums_before
from hyena_glt.ops.reference import two_sided_conv_reference


def filter_of(channels, exponentials, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rate = 10 ** (4 * torch.rand(channels, exponentials, generator=generator, dtype=dtype) - 4)
    return rate, torch.randn(channels, exponentials, generator=generator, dtype=dtype)


def taps_of(rate, weight, length):
    return torch.einsum("ck,ckl->cl", weight, (-rate.unsqueeze(-1) * torch.arange(length)).exp())


lengths = st.one_of(st.integers(1, 2 * CHUNK + 1), st.sampled_from([5 * CHUNK - 1, 5 * CHUNK, 5 * CHUNK + 1]))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), lengths, st.booleans(), st.integers(0, 99))
def test_it_is_the_convolution_with_the_sum_of_exponentials(batch, length, graph, seed):
    rate, weight = filter_of(2, 3, seed=seed)
    u = torch.randn(batch, 2, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.set_grad_enabled(graph):
        y = ExponentialConv.of(rate, weight)(u)
    torch.testing.assert_close(y, two_sided_conv_reference(u, taps_of(rate, weight, length)), atol=1e-10, rtol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3 * CHUNK), min_size=1, max_size=4), st.booleans(), st.integers(0, 99))
def test_pieces_of_any_size_equal_the_whole(pieces, graph, seed):
    conv = ExponentialConv.of(*filter_of(2, 3, seed=seed))
    u = torch.randn(2, 2, sum(pieces), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    sums, parts = None, []
    with torch.set_grad_enabled(graph):
        for part in u.split(pieces, dim=-1):
            y, sums = conv.stream(part, sums)
            parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=-1), conv(u), atol=1e-10, rtol=1e-10)


def test_nothing_looks_ahead_by_a_single_bit():
    conv, u = ExponentialConv.of(*filter_of(2, 3, torch.float32)), torch.randn(1, 2, 400)
    whole = conv(u)
    for place in (0, 63, 64, 200, 399):
        changed = u.clone()
        changed[..., place:] += 1e6
        assert torch.equal(conv(changed)[..., :place], whole[..., :place])


def test_single_precision_keeps_its_digits_over_a_long_signal():
    rate = torch.full((1, 1), 2e-5)
    u = torch.randn(1, 1, 200_000, generator=torch.Generator().manual_seed(0))
    exact = ExponentialConv.of(rate.double(), torch.ones(1, 1, dtype=torch.float64))(u.double())
    assert (ExponentialConv.of(rate, torch.ones(1, 1))(u) - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize("chunks", [1, 2, 5, 33])
def test_the_loop_equals_the_doubling(chunks):
    added, decay = torch.randn(3, 2, chunks, 4), torch.rand(3, 4, dtype=torch.float64)
    first = torch.randn(2, 3, 4)
    with torch.no_grad():
        looped = sums_before(added, decay, first)
    torch.testing.assert_close(sums_before(added, decay, first), looped, atol=1e-5, rtol=1e-5)


def test_gradients_are_right():
    rate, weight = filter_of(2, 2)
    u = torch.randn(1, 2, CHUNK + 3, dtype=torch.float64, requires_grad=True)
    inputs = (u, rate.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda u, r, w: ExponentialConv.of(r, w)(u), inputs, fast_mode=True)


def test_half_precision_is_computed_in_single():
    conv, u = ExponentialConv.of(*filter_of(2, 3, torch.float32)), torch.randn(1, 2, 300)
    found = conv(u.bfloat16())
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), conv(u.bfloat16().float()), atol=0.02, rtol=0.01)
