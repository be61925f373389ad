"""Starts after BPE delimiters, whether they stand in the tokens or a network predicts them.

Tokens 0 and 1 always start a patch, by BLT's convention. Pure functions, any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hyena_glt.errors import PatchingError
from hyena_glt.patching.patch_lengths import patch_start_ids_from_patch_start_mask
from hyena_glt.patching.rows import check_tokens
from hyena_glt.tokens.byte_tokenizer import BPE_ID, PAD_ID

MAX_WINDOW = 8192  # tokens that a prediction network sees at once


def bpe_delim_start_mask(tokens: Tensor, delim: int) -> Tensor:
    """True at the tokens after delimiters.

    Args:
        tokens: `(batch, length)` integers.
        delim: Id of the delimiter.

    Returns:
        `(batch, length + 1)` bool; the last column, about the token after the row, is never True for a
        delimiter.
    """
    mask = torch.ones(tokens.shape[0], tokens.shape[1] + 1, dtype=torch.bool, device=tokens.device)
    mask[:, 2:] = tokens[:, 1:] == delim
    mask[:, 2:][:, -1:] = False
    return mask


def find_bpe_delim_patch_start_ids(tokens: Tensor, delim: int) -> Tensor:
    """Positions of the starts after delimiters.

    Args:
        tokens: `(batch, length)` integers.
        delim: Id of the delimiter, `BPE_ID` in our tokens.

    Returns:
        `(batch, most starts of a row)` int64, ascending, right-padded with `length + 1`.

    Raises:
        PatchingError: Wrong rank or dtype.
    """
    check_tokens(tokens)
    return patch_start_ids_from_patch_start_mask(bpe_delim_start_mask(tokens, delim))


def predicted_start_mask(predictions: Tensor, include_next_token: bool = True) -> Tensor:
    """True at the tokens after which a delimiter is predicted.

    Args:
        predictions: `(batch, length)` bool; entry `i` is made after token `i`.
        include_next_token: Rows are one token longer than the predictions.

    Returns:
        `(batch, length + include_next_token)` bool.
    """
    batch, length = predictions.shape
    mask = torch.ones(batch, length + 1, dtype=torch.bool, device=predictions.device)
    mask[:, 2:] = predictions[:, 1:]
    return mask[:, : length + include_next_token]


def predicted_delimiters(preds: Tensor) -> Tensor:
    """Where a delimiter is the likeliest next token, `(batch, length)` bool.

    Args:
        preds: `(batch, length, vocab)` logits made after each token, or `(batch, length)` bool or 0/1
            integers.

    Raises:
        PatchingError: Another rank or dtype.
    """
    if preds.dim() == 3 and preds.is_floating_point():
        return preds.argmax(dim=-1) == BPE_ID
    if preds.dim() == 2 and not preds.is_floating_point() and not preds.is_complex():
        return preds != 0
    raise PatchingError(
        "preds: expected logits (batch, length, vocab) or bool or integers (batch, length), "
        f"got {preds.dtype} {tuple(preds.shape)}"
    )


def find_bpe_patcher_patch_start_ids(
    tokens: Tensor,
    bpe_patcher: Callable[[Tensor], Any],
    patching_batch_size: int,
    device: str | torch.device | None = None,
    include_next_token: bool = True,
) -> Tensor:
    """Positions of the starts after delimiters that a network predicts.

    Args:
        tokens: `(batch, length)` integers; PAD tails are allowed.
        bpe_patcher: Causal: `(rows, window)` tokens to logits `(rows, window, vocab)`, or an object that has
            them as `.logits`.
        patching_batch_size: Windows per call of the network.
        device: Where the network runs; None leaves the tokens where they are.
        include_next_token: Rows are one token longer than the tokens.

    Returns:
        `(batch, most starts of a row)` int64, ascending, right-padded with `length + include_next_token`.

    Raises:
        PatchingError: Wrong rank or dtype, or logits that do not fit the tokens.
    """
    predictions = predict_delimiters(tokens, bpe_patcher, patching_batch_size, device)
    return patch_start_ids_from_patch_start_mask(predicted_start_mask(predictions, include_next_token))


def predict_delimiters(
    tokens: Tensor,
    bpe_patcher: Callable[[Tensor], Any],
    patching_batch_size: int,
    device: str | torch.device | None = None,
    max_window: int = MAX_WINDOW,
) -> Tensor:
    """Run the network over windows that overlap by half, `(batch, length)` bool; False in padding.

    Each token takes its prediction from the window where it has the longer past; rows never see each other. A network
    with windows of its own, `delimiters(row)`, such as `BpePatcherNetwork`, is asked row by row.

    Raises:
        PatchingError: Wrong rank or dtype, or logits that do not fit the tokens.
    """
    check_tokens(tokens)
    batch, length = tokens.shape
    padding = tokens == PAD_ID
    if hasattr(bpe_patcher, "delimiters"):
        return _delimiters_of_rows(bpe_patcher, tokens, padding)
    inputs = tokens.to(torch.int64).masked_fill(padding, 0)
    predictions = torch.zeros_like(padding)
    step = max(1, max_window // 2)
    for first in range(0, batch, max(1, patching_batch_size)):
        rows = slice(first, first + max(1, patching_batch_size))
        kept = 0
        for start in range(0, max(length - max_window, 0) + step, step) if length else ():
            stop = min(start + max_window, length)
            window = inputs[rows, start:stop]
            found = predicted_delimiters(_logits(bpe_patcher, window, device)).to(tokens.device)
            predictions[rows, kept:stop] = found[:, kept - start :]
            kept = stop
    return predictions & ~padding


def _delimiters_of_rows(bpe_patcher: Any, tokens: Tensor, padding: Tensor) -> Tensor:
    predictions = torch.zeros_like(padding)
    for row, (values, end) in enumerate(zip(tokens.cpu().numpy(), (~padding).sum(dim=1).tolist(), strict=True)):
        predictions[row, :end] = torch.from_numpy(bpe_patcher.delimiters(values[:end]))
    return predictions


def _logits(network: Callable[[Tensor], Any], window: Tensor, device: str | torch.device | None) -> Tensor:
    with torch.no_grad():
        output = network(window if device is None else window.to(device))
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.dim() != 3 or logits.shape[:2] != window.shape:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise PatchingError(f"bpe_patcher: expected logits (*{tuple(window.shape)}, vocab), got {got}")
    return logits
