"""Comparisons of 64 neighbouring numbers at once, as the bits of one uint64: a few instructions of the processor."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD = 64


@intrinsic
def trailing_zeros(typing_context, word):
    """Zeros below the lowest set bit of a uint64 that is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


def _word_of_comparison(compare):
    """Code of an intrinsic over a flat array: `compare(builder, load, given)` gives the 64 truth values of a word.

    `load(shift)` loads the 64 numbers that begin `shift` before the place asked for; `given` are the arguments behind.
    """

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        vector = ir.VectorType(context.get_data_type(signature.args[0].dtype), WORD)

        def load(shift):
            index = builder.sub(arguments[1], arguments[1].type(shift))
            place = cgutils.get_item_pointer(context, builder, signature.args[0], array, [index], wraparound=False)
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=1)

        return builder.bitcast(compare(builder, load, arguments[2:]), ir.IntType(WORD))

    return generate


def _filled(builder, value):
    """The same number 64 times."""
    vector = ir.Constant(ir.VectorType(value.type, WORD), ir.Undefined)
    first = builder.insert_element(vector, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, vector, ir.Constant(ir.VectorType(ir.IntType(32), WORD), [0] * WORD))


@intrinsic
def _word_above(typing_context, scores, first, threshold):
    """Bits of `scores[first + i] > threshold`, i < 64, float32."""
    compare = _word_of_comparison(lambda b, load, given: b.fcmp_ordered(">", load(0), _filled(b, given[0])))
    return types.uint64(scores, types.int64, types.float32), compare


@intrinsic
def _word_rising(typing_context, scores, first, rise):
    """Bits of `scores[first + i] - scores[first + i - 1] > rise`, i < 64, float32; `first` is at least 1."""
    compare = _word_of_comparison(
        lambda b, load, given: b.fcmp_ordered(">", b.fsub(load(0), load(1)), _filled(b, given[0]))
    )
    return types.uint64(scores, types.int64, types.float32), compare


@intrinsic
def _word_of_nan(typing_context, scores, first):
    """Bits of `scores[first + i]` is NaN, i < 64."""
    compare = _word_of_comparison(lambda b, load, given: b.fcmp_unordered("uno", load(0), load(0)))
    return types.uint64(scores, types.int64), compare


@intrinsic
def _word_equal(typing_context, kinds, first, kind):
    """Bits of `kinds[first + i] == kind`, i < 64, uint8."""
    compare = _word_of_comparison(lambda b, load, given: b.icmp_unsigned("==", load(0), _filled(b, given[0])))
    return types.uint64(kinds, types.int64, types.uint8), compare


# Called without the first argument: the typing context is the compiler's.
word_above: Any = _word_above
word_rising: Any = _word_rising
word_of_nan: Any = _word_of_nan
word_equal: Any = _word_equal
