"""What one pass over a genome shows before it is patched: its contigs, a fitted model, a sample to calibrate on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from hyena_glt.entropies.markov import MarkovEntropy, MarkovFitter
from hyena_glt.entropies.symbols import ambiguity_edges
from hyena_glt.patching.args import CalibrationRecord
from hyena_glt.patching.block_decisions import depends_on_place, open_stream
from hyena_glt.patching.scan import ScanRule, ScoreRows
from hyena_glt.patching.scan_kernels import NO_CAP
from hyena_glt.patching.threshold_search import Calibrated, ThresholdCurve, calibrate_rule, threshold_curve
from hyena_glt.sequences.alphabets import Alphabet
from hyena_glt.sequences.records import Block

SAMPLE_SYMBOLS = 1 << 23  # symbols kept for calibration, at most
PIECE_SYMBOLS = 1 << 16  # of this size are the pieces that a larger genome is sampled in
END_OF_SEQUENCE = b"\xff\xff"  # as in the hashes of `calibrate`


@dataclass(slots=True)
class GenomeSurvey:
    """What one pass over the input has shown."""

    contig_lengths: dict[str, int] = field(default_factory=dict)  # name -> end of its last base read
    symbols: int = 0  # letters and ambiguity symbols
    letters: int = 4  # size of the alphabet; codes from there on are ambiguity symbols
    sample: list[np.ndarray] = field(default_factory=list)  # stretches of codes, (length,) uint8 each
    entropies: list[np.ndarray] = field(default_factory=list)  # theirs, where a source says what it does of the place
    model: Any = None  # an entropy source with streams

    def calibrate(self, rule: ScanRule, target_mean_length: float) -> Calibrated:
        """The threshold for a mean patch length of the *letters*: runs of ambiguity symbols do not count.

        Args:
            rule: Mode threshold, monotone or dual; its threshold is replaced.
            target_mean_length: Letters per patch.

        Returns:
            As `calibrate_rule`; `mean_length` is that of the letters.
        """
        scores, forced = self.sample_scores()
        symbols, letters, runs = self._sample_sizes(rule.cap)
        wanted = symbols / (letters / target_mean_length + runs)
        found = calibrate_rule(scores, forced, rule=rule, target_mean_length=max(wanted, 1.0))
        return replace(found, mean_length=letters / max(symbols / found.mean_length - runs, 1.0))

    def calibrate_contigs(
        self,
        blocks: Iterable[Block],
        alphabet: Alphabet,
        rule: ScanRule,
        target_mean_length: float,
        *,
        fewest_patches: int = 1000,
    ) -> dict[str, tuple[float, CalibrationRecord]]:
        """A threshold of its own for each contig, with this survey's model; one more pass over the genome.

        Args:
            blocks: Blocks of validated records.
            alphabet: Their alphabet.
            rule: Mode threshold, monotone or dual; its threshold is replaced.
            target_mean_length: Letters per patch.
            fewest_patches: Wanted patches of the smallest contig that is calibrated; the mean length of 1000 patches is
                known to about 3%.

        Returns:
            By contig, the threshold in nats and its record, whose hash is of the contig as it stands in the file.
        """
        found: dict[str, tuple[float, CalibrationRecord]] = {}
        coming = iter(blocks)
        for first in coming:
            digest = hashlib.sha256()
            contig = survey_genome(_one_contig(chain([first], coming), digest), alphabet, model=self.model)
            symbols, letters, _ = contig._sample_sizes(rule.cap)
            if letters < fewest_patches * target_mean_length:
                continue
            calibrated = contig.calibrate(rule, target_mean_length)
            record = CalibrationRecord(
                target_mean_length=target_mean_length,
                mean_length=calibrated.mean_length,
                num_tokens=symbols,
                data_sha256=digest.hexdigest(),
                entropy_model=getattr(self.model, "name", None),
            )
            found[first.name] = (calibrated.threshold, record)
        return found

    def threshold_curve(self, rule: ScanRule) -> ThresholdCurve:
        """Mean patch lengths of the sample's *letters* under many thresholds.

        Args:
            rule: Mode threshold, monotone or dual; its threshold is replaced.

        Raises:
            ConfigError: A sample without a score that a threshold decides about.
        """
        scores, forced = self.sample_scores()
        # The rise at the first letter after a run of N is not one of the sequence.
        heard = [(codes < self.letters) & ~edges for codes, edges in zip(self.sample, forced, strict=True)]
        heard_all = np.concatenate([np.zeros(0, np.bool_), *heard])
        curve = threshold_curve(ScoreRows(scores, forced), rule, heard=heard_all)
        uncapped = curve.uncapped_mean_lengths
        return replace(
            curve,
            mean_lengths=self._of_letters(curve.mean_lengths, rule.cap),
            uncapped_mean_lengths=None if uncapped is None else self._of_letters(uncapped, NO_CAP),
        )

    def _of_letters(self, mean_lengths: np.ndarray, cap: int) -> np.ndarray:
        """Mean lengths without the runs of ambiguity symbols, of those with them."""
        symbols, letters, runs = self._sample_sizes(cap)
        return letters / np.maximum(symbols / mean_lengths - runs, 1.0)

    def _sample_sizes(self, cap: int) -> tuple[int, int, int]:
        """Symbols and letters of the sample, and patches that its runs of ambiguity symbols make."""
        ambiguous = [codes >= self.letters for codes in self.sample]
        symbols, letters = sum(map(len, ambiguous)), sum(int((~mask).sum()) for mask in ambiguous)
        return symbols, letters, sum(_count_runs(mask, cap) for mask in ambiguous)

    def sample_scores(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Entropies and forced starts of the sample, each stretch scored by itself where that is the same."""
        assert self.model is not None
        if self.entropies:
            return self.entropies, [ambiguity_edges(codes, self.letters) for codes in self.sample]
        scored = [self.model.stream().feed(codes) for codes in self.sample]
        return [s.entropies for s in scored], [s.forced_starts for s in scored]


def survey_genome(
    blocks: Iterable[Block],
    alphabet: Alphabet,
    *,
    model: Any = None,
    order: int | None = None,
    fit_share: float | None = None,
    progress: Callable[[int], None] = lambda symbols: None,
) -> GenomeSurvey:
    """Read a genome once: measure it, keep a sample, and fit a model unless one is given.

    Args:
        blocks: Blocks of validated records.
        alphabet: Their alphabet.
        model: An entropy source with streams to use; None fits a context model on everything read.
        order: Context length of the fitted model; None chooses it.
        fit_share: Share of the input that the model is fitted on, in evenly spaced pieces; None for all of it.
        progress: Called with the number of symbols of each block.

    An input without a letter (all N) gets the uniform model and an empty sample.
    """
    survey = GenomeSurvey(letters=alphabet.size)
    sampler = Sampler(alphabet.size)
    fitter = MarkovFitter(alphabet.name, order) if model is None else None
    stream = None  # of a source whose scores of a stretch depend on what came before it
    for block in blocks:
        codes = alphabet.encode(block.sequence)
        survey.symbols += codes.size
        survey.contig_lengths[block.name] = block.start + codes.size
        if depends_on_place(model):
            stream = stream or open_stream(model, block)
            sampler.add(codes, block.last, stream.feed(codes).entropies)
            stream = None if block.last else stream
        else:
            sampler.add(codes, block.last)
        if fitter is not None:
            _fit_on(fitter, codes, survey.symbols - codes.size, fit_share or 1.0)
            if block.last:
                fitter.end_sequence()
        progress(codes.size)
    survey.sample, survey.entropies = sampler.stretches(), sampler.stretch_entropies()
    if fitter is not None:
        model = fitter.finish() if fitter.symbols else MarkovEntropy.uniform(alphabet.name)
    survey.model = model
    return survey


def _fit_on(fitter: MarkovFitter, codes: np.ndarray, first: int, share: float) -> None:
    """Count a block of codes, or evenly spaced pieces of it.

    Args:
        fitter: Counts.
        codes: `(length,)` uint8.
        first: Symbols of the input before these.
        share: In (0, 1]; piece `n` of the input is counted where `n * share` passes a whole number.
    """
    if share >= 1.0:
        fitter.feed(codes)
        return
    for start in range(-(first % PIECE_SYMBOLS), codes.size, PIECE_SYMBOLS):
        number = (first + start) // PIECE_SYMBOLS
        if int((number + 1) * share) > int(number * share):
            fitter.feed(codes[max(start, 0) : start + PIECE_SYMBOLS])
        else:
            fitter.end_sequence()


class _Piece(NamedTuple):
    """A part of a sample."""

    number: int  # of the piece in the input
    contig: int  # pieces with the same number here may be neighbours
    codes: np.ndarray  # (length,) uint8
    entropies: np.ndarray | None  # (length,) float32 nats


class Sampler:
    """Keeps evenly spaced pieces of a stream of codes: everything of a small genome, a bounded part of a large one.

    Pieces without a letter (long runs of N) are passed over: there is nothing to calibrate on in them.
    """

    def __init__(self, letters: int, limit: int = SAMPLE_SYMBOLS, piece: int = PIECE_SYMBOLS) -> None:
        self._letters, self._limit, self._piece = letters, limit, piece
        self._every = 1  # of so many pieces one is kept
        self._next_piece = 0
        self._pieces: list[_Piece] = []
        self._contig = 0
        self._kept = 0

    def add(self, codes: np.ndarray, last: bool, entropies: np.ndarray | None = None) -> None:
        """Take the next block of the current sequence, with its scores or without; `last` ends the sequence."""
        for start in range(0, codes.size, self._piece):
            piece = codes[start : start + self._piece]
            if int(piece.min()) >= self._letters:
                self._contig += 1  # what follows is no neighbour of what came before
                continue
            if self._next_piece % self._every == 0:
                scores = None if entropies is None else entropies[start : start + self._piece].copy()
                self._pieces.append(_Piece(self._next_piece, self._contig, piece.copy(), scores))
                self._kept += piece.size
                self._thin()
            self._next_piece += 1
        self._contig += last

    def stretches(self) -> list[np.ndarray]:
        """The pieces kept, neighbours of one sequence joined."""
        return [np.concatenate([piece.codes for piece in pieces]) for pieces in self._joined()]

    def stretch_entropies(self) -> list[np.ndarray]:
        """The scores of the stretches; none where none were given."""
        if not self._pieces or self._pieces[0].entropies is None:
            return []
        return [np.concatenate([piece.entropies for piece in pieces]) for pieces in self._joined()]

    def _joined(self) -> list[list[_Piece]]:
        joined: list[list[_Piece]] = []
        for piece in self._pieces:
            before = joined[-1][-1] if joined else None
            if before and (before.number + 1, before.contig) == (piece.number, piece.contig):
                joined[-1].append(piece)
            else:
                joined.append([piece])
        return joined

    def _thin(self) -> None:
        while self._kept > self._limit:
            self._every *= 2
            self._pieces = [piece for piece in self._pieces if piece.number % self._every == 0]
            self._kept = sum(piece.codes.size for piece in self._pieces)


def _one_contig(blocks: Iterator[Block], digest: Any) -> Iterator[Block]:
    """The blocks up to the first that ends a contig; their sequence is hashed."""
    for block in blocks:
        digest.update(block.sequence)
        yield block
        if block.last:
            break
    digest.update(END_OF_SEQUENCE)


def _count_runs(mask: np.ndarray, cap: int) -> int:
    """Patches that the runs of True make, none longer than `cap`."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return int(-(-(edges[1::2] - edges[::2]) // cap).sum())
