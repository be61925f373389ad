"""Start masks of a batch -> patch lengths, with the minimum, the cap and forced starts in force.

Compiled loops on the CPU; tensor functions elsewhere, unless the minimum or a forced start needs the tokens in order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hyena_glt.config import PatchingModeEnum
from hyena_glt.patching import scan_kernels as kernels
from hyena_glt.patching.patch_lengths import patch_lengths_from_start_mask, split_large_numbers
from hyena_glt.patching.rows import TokenRows
from hyena_glt.patching.scan import Bools, Lengths, score_rule
from hyena_glt.patching.start_masks import StartRequest, refuse_nan, token_classes


class RowPatches(NamedTuple):
    """Patches of many rows, one row after the other."""

    lengths: Lengths  # (patches of all rows,) int64
    counts: Lengths  # (batch,) int64, patches of each row


def close_starts(request: StartRequest, starts: Tensor, forced: Bools | None, known: Bools) -> RowPatches | Tensor:
    """Patch lengths of the rows, laid out already where tensor functions made them.

    Args:
        request: Its rows and limits.
        starts: `(batch, length + num_next)` bool, False past a row's end.
        forced: `(batch, length)` bool, starts that win over the minimum; None for none.
        known: `(batch, length)` bool, set to False where only `forced` starts a patch; or `(batch, 0)`.
    """
    args, rows, num_next = request.args, request.rows, request.num_next
    shortest, cap = args.min_patch_length or 1, args.max_patch_length
    if starts.device.type != "cpu" and shortest == 1 and forced is None:
        lengths = patch_lengths_from_start_mask(starts, rows.lengths_tensor(num_next))
        return lengths if cap is None else split_large_numbers(lengths, cap)
    row_ends = rows.lengths + num_next
    if args.patching_mode is PatchingModeEnum.byte and shortest == 1:
        return _ones(row_ends, starts.shape[1])
    edges = no_columns(row_ends.size) if forced is None else np.pad(forced, ((0, 0), (0, num_next)))
    marks = np.ascontiguousarray(starts.cpu().numpy())
    return close_rows(marks, edges, row_ends, shortest, cap or kernels.NO_CAP, known)


def _ones(row_ends: Lengths, width: int) -> Tensor:
    """A patch of each token, `(batch, width)` int64, laid out already."""
    ones = np.ones((row_ends.size, min(width, int(row_ends.max(initial=0)))), np.int64)
    if (row_ends < ones.shape[1]).any():
        ones[np.arange(ones.shape[1]) >= row_ends[:, None]] = 0
    return torch.from_numpy(ones)


class PatchedAtOnce(NamedTuple):
    """What `patch_in_one_pass` finds."""

    lengths: Tensor  # (batch, num_patches) int64, right-padded with 0
    is_split: Bools | None  # (batch,) whether the tokens make any but the first two start a patch; None: by scores


def patch_in_one_pass(request: StartRequest) -> PatchedAtOnce | None:
    """Patch lengths where a score or token rule runs on the CPU and nothing else needs the starts; None elsewhere.

    Raises:
        PatchingError: NaN in the scores.
    """
    args, rows, num_next = request.args, request.rows, request.num_next
    if rows.tokens.device.type != "cpu":
        return None
    limits = args.min_patch_length or 1, args.max_patch_length or kernels.NO_CAP
    if request.scores is not None and request.threshold is not None:
        values = request.scores.numpy()
        rule = score_rule(request.threshold, args.threshold_add, args.monotonicity)
        has_nan, lengths = kernels.patch_score_rows(values, rows.lengths, num_next, *rule, *limits)
        if has_nan:
            refuse_nan(values)
        return PatchedAtOnce(torch.from_numpy(lengths), None)
    if request.given is None and args.patching_mode in (PatchingModeEnum.bpe, PatchingModeEnum.space):
        classes, always = token_classes(args)
        next_starts = args.patching_mode is PatchingModeEnum.space
        tokens = rows.tokens.numpy()
        is_split, lengths = kernels.patch_class_rows(
            tokens, rows.lengths, num_next, classes.numpy(), always, next_starts, *limits
        )
        return PatchedAtOnce(torch.from_numpy(lengths), is_split)
    return None


def no_columns(batch: int) -> Bools:
    """A mask that says nothing about any row, `(batch, 0)`."""
    return np.zeros((batch, 0), np.bool_)


def close_rows(starts: Bools, forced: Bools, row_ends: Lengths, shortest: int, cap: int, known: Bools) -> RowPatches:
    """Patch lengths of padded rows, one token or start at a time.

    Args:
        starts: `(batch, length)` bool, False past a row's end.
        forced: `(batch, length)` bool, or no columns.
        row_ends: `(batch,)` int64 tokens of each row.
        shortest, cap: Tokens, `1 <= shortest <= cap`.
        known: As in `close_starts`.
    """
    room = int(np.count_nonzero(starts)) + row_ends.size
    room += int(np.count_nonzero(forced)) if forced.size else 0
    room += starts.size // cap
    lengths = np.empty(room, np.int64)
    counts = np.empty(row_ends.size, np.int64)
    total = kernels.close_rows(starts, forced, row_ends, shortest, cap, lengths, counts, known)
    return RowPatches(lengths[:total], counts)


def lay_out(patches: RowPatches | Tensor, rows: TokenRows) -> Tensor:
    """`(batch, num_patches)` int64 on the device of the tokens, right-padded with 0."""
    if isinstance(patches, Tensor):
        return patches
    if patches.counts.size == 1:
        padded = patches.lengths[None]
    else:
        padded = np.empty((patches.counts.size, int(patches.counts.max(initial=0))), np.int64)
        kernels.pad_rows(patches.lengths, patches.counts, padded)
    lengths = torch.from_numpy(padded)
    return lengths if rows.tokens.device.type == "cpu" else lengths.to(rows.tokens.device)
