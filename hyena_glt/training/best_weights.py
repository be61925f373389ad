"""The weights with the fewest held-out bits so far, for runs that keep those and not the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class BestWeights:
    """What the best evaluation was, and the weights that it was of.

    Example:
        >>> best = BestWeights()
        >>> best.is_beaten_by(1.9)
        True
        >>> best.take(500, 1.9, {})
        >>> best.is_beaten_by(1.91), best.facts()
        (False, {'step': 500, 'bits_per_base': 1.9})
    """

    step: int | None = None  # updates before the best evaluation; None: there was none
    bits_per_base: float | None = None
    tensors: Mapping[str, Tensor]  # on the CPU of rank 0; empty on other ranks

    def __init__(self) -> None:
        self.tensors = {}

    def is_beaten_by(self, bits_per_base: float) -> bool:
        """Whether an evaluation is better than every one before it."""
        return self.bits_per_base is None or bits_per_base < self.bits_per_base

    def take(self, step: int, bits_per_base: float, tensors: Mapping[str, Tensor]) -> None:
        """Keep the weights of a better evaluation."""
        self.step, self.bits_per_base, self.tensors = step, bits_per_base, tensors

    def facts(self) -> dict[str, Any] | None:
        """For a checkpoint."""
        return None if self.step is None else {"step": self.step, "bits_per_base": self.bits_per_base}
