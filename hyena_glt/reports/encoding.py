"""Numbers and names made small and safe for a page.

arrays -> quantised codes or varints -> base64
names -> visible text
everything -> JSON that cannot end its script element
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hyena_glt.sequences.quoting import shown

NAME_LIMIT = 160  # characters of a name that a page shows
UNSAFE_IN_SCRIPT = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """Numbers as codes: `low + code * (high - low) / (top - 1)`; `top`, the largest code, stands for NaN."""

    codes: NDArray[np.unsignedinteger]
    low: float
    high: float

    def payload(self) -> dict[str, Any]:
        """For the page: base64 of little-endian codes, and the two ends of the scale."""
        little = self.codes.astype(self.codes.dtype.newbyteorder("<"), copy=False)
        return {"codes": base64_text(little.tobytes()), "low": self.low, "high": self.high}


def quantise(values: NDArray[np.floating], dtype: DTypeLike) -> Quantised:
    """Map numbers to the codes of an unsigned type, the smallest to 0; the error is at most half a step.

    Args:
        values: Any shape; NaN and infinities become the missing code.
        dtype: `np.uint8` or `np.uint16`.
    """
    top = np.iinfo(dtype).max
    known = np.isfinite(values)
    if not known.any():
        return Quantised(np.full(values.shape, top, dtype), 0.0, 0.0)
    low, high = (
        float(values.min(where=known, initial=np.inf)),
        float(values.max(where=known, initial=-np.inf)),
    )
    scale = (top - 1) / (high - low) if high > low else 0.0
    codes = np.rint((np.where(known, values, low).astype(np.float64) - low) * scale)
    return Quantised(np.where(known, codes, top).astype(dtype), low, high)


def varint_bytes(values: NDArray[np.integer]) -> bytes:
    """Encode non-negative integers as LEB128: seven bits a byte, smallest first, the high bit says "more".

    Example:
        >>> varint_bytes(np.array([5, 300])).hex()
        '05ac02'
    """
    values = values.astype(np.uint64)
    sizes = np.ones(values.shape, np.int64)
    for bits in range(7, 64, 7):
        sizes += values >= np.uint64(1) << np.uint64(bits)
    starts = np.cumsum(sizes) - sizes
    out = np.empty(int(sizes.sum()), np.uint8)
    for place in range(int(sizes.max(initial=0))):
        here = sizes > place
        more = (sizes[here] > place + 1).astype(np.uint64) << np.uint64(7)
        out[starts[here] + place] = values[here] >> np.uint64(7 * place) & np.uint64(127) | more
    return out.tobytes()


def varint_text(values: NDArray[np.integer]) -> str:
    """Encode non-negative integers as base64 of their varints."""
    return base64_text(varint_bytes(values))


def base64_text(raw: bytes) -> str:
    """Encode bytes as ASCII text."""
    return base64.b64encode(raw).decode("ascii")


def visible(name: str, limit: int = NAME_LIMIT) -> str:
    """Return a name as a page shows it: of bounded length, what is invisible or reorders text spelled out.

    Example:
        >>> visible("chr1\\x1b[31m")
        'chr1\\\\x1b[31m'
    """
    return shown(name, limit)


def script_json(value: Any) -> str:
    """Write JSON that can stand inside a `<script>` element: ASCII only, and no `<`, `>` or `&` in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=plain_number)
    return text.translate(UNSAFE_IN_SCRIPT)


def plain_number(value: Any) -> int | float:
    """Turn a NumPy scalar into Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected JSON types or NumPy scalars, got {type(value).__name__}")
