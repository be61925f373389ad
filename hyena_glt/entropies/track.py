"""An external score (bigWig or bedGraph) in place of the entropy: conservation, accessibility, a saved entropy track.

Sits between positions and patch starts: the score of base `i` decides whether a patch starts at base `i + 1`, as an
entropy does. A track knows nothing of letters, so it is bound to a contig and a place before it gives scores.

Example:
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "scores.bedgraph")
    >>> _ = path.write_text("chr1\\t0\\t2\\t1.5\\nchr1\\t3\\t4\\t-2\\n")
    >>> TrackEntropy(path).contig("chr1").entropies("ACGTA").tolist()
    [1.5, 1.5, 0.0, -2.0, 0.0]
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from hyena_glt.checks import nearest_name
from hyena_glt.entropies.symbols import RunEdges, Scores, symbol_codes
from hyena_glt.entropies.track_files import READ_BASES, Floats, open_track
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet
from hyena_glt.sequences.atomic import sha256_file
from hyena_glt.sequences.quoting import quoted, shown

MISSING_RULES = ("zero", "mean", "carry", "error")
BIND = "a track's score depends on the place: call .contig(name, start) first"
NAMES_SHOWN = 3


class TrackEntropy:
    """Scores of a bigWig or bedGraph file; `contig` gives the source for one sequence.

    Args:
        path: A local bigWig, or a bedGraph that is sorted and without overlap (plain, gzip or BGZF).
        missing: What a base without a value counts for. `"zero"` (the default): 0, which starts no patch under a
            positive threshold, and is what a context model says after N, so that a track it wrote gives its patches
            again; `"mean"`: the mean of the values on the contig; `"carry"`: the value nearest before it on the
            contig, 0 where there is none; `"error"`: refused; a number: that number.
        alphabet: Of the sequences; runs of its ambiguity symbols force starts at their edges.

    Raises:
        ConfigError: An unknown rule, or a number that is not finite.
        DataError: No such file, or one that is no track.

    A sequence may end before its contig does. One that goes on behind the contig's end in a bigWig is an error: the
    track is of another assembly. A bedGraph does not say how long contigs are: behind its last interval all is missing.
    """

    name = "track"
    is_causal = True  # a score depends on its own base, and on those before it with "carry"

    def __init__(
        self, path: str | os.PathLike[str], *, missing: str | float = "zero", alphabet: str | Alphabet = "dna"
    ) -> None:
        self.path = os.fspath(path)
        self.missing = _checked_rule(missing)
        self.alphabet = get_alphabet(alphabet)
        self._file = open_track(self.path)
        self._means: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"TrackEntropy({self.path!r}, missing={self.missing!r}, alphabet={self.alphabet.name!r})"

    @property
    def contigs(self) -> Mapping[str, int | None]:
        """Contig -> its length in bases, None where the file does not say (bedGraph)."""
        return self._file.lengths

    @cached_property
    def sha256(self) -> str:
        """Hash of the file."""
        return sha256_file(self.path)

    def contig(self, name: str, start: int = 0) -> ContigTrack:
        """The scores of a sequence that lies on one contig.

        Args:
            name: Contig, spelled as in the track.
            start: 0-based place of the sequence's first base on it.

        Raises:
            DataError: A contig that the track does not have.
            ConfigError: A negative start.
        """
        if name not in self.contigs:
            raise DataError(f"no contig {quoted(name)} in the track; it has {self._known(name)}", path=self.path)
        if start < 0:
            raise ConfigError(f"start: expected 0 or more, got {start}")
        return ContigTrack(self, name, start)

    def entropies(self, sequence: Any) -> NoReturn:
        """Refused: a sequence does not say where it lies.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"entropies: {BIND}")

    def stream(self) -> NoReturn:
        """Refused, as `entropies`.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"stream: {BIND}")

    def describe(self) -> dict[str, Any]:
        """Name, file, its hash, alphabet and the rule for missing values, as they appear in outputs."""
        return {
            "name": self.name,
            "alphabet": self.alphabet.name,
            "file": os.path.basename(self.path),
            "file_sha256": self.sha256,
            "missing": self.missing,
        }

    def values(self, contig: str, start: int, end: int) -> Floats:
        """Values of `[start, end)` as they lie in the file, `(end - start,)`, NaN where there is none.

        Raises:
            DataError: The contig ends before `end`, or the file is damaged.
        """
        length = self.contigs[contig]
        if length is not None and end > length:
            raise DataError(
                f"the sequence goes on to base {end:,}, but in the track the contig has {length:,}; "
                "is this the right assembly?",
                path=self.path,
                record=shown(contig),
            )
        return self._file.values(contig, start, end)

    def value_before(self, contig: str, position: int) -> float:
        """The value nearest before a position; 0 where there is none."""
        value = self._file.last_before(contig, position)
        return 0.0 if math.isnan(value) else value

    def mean(self, contig: str) -> float:
        """Mean of the values on a contig, each base counted once.

        Raises:
            DataError: The contig has no value.
        """
        if contig not in self._means:
            self._means[contig] = self._mean(contig)
        return self._means[contig]

    def _mean(self, contig: str) -> float:
        total, bases, end = 0.0, 0, self._file.end(contig)
        for start in range(0, end, READ_BASES):
            values = self._file.values(contig, start, min(start + READ_BASES, end))
            present = values[~np.isnan(values)]  # of these alone, so that bigWig and bedGraph give the same bits
            total += float(present.sum(dtype=np.float64))
            bases += present.size
        if not bases:
            raise DataError(
                "no value on this contig, so no mean; give another missing=", path=self.path, record=shown(contig)
            )
        return total / bases

    def _known(self, name: str) -> str:
        names = list(self.contigs)
        nearest = nearest_name(name, names)
        some = ([nearest] if nearest else []) + [other for other in names[: NAMES_SHOWN + 1] if other != nearest]
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        return (", ".join(shown(other) for other in some[:NAMES_SHOWN]) or "none") + more


class ContigTrack:
    """The scores of one sequence on one contig: an entropy source that looks at places in place of letters.

    Every symbol or token of the sequence takes one base of the contig, special tokens too.
    """

    name = TrackEntropy.name
    is_causal = True

    def __init__(self, track: TrackEntropy, contig: str, start: int) -> None:
        self.track, self.contig_name, self.start = track, contig, start
        self.alphabet = track.alphabet

    def __repr__(self) -> str:
        return f"{self.track!r}.contig({self.contig_name!r}, {self.start})"

    def entropies(self, sequence: Any) -> Floats:
        """The score of each base, missing values by the rule, `(length,)` float32.

        Raises:
            DataError: The sequence goes on behind the contig's end, or a missing value where the rule is "error".
        """
        return self.stream().feed(sequence).entropies

    def surprises(self, sequence: Any) -> Floats:
        """The same as `entropies`: a track has one score per base."""
        return self.entropies(sequence)

    def forced_starts(self, sequence: Any) -> np.ndarray:
        """True at the first symbol of each run of ambiguity symbols and at the first letter after one."""
        return RunEdges().feed(symbol_codes(sequence, self.alphabet) >= self.alphabet.size)

    def stream(self) -> TrackStream:
        """A scorer that takes the sequence in blocks of any size."""
        return TrackStream(self)

    def describe(self) -> dict[str, Any]:
        """As the track's, with the contig and the start."""
        return {**self.track.describe(), "contig": self.contig_name, "start": self.start}


class TrackStream:
    """Scores one sequence block by block; the blocks' results joined equal the whole sequence's."""

    def __init__(self, source: ContigTrack) -> None:
        self._source = source
        self._position = source.start
        self._edges = RunEdges()
        self._before: float | None = None  # the last value, where that is what missing ones get

    def feed(self, block: Any, out: np.ndarray | None = None) -> Scores:
        """Scores of the next block; `surprises` are the same numbers as `entropies`.

        A block that is refused leaves the stream as it was.

        Args:
            block: Text, tokens, or codes from `Alphabet.encode`.
            out: `(2, length)` float32, where entropies and surprises are put; None takes fresh memory.

        Raises:
            DataError: The contig ends inside the block, or a missing value where the rule is "error".
        """
        alphabet = self._source.alphabet
        is_codes = isinstance(block, np.ndarray) and block.dtype == np.uint8
        codes = block if is_codes else symbol_codes(block, alphabet)
        entropies, surprises = np.empty((2, codes.size), np.float32) if out is None else out
        track, contig, start = self._source.track, self._source.contig_name, self._position
        entropies[:] = track.values(contig, start, start + codes.size)
        before = self._fill(entropies)
        surprises[:] = entropies
        self._before, self._position = before, start + codes.size
        return Scores(entropies, surprises, self._edges.feed(codes >= alphabet.size))

    def _fill(self, values: Floats) -> float | None:
        """Put what the rule says where a value is missing; the last value, for the next block, with "carry"."""
        track, contig = self._source.track, self._source.contig_name
        missing = np.isnan(values)
        rule = track.missing
        if rule == "carry":
            before = track.value_before(contig, self._position) if self._before is None else self._before
            return _carry(values, missing, before)
        if not missing.any():
            return None
        if rule == "error":
            place = self._position + int(missing.argmax())
            raise DataError(
                f"no value at base {place:,} (0-based); choose what missing values count for with missing=",
                path=track.path,
                record=shown(contig),
            )
        values[missing] = 0.0 if rule == "zero" else track.mean(contig) if rule == "mean" else rule
        return None


def _carry(values: Floats, missing: np.ndarray, before: float) -> float:
    """Fill each missing value with the one nearest before it; the last value of all."""
    if missing.any():
        index = np.where(missing, -1, np.arange(values.size))
        np.maximum.accumulate(index, out=index)
        values[missing] = np.where(index < 0, np.float32(before), values[index])[missing]
    return float(values[-1]) if values.size else before


def _checked_rule(missing: str | float) -> str | float:
    if isinstance(missing, str) and missing in MISSING_RULES:
        return missing
    if isinstance(missing, bool | str) or not abs(missing) <= float(np.finfo(np.float32).max):
        raise ConfigError(f"missing: expected {', '.join(MISSING_RULES)} or a finite number, got {missing!r}")
    return float(missing)
