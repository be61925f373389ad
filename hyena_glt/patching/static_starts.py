"""Starts at a fixed stride: static mode, byte mode (stride 1) and overlapping windows."""

from __future__ import annotations

import torch
from torch import Tensor

from hyena_glt.errors import ConfigError


def static_start_mask(length: int, patch_size: float, device: torch.device | str = "cpu") -> Tensor:
    """True at the tokens `floor(k * patch_size)`: 4.5 gives patches of 4, 5, 4, 5, ...

    Args:
        length: Tokens of the row.
        patch_size: Tokens per patch on average, >= 1.
        device: Where the mask is made.

    Returns:
        `(length,)` bool.
    """
    mask = torch.zeros(length, dtype=torch.bool, device=device)
    starts = (torch.arange(int(length / patch_size) + 2, dtype=torch.float64, device=device) * patch_size).floor()
    mask[starts[starts < length].to(torch.int64)] = True
    return mask


def window_starts(length: int, patch_size: int, overlap: int) -> Tensor:
    """First token of each window of `patch_size` tokens that shares `overlap` of them with its neighbour.

    Every token is in a window, every window has a token that the one before has not, and only the last may be
    shorter.

    Returns:
        `(num_windows,)` int64, ascending from 0; empty for an empty row.

    Raises:
        ConfigError: A size that is no whole number, or an overlap outside [0, patch_size).

    Example:
        >>> window_starts(10, 4, 1).tolist()
        [0, 3, 6]
    """
    if int(patch_size) != patch_size or not 0 <= overlap < patch_size:
        raise ConfigError(
            f"overlap: expected 0 <= overlap < patch_size and a whole patch_size, got {overlap} and {patch_size:g}"
        )
    last = max(length - overlap, min(length, 1))  # a window that starts here would hold nothing new
    return torch.arange(0, last, int(patch_size) - overlap)
