"""Reductions over patches of unequal length: sum, mean, maximum, softmax; vectorised, any device.

A segment id equal to `num_segments` marks padding: such rows contribute exactly nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor


def segment_sum(values: Tensor, segment_ids: Tensor, num_segments: int) -> Tensor:
    """Sum the rows of each segment.

    Args:
        values: `(tokens, ...)`.
        segment_ids: `(tokens,)` int64 in [0, num_segments]; `num_segments` is padding.
        num_segments: Rows of the result.

    Returns:
        `(num_segments, ...)`; 0 where a segment has no rows.
    """
    total = values.new_zeros(num_segments + 1, *values.shape[1:])
    return total.index_add(0, segment_ids, values)[:num_segments]


def segment_mean(values: Tensor, segment_ids: Tensor, num_segments: int) -> Tensor:
    """Mean of the rows of each segment; shapes as `segment_sum`."""
    counts = segment_sum(values.new_ones(len(values)), segment_ids, num_segments).clamp_min(1)
    shape = (num_segments, *[1] * (values.ndim - 1))
    return segment_sum(values, segment_ids, num_segments) / counts.view(shape)


def segment_max(values: Tensor, segment_ids: Tensor, num_segments: int, empty: float = 0.0) -> Tensor:
    """Maximum of the rows of each segment, `empty` where there are none; shapes as `segment_sum`."""
    index = segment_ids.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
    largest = values.new_full((num_segments + 1, *values.shape[1:]), empty)
    return largest.scatter_reduce(0, index, values, "amax", include_self=False)[:num_segments]


def segment_softmax(scores: Tensor, segment_ids: Tensor, num_segments: int) -> Tensor:
    """Softmax of the scores among the rows of each segment.

    Args:
        scores: `(tokens, heads)`.
        segment_ids: `(tokens,)` int64 in [0, num_segments]; `num_segments` is padding.
        num_segments: Number of segments.

    Returns:
        `(tokens, heads)`; sums to 1 over a segment, 0 in padding.
    """
    largest = segment_max(scores.detach(), segment_ids, num_segments + 1)
    weights = (scores - largest[segment_ids]).exp()
    weights = weights * (segment_ids < num_segments).unsqueeze(-1)
    total = segment_sum(weights, segment_ids, num_segments + 1)
    return weights / total[segment_ids].clamp_min(1e-30)


@njit(cache=True, nogil=True, error_model="numpy")
def softmax_pool_runs(pooled, scores, states, lengths):
    """Softmax within each run of tokens, then the sum of the states under these weights; a compiled loop.

    It equals `segment_softmax` and `segment_sum` where segments are runs, without a weighted copy of the states.

    Args:
        pooled: `(runs, heads, dim)`, written to; 0 for a run without tokens.
        scores: `(tokens, heads)`.
        states: `(tokens, dim)`.
        lengths: `(runs,)` int64, tokens of each run; the runs follow each other.
    """
    start = 0
    for run in range(lengths.size):
        stop = start + lengths[run]
        for head in range(scores.shape[1]):
            pooled[run, head] = 0
            if start == stop:
                continue
            largest, total = scores[start, head], scores.dtype.type(0)
            for token in range(start, stop):
                largest = max(largest, scores[token, head])
            for token in range(start, stop):
                weight = np.exp(scores[token, head] - largest)
                total += weight
                for c in range(states.shape[1]):
                    pooled[run, head, c] += weight * states[token, c]
            for c in range(states.shape[1]):
                pooled[run, head, c] /= total
        start = stop


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
def turn_runs(sums, states, positions, lengths, turns):
    """Sums of the states of each run of tokens, weighted by the phase of their positions; a compiled loop.

    Args:
        sums: `(runs, weights, dim)`, written to.
        states: `(tokens, dim)`.
        positions: `(tokens,)` int64.
        lengths: `(runs,)` int64, tokens of each run; the runs follow each other.
        turns: `(period, weights)`, of the positions modulo the period.
    """
    start = 0
    for run in range(lengths.size):
        stop = start + lengths[run]
        sums[run] = 0
        for token in range(start, stop):
            turn = turns[positions[token] % len(turns)]
            for k in range(turn.size):
                for c in range(states.shape[1]):
                    sums[run, k, c] += turn[k] * states[token, c]
        start = stop
