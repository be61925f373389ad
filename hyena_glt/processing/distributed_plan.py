"""A collection of genomes -> shards of work, written down once so that every process and every later run agrees.

    folder, table or files -> GenomeFile -> Shard -> plan.json

A shard is a run of genomes in input order, or a run of records of one large genome; each becomes one file of results.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyena_glt.checks import parse_json
from hyena_glt.errors import ConfigError, DataError, ModelFileError, SystemProblem
from hyena_glt.sequences.atomic import atomic_write
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.quoting import quoted

FORMAT = "hyena-glt/genomes/1"
PLAN_FILE = "plan.json"
FASTA_SUFFIXES = (".fa", ".fasta", ".fna", ".ffn", ".faa", ".fq", ".fastq")
COMPRESSED_SUFFIXES = (".gz", ".bgz")
BASES_PER_COMPRESSED_BYTE = 4  # about, to make shards of similar work
TABLE_SUFFIXES = (".tsv", ".csv", ".parquet")

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class GenomeFile:
    """One sequence file of a collection."""

    name: str  # of the genome in the results
    path: Path
    size: int  # bytes on the disk


@dataclass(frozen=True, slots=True)
class Part:
    """A run of records of one genome."""

    genome: int  # index in the collection
    first: int  # record, 0-based
    last: int | None  # record after the last one; None: to the end


@dataclass(frozen=True, slots=True)
class Shard:
    """What becomes one file of results."""

    parts: tuple[Part, ...]
    size: int  # bases, about


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does, and in which pieces."""

    identity: dict[str, Any]  # model, options and genomes
    shards: tuple[Shard, ...]

    def write(self, folder: Path) -> None:
        """Write `plan.json`, whole or not at all.

        Raises:
            SystemProblem: The folder cannot be written.
        """
        shards = [[shard.size, [[p.genome, p.first, p.last] for p in shard.parts]] for shard in self.shards]
        content = {"format": FORMAT, "identity": self.identity, "shards": shards}
        with atomic_write(folder / PLAN_FILE, "w", overwrite=True) as handle:
            handle.write(json.dumps(content, allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """What `write` wrote; None where there is nothing.

        Raises:
            ModelFileError: Something else is there.
        """
        path = folder / PLAN_FILE
        if not path.is_file():
            return None
        content = parse_json(path.read_bytes(), path=path)
        if content.get("format") != FORMAT:
            raise ModelFileError(f"expected the format {FORMAT!r}, got {content.get('format')!r}", path=path)
        try:
            shards = tuple(Shard(tuple(Part(*part) for part in parts), size) for size, parts in content["shards"])
            return cls(dict(content["identity"]), shards)
        except (KeyError, TypeError, ValueError):
            raise ModelFileError("expected a plan of shards; it was edited or is damaged", path=path) from None


def list_genomes(paths: Paths) -> list[GenomeFile]:
    """The sequence files that are meant, in a fixed order.

    Args:
        paths: A folder (every FASTA or FASTQ file in it and below, by name), a table `.tsv`, `.csv` or `.parquet`
            with a column `path` (relative to the table) and perhaps a column `genome` (its name in the results), a
            sequence file, or a list of such.

    Returns:
        One entry per file; a genome's name is that of its file without suffixes, below a folder its path there.

    Raises:
        DataError: No such file, a folder without sequence files, a table without the column, a name twice.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found = [genome for path in given for genome in _listed(Path(path))]
    if not found:
        raise DataError("no genome: expected sequence files, a folder or a table of them")
    seen: dict[str, Path] = {}
    for genome in found:
        if genome.name in seen:
            raise DataError(
                f"genome {quoted(genome.name)} is there twice, also as {seen[genome.name]}; name them in the column "
                "'genome' of a table",
                path=genome.path,
            )
        seen[genome.name] = genome.path
    return found


def plan_shards(genomes: Sequence[GenomeFile], shard_bases: int, *, alphabet: str, degap: bool) -> tuple[Shard, ...]:
    """Cut a collection into shards of about equal work.

    Only genomes larger than a shard are read for this, to find where their records end.

    Args:
        genomes: The collection.
        shard_bases: Bases of a shard, about; one record is never cut.
        alphabet, degap: How the genomes are read.

    Raises:
        ConfigError: `shard_bases` below 1.
        DataError: A large genome that is malformed.
    """
    if shard_bases < 1:
        raise ConfigError(f"shard_bases: expected at least 1, got {shard_bases}")
    shards: list[Shard] = []
    waiting: list[Part] = []
    size = 0
    for index, genome in enumerate(genomes):
        bases = _about_bases(genome)
        if waiting and size + bases > shard_bases:
            shards.append(Shard(tuple(waiting), size))
            waiting, size = [], 0
        if bases > shard_bases:
            shards += _split(index, genome, shard_bases, alphabet, degap)
        else:
            waiting.append(Part(index, 0, None))
            size += bases
    if waiting:
        shards.append(Shard(tuple(waiting), size))
    return tuple(shards)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Key paths whose values differ, as `a.b: 1, now 2`; of lists the first place."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif isinstance(before, list) and isinstance(after, list) and before != after:
            pairs = zip([*before, None], [*after, None], strict=False)
            place, (one, other) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
            yield f"{prefix}{key}[{place}]: {one!r}, now {other!r}"
        elif before != after:
            yield f"{prefix}{key}: {before!r}, now {after!r}"


def _listed(path: Path) -> Iterator[GenomeFile]:
    if path.is_dir():
        yield from _in_folder(path)
    elif path.suffix in TABLE_SUFFIXES:
        yield from _in_table(path)
    else:
        yield _genome(_stem(path.name), path)


def _in_folder(folder: Path) -> Iterator[GenomeFile]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _is_sequence(path))
    if not files:
        raise DataError(f"no sequence file in the folder; expected {', '.join(FASTA_SUFFIXES)} or .gz", path=folder)
    for path in files:
        below = path.relative_to(folder)
        yield _genome((below.parent / _stem(below.name)).as_posix(), path)


def _in_table(table: Path) -> Iterator[GenomeFile]:
    rows = _read_table(table)
    if not rows or "path" not in rows[0]:
        raise DataError("expected a table with a column 'path', and at least one row", path=table)
    for line, row in enumerate(rows, 2):
        if not row["path"]:
            raise DataError("expected a path, got an empty cell", path=table, line=line)
        path = table.parent / row["path"]
        yield _genome(row.get("genome") or _stem(path.name), path)


def _read_table(table: Path) -> list[dict[str, str]]:
    if table.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return [{k: str(v or "") for k, v in row.items()} for row in pq.read_table(table).to_pylist()]
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"not a Parquet table: {str(error).splitlines()[0][:160]}", path=table) from None
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("no such file", path=table) from None
    except UnicodeDecodeError:
        raise DataError("expected UTF-8 text", path=table) from None
    except OSError as error:
        raise SystemProblem(f"{table}: cannot read: {error.strerror}") from error
    delimiter = "\t" if table.suffix == ".tsv" else ","
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter, restval="")
    try:
        return [{str(key): value for key, value in row.items() if isinstance(value, str)} for row in rows]
    except csv.Error as error:
        raise DataError(f"not a table: {error}", path=table, line=rows.line_num) from None


def _genome(name: str, path: Path) -> GenomeFile:
    try:
        return GenomeFile(name, path, path.stat().st_size)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError("no such file", path=path) from None
    except OSError as error:
        raise SystemProblem(f"{path}: cannot read: {error.strerror}") from error


def _is_sequence(path: Path) -> bool:
    name = path.name.lower()
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.endswith(FASTA_SUFFIXES) and not name.startswith(".")


def _stem(name: str) -> str:
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    short = next((name.removesuffix(suffix) for suffix in FASTA_SUFFIXES if name.endswith(suffix)), name)
    return short or name


def _about_bases(genome: GenomeFile) -> int:
    is_compressed = genome.path.name.endswith(COMPRESSED_SUFFIXES)
    return genome.size * BASES_PER_COMPRESSED_BYTE if is_compressed else genome.size


def _split(index: int, genome: GenomeFile, shard_bases: int, alphabet: str, degap: bool) -> Iterator[Shard]:
    """Runs of records of one genome; only the last run is open to the end, so that nothing can be lost."""
    first = size = 0
    for record, bases in enumerate(_record_lengths(genome.path, alphabet, degap)):
        if size and size + bases > shard_bases:
            yield Shard((Part(index, first, record),), size)
            first, size = record, 0
        size += bases
    yield Shard((Part(index, first, None),), size)


def _record_lengths(path: Path, alphabet: str, degap: bool) -> Iterator[int]:
    length = 0
    for block in read_blocks(path, alphabet=alphabet, degap=degap):
        length += len(block.sequence)
        if block.last:
            yield length
            length = 0
