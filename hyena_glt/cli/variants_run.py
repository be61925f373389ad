"""A VCF file through a net: records in, shards of scores, the same records with their scores out.

records -> REF check, regions -> shards -> scores (kept in OUT.parts/ until the end) -> VCF, table
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from hyena_glt.__about__ import __version__
from hyena_glt.cli.outputs import STDOUT, already_done, command_line, same_file, write_json
from hyena_glt.cli.runtime import note, progress
from hyena_glt.cli.source import check_stdin
from hyena_glt.cli.variants_parts import ShardScores, beside, kept_shards, row_of
from hyena_glt.errors import DataError
from hyena_glt.sequences.atomic import atomic_write, is_stream, sha256_file
from hyena_glt.sequences.quoting import quoted, shown
from hyena_glt.sequences.regions import Region, check_regions, wanted_regions
from hyena_glt.tracks.provenance import Provenance, beside_details
from hyena_glt.variants.alleles import UnscoredReason
from hyena_glt.variants.reference import Genome, open_reference
from hyena_glt.variants.reference_check import check_reference
from hyena_glt.variants.scoring import AlleleEffect, VariantScorer
from hyena_glt.variants.skipped import RecordTally, SkippedRecords
from hyena_glt.variants.vcf_header import InfoField
from hyena_glt.variants.vcf_reader import VcfReader
from hyena_glt.variants.vcf_records import VcfRecord, split_info, without_line_end
from hyena_glt.variants.vcf_writer import Value, VcfWriter, index_vcf, open_vcf_writer

MOST_RECORDS = 512  # of a shard
SHARD_BASES = 1 << 22  # of the windows of a shard, about
INDEX_ENDINGS = (".tbi", ".csi")
REASON = "HGLT_REASON"
FIELDS = (
    InfoField(
        "HGLT_LLR", "A", "Float", "Log-likelihood of the ALT window minus that of the REF window, nats, equal lengths"
    ),
    InfoField("HGLT_DIST", "A", "Float", "Cosine distance of the mean patch states of the REF and the ALT window"),
    InfoField("HGLT_DPATCH", "A", "Float", "Number of patches of the ALT window minus that of the REF window"),
    InfoField("HGLT_DVAR", "A", "Float", "Variance of the patch lengths, ALT window minus REF window, bases squared"),
    InfoField("HGLT_DCOMP", "A", "Float", "Bases per patch, ALT window minus REF window"),
    InfoField(REASON, "A", "String", "Why an ALT has no score: " + " ".join(UnscoredReason)),
)
TSV_HEADER = ["CHROM", "POS", "ID", "REF", "ALT", *(item.id for item in FIELDS)]


@dataclass(frozen=True, kw_only=True)
class VariantOptions:
    """The options of a command line."""

    reference: Path
    calls: Path
    output: Path
    model: Path | None
    untrained: bool
    size: str
    window: int
    rc: Literal["avg", "none"]
    regions: tuple[str, ...]
    regions_file: Path | None
    write_index: bool
    skips: bool
    strict: bool
    tsv: bool
    batch_size: int
    seed: int
    device: str
    threads: int
    with_header: bool
    as_json: bool
    force: bool

    @property
    def table(self) -> Path | None:
        """Where `--tsv` goes: beside the output."""
        return beside(self.output, ".tsv") if self.tsv else None

    @property
    def skipped_table(self) -> Path | None:
        """Where skipped records are listed."""
        return beside(self.output, ".skipped.tsv") if self.skips and not is_stream(self.output) else None


@dataclass
class Counts:
    """What became of the records and alleles that were written."""

    scored: int = 0
    kept: int = 0
    failed: int = 0
    alleles: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, effects: Sequence[AlleleEffect]) -> None:
        """Count one record."""
        reasons = [effect.reason for effect in effects]
        self.alleles += len(effects)
        self.reasons.update(str(reason) for reason in reasons if reason is not None)
        if None in reasons:
            self.scored += 1
        elif UnscoredReason.NOT_FINITE in reasons:
            self.failed += 1
        else:
            self.kept += 1

    def tally(self, skipped: int) -> RecordTally:
        """With the records that were left out."""
        return RecordTally(self.scored, self.kept, skipped, self.failed)


def run_variants(options: VariantOptions) -> None:
    """Do what the command line says.

    Raises:
        UsageError: A file that is named twice, or an existing output.
        DataError: Bad input; over half of the records skipped, none scored, or a score that is not finite.
        SystemProblem: Disk, permission, device.
    """
    read = [path for path in (options.reference, options.calls, options.regions_file) if path not in (None, STDOUT)]
    same_file([*read, options.output, options.table, options.skipped_table])
    wanted = wanted_regions(options.regions, options.regions_file, overlapping="merged")
    if options.calls == STDOUT:
        check_stdin()
    with _on_disk(options) as calls, open_reference(options.reference) as genome:
        check_regions(wanted, genome.lengths, str(options.reference))
        origin = _Origin(options, calls)
        outputs = [path for path in (options.output, options.table, options.skipped_table) if path is not None]
        if already_done(outputs, origin.provenance, options.force):
            _index_if_missing(options, genome)
            _refuse_failed(_failed_in(options.output), options)
            return
        run = _VariantRun(options, calls, genome, wanted, origin)
        with kept_shards(options.output, run.key, force=options.force) as parts:
            tally = run.write(parts)
    for ending in INDEX_ENDINGS:  # of an output that is replaced
        beside(options.output, ending).unlink(missing_ok=True)
    if options.write_index:
        index_vcf(options.output, max_end=max(run.max_end, *genome.lengths.values()), overwrite=True)
    note(str(tally))
    if options.as_json:
        write_json(STDOUT, run.summary(tally))
    _refuse_failed(tally.num_failed, options)


def _refuse_failed(count: int, options: VariantOptions) -> None:
    if count:
        raise DataError(f"{count:,} records have no finite score (not_finite)", path=_shown(options.calls))


def _failed_in(output: Path) -> int:
    """Records of a finished output that have no score, one allele at least because the net gave no finite one."""
    with VcfReader(output) as reader:
        reasons = [_reasons(record) for record in reader]
    return sum(UnscoredReason.NOT_FINITE in found and "." not in found for found in reasons)


def _reasons(record: VcfRecord) -> list[str]:
    """Why each allele of a written record has no score; `.` where it has one."""
    info = split_info(without_line_end(record.raw).split(b"\t")[7])
    name = f"{REASON}=".encode()
    return next((item[len(name) :].decode().split(",") for item in info if item.startswith(name)), [])


class _Origin:
    """What the output says about where it came from; the files are hashed when that is asked for, once."""

    def __init__(self, options: VariantOptions, calls: Path) -> None:
        self._options, self._calls = options, calls

    @cached_property
    def hashes(self) -> tuple[str, str]:
        """Of the reference and of the VCF."""
        return sha256_file(self._options.reference), sha256_file(self._calls)

    def provenance(self) -> Provenance:
        """The command as typed, and what it read; of a stream there is no hash."""
        read = [*self.hashes, weights_hash(self._options)] if self._calls != STDOUT else []
        digest = hashlib.sha256(" ".join(read).encode()).hexdigest() if read else None
        details = {"input": f"{self._options.reference} {self._options.calls}", "input_sha256": digest}
        details |= beside_details([self._options.regions_file])
        return Provenance(command_line(), details)


class _VariantRun:
    """One run, its net loaded."""

    def __init__(
        self, options: VariantOptions, calls: Path, genome: Genome, wanted: Sequence[Region], origin: _Origin
    ) -> None:
        self.options, self._calls, self._genome, self._wanted = options, calls, genome, wanted
        net, self.weights = _open_net(options)
        self._scorer = VariantScorer(
            net,
            genome,
            window=options.window,
            rc=options.rc,
            batch_size=None if net.device.type == "cpu" else options.batch_size,
        )
        self._files = origin
        self._origin = origin.provenance().extended(
            {"weights": self.weights, "window": options.window, "rc": options.rc}
        )
        self._counts = Counts()
        self.max_end = 0

    def key(self) -> dict[str, Any]:
        """What has to be equal for a run to be taken up."""
        options = self.options
        return {
            "version": __version__,
            "reference": self._files.hashes[0],
            "calls": self._files.hashes[1],
            "weights": f"{self.weights} {weights_hash(options)}".strip(),
            "window": options.window,
            "rc": options.rc,
            "regions": [list(region) for region in self._wanted],
            "on_bad_record": "skip" if options.skips else "stop",
        }

    def write(self, parts: ShardScores) -> RecordTally:
        """Score everything; the files get their names when all of it is done."""
        options = self.options
        with ExitStack() as files:
            origin = self._origin if options.with_header else None
            comments = "" if origin is None else origin.as_comments().decode()
            skipped = files.enter_context(SkippedRecords(options.skipped_table, overwrite=True, comments=comments))
            reader = files.enter_context(
                VcfReader(self._calls, skipped=skipped if options.skips else None, require_sorted=options.write_index)
            )
            table = None
            if options.table is not None:
                table = files.enter_context(atomic_write(options.table, "w", overwrite=True))
                table.write(comments + "\t".join(TSV_HEADER) + "\n")
            writer = files.enter_context(open_vcf_writer(options.output, reader.header, FIELDS, origin, overwrite=True))
            with progress("scoring", unit="records") as advance:
                for record, effects in self._scored(self._records(reader, skipped), parts):
                    self._write_record(record, effects, writer, table)
                    advance(1)
            self.max_end = reader.max_end
            tally = self._counts.tally(skipped.num_skipped)
            tally.check(_shown(options.calls))
        return tally

    def summary(self, tally: RecordTally) -> dict[str, Any]:
        """For `--json`."""
        return {
            "output": str(self.options.output),
            "records": tally.num_records,
            "scored": tally.num_scored,
            "kept_without_score": tally.num_kept,
            "skipped": tally.num_skipped,
            "failed": tally.num_failed,
            "alleles": self._counts.alleles,
            "reasons": dict(sorted(self._counts.reasons.items())),
            "provenance": self._origin.as_dict(),
        }

    def _records(self, reader: VcfReader, skipped: SkippedRecords) -> Iterator[VcfRecord]:
        """The records that were asked for and whose REF is that of the reference."""
        wanted = _WantedPlaces(self._wanted)
        for record in reader:
            if self._wanted and not wanted.holds(record):
                continue
            try:
                check_reference(record, self._genome, _shown(self.options.calls))
            except DataError as problem:
                if not self.options.skips:
                    raise
                skipped.add(problem)
                continue
            yield record

    def _scored(
        self, records: Iterable[VcfRecord], parts: ShardScores
    ) -> Iterator[tuple[VcfRecord, list[AlleleEffect]]]:
        waiting = iter(records)
        size = max(1, min(MOST_RECORDS, SHARD_BASES // self.options.window))
        number = 0
        while shard := list(islice(waiting, size)):
            effects = parts.load(number, shard)
            if effects is None:
                effects = self._scorer.score_records(shard)
                parts.save(number, shard, effects)
            yield from zip(shard, effects, strict=True)
            number += 1

    def _write_record(
        self, record: VcfRecord, effects: list[AlleleEffect], writer: VcfWriter, table: IO[str] | None
    ) -> None:
        if self.options.strict:
            _refuse_unscored(record, effects, _shown(self.options.calls))
        self._counts.add(effects)
        columns = [row_of(effect) for effect in effects]
        writer.write(record, {item.id: [row[i] for row in columns] for i, item in enumerate(FIELDS)})
        if table is not None:
            place = [record.chrom, str(record.pos), _identifier(record), record.ref.decode()]
            for alt, row in zip(record.alts or (b".",), columns, strict=True):
                table.write("\t".join([*place, alt.decode(), *map(_cell, row)]) + "\n")


@contextmanager
def _on_disk(options: VariantOptions) -> Iterator[Path]:
    """The VCF as a file: stdin is spooled where the output is a file, so that the run can be taken up and is hashed."""
    if options.calls != STDOUT or options.output == STDOUT:
        yield options.calls
        return
    with tempfile.NamedTemporaryFile(prefix="hyena-glt-stdin-") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool, 1 << 20)
        spool.flush()
        try:
            yield Path(spool.name)
        except DataError as problem:
            if problem.path != spool.name:
                raise
            raise type(problem)(problem.message, path="-", line=problem.line, record=problem.record) from None


def _open_net(options: VariantOptions) -> tuple[Any, str]:
    """The net with a patcher, and what it is."""
    from hyena_glt.cli.nets import open_net

    net, label = open_net(
        options.model,
        untrained=options.untrained,
        size=options.size,
        seed=options.seed,
        device=options.device,
        threads=options.threads,
    )
    if net.merger is None and net.external_patcher is None and net.config.use_external_patcher:
        net.external_patcher, words = _fitted_patcher(options)
        note(f"the net has no patcher; {words}")
        label = f"{label}; {words}"
    return net, label


def _fitted_patcher(options: VariantOptions) -> tuple[Any, str]:
    """A patcher fitted on the reference, and its description."""
    from hyena_glt.cli.plan import PatchOptions, make_plan
    from hyena_glt.cli.source import open_genome

    with open_genome(options.reference, "dna", threads=options.threads) as source:
        args = make_plan(source, PatchOptions(threads=options.threads)).args
    return args.build(), f"one is fitted on the reference, threshold {args.threshold:.8g} nats"


def weights_hash(options: VariantOptions) -> str:
    """Of the manifest of the net's folder; empty for random weights."""
    from hyena_glt.model.shipped import SHIPPED_FOLDER
    from hyena_glt.model.weights import MANIFEST_FILE

    manifest = (options.model or SHIPPED_FOLDER) / MANIFEST_FILE
    return sha256_file(manifest) if manifest.is_file() and not options.untrained else ""


def _index_if_missing(options: VariantOptions, genome: Genome) -> None:
    if options.write_index and not any(beside(options.output, end).exists() for end in INDEX_ENDINGS):
        index_vcf(options.output, max_end=max(genome.lengths.values()))


def _refuse_unscored(record: VcfRecord, effects: Sequence[AlleleEffect], path: str) -> None:
    for alt, effect in zip(record.alts or (b".",), effects, strict=True):
        if effect.reason is not None:
            words = (
                f"ALT {quoted(alt)} cannot be scored: {effect.reason}; leave out --strict to keep it without a score"
            )
            raise DataError(words, path=path, line=record.line, record=record.place)


class _WantedPlaces:
    """Regions that do not overlap, for looking up one record in many."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self._starts: dict[str, list[int]] = {}
        self._ends: dict[str, list[float]] = {}
        for contig, start, end in sorted(regions, key=lambda region: region[:2]):
            self._starts.setdefault(contig, []).append(start)
            self._ends.setdefault(contig, []).append(math.inf if end is None else end)

    def holds(self, record: VcfRecord) -> bool:
        """Whether the bases of REF overlap a region."""
        start, end = record.pos - 1, record.pos - 1 + len(record.ref)
        nearest = bisect_left(self._starts.get(record.chrom, []), end) - 1  # the last one that begins before the end
        return nearest >= 0 and self._ends[record.chrom][nearest] > start


def _cell(value: Value) -> str:
    return "." if value is None else value if isinstance(value, str) else f"{value:.6g}"


def _identifier(record: VcfRecord) -> str:
    return shown(record.raw.split(b"\t", 3)[2], 1 << 16)


def _shown(path: Path) -> str:
    return str(path)
