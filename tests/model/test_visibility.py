"""Which patches a byte may read."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.model.visibility import readable_patches
from hyena_glt.positions import PositionInfo


def test_a_byte_reads_complete_patches_and_the_last_byte_its_own():
    info = PositionInfo.from_patch_lengths(torch.tensor([[1, 3, 2]]))
    assert readable_patches(info).tolist() == [[1, 1, 1, 2, 2, 2]]


def test_the_last_byte_of_a_row_reads_its_patch_where_the_next_token_starts_one():
    info = PositionInfo.from_patch_lengths(torch.tensor([[2, 2], [3, 0]]))
    following = torch.tensor([True, True])
    assert readable_patches(info, next_starts_patch=following).tolist() == [[0, 1, 1, 2], [0, 0, 1, 0]]
    assert readable_patches(info, next_starts_patch=~following).tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]


def test_a_forced_start_hides_the_patch_for_one_more_byte():
    info = PositionInfo.from_patch_lengths(torch.tensor([[2, 2, 2]]))
    known = torch.tensor([[True, True, False, True, True, True]])
    assert readable_patches(info, known).tolist() == [[0, 0, 1, 2, 2, 2]]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), max_size=5), min_size=1, max_size=3), st.integers(0, 1000))
def test_the_rule_equals_the_loop(rows, seed):
    width = max(map(len, rows))
    lengths = torch.zeros(len(rows), width, dtype=torch.int64)
    for index, row in enumerate(rows):
        lengths[index, : len(row)] = torch.tensor(row)
    info = PositionInfo.from_patch_lengths(lengths)
    generator = torch.Generator().manual_seed(seed)
    known = torch.rand(info.patch_ids.shape, generator=generator) < 0.7
    following = torch.rand(len(rows), generator=generator) < 0.5
    expected = torch.zeros_like(info.patch_ids)
    for index, row in enumerate(rows):
        ends = [sum(row[: count + 1]) for count in range(len(row))]
        for token in range(sum(row)):
            complete = sum(end <= token for end in ends)
            if token + 1 in ends:
                in_row = token + 1 < ends[-1]
                complete += int(known[index, token + 1]) if in_row else int(following[index])
            expected[index, token] = complete
    assert readable_patches(info, known, following).equal(expected)
