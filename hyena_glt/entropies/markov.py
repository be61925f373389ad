"""Order-k context model with interpolated back-off: the default entropy source, which needs no weights.

Sits between tokens and patch starts: symbol codes in, one entropy per symbol out. The tables are exact, so the
same model gives the same bits whatever the batch, the chunking or the number of threads.

For DNA and RNA the counts of both strands are pooled; `fitting.py` turns counts into predictions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hyena_glt.entropies import context_tables as tables
from hyena_glt.entropies.fitting import HIGHEST_ORDER, check_order, default_order, fit_tables
from hyena_glt.entropies.sequence_entropy import SequenceEntropy
from hyena_glt.entropies.symbols import RunEdges, Scores, symbol_codes
from hyena_glt.errors import DataError, ModelFileError
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet

FORMAT = "hyena-glt/markov/2"
HASHED_ORDER = 8  # counts up to this context length tell data apart; hashing longer ones takes longer than fitting


@dataclass(frozen=True, eq=False)
class MarkovEntropy(SequenceEntropy):
    """A fitted context model. Build it with `fit` or `load`.

    Example:
        >>> model = MarkovEntropy.fit(["ACGT" * 50], order=2)
        >>> model.entropies("ACGTACGT").shape
        (8,)
    """

    alphabet: Alphabet
    order: int
    rows: np.ndarray  # (contexts of all orders, 2 + symbols) uint16, entropy and surprises: `context_tables.empty_rows`
    concentrations: tuple[float, ...]  # one for each order 0..order
    symbols: int  # letters it was fitted on
    held_out_bits: float  # leave-one-out bits per symbol of the data it was fitted on
    counts_sha256: str  # of the counts it was fitted on, at order `HASHED_ORDER` or its own
    name: str = "markov"
    offsets: np.ndarray = field(repr=False, default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", tables.context_offsets(self.order, self.alphabet.bits))

    @classmethod
    def fit(
        cls, sequences: Iterable[Any] | str | bytes, order: int | None = None, alphabet: str = "dna"
    ) -> MarkovEntropy:
        """Fit on sequences.

        Args:
            sequences: Strings, bytes or 1-D byte-token arrays; contexts never cross from one to the next.
            order: Context length in symbols; None chooses it from the amount of data (`default_order`).
            alphabet: "dna", "rna", "protein" or "bytes".

        Raises:
            DataError: No letter of the alphabet in the sequences.
            ConfigError: An order whose table cannot be held.
        """
        letters = get_alphabet(alphabet)
        if isinstance(sequences, str | bytes):
            sequences = [sequences]
        coded = [symbol_codes(sequence, letters) for sequence in sequences]
        if order is None:
            order = default_order(sum(codes.size for codes in coded), letters)
        fitter = MarkovFitter(alphabet=alphabet, order=order)
        for codes in coded:
            fitter.feed(codes)
            fitter.end_sequence()
        return fitter.finish()

    @classmethod
    def uniform(cls, alphabet: str) -> MarkovEntropy:
        """The model of someone who has seen nothing: every letter alike, whatever came before."""
        letters = get_alphabet(alphabet)
        return _from_counts(tables.empty_counts(0, letters.bits), 0, letters, symbols=0)

    def stream(self) -> MarkovStream:
        """A scorer that takes one sequence in blocks of any size."""
        return MarkovStream(self)

    def describe(self) -> dict[str, Any]:
        """Name, order, alphabet, held-out bits and data hash, as they appear in outputs."""
        return {
            "name": self.name,
            "alphabet": self.alphabet.name,
            "order": self.order,
            "bits_per_base": round(self.held_out_bits, 6),
            "symbols": self.symbols,
            "counts_sha256": self.counts_sha256,
        }

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the model as one safetensors file, whole or not at all."""
        from safetensors.numpy import save

        from hyena_glt.sequences.atomic import atomic_write

        about = {**self.describe(), "format": FORMAT, "concentrations": list(self.concentrations)}
        about["bits_per_base"] = self.held_out_bits
        content = save(
            {"entropies": self.entropy_table, "surprises": self.surprise_table},
            metadata={"hyena_glt": json.dumps(about, sort_keys=True)},
        )
        with atomic_write(path, overwrite=overwrite) as handle:
            handle.write(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MarkovEntropy:
        """Read a model that `save` wrote.

        Raises:
            ModelFileError: Not such a file, damaged, or tables that do not fit its order.
        """
        about, arrays = _read_safetensors(path)
        try:
            alphabet = get_alphabet(about["alphabet"])
            model = cls(
                alphabet=alphabet,
                order=check_order(about["order"], alphabet),
                rows=_joined_rows(arrays["entropies"], arrays["surprises"], about["order"], alphabet, path),
                concentrations=tuple(about["concentrations"]),
                symbols=int(about["symbols"]),
                held_out_bits=float(about["bits_per_base"]),
                counts_sha256=str(about["counts_sha256"]),
                name=str(about["name"]),
            )
        except ModelFileError:
            raise
        except (KeyError, TypeError, ValueError) as problem:
            raise ModelFileError(f"damaged description ({problem}); save the model again", path=path) from None
        return model

    @property
    def entropy_table(self) -> np.ndarray:
        """Entropy after each context of the orders 0..order, `(contexts,)` float32 nats."""
        return np.ascontiguousarray(tables.entropies_of(self.rows)[:, 0])

    @property
    def surprise_table(self) -> np.ndarray:
        """Surprise of each symbol after each context, `(contexts, symbols)` uint16 in steps of `SURPRISE_STEP` nats."""
        return np.ascontiguousarray(self.rows[:, tables.SURPRISES :])

    def score(
        self,
        codes: np.ndarray,
        state: np.ndarray | None = None,
        out: np.ndarray | None = None,
        edges: RunEdges | None = None,
    ) -> Scores:
        """Entropies, surprises and forced starts of symbol codes.

        Args:
            codes: `(length,)` uint8 codes of the alphabet.
            state: The context so far, updated; None begins a sequence.
            out: `(2, length)` float32, where entropies and surprises are put; None takes fresh memory.
            edges: The runs of ambiguity symbols so far, updated; None begins a sequence.
        """
        state = tables.new_state() if state is None else state
        entropies, surprises = np.empty((2, codes.size), dtype=np.float32) if out is None else out
        alphabet = self.alphabet
        tables.score_symbols(
            codes,
            alphabet.size,
            alphabet.bits,
            self.order,
            self.offsets,
            state,
            self.rows,
            entropies,
            surprises,
        )
        return Scores(entropies, surprises, (edges or RunEdges()).feed(codes >= alphabet.size))


class MarkovStream:
    """Scores one sequence block by block; the blocks' results joined equal the whole sequence's."""

    def __init__(self, model: MarkovEntropy) -> None:
        self.model = model
        self._state = tables.new_state()
        self._edges = RunEdges()

    def feed(self, block: Any, out: np.ndarray | None = None) -> Scores:
        """Scores of the next block of symbols.

        Args:
            block: Text, tokens, or codes from `Alphabet.encode`.
            out: `(2, length)` float32, where entropies and surprises are put; None takes fresh memory.
        """
        model = self.model
        codes = block if _is_codes(block) else symbol_codes(block, model.alphabet)
        return model.score(codes, self._state, out, self._edges)


class MarkovFitter:
    """Counts symbols of sequences that arrive in blocks, then makes the model.

    Args:
        alphabet: Name of the alphabet.
        order: Context length; None counts at the highest order and lets `finish` choose by the amount of data.
    """

    def __init__(self, alphabet: str = "dna", order: int | None = None) -> None:
        self.alphabet = get_alphabet(alphabet)
        self.order = None if order is None else check_order(order, self.alphabet)
        self._counted_order = HIGHEST_ORDER[self.alphabet.name] if order is None else order
        self._low = tables.empty_counts(self._counted_order, self.alphabet.bits, np.uint8)
        self._high = np.zeros(self._low.size, np.uint32)  # pages that are never touched cost nothing
        self._offsets = tables.context_offsets(self._counted_order, self.alphabet.bits)
        self._state = tables.new_state()

    def feed(self, codes: np.ndarray) -> None:
        """Count one block of symbol codes of the current sequence."""
        letters, bits = self.alphabet.size, self.alphabet.bits
        tables.count_symbols(
            codes, letters, bits, self._counted_order, self._offsets, self._state, self._low, self._high
        )

    def end_sequence(self) -> None:
        """The next block belongs to another sequence."""
        self._state[:] = 0

    @property
    def symbols(self) -> int:
        """Letters counted so far."""
        return int(self._low.sum(dtype=np.int64)) + (int(self._high.sum(dtype=np.int64)) << 8)

    def finish(self) -> MarkovEntropy:
        """The model of everything counted.

        Raises:
            DataError: No letter of the alphabet was seen.
        """
        symbols = self.symbols
        if not symbols:
            raise DataError(f"no letter of alphabet {self.alphabet.name} to fit an entropy model on")
        counts = tables.joined_counts(self._low, self._high)
        tables.sum_shorter_contexts(counts, self._counted_order, self.alphabet.bits)
        if self.alphabet.name in ("dna", "rna"):
            counts = tables.pool_strands(counts, self._counted_order)
        order = default_order(symbols, self.alphabet) if self.order is None else self.order
        counts = counts[: tables.context_offset(order + 1, self.alphabet.bits) << self.alphabet.bits]
        return _from_counts(counts, order, self.alphabet, symbols)


def _from_counts(counts: np.ndarray, order: int, alphabet: Alphabet, symbols: int) -> MarkovEntropy:
    fitted = fit_tables(counts, order, alphabet)
    hashed = tables.order_block(counts, min(order, HASHED_ORDER), alphabet.bits)
    return MarkovEntropy(
        alphabet=alphabet,
        order=order,
        rows=fitted.rows,
        concentrations=fitted.concentrations,
        symbols=symbols,
        held_out_bits=fitted.held_out_bits,
        counts_sha256=hashlib.sha256(hashed.data).hexdigest(),
    )


def _is_codes(block: Any) -> bool:
    return isinstance(block, np.ndarray) and block.dtype == np.uint8


def _read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as handle:
            about = json.loads((handle.metadata() or {}).get("hyena_glt", "null"))
            if not isinstance(about, dict) or about.get("format") != FORMAT:
                raise ModelFileError(f"expected an entropy model of format {FORMAT}", path=path)
            return about, {name: handle.get_tensor(name) for name in ("entropies", "surprises")}
    except FileNotFoundError:
        raise ModelFileError("no such file", path=path) from None
    except (SafetensorError, json.JSONDecodeError, OSError) as problem:
        raise ModelFileError(f"not a readable safetensors file ({problem})", path=path) from None


def _joined_rows(
    entropies: np.ndarray, surprises: np.ndarray, order: int, alphabet: Alphabet, path: str | os.PathLike[str]
) -> np.ndarray:
    """The table that scoring reads, from the two that a file holds.

    Raises:
        ModelFileError: Tables of another size or type than the order asks for, or values that are no entropy.
    """
    rows = tables.empty_rows(check_order(order, alphabet), alphabet.bits)
    expected = (
        ("entropies", entropies, np.dtype(np.float32), (len(rows),)),
        ("surprises", surprises, np.dtype(np.uint16), (len(rows), 1 << alphabet.bits)),
    )
    for name, table, dtype, shape in expected:
        if table.dtype != dtype or table.shape != shape:
            raise ModelFileError(f"{name}: expected {dtype} {shape}, got {table.dtype} {table.shape}", path=path)
    if not np.isfinite(entropies).all() or (entropies < 0).any():
        raise ModelFileError("entropies: holds values that are no entropy", path=path)
    tables.entropies_of(rows)[:, 0] = entropies
    rows[:, tables.SURPRISES :] = surprises
    return rows
