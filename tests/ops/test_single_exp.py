"""exp of float32 by shifts and a polynomial."""

from __future__ import annotations

import numpy as np

from hyena_glt.ops.single_exp import exp_single


def test_within_two_units_in_the_last_place():
    d = np.linspace(-87, 88, 20_001).astype(np.float32)
    found, exact = np.array([exp_single(value) for value in d], np.float32), np.exp(d.astype(np.float64))
    assert (np.abs(found - exact) / exact).max() < 2 * 2.0**-23


def test_the_ends_of_its_range_are_zero_and_finite():
    assert exp_single(np.float32(-88)) == 0
    assert np.isfinite(exp_single(np.float32(88)))


def test_nan_stays_nan():
    assert np.isnan(exp_single(np.float32("nan")))
