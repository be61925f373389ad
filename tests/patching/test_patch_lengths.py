from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.patching import (
    check_non_zero_after_zero,
    check_patch_lengths,
    patch_lengths_from_start_ids,
    patch_lengths_from_start_mask,
    patch_start_ids_from_patch_start_mask,
    rightpad,
    split_large_numbers,
)


@st.composite
def start_masks(draw):
    """`(batch, length)` bool with column 0 set."""
    batch, length = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    bits = draw(st.lists(st.booleans(), min_size=batch * length, max_size=batch * length))
    mask = torch.tensor(bits).reshape(batch, length)
    mask[:, 0] = True
    return mask


def row_lengths_by_hand(row):
    starts = [position for position, is_start in enumerate(row) if is_start]
    return [end - start for start, end in zip(starts, [*starts[1:], len(row)], strict=True)]


@given(start_masks())
def test_patch_lengths_are_the_gaps_between_starts(mask):
    lengths = patch_lengths_from_start_mask(mask)
    assert lengths.dtype == torch.int64
    for row, found in zip(mask.tolist(), lengths.tolist(), strict=True):
        expected = row_lengths_by_hand(row)
        assert found == expected + [0] * (len(found) - len(expected))


@given(start_masks())
def test_ids_and_masks_give_the_same_lengths(mask):
    ids = patch_start_ids_from_patch_start_mask(mask)
    assert ids.dtype == torch.int64
    by_ids = patch_lengths_from_start_ids(ids, mask.shape[1])
    assert torch.equal(by_ids, patch_lengths_from_start_mask(mask))


@given(start_masks(), st.data())
def test_rows_shorter_than_the_mask_sum_to_their_length(mask, data):
    ends = torch.tensor([data.draw(st.integers(0, mask.shape[1])) for _ in range(mask.shape[0])])
    lengths = patch_lengths_from_start_mask(mask, ends)
    check_patch_lengths(lengths, ends)
    for row, end in enumerate(ends.tolist()):
        alone = patch_lengths_from_start_mask(mask[row : row + 1, :end])
        assert lengths[row][lengths[row] > 0].tolist() == alone.flatten().tolist()


@given(start_masks())
def test_ids_are_padded_with_the_length(mask):
    ids = patch_start_ids_from_patch_start_mask(mask)
    for row, found in zip(mask, ids.tolist(), strict=True):
        starts = row.nonzero().flatten().tolist()
        assert found == starts + [mask.shape[1]] * (len(found) - len(starts))


def test_ids_beyond_the_length_are_padding():
    ids = torch.tensor([[0, 1, 5, 9], [0, 4, 9, 9]], dtype=torch.int32)
    assert patch_lengths_from_start_ids(ids, 5).tolist() == [[1, 4], [4, 1]]


def test_an_empty_row_has_no_patch():
    assert patch_lengths_from_start_mask(torch.zeros(2, 0, dtype=torch.bool)).shape == (2, 0)
    assert patch_lengths_from_start_ids(torch.tensor([[0, 1]]), 0).shape == (1, 0)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([[False, True]]), r"column 0 set, got shape \(1, 2\)"),
        (torch.tensor([True]), "expected bool"),
        (torch.tensor([[1, 0]]), "expected bool"),
    ],
)
def test_masks_without_a_first_start_are_refused(mask, message):
    with pytest.raises(PatchingError, match=message):
        patch_lengths_from_start_mask(mask)


@pytest.mark.parametrize(
    ("ids", "length"),
    [([[1, 2]], 4), ([[0, 3, 2]], 4), ([[0, 2, 2]], 4), ([[0, -1]], 4), ([[0.0, 1.0]], 4), ([0, 1], 4), ([[0]], -1)],
)
def test_ids_out_of_order_are_refused(ids, length):
    with pytest.raises(PatchingError, match="patch_start_ids"):
        patch_lengths_from_start_ids(torch.tensor(ids), length)


def test_ids_need_a_mask_of_two_dimensions():
    with pytest.raises(PatchingError, match="patch_start_mask"):
        patch_start_ids_from_patch_start_mask(torch.tensor([True, False]))


def split_by_definition(numbers, m):
    split = []
    for number in numbers:
        while number > m:
            split.append(m)
            number -= m
        split.append(number)
    return split


@given(st.lists(st.integers(0, 50)), st.integers(1, 20))
def test_large_numbers_are_split(numbers, m):
    assert split_large_numbers(numbers, m) == split_by_definition(numbers, m)


@given(start_masks(), st.integers(1, 8))
def test_rows_of_large_numbers_are_split_row_by_row(mask, m):
    lengths = patch_lengths_from_start_mask(mask)
    split = split_large_numbers(lengths, m)
    assert not bool(check_non_zero_after_zero(split))
    for before, after in zip(lengths.tolist(), split.tolist(), strict=True):
        expected = split_by_definition([length for length in before if length], m)
        assert after == expected + [0] * (len(after) - len(expected))


@pytest.mark.parametrize(
    ("numbers", "m"),
    [([1, 2], 0), ([1, 2], -3), ([-1], 4), (torch.tensor([[-1]]), 4), (torch.tensor([3]), 4)],
)
def test_splitting_refuses_what_is_no_length(numbers, m):
    with pytest.raises(PatchingError, match="expected"):
        split_large_numbers(numbers, m)


@pytest.mark.parametrize(
    ("rows", "has_gap"),
    [([[1, 2, 0], [3, 0, 0]], False), ([[1, 0, 2]], True), ([[0, 1]], True), ([[0, 0]], False), ([[]], False)],
)
def test_a_gap_is_a_length_after_a_zero(rows, has_gap):
    assert bool(check_non_zero_after_zero(torch.tensor(rows))) is has_gap


def test_gaps_need_rows():
    with pytest.raises(PatchingError, match="tensor: expected"):
        check_non_zero_after_zero(torch.tensor([1, 0]))


@pytest.mark.parametrize(
    ("lengths", "ends"),
    [
        ([[1, 0, 2]], [3]),
        ([[1, -1, 3]], [3]),
        ([[1, 2]], [4]),
        ([[1, 2]], [3, 3]),
        ([[1.0, 2.0]], [3]),
    ],
)
def test_lengths_that_do_not_cover_their_rows_are_refused(lengths, ends):
    with pytest.raises(PatchingError, match="patch_lengths"):
        check_patch_lengths(torch.tensor(lengths), torch.tensor(ends))


def test_right_padding_keeps_the_type():
    assert rightpad([1, 2], 0, 4) == [1, 2, 0, 0]
    assert rightpad([1, 2, 3], 0, 2) == [1, 2, 3]
    assert rightpad(torch.tensor([1, 2]), -1, 3).tolist() == [1, 2, -1]
