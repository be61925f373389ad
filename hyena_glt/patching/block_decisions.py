"""Sequence blocks -> what their patches depend on: scores or decisions, surprises, runs of ambiguity symbols.

This is the expensive half of patching a genome, and it needs no patch to be closed: another thread may do it ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np

from hyena_glt.config import PatchingModeEnum
from hyena_glt.entropies.context_tables import SURPRISE_STEP
from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.entropies.symbols import RunEdges, Scores
from hyena_glt.entropies.threshold_cells import ThresholdCells
from hyena_glt.errors import ConfigError
from hyena_glt.patching.adaptive import AdaptiveThreshold
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.scan import ScanRule
from hyena_glt.patching.stream_starts import TokenStarts
from hyena_glt.sequences.alphabets import Alphabet
from hyena_glt.sequences.records import Block

ArgsOf = Callable[[str], PatcherArgs]  # contig -> where its patches start
WHOLE_CONTIG_MODES = (PatchingModeEnum.bpe, PatchingModeEnum.bpe_patcher)


def scan_rule(args: PatcherArgs) -> ScanRule:
    """The rule of a patcher as one pass over a genome takes it.

    Raises:
        ConfigError: Top-k, overlap, or delimiter tokens, which text does not have.
    """
    if args.patching_mode is PatchingModeEnum.bpe and args.model_name is None:
        raise ConfigError("model_name: expected a tokenizer in bpe mode for a stream of blocks: text has no delimiters")
    return ScanRule.from_args(args)


@dataclass(frozen=True, slots=True)
class DecidedBlock:
    """One sequence block and all that its patches depend on."""

    block: Block
    ambiguous: np.ndarray  # (length,) bool
    decisive: np.ndarray  # (length,), what `Scanner.feed` takes under the rule
    forced_starts: np.ndarray  # (length,) bool, edges of the runs of ambiguity symbols
    surprise_sums: np.ndarray  # (length + 1,) running sums from 0 on, in `unit`: float64, or uint32 modulo 2 ** 32
    unit: float  # nats
    entropies: np.ndarray | None  # (length,) float32 nats after each symbol


class Decider(Protocol):
    """Takes the blocks of one sequence in order."""

    def feed(self, block: Block) -> DecidedBlock | None:
        """What the patches of the block depend on; None while more of the sequence is needed."""


def decide_blocks(
    blocks: Iterable[Block],
    alphabet: Alphabet,
    model: Any,
    args_of: ArgsOf,
    *,
    entropies: bool,
    half_life: float | None = None,
) -> Iterator[DecidedBlock]:
    """Score every contig of a stream of blocks, as far as its patches need it.

    Args:
        blocks: Blocks of validated records; a contig ends with its block marked `last`.
        alphabet: Their alphabet.
        model: An entropy source with streams.
        args_of: Where the patches of a contig start.
        entropies: Give the entropies whether the rule needs them or not.
        half_life: Symbols; the threshold follows the entropies. None: it stays.

    Raises:
        ConfigError: Options that need more than the past, or a half-life without a calibrated threshold.
    """
    tables = lru_cache(maxsize=1)(partial(ThresholdCells, model))
    sequence: Decider | None = None
    for block in blocks:
        if sequence is None:
            args = args_of(block.name)
            rule = scan_rule(args)
            if args.patching_mode in WHOLE_CONTIG_MODES:
                sequence = DecideWholeContig(alphabet, open_stream(model, block), args)
            elif half_life is not None:
                sequence = DecideAdaptively(alphabet, open_stream(model, block), args, half_life)
            elif not entropies and needs_no_entropies(rule, model):
                sequence = DecideByTable(alphabet, tables(rule.threshold or 0.0))
            else:
                sequence = DecideByScores(alphabet, open_stream(model, block), args)
        decided = sequence.feed(block)
        if decided is not None:
            yield decided
        if block.last:
            sequence = None


def needs_no_entropies(rule: ScanRule, model: Any) -> bool:
    """Whether one table of decisions and surprises says all that the patches depend on."""
    by_table = rule.mode in ("threshold", "static", "byte") and (rule.threshold or 0.0) >= 0.0
    return by_table and isinstance(model, MarkovEntropy)


def open_stream(model: Any, first: Block) -> Any:
    """The stream of an entropy source for the sequence that begins with this block.

    A source of the place (a track) is bound to the contig and to where on it the block lies.
    """
    contig = getattr(model, "contig", None)
    return (model if contig is None else contig(first.name, first.start)).stream()


def depends_on_place(model: Any) -> bool:
    """Whether a stretch is scored otherwise by itself than in its place: by a track, or a model that learns."""
    return hasattr(model, "contig") or getattr(model, "learns", False)


class DecideByTable:
    """Decisions of a plain threshold, or none, from a context model."""

    def __init__(self, alphabet: Alphabet, table: ThresholdCells) -> None:
        self._alphabet = alphabet
        self._stream = table.stream()
        self._edges = RunEdges()

    def feed(self, block: Block) -> DecidedBlock:
        """What the patches of the block depend on."""
        codes = self._alphabet.encode(block.sequence)
        decisions, sums = self._stream.feed(codes)
        ambiguous = codes >= self._alphabet.size
        return DecidedBlock(block, ambiguous, decisions, self._edges.feed(ambiguous), sums, SURPRISE_STEP, None)


class DecideByScores:
    """Scores of any source that has streams; starts after separators in space mode."""

    def __init__(self, alphabet: Alphabet, stream: Any, args: PatcherArgs) -> None:
        self._alphabet = alphabet
        self._stream = stream
        self._starts: TokenStarts | WholeStarts | None = None
        if args.patching_mode is PatchingModeEnum.space:
            self._starts = TokenStarts(args)

    def feed(self, block: Block) -> DecidedBlock:
        """What the patches of the block depend on."""
        codes = self._alphabet.encode(block.sequence)
        scores = self._stream.feed(codes)
        ambiguous = codes >= self._alphabet.size
        decisive = self._decide(block, scores, ambiguous)
        sums = np.zeros(codes.size + 1)
        np.cumsum(scores.surprises, dtype=np.float64, out=sums[1:])
        return DecidedBlock(block, ambiguous, decisive, scores.forced_starts, sums, 1.0, scores.entropies)

    def _decide(self, block: Block, scores: Scores, ambiguous: np.ndarray) -> np.ndarray:
        if self._starts is None:
            return scores.entropies
        return self._starts.feed(np.frombuffer(block.sequence, np.uint8))


class DecideAdaptively(DecideByScores):
    """Decisions of a threshold that starts at the calibrated one and follows the entropies."""

    def __init__(self, alphabet: Alphabet, stream: Any, args: PatcherArgs, half_life: float) -> None:
        super().__init__(alphabet, stream, args)
        if args.calibration is None or args.threshold is None or args.monotonicity or args.threshold_add is not None:
            raise ConfigError("half_life: expected a plain threshold that was calibrated to a mean length")
        self._adaptive = AdaptiveThreshold(
            args.calibration.target_mean_length,
            start=args.threshold,
            half_life=half_life,
            min_patch_length=args.min_patch_length,
            max_patch_length=args.max_patch_length,
        )

    def _decide(self, block: Block, scores: Scores, ambiguous: np.ndarray) -> np.ndarray:
        return self._adaptive.feed(scores.entropies, scores.forced_starts, ambiguous)


class DecideWholeContig(DecideByScores):
    """Starts that only the whole contig tells: those of a tokenizer, or of a network in windows."""

    def __init__(self, alphabet: Alphabet, stream: Any, args: PatcherArgs) -> None:
        super().__init__(alphabet, stream, args)
        self._starts = WholeStarts(args)
        self._parts: list[Block] = []

    def feed(self, block: Block) -> DecidedBlock | None:  # type: ignore[override]
        """One block for the whole contig, when its last one has come."""
        self._parts.append(block)
        if not block.last:
            return None
        sequence = b"".join(part.sequence for part in self._parts)
        return super().feed(replace(self._parts[0], sequence=sequence, last=True))


class WholeStarts:
    """Starts of a whole contig that `Patcher` decides: by the merges of a tokenizer, or by a network in windows."""

    def __init__(self, args: PatcherArgs) -> None:
        from hyena_glt.patching.patcher import Patcher

        self._patcher = Patcher(args.model_copy(update={"min_patch_length": None, "max_patch_length": None}))

    def feed(self, symbols: np.ndarray) -> np.ndarray:
        """True where a patch starts, `(length,)` bool.

        Args:
            symbols: `(length,)` uint8 bytes of the contig.
        """
        lengths = self._patcher.patch([symbols.tobytes()])[0][0].numpy()
        starts = np.zeros(symbols.size, np.bool_)
        starts[(lengths.cumsum() - lengths)[lengths > 0]] = True
        return starts
