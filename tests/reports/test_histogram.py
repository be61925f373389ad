from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hyena_glt.reports.histogram import (
    COUNTED,
    RARE,
    axis_limit,
    count_lengths,
    geometric_counts,
    histogram_payload,
)

some_lengths = st.lists(st.integers(1, 3000), min_size=1)


@given(some_lengths)
def test_every_patch_is_counted_once(lengths):
    lengths = np.array(lengths)
    counts = count_lengths(lengths)
    assert counts.size == COUNTED + 2
    assert [counts[i] for i in range(COUNTED + 1)] == [(lengths == i).sum() for i in range(COUNTED + 1)]
    assert counts[-1] == (lengths > COUNTED).sum()


@pytest.mark.parametrize("mean", [1.0, 1.5, 16.0, 300.0])
def test_the_expectation_is_the_geometric_distribution(mean):
    expected = geometric_counts(1000, mean, 200)
    np.testing.assert_allclose(expected, 1000 * stats.geom(1 / mean).pmf(np.arange(1, 201)), rtol=1e-9, atol=1e-300)


@given(some_lengths)
def test_the_histogram_adds_up(lengths):
    lengths = np.array(lengths)
    payload = histogram_payload(count_lengths(lengths), int(lengths.sum()))
    assert sum(payload["counts"]) + payload["longer"] == payload["patches"] == lengths.size
    assert len(payload["counts"]) == len(payload["expected"]) == payload["limit"]
    assert payload["mean"] == pytest.approx(lengths.mean())
    assert sum(payload["expected"]) + payload["expected_longer"] == pytest.approx(lengths.size, rel=1e-4)


@given(some_lengths)
def test_hardly_any_patch_lies_beyond_the_axis(lengths):
    lengths = np.array(lengths)
    limit = axis_limit(count_lengths(lengths))
    assert (lengths > limit).mean() <= RARE or limit == COUNTED
    assert limit >= 8


def test_no_patch_no_histogram():
    assert histogram_payload(count_lengths(np.empty(0, np.int64)), 0) is None
