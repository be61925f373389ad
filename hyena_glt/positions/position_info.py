"""Patch lengths -> where each token sits: patch, place in it, place on the contig. O(length), no loops.

Every other module that needs patch ids, starts, offsets or masks takes them from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from hyena_glt.errors import PatchingError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PositionInfo:
    """Where each token of a padded batch sits. Padding: patch id `num_patches`, global position -1."""

    patch_lengths: Tensor  # (batch, num_patches) int64, right-padded with 0
    patch_ids: Tensor  # (batch, length) int64, 0-based
    offsets: Tensor  # (batch, length) int64, tokens since the start of the patch
    global_positions: Tensor  # (batch, length) int64, 0-based offset on the contig
    relative_positions: Tensor  # (batch, length) float32 in [0, 1]; 0.0 in a one-token patch

    @classmethod
    def from_patch_lengths(
        cls,
        patch_lengths: Tensor,
        offset: int | Tensor = 0,
        length: int | None = None,
        starts: Tensor | None = None,
    ) -> Self:
        """Derive every position from the patch lengths.

        Args:
            patch_lengths: `(batch, num_patches)` integers, right-padded with 0.
            offset: Global position of each row's first token: one int, or `(batch,)` int64.
            length: Tokens per row with padding; the longest row by default.
            starts: `(batch, num_patches)` start of each patch relative to `offset`, for patches that overlap;
                patches follow each other by default.

        Raises:
            PatchingError: Wrong rank or dtype, a negative length, a 0 before a patch, rows longer than
                `length`.

        Example:
            >>> PositionInfo.from_patch_lengths(torch.tensor([[2, 3]]), offset=10).global_positions.tolist()
            [[10, 11, 12, 13, 14]]
        """
        check_patch_lengths(patch_lengths)
        lengths = patch_lengths.long()
        longest = int(lengths.sum(1).max()) if lengths.numel() else 0
        width = longest if length is None else length
        if longest > width:
            raise PatchingError(f"patch_lengths: expected rows of at most {width} tokens, got {longest}")
        ids = patch_ids_from_lengths(lengths, width)
        offsets = torch.arange(width, device=ids.device) - _take(exclusive_cumsum(lengths), ids)
        real = ids < lengths.shape[1]
        offsets = offsets * real
        starts = exclusive_cumsum(lengths) if starts is None else starts
        shift = torch.as_tensor(offset, dtype=torch.int64, device=ids.device).view(-1, 1)
        positions = _take(starts, ids) + offsets + shift
        return cls(
            patch_lengths=lengths,
            patch_ids=ids,
            offsets=offsets,
            global_positions=positions.masked_fill(~real, -1),
            relative_positions=offsets / (_take(lengths, ids) - 1).clamp_min(1),
        )

    @property
    def mask(self) -> Tensor:
        """`(batch, length)` bool; True where there is a token."""
        return self.patch_ids < self.patch_lengths.shape[1]

    @property
    def patch_mask(self) -> Tensor:
        """`(batch, num_patches)` bool; True where there is a patch."""
        return self.patch_lengths > 0

    @property
    def patch_starts(self) -> Tensor:
        """`(batch, num_patches)` int64, index of each patch's first token in its row."""
        return exclusive_cumsum(self.patch_lengths)

    @property
    def token_patch_lengths(self) -> Tensor:
        """`(batch, length)` int64, tokens in the patch of each token; 0 in padding."""
        return _take(self.patch_lengths, self.patch_ids)

    @property
    def segment_ids(self) -> Tensor:
        """`(batch * length,)` int64, patches numbered through the batch; `batch * num_patches` in padding."""
        batch, num_patches = self.patch_lengths.shape
        rows = torch.arange(batch, device=self.patch_ids.device).view(-1, 1) * num_patches
        return (self.patch_ids + rows).masked_fill(~self.mask, batch * num_patches).flatten()


def patch_ids_from_lengths(patch_lengths: Tensor, length: int) -> Tensor:
    """The patch of each token: `(batch, length)` int64; `num_patches` in padding."""
    batch, num_patches = patch_lengths.shape
    marks = patch_lengths.new_zeros(batch, length + 1)
    marks.scatter_add_(1, patch_lengths.cumsum(1), torch.ones_like(patch_lengths))
    ids = marks[:, :length].cumsum(1)
    return ids.clamp_max(num_patches)


def exclusive_cumsum(values: Tensor) -> Tensor:
    """Sum of the entries before each entry of a row."""
    return values.cumsum(1) - values


def check_patch_lengths(patch_lengths: Tensor) -> None:
    """Refuse what is no right-padded `(batch, num_patches)` tensor of lengths.

    Raises:
        PatchingError: Wrong rank or dtype, a negative length, or a 0 before a patch.
    """
    name = "patch_lengths"
    if patch_lengths.ndim != 2 or patch_lengths.is_floating_point() or patch_lengths.dtype is torch.bool:
        shape = tuple(patch_lengths.shape)
        raise PatchingError(f"{name}: expected (batch, num_patches) integers, got {patch_lengths.dtype} {shape}")
    if bool((patch_lengths < 0).any()):
        raise PatchingError(f"{name}: expected lengths >= 0, got {int(patch_lengths.min())}")
    if bool(((patch_lengths[:, :-1] == 0) & (patch_lengths[:, 1:] > 0)).any()):
        raise PatchingError(f"{name}: expected 0 as padding on the right only, got a 0 before a patch")


def _take(per_patch: Tensor, patch_ids: Tensor) -> Tensor:
    """The value of each token's patch; 0 in padding."""
    padded = torch.cat([per_patch, per_patch.new_zeros(len(per_patch), 1)], dim=1)
    return padded.gather(1, patch_ids)
