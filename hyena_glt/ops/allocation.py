"""Memory of large results."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ARRAY_TYPES = {torch.float32: np.float32, torch.float64: np.float64}


def empty_large(like: Tensor, *shape: int) -> Tensor:
    """`like.new_empty(shape)`; on the CPU in memory of numpy's, which asks for huge pages.

    The first touch of 100 MiB in small pages takes longer than the products that fill them.
    """
    if not like.is_cpu or like.dtype not in ARRAY_TYPES:
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, ARRAY_TYPES[like.dtype]))
