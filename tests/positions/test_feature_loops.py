"""The compiled features of positions against the tensor form."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.positions import position_embedding
from hyena_glt.positions.position_embedding import SegmentAwarePositionalEncoding
from hyena_glt.positions.position_info import PositionInfo


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), min_size=1, max_size=3),
    st.integers(0, 2**52),
    st.integers(1, 26),
)
def test_loop_and_tensors_agree_at_any_position(rows, offset, num_scales):
    lengths = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for row, patches in enumerate(rows):
        lengths[row, : len(patches)] = torch.tensor(patches)
    info, encoding = PositionInfo.from_patch_lengths(lengths, offset), SegmentAwarePositionalEncoding(8, num_scales)
    compiled = encoding.features(info)
    read, position_embedding.compiled_loops_read = position_embedding.compiled_loops_read, lambda *tensors: False
    try:
        torch.testing.assert_close(compiled, encoding.features(info), atol=1e-6, rtol=0)
    finally:
        position_embedding.compiled_loops_read = read
