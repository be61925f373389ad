"""A square of distances under the names of what was compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hyena_glt.errors import DataError
from hyena_glt.sequences.quoting import quoted

TOLERANCE = 1e-9  # by which two halves may differ: files are rounded


@dataclass(frozen=True, slots=True, eq=False)
class DistanceMatrix:
    """Distances between named genomes. Build it with `of`, which checks them."""

    names: tuple[str, ...]
    values: NDArray[np.float64]  # (names, names), symmetric, finite, not negative, 0 on the diagonal

    @classmethod
    def of(cls, names: Sequence[str], values: ArrayLike) -> DistanceMatrix:
        """A checked matrix.

        Args:
            names: One for each row, all different.
            values: `(names, names)`.

        Raises:
            DataError: Another shape, one name, a name given twice, or values that are no distances.
        """
        square = np.array(values, dtype=np.float64)
        if square.shape != (len(names), len(names)):
            raise DataError(f"distances: expected {len(names)} x {len(names)} for the names, got shape {square.shape}")
        if len(names) < 2:
            raise DataError(f"distances: expected two names or more, got {len(names)}")
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise DataError(f"distances: the name {quoted(twice)} is there twice; names have to differ")
        _check(square, names)
        square = (square + square.T) / 2 + 0.0  # no -0.0
        return cls(tuple(names), square)

    def __len__(self) -> int:
        return len(self.names)

    def condensed(self) -> NDArray[np.float64]:
        """The upper half, row by row, as SciPy takes it: `(n (n - 1) / 2,)`."""
        return self.values[np.triu_indices(len(self), 1)]


def _check(square: NDArray[np.float64], names: Sequence[str]) -> None:
    wrong = {
        "finite": ~np.isfinite(square),
        "0 or more": square < 0,
        "0 between a name and itself": np.eye(len(names), dtype=bool) & (square != 0),
        "the same in both directions": ~np.isclose(square, square.T, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True),
    }
    for expected, where in wrong.items():
        if where.any():
            i, j = np.argwhere(where)[0]
            between = f"{quoted(names[i])} and {quoted(names[j])}"
            raise DataError(f"distances: expected {expected}, got {square[i, j]:.6g} between {between}")
