"""A genome through the net shard by shard, and its vectors into a table.

genome -> patched blocks -> windows -> shards of rows (OUT.parts) -> rows of windows, patches or records -> table
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from hyena_glt.__about__ import __version__
from hyena_glt.cli.embed_shards import Shards
from hyena_glt.cli.embed_tables import ROWS_AT_A_TIME, TableRows, VectorTable, write_table
from hyena_glt.cli.outputs import STDOUT
from hyena_glt.cli.parts import open_parts, parts_folder
from hyena_glt.cli.plan import PatchOptions, PatchPlan, make_plan
from hyena_glt.cli.runtime import note, progress
from hyena_glt.cli.source import GenomeSource
from hyena_glt.errors import DataError, UsageError
from hyena_glt.model import HyenaGLT
from hyena_glt.patching.block_decisions import depends_on_place
from hyena_glt.patching.genome import patch_blocks
from hyena_glt.processing.embedder import patching_rule, with_cap
from hyena_glt.processing.embedding import (
    EmbeddingRows,
    Pool,
    Window,
    WindowCutter,
    embed_rows,
    other_strand,
    pool_records,
)
from hyena_glt.sequences.records import Block
from hyena_glt.tracks.provenance import Provenance

SHARD_BASES = 1 << 20  # a shard is closed by the batch that reaches this many bases
SHARD_NUMBERS = 1 << 24  # or this many numbers
NUCLEIC = {"dna", "rna"}


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """What a row is, and how its vector is made."""

    per: str  # record, region, window or patch
    pool: Pool
    layer: int
    both_strands: bool
    window: int  # bases
    batch_size: int  # windows

    def describe(self) -> dict[str, Any]:
        """For provenance."""
        strands = "avg" if self.both_strands else "none"
        return {"per": self.per, "pool": self.pool, "layer": self.layer, "rc": strands, "window": self.window}


class EmbedRun:
    """Embeds every record of a genome.

    Args:
        net: The model.
        weights: What its weights are.
        source: The genome.
        plan: How it is patched; no patch is longer than a window.
        options: What the rows are.
    """

    def __init__(
        self, net: HyenaGLT, weights: str, source: GenomeSource, plan: PatchPlan, options: EmbedOptions
    ) -> None:
        self.plan = replace(plan, args=with_cap(plan.args, options.window))
        self.net, self.weights, self.source, self.options = net, weights, source, options
        if options.both_strands and depends_on_place(plan.model):
            raise UsageError("--rc avg: this patcher scores bases by their place, which the other strand does not have")
        depth = net.config.num_layers
        if not -depth - 1 <= options.layer <= depth:
            raise UsageError(f"--layer: expected {-depth - 1} to {depth} for this net, got {options.layer}")
        self._cutter = WindowCutter(options.window)

    def origin(self) -> Provenance:
        """What the table says about itself."""
        details = {**self.plan.describe(), "weights": self.weights, **self.options.describe()}
        return self.source.provenance().extended(details)

    def describe(self) -> dict[str, Any]:
        """What finished shards belong to: everything that their numbers depend on."""
        source = self.source
        return {
            "hyena_glt_version": __version__,
            "input_sha256": source.sha256,
            "alphabet": source.alphabet.name,
            "degap": source.degap,
            "regions": [list(region) for region in source.regions],
            "weights": self.weights,
            **self.plan.describe(),
            **self.options.describe(),
            "batch_size": self.options.batch_size,
            "device": self.net.device.type,
            "shard": [SHARD_BASES, SHARD_NUMBERS],
        }

    def write(self, output: Path, kind: str, *, with_header: bool, force: bool) -> int:
        """Write the table; returns its number of rows.

        Args:
            output: The table.
            kind: Its format.
            with_header: Say in it by which version and command it was made.
            force: Replace what an interrupted run of another kind left.

        Raises:
            DataError: Bad input, or no record holds a letter.
            OutputExistsError: An interrupted run with other input, weights or options left its shards.
        """
        with _shards_of(output, self.describe(), force) as shards:
            counts = self._make_shards(shards)
            origin = self.origin()
            if not counts.windows:
                raise DataError("no letter in the input, so nothing to embed", path=self.source.name)
            per_record = self.options.per in ("record", "region")
            rows = counts.records if per_record else counts.rows
            pieces = partial(self._pieces, shards, counts.shards, per_record)
            width = max(len(span.name) for span in self._cutter.spans)
            table = VectorTable(rows, self.net.config.hidden_size, width, pieces, origin, with_header)
            write_table(output, kind, table)
        return rows

    def _make_shards(self, shards: Shards) -> _Counts:
        counts = _Counts()
        survey = self.plan.survey
        with progress("embedding", survey.symbols if survey else None) as advance:
            batches = self._batches(self._windows(counts))
            for batch in batches:
                own = chain([batch], batches)
                shard = list(self._of_one_shard(own))
                counts.windows += sum(map(len, shard))
                rows = shards.find(counts.shards)
                if rows is None:
                    rows = self._embedded(shard, advance)
                    shards.write(counts.shards, rows)
                else:
                    advance(sum(len(window.sequence) for window in chain(*shard)))
                counts.rows += len(rows)
                counts.shards += 1
        self._say_what_is_left_out(counts)
        return counts

    def _embedded(self, batches: list[list[Window]], advance: Callable[[int], None]) -> EmbeddingRows:
        options = self.options
        flip = partial(other_strand, alphabet=self.source.alphabet, cut=self._cut) if options.both_strands else None
        parts: list[EmbeddingRows] = []
        for batch in batches:
            parts += embed_rows(self.net, batch, len(batch), pool=options.pool, layer=options.layer, flip=flip)
            advance(sum(len(window.sequence) for window in batch))
        return EmbeddingRows.joined(parts)

    def _windows(self, counts: _Counts) -> Iterator[Window]:
        plan, source = self.plan, self.source
        blocks = patch_blocks(source.blocks(), source.alphabet, plan.model, plan.args_of, entropies=False)
        for window in self._cutter.windows(blocks):
            if window.record != counts.last_record:
                counts.records += 1
                counts.empty += range(counts.last_record + 1, window.record)
                counts.last_record = window.record
            yield window

    def _say_what_is_left_out(self, counts: _Counts) -> None:
        spans = self._cutter.spans
        for record in chain(counts.empty, range(counts.last_record + 1, len(spans))):
            note(f"{spans[record].name}: holds no letter, left out")

    def _batches(self, windows: Iterator[Window]) -> Iterator[list[Window]]:
        while batch := list(islice(windows, self.options.batch_size)):
            yield batch

    def _of_one_shard(self, batches: Iterator[list[Window]]) -> Iterator[list[Window]]:
        """Batches until the shard is full; that depends on the windows alone, so every run has the same shards."""
        bases = numbers = 0
        for batch in batches:
            yield batch
            bases += sum(len(window.sequence) for window in batch)
            rows = sum(window.patch_lengths.size for window in batch) if self.options.per == "patch" else len(batch)
            numbers += rows * self.net.config.hidden_size
            if bases >= SHARD_BASES or numbers >= SHARD_NUMBERS:
                return

    def _cut(self, sequence: bytes) -> np.ndarray:
        """Patch lengths of a sequence by itself."""
        block = Block("", "", 0, sequence, True, 0)
        blocks = patch_blocks([block], self.source.alphabet, self.plan.model, self.plan.args, entropies=False)
        return np.concatenate([patched.lengths for patched in blocks])

    def _pieces(self, shards: Shards, num_shards: int, per_record: bool) -> Iterator[TableRows]:
        rows: Iterator[EmbeddingRows] = map(shards.read, range(num_shards))
        if per_record:
            rows = map(self._whole_spans, pool_records(rows, self.options.pool))
        spans = self._cutter.spans
        for piece in _rebatched(rows, ROWS_AT_A_TIME):
            names = [spans[record].name for record in piece.records.tolist()]
            yield TableRows(names, piece.starts, piece.ends, piece.patches, piece.vectors)

    def _whole_spans(self, rows: EmbeddingRows) -> EmbeddingRows:
        """Rows of records with the records' own bounds: the first or last window may be of N alone and left out."""
        spans = [self._cutter.spans[record] for record in rows.records.tolist()]
        starts, ends = np.array([span.start for span in spans]), np.array([span.end for span in spans])
        return EmbeddingRows(rows.records, starts, ends, rows.patches, rows.vectors)


class _Counts:
    """What one pass has seen."""

    def __init__(self) -> None:
        self.windows = self.rows = self.shards = self.records = 0
        self.last_record = -1
        self.empty: list[int] = []  # records without a letter, before the last one that has one


def plan_for(net: HyenaGLT, source: GenomeSource, options: PatchOptions) -> PatchPlan:
    """How a genome is patched for a net: by the options, else by the net's own patcher, else as fits the genome.

    Raises:
        UsageError: The net is for another alphabet.
        DataError: The input is bad.
    """
    known, asked = net.config.alphabet_name, source.alphabet.name
    if known not in ("bytes", asked) and not {known, asked} <= NUCLEIC:
        raise UsageError(f"the net knows {known}, the input is {asked}; give --alphabet {known} or another --model")
    patcher = net.external_patcher
    rules = (options.patcher, options.target_length, options.threshold, options.max_patch_length)
    if patcher is None or any(rule is not None for rule in rules):
        return make_plan(source, options, survey=True)
    rule = patching_rule(patcher, source.alphabet.name)
    if rule is None:
        note("the net's patcher has no fitted entropy model; the patches are calibrated on the input")
        return make_plan(source, options, survey=True)
    return PatchPlan(args=rule[0], model=rule[1], survey=None)


@contextmanager
def _shards_of(output: Path, run: dict[str, Any], force: bool) -> Iterator[Shards]:
    """The shards beside an output; those of stdout are temporary."""
    if output != STDOUT:
        with open_parts(parts_folder(output), run, force=force) as parts:
            yield Shards(parts)
        return
    with (
        tempfile.TemporaryDirectory(prefix="hyena-glt-embed-") as folder,
        open_parts(Path(folder, "parts"), run, force=force) as parts,
    ):
        yield Shards(parts)


def _rebatched(parts: Iterator[EmbeddingRows], size: int) -> Iterator[EmbeddingRows]:
    """The same rows in pieces of `size`, the last of fewer."""
    held: list[EmbeddingRows] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count < size:
            continue
        whole = EmbeddingRows.joined(held)
        full = count - count % size
        for first in range(0, full, size):
            yield whole.between(first, first + size)
        held, count = [whole.between(full, count)], count - full
    if count:
        yield EmbeddingRows.joined(held)
