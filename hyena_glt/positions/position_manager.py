"""PositionInfo -> vectors, byte states -> patch states, and back: the three steps by their published names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hyena_glt.errors import PatchingError
from hyena_glt.ops.segments import segment_mean
from hyena_glt.positions.position_embedding import SegmentAwarePositionalEncoding
from hyena_glt.positions.position_info import PositionInfo, check_patch_lengths, exclusive_cumsum

Positions = PositionInfo | Mapping[str, Any]


class BLTPositionManager(nn.Module):
    """Vectors of positions, and the mapping between bytes and patches.

    A patch state is the mean of its bytes, so states that are equal within each patch make the way to the patches
    and back without the change of a bit. Only the vectors are learned.

    Args:
        dim: Width of the vectors.
        num_scales: Periods 4, 16, 64, ... of the global position; see `SegmentAwarePositionalEncoding`.

    Example:
        >>> info = PositionInfo.from_patch_lengths(torch.tensor([[2, 1]]))
        >>> manager = BLTPositionManager(8)
        >>> states = manager.create_patch_representations(torch.tensor([[[1.0], [3.0], [5.0]]]), info)
        >>> manager.reconstruct_byte_representations(states, info).flatten().tolist()
        [2.0, 2.0, 5.0]
    """

    def __init__(self, dim: int, num_scales: int = 16) -> None:
        super().__init__()
        self.encoding = SegmentAwarePositionalEncoding(dim, num_scales)

    def encode_positions(self, position_info: Positions) -> Tensor:
        """A vector for each token: `(batch, length, dim)`, zeros in padding.

        Args:
            position_info: Of complete patches: a `PositionInfo`, or a mapping as `output.patch_info` is.

        Raises:
            PatchingError: No positions, or a mapping that contradicts itself.
        """
        info = as_position_info(position_info)
        return self.encoding(info) * info.mask.unsqueeze(-1)

    forward = encode_positions

    def create_patch_representations(self, byte_states: Tensor, position_info: Positions) -> Tensor:
        """The mean of each patch.

        Args:
            byte_states: `(batch, length, width)` of any float dtype.
            position_info: As in `encode_positions`.

        Returns:
            `(batch, num_patches, width)`, zeros in padding.

        Raises:
            PatchingError: States that are no floats, or not those of these positions.
        """
        info = as_position_info(position_info)
        _check_states("byte_states", byte_states, info.patch_ids)
        if not byte_states.is_floating_point():
            raise PatchingError(f"byte_states: expected floats, which have a mean, got {byte_states.dtype}")
        if not info.patch_lengths.numel():
            return byte_states.new_zeros(*info.patch_lengths.shape, byte_states.shape[-1])
        first = _first_states(byte_states, info)
        # The mean of the differences from the first byte: equal bytes give exactly themselves.
        differences = byte_states - self.reconstruct_byte_representations(first, info)
        wide = differences.float() if differences.dtype in (torch.float16, torch.bfloat16) else differences
        means = segment_mean(wide.flatten(0, 1), info.segment_ids, info.patch_lengths.numel())
        return first + means.view_as(first).to(first.dtype)

    def reconstruct_byte_representations(self, patch_states: Tensor, position_info: Positions) -> Tensor:
        """The state of its patch for each byte.

        Args:
            patch_states: `(batch, num_patches, width)` of any dtype.
            position_info: As in `encode_positions`.

        Returns:
            `(batch, length, width)`, zeros in padding.

        Raises:
            PatchingError: States that are not those of these positions.
        """
        info = as_position_info(position_info)
        _check_states("patch_states", patch_states, info.patch_lengths)
        padding = patch_states.new_zeros(len(patch_states), 1, patch_states.shape[-1])
        index = info.patch_ids.unsqueeze(-1).expand(-1, -1, patch_states.shape[-1])
        return torch.cat([patch_states, padding], dim=1).gather(1, index)


def as_position_info(position_info: Positions) -> PositionInfo:
    """Positions as a `PositionInfo`, whatever form they come in.

    Args:
        position_info: A `PositionInfo`, or a mapping with `patch_lengths` and, if the contig's positions matter,
            `global_positions`, each `(batch, ...)` or of one row. Everything else follows from these two.

    Raises:
        PatchingError: Neither of them, no `patch_lengths`, or positions that do not go on within a patch.
    """
    if isinstance(position_info, PositionInfo):
        return position_info
    if not isinstance(position_info, Mapping) or "patch_lengths" not in position_info:
        raise PatchingError(
            "position_info: expected a PositionInfo or a mapping with patch_lengths, got "
            f"{type(position_info).__name__}; PositionInfo.from_patch_lengths makes one"
        )
    lengths = _rows(position_info["patch_lengths"])
    given = position_info.get("global_positions")
    if given is None:
        return PositionInfo.from_patch_lengths(lengths)
    check_patch_lengths(lengths)
    positions = _rows(given)
    if positions.ndim != 2 or positions.shape[0] != lengths.shape[0] or positions.is_floating_point():
        raise PatchingError(f"global_positions: expected (batch, length) integers, got {tuple(positions.shape)}")
    if not positions.shape[1]:
        return PositionInfo.from_patch_lengths(lengths, length=0)
    index = exclusive_cumsum(lengths.long()).clamp_max(positions.shape[1] - 1)
    starts = positions.gather(1, index)
    info = PositionInfo.from_patch_lengths(
        lengths, starts[:, 0] if starts.shape[1] else 0, positions.shape[1], starts - starts[:, :1]
    )
    if bool(((info.global_positions != positions) & info.mask).any()):
        raise PatchingError(
            "global_positions: expected positions that ascend by 1 within each patch; "
            "one position per token, and patch_lengths of the same tokens"
        )
    return info


def _rows(values: Any) -> Tensor:
    tensor = torch.as_tensor(values)
    return tensor.unsqueeze(0) if tensor.ndim == 1 else tensor


def _first_states(byte_states: Tensor, info: PositionInfo) -> Tensor:
    """State of the first byte of each patch: `(batch, num_patches, width)`, zeros in padding."""
    index = info.patch_starts.clamp_max(max(byte_states.shape[1] - 1, 0)).unsqueeze(-1)
    if not byte_states.shape[1]:
        return byte_states.new_zeros(*info.patch_lengths.shape, byte_states.shape[-1])
    first = byte_states.gather(1, index.expand(-1, -1, byte_states.shape[-1]))
    return first.masked_fill(~info.patch_mask.unsqueeze(-1), 0)


def _check_states(name: str, states: Tensor, like: Tensor) -> None:
    if states.ndim != 3 or states.shape[:2] != like.shape:
        raise PatchingError(f"{name}: expected shape ({len(like)}, {like.shape[1]}, width), got {tuple(states.shape)}")
