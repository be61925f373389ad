"""Shifted multiply-adds equal the definition, in both layouts, with their own backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.ops import short_conv
from hyena_glt.ops.reference import two_sided_conv_reference
from hyena_glt.ops.shifted_sum import (
    TIME_BLOCK,
    _shifted_sum,
    _sum_of_passes,
    _tap_gradient,
    _tap_gradients,
    compiled_loops_read,
)


def signal_and_filter(length: int, taps: int):
    generator = torch.Generator().manual_seed(length * 100 + taps)
    u = torch.randn(2, 3, length, generator=generator, dtype=torch.float64)
    return u, torch.randn(3, taps, generator=generator, dtype=torch.float64)


CASES = [(length, taps, lead) for length in (1, 2, 5, 12) for taps in (1, 3, 7) for lead in {0, taps // 2, taps - 1}]


@pytest.mark.parametrize(("length", "taps", "lead"), CASES)
def test_both_layouts_equal_the_definition(length, taps, lead):
    u, h = signal_and_filter(length, taps)
    expected = two_sided_conv_reference(u, h, lead)
    torch.testing.assert_close(short_conv(u, h, lead=lead), expected, atol=1e-13, rtol=0)
    last = short_conv(u.transpose(1, 2), h, lead=lead, dim=1).transpose(1, 2)
    torch.testing.assert_close(last, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("dim", [-1, 1])
@pytest.mark.parametrize(
    ("length", "taps", "lead"),
    [(6, 3, 0), (6, 3, 1), (2, 7, 3), (9, 7, 0), (6, 2, 2), (6, 3, 5), (6, 0, 0), (0, 3, 1), (0, 0, 0)],
)
def test_gradients_are_those_of_the_sum(dim, length, taps, lead):
    u, h = signal_and_filter(length, taps)
    u = u if dim == -1 else u.transpose(1, 2)
    inputs = (u.clone().requires_grad_(), h.requires_grad_())
    assert torch.autograd.gradcheck(lambda u, h: short_conv(u, h, lead=lead, dim=dim), inputs)


def test_a_later_input_never_changes_an_earlier_output():
    u, h = signal_and_filter(30, 7)
    changed = u.clone()
    changed[..., 17:] = 1e6
    assert torch.equal(short_conv(u, h)[..., :17], short_conv(changed, h)[..., :17])


def test_the_wider_dtype_wins():
    u, h = signal_and_filter(5, 3)
    assert short_conv(u.bfloat16(), h.float()).dtype is torch.float32


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 40),
    taps=st.integers(1, 9),
    lead=st.integers(0, 8),
    dim=st.sampled_from([1, 2]),
    every=st.integers(1, 2),
)
def test_the_compiled_loops_equal_the_passes_in_any_memory_layout(length, taps, lead, dim, every):
    generator = torch.Generator().manual_seed(length)
    u = torch.randn(2, 3 * length, 8, generator=generator, dtype=torch.float64)
    u = u[:, length : 2 * length, 1 : 1 + 3 * every : every]  # gaps between rows, and for every = 2 between channels
    u = u if dim == 1 else u.transpose(1, 2).contiguous()[..., : length - length // 3]
    h = torch.randn(3, taps, generator=generator, dtype=torch.float64)
    lead = min(lead, taps - 1)
    found = _shifted_sum(u, h, lead, dim)
    torch.testing.assert_close(found, _sum_of_passes(u, h, lead, dim), atol=1e-13, rtol=0)


def test_a_signal_longer_than_a_block_of_the_loop():
    u, h = signal_and_filter(2 * TIME_BLOCK + 5, 7)
    torch.testing.assert_close(_shifted_sum(u, h, 3, 2), _sum_of_passes(u, h, 3, 2), atol=1e-13, rtol=0)


@pytest.mark.parametrize("dim", [1, 2])
def test_gradients_of_the_taps_over_more_than_a_block(dim):
    grad, u = torch.randn(2, 2, 2 * TIME_BLOCK + 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grad, u = (x if dim == 1 else x.transpose(1, 2).contiguous() for x in (grad, u))
    plain = torch.stack([_tap_gradient(grad, u, tap - 3, dim) for tap in range(7)], dim=-1)
    torch.testing.assert_close(_tap_gradients(grad, u, 7, 3, dim), plain, atol=1e-10, rtol=0)


def test_what_compiled_loops_cannot_read_goes_through_the_passes():
    plain = torch.zeros(2)
    assert compiled_loops_read(plain, plain)
    assert not compiled_loops_read(plain, plain.double())
    assert not compiled_loops_read(plain.bfloat16())
    assert not compiled_loops_read(plain.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not compiled_loops_read(plain)
    seen = []
    torch.func.vmap(lambda x: seen.append(compiled_loops_read(x)) or x)(torch.zeros(2, 3))
    assert seen == [False]
