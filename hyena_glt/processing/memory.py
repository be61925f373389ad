"""Many sequences -> batches that fit into a memory limit -> outputs, batch after batch.

sequences -> patches -> what the forward will take -> as many rows as fit -> forward -> what it took
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch

from hyena_glt.errors import ConfigError, SystemProblem
from hyena_glt.model import HyenaGLT
from hyena_glt.model.batching import split_rows
from hyena_glt.model.inputs import PatchedTokens, check_tokens
from hyena_glt.model.memory import FIXED, FLOAT
from hyena_glt.model.outputs import HyenaGLTOutput
from hyena_glt.model.sources import Piece, encode_piece, pad_rows, patch_rows
from hyena_glt.ops.weight_cache import WEIGHT_CACHE
from hyena_glt.processing.memory_meter import MemoryMeter, is_out_of_memory, memory_meter
from hyena_glt.processing.running import as_pieces, check_batch_size, count_tokens, evaluating, usable_patcher
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID

Value = TypeVar("Value")
GIB = 1 << 30
LARGEST_BATCH = 32  # more rows make nothing faster
MARGIN = 1.2  # the estimate's error, see `model.memory.estimate_memory`
POSITION_BYTES = 3 * 8 + 4 + 2  # of a token in an output: patch, offset, global and relative position, masks
CUT_BYTES = 64  # of a token while it is cut: itself, its score, masks
WARM_UP_BASES, WARM_UP_PATCH = 4096, 16  # enough patches for the filters to go through the FFT


class MemoryOptimizedProcessor:
    """Runs a net over many sequences within a memory limit, batch after batch.

    The limit counts what the process takes above what it held when the run began (on a GPU: what tensors take there),
    the results that the caller keeps included. Each batch has as many sequences as fit by an estimate from its
    patches; a run that even one sequence would take over the limit is refused. Where memory runs out all the same,
    half as many sequences are tried, down to one, and the number that worked is kept. None of this changes results
    beyond rounding (1e-5). There are no gradients, so nothing is recomputed; precision is the net's own.

    Args:
        model: The net.
        patcher: What cuts; anything that `PatcherAdapter` recognises. None: the net's own.
        memory_limit_gb: GiB.

    Attributes:
        memory_limit: Bytes.
        safe_batch_size: Sequences of a forward that memory has not run out with, once it has; else None.

    Raises:
        ConfigError: No patcher, one that is not recognised, or a limit that is no positive number.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> patcher = Patcher(patching_mode="static", patch_size=4)
        >>> processor = MemoryOptimizedProcessor(HyenaGLT(HyenaGLTConfig.preset("tiny")), patcher, memory_limit_gb=2)
        >>> [len(batch["results"]) for batch in processor.process_with_memory_management(["ACGT"] * 40)]
        [32, 8]
    """

    def __init__(self, model: HyenaGLT, patcher: Any | None = None, memory_limit_gb: float = 8) -> None:
        if not 0 < memory_limit_gb < float("inf"):
            raise ConfigError(f"memory_limit_gb: expected a positive number of GiB, got {memory_limit_gb}")
        self.model = model
        self.patcher = usable_patcher(model, patcher)
        self.memory_limit = int(memory_limit_gb * GIB)
        self.safe_batch_size: int | None = None
        self._is_warm = False

    def process_with_memory_management(
        self, sequences: Piece | Iterable[Piece], batch_size: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Cut and run sequences in their order.

        Args:
            sequences: One or many: texts, bytes or 1-D tokens. An iterator is read as batches need it.
            batch_size: Sequences of a batch, at most. None: `estimate_optimal_batch_size`, or 32 for an iterator;
                where lengths differ much, give 32: every batch is then as large as its own sequences allow.

        Yields:
            For each batch: `batch_index` (from 0), `results` (an output for each sequence, `(1, ...)` without padding),
            `memory_peak` (bytes that the process, or the device, held at most while the batch was made, above what it
            held when the run began), `memory_estimate` (bytes that were expected) and `batch_size`.

        Raises:
            ConfigError: A batch size below 1, or a limit that one of the sequences cannot keep alone: before anything
                runs, where the sequences are no iterator and the longest one shows it.
            SystemProblem: Memory runs out with one sequence.
            PatchingError: Something that is no sequence, or an answer of a patcher that is not understood.
        """
        most = None if batch_size is None else check_batch_size(batch_size)
        meter = memory_meter(self.model.device)
        if isinstance(sequences, Iterator):
            return self._batches(sequences, most or LARGEST_BATCH, meter)
        pieces = as_pieces(sequences)
        fitting = self._optimal_batch_size(pieces, meter)
        return self._batches(iter(pieces), most or fitting, meter)

    def estimate_optimal_batch_size(self, sequences: Piece | Iterable[Piece]) -> int:
        """How many sequences as long as the longest of these go through the net at once within the limit, 1 to 32.

        The longest is cut by the patcher. The net runs once on a short sequence, to load what it needs.

        Raises:
            ConfigError: Not even one.
            PatchingError: Something that is no sequence.
        """
        return self._optimal_batch_size(as_pieces(sequences), memory_meter(self.model.device))

    def _optimal_batch_size(self, pieces: Sequence[Piece], meter: MemoryMeter) -> int:
        if not pieces:
            return LARGEST_BATCH
        loaded = self._warm_up(meter)
        cut, _ = self._attempt(partial(self._cut, [max(pieces, key=count_tokens)]), 1)
        length, num_patches = int(cut.lengths[0]), int(cut.counts[0])
        one, room = self._need(length, 1, num_patches), self.memory_limit - loaded
        least = one.alone if len(pieces) == 1 else one.steady
        if least > room:
            raise self._refusal(least, length, loaded)
        sizes = range(1, LARGEST_BATCH + 1)
        return max(1, bisect_right(sizes, room, key=lambda size: self._need(length, size, num_patches).steady))

    def _batches(self, pieces: Iterator[Piece], most: int, meter: MemoryMeter) -> Iterator[dict[str, Any]]:
        loaded = self._warm_up(meter)
        index = 0
        waiting: list[Piece] = []
        meter.begin()
        while waiting := waiting or list(islice(pieces, min(most, self.safe_batch_size or most))):
            cut, num_cut = self._attempt(partial(self._cut, waiting), self._to_cut(waiting))
            waiting, first = waiting[num_cut:], 0
            while first < num_cut:
                size, estimate = self._fitting(cut, first, meter, loaded)
                results, size = self._attempt(partial(self._run_rows, cut, first), size)
                first += size
                yield {
                    "batch_index": index,
                    "results": results,
                    "memory_peak": meter.peak(),
                    "memory_estimate": estimate,
                    "batch_size": size,
                }
                del results
                index += 1
                meter.begin()

    def _attempt(self, work: Callable[[int], Value], size: int) -> tuple[Value, int]:
        """What the work gives for so many sequences, or for half of them whenever memory runs out; and how many."""
        size = min(size, self.safe_batch_size or size)
        while True:
            try:
                return work(size), size
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = " ".join(str(error).split())[:120] or type(error).__name__
            # from here on the traceback, which held the tensors of the attempt, is gone
            WEIGHT_CACHE.clear()
            memory_meter(self.model.device).release()
            if size == 1:
                raise SystemProblem(
                    f"memory: expected enough for one sequence, got {problem!r}; cut the sequence into windows or free "
                    "memory"
                )
            size //= 2
            self.safe_batch_size = size

    def _to_cut(self, pieces: Sequence[Piece]) -> int:
        """How many sequences may be cut at once: tokens for some batches, in an eighth of the limit."""
        longest = np.maximum.accumulate([count_tokens(piece) for piece in pieces])
        padded = longest * np.arange(1, len(pieces) + 1)
        return max(1, int(np.searchsorted(padded, self.memory_limit // (8 * CUT_BYTES), side="right")))

    def _cut(self, pieces: Sequence[Piece], size: int) -> CutRows:
        rows = [tokens[tokens != PAD_ID] for tokens in map(encode_piece, pieces[:size])]
        tokens = pad_rows(rows, PAD_ID)
        check_tokens(tokens)
        with torch.no_grad(), evaluating(self.model):
            return CutRows(patch_rows(self.patcher, tokens))

    @torch.no_grad()
    def _run_rows(self, cut: CutRows, first: int, size: int) -> list[HyenaGLTOutput]:
        with evaluating(self.model):
            output = self.model._run(cut.rows(first, size), 0)
        return [output] if size == 1 else split_rows(output)

    def _warm_up(self, meter: MemoryMeter) -> int:
        """Load libraries and compiled loops once; what this run has loaded, in bytes: measured, not guessed."""
        if not self._is_warm:
            meter.begin()
            lengths = torch.full((1, WARM_UP_BASES // WARM_UP_PATCH), WARM_UP_PATCH)
            tokens = torch.full((1, WARM_UP_BASES), ord("A") + OFFSET)
            self._attempt(partial(self._run_rows, CutRows(PatchedTokens(tokens=tokens, patch_lengths=lengths)), 0), 1)
            if meter.peak() > self.memory_limit:
                raise self._refusal(meter.peak(), WARM_UP_BASES, 0)
            self._is_warm = True
        return max(meter.held(), 0)

    def _fitting(self, cut: CutRows, first: int, meter: MemoryMeter, loaded: int) -> tuple[int, int]:
        """How many rows from `first` on fit now, and how much the process is expected to hold then.

        Raises:
            ConfigError: Not even one.
        """

        def need(size: int) -> Need:
            return self._need(*cut.shape(first, size))

        sizes = range(1, cut.num_rows - first + 1)
        planned = max(1, bisect_right(sizes, self.memory_limit - loaded, key=lambda size: need(size).steady))
        expected = need(planned).alone
        for free in (None, meter.release, WEIGHT_CACHE.clear, meter.release):  # each costs more than the one before
            if free is not None:
                free()
            held = max(meter.held(), 0)
            if expected <= self.memory_limit - held:
                return planned, held + expected
        size = bisect_right(sizes, self.memory_limit - held, key=lambda size: need(size).alone)
        if not size:
            raise self._refusal(need(1).alone, int(cut.lengths[first]), held)
        return size, held + need(size).alone

    def _need(self, length: int, batch: int, num_patches: int) -> Need:
        """What a forward will take, its outputs included, beyond what the net has loaded."""
        length, num_patches = max(length, 1), max(num_patches, 1)
        net, config = self.model, self.model.config
        estimate = net.estimate_memory(length, batch, max(length / num_patches, 1))
        per_token = (config.vocab_size + config.local_hidden_size) * FLOAT + POSITION_BYTES
        outputs = batch * (length * per_token + num_patches * (config.hidden_size * FLOAT + 8))
        copies = 2 * outputs if batch > 1 else outputs
        slack = estimate.overhead_bytes - FIXED if net.device.type == "cpu" else 0
        working = int(MARGIN * (max(estimate.parts[estimate.dominant], copies) + slack))
        return Need(alone=working, steady=working + outputs)

    def _refusal(self, need: int, length: int, held: int) -> ConfigError:
        beside = f" beside the {held / GIB:.3g} GiB that this run holds, earlier results included," if held else ""
        return ConfigError(
            f"memory_limit_gb: expected at least {(need + held) / GIB:.3g} for a sequence of {length:,} bases, which "
            f"should take {need / GIB:.3g} GiB,{beside} got {self.memory_limit / GIB:.3g}; raise the limit, cut the "
            "sequence into windows, or let go of earlier results"
        )


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one batch."""

    alone: int  # the forward and its outputs
    steady: int  # the same beside the outputs of a batch before, which the caller still has


class CutRows:
    """Sequences that are cut and wait for their forward."""

    def __init__(self, patched: PatchedTokens) -> None:
        self._patched = patched
        self.num_rows = len(patched.tokens)
        self.lengths = (patched.tokens != PAD_ID).sum(1)  # (num_rows,) tokens
        self.counts = (patched.patch_lengths > 0).sum(1)  # (num_rows,) patches

    def shape(self, first: int, size: int) -> tuple[int, int, int]:
        """`(length, batch, num_patches)` of some rows."""
        last = first + size
        return int(self.lengths[first:last].max()), size, int(self.counts[first:last].max())

    def rows(self, first: int, size: int) -> PatchedTokens:
        """Some rows, without the columns that none of them uses."""
        patched, last = self._patched, first + size
        width, _, num_patches = self.shape(first, size)
        known, following, starts = patched.known_starts, patched.next_starts_patch, patched.patch_starts
        return PatchedTokens(
            tokens=patched.tokens[first:last, :width],
            patch_lengths=patched.patch_lengths[first:last, :num_patches],
            known_starts=None if known is None else known[first:last, :width],
            next_starts_patch=None if following is None else following[first:last],
            patch_starts=None if starts is None else starts[first:last, :num_patches],
        )
