"""Alleles -> windows on one or both strands -> readings -> what the variant does to the sequence.

What is summed. On each strand the log-likelihood difference is the sum of `log p(base | bases before it)` over the
ALT window minus the sum over the REF window. Only bases at or after the variant count (those before are equal in both
and a causal net says the same of them), up to the end of the window, and in both windows the same number of letters
A, C, G, T: the first n of each, where n is what the poorer window has. N never counts. So an insertion or deletion
has neither more nor fewer terms than what it is compared with.

With `rc="avg"` every number is the mean over both strands, each with its own windows. A strand on which no letter
follows the variant (a deletion up to the contig's end) is left out; with `rc="none"` the other one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np

from hyena_glt.errors import AlphabetError, ConfigError
from hyena_glt.variants.alleles import UnscoredReason, alleles_of, unscored_reason
from hyena_glt.variants.edits import Edit, edit_of, normalised
from hyena_glt.variants.readings import Reading, StreamReader, Tail, WindowReader, all_finite, can_stream, default_batch
from hyena_glt.variants.readings import cosine_distance as distance_of
from hyena_glt.variants.reference import Genome, GenomeInMemory
from hyena_glt.variants.reference_check import fetcher
from hyena_glt.variants.vcf_records import VcfRecord
from hyena_glt.variants.windows import (
    AlleleWindows,
    allele_windows,
    check_window,
    on_other_strand,
    other_strand,
    scored_places,
    window_step,
)

Strand = Literal["none", "avg"]
ALLELES_AT_ONCE = 1024  # whose windows are held in memory together
NUCLEIC = ("dna", "rna", "bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class AlleleEffect:
    """What one ALT does; every number is ALT minus REF, and None where there is a reason for having no score."""

    log_likelihood_difference: float | None = None  # nats, summed
    cosine_distance: float | None = None  # >= 0, of the mean patch states
    patch_change: float | None = None  # patches
    length_variance_change: float | None = None  # bases squared
    compression_change: float | None = None  # bases per patch
    reason: UnscoredReason | None = None

    @property
    def numbers(self) -> tuple[float | None, ...]:
        """The five in the order above."""
        return tuple(getattr(self, name) for name in NUMBERS)


NUMBERS = tuple(field.name for field in fields(AlleleEffect) if field.name != "reason")


class PlacedEdit(NamedTuple):
    """An edit, not necessarily normalised, and its contig."""

    contig: str
    edit: Edit


class _Task(NamedTuple):
    """One allele on one strand."""

    allele: int  # its index
    contig: str
    strand: int  # 0 as written, 1 the other
    windows: AlleleWindows


class VariantScorer:
    """Scores alleles with a causal net.

    Equivalent spellings of a variant give bitwise equal scores, since all are normalised first. REF windows begin at
    multiples of a 16th of `window` and are computed once for all alleles in them. On the CPU, with a patcher that can
    be streamed and in windows of 1,024 bases or more, the net's state in the middle of the REF window, just before the
    variant, is taken up for each ALT, so that only what follows is computed; then results are bitwise the same
    whatever is scored together. Elsewhere whole windows go through the net in batches, and what is scored together
    changes a sum by float rounding only.

    Args:
        net: A causal `HyenaGLT` for nucleotides, in evaluation mode, with a patcher without overlap.
        reference: An `IndexedFasta`, anything with its `length` and `fetch`, or name -> bases.
        window: Bases of context and variant together.
        rc: `"avg"`: the mean over both strands; `"none"`: the strand of the reference.
        batch_size: Windows of a forward, where they go through the net in batches; None: what suits the device.
        reuse: Take up states where the net allows it; None: where it pays.

    Raises:
        ConfigError: A net that is not causal or has no patcher, or an option out of range.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=4)).eval()
        >>> scorer = VariantScorer(net, {"chr1": b"ACGTTGCA" * 20}, window=64, rc="avg")
        >>> effect = scorer.score([PlacedEdit("chr1", Edit(70, b"G", b""))])[0]
        >>> effect.reason is None, effect.cosine_distance >= 0
        (True, True)
    """

    def __init__(
        self,
        net: Any,
        reference: Genome | Mapping[str, bytes],
        *,
        window: int = 8192,
        rc: Strand = "avg",
        batch_size: int | None = None,
        reuse: bool | None = None,
    ) -> None:
        check_window(window)
        _check_net(net)
        if rc not in ("none", "avg"):
            raise ConfigError(f"rc: expected 'none' or 'avg', got {rc!r}")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, got {batch_size}")
        self.genome: Genome = GenomeInMemory(reference) if isinstance(reference, Mapping) else reference
        self.window, self.rc, self.step = window, rc, window_step(window)
        self.reuses = can_stream(net, window) if reuse is None else reuse
        self._reader, self._streams = (
            WindowReader(net, batch_size or default_batch(net, window)),
            StreamReader(net, window // 2),
        )

    @property
    def batch_size(self) -> int:
        """Windows of a forward; smaller than asked for once memory ran out."""
        return self._reader.batch_size

    def score_records(self, records: Sequence[VcfRecord]) -> list[list[AlleleEffect]]:
        """One list per record, one effect per ALT; what cannot be scored has its reason.

        REF is not compared with the reference here; see `check_reference`.
        """
        wanted: list[PlacedEdit] = []
        effects: list[list[AlleleEffect | int]] = []
        for record in records:
            row: list[AlleleEffect | int] = []
            for index, allele in enumerate(alleles_of(record)):
                reason = unscored_reason(record, allele)
                if reason is not None:
                    row.append(AlleleEffect(reason=reason))
                    continue
                row.append(len(wanted))
                wanted.append(PlacedEdit(record.chrom, edit_of(record, index)))
            effects.append(row)
        found = self.score(wanted)
        return [[found[effect] if isinstance(effect, int) else effect for effect in row] for row in effects]

    def score(self, edits: Sequence[PlacedEdit]) -> list[AlleleEffect]:
        """One effect per edit, in order.

        Raises:
            RegionError: An unknown contig, or past its end.
            AlphabetError: The reference holds something that is no nucleotide code.
        """
        found: list[AlleleEffect] = []
        for first in range(0, len(edits), ALLELES_AT_ONCE):
            found += self._score_some(edits[first : first + ALLELES_AT_ONCE])
        return found

    def _score_some(self, edits: Sequence[PlacedEdit]) -> list[AlleleEffect]:
        tasks = [task for index, edit in enumerate(edits) for task in self._tasks(index, edit)]
        strands: list[list[tuple[float, ...]]] = [[] for _ in edits]
        for task, numbers in self._computed(tasks):
            strands[task.allele].append(numbers)
        return [_mean_effect(parts) for parts in strands]

    def _tasks(self, index: int, placed: PlacedEdit) -> Iterator[_Task]:
        contig, edit = placed
        length, fetch = self.genome.length(contig), fetcher(self.genome, contig)
        try:
            edit = normalised(edit, fetch)
            windows = allele_windows(edit, fetch, length, self.window, self.step)
            usable = windows.num_scored > 0
            if usable:
                yield _Task(index, contig, 0, windows)
            if usable and self.rc == "none":
                return
            fetch = other_strand(fetch, length)
            windows = allele_windows(on_other_strand(edit, fetch, length), fetch, length, self.window, self.step)
        except AlphabetError as error:
            raise AlphabetError(f"reference near base {edit.start + 1:,}: {error.message}", record=contig) from None
        if windows.num_scored:
            yield _Task(index, contig, 1, windows)

    def _computed(self, tasks: Sequence[_Task]) -> Iterator[tuple[_Task, tuple[float, ...]]]:
        """Tasks in any order, with their five numbers."""
        if not self.reuses:
            yield from self._computed_whole(tasks)
            return
        for _, group in groupby(sorted(tasks, key=_shared_window), key=_shared_window):
            sharing = list(group)
            tails = [Tail(task.windows.first, task.windows.alt) for task in sharing]
            reference, readings = self._streams.read(sharing[0].windows.ref, tails)
            for task, reading in zip(sharing, readings, strict=True):
                yield task, _numbers(task.windows, reference, reading)

    def _computed_whole(self, tasks: Sequence[_Task]) -> Iterator[tuple[_Task, tuple[float, ...]]]:
        """Each REF window once, then the ALT windows."""
        tasks = sorted(tasks, key=_shared_window)
        references = list(dict.fromkeys(task.windows.ref for task in tasks))
        read = dict(zip(references, self._reader.read(references), strict=True))
        alternatives = self._reader.read([task.windows.alt for task in tasks if task.windows.alt not in read])
        for task in tasks:
            known = read.get(task.windows.alt)
            yield task, _numbers(task.windows, read[task.windows.ref], next(alternatives) if known is None else known)


def _shared_window(task: _Task) -> tuple[str, int, int, int]:
    return task.contig, task.strand, task.windows.start, len(task.windows.ref)


def _numbers(windows: AlleleWindows, reference: Reading, alternative: Reading) -> tuple[float, ...]:
    count = windows.num_scored
    ref = reference.log_likelihood_at(scored_places(windows.ref, windows.first, count))
    alt = alternative.log_likelihood_at(scored_places(windows.alt, windows.first, count))
    return (
        alt - ref,
        distance_of(reference.mean_state, alternative.mean_state),
        float(alternative.patch_lengths.size - reference.patch_lengths.size),
        alternative.length_variance - reference.length_variance,
        alternative.bases_per_patch - reference.bases_per_patch,
    )


def _mean_effect(strands: Sequence[tuple[float, ...]]) -> AlleleEffect:
    if not strands:
        return AlleleEffect(reason=UnscoredReason.NO_LETTER)
    means = [float(value) for value in np.mean(np.array(strands), axis=0)]
    if not all_finite(means):
        return AlleleEffect(reason=UnscoredReason.NOT_FINITE)
    difference, distance, patches, variance, compression = means
    return AlleleEffect(
        log_likelihood_difference=difference,
        cosine_distance=distance,
        patch_change=patches,
        length_variance_change=variance,
        compression_change=compression,
    )


def _check_net(net: Any) -> None:
    if not net.config.causal:
        raise ConfigError("net: expected a causal net, got causal=False; it sees the bases that it would predict")
    if net.config.alphabet_name not in NUCLEIC:
        raise ConfigError(f"net: expected one for nucleotides, got one for {net.config.alphabet_name}")
    if getattr(net.patcher(), "overlap", 0):
        raise ConfigError("overlap: expected a patcher without overlap, since shared bases would count twice")
