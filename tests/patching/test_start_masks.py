"""Compiled loops against the tensor functions, over ragged batches and every mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.patching import PatcherArgs
from hyena_glt.patching.batch_lengths import close_starts, lay_out, no_columns
from hyena_glt.patching.patch_lengths import patch_lengths_from_start_mask, split_large_numbers
from hyena_glt.patching.rows import read_rows
from hyena_glt.patching.start_masks import StartRequest, compiled_start_mask, tensor_start_mask

OPTIONS = [
    {"threshold": 0.5},
    {"threshold": 0.25, "monotonicity": True},
    {"threshold": 0.25, "threshold_add": 0.125},
    {"threshold": None, "patch_size": 3},
    {"threshold": None, "patch_size": 1.5},
    {"patching_mode": "space"},
    {"patching_mode": "space", "delimiter_chars": ["A", "|"]},
    {"patching_mode": "bpe"},
    {"patching_mode": "bpe_patcher"},
    {"patching_mode": "static", "patch_size": 4.5},
    {"patching_mode": "static", "patch_size": 5, "overlap": 2},
    {"patching_mode": "byte"},
]


@st.composite
def requests(draw):
    args = PatcherArgs(**draw(st.sampled_from(OPTIONS)), max_patch_length=draw(st.sampled_from([None, 1, 4])))
    lengths = draw(st.lists(st.integers(0, 70), min_size=1, max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from([np.int64, np.int32, np.int16]))
    tokens = np.full((len(lengths), max(lengths)), -1, kind)
    scores = np.zeros(tokens.shape, np.float32)
    for row, length in enumerate(lengths):
        tokens[row, :length] = random.choice([0, 1, 3, 69, 70, 128, 36, 200, 259, 150], length)
        scores[row, :length] = random.integers(0, 9, length) / 8
    predictions = torch.from_numpy(random.random(tokens.shape) < 0.3)
    rows = read_rows(tokens)
    return StartRequest(
        args=args,
        rows=rows,
        num_next=draw(st.integers(0, 1)),
        threshold=args.threshold,
        scores=torch.from_numpy(scores) if args.uses_scores else None,
        predictions=predictions if args.patching_mode == "bpe_patcher" else None,
    )


@given(requests())
def test_compiled_loops_equal_tensor_functions(request):
    assert torch.equal(compiled_start_mask(request), tensor_start_mask(request))


@given(requests())
def test_lengths_are_the_same_by_loops_and_by_tensor_functions(request):
    starts = tensor_start_mask(request)
    ends = request.rows.lengths_tensor(request.num_next)
    lengths = patch_lengths_from_start_mask(starts | (torch.arange(starts.shape[1]) == 0), ends)
    if request.args.max_patch_length is not None:
        lengths = split_large_numbers(lengths, request.args.max_patch_length)
    closed = lay_out(close_starts(request, starts.contiguous(), None, no_columns(len(starts))), request.rows)
    assert torch.equal(closed, lengths)


@pytest.mark.parametrize("options", OPTIONS[:4])
@pytest.mark.parametrize("find", [compiled_start_mask, tensor_start_mask])
@pytest.mark.parametrize("token", [0, 1, 7])
@pytest.mark.parametrize("num_next", [0, 1])
def test_nan_is_refused_wherever_it_stands(options, find, token, num_next):
    args = PatcherArgs(**options)
    scores = torch.zeros(2, 8)
    scores[1, token] = torch.nan
    request = StartRequest(args, read_rows(torch.full((2, 8), 69)), num_next, args.threshold, scores)
    with pytest.raises(PatchingError, match=f"NaN at row 1, token {token}"):
        find(request)
