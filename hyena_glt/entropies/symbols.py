"""Text or tokens as symbol codes, and what every table model says of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyena_glt.errors import DataError
from hyena_glt.sequences.alphabets import Alphabet


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says of one block of symbols."""

    entropies: np.ndarray  # (length,) float32 nats, of the prediction made after each symbol
    surprises: np.ndarray  # (length,) float32 nats, -ln p of each symbol before it was seen
    forced_starts: np.ndarray  # (length,) bool, True at both edges of a run of ambiguity symbols


def symbol_codes(sequence: Any, alphabet: Alphabet) -> np.ndarray:
    """Symbol codes of a string, bytes, or byte tokens (`byte + 4`), `(length,)` uint8.

    Whatever is no letter of the alphabet counts as an ambiguity symbol here; readers are the ones that refuse.

    Raises:
        DataError: Neither text nor a 1-D array of integers.
    """
    if isinstance(sequence, str):
        sequence = sequence.encode("utf-8")
    if isinstance(sequence, bytes | bytearray | memoryview):
        return np.frombuffer(bytes(sequence).translate(alphabet.code_table), dtype=np.uint8)
    values = np.asarray(sequence)
    if values.ndim != 1 or not (np.issubdtype(values.dtype, np.integer) or values.size == 0):
        raise DataError(
            f"sequence: expected str, bytes or 1-D integer tokens, got {values.dtype} of shape {values.shape}"
        )
    return token_code_table(alphabet)[np.clip(values, -1, 260).astype(np.int64) + 1]


def token_code_table(alphabet: Alphabet) -> np.ndarray:
    """Codes of the tokens -1 (PAD), 0..3 (special), 4..259 (bytes) and anything above, `(262,)` uint8."""
    by_byte = np.frombuffer(alphabet.code_table, dtype=np.uint8)
    outside = np.uint8(0 if alphabet.size > 255 else 255)
    return np.concatenate([np.full(5, outside), by_byte, [outside]]).astype(np.uint8)


def bits_per_letter(score: Callable[[np.ndarray], Scores], sequences: Any, alphabet: Alphabet) -> float:
    """Mean surprise of the letters of sequences, in bits.

    Args:
        score: Codes of one whole sequence to its scores.
        sequences: One sequence as text, or an iterable of sequences as `symbol_codes` takes them.
        alphabet: Theirs.

    Raises:
        DataError: No letter of the alphabet in the sequences.
    """
    total, letters = 0.0, 0
    for sequence in [sequences] if isinstance(sequences, str | bytes) else sequences:
        codes = symbol_codes(sequence, alphabet)
        total += float(score(codes).surprises.sum(dtype=np.float64))
        letters += int(np.count_nonzero(codes < alphabet.size))
    if not letters:
        raise DataError(f"no letter of alphabet {alphabet.name} in the sequences to be scored")
    return total / letters / math.log(2.0)


def ambiguity_edges(codes: np.ndarray, letters: int) -> np.ndarray:
    """True where a run of ambiguity symbols begins or has just ended, `(length,)` bool; never at the first symbol.

    Args:
        codes: `(length,)` uint8 symbol codes.
        letters: Size of the alphabet; codes at or above it are ambiguity symbols.
    """
    return RunEdges().feed(codes >= letters)


class RunEdges:
    """The edges of runs in a sequence that arrives in blocks."""

    def __init__(self) -> None:
        self.was_in_run: bool | None = None  # the last symbol; None before the first

    def feed(self, in_run: np.ndarray) -> np.ndarray:
        """True where a run begins or has just ended, `(length,)` bool; never at the first symbol of the sequence.

        Args:
            in_run: `(length,)` bool, of the next symbols.
        """
        edges = np.zeros(in_run.size, dtype=bool)
        if in_run.size:
            np.not_equal(in_run[1:], in_run[:-1], out=edges[1:])
            edges[0] = self.was_in_run not in (None, bool(in_run[0]))
            self.was_in_run = bool(in_run[-1])
        return edges
