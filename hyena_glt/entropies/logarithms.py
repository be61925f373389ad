"""Natural logarithms that are the same to the bit on every processor.

The last bit of a C library's `log` differs between libraries and machines, and a boundary is a discontinuous function
of an entropy: a fit would give slightly different patches elsewhere. Here only additions, multiplications and one
division are used, which IEEE 754 defines exactly. The loop also becomes vector instructions, which calls of `log` do
not.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # their sum is ln 2
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD  # of the float64 sqrt(1/2)
MANTISSA_BITS = 52


@intrinsic
def _bits_of(typing_context: Any, value: Any) -> Any:
    """The 64 bits of a float64 as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _float_of(typing_context: Any, bits: Any) -> Any:
    """The float64 that an int64 holds the bits of."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


bits_of: Any = _bits_of  # called with one argument: the typing context is the compiler's
float_of: Any = _float_of


@njit(cache=True, nogil=True, error_model="numpy")
def natural_logs(values, logs):
    """`logs[i] = ln(values[i])` within about two units in the last place, for normal float64 numbers above 0.

    With `x = 2^e m`, `m` in `[sqrt(1/2), sqrt(2))`, and `s = (m - 1) / (m + 1)`:
    `ln x = e ln 2 + 2 (s + s^3 / 3 + s^5 / 5 + ...)`.
    """
    for i in range(values.size):
        bits = bits_of(values[i])
        exponent = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
        m = float_of(bits - (exponent << MANTISSA_BITS))
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        high = 1 / 13 + z * (1 / 15 + z * (1 / 17 + z * (1 / 19 + z * (1 / 21))))
        series = z * (1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * (1 / 11 + z * high)))))
        logs[i] = exponent * LN2_HIGH + (2.0 * s + (2.0 * s * series + exponent * LN2_LOW))
