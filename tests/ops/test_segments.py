"""Reductions over ragged patches equal the loops, and padding adds exactly nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.ops import segment_max, segment_mean, segment_softmax, segment_sum
from hyena_glt.ops.reference import segment_max_reference, segment_softmax_reference, segment_sum_reference
from hyena_glt.ops.segments import softmax_pool_runs


@st.composite
def segmented(draw):
    """`(values, segment_ids, num_segments)`; some segments are empty, some rows are padding."""
    num_segments = draw(st.integers(1, 6))
    ids = draw(st.lists(st.integers(0, num_segments), max_size=25))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    values = torch.randn(len(ids), 3, generator=generator, dtype=torch.float64)
    return values, torch.tensor(ids, dtype=torch.int64), num_segments


@settings(max_examples=60, deadline=None)
@given(segmented())
def test_sums_means_and_maxima_equal_the_loops(case):
    values, ids, count = case
    sums = segment_sum_reference(values, ids, count)
    counts = torch.bincount(ids, minlength=count)[:count].clamp_min(1).unsqueeze(-1)
    torch.testing.assert_close(segment_sum(values, ids, count), sums)
    torch.testing.assert_close(segment_mean(values, ids, count), sums / counts)
    torch.testing.assert_close(segment_max(values, ids, count), segment_max_reference(values, ids, count))


@settings(max_examples=60, deadline=None)
@given(segmented())
def test_softmax_equals_the_loop_and_sums_to_one(case):
    scores, ids, count = case
    weights = segment_softmax(scores, ids, count)
    torch.testing.assert_close(weights, segment_softmax_reference(scores, ids, count))
    filled = torch.bincount(ids, minlength=count)[:count] > 0
    torch.testing.assert_close(segment_sum(weights, ids, count), filled.double().unsqueeze(-1).expand(-1, 3))


def test_padding_holds_anything_and_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(6, 2, generator=generator)
    ids = torch.tensor([0, 0, 1, 2, 2, 2])
    padded = torch.cat([values, torch.full((3, 2), 1e30)])
    padded_ids = torch.cat([ids, torch.full((3,), 3)])
    for reduce in (segment_sum, segment_mean, segment_max):
        assert torch.equal(reduce(padded, padded_ids, 3), reduce(values, ids, 3))
    assert torch.equal(segment_softmax(padded, padded_ids, 3)[:6], segment_softmax(values, ids, 3))
    assert torch.equal(segment_softmax(padded, padded_ids, 3)[6:], torch.zeros(3, 2))


def test_large_scores_do_not_overflow():
    weights = segment_softmax(torch.tensor([[1e4], [1e4], [-1e4]]), torch.tensor([0, 0, 0]), 1)
    assert weights.flatten().tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("reduce", [segment_sum, segment_mean, segment_max, segment_softmax])
def test_gradients_are_right(reduce):
    values = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([0, 0, 2, 2, 2, 3, 4])
    assert torch.autograd.gradcheck(lambda v: reduce(v, ids, 4), values.requires_grad_())


def test_nothing_in_gives_empty_segments():
    assert torch.equal(segment_sum(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 3), torch.zeros(3, 2))


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=8), heads=st.integers(1, 3), seed=st.integers(0, 99))
def test_pooled_runs_equal_softmax_and_sum(lengths, heads, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = 50 * torch.randn(sum(lengths), heads, generator=generator, dtype=torch.float64)
    states = torch.randn(sum(lengths), 5, generator=generator, dtype=torch.float64)
    ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths, dtype=torch.int64))
    weights = segment_softmax(scores, ids, len(lengths))
    expected = segment_sum(weights.unsqueeze(-1) * states.unsqueeze(1), ids, len(lengths))
    pooled = torch.full((len(lengths), heads, 5), torch.nan, dtype=torch.float64)
    softmax_pool_runs(pooled.numpy(), scores.numpy(), states.numpy(), np.array(lengths, np.int64))
    torch.testing.assert_close(pooled, expected, atol=1e-12, rtol=1e-12)
