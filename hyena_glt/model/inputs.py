"""Checks of what enters a forward, and the positions that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hyena_glt.errors import PatchingError
from hyena_glt.positions.position_info import PositionInfo
from hyena_glt.tokens.byte_tokenizer import PAD_ID, VOCAB_SIZE


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PatchedTokens:
    """Byte tokens together with where their patches start."""

    tokens: Tensor  # (batch, length) int64, PAD tails
    patch_lengths: Tensor  # (batch, num_patches) int64, right-padded with 0
    known_starts: Tensor | None = None  # (batch, length) bool, False at a start that its own token forced
    next_starts_patch: Tensor | None = None  # (batch,) bool, the token after the row is known to start a patch
    patch_starts: Tensor | None = None  # (batch, num_patches) int64, only where patches overlap

    def to(self, device: torch.device) -> PatchedTokens:
        """The same on another device."""
        optional = (self.known_starts, self.next_starts_patch, self.patch_starts)
        known, following, starts = (None if value is None else value.to(device) for value in optional)
        return PatchedTokens(
            tokens=self.tokens.to(device),
            patch_lengths=self.patch_lengths.to(device),
            known_starts=known,
            next_starts_patch=following,
            patch_starts=starts,
        )


def check_tokens(tokens: Tensor) -> None:
    """Refuse what is no batch of byte tokens with padding at the ends of rows.

    Raises:
        PatchingError: Wrong rank or dtype, ids outside [-1, 260), padding before a token.
    """
    if tokens.ndim != 2 or tokens.is_floating_point() or tokens.dtype is torch.bool:
        shape = tuple(tokens.shape)
        raise PatchingError(f"tokens: expected (batch, length) integers, got {tokens.dtype} {shape}")
    if tokens.numel() and (int(tokens.min()) < PAD_ID or int(tokens.max()) >= VOCAB_SIZE):
        low, high = int(tokens.min()), int(tokens.max())
        raise PatchingError(f"tokens: expected byte tokens in [-1, {VOCAB_SIZE}), got {low} to {high}")
    padding = tokens == PAD_ID
    inside = padding[:, :-1] & ~padding[:, 1:]
    if bool(inside.any()):
        row, column = (int(value) for value in inside.nonzero()[0])
        raise PatchingError(f"tokens: expected padding (-1) at the end only, got it in row {row} at {column}")


def positions_of(patched: PatchedTokens, offset: int | Tensor) -> PositionInfo:
    """Positions of checked tokens.

    Raises:
        PatchingError: The patch lengths of a row do not cover its tokens, or a mask has another shape.
    """
    batch, length = patched.tokens.shape
    if patched.patch_lengths.ndim == 2 and len(patched.patch_lengths) != batch:
        raise PatchingError(f"patch_lengths: expected {batch} rows, got {len(patched.patch_lengths)}")
    _check_shape("known_starts", patched.known_starts, (batch, length))
    _check_shape("next_starts_patch", patched.next_starts_patch, (batch,))
    lengths = patched.patch_lengths if length else patched.patch_lengths[:, :0]
    info = PositionInfo.from_patch_lengths(lengths, offset, length, patched.patch_starts)
    real, covered = (patched.tokens != PAD_ID).sum(1), info.patch_lengths.sum(1)
    if not torch.equal(real, covered):
        row = int((real != covered).nonzero()[0])
        raise PatchingError(
            f"patch_lengths: expected row {row} to sum to its {int(real[row])} tokens, got {int(covered[row])}"
        )
    return info


def _check_shape(name: str, value: Tensor | None, expected: tuple[int, ...]) -> None:
    if value is not None and tuple(value.shape) != expected:
        raise PatchingError(f"{name}: expected shape {expected}, got {tuple(value.shape)}")


def padding_mask(mask: Tensor) -> Tensor | None:
    """The mask, or None when it hides nothing."""
    return None if bool(mask.all()) else mask


def zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with zeros where the mask is False."""
    return x if mask is None else x * mask.unsqueeze(-1)
