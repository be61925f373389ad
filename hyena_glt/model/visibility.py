"""Which patch states a byte may read: the one place where causality between bytes and patches is decided.

A byte reads states of complete patches only. A patch is complete at its last byte when the start of the
next patch is known from the past; where the next token itself forced that start (the edge of a run of
N), nothing at the last byte may know of it, and the state is read one byte later.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.positions.position_info import PositionInfo


def readable_patches(
    info: PositionInfo, known_starts: Tensor | None = None, next_starts_patch: Tensor | None = None
) -> Tensor:
    """How many patches of its row are complete at each byte, as far as the past can tell.

    Args:
        info: Positions of the tokens.
        known_starts: `(batch, length)` bool, False at a patch start that its own token forced; None: all known.
        next_starts_patch: `(batch,)` bool, True where the token after the row is known to start a patch; None: no.

    Returns:
        `(batch, length)` int64: byte `i` may read patches 0 to `result[i] - 1`. 0 in padding.
    """
    next_known = torch.ones_like(info.mask) if known_starts is None else known_starts.bool()
    ends = last_byte_mask(info)
    complete = ends[:, :-1] & next_known[:, 1:] & info.mask[:, 1:]
    complete = torch.cat([complete, torch.zeros_like(ends[:, :1])], dim=1)
    if next_starts_patch is not None:
        complete = complete | (last_of_row(info) & next_starts_patch.bool().view(-1, 1))
    return (info.patch_ids + complete) * info.mask


def readable_in_block(
    lengths: NDArray[np.int64], open_length: int, known: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same for one block of a stream, whose patches are complete as soon as the past can tell.

    Args:
        lengths: `(num_patches,)` int64, the patches that this block completes; the first may have begun earlier.
        open_length: Bytes of that first patch before the block.
        known: `(n,)` bool of the block's bytes, False at a patch start that its own byte forced.

    Returns:
        `(offsets, readable)`, both `(n,)` int64: bytes since the start of the patch, and how many of the patches
        completed by this block the byte may read, besides all earlier ones.
    """
    ends = lengths.cumsum()
    place = open_length + np.arange(known.size)  # since the start of the first patch
    patch = ends.searchsorted(place, side="right")
    offsets = place - np.concatenate([[0], ends])[patch]
    is_last = np.concatenate([ends, [0]])[patch] == place + 1
    return offsets, patch + (is_last & np.concatenate([known[1:], [True]]))


def last_byte_mask(info: PositionInfo) -> Tensor:
    """`(batch, length)` bool; True at the last byte of each patch."""
    return info.mask & (info.offsets == info.token_patch_lengths - 1)


def last_of_row(info: PositionInfo) -> Tensor:
    """`(batch, length)` bool; True at the last token of each row."""
    index = torch.arange(info.mask.shape[1], device=info.mask.device)
    return index == info.patch_lengths.sum(1, keepdim=True) - 1
