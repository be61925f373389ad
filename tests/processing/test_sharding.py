"""Every item once, for any number of shards, with balanced sizes and results in input order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.processing import balanced_shards, cut_contigs, in_input_order
from hyena_glt.processing.sharding import batches_of_similar_length

sizes_lists = st.lists(st.integers(0, 1000), max_size=60)


@given(sizes_lists, st.integers(1, 9))
def test_every_item_is_in_one_shard_once(sizes, num_shards):
    shards = balanced_shards(sizes, num_shards)
    assert len(shards) == num_shards
    assert sorted(np.concatenate(shards).tolist()) == list(range(len(sizes)))
    assert all((np.diff(shard) > 0).all() for shard in shards)


@given(sizes_lists.filter(len), st.integers(1, 9))
def test_shards_are_balanced_by_size(sizes, num_shards):
    """Graham's bound for the longest first: at most 4/3 of the best, which is no less than either of these."""
    loads = [sum(sizes[index] for index in shard) for shard in balanced_shards(sizes, num_shards)]
    ordered = sorted(sizes, reverse=True)
    pair = ordered[num_shards - 1] + ordered[num_shards] if len(sizes) > num_shards else 0
    least = max(sum(sizes) / num_shards, ordered[0], pair)
    assert max(loads) <= 4 / 3 * least + 1e-9


@given(st.integers(0, 60), st.integers(1, 9))
def test_items_without_size_are_shared_by_number(count, num_shards):
    counts = [shard.size for shard in balanced_shards([0] * count, num_shards)]
    assert max(counts) - min(counts) <= 1


@given(sizes_lists, st.integers(1, 9))
def test_results_come_back_in_input_order(sizes, num_shards):
    shards = balanced_shards(sizes, num_shards)
    parts = [[f"result {index}" for index in shard] for shard in shards]
    assert in_input_order(shards, parts) == [f"result {index}" for index in range(len(sizes))]


@pytest.mark.parametrize(
    ("shards", "parts"), [([[0], [1]], [["a"], []]), ([[0], [0]], [["a"], ["b"]]), ([[0], [2]], [["a"], ["b"]])]
)
def test_results_that_are_missing_or_double_are_refused(shards, parts):
    with pytest.raises(ConfigError, match="results: expected"):
        in_input_order(shards, parts)


def test_the_guides_split_is_unbalanced_and_ours_is_not():
    """Equal counts of sequences per process, as in the guide: one process has all the long ones."""
    sizes = [1] * 8 + [1000] * 8
    guides = [sum(sizes[:8]), sum(sizes[8:])]
    ours = [sum(sizes[index] for index in shard) for shard in balanced_shards(sizes, 2)]
    assert max(guides) == 8000
    assert ours == [4004, 4004]


@given(sizes_lists, st.integers(1, 9))
def test_batches_hold_every_item_once_by_length(lengths, batch_size):
    batches = batches_of_similar_length(lengths, batch_size)
    order = [index for batch in batches for index in batch.tolist()]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths)
    assert all(batch.size == batch_size for batch in batches[:-1])


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(1, 50))
def test_pieces_of_contigs_cover_each_base_once(lengths, longest):
    pieces = cut_contigs(lengths, longest)
    covered = {(contig, base) for contig, start, end in pieces.tolist() for base in range(start, end)}
    assert covered == {(contig, base) for contig, length in enumerate(lengths) for base in range(length)}
    sizes = pieces[:, 2] - pieces[:, 1]
    assert int(sizes.sum()) == len(covered)
    assert (sizes >= 1).all()
    assert (sizes <= longest).all()
    for contig in range(len(lengths)):
        own = sizes[pieces[:, 0] == contig]
        assert own.size == 0 or own.max() - own.min() <= 1


def test_positions_beyond_32_bits_are_exact():
    pieces = cut_contigs([3 * 2**31 + 1], 2**31)
    assert pieces[-1].tolist() == [0, 3 * 2**31 + 1 - (3 * 2**31 + 1) // 4 - 1, 3 * 2**31 + 1]


@pytest.mark.parametrize(
    ("work", "place"),
    [
        (lambda: balanced_shards([1], 0), "num_shards: expected .* 1, got 0"),
        (lambda: balanced_shards([1], True), "num_shards"),
        (lambda: balanced_shards([-1], 1), "sizes: expected numbers of at least 0, got -1"),
        (lambda: cut_contigs([1], 1.5), "longest"),
        (lambda: batches_of_similar_length([1], 0), "batch_size|num_shards"),
    ],
)
def test_numbers_out_of_range_are_named(work, place):
    with pytest.raises(ConfigError, match=place):
        work()
