"""exp of float32 by shifts and a polynomial."""

from __future__ import annotations

import numpy as np

from hyena_glt.ops.single_exp import fraction, power_bits


def test_within_two_units_in_the_last_place():
    d = np.linspace(-87, 88, 20_001).astype(np.float32)
    powers = np.array([power_bits(value) for value in d], np.int32).view(np.float32)
    found = powers * np.array([fraction(value) for value in d], np.float32)
    exact = np.exp(d.astype(np.float64))
    assert (np.abs(found - exact) / exact).max() < 2 * 2.0**-23


def test_the_ends_of_its_range_are_zero_and_finite():
    bits = np.array([power_bits(np.float32(-88)), power_bits(np.float32(88))], np.int32)
    lowest, highest = bits.view(np.float32)
    assert lowest == 0
    assert np.isfinite(highest * fraction(np.float32(88)))
