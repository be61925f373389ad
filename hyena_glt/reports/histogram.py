"""Patch lengths counted, against what memoryless boundaries would give.

patch lengths of every contig -> counts -> histogram with its geometric expectation
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COUNTED = 1024  # lengths counted one by one; longer patches share the last place
RARE = 5e-4  # fraction of the patches that may lie right of the axis


def count_lengths(patch_lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count patches per length: `(COUNTED + 2,)`, place `i` for length `i`, the last for all longer ones."""
    return np.bincount(np.minimum(patch_lengths, COUNTED + 1), minlength=COUNTED + 2)


def geometric_counts(num_patches: int, mean_length: float, limit: int) -> NDArray[np.float64]:
    """Expect counts of lengths `1..limit` when every base starts a patch with probability `1 / mean_length`.

    Returns:
        `(limit,)` float64; `num_patches * p * (1 - p) ** (length - 1)`, the geometric distribution.
    """
    p = 1.0 / mean_length
    return num_patches * p * np.power(1.0 - p, np.arange(limit), dtype=np.float64)


def axis_limit(counts: NDArray[np.int64]) -> int:
    """Return the largest length that the axis shows: at most a fraction `RARE` of the patches is longer."""
    longer = counts.sum() - np.cumsum(counts)  # longer[i]: patches longer than i
    return int(np.clip(np.argmax(longer <= RARE * counts.sum()), 8, COUNTED))


def histogram_payload(counts: NDArray[np.int64], num_bases: int) -> dict[str, Any] | None:
    """What the page draws, or None without any patch."""
    num_patches = int(counts.sum())
    if num_patches == 0:
        return None
    limit, mean = axis_limit(counts), num_bases / num_patches
    expected = geometric_counts(num_patches, mean, limit)
    return {
        "limit": limit,
        "mean": mean,
        "patches": num_patches,
        "counts": counts[1 : limit + 1].tolist(),
        "longer": int(counts[limit + 1 :].sum()),
        "expected": [float(f"{value:.6g}") for value in expected],
        "expected_longer": float(f"{num_patches * (1.0 - 1.0 / mean) ** limit:.6g}"),
    }
