"""Ask the processor for a table entry before it is needed.

A context table of order 10 is larger than the cache, and each symbol reads one place of it at random. The places of
the next symbols are known ahead, so asking for them early hides much of the waiting.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 24  # symbols between the request and the use


@intrinsic
def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """`prefetch(array, index)`: bring the flat array's element `index` into the cache. Changes nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, signature.args[0], view, [arguments[1]], wraparound=False)
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        request = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        read, keep, data = word(0), word(3), word(1)
        builder.call(request, [builder.bitcast(place, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = _prefetch  # called as prefetch(array, index): the typing context is the compiler's
