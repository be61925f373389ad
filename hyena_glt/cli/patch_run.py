"""One genome patched into its files, and the totals of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hyena_glt.cli.outputs import write_json
from hyena_glt.cli.plan import PatchPlan
from hyena_glt.cli.runtime import prefetched, progress
from hyena_glt.cli.source import GenomeSource
from hyena_glt.cli.writers import open_patch_writer, open_value_writer
from hyena_glt.errors import DataError
from hyena_glt.patching.genome import PatchedBlock, patch_blocks
from hyena_glt.tracks.patches import PatchBatch, PatchWriter
from hyena_glt.tracks.provenance import Provenance
from hyena_glt.tracks.values import ValueBatch, ValueWriter

if TYPE_CHECKING:
    from hyena_glt.analysis import BoundaryEnrichment

Output = tuple[Path, str]  # where, and in which format


@dataclass(slots=True)
class ContigStats:
    """Totals of one contig, or of one region of it."""

    name: str
    start: int  # 0-based
    bases: int = 0
    patches: int = 0
    ambiguous_bases: int = 0  # N and other ambiguity symbols
    ambiguous_patches: int = 0  # their runs
    max_length: int = 0
    surprise: float = 0.0  # nats, summed over all bases
    seconds: float = 0.0

    def add(self, other: ContigStats) -> None:
        """Count what another part has."""
        self.bases += other.bases
        self.patches += other.patches
        self.ambiguous_bases += other.ambiguous_bases
        self.ambiguous_patches += other.ambiguous_patches
        self.max_length = max(self.max_length, other.max_length)
        self.surprise += other.surprise
        self.seconds += other.seconds

    @property
    def mean_called_length(self) -> float:
        """Bases per patch without the runs of ambiguity symbols; what calibration aims at."""
        patches = self.patches - self.ambiguous_patches
        return (self.bases - self.ambiguous_bases) / patches if patches else 0.0

    @property
    def bits_per_base(self) -> float:
        """Mean surprise of the letters; of the completed patches while the contig is read."""
        letters = self.bases - self.ambiguous_bases
        return self.surprise / letters / math.log(2.0) if letters else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The keys of `stats.json`."""
        return {
            "bases": self.bases,
            "patches": self.patches,
            "mean_length": self.bases / self.patches if self.patches else 0.0,
            "max_length": self.max_length,
            "ambiguous_bases": self.ambiguous_bases,
            "ambiguous_patches": self.ambiguous_patches,
            "mean_called_length": self.mean_called_length,
            "seconds": self.seconds,
            "bases_per_second": self.bases / self.seconds if self.seconds else 0.0,
        }


class PatchRun:
    """Patches a genome into its writers.

    Args:
        plan: Model and rule.
        origin: What the outputs say about themselves.
        threads: More than one reads and scores ahead in the background.
        with_header: Write the provenance into text outputs.
        enrichment: Counts what the boundaries coincide with; None does not.
        flush: Let every patch be seen as soon as it is written.
        started: When the command began to read, as `time.perf_counter` tells it.
    """

    def __init__(
        self,
        plan: PatchPlan,
        origin: Provenance,
        *,
        threads: int,
        with_header: bool,
        started: float,
        enrichment: BoundaryEnrichment | None = None,
        flush: bool = False,
    ) -> None:
        self.plan, self.origin, self.threads, self._flush = plan, origin, threads, flush
        self.enrichment = enrichment
        self._starts: list[np.ndarray] = []  # of the patches of the current contig, where they are wanted
        self._header = origin if with_header else None
        self.contigs: list[ContigStats] = []
        self._started = started

    def write(self, source: GenomeSource, patches: Output, values: Output | None) -> None:
        """Patch everything; the files get their names when all of it is done.

        Raises:
            DataError: Bad input, or none.
        """
        with ExitStack() as files:
            value_writer = None
            if values is not None:
                survey = self.plan.survey
                lengths = survey.contig_lengths if survey else {}
                value_writer = files.enter_context(open_value_writer(*values, self._header, self.origin, lengths))
            patch_writer = files.enter_context(open_patch_writer(*patches, self._header, flush=self._flush))
            for patched in self._patched(source, entropies=value_writer is not None):
                _write_block(patched, patch_writer, value_writer)
                if self.enrichment is not None:
                    self._count_boundaries(self.enrichment, patched)
            if not self.contigs:
                raise DataError("no sequence in the input", path=source.name)

    def totals(self) -> ContigStats:
        """All contigs together; the seconds are those of the whole run."""
        whole = ContigStats("", 0)
        for contig in self.contigs:
            whole.add(contig)
        whole.seconds = time.perf_counter() - self._started
        return whole

    def summary(self) -> str:
        """One line for a person."""
        whole, plan = self.totals().as_dict(), self.plan
        rule = f"mode {plan.args.patching_mode}" if plan.threshold is None else f"threshold {plan.threshold:.8g} nats"
        if plan.half_life is not None:
            rule += " to begin with"
        elif plan.contigs is not None:
            rule += f" ({len(plan.contigs.contigs)} contigs have their own)"
        runs = f" ({whole['mean_called_length']:.2f} without ambiguous symbols)" if whole["ambiguous_bases"] else ""
        return (
            f"{whole['bases']:,} bases in {whole['patches']:,} patches, mean length {whole['mean_length']:.2f}{runs}, "
            f"{rule}, {self._model_in_words()}"
        )

    def write_stats(self, path: Path) -> None:
        """Write `stats.json`: totals at the top level, the same for each contig in `contigs`."""
        shared = {"threshold": self.plan.threshold, "entropy_model": self._described_model()}
        contigs = [{"name": c.name, "start": c.start, **c.as_dict(), **shared} for c in self.contigs]
        content = {
            **self.totals().as_dict(),
            **shared,
            "target_length": self.plan.target_length,
            "provenance": self.origin.as_dict(),
            **({} if self.enrichment is None else {"enrichment": self.enrichment.summary()}),
            "contigs": contigs,
        }
        write_json(path, content)

    def _count_boundaries(self, enrichment: BoundaryEnrichment, patched: PatchedBlock) -> None:
        """Keep the starts of a contig until it is whole."""
        self._starts.append(patched.patch_start + patched.lengths.cumsum() - patched.lengths)
        if patched.block.last:
            length = patched.block.start + len(patched.block.sequence)
            enrichment.add(patched.block.name, length, np.concatenate(self._starts))
            self._starts = []

    def _described_model(self) -> dict[str, Any]:
        """What the model says of itself; one that was not fitted has the bits per base of this input, as it read it."""
        known = {key: value for key, value in self.plan.model.describe().items() if value is not None}
        is_track = hasattr(self.plan.model, "contig")
        return {"order": None, "bits_per_base": None if is_track else self.totals().bits_per_base, **known}

    def _model_in_words(self) -> str:
        facts = self._described_model()
        order = "" if facts["order"] is None else f" order {facts['order']}"
        if facts["bits_per_base"] is None:
            return str(facts["name"])
        held_out = " held out" if self.plan.model.describe().get("bits_per_base") is not None else ""
        return f"{facts['name']}{order} ({facts['bits_per_base']:.4f} bits per base{held_out})"

    def _patched(self, source: GenomeSource, *, entropies: bool) -> Iterator[PatchedBlock]:
        """The patched blocks, counted as they have been used."""
        survey, plan = self.plan.survey, self.plan
        begins = True
        clock = time.perf_counter()
        with progress("patching", survey.symbols if survey else None) as advance:
            ahead = partial(prefetched, threads=self.threads)
            blocks = source.blocks()
            for patched in patch_blocks(
                blocks,
                source.alphabet,
                plan.model,
                plan.args_of,
                entropies=entropies,
                half_life=plan.half_life,
                ahead=ahead,
            ):
                yield patched
                now = time.perf_counter()
                if begins:
                    self.contigs.append(ContigStats(patched.block.name, patched.block.start))
                self.contigs[-1].add(_block_stats(patched, now - clock))
                begins, clock = patched.block.last, now
                advance(len(patched.block.sequence))


def _block_stats(patched: PatchedBlock, seconds: float) -> ContigStats:
    return ContigStats(
        name=patched.block.name,
        start=patched.block.start,
        bases=len(patched.block.sequence),
        patches=patched.lengths.size,
        ambiguous_bases=int(np.count_nonzero(patched.ambiguous)),
        ambiguous_patches=patched.ambiguous_patches,
        max_length=int(patched.lengths.max(initial=0)),
        surprise=float((patched.mean_surprises * patched.lengths).sum()),
        seconds=seconds,
    )


def _write_block(patched: PatchedBlock, patches: PatchWriter, values: ValueWriter | None) -> None:
    block = patched.block
    if patched.lengths.size:
        batch = PatchBatch(block.name, patched.patch_start, patched.lengths, patched.mean_surprises)
        patches.write(batch)
    if values is not None and patched.entropies is not None:
        values.write(ValueBatch(block.name, block.start, patched.entropies, patched.ambiguous))
