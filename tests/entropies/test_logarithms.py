"""Our logarithm against the C library's, and to the bit against the same formula in plain Python."""

from __future__ import annotations

import math
import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies.logarithms import LN2_HIGH, LN2_LOW, SQRT_HALF_BITS, natural_logs

values_above_zero = st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=50)


def logs_of(values: list[float]) -> list[float]:
    logs = np.empty(len(values))
    natural_logs(np.array(values), logs)
    return logs.tolist()


def twin(value: float) -> float:
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    exponent = (bits - SQRT_HALF_BITS) >> 52
    (m,) = struct.unpack("<d", struct.pack("<q", bits - (exponent << 52)))
    s = (m - 1.0) / (m + 1.0)
    z, series = s * s, 0.0
    for odd in range(21, 1, -2):
        series = z * (1 / odd + series)
    return exponent * LN2_HIGH + (2.0 * s + (2.0 * s * series + exponent * LN2_LOW))


@settings(deadline=None)
@given(values_above_zero)
def test_logarithms_are_within_two_units_in_the_last_place(values):
    for value, log in zip(values, logs_of(values), strict=True):
        assert abs(log - math.log(value)) <= 2 * math.ulp(math.log(value))


@settings(deadline=None)
@given(values_above_zero)
def test_every_bit_is_that_of_ieee_arithmetic(values):
    assert logs_of(values) == [twin(value) for value in values]
