"""What a forward refuses, and what it makes of the rest."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.errors import PatchingError
from hyena_glt.model.inputs import PatchedTokens, check_tokens, padding_mask, positions_of, zero_padding


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (torch.tensor([5, 6]), r"\(batch, length\)"),
        (torch.tensor([[5.0]]), "float32"),
        (torch.tensor([[True]]), "bool"),
        (torch.tensor([[260]]), "got 260 to 260"),
        (torch.tensor([[-2]]), "got -2"),
        (torch.tensor([[5, 6], [-1, 6]]), "row 1 at 0"),
    ],
)
def test_tokens_that_are_none_are_refused(tokens, reason):
    with pytest.raises(PatchingError, match=f"tokens: expected .*{reason}"):
        check_tokens(tokens)


@pytest.mark.parametrize(
    "tokens", [torch.tensor([[5, -1], [-1, -1]]), torch.zeros(0, 0).int(), torch.zeros(2, 0).long()]
)
def test_padded_and_empty_rows_are_sound(tokens):
    check_tokens(tokens)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patch_lengths": torch.tensor([[2], [1]])}, "row 0 to sum to its 3 tokens, got 2"),
        ({"patch_lengths": torch.tensor([[3]])}, "expected 2 rows, got 1"),
        ({"patch_lengths": torch.tensor([[3], [2]])}, "row 1 to sum to its 1 tokens, got 2"),
        ({"known_starts": torch.ones(2, 2).bool()}, r"known_starts: expected shape \(2, 3\), got \(2, 2\)"),
        ({"next_starts_patch": torch.ones(2, 1).bool()}, r"next_starts_patch: expected shape \(2,\)"),
    ],
)
def test_patches_that_do_not_belong_to_the_tokens_are_refused(changes, reason):
    sound = {"tokens": torch.tensor([[5, 6, 7], [8, -1, -1]]), "patch_lengths": torch.tensor([[3], [1]])}
    with pytest.raises(PatchingError, match=reason):
        positions_of(PatchedTokens(**{**sound, **changes}), 0)


def test_a_mask_that_hides_nothing_is_none():
    assert padding_mask(torch.ones(2, 2).bool()) is None
    mask = torch.tensor([[True, False]])
    assert padding_mask(mask) is mask
    assert zero_padding(torch.ones(1, 2, 3), mask).tolist() == [[[1, 1, 1], [0, 0, 0]]]
