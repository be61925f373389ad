"""Asking for a place early changes nothing."""

from __future__ import annotations

import numpy as np
from numba import njit

from hyena_glt.entropies.prefetch import prefetch


@njit
def sum_with_requests(values):
    total = 0.0
    for i in range(values.size):
        prefetch(values, np.int64((i * 7) % values.size))
        total += values[i]
    return total


def test_values_are_as_they_were():
    values = np.arange(1000.0)
    assert sum_with_requests(values) == 499_500.0
    assert np.array_equal(values, np.arange(1000.0))
