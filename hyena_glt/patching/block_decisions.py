"""Sequence blocks -> what their patches depend on: scores or decisions, surprises, runs of ambiguity symbols.

This is the expensive half of patching a genome, and it needs no patch to be closed: another thread may do it ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from hyena_glt.config import PatchingModeEnum
from hyena_glt.entropies.context_tables import SURPRISE_STEP
from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.entropies.symbols import RunEdges
from hyena_glt.entropies.threshold_cells import ThresholdCells
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.scan import ScanRule
from hyena_glt.patching.stream_starts import TokenStarts
from hyena_glt.sequences.alphabets import Alphabet
from hyena_glt.sequences.records import Block

WHOLE_CONTIG_MODES = (PatchingModeEnum.bpe, PatchingModeEnum.bpe_patcher)


@dataclass(frozen=True, slots=True)
class DecidedBlock:
    """One sequence block and all that its patches depend on."""

    block: Block
    ambiguous: np.ndarray  # (length,) bool
    decisive: np.ndarray  # (length,), what `Scanner.feed` takes under the rule
    forced_starts: np.ndarray  # (length,) bool, edges of the runs of ambiguity symbols
    surprises: np.ndarray  # (length,) of each symbol, in `unit`
    unit: float  # nats
    entropies: np.ndarray | None  # (length,) float32 nats after each symbol


class Decider(Protocol):
    """Takes the blocks of one sequence in order."""

    def feed(self, block: Block) -> DecidedBlock:
        """What the patches of the block depend on."""


def decide_blocks(
    blocks: Iterable[Block], alphabet: Alphabet, model: Any, args: PatcherArgs, *, entropies: bool
) -> Iterator[DecidedBlock]:
    """Score every contig of a stream of blocks, as far as its patches need it.

    Args:
        blocks: Blocks of validated records; a contig ends with its block marked `last`.
        alphabet: Their alphabet.
        model: An entropy source with streams.
        args: Where patches start.
        entropies: Give the entropies whether the rule needs them or not.
    """
    if args.patching_mode in WHOLE_CONTIG_MODES:
        blocks = whole_contigs(blocks)
    begin = _beginner(alphabet, model, args, entropies)
    sequence: Decider | None = None
    for block in blocks:
        sequence = sequence or begin(block)
        yield sequence.feed(block)
        if block.last:
            sequence = None


def _beginner(alphabet: Alphabet, model: Any, args: PatcherArgs, entropies: bool) -> Callable[[Block], Decider]:
    """How a sequence begins: by one table where that says all, else by the model's scores."""
    rule = ScanRule.from_args(args)
    threshold = rule.threshold or 0.0
    by_table = rule.mode in ("threshold", "static", "byte") and threshold >= 0.0 and isinstance(model, MarkovEntropy)
    if not by_table or entropies:
        return lambda first: DecideByScores(alphabet, open_stream(model, first), args, rule)
    cells = ThresholdCells(model, threshold)
    return lambda first: DecideByTable(alphabet, cells)


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
        decisions, surprises = self._stream.feed(codes)
        ambiguous = codes >= self._alphabet.size
        return DecidedBlock(block, ambiguous, decisions, self._edges.feed(ambiguous), surprises, SURPRISE_STEP, None)


def whole_contigs(blocks: Iterable[Block]) -> Iterator[Block]:
    """One block for each contig."""
    parts: list[Block] = []
    for block in blocks:
        parts.append(block)
        if block.last:
            sequence = b"".join(part.sequence for part in parts)
            yield replace(parts[0], sequence=sequence, last=True)
            parts = []


class DecideByScores:
    """Scores of any source that has streams; starts by separators, a tokenizer or a network in the modes of these."""

    def __init__(self, alphabet: Alphabet, stream: Any, args: PatcherArgs, rule: ScanRule) -> None:
        self._alphabet = alphabet
        self._stream = stream
        self._starts: TokenStarts | WholeStarts | None = None
        if rule.mode == "mask":
            self._starts = WholeStarts(args) if args.patching_mode in WHOLE_CONTIG_MODES else TokenStarts(args)

    def feed(self, block: Block) -> DecidedBlock:
        """What the patches of the block depend on."""
        codes = self._alphabet.encode(block.sequence)
        scores = self._stream.feed(codes)
        decisive = scores.entropies
        if self._starts is not None:
            decisive = self._starts.feed(np.frombuffer(block.sequence, np.uint8))
        ambiguous = codes >= self._alphabet.size
        return DecidedBlock(block, ambiguous, decisive, scores.forced_starts, scores.surprises, 1.0, scores.entropies)


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
