"""A context model and a threshold in one table: for each base, one look-up in place of scoring and comparing.

Where only the boundaries and the surprises are wanted, the entropies need not be written down: whether the entropy
after a symbol is above a threshold follows from the context and the symbol, as the surprise does. Both fit in 16 bits,
so the table is half as large as that of the scores.
"""

from __future__ import annotations

import numpy as np

from hyena_glt.entropies import context_tables as tables
from hyena_glt.entropies.markov import MarkovEntropy


class ThresholdCells:
    """Surprise and decision of every context and symbol.

    Args:
        model: A fitted model.
        threshold: Nats. The decision of a symbol is whether the entropy after it is above.
    """

    def __init__(self, model: MarkovEntropy, threshold: float) -> None:
        self.model = model
        rows, symbols = model.rows, 1 << model.alphabet.bits
        above = tables.entropies_of(rows)[:, 0] > np.float32(threshold)
        # Cell `i` leads to context `1 + i`: contexts of the next order follow one another as cells do. After those of
        # the highest order comes a context of the same order, whatever the oldest symbol was.
        highest = above[model.offsets[-1] :]
        decisions = np.concatenate([above[1:], np.tile(highest, symbols)])
        self.cells = rows[:, tables.SURPRISES :].reshape(-1) << 1 | decisions  # (contexts * symbols,) uint16

    def stream(self) -> CellStream:
        """A reader of one sequence, block by block."""
        return CellStream(self)


class CellStream:
    """Looks up one sequence in blocks of any size."""

    def __init__(self, table: ThresholdCells) -> None:
        self._table = table
        self._state = tables.new_state()

    def feed(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the next symbols.

        Args:
            codes: `(length,)` uint8 codes of the model's alphabet.

        Returns:
            `(decisions, sums)`: `(length,)` bool, the entropy after the symbol is above the threshold, and
            `(length + 1,)` uint32, the running sums of the surprises in steps of `SURPRISE_STEP` nats, modulo 2 ** 32,
            from 0 on. No decision and no surprise at ambiguity symbols.
        """
        decisions, sums = np.empty(codes.size, np.bool_), np.empty(codes.size + 1, np.uint32)
        model = self._table.model
        tables.look_up_cells(
            codes,
            model.alphabet.size,
            model.alphabet.bits,
            model.order,
            model.offsets,
            self._state,
            self._table.cells,
            decisions,
            sums,
        )
        return decisions, sums
