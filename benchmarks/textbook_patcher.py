"""Patching as the documents write it down: plain PyTorch, with lists and loops where they have them.

What `patcher_speed.py` compares the package with. Each function follows a formula of the published patcher guide; it is
not tuned and takes no care of ragged rows. All give patch lengths `(batch, num_patches)` int64, right-padded with 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

OFFSET = 4


def entropy(scores: Tensor) -> Tensor:
    """Entropy of logits `(batch, length, vocab)`, in nats."""
    log_probs = torch.log_softmax(scores, dim=-1)
    probs = torch.exp(log_probs)
    p_log_p = log_probs * probs
    return -p_log_p.sum(dim=-1)


def mask_by_threshold(entropies: Tensor, t: float) -> Tensor:
    """Starts where the entropy is above the threshold."""
    return entropies > t


def mask_by_monotonicity(entropies: Tensor, t: float) -> Tensor:
    """Starts where the entropy rises by more than the threshold."""
    mask = torch.zeros_like(entropies, dtype=torch.bool)
    differences = entropies[:, 1:] - entropies[:, :-1]
    mask[:, 0] = True
    mask[:, 1:] = differences > t
    return mask


def mask_by_both(entropies: Tensor, t: float, t_add: float) -> Tensor:
    """Starts where the entropy is above one threshold and rises by more than the other."""
    mask = torch.zeros_like(entropies, dtype=torch.bool)
    mask[:, 0] = True
    differences = entropies[:, 1:] - entropies[:, :-1]
    mask[:, 1:] = (differences > t_add) & (entropies[:, 1:] > t) & (~mask[:, :-1])
    return mask


def mask_by_top_k(entropies: Tensor, patch_size: int) -> Tensor:
    """Starts at the highest entropies, as many as give the patch size on average with the first two."""
    mask = torch.zeros_like(entropies, dtype=torch.bool)
    num_patches = (entropies.shape[1] + 1) // patch_size
    return mask.scatter(1, entropies.topk(num_patches - 2, dim=1).indices, True)


def lengths_from_entropies(entropies: Tensor, mask_of: Callable[[Tensor], Tensor], cap: int | None = None) -> Tensor:
    """Patch lengths from entropies `(batch, length)` and a rule for all tokens after the first two."""
    mask = mask_of(entropies[:, 1:])[:, :-1]  # entropy i is of the prediction of token i + 1
    always = torch.ones(mask.shape[0], 2, dtype=torch.bool)
    return lengths_from_mask(torch.cat([always, mask], dim=1), cap)


def lengths_from_mask(mask: Tensor, cap: int | None = None) -> Tensor:
    """Positions of the starts as a padded matrix, then their distances."""
    length = mask.shape[1]
    starts = [row.nonzero().flatten() for row in mask]
    return lengths_from_start_ids(pad_sequence(starts, batch_first=True, padding_value=length), length, cap)


def lengths_from_start_ids(start_ids: Tensor, length: int, cap: int | None) -> Tensor:
    """Distances between neighbouring starts, checked and split."""
    last_ids = torch.cat([start_ids[:, 1:], torch.full_like(start_ids[:, :1], length)], dim=1)
    patch_lengths = last_ids - start_ids
    assert torch.all(patch_lengths >= 0)
    assert not check_non_zero_after_zero(patch_lengths)
    assert torch.sum(patch_lengths) == patch_lengths.shape[0] * length
    return patch_lengths if cap is None else split_rows(patch_lengths, cap)


def check_non_zero_after_zero(tensor: Tensor) -> Tensor:
    """True where a length follows padding."""
    zero_mask = tensor == 0
    first = torch.zeros(tensor.shape[0], 1, dtype=torch.bool, device=tensor.device)
    shifted_mask = torch.cat([first, zero_mask[:, :-1]], dim=1)
    return ((tensor != 0) & shifted_mask).any()


def split_rows(patch_lengths: Tensor, cap: int) -> Tensor:
    """Rows of lengths, none above the cap."""
    rows = [split_large_numbers(row, cap) for row in patch_lengths.tolist()]
    widest = max(sum(number > 0 for number in row) for row in rows)
    return torch.tensor([row[:widest] + [0] * (widest - len(row)) for row in rows])


def split_large_numbers(lst: list[int], m: int) -> list[int]:
    """Each number above `m` as so many `m` and the rest."""
    new_lst = []
    for i in lst:
        if i > m:
            while i > m:
                new_lst.append(m)
                i -= m
            new_lst.append(i)
        else:
            new_lst.append(i)
    return new_lst


def lengths_by_space(tokens: Tensor) -> Tensor:
    """A patch ends with the first of a run of bytes that are no digit, letter or continuation byte."""
    byte = tokens - OFFSET
    ends = (
        (byte < ord("0"))
        | ((ord("9") < byte) & (byte < ord("A")))
        | ((ord("Z") < byte) & (byte < ord("a")))
        | ((ord("z") < byte) & (byte < 0b1000_0000))
        | (byte >= 0b1100_0000)
    )
    ends[:, 1:] = ends[:, 1:] & ~ends[:, :-1]
    mask = torch.ones_like(ends)
    mask[:, 2:] = ends[:, 1:-1]
    return lengths_from_mask(mask)


def lengths_by_delimiter(tokens: Tensor, delimiter: int) -> Tensor:
    """A patch starts after each delimiter."""
    length = tokens.shape[1]
    ids = (tokens[:, :-1] == delimiter).nonzero(as_tuple=False)
    out = [[0, 1] for _ in range(tokens.shape[0])]
    for x, y in ids:
        out[x.item()].append(y.item() + 1)
    widest = max(len(row) for row in out)
    padded = [row + [length] * (widest - len(row)) for row in out]
    return lengths_from_start_ids(torch.tensor(padded), length, None)


def lengths_by_stride(tokens: Tensor, patch_size: int, cap: int) -> Tensor:
    """Equal patches, and the rest of the row."""
    batch, length = tokens.shape
    sizes = torch.full((batch, -(-length // patch_size)), patch_size)
    sizes[:, -1] = length - patch_size * (sizes.shape[1] - 1)
    return split_rows(sizes, cap)


def patch_ids(patch_lengths: Tensor, length: int) -> Tensor:
    """The patch of each token: every token against every start."""
    starts = patch_lengths.cumsum(dim=1) - patch_lengths
    positions = torch.arange(length)
    started = (starts[:, None, :] <= positions[None, :, None]) & (patch_lengths > 0)[:, None, :]
    return started.sum(dim=-1) - 1
