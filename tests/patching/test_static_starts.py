from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.patching import Patcher
from hyena_glt.patching.static_starts import static_start_mask, window_starts

SIZES = st.one_of(st.integers(1, 12), st.floats(1, 12))


@given(st.integers(0, 300), SIZES)
def test_starts_lie_on_the_grid(length, size):
    expected = {math.floor(k * size) for k in range(length + 1)}
    assert static_start_mask(length, size).nonzero().flatten().tolist() == sorted(x for x in expected if x < length)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [4, 5, 4, 5, 4, 1]),
        ({"max_patch_length": 8}, [8, 8, 7]),
        ({"patch_size": 10, "max_patch_length": 8}, [8, 2, 8, 2, 3]),
        ({"patch_size": 5, "max_patch_length": 8}, [5, 5, 5, 5, 3]),
        ({"patch_size": 4.5, "max_patch_length": 8}, [4, 5, 4, 5, 4, 1]),
        ({"patch_size": 2, "min_patch_length": 3}, [4, 4, 4, 4, 4, 3]),
    ],
)
def test_an_explicit_size_rules_over_the_cap_as_a_size(fields, expected):
    assert Patcher(patching_mode="static", **fields).patch("A" * 23)[0].tolist() == [expected]


def test_fractional_sizes_keep_the_mean():
    lengths, _ = Patcher(patching_mode="static", patch_size=3.7).patch("A" * 37_000)
    assert lengths.shape[1] == 10_000


@given(st.integers(0, 80), st.integers(1, 12), st.data())
def test_windows_hold_every_token_and_each_something_new(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    starts = window_starts(length, size, overlap).tolist()
    windows = [range(start, min(start + size, length)) for start in starts]
    assert sorted({token for window in windows for token in window}) == list(range(length))
    for before, after in pairwise(windows):
        assert after.start == before.stop - overlap
        assert after.stop > before.stop
    assert all(len(window) == size for window in windows[:-1])


def test_overlapping_windows_are_cut_from_the_sequence():
    patcher = Patcher(patching_mode="static", max_patch_length=4, overlap=1)
    pieces, boundaries = patcher.patch_with_boundaries("ABCDEFGHIJ")
    assert pieces == ["ABCD", "DEFG", "GHIJ"]
    assert boundaries.tolist() == [0, 3, 6]
    assert patcher.patch("ABCDEFGHIJ")[0].tolist() == [[3, 3, 4]]


@given(st.integers(0, 60), st.integers(1, 9), st.data())
def test_patches_begin_where_windows_do(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    patcher = Patcher(patching_mode="static", patch_size=size, overlap=overlap)
    lengths = patcher.patch(["A" * length, "A" * 60])[0][0]
    assert (lengths.cumsum(0) - lengths)[lengths > 0].tolist() == window_starts(length, size, overlap).tolist()
    assert patcher.patch_with_boundaries("A" * length)[1].tolist() == window_starts(length, size, overlap).tolist()


@pytest.mark.parametrize(("size", "overlap"), [(4, 4), (4, 9), (4.5, 1), (4, -1)])
def test_overlap_is_less_than_a_whole_size(size, overlap):
    with pytest.raises(ConfigError, match="overlap"):
        window_starts(20, size, overlap)
