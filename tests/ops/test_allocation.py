"""Memory of large results."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.ops.allocation import empty_large


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 3), (2, 5), (1200, 1000)])
def test_it_is_an_empty_tensor_of_that_kind(dtype, shape):
    made = empty_large(torch.zeros(1, dtype=dtype), *shape)
    assert (made.dtype, made.shape, made.is_contiguous()) == (dtype, shape, True)
    made.fill_(1.0)
    assert (made == 1).all()
