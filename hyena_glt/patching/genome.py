"""A genome through the patcher block by block: sequence blocks in, completed patches out, in bounded memory.

    blocks -> decisions -> Scanner -> patches with their mean surprise

A contig may be longer than memory: nothing here grows with it. The result equals `Patcher.patch` of the whole
sequence with the same model and rule, but for a run of N at the very beginning, which is one patch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from hyena_glt.entropies.context_tables import HIGHEST_SURPRISE
from hyena_glt.entropies.symbols import Scores
from hyena_glt.patching.args import PatcherArgs
from hyena_glt.patching.block_decisions import ArgsOf, DecidedBlock, decide_blocks, open_stream, scan_rule
from hyena_glt.patching.scan import Scanner, ScanRule
from hyena_glt.sequences.alphabets import Alphabet
from hyena_glt.sequences.records import Block

SUMMED_AT_ONCE = (1 << 32) // (HIGHEST_SURPRISE + 1)  # symbols whose surprises in steps are below 2 ** 32 together


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """One sequence block and what the model says of it."""

    block: Block
    scores: Scores  # of the block's symbols
    ambiguous: np.ndarray  # (length,) bool


@dataclass(frozen=True, slots=True)
class PatchedBlock:
    """One sequence block and the patches completed by it."""

    block: Block
    ambiguous: np.ndarray  # (length,) bool
    forced_starts: np.ndarray  # (length,) bool, edges of the runs of ambiguity symbols
    entropies: np.ndarray | None  # (length,) float32 nats after each symbol, where they were asked for
    patch_start: int  # 0-based start on the contig of the first completed patch
    lengths: np.ndarray  # (patches,) int64
    mean_surprises: np.ndarray  # (patches,) float64 nats per base
    ambiguous_patches: int  # those of the completed patches that are runs of ambiguity symbols


def score_blocks(
    blocks: Iterable[Block], alphabet: Alphabet, model: Any, *, reuse: bool = False
) -> Iterator[ScoredBlock]:
    """Score every contig of a stream of blocks; one `ScoredBlock` per block.

    With `reuse`, entropies and surprises of a block are overwritten by those of the next one, which saves the time to
    get fresh memory for each.
    """
    stream = None
    scratch = np.empty((2, 0), dtype=np.float32)
    for block in blocks:
        codes = alphabet.encode(block.sequence)
        if scratch.shape[1] < codes.size or not reuse:
            scratch = np.empty((2, codes.size), dtype=np.float32)
        stream = stream or open_stream(model, block)
        scores = stream.feed(codes, out=scratch[:, : codes.size])
        yield ScoredBlock(block, scores, codes >= alphabet.size)
        stream = None if block.last else stream


def patch_blocks(
    blocks: Iterable[Block],
    alphabet: Alphabet,
    model: Any,
    args: PatcherArgs | ArgsOf,
    *,
    entropies: bool = True,
    half_life: float | None = None,
    ahead: Callable[[Iterator[DecidedBlock]], Iterator[DecidedBlock]] = lambda decided: decided,
) -> Iterator[PatchedBlock]:
    """Patch every contig of a stream of blocks.

    Args:
        blocks: Blocks of validated records; a contig ends with its block marked `last`.
        alphabet: Their alphabet.
        model: Scores the symbols; in modes without entropies only the mean surprises come from it.
        args: Where patches start, or a function that says it of each contig; runs of ambiguity symbols are patches
            of their own under every rule.
        entropies: Give the entropies as well; without them a plain threshold is about three times faster.
        half_life: Symbols; the calibrated threshold follows the composition (`AdaptiveThreshold`). None: it stays.
        ahead: What the decided blocks pass through, such as a queue filled by another thread.

    Yields:
        One `PatchedBlock` per block; the lengths of a contig's blocks sum to the contig's length.

    Raises:
        ConfigError: Options that need more than the past (`scan_rule`).
    """
    args_of: ArgsOf = args if callable(args) else lambda name: args
    contig: _Contig | None = None
    decider = decide_blocks(blocks, alphabet, model, args_of, entropies=entropies, half_life=half_life)
    for decided in ahead(decider):
        contig = contig or _Contig(decided.block.start, scan_rule(args_of(decided.block.name)))
        yield contig.feed(decided)
        if decided.block.last:
            contig = None


class _Contig:
    """The state carried between the blocks of one contig."""

    def __init__(self, start: int, rule: ScanRule) -> None:
        self._position = start
        self._scanner = Scanner(rule)
        self._open = np.zeros(3)  # of the open patch: sum and number of the surprises, 1 for a run of N
        # Symbols of a run of N that the contig begins with; None once it is over, or where the rule cuts runs anyway.
        self._leading = None if rule.mode in ("static", "byte") else 0

    def feed(self, decided: DecidedBlock) -> PatchedBlock:
        lengths = self._cut(decided)
        means = np.empty(lengths.size)
        runs = _patch_means(decided.surprise_sums, decided.unit, decided.ambiguous, lengths, self._open, means)
        start = self._position
        self._position += int(lengths.sum())
        return PatchedBlock(
            decided.block, decided.ambiguous, decided.forced_starts, decided.entropies, start, lengths, means, runs
        )

    def _cut(self, decided: DecidedBlock) -> np.ndarray:
        """Lengths of the patches completed; a leading run of N is one patch, which only the cap cuts."""
        begin, parts = 0, []
        if self._leading is not None:
            size = decided.ambiguous.size
            begin = size if decided.ambiguous.all() else int(decided.ambiguous.argmin())
            before, self._leading = self._leading, self._leading + begin
            cap = self._scanner.rule.cap
            parts.append(np.full(self._leading // cap - before // cap, cap))
            if begin == size and not decided.block.last:
                return parts[0]
            if rest := self._leading % cap:
                parts.append(np.array([rest]))
            self._scanner.skip(self._leading)
            self._leading = None
        parts.append(self._scanner.feed(decided.decisive[begin:], decided.forced_starts[begin:]))
        if decided.block.last:
            parts.append(self._scanner.finish())
        return np.concatenate(parts)


@njit(cache=True, nogil=True)
def _patch_means(sums, unit, ambiguous, lengths, open_patch, means):
    """Mean surprise of each completed patch; what belongs to the open one is kept in `open_patch`.

    `sums` are the running sums of the surprises in steps of `unit`. Returns the number of completed patches that are
    runs of ambiguity symbols (a patch never mixes the two).
    """
    at, runs = 0, 0
    carried, count, is_run = open_patch[0], np.int64(open_patch[1]), open_patch[2] > 0
    for i in range(lengths.size):
        if count == 0:
            is_run = ambiguous[at]
        stop = at + lengths[i] - count
        means[i] = (carried + _sum_between(sums, at, stop)) * unit / lengths[i]
        runs += is_run
        at, carried, count = stop, 0.0, np.int64(0)
    if at < ambiguous.size and count == 0:
        is_run = ambiguous[at]
    carried += _sum_between(sums, at, ambiguous.size)
    open_patch[0], open_patch[1], open_patch[2] = carried, count + ambiguous.size - at, is_run
    return runs


@njit(cache=True, nogil=True, inline="always")
def _sum_between(sums, start, stop):
    """Difference of two running sums, in pieces whose own sums are below 2 ** 32."""
    total = 0.0
    while start < stop:
        end = min(start + SUMMED_AT_ONCE, stop)
        total += sums.dtype.type(sums[end] - sums[start])
        start = end
    return total
