"""The compiled layer norm against that of torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hyena_glt.layers.norm_loops import norm_writer, prepared_norm


def norm_of(dim, dtype=torch.float32):
    norm = nn.LayerNorm(dim, bias=False, dtype=dtype)
    nn.init.uniform_(norm.weight)
    return norm


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_norm_is_that_of_torch(dtype):
    norm, x = norm_of(40, dtype), 5 + 3 * torch.randn(2, 7, 40, dtype=dtype)
    torch.testing.assert_close(prepared_norm(norm)(x), norm(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_far_from_zero_keeps_its_digits():
    norm, far = norm_of(40), 1e4 + torch.randn(2, 7, 40)
    exact = norm_of(40, torch.float64)
    exact.weight.copy_(norm.weight)
    torch.testing.assert_close(prepared_norm(norm)(far).double(), exact(far.double()), atol=1e-2, rtol=1e-2)


@torch.no_grad()
def test_equal_values_are_zero():
    assert prepared_norm(norm_of(8))(torch.full((1, 1, 8), 3.0)).abs().max() == 0


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_beyond_the_width_stay(dtype):
    norm, x, y = norm_of(8, dtype), torch.randn(5, 8, dtype=dtype), torch.ones(5, 9, dtype=dtype)
    norm_writer(norm)(y, x)
    torch.testing.assert_close(y[:, :8], norm(x), atol=1e-5, rtol=1e-5)
    assert (y[:, 8] == 1).all()
