"""Scores and predictions that a caller hands in with the tokens, checked against them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hyena_glt.errors import PatchingError
from hyena_glt.patching.bpe_starts import predicted_delimiters
from hyena_glt.patching.rows import TokenRows


def given_scores(entropies: Any, rows: TokenRows) -> Tensor:
    """Scores of each token, on the device of the tokens, `(batch, length)` float32, 0 in padding.

    Raises:
        PatchingError: Another shape or dtype.
    """
    scores = entropies if isinstance(entropies, Tensor) else torch.as_tensor(entropies)
    if scores.dim() != 2 or not scores.is_floating_point():
        raise PatchingError(
            f"entropies: expected floating point (batch, length), got {scores.dtype} {tuple(scores.shape)}"
        )
    _check_fit("entropies", scores, rows)
    scores = scores.detach().to(rows.tokens.device, torch.float32).contiguous()
    if not rows.is_ragged:
        return scores
    columns = torch.arange(scores.shape[1], device=scores.device)
    return scores.masked_fill(columns >= rows.lengths_tensor()[:, None], 0.0)


def given_logits(preds: Any, rows: TokenRows) -> Tensor:
    """Logits made after each token, on the device of the tokens, `(batch, length, vocab)`.

    Raises:
        PatchingError: Another shape or dtype.
    """
    logits = torch.as_tensor(preds, device=rows.tokens.device).detach()
    if logits.dim() != 3 or not logits.is_floating_point():
        raise PatchingError(
            f"preds: expected floating point (batch, length, vocab), got {logits.dtype} {tuple(logits.shape)}"
        )
    _check_fit("preds", logits, rows)
    return logits


def given_predictions(preds: Any, rows: TokenRows) -> Tensor:
    """Where a delimiter is predicted, on the device of the tokens, `(batch, length)` bool.

    Raises:
        PatchingError: Another shape or dtype.
    """
    values = torch.as_tensor(preds, device=rows.tokens.device).detach()
    predictions = predicted_delimiters(values)
    _check_fit("preds", values, rows)
    return predictions


def _check_fit(name: str, values: Tensor, rows: TokenRows) -> None:
    expected = tuple(rows.tokens.shape)
    if tuple(values.shape[:2]) != expected:
        raise PatchingError(f"{name}: expected (batch, length) {expected} as in tokens, got {tuple(values.shape)}")
