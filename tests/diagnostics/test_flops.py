"""Counted operations against those that are computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt import HyenaGLTConfig
from hyena_glt.diagnostics.flops import flop_counter, unseen_flops


def counted(work) -> int:
    with torch.no_grad(), flop_counter() as counter:
        work()
    return counter.get_total_flops()


def test_products_count_two_for_each_multiply_add():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert counted(lambda: a @ b) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("size", [8, 96, 1024])
def test_transforms_count_by_the_usual_formula(size):
    real, complex_ = torch.randn(3, 4, size), torch.randn(3, 4, size, dtype=torch.complex64)
    one = size * math.log2(size)
    assert counted(lambda: torch.fft.rfft(real)) == round(12 * 2.5 * one)
    assert counted(lambda: torch.fft.irfft(complex_[..., : size // 2 + 1], n=size)) == round(12 * 2.5 * one)
    assert counted(lambda: torch.fft.fft(complex_)) == round(12 * 5 * one)


def test_a_transform_that_pads_counts_its_own_size():
    x = torch.randn(2, 100)
    assert counted(lambda: torch.fft.rfft(x, n=256)) == 2 * round(2.5 * 256 * 8)


def test_the_formulas_are_those_of_the_documentation():
    config = HyenaGLTConfig.preset("tiny")  # 128 wide, blocks short and medium; 64 local, 7 taps, 1 + 1 layers
    found = unseen_flops(config, num_tokens=1600, num_patches=100, compiled=True)
    assert found["local encoder"] == found["decoder"] == 2 * 7 * 64 * 1600
    assert found["pooling"] == 2 * (4 + 2) * 64 * 1600
    assert found["bridge"] == 4 * 5 * 64 * 1600
    assert found["trunk"] == 2 * 128 * 100 * (2 * 9 + 7)
    plain = unseen_flops(config, num_tokens=1600, num_patches=100, compiled=False)
    assert plain["pooling"] == plain["bridge"] == 0


def test_taps_on_both_sides_are_a_library_convolution():
    found = unseen_flops(HyenaGLTConfig.preset("tiny", causal=False), 1600, 100, compiled=True)
    assert found["trunk"] == 2 * 128 * 100 * 2 * 9
