"""One shard of genomes -> vectors -> a Parquet file, and beside it a note of hashes by which a later run trusts it.

    records -> patches -> windows -> batches of one shard -> net -> one row per record or window

A batch holds windows of its shard alone, so a shard's bytes do not depend on which process makes it, or when.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hyena_glt.checks import parse_json
from hyena_glt.entropies.markov import MarkovEntropy
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.patching.block_decisions import scan_rule
from hyena_glt.patching.genome import PatchedBlock, patch_blocks
from hyena_glt.patching.patcher import Patcher
from hyena_glt.patching.sources import AutoEntropy, resolve_bpe_network, resolve_source
from hyena_glt.processing.distributed_plan import GenomeFile, Plan, Shard
from hyena_glt.processing.embedding import EmbeddingRows, Window, WindowCutter, embed_rows, pool_records
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.sequences.atomic import atomic_write, sha256_file
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.records import Block
from hyena_glt.tokens.byte_tokenizer import ByteTokenizer

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT

ROWS_AT_A_TIME = 4096
SCANNED_BY_NETWORK = "bpe_patcher"


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedOptions:
    """How genomes are read and embedded."""

    alphabet: str = "dna"
    degap: bool = False
    per_record: bool = True  # one row per record; else one per window
    window: int = 8192  # bases that go through the net together
    batch_size: int = 8  # windows per forward
    device: str = "cpu"  # kind of device
    threads: int = 1  # of torch in each process

    def __post_init__(self) -> None:
        for name in ("window", "batch_size", "threads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: expected a whole number of at least 1, got {value!r}")

    def as_dict(self) -> dict[str, Any]:
        """For the plan."""
        return asdict(self)


def shard_file(folder: Path, number: int) -> Path:
    """The Parquet file of a shard."""
    return folder / f"shard-{number:06d}.parquet"


def note_file(folder: Path, number: int) -> Path:
    """What says that a shard is whole."""
    return folder / f"shard-{number:06d}.json"


class ShardMaker:
    """Makes the shards of a plan, whichever are asked for.

    Args:
        net: The net with its patcher, in evaluation mode and on its device; None where nothing is made.
        folder: Of the results.
        plan: What is to be made.
        genomes: The collection.
        options: How it is read and embedded.
    """

    def __init__(
        self, net: HyenaGLT | None, folder: Path, plan: Plan, genomes: Sequence[GenomeFile], options: EmbedOptions
    ) -> None:
        self.net, self.folder, self.plan, self.genomes, self.options = net, folder, plan, genomes, options
        self._sha256s: dict[int, str] = {}  # of genomes: a large one is hashed once, not for each of its shards

    def is_whole(self, number: int) -> bool:
        """Whether a shard is finished, by the hashes of its file and of the genomes that it was made from.

        Raises:
            ConfigError: The shard is sound, but a genome is another than it was.
            DataError: A genome that is no longer there.
        """
        try:
            note = read_note(self.folder, number)
            if sha256_file(shard_file(self.folder, number)) != note["sha256"]:
                return False
        except DataError:
            return False
        for part in self.plan.shards[number].parts:
            if note["genomes"].get(self.genomes[part.genome].name) != self._sha256(part.genome):
                raise ConfigError(
                    f"{self.genomes[part.genome].path}: the genome has changed since "
                    f"{shard_file(self.folder, number).name} was made from it; give another folder, or force to begin "
                    "anew"
                )
        return True

    def make(self, number: int) -> None:
        """Embed a shard and write its file, then its note.

        Raises:
            DataError: A genome that is malformed.
            SystemProblem: The folder cannot be written.
        """
        assert self.net is not None
        shard, rows = self.plan.shards[number], 0
        names = {self.genomes[part.genome].name: self._sha256(part.genome) for part in shard.parts}
        schema = _schema(self.net.config.hidden_size, self.plan.identity["model_sha256"], self.options)
        labels: dict[int, _Label] = {}
        path = shard_file(self.folder, number)
        with atomic_write(path, overwrite=True) as handle, pq.ParquetWriter(handle, schema) as writer:
            for part in _embed_shard(self.net, shard, self.genomes, self.options, labels):
                writer.write_table(_table(part, labels, schema))
                rows += len(part)
        note = {"sha256": sha256_file(path), "rows": rows, "genomes": names}
        with atomic_write(note_file(self.folder, number), "w", overwrite=True) as handle:
            handle.write(json.dumps(note, indent=2) + "\n")

    def ensure(self, number: int) -> bool:
        """Make a shard unless it is finished; True where it was made."""
        if self.is_whole(number):
            return False
        self.make(number)
        return True

    def _sha256(self, genome: int) -> str:
        if genome not in self._sha256s:
            self._sha256s[genome] = sha256_file(self.genomes[genome].path)
        return self._sha256s[genome]


def read_note(folder: Path, number: int) -> dict[str, Any]:
    """Hash and number of rows of a shard, and the hashes of the genomes that it was made from, by name.

    Raises:
        DataError: There is no such note, or it is damaged.
    """
    path = note_file(folder, number)
    try:
        note = parse_json(path.read_bytes(), path=path)
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", path=path) from None
    kinds = {"sha256": str, "rows": int, "genomes": dict}
    if any(not isinstance(note.get(name), kind) for name, kind in kinds.items()):
        raise DataError("expected sha256, rows and genomes of a shard", path=path)
    return note


@dataclass(frozen=True, slots=True)
class _Label:
    """Which record the rows with a number are of."""

    genome: str
    record: int  # 0-based in its genome
    name: str


def _embed_shard(
    net: HyenaGLT, shard: Shard, genomes: Sequence[GenomeFile], options: EmbedOptions, labels: dict[int, _Label]
) -> Iterator[EmbeddingRows]:
    """Rows of a shard in input order, many at a time; batches go across the records of the shard.

    The numbers of records count within the shard; `labels` gets what they mean.
    """
    windows = _shard_windows(net, shard, genomes, options, labels)
    rows = embed_rows(net, windows, options.batch_size)
    parts: list[EmbeddingRows] = []
    for part in pool_records(rows) if options.per_record else rows:
        parts.append(part)
        if sum(map(len, parts)) >= ROWS_AT_A_TIME:
            yield EmbeddingRows.joined(parts)
            parts = []
    if parts:
        yield EmbeddingRows.joined(parts)


def _shard_windows(
    net: HyenaGLT, shard: Shard, genomes: Sequence[GenomeFile], options: EmbedOptions, labels: dict[int, _Label]
) -> Iterator[Window]:
    patcher, before = capped_patcher(net, options.window), 0
    for part in shard.parts:
        genome, cutter = genomes[part.genome], WindowCutter(options.window)
        blocks = read_blocks(genome.path, alphabet=options.alphabet, degap=options.degap)
        wanted = _records_between(blocks, part.first, part.last)
        for window in cutter.windows(_patched(patcher, wanted, options.alphabet)):
            number = before + window.record
            labels[number] = _Label(genome.name, part.first + window.record, window.name)
            yield replace(window, record=number)
        before += len(cutter.spans)


def _records_between(blocks: Iterator[Block], first: int, last: int | None) -> Iterator[Block]:
    """The blocks of the records from `first` to before `last`."""
    record = 0
    for block in blocks:
        if last is not None and record >= last:
            return
        if record >= first:
            yield block
        record += block.last


def _patched(patcher: Patcher, blocks: Iterator[Block], alphabet_name: str) -> Iterator[PatchedBlock]:
    """Patches of each record: block by block where the rule allows, else record by record."""
    model = streaming_model(patcher, alphabet_name)
    if model is not None:
        yield from patch_blocks(blocks, get_alphabet(alphabet_name), model, patcher.args, entropies=False)
        return
    alphabet, tokenizer = get_alphabet(alphabet_name), ByteTokenizer()
    waiting: list[bytes] = []
    for block in blocks:
        waiting.append(block.sequence)
        if not block.last:
            continue
        sequence, waiting = b"".join(waiting), []
        rows = patcher.patch_with_starts(tokenizer.encode(sequence).unsqueeze(0))
        lengths = rows.patch_lengths[0].numpy()
        yield PatchedBlock(
            block=replace(block, start=0, sequence=sequence),
            ambiguous=alphabet.encode(sequence) >= alphabet.size,
            forced_starts=~rows.known_starts[0].numpy(),
            entropies=None,
            patch_start=0,
            lengths=lengths,
            mean_surprises=np.zeros(lengths.size),
            ambiguous_patches=0,
        )


def capped_patcher(net: HyenaGLT, window: int) -> Patcher:
    """The net's patcher, with no patch longer than a window.

    Raises:
        ConfigError: No patcher of this package, overlapping patches, or a net that cuts by itself.
    """
    patcher = net.external_patcher
    if not isinstance(patcher, Patcher):
        found = "boundaries='learned'" if net.merger is not None else type(patcher).__name__
        raise ConfigError(f"patcher: expected a Patcher, as a net's own or by patcher=..., got {found}")
    if patcher.args.overlap:
        raise ConfigError("overlap: expected a patcher without overlap, since each base is embedded once")
    cap = min(patcher.args.max_patch_length or window, window)
    return Patcher(patcher.args.model_copy(update={"max_patch_length": cap}))


def streaming_model(patcher: Patcher, alphabet: str) -> Any | None:
    """What scores the blocks of a genome one by one; None where the rule needs whole sequences."""
    args = patcher.args
    try:
        scan_rule(args)
    except ConfigError:
        return None
    if args.patching_mode == SCANNED_BY_NETWORK:
        args.entropy_model = resolve_bpe_network(args)
    if not args.uses_scores:
        return MarkovEntropy.uniform(alphabet)
    source = resolve_source(args)
    if isinstance(source, AutoEntropy) or not hasattr(source, "stream"):
        return None
    args.entropy_model = source
    return source


def _schema(hidden: int, model_sha256: str, options: EmbedOptions) -> pa.Schema:
    fields = [
        ("genome", pa.string()),
        ("record", pa.int64()),
        ("name", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("patches", pa.int64()),
        ("embedding", pa.list_(pa.float32(), hidden)),
    ]
    about = {"model_sha256": model_sha256, "options": options.as_dict()}
    return pa.schema(fields, metadata={"hyena_glt": json.dumps(about)})


def _table(rows: EmbeddingRows, labels: dict[int, _Label], schema: pa.Schema) -> pa.Table:
    found = [labels[number] for number in rows.records.tolist()]
    columns: list[Any] = [
        [label.genome for label in found],
        [label.record for label in found],
        [label.name for label in found],
        rows.starts,
        rows.ends,
        rows.patches,
        pa.FixedSizeListArray.from_arrays(rows.vectors.ravel(), rows.vectors.shape[1]),
    ]
    return pa.table(columns, schema=schema)
