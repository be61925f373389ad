"""Patch starts -> patch lengths: pure functions on tensors of any device.

Last step of patching. `patch_lengths` is `(batch, num_patches)` int64, right-padded with 0, each row summing
to the row's length. `scan.py` does the same in compiled loops on the CPU, with the minimum length as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor

from hyena_glt.errors import PatchingError


def check_start_mask(patch_start_mask: Tensor) -> None:
    """Raise a PatchingError unless the mask is `(batch, length)` bool and every row begins with a start."""
    shape, kind = tuple(patch_start_mask.shape), patch_start_mask.dtype
    if patch_start_mask.dim() != 2 or kind != torch.bool:
        raise PatchingError(f"patch_start_mask: expected bool (batch, length), got {kind} {shape}")
    if shape[1] and not bool(patch_start_mask[:, 0].all()):
        raise PatchingError(f"patch_start_mask: expected (batch, length) with column 0 set, got shape {shape}")


def patch_lengths_from_start_mask(patch_start_mask: Tensor, row_lengths: Tensor | None = None) -> Tensor:
    """Count the tokens of each patch.

    Args:
        patch_start_mask: `(batch, length)` bool; True where a patch starts. Column 0 is True.
        row_lengths: `(batch,)` int64 tokens of each row, where rows are shorter than the mask; None for none.

    Returns:
        `(batch, num_patches)` int64, right-padded with 0; each row sums to its length.

    Raises:
        PatchingError: Wrong rank or dtype, or a row whose first token starts no patch.
    """
    check_start_mask(patch_start_mask)
    batch, length = patch_start_mask.shape
    if not batch or not length:
        return patch_start_mask.new_zeros((batch, 0), dtype=torch.int64)
    tokens = torch.ones_like(patch_start_mask, dtype=torch.int64)
    if row_lengths is not None:
        inside = torch.arange(length, device=tokens.device) < row_lengths.to(tokens.device)[:, None]
        tokens, patch_start_mask = tokens * inside, patch_start_mask & inside
    patch_index = (patch_start_mask.cumsum(dim=1) - 1).clamp_(min=0)  # (batch, length)
    num_patches = int(patch_start_mask.sum(dim=1).max())
    lengths = tokens.new_zeros(batch, max(num_patches, 1))
    return lengths.scatter_add_(1, patch_index, tokens)[:, :num_patches]


def patch_start_ids_from_patch_start_mask(patch_start_mask: Tensor) -> Tensor:
    """Positions of the starts of each row.

    Args:
        patch_start_mask: `(batch, length)` bool.

    Returns:
        `(batch, most starts of a row)` int64, ascending, right-padded with `length`.

    Raises:
        PatchingError: Wrong rank or dtype.

    Example:
        >>> mask = torch.tensor([[True, False, True], [True, False, False]])
        >>> patch_start_ids_from_patch_start_mask(mask).tolist()
        [[0, 2], [0, 3]]
    """
    if patch_start_mask.dim() != 2 or patch_start_mask.dtype != torch.bool:
        raise PatchingError(
            f"patch_start_mask: expected bool (batch, length), got {patch_start_mask.dtype} "
            f"{tuple(patch_start_mask.shape)}"
        )
    rows, positions = patch_start_mask.nonzero(as_tuple=True)
    counts = patch_start_mask.sum(dim=1)
    return lay_out_rows(positions, counts, rows, fill=patch_start_mask.shape[1])


def lay_out_rows(flat: Tensor, counts: Tensor, rows: Tensor, fill: int) -> Tensor:
    """Rows of a flat tensor as a matrix, right-padded with `fill`.

    Args:
        flat: `(total,)` values, row after row.
        counts: `(batch,)` int64 values of each row.
        rows: `(total,)` int64 row of each value.
        fill: Padding.
    """
    width = int(counts.max()) if counts.numel() else 0
    matrix = flat.new_full((counts.numel(), width), fill)
    firsts = counts.cumsum(0) - counts
    matrix[rows, torch.arange(flat.numel(), device=flat.device) - firsts[rows]] = flat
    return matrix


def patch_lengths_from_start_ids(patch_start_ids: Tensor, seq_len: int) -> Tensor:
    """Distances between neighbouring starts.

    Args:
        patch_start_ids: `(batch, num_starts)` integers, strictly ascending from 0; entries at or beyond
            `seq_len` are padding.
        seq_len: Tokens of each row, the next token included where it counts.

    Returns:
        `(batch, num_patches)` int64, right-padded with 0 and trimmed to the widest row; each row sums to
        `seq_len`.

    Raises:
        PatchingError: Wrong rank or dtype, a row that does not begin with 0, or starts out of order.
    """
    shape, kind = tuple(patch_start_ids.shape), patch_start_ids.dtype
    if len(shape) != 2 or kind.is_floating_point or kind == torch.bool or seq_len < 0:
        raise PatchingError(
            "patch_start_ids, seq_len: expected integers (batch, num_starts) and >= 0, "
            f"got {kind} {shape} and {seq_len}"
        )
    ids = patch_start_ids.to(torch.int64).clamp(max=seq_len)
    edges = torch.cat([ids, ids.new_full((shape[0], 1), seq_len)], dim=1)
    lengths = edges.diff(dim=1)
    repeated = (lengths <= 0) & (ids < seq_len)
    if bool((edges[:, 0] != 0).any()) or bool(repeated.any()) or bool((ids < 0).any()):
        raise PatchingError("patch_start_ids: expected rows that begin with 0 and ascend strictly")
    return trim(lengths)


def trim(patch_lengths: Tensor) -> Tensor:
    """Drop the columns that are padding in every row."""
    used = (patch_lengths > 0).sum(dim=1)
    return patch_lengths[:, : int(used.max()) if used.numel() else 0]


@overload
def split_large_numbers(lst: Sequence[int], m: int) -> list[int]: ...
@overload
def split_large_numbers(lst: Tensor, m: int) -> Tensor: ...
def split_large_numbers(lst: Sequence[int] | Tensor, m: int) -> list[int] | Tensor:
    """Replace each number above `m` by as many `m` as fit and the rest.

    Args:
        lst: Patch lengths >= 0: a list, or a tensor `(batch, num_patches)` right-padded with 0.
        m: Largest number allowed, >= 1.

    Returns:
        A list; for a tensor `(batch, more patches)` int64, right-padded with 0.

    Raises:
        PatchingError: `m` below 1, or a number below 0.

    Example:
        >>> split_large_numbers([3, 10, 0], 4)
        [3, 4, 4, 2, 0]
    """
    if m < 1:
        raise PatchingError(f"m: expected a largest patch length of at least 1, got {m}")
    if isinstance(lst, Tensor):
        return _split_rows(lst, m)
    numbers = np.asarray(lst, np.int64)
    if numbers.size and numbers.min() < 0:
        raise PatchingError(f"lst: expected lengths >= 0, got {numbers.min()}")
    pieces = np.maximum(-(-numbers // m), 1)
    split = np.full(int(pieces.sum()), m, np.int64)
    split[pieces.cumsum() - 1] = numbers - (pieces - 1) * m
    return split.tolist()


def _split_rows(patch_lengths: Tensor, m: int) -> Tensor:
    if patch_lengths.dim() != 2 or bool((patch_lengths < 0).any()):
        raise PatchingError(
            f"patch_lengths: expected (batch, num_patches) >= 0, got shape {tuple(patch_lengths.shape)}"
        )
    rows, columns = patch_lengths.nonzero(as_tuple=True)
    lengths = patch_lengths[rows, columns].to(torch.int64)
    pieces = (lengths + (m - 1)) // m
    split = lengths.new_full((int(pieces.sum()),), m)
    split[pieces.cumsum(0) - 1] = lengths - (pieces - 1) * m
    piece_rows = rows.repeat_interleave(pieces)
    counts = torch.bincount(piece_rows, minlength=patch_lengths.shape[0])
    return lay_out_rows(split, counts, piece_rows, fill=0)


def check_non_zero_after_zero(tensor: Tensor) -> Tensor:
    """True where patch lengths have a gap: a number that is not 0 after a 0 in its row.

    Args:
        tensor: `(batch, num_patches)`.

    Returns:
        `()` bool.

    Raises:
        PatchingError: Wrong rank.
    """
    if tensor.dim() != 2:
        raise PatchingError(f"tensor: expected (batch, num_patches), got shape {tuple(tensor.shape)}")
    return ((tensor[:, 1:] != 0) & (tensor[:, :-1] == 0)).any()


def check_patch_lengths(patch_lengths: Tensor, row_lengths: Tensor) -> None:
    """Raise a PatchingError unless the patches cover every row: no gap, nothing negative, the right sums.

    Args:
        patch_lengths: `(batch, num_patches)` int64, right-padded with 0.
        row_lengths: `(batch,)` int64 tokens of each row, the next token included where it counts.
    """
    if patch_lengths.dim() != 2 or patch_lengths.dtype != torch.int64:
        raise PatchingError(
            "patch_lengths: expected int64 (batch, num_patches), "
            f"got {patch_lengths.dtype} {tuple(patch_lengths.shape)}"
        )
    if bool((patch_lengths < 0).any()) or bool(check_non_zero_after_zero(patch_lengths)):
        raise PatchingError("patch_lengths: expected lengths > 0, then padding 0, got a gap or a negative length")
    sums, expected = patch_lengths.sum(dim=1), row_lengths.to(patch_lengths.device)
    if sums.shape != expected.shape or not torch.equal(sums, expected):
        raise PatchingError(
            f"patch_lengths: expected rows that sum to {expected.tolist()[:8]}, got {sums.tolist()[:8]}"
        )


@overload
def rightpad(seq: list[int], pad_id: int, max_len: int) -> list[int]: ...
@overload
def rightpad(seq: Tensor, pad_id: int, max_len: int) -> Tensor: ...
def rightpad(seq: list[int] | Tensor, pad_id: int, max_len: int) -> list[int] | Tensor:
    """The sequence with `pad_id` appended up to `max_len`; a longer sequence is returned as it is.

    Args:
        seq: A list, or a tensor `(length,)`.
        pad_id: What to append.
        max_len: Entries of the result, at least.
    """
    missing = max(0, max_len - len(seq))
    if isinstance(seq, Tensor):
        return torch.cat([seq, seq.new_full((missing,), pad_id)])
    return [*seq, *[pad_id] * missing]
