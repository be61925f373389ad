"""Token rows -> where patches start, in any mode: compiled loops on the CPU, tensor functions elsewhere.

Both give the same mask; the tensor functions are the definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.config import PatchingModeEnum
from hyena_glt.errors import PatchingError
from hyena_glt.patching import scan_kernels as kernels
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.bpe_starts import bpe_delim_start_mask, predicted_start_mask
from hyena_glt.patching.entropy_starts import entropy_start_mask, top_k_budgets
from hyena_glt.patching.rows import TokenRows
from hyena_glt.patching.scan import Bools, Lengths, score_rule
from hyena_glt.patching.space_starts import (
    ENDS_ALWAYS,
    GOES_ON,
    class_start_mask,
    delimiter_classes,
    space_classes,
)
from hyena_glt.patching.static_starts import static_start_mask
from hyena_glt.tokens.byte_tokenizer import BPE_ID, VOCAB_SIZE


@dataclass(frozen=True, slots=True, eq=False)
class StartRequest:
    """Everything that decides where patches start."""

    args: PatcherArgs
    rows: TokenRows
    num_next: int  # 1 where rows are one token longer than their tokens, else 0
    threshold: float | None = None  # nats; None is top-k
    scores: Tensor | None = None  # (batch, length) float32; entropy and track modes
    predictions: Tensor | None = None  # (batch, length) bool; bpe_patcher mode
    given: Tensor | None = None  # (batch, length + 1) bool, found elsewhere (a tokenizer)

    @property
    def width(self) -> int:
        """Columns of the mask."""
        return self.rows.tokens.shape[1] + self.num_next


def find_starts(request: StartRequest) -> Tensor:
    """True where a patch starts, `(batch, length + num_next)` bool, False past a row's end.

    Raises:
        PatchingError: NaN in the scores.
    """
    compiled = request.rows.tokens.device.type == "cpu" and request.given is None
    return compiled_start_mask(request) if compiled else tensor_start_mask(request)


def tensor_start_mask(request: StartRequest) -> Tensor:
    """As `find_starts`, by tensor functions on the device of the tokens."""
    mask = _tensor_starts(request)[:, : request.width]
    if not request.rows.is_ragged:
        return mask
    row_ends = request.rows.lengths_tensor(request.num_next)[:, None]
    return mask & (torch.arange(request.width, device=mask.device) < row_ends)


def _tensor_starts(request: StartRequest) -> Tensor:
    args, rows = request.args, request.rows
    if request.given is not None:
        return request.given
    if request.scores is not None:
        return entropy_start_mask(
            request.scores,
            args.patch_size,
            request.threshold,
            args.threshold_add,
            args.monotonicity,
            bool(request.num_next),
            rows.lengths_tensor(),
        )
    if request.predictions is not None:
        return predicted_start_mask(request.predictions)
    if args.patching_mode is PatchingModeEnum.bpe:
        starts = bpe_delim_start_mask(rows.tokens, BPE_ID)
        last = rows.lengths_tensor()[:, None]
        return starts.scatter(1, last, last < 2)
    if args.patching_mode is PatchingModeEnum.space:
        return class_start_mask(rows.tokens, *token_classes(args))
    if args.patching_mode is PatchingModeEnum.byte:
        return torch.ones(rows.tokens.shape[0], request.width, dtype=torch.bool, device=rows.tokens.device)
    return _static_starts(request)


def _static_starts(request: StartRequest) -> Tensor:
    """The windows' first tokens: no window but the first starts among a row's last `overlap` tokens."""
    args, device = request.args, request.rows.tokens.device
    grid = static_start_mask(request.width, args.static_patch_size - args.overlap, device)
    last = (request.rows.lengths_tensor(request.num_next) - args.overlap).clamp(min=1)
    return grid & (torch.arange(request.width, device=device) < last[:, None])


def compiled_start_mask(request: StartRequest) -> Tensor:
    """As `find_starts`, by compiled loops; the tokens are on the CPU."""
    rows, num_next = request.rows, request.num_next
    starts = np.empty((rows.tokens.shape[0], request.width), np.bool_)
    if request.scores is not None:
        _mark_scores(request, request.scores.numpy(), starts)
    elif request.predictions is not None or request.args.patching_mode is PatchingModeEnum.byte:
        return tensor_start_mask(request)
    elif request.args.patching_mode in (PatchingModeEnum.bpe, PatchingModeEnum.space):
        classes, always = token_classes(request.args)
        kernels.mark_class_rows(rows.on_cpu(), rows.lengths, num_next, classes.numpy(), always, starts)
        if request.args.patching_mode is PatchingModeEnum.bpe and num_next:
            starts[np.arange(rows.lengths.size), rows.lengths] = rows.lengths < 2
    else:
        stride = request.args.static_patch_size - request.args.overlap
        kernels.mark_stride_rows(rows.lengths, num_next, stride, request.args.overlap, starts)
    return torch.from_numpy(starts)


def _mark_scores(request: StartRequest, scores: NDArray[np.float32], starts: Bools) -> None:
    lengths, num_next = request.rows.lengths, request.num_next
    if request.threshold is None:
        refuse_nan(scores)
        budgets = top_k_budgets(torch.from_numpy(lengths), request.args.patch_size).numpy()
        kernels.mark_top_rows(scores, lengths, num_next, budgets, _top_cuts(scores, lengths, budgets), starts)
        return
    rule = score_rule(request.threshold, request.args.threshold_add, request.args.monotonicity)
    if kernels.mark_score_rows(scores, lengths, num_next, *rule, starts):
        refuse_nan(scores)


def refuse_nan(scores: NDArray[np.float32]) -> None:
    """Raise a PatchingError that names the first NaN, if there is one."""
    places = np.argwhere(np.isnan(scores))
    if places.size:
        row, token = places[0]
        raise PatchingError(f"entropies: expected numbers, got NaN at row {row}, token {token}")


def _top_cuts(scores: NDArray[np.float32], lengths: Lengths, budgets: Lengths) -> NDArray[np.float32]:
    """The lowest score that each row's budget reaches, `(batch,)`; infinite where the budget is 0."""
    most = int(budgets.max(initial=0))
    if most == 0:
        return np.full(lengths.size, np.inf, np.float32)
    width = scores.shape[1] - 1
    if (lengths == scores.shape[1]).all():
        return np.partition(scores[:, 1:], width - most, axis=1)[:, width - most]
    inside = np.arange(1, width + 1) < lengths[:, None]
    ascending = np.sort(np.where(inside, scores[:, 1:], -np.inf), axis=1)
    cuts = ascending[np.arange(lengths.size), np.minimum(width - budgets, width - 1)]
    return np.where(budgets > 0, cuts, np.inf).astype(np.float32)


def token_classes(args: PatcherArgs) -> tuple[Tensor, int]:
    """Class of each token, and how many tokens start a patch on their own account."""
    if args.patching_mode is PatchingModeEnum.bpe:
        classes = torch.full((VOCAB_SIZE,), GOES_ON, dtype=torch.uint8)
        classes[BPE_ID] = ENDS_ALWAYS
        return classes, 2
    if args.delimiter_chars is not None:
        return delimiter_classes(args.delimiter_chars, args.encoding), 1
    return space_classes(), 2
