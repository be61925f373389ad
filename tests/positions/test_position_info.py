"""Positions derived from patch lengths: exact, reversible, with padding that says so."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.positions import PositionInfo
from hyena_glt.positions.position_info import patch_ids_from_lengths

rows = st.lists(st.lists(st.integers(1, 9), max_size=8), min_size=1, max_size=4)


def padded(lengths: list[list[int]]) -> torch.Tensor:
    width = max(map(len, lengths))
    result = torch.zeros(len(lengths), width, dtype=torch.int64)
    for index, row in enumerate(lengths):
        result[index, : len(row)] = torch.tensor(row)
    return result


@settings(max_examples=80, deadline=None)
@given(rows, st.integers(0, 1 << 40), st.integers(0, 5))
def test_every_field_equals_the_loop(lengths, offset, extra):
    total = max(sum(row) for row in lengths)
    info = PositionInfo.from_patch_lengths(padded(lengths), offset, total + extra)
    num_patches = info.patch_lengths.shape[1]
    for index, row in enumerate(lengths):
        ids = [patch for patch, length in enumerate(row) for _ in range(length)]
        offsets = [place for length in row for place in range(length)]
        relative = [place / max(length - 1, 1) for length in row for place in range(length)]
        pad = total + extra - len(ids)
        assert info.patch_ids[index].tolist() == ids + [num_patches] * pad
        assert info.offsets[index].tolist() == offsets + [0] * pad
        assert info.global_positions[index].tolist() == [offset + i for i in range(len(ids))] + [-1] * pad
        assert info.relative_positions[index].tolist() == pytest.approx(relative + [0.0] * pad)
        assert info.mask[index].tolist() == [True] * len(ids) + [False] * pad
        assert info.patch_starts[index, : len(row)].tolist() == [sum(row[:k]) for k in range(len(row))]


@settings(max_examples=50, deadline=None)
@given(rows)
def test_patches_come_back_from_the_ids_of_their_bytes(lengths):
    info = PositionInfo.from_patch_lengths(padded(lengths))
    back = torch.bincount(info.segment_ids, minlength=info.patch_lengths.numel() + 1)[:-1]
    assert back.view_as(info.patch_lengths).equal(info.patch_lengths)


@settings(max_examples=50, deadline=None)
@given(rows)
def test_patch_starts_are_where_the_offset_is_zero(lengths):
    info = PositionInfo.from_patch_lengths(padded(lengths))
    for index, row in enumerate(lengths):
        starts = (info.mask[index] & (info.offsets[index] == 0)).nonzero().flatten()
        assert starts.equal(info.patch_starts[index, : len(row)])


def test_relative_positions_run_from_zero_to_one():
    info = PositionInfo.from_patch_lengths(torch.tensor([[1, 2, 3]]))
    assert info.relative_positions.tolist() == [[0.0, 0.0, 1.0, 0.0, 0.5, 1.0]]
    assert info.relative_positions.dtype is torch.float32


def test_each_row_may_have_its_own_offset():
    info = PositionInfo.from_patch_lengths(torch.tensor([[2], [2]]), offset=torch.tensor([7, 2**33]))
    assert info.global_positions.tolist() == [[7, 8], [2**33, 2**33 + 1]]


def test_overlapping_patches_keep_their_own_positions():
    info = PositionInfo.from_patch_lengths(torch.tensor([[3, 3]]), 10, starts=torch.tensor([[0, 2]]))
    assert info.global_positions.tolist() == [[10, 11, 12, 12, 13, 14]]


@pytest.mark.parametrize("shape", [(0, 0), (2, 0), (0, 3)])
def test_empty_batches_have_empty_positions(shape):
    info = PositionInfo.from_patch_lengths(torch.zeros(shape, dtype=torch.int64))
    assert info.patch_ids.shape == (shape[0], 0)


def test_a_row_without_tokens_is_all_padding():
    info = PositionInfo.from_patch_lengths(torch.tensor([[2, 1], [0, 0]]))
    assert info.mask.tolist() == [[True] * 3, [False] * 3]
    assert patch_ids_from_lengths(torch.tensor([[0, 0]]), 2).tolist() == [[2, 2]]


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        (torch.tensor([1, 2]), r"expected \(batch, num_patches\)"),
        (torch.tensor([[1.0]]), "float32"),
        (torch.tensor([[True]]), "bool"),
        (torch.tensor([[2, -1]]), "got -1"),
        (torch.tensor([[0, 1]]), "0 before a patch"),
        (torch.tensor([[5]]), "at most 4"),
    ],
)
def test_lengths_that_are_none_are_refused(lengths, reason):
    with pytest.raises(PatchingError, match=f"patch_lengths: .*{reason}"):
        PositionInfo.from_patch_lengths(lengths, length=4)
