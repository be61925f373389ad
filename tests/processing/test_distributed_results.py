"""Results and tokens come back from their bytes as they were."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.processing.distributed_results import (
    SequenceResult,
    pack_results,
    packed_tokens,
    unpack_results,
    unpacked_tokens,
)


@given(st.lists(st.lists(st.integers(-1, 259), max_size=9), max_size=6))
def test_tokens_come_back(rows):
    tokens = [torch.tensor(row, dtype=torch.int64) for row in rows]
    found = unpacked_tokens(packed_tokens(tokens))
    assert [row.tolist() for row in found] == rows
    assert all(row.dtype is torch.int64 for row in found)


@given(st.sets(st.integers(0, 2000), max_size=6), st.integers(0, 3))
def test_results_come_back_by_index(indices, num_patches):
    results = [
        SequenceResult(
            index=index,
            last_hidden_state=torch.rand(1, num_patches, 4).to(torch.bfloat16),
            patch_lengths=torch.ones(1, num_patches, dtype=torch.int64),
            boundaries=torch.arange(num_patches),
        )
        for index in indices
    ]
    found = unpack_results(pack_results(results))
    assert [result.index for result in found] == sorted(indices)
    expected = {result.index: result for result in results}
    for result in found:
        assert list(result) == list(expected[result.index])
        assert all(torch.equal(result[name], expected[result.index][name]) for name in result if name != "index")
        assert result.compression_ratio == (1.0 if num_patches else 0.0)
