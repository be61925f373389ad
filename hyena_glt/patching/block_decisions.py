"""Sequence blocks -> what their patches depend on: scores or decisions, surprises, runs of ambiguity symbols.

This is the expensive half of patching a genome, and it needs no patch to be closed: another thread may do it ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hyena_glt.entropies.context_tables import SURPRISE_STEP
from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.entropies.symbols import RunEdges
from hyena_glt.entropies.threshold_cells import ThresholdCells
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.scan import ScanRule
from hyena_glt.patching.stream_starts import TokenStarts
from hyena_glt.sequences.alphabets import Alphabet
from hyena_glt.sequences.records import Block


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
    begin = _beginner(alphabet, model, args, entropies)
    sequence: Decider | None = None
    for block in blocks:
        sequence = sequence or begin()
        yield sequence.feed(block)
        if block.last:
            sequence = None


def _beginner(alphabet: Alphabet, model: Any, args: PatcherArgs, entropies: bool) -> Callable[[], Decider]:
    """How a sequence begins: by one table where that says all, else by the model's scores."""
    rule = ScanRule.from_args(args)
    threshold = rule.threshold or 0.0
    by_table = rule.mode in ("threshold", "static", "byte") and threshold >= 0.0 and isinstance(model, MarkovEntropy)
    if not by_table or entropies:
        return lambda: DecideByScores(alphabet, model, args, rule)
    cells = ThresholdCells(model, threshold)
    return lambda: DecideByTable(alphabet, cells)


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


class DecideByScores:
    """Scores of any source that has streams; starts after separators in space mode."""

    def __init__(self, alphabet: Alphabet, model: Any, args: PatcherArgs, rule: ScanRule) -> None:
        self._alphabet = alphabet
        self._stream = model.stream()
        self._separators = TokenStarts(args) if rule.mode == "mask" else None

    def feed(self, block: Block) -> DecidedBlock:
        """What the patches of the block depend on."""
        codes = self._alphabet.encode(block.sequence)
        scores = self._stream.feed(codes)
        decisive = scores.entropies
        if self._separators is not None:
            decisive = self._separators.feed(np.frombuffer(block.sequence, np.uint8))
        ambiguous = codes >= self._alphabet.size
        return DecidedBlock(block, ambiguous, decisive, scores.forced_starts, scores.surprises, 1.0, scores.entropies)
