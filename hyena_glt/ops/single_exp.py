"""exp of float32 as additions, multiplications and shifts, which become vector instructions; calls of `exp` do not.

    exp(d) = 2^n exp(r),  n = round(d / ln 2),  |r| <= ln 2 / 2

Within about two units in the last place for |d| <= 88.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LARGEST = np.float32(88.0)  # 2^n of it, and of its negative, is a float32; exp(-88) counts as 0
LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum is ln 2
EXPONENT_BIAS, MANTISSA_BITS = np.int32(127), np.int32(23)  # of a float32
HALF, ONE = np.float32(0.5), np.float32(1.0)
# exp(r) = 1 + r + r^2 (C0 + C1 r + ...): the single-precision coefficients of Cephes' expf
C5, C4, C3 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
C2, C1, C0 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)


@intrinsic
def as_float(_context: Any, bits: Any) -> Any:
    """The float32 whose bits these are."""

    def same_bits(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), same_bits


@njit(cache=True, nogil=True, fastmath={"contract"})
def exp_single(d):
    """exp(d) for a float32 of -88 to 88; NaN of NaN."""
    n = np.floor(d * LOG2_E + HALF)
    r = d - n * LN2_HIGH - n * LN2_LOW
    tail = ((((C5 * r + C4) * r + C3) * r + C2) * r + C1) * r + C0
    power: Any = as_float((np.int32(n) + EXPONENT_BIAS) << MANTISSA_BITS)  # type: ignore[call-arg]  # numba adds one
    return (tail * r * r + r + ONE) * power
