"""Entropies -> patch start masks: threshold, rise, both, or the highest few.

Entropy `i` is of the prediction made after token `i`, so it decides whether token `i + 1` starts a patch.
Tokens 0 and 1 always start one: the first entropy belongs to a BOS token by BLT's convention, so without a
BOS the first base is a patch of its own. Pure functions, any device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hyena_glt.errors import PatchingError
from hyena_glt.patching.patch_lengths import patch_start_ids_from_patch_start_mask


def check_entropies(entropies: Tensor) -> None:
    """Raise a PatchingError unless the tensor is `(batch, length)` floating point without NaN."""
    if entropies.dim() != 2 or not entropies.is_floating_point():
        raise PatchingError(
            f"entropies: expected floating point (batch, length), got {entropies.dtype} {tuple(entropies.shape)}"
        )
    if bool(torch.isnan(entropies).any()):
        row, column = (int(place) for place in torch.isnan(entropies).nonzero()[0])
        raise PatchingError(f"entropies: expected numbers, got NaN at row {row}, token {column}")


def patch_start_mask_from_entropy_with_monotonicity(entropies: Tensor, t: float) -> Tensor:
    """True where the entropy has risen by more than `t` since the token before.

    Args:
        entropies: `(batch, length)` nats.
        t: Nats; compared with the difference, strictly.

    Returns:
        `(batch, length)` bool; column 0 is True.

    Raises:
        PatchingError: Wrong rank or dtype, or NaN.
    """
    check_entropies(entropies)
    mask = torch.ones_like(entropies, dtype=torch.bool)
    mask[:, 1:] = entropies.diff(dim=1) > t
    return mask


def patch_start_mask_global_and_monotonicity(entropies: Tensor, t: float, t_add: float = 0) -> Tensor:
    """True where the entropy is above `t` and has risen by more than `t_add` since the token before.

    Column 1 is never True: the start in column 0 stands right before it.

    Args:
        entropies: `(batch, length)` nats.
        t: Nats; compared with the entropy, strictly.
        t_add: Nats; compared with the difference, strictly.

    Returns:
        `(batch, length)` bool; column 0 is True.

    Raises:
        PatchingError: Wrong rank or dtype, or NaN.
    """
    check_entropies(entropies)
    mask = torch.ones_like(entropies, dtype=torch.bool)
    mask[:, 1:] = (entropies.diff(dim=1) > t_add) & (entropies[:, 1:] > t)
    mask[:, 1:2] = False
    return mask


def patch_start_mask_top_k(entropies: Tensor, budgets: Tensor) -> Tensor:
    """True at the highest entropies of each row; of equal ones the earlier.

    Args:
        entropies: `(batch, length)` nats; `-inf` where nothing may be chosen.
        budgets: `(batch,)` int64 in [0, length]: how many to choose.

    Returns:
        `(batch, length)` bool.

    Raises:
        PatchingError: Wrong rank or dtype, or NaN.
    """
    check_entropies(entropies)
    most = int(budgets.max()) if budgets.numel() else 0
    if most == 0:
        return torch.zeros_like(entropies, dtype=torch.bool)
    descending = entropies.topk(most, dim=1).values
    cuts = descending.gather(1, (budgets[:, None] - 1).clamp(min=0))  # (batch, 1)
    above, ties = entropies > cuts, entropies == cuts
    left = budgets[:, None] - above.sum(dim=1, keepdim=True)
    return (above | (ties & (ties.cumsum(dim=1) <= left))) & (budgets > 0)[:, None]


def entropy_start_mask(
    entropies: Tensor,
    patch_size: float | None = None,
    threshold: float | None = None,
    threshold_add: float | None = None,
    monotonicity: bool = False,
    include_next_token: bool = True,
    row_lengths: Tensor | None = None,
) -> Tensor:
    """Starts of all tokens of a row under the rule that the options pick.

    `threshold=None` picks top-k: `row length // patch_size` patches in all. Else `monotonicity` picks the
    rise, then `threshold_add` picks both conditions, then the threshold stands alone.

    Args:
        entropies: `(batch, length)` nats.
        patch_size: Tokens per patch; top-k only.
        threshold, threshold_add: Nats.
        monotonicity: Compare the threshold with the rise.
        include_next_token: Rows are one token longer than the entropies.
        row_lengths: `(batch,)` int64 tokens of each row where rows are padded; None for none.

    Returns:
        `(batch, length + include_next_token)` bool; what stands past a row's end means nothing.

    Raises:
        PatchingError: Wrong rank or dtype, NaN, or neither `threshold` nor `patch_size`.
    """
    check_entropies(entropies)
    batch, length = entropies.shape
    decisive = entropies[:, 1:]  # entry j decides about token j + 2
    if threshold is None:
        row_lengths = torch.full((batch,), length) if row_lengths is None else row_lengths
        chosen = _top_k(decisive, row_lengths.to(entropies.device), patch_size)
    elif monotonicity:
        chosen = patch_start_mask_from_entropy_with_monotonicity(decisive, threshold)
    elif threshold_add is not None:
        chosen = patch_start_mask_global_and_monotonicity(decisive, threshold, threshold_add)
    else:
        chosen = decisive > threshold
    mask = torch.ones(batch, length + 1, dtype=torch.bool, device=entropies.device)
    mask[:, 2:] = chosen
    return mask[:, : length + include_next_token]


def top_k_budgets(row_lengths: Tensor, patch_size: float | None) -> Tensor:
    """Starts beyond the first two that top-k may choose in each row, `(batch,)` int64.

    Raises:
        PatchingError: No patch size, or one that is not above 0.
    """
    if patch_size is None or not patch_size > 0:
        raise PatchingError(f"patch_size: expected tokens per patch > 0 with threshold=None, got {patch_size}")
    return (row_lengths // patch_size).to(torch.int64).sub(2).minimum(row_lengths - 1).clamp(min=0)


def _top_k(decisive: Tensor, row_lengths: Tensor, patch_size: float | None) -> Tensor:
    budgets = top_k_budgets(row_lengths, patch_size)
    inside = torch.arange(decisive.shape[1], device=decisive.device) < (row_lengths - 1)[:, None]
    return patch_start_mask_top_k(decisive.masked_fill(~inside, -torch.inf), budgets)


def find_entropy_patch_start_ids(
    entropies: Tensor,
    patch_size: float | None = None,
    threshold: float | None = None,
    threshold_add: float | None = None,
    monotonicity: bool = False,
    include_next_token: bool = True,
) -> Tensor:
    """Positions of the starts under the rule that the options pick; see `entropy_start_mask`.

    Returns:
        `(batch, most starts of a row)` int64, ascending, right-padded with `length + include_next_token`.

    Raises:
        PatchingError: Wrong rank or dtype, NaN, or neither `threshold` nor `patch_size`.

    Example:
        >>> find_entropy_patch_start_ids(torch.tensor([[0.0, 0.0, 2.0, 0.0]]), threshold=1.0).tolist()
        [[0, 1, 3]]
    """
    mask = entropy_start_mask(entropies, patch_size, threshold, threshold_add, monotonicity, include_next_token)
    return patch_start_ids_from_patch_start_mask(mask)
