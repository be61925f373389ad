"""Mixed context models and a match model: the entropy source that sees repeats.

Sits between tokens and patch starts, as `MarkovEntropy` does, and asks for no fit: it starts from nothing and
learns from each symbol after predicting it. Sequential by nature, about 2 Mbases/s on one core.

Counts after the last 3, 6, 8 and 11 bases, and the base that followed the last occurrence of the last 16 bases
on this strand and on the other one, are mixed on a logarithmic scale by weights that follow the gradient of the
loss: the "logistic mixing" of PAQ (Mahoney, "Adaptive weighing of context models for lossless data compression",
2005) and cmix, with a softmax over four symbols. Every word is counted on both strands ("inverted repeats"), as
in GeCo (Pratas, Pinho and Ferreira, "Efficient compression of genomic sequences", DCC 2016).

Example:
    >>> import numpy as np
    >>> piece = "".join(np.random.default_rng(0).choice(list("ACGT"), 500))
    >>> surprises = MixEntropy().surprises(piece + piece)
    >>> bool(surprises[:500].mean() > 1.3), bool(surprises[500:].mean() < 0.3)
    (True, True)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from hyena_glt.entropies import mixing_kernels as kernels
from hyena_glt.entropies.sequence_entropy import SequenceEntropy
from hyena_glt.entropies.symbols import RunEdges, Scores, symbol_codes
from hyena_glt.errors import AlphabetError, ConfigError, DataError, ModelFileError
from hyena_glt.sequences.alphabets import AMBIGUOUS, Alphabet, get_alphabet

FORMAT = "hyena-glt/mix/1"
STRANDED = ("dna", "rna")


class MixState(NamedTuple):
    """Everything the model has learned and where it stands."""

    dense: np.ndarray  # (cells,) uint16, counts of the orders in DENSE_ORDERS, four a context
    packed: np.ndarray  # (4 ** PACKED_ORDER,) uint16, four 4-bit counts
    ring: np.ndarray  # (2 ** RING_BITS,) uint8, code + 1 of the bases seen; 0 where contexts were reset
    slots: np.ndarray  # (2 ** SLOT_BITS,) uint32, place in the ring of a word's newest base, and 8 check bits
    hits: np.ndarray  # (MATCHES * LENGTHS * RECENT * 2,) float32, hit rate and predictions it rests on
    weights: np.ndarray  # (CONFIDENCES * EVIDENCE * INPUTS,) float32, the mixer's
    inputs: np.ndarray  # (INPUTS * 4,) float32, what each model said of the next base, log scale
    prediction: np.ndarray  # (8,) float32, log p of the four bases, then p
    words: np.ndarray  # (11,) int64, rolling words, bases known, bases seen, weight set, matches


def empty_state() -> MixState:
    """The state before the first symbol; the ring takes memory as it is written."""
    weights = np.full((kernels.CONFIDENCES * kernels.EVIDENCE, kernels.INPUTS), 0.3, dtype=np.float32)
    weights[:, -kernels.MATCHES :] = 0.4
    hits = np.zeros((kernels.MATCHES * kernels.LENGTHS * kernels.RECENT, 2), dtype=np.float32)
    hits[:, 0] = 0.6
    words = np.zeros(kernels.POINTER + 3 * kernels.MATCHES, dtype=np.int64)
    words[kernels.LENGTH : kernels.HISTORY] = -1
    return MixState(
        dense=np.zeros(kernels.DENSE_AT[-1], dtype=np.uint16),
        packed=_zeros(1 << 2 * kernels.PACKED_ORDER, np.uint16),
        ring=np.zeros(1 << kernels.RING_BITS, dtype=np.uint8),
        slots=_zeros(1 << kernels.SLOT_BITS, np.uint32),
        hits=hits.reshape(-1),
        weights=weights.reshape(-1),
        inputs=np.zeros(kernels.INPUTS * 4, dtype=np.float32),
        prediction=np.array([math.log(0.25)] * 4 + [0.25] * 4, dtype=np.float32),
        words=words,
    )


def _zeros(size: int, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Zeros read at random: `np.empty` asks for huge pages, where there are any, and `np.zeros` does not."""
    array = np.empty(size, dtype=dtype)
    array[:] = 0
    return array


class MixEntropy(SequenceEntropy):
    """An adaptive model of DNA or RNA. `MixEntropy()` knows nothing yet; `fit` primes one on sequences.

    Args:
        alphabet: "dna" or "rna".
        primed: What each sequence starts from; None is the empty state. It is never changed.
        primed_symbols: Letters that state has seen.

    Raises:
        AlphabetError: Unknown name.
        ConfigError: An alphabet without two strands.
    """

    name = "mix"
    learns = True  # a stretch of a sequence is scored otherwise by itself than after what came before it

    def __init__(
        self, alphabet: str | Alphabet = "dna", *, primed: MixState | None = None, primed_symbols: int = 0
    ) -> None:
        self.alphabet = get_alphabet(alphabet)
        if self.alphabet.name not in STRANDED:
            raise ConfigError(f"alphabet: mix expects {' or '.join(STRANDED)}, got {self.alphabet.name!r}; use markov")
        self._primed = primed
        self._primed_symbols = primed_symbols

    @classmethod
    def fit(cls, sequences: Iterable[Any] | str | bytes, alphabet: str | Alphabet = "dna") -> MixEntropy:
        """A model whose every sequence starts from what these sequences taught, in their order.

        Args:
            sequences: Strings, bytes or 1-D byte-token arrays; contexts never cross from one to the next.
            alphabet: "dna" or "rna".

        Raises:
            DataError: No letter of the alphabet in the sequences.
        """
        stream = cls(alphabet).stream()
        for sequence in _listed(sequences):
            stream.feed(symbol_codes(sequence, stream.model.alphabet))
            stream.end_sequence()
        if not stream.symbols:
            raise DataError(f"no letter of alphabet {stream.model.alphabet.name} to prime an entropy model on")
        return cls(stream.model.alphabet, primed=stream.state, primed_symbols=stream.symbols)

    @classmethod
    def load_stream(cls, path: str | os.PathLike[str]) -> MixStream:
        """A stream that goes on where the one that wrote the file stood.

        Raises:
            ModelFileError: Not such a file, damaged, or a state that no stream can have.
        """
        about, state = _read_state(path)
        try:
            stream = MixStream(cls(about["alphabet"]), state, int(about["symbols"]))
            was_ambiguous = str(about.get("was_ambiguous"))
            stream.edges.was_in_run = {"None": None, "False": False, "True": True}[was_ambiguous]
        except (KeyError, TypeError, ValueError, AlphabetError, ConfigError) as problem:
            raise ModelFileError(f"damaged description ({problem}); save the stream again", path=path) from None
        return stream

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the model as one safetensors file, whole or not at all; without priming it is a name only."""
        if self._primed is not None:
            MixStream(self, self._primed, self._primed_symbols).save(path, overwrite=overwrite)
            return
        about = {"format": FORMAT, "alphabet": self.alphabet.name, "symbols": 0, "is_empty": True}
        _write(path, {}, about, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MixEntropy:
        """Read a model, or the state of a stream: then every sequence starts from that state.

        Raises:
            ModelFileError: Not such a file, damaged, or a state that no stream can have.
        """
        stream = cls.load_stream(path)
        if not stream.state.words[kernels.PLACE]:  # it has seen no base
            return cls(stream.model.alphabet)
        return cls(stream.model.alphabet, primed=stream.state, primed_symbols=stream.symbols)

    def score(self, codes: np.ndarray) -> Scores:
        """Entropies, surprises and forced starts of the symbol codes of one sequence, `(length,)` uint8."""
        return self.stream().feed(np.asarray(codes, dtype=np.uint8))

    def stream(self) -> MixStream:
        """A scorer that takes one sequence in blocks of any size."""
        state = empty_state() if self._primed is None else MixState(*(array.copy() for array in self._primed))
        return MixStream(self, state, 0)

    def describe(self) -> dict[str, Any]:
        """Name, alphabet, contexts and what it was primed on, as they appear in outputs."""
        return {
            "name": self.name,
            "alphabet": self.alphabet.name,
            "orders": [*kernels.DENSE_ORDERS, kernels.PACKED_ORDER],
            "match_bases": kernels.MATCH_BASES,
            "primed_symbols": self._primed_symbols,
            "state_sha256": None if self._primed is None else _digest(self._primed),
        }


class MixStream:
    """Scores one sequence block by block; the blocks' results joined equal the whole sequence's."""

    def __init__(self, model: MixEntropy, state: MixState, symbols: int) -> None:
        self.model = model
        self.state = state
        self.symbols = symbols  # letters fed so far
        self.edges = RunEdges()  # of runs of ambiguity symbols

    def feed(self, block: Any, out: np.ndarray | None = None) -> Scores:
        """Scores of the next block of symbols.

        Args:
            block: Text, tokens, or codes from `Alphabet.encode`.
            out: `(2, length)` float32, where entropies and surprises are put; None takes fresh memory.
        """
        is_codes = isinstance(block, np.ndarray) and block.dtype == np.uint8
        codes = np.ascontiguousarray(block if is_codes else symbol_codes(block, self.model.alphabet)).view()
        codes.flags.writeable = False  # one compiled form serves arrays that may be written and those that may not
        entropies, surprises = np.empty((2, codes.size), dtype=np.float32) if out is None else out
        kernels.mix_symbols(codes, tuple(self.state), entropies, surprises)  # plain: numba's cache would name the class
        ambiguous = codes >= self.model.alphabet.size
        self.symbols += codes.size - int(np.count_nonzero(ambiguous))
        return Scores(entropies, surprises, self.edges.feed(ambiguous))

    def end_sequence(self) -> None:
        """The next block belongs to another sequence: contexts start anew, what was learned stays."""
        self.feed(np.array([AMBIGUOUS], dtype=np.uint8))
        self.edges = RunEdges()

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the state as one safetensors file (25 MiB and a byte for each base seen), whole or not at all."""
        about = {
            "format": FORMAT,
            "alphabet": self.model.alphabet.name,
            "symbols": self.symbols,
            "was_ambiguous": self.edges.was_in_run,
            "state_sha256": _digest(self.state),
        }
        arrays = self.state._asdict()
        arrays["ring"] = self.state.ring[: _used(self.state)]
        _write(path, arrays, about, overwrite)


def _write(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], about: dict[str, Any], overwrite: bool) -> None:
    from safetensors.numpy import save

    from hyena_glt.sequences.atomic import atomic_write

    content = save(arrays, metadata={"hyena_glt": json.dumps(about, sort_keys=True)})
    with atomic_write(path, overwrite=overwrite) as handle:
        handle.write(content)


def _listed(sequences: Iterable[Any] | str | bytes) -> Iterable[Any]:
    return [sequences] if isinstance(sequences, str | bytes) else sequences


def _used(state: MixState) -> int:
    """Length of the part of the ring that has been written."""
    return min(int(state.words[kernels.PLACE]), state.ring.size)


def _digest(state: MixState) -> str:
    digest = hashlib.sha256()
    for name, array in state._asdict().items():
        digest.update(array[: _used(state)].data if name == "ring" else array.data)
    return digest.hexdigest()


def _read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Any], MixState]:
    """The description and the state of a file that `MixStream.save` wrote.

    Raises:
        ModelFileError: Not such a file, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as handle:
            about = json.loads((handle.metadata() or {}).get("hyena_glt", "null"))
            if not isinstance(about, dict) or about.get("format") != FORMAT:
                raise ModelFileError(f"expected the state of a mix stream of format {FORMAT}", path=path)
            if about.get("is_empty"):
                return about, empty_state()
            arrays = {name: handle.get_tensor(name) for name in MixState._fields}
    except FileNotFoundError:
        raise ModelFileError("no such file", path=path) from None
    except (SafetensorError, json.JSONDecodeError, OSError) as problem:
        raise ModelFileError(f"not a readable safetensors file ({problem})", path=path) from None
    state = _filled(arrays, path)
    if not _is_possible(state) or _digest(state) != about.get("state_sha256"):
        raise ModelFileError("the state is damaged; save the stream again", path=path)
    return about, state


def _filled(arrays: dict[str, np.ndarray], path: str | os.PathLike[str]) -> MixState:
    """An empty state with the file's arrays put in.

    Raises:
        ModelFileError: An array of another type or size.
    """
    state = empty_state()
    for name, own in state._asdict().items():
        array = arrays[name]
        fits = array.ndim == 1 and (array.size <= own.size if name == "ring" else array.size == own.size)
        if array.dtype != own.dtype or not fits:
            raise ModelFileError(
                f"{name}: expected {own.dtype} {own.shape}, got {array.dtype} {array.shape}", path=path
            )
        own[: array.size] = array
    return state


def _is_possible(state: MixState) -> bool:
    """True where every number is one that the kernels can index with."""
    words = state.words
    highest = np.full(words.size, np.iinfo(np.int64).max >> 1)
    highest[[kernels.FORWARD, kernels.REVERSE]] = kernels.WORD_MASK
    highest[kernels.KNOWN] = kernels.WORD
    highest[kernels.CHOSEN] = kernels.CONFIDENCES * kernels.EVIDENCE - 1
    lowest = np.zeros(words.size, dtype=np.int64)
    lowest[kernels.LENGTH : kernels.HISTORY] = -1
    lowest[kernels.POINTER : kernels.LENGTH] = -highest[kernels.PLACE]
    floats = (state.hits, state.weights, state.inputs, state.prediction)
    return bool(
        ((lowest <= words) & (words <= highest)).all()
        and (state.dense <= kernels.DENSE_LIMIT).all()
        and (state.ring <= 4).all()
        and all(np.isfinite(array).all() for array in floats)
    )
