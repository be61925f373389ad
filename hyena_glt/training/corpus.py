"""Sequence files -> every contig in memory once -> the regions that are learned from and those that are held out.

FASTA, FASTQ -> Corpus -> split_corpus -> Regions (train), Regions (held out)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, DataError, RegionError
from hyena_glt.sequences.alphabets import AMBIGUOUS, Alphabet, get_alphabet
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.quoting import quoted

Symbols = NDArray[np.uint8]
Whole = NDArray[np.int64]

LOOK_AT = 1 << 24  # symbols looked at together
SPLIT_SALT = 1  # of the draws of held-out blocks
LONG_RUN = 1000  # ambiguity symbols in a row that no held-out block counts as sequence


class Contig(NamedTuple):
    """One record of one file."""

    name: str
    length: int
    file: str  # as it was given; empty for a sequence from memory


@dataclass(frozen=True, eq=False)
class Contigs(Sequence[Contig]):
    """The contigs of a corpus, in the order of the files."""

    names: tuple[str, ...]
    lengths: Whole  # (contigs,)
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Contig: ...
    @overload
    def __getitem__(self, index: slice) -> list[Contig]: ...
    def __getitem__(self, index: int | slice) -> Contig | list[Contig]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return Contig(self.names[index], int(self.lengths[index]), self.files[index])


@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """Contigs one after the other in one array of bytes. Build it with `from_fasta` or `from_sequences`.

    Lower case (a soft mask) is made upper case, unless `keep_case` was asked for or the alphabet is `bytes`, which has
    no case. All other symbols stay as they are in the file; U is not made T.

    Example:
        >>> corpus = Corpus.from_sequences({"chr1": "acgtN", "chr2": "TT"})
        >>> corpus.contigs.names, corpus.sequence(0).tobytes(), corpus.sequence(0, 1, 5, reverse=True).tobytes()
        (('chr1', 'chr2'), b'ACGTN', b'NACG')
    """

    contigs: Contigs
    symbols: Symbols  # (bases of all contigs,), not writable
    alphabet: Alphabet
    sha256: str  # of the names and the symbols, 64 hexadecimal digits; not of the file names
    starts: Whole = field(init=False)  # (contigs,) where each contig begins in `symbols`

    def __post_init__(self) -> None:
        lengths = self.contigs.lengths
        object.__setattr__(self, "starts", lengths.cumsum() - lengths)

    @classmethod
    def from_fasta(
        cls,
        paths: Sequence[str | os.PathLike[str]],
        alphabet: str | Alphabet = "dna",
        *,
        keep_case: bool = False,
    ) -> Corpus:
        """Read every contig of every file, in order.

        Contigs of different files may have the same name.

        Args:
            paths: FASTA or FASTQ files, plain, gzip or BGZF.
            alphabet: What they may hold.
            keep_case: Leave lower case as it is: then `a` and `A` are two tokens.

        Raises:
            ConfigError: No file, or the same file twice.
            SequenceFormatError: A file that breaks its format.
            AlphabetError: A symbol that the alphabet does not have.
            SystemProblem: A file that cannot be read.
        """
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        names = [os.fspath(path) for path in paths]
        _check_files(names)
        letters = get_alphabet(alphabet)
        pieces = (
            (block.name, name, block.sequence, block.last)
            for name in names
            for block in read_blocks(name, alphabet=letters)
        )
        return cls._collect(pieces, letters, keep_case)

    @classmethod
    def from_sequences(
        cls, sequences: Mapping[str, str | bytes], alphabet: str | Alphabet = "dna", *, keep_case: bool = False
    ) -> Corpus:
        """A corpus of sequences by name.

        Raises:
            AlphabetError: A symbol that the alphabet does not have.
            DataError: No sequence, or an empty one.
        """
        letters = get_alphabet(alphabet)
        pieces = []
        for name, sequence in sequences.items():
            if not letters.encode(sequence, record=name).size:
                raise DataError("expected at least one base, got an empty sequence", record=name)
            pieces.append((name, "", sequence.encode() if isinstance(sequence, str) else bytes(sequence), True))
        return cls._collect(pieces, letters, keep_case)

    @classmethod
    def _collect(cls, pieces: Iterable[tuple[str, str, bytes, bool]], alphabet: Alphabet, keep_case: bool) -> Corpus:
        """Put pieces `(contig, file, symbols, is the contig's last)` together."""
        fold = alphabet.has_ambiguity and not keep_case
        held, digest = bytearray(), hashlib.sha256()
        names: list[str] = []
        files: list[str] = []
        ends = [0]
        for name, file, sequence, last in pieces:
            sequence = sequence.upper() if fold else sequence
            held += sequence
            digest.update(sequence)
            if last:
                names.append(name)
                files.append(file)
                ends.append(len(held))
        if not held:
            raise DataError("expected at least one base in the sequences, got none")
        lengths = np.array(ends[1:], np.int64) - np.array(ends[:-1], np.int64)
        for name, length in zip(names, lengths.tolist(), strict=True):  # lengths tell the contigs apart
            digest.update(f"{len(name)} {name} {length} ".encode())
        symbols = np.frombuffer(held, np.uint8)
        symbols.flags.writeable = False
        return cls(Contigs(tuple(names), lengths, tuple(files)), symbols, alphabet, digest.hexdigest())

    def __repr__(self) -> str:
        return f"Corpus({len(self.contigs)} contigs, {self.num_bases:,} bases, {self.alphabet.name})"

    @property
    def num_bases(self) -> int:
        """Symbols of all contigs, those of ambiguity included."""
        return self.symbols.size

    def sequence(self, contig: int, start: int = 0, end: int | None = None, *, reverse: bool = False) -> Symbols:
        """The symbols `[start, end)` of a contig, `(end - start,)` uint8; of the other strand with `reverse`.

        Raises:
            RegionError: No such place.
            AlphabetError: `reverse` in an alphabet without complement.
        """
        if not 0 <= contig < len(self.contigs):
            raise RegionError(f"contig: expected an index in [0, {len(self.contigs)}), got {contig}")
        length = int(self.contigs.lengths[contig])
        end = length if end is None else end
        if not 0 <= start <= end <= length:
            raise RegionError(
                f"expected 0 <= start <= end <= {length}, got [{start}, {end})", record=self.contigs.names[contig]
            )
        first = int(self.starts[contig])
        forward = self.symbols[first + start : first + end]
        return self.complements[forward[::-1]] if reverse else forward

    @cached_property
    def complements(self) -> Symbols:
        """`(256,)` uint8: byte -> its complement, case kept.

        Raises:
            AlphabetError: The alphabet has no complement.
        """
        return np.frombuffer(self.alphabet.complement_table, np.uint8)

    @cached_property
    def ambiguous_runs(self) -> Whole:
        """`(runs, 2)` int64: start and end in `symbols` of each run of ambiguity symbols (N, ...) of a contig."""
        codes = np.frombuffer(self.alphabet.code_table, np.uint8)
        is_ambiguous = (codes >= AMBIGUOUS) & self.alphabet.has_ambiguity
        edges, was_in_run = [], False
        for first in range(0, self.num_bases, LOOK_AT):
            in_run = is_ambiguous[self.symbols[first : first + LOOK_AT]]
            edges.append(np.flatnonzero(np.diff(in_run, prepend=was_in_run)) + first)
            was_in_run = bool(in_run[-1])
        places = np.concatenate([*edges, [self.num_bases] * was_in_run]).astype(np.int64)
        run = np.searchsorted(places, self.starts, side="right")
        cut = self.starts[(run % 2 == 1) & (places[run - 1] < self.starts)] if places.size else places
        return np.sort(np.concatenate([places, cut, cut])).reshape(-1, 2)  # no run goes on in the next contig

    def count_ambiguous(self, starts: Whole, ends: Whole) -> Whole:
        """Ambiguity symbols in each stretch `[start, end)` of `symbols`, `(n,)` int64."""
        runs = self.ambiguous_runs
        if not len(runs):
            return np.zeros(len(starts), np.int64)
        before = np.concatenate([[0], (runs[:, 1] - runs[:, 0]).cumsum()])

        def up_to(places: Whole) -> Whole:
            run = np.searchsorted(runs[:, 0], places, side="right") - 1  # the last one that begins there or before
            inside = np.minimum(places, runs[run, 1]) - runs[run, 0]
            return np.where(run >= 0, before[run] + inside, 0)

        return up_to(ends) - up_to(starts)


@dataclass(frozen=True, eq=False)
class Regions:
    """Parts of a corpus that do not overlap, in its order."""

    corpus: Corpus = field(repr=False)
    spans: Whole  # (regions, 3) int64: contig, 0-based start, end

    @classmethod
    def whole(cls, corpus: Corpus) -> Regions:
        """Every contig from end to end."""
        return cls(corpus, _whole_spans(corpus))

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def num_bases(self) -> int:
        """Symbols of all regions."""
        return int((self.spans[:, 2] - self.spans[:, 1]).sum())

    def without_gaps(self) -> Regions:
        """The regions without runs of 1000 and more ambiguity symbols."""
        return Regions(
            self.corpus, _shared(self.spans, _stretches(self.corpus, _whole_spans(self.corpus)), self.corpus)
        )


def split_corpus(
    corpus: Corpus,
    *,
    held_out_contigs: Sequence[str] = (),
    held_out_share: float = 0.0,
    block: int = 1 << 20,
    gap: int = 8192,
    seed: int = 0,
) -> tuple[Regions, Regions]:
    """Divide a corpus into what is learned from and what is only evaluated on.

    Held out are whole contigs, and of the other contigs blocks spread over their length: as many as it takes blocks
    of about `block` bases to reach the share, one in each of equal parts, at a place that the seed draws. Runs of
    1000 and more ambiguity symbols count for nothing. `gap` bases on both sides of a block belong to neither half.

    Args:
        corpus: What is divided.
        held_out_contigs: Names; a name that several files have stands for all of them.
        held_out_share: Of the bases of the other contigs, in [0, 1).
        block: Bases of a block, at most 1.5 times this; smaller where the share of a small corpus is less.
        gap: Bases; at least the window, if not a single letter may be seen from both halves.
        seed: Of the places.

    Returns:
        `(train, held_out)`; the second is empty where nothing was to be held out.

    Raises:
        ConfigError: A number out of range, or a contig that is not there.
        DataError: Nothing is left to learn from.

    Example:
        >>> corpus = Corpus.from_sequences({"chr1": "ACGT" * 1000, "chr2": "ACGT"})
        >>> train, held_out = split_corpus(corpus, held_out_contigs=["chr2"])
        >>> train.spans.tolist(), held_out.spans.tolist()
        ([[0, 0, 4000]], [[1, 0, 4]])
    """
    _check_split(corpus, held_out_contigs, held_out_share, block, gap, seed)
    by_name = np.isin(np.array(corpus.contigs.names), list(held_out_contigs))
    whole = _whole_spans(corpus)
    others = whole[~by_name]
    blocks = _draw_blocks(corpus, others, held_out_share, block, seed)
    train = _without(others, blocks, corpus.contigs.lengths, gap)
    held_out = np.concatenate([whole[by_name], blocks])
    held_out = held_out[np.lexsort((held_out[:, 1], held_out[:, 0]))]
    if not len(train):
        raise DataError(
            f"nothing is left to learn from: {int((held_out[:, 2] - held_out[:, 1]).sum()):,} of {corpus.num_bases:,} "
            f"bases are held out, with gaps of {gap:,}; hold out less or give more sequence"
        )
    return Regions(corpus, train), Regions(corpus, held_out)


def draw_keys(seed: int, salt: int, items: Whole) -> NDArray[np.uint64]:
    """64 random bits for each item, the same on every machine and in every version: `(n,)` uint64.

    A hash (the finaliser of SplitMix64, Steele et al. 2014), not a generator: no state, so nothing to save.

    Args:
        seed: Any integer >= 0; its lowest 64 bits count.
        salt: Tells apart what the draws are for.
        items: `(n,)` integers >= 0.
    """
    state = _scramble(np.array([seed & 0xFFFF_FFFF_FFFF_FFFF], np.uint64))
    state = _scramble(state ^ np.array([salt & 0xFFFF_FFFF_FFFF_FFFF], np.uint64))
    return _scramble(state ^ items.astype(np.uint64))


def _scramble(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E37_79B9_7F4A_7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return x ^ (x >> np.uint64(31))


def _check_files(names: list[str]) -> None:
    if not names:
        raise ConfigError("paths: expected at least one sequence file, got none")
    seen: set[Path] = set()
    for name in names:
        place = Path(name).resolve()
        if place in seen:
            raise ConfigError(f"paths: expected each file once, got {name} twice; what is held out would be learned")
        seen.add(place)


def _check_split(corpus: Corpus, names: Sequence[str], share: float, block: int, gap: int, seed: int) -> None:
    if isinstance(names, str):
        raise ConfigError(f"held_out_contigs: expected a list of names, got the text {quoted(names)}")
    unknown = sorted(set(names) - set(corpus.contigs.names))
    if unknown:
        known = ", ".join(quoted(name) for name in corpus.contigs.names[:8])
        raise ConfigError(f"held_out_contigs: no contig {quoted(unknown[0])} in the corpus; it has {known}")
    if not 0 <= share < 1:
        raise ConfigError(f"held_out_share: expected a share in [0, 1), got {share}")
    for name, value, least in (("block", block, 1), ("gap", gap, 0), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{name}: expected at least {least}, got {value}")


def _whole_spans(corpus: Corpus) -> Whole:
    lengths = corpus.contigs.lengths
    spans = np.stack([np.arange(len(lengths)), np.zeros_like(lengths), lengths], axis=1)
    return spans[lengths > 0]


def _draw_blocks(corpus: Corpus, spans: Whole, share: float, block: int, seed: int) -> Whole:
    """Spans of the held-out blocks, `(n, 3)`, ascending; a block that crosses a contig's end has several."""
    stretches = _stretches(corpus, spans)
    lengths = stretches[:, 2] - stretches[:, 1]
    total = int(lengths.sum())
    if not share or not total:
        return np.zeros((0, 3), np.int64)
    wanted = max(1, round(share * total))
    count = max(1, round(wanted / block))
    part = np.arange(count + 1) * total // count  # one block in each of these equal parts
    size = np.minimum(np.diff(np.arange(count + 1) * wanted // count), np.diff(part))
    room = np.diff(part) - size
    draws = draw_keys(seed, SPLIT_SALT, np.arange(count)) >> np.uint64(11)
    first = part[:-1] + (draws.astype(np.float64) / 2.0**53 * (room + 1)).astype(np.int64)
    return _place(stretches, lengths, first, first + size)


def _place(stretches: Whole, lengths: Whole, first: Whole, last: Whole) -> Whole:
    """Intervals that count along the stretches, as spans of contigs, `(n, 3)` ascending."""
    ends = lengths.cumsum()
    begins = ends - lengths
    low = np.searchsorted(ends, first, side="right")
    counts = np.searchsorted(begins, last, side="left") - low  # stretches that each interval touches
    interval = np.repeat(np.arange(len(first)), counts)
    stretch = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts) + low[interval]
    start = np.maximum(first[interval] - begins[stretch], 0) + stretches[stretch, 1]
    end = np.minimum(last[interval] - begins[stretch], lengths[stretch]) + stretches[stretch, 1]
    return np.stack([stretches[stretch, 0], start, end], axis=1)


def _stretches(corpus: Corpus, spans: Whole) -> Whole:
    """The spans without long runs of ambiguity symbols, `(n, 3)`."""
    runs = corpus.ambiguous_runs
    runs = runs[runs[:, 1] - runs[:, 0] >= LONG_RUN]
    contig = np.searchsorted(corpus.starts, runs[:, 0], side="right") - 1
    offset = corpus.starts[contig][:, None]
    return _without(spans, np.column_stack([contig, runs - offset]), corpus.contigs.lengths, 0)


def _shared(spans: Whole, others: Whole, corpus: Corpus) -> Whole:
    """What lies in both of two lists of spans, each ascending and without overlaps, `(n, 3)`."""
    begins, ends = (
        [corpus.starts[part[:, 0]] + part[:, column] for part in (spans, others)] for column in (1, 2)
    )  # in the symbols of all contigs
    cuts = np.unique(np.concatenate([*begins, *ends]))
    left, right = cuts[:-1], cuts[1:]
    inside = np.ones(len(left), np.bool_)
    for begin, end in zip(begins, ends, strict=True):
        inside &= np.searchsorted(begin, left, side="right") > np.searchsorted(end, left, side="right")
    left, right = left[inside], right[inside]
    contig = np.searchsorted(corpus.starts, left, side="right") - 1
    return np.stack([contig, left - corpus.starts[contig], right - corpus.starts[contig]], axis=1)


def _without(spans: Whole, removed: Whole, lengths: Whole, gap: int) -> Whole:
    """What is left of spans that are whole contigs, `(n, 3)`, ascending.

    Args:
        spans: `(contigs, 3)` contig, 0, length.
        removed: `(n, 3)` contig, start, end, ascending; may run past the contig's end.
        lengths: `(all contigs,)`.
        gap: Removed on both sides as well.
    """
    removed = removed[np.isin(removed[:, 0], spans[:, 0])]
    starts = np.maximum(removed[:, 1] - gap, 0)
    ends = np.minimum(removed[:, 2] + gap, lengths[removed[:, 0]])
    contigs = np.concatenate([spans[:, 0], removed[:, 0]])
    left_from = np.concatenate([np.zeros(len(spans), np.int64), ends])  # what is left begins here ...
    left_to = np.concatenate([spans[:, 2], starts])  # ... and ends here, in the order of each
    by_start = np.lexsort((left_from, contigs))
    by_end = np.lexsort((left_to, contigs))
    left = np.stack([contigs[by_start], left_from[by_start], left_to[by_end]], axis=1)
    return left[left[:, 1] < left[:, 2]]


def contig_slices(corpus: Corpus, contig: int, size: int, *, reverse: bool) -> Iterator[Symbols]:
    """A strand of a contig from its beginning on, in pieces of `size` symbols."""
    length = int(corpus.contigs.lengths[contig])
    for first in range(0, length, size):
        last = min(first + size, length)
        place = (length - last, length - first) if reverse else (first, last)
        yield corpus.sequence(contig, *place, reverse=reverse)
