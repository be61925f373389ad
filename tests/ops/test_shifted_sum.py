"""Shifted multiply-adds equal the definition, in both layouts, with their own backward."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.ops import short_conv
from hyena_glt.ops.reference import two_sided_conv_reference


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
