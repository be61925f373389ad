"""The compiled loops against float64, row by row, and at the edges of float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hyena_glt.entropies.row_entropies import row_entropies
from hyena_glt.entropies.shannon import entropy_reference

INF = float("inf")
ROWS = st.tuples(st.integers(1, 5), st.integers(1, 70))


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float32, ROWS, elements=st.floats(-300, 300, width=32)))
def test_within_rounding_of_float64(scores):
    exact = entropy_reference(torch.from_numpy(scores).double()).numpy()
    np.testing.assert_allclose(row_entropies(scores), exact, rtol=0, atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float32, ROWS, elements=st.floats(-30, 30, width=32)))
def test_a_row_alone_gives_the_bits_it_has_among_others(scores):
    alone = np.concatenate([row_entropies(row[None]) for row in scores])
    np.testing.assert_array_equal(row_entropies(scores), alone)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0.0, -INF, -INF], 0.0),
        ([0.0, 0.0, -INF], np.log(2)),
        ([-3e38, 3e38, 0.0], 0.0),
        ([-5.0], 0.0),
        ([-INF, -INF], np.nan),
        ([INF, 0.0], np.nan),
        ([np.nan, 1.0], np.nan),
        ([1.0, -np.nan], np.nan),
    ],
)
def test_edges_of_float32(row, expected):
    assert row_entropies(np.array([row], dtype=np.float32))[0] == pytest.approx(expected, abs=1e-7, nan_ok=True)


def test_columns_of_a_larger_array_are_read_as_they_stand():
    wide = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    np.testing.assert_array_equal(row_entropies(wide[:, ::2]), row_entropies(wide[:, ::2].copy()))
