"""Entropy of predicted distributions: logits of any causal byte model in, nats per token out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hyena_glt.entropies.row_entropies import row_entropies
from hyena_glt.errors import PatchingError

BLOCK_ELEMENTS = 1 << 16  # logits handled at a time: small enough that the temporaries stay in the cache
KERNEL_MAX_VOCAB = 4096  # logits of a row that the Triton kernel takes
KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
PAD_ID = -1

logger = logging.getLogger(__name__)


def entropy_reference(scores: Tensor) -> Tensor:
    """The definition: `-sum over v of p_v ln p_v` with `p = softmax(scores)`, where `0 ln 0` is 0."""
    log_probabilities = torch.log_softmax(scores, dim=-1)
    probabilities = log_probabilities.exp()
    return -(log_probabilities.masked_fill(probabilities == 0, 0.0) * probabilities).sum(dim=-1)


def entropy(scores: Tensor) -> Tensor:
    """Shannon entropy of the distributions that logits stand for, in nats.

    Blocks of rows, so no temporary of the size of `scores` is made. Where no gradient is asked for, one exponential
    a logit: on a CPU by compiled loops, within 2e-6 nats of float64 (the reference in float32 is no nearer), on
    CUDA, where Triton is installed, by a kernel within 1e-5 nats in Triton's interpreter; it has not run on a card
    yet.

    Args:
        scores: `(..., vocab)` logits, floating point.

    Returns:
        `(...)` in the dtype of `scores` (float32 for half precision).

    Raises:
        PatchingError: Integer logits, or no vocabulary dimension.
    """
    if scores.dim() == 0 or not scores.is_floating_point():
        raise PatchingError(
            f"scores: expected floating-point logits (..., vocab), got {scores.dtype} of shape {tuple(scores.shape)}"
        )
    rows = scores.reshape(-1, scores.shape[-1])
    return _chosen_way(rows)(rows).reshape(scores.shape[:-1])


def _chosen_way(rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Torch where a gradient flows, for float64 and for what no kernel takes; else the kernel of the device."""
    if _suits_kernel(rows):
        return _triton_kernel() or _entropy_in_blocks
    return _entropy_by_loops if _suits_loops(rows) else _entropy_in_blocks


def _suits_kernel(rows: Tensor) -> bool:
    """True for `(rows, vocab)` logits on a card that the kernel takes and that no gradient flows through."""
    return rows.is_cuda and rows.shape[1] <= KERNEL_MAX_VOCAB and _may_leave_torch(rows)


def _suits_loops(rows: Tensor) -> bool:
    return rows.device.type == "cpu" and _may_leave_torch(rows)


def _may_leave_torch(rows: Tensor) -> bool:
    wants_gradient = torch.is_grad_enabled() and rows.requires_grad
    return rows.shape[0] > 0 and rows.shape[1] > 0 and rows.dtype in KERNEL_DTYPES and not wants_gradient


def _entropy_in_blocks(rows: Tensor) -> Tensor:
    """As `entropy_reference`, which itself is only needed where a probability is 0: 0 ln 0 is NaN to the others."""
    blocks = _widened_blocks(rows)
    values = torch.cat([_block_entropy(block) for block in blocks]) if len(rows) else rows.new_zeros(0)
    if math.isnan(values.detach().sum()):
        values = torch.cat([entropy_reference(block) for block in _widened_blocks(rows)])
    return values


def _entropy_by_loops(rows: Tensor) -> Tensor:
    return torch.cat([torch.from_numpy(row_entropies(block.detach().numpy())) for block in _widened_blocks(rows)])


def _widened_blocks(rows: Tensor) -> Iterator[Tensor]:
    """The rows, as many at a time as stay in the cache, in float32 at least."""
    wide = torch.promote_types(rows.dtype, torch.float32)
    block_rows = max(1, BLOCK_ELEMENTS // max(1, rows.shape[1]))
    return (block.to(wide) for block in rows.split(block_rows))


def _block_entropy(scores: Tensor) -> Tensor:
    log_probabilities = torch.log_softmax(scores, dim=-1)
    return -(log_probabilities * log_probabilities.exp()).sum(dim=-1)


@cache
def _triton_kernel() -> Callable[[Tensor], Tensor] | None:
    """The Triton kernel, once it has run on one row; None, with one logged line, where it cannot."""
    try:
        from hyena_glt.entropies.entropy_triton import row_entropies as kernel

        kernel(torch.zeros(1, 1, device="cuda"))
    except Exception as problem:  # Triton missing, no compiler for its launcher, a card that it does not know
        logger.warning("entropy: the Triton kernel does not run here, using torch (%s)", str(problem).split("\n")[0])
        return None
    return kernel


def calculate_entropies(
    tokens: Tensor,
    entropy_model: Callable[[Tensor], Any],
    patching_batch_size: int,
    device: str | torch.device | None = None,
    enable_grad: bool = False,
    max_length: int = 8192,
) -> Tensor:
    """Entropy of a model's prediction after each token; rows never see each other.

    A row longer than `max_length` is scored in windows that overlap by half, and each token takes its value from
    the window where it has the longer past, so nothing is ever predicted from a fresh start inside a row.

    Args:
        tokens: `(batch, length)` integer tokens, right-padded with `PAD_ID`.
        entropy_model: Causal: `(windows, window_length)` tokens to logits `(windows, window_length, vocab)`, or
            an object that has them as `.logits`. It is fed 0 where a row has ended.
        patching_batch_size: Windows per call of the model.
        device: Where the model runs; None leaves the tokens where they are.
        enable_grad: Keep the graph, for training through the entropies.
        max_length: Longest window the model takes, in tokens.

    Returns:
        `(batch, length)` float32 nats on the device of `tokens`; 0 in the padding.

    Raises:
        PatchingError: Wrong shapes, non-positive sizes, or NaN from the model.
    """
    _check_sizes(tokens, patching_batch_size, max_length)
    entropies = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
    padding = tokens == PAD_ID
    inputs = tokens.masked_fill(padding, 0)
    with torch.set_grad_enabled(enable_grad):
        for rows, start, stop, kept in _windows(tokens.shape[0], tokens.shape[1], patching_batch_size, max_length):
            window = inputs[rows, start:stop]
            output = entropy_model(window if device is None else window.to(device))
            logits = getattr(output, "logits", output)
            values = entropy(_checked_logits(logits, window)).to(tokens.device, torch.float32)
            entropies[rows, kept:stop] = values[:, kept - start :]
    if bool(torch.isnan(entropies).any()):
        raise PatchingError("entropies: expected finite values, got NaN from the entropy model; check its weights")
    return entropies.masked_fill(padding, 0.0)


def _windows(batch: int, length: int, rows_at_a_time: int, max_length: int) -> Iterator[tuple[slice, int, int, int]]:
    """`(rows, start, stop, first token kept)` of each call of the model."""
    step = max(1, max_length // 2)
    starts = [0] if length <= max_length else list(range(0, length - max_length + step, step))
    for first in range(0, batch if length else 0, rows_at_a_time):
        kept = 0
        for start in starts:
            stop = min(start + max_length, length)
            yield slice(first, first + rows_at_a_time), start, stop, kept
            kept = stop


def _check_sizes(tokens: Tensor, patching_batch_size: int, max_length: int) -> None:
    if tokens.dim() != 2 or tokens.is_floating_point():
        raise PatchingError(f"tokens: expected integers (batch, length), got {tokens.dtype} {tuple(tokens.shape)}")
    if patching_batch_size < 1 or max_length < 2:
        raise PatchingError(
            f"expected patching_batch_size >= 1 and max_length >= 2, got {patching_batch_size} and {max_length}"
        )


def _checked_logits(logits: Any, window: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or logits.shape[:-1] != window.shape:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise PatchingError(f"logits: expected (*{tuple(window.shape)}, vocab) from the entropy model, got {got}")
    return logits
