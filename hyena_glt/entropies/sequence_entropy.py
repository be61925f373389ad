"""What every entropy source that scores a sequence by its symbols alone offers, made of its `score`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np

from hyena_glt.entropies.symbols import Scores, ambiguity_edges, bits_per_letter, symbol_codes
from hyena_glt.sequences.alphabets import Alphabet


class SequenceEntropy(ABC):
    """Entropies, surprises, forced starts and bits per base of sequences: str, bytes or 1-D byte tokens."""

    alphabet: Alphabet

    @abstractmethod
    def score(self, codes: np.ndarray) -> Scores:
        """Entropies, surprises and forced starts of the symbol codes of one sequence, `(length,)` uint8."""

    @property
    def is_causal(self) -> bool:
        """True: an entropy depends on the symbols up to its own only."""
        return True

    def entropies(self, sequence: Any) -> np.ndarray:
        """Entropy of the prediction made after each symbol, `(length,)` float32 nats.

        After an ambiguity symbol it is 0: such symbols come in runs, whose edges are `forced_starts`.
        """
        return self.score(symbol_codes(sequence, self.alphabet)).entropies

    def surprises(self, sequence: Any) -> np.ndarray:
        """`-ln p` of each symbol given those before it, `(length,)` float32 nats; 0 at ambiguity symbols."""
        return self.score(symbol_codes(sequence, self.alphabet)).surprises

    def forced_starts(self, sequence: Any) -> np.ndarray:
        """True at the first symbol of each run of ambiguity symbols and at the first letter after one."""
        return ambiguity_edges(symbol_codes(sequence, self.alphabet), self.alphabet.size)

    def bits_per_base(self, sequences: Iterable[Any] | str | bytes) -> float:
        """Mean surprise of the letters of sequences in bits; each sequence is scored by itself.

        Raises:
            DataError: No letter of the alphabet in the sequences.
        """
        return bits_per_letter(self.score, sequences, self.alphabet)
