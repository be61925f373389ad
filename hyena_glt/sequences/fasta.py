"""Strict FASTA and FASTQ: sequential reading in bounded memory, indexed access, writing.

    file or stdin -> open_bytes (decompress) -> ChunkReader -> parse_fasta | parse_fastq -> Block, Record

The format is told by the content (`>` or `@`), the compression by its magic bytes. Everything that a file may
have wrong raises a `DataError` that names the file and the line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from hyena_glt.errors import ConfigError, SequenceFormatError
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet
from hyena_glt.sequences.atomic import open_output
from hyena_glt.sequences.chunks import ChunkReader, sniff
from hyena_glt.sequences.decompress import open_bytes
from hyena_glt.sequences.fasta_parser import parse_fasta
from hyena_glt.sequences.fastq_parser import parse_fastq
from hyena_glt.sequences.indexed_fasta import IndexedFasta, has_fresh_index
from hyena_glt.sequences.quoting import shown
from hyena_glt.sequences.records import Block, Record

__all__ = [
    "Block",
    "IndexedFasta",
    "Record",
    "has_fresh_index",
    "read_blocks",
    "read_records",
    "write_fasta",
]

Path = str | os.PathLike[str]
BLOCK_SIZE = 1 << 18  # fits in the cache: nearly twice as fast as 1 << 22


def read_blocks(
    path: Path, *, alphabet: str | Alphabet = "dna", degap: bool = False, block_size: int = BLOCK_SIZE
) -> Iterator[Block]:
    """Read the records of a FASTA or FASTQ file in bounded memory.

    Args:
        path: File name, or `-` for standard input; plain, gzip or BGZF.
        alphabet: What the sequences may hold; `bytes` allows everything but line ends.
        degap: Remove alignment gaps `-` and `.` in place of refusing them.
        block_size: Bytes of text read at a time; no block is longer.

    Yields:
        One or more `Block`s per record, in file order, the final one with `last=True`; case is kept.

    Raises:
        SequenceFormatError: The text breaks its format, or its compression is damaged.
        AlphabetError: A symbol that the alphabet does not have.
        SystemProblem: The file cannot be read.
    """
    return _blocks(os.fspath(path), get_alphabet(alphabet), degap, _checked_size(block_size))


def read_records(path: Path, *, alphabet: str | Alphabet = "dna", degap: bool = False) -> Iterator[Record]:
    """Read whole records; as `read_blocks`, and FASTQ reads keep their qualities."""
    return _records(os.fspath(path), get_alphabet(alphabet), degap, BLOCK_SIZE)


def write_fasta(target: Path | IO[bytes], records: Iterable[Record], width: int = 60) -> None:
    """Write records as FASTA.

    Args:
        target: File name (whole or not at all; BGZF if it ends in `.gz`), `-`, or an open binary handle.
        records: What to write; qualities are left out.
        width: Symbols per line; 0 puts each sequence on one line.

    Raises:
        ConfigError: Negative width.
        SequenceFormatError: A record without sequence, which no reader would take.
        OutputExistsError: The file is there already.
    """
    if width < 0:
        raise ConfigError(f"width: expected 0 or more symbols per line, got {width}")
    if isinstance(target, str | os.PathLike):
        with open_output(target) as handle:
            write_fasta(handle, records, width)
        return
    for record in records:
        target.write(_fasta_text(record, width))


def _blocks(path: str, alphabet: Alphabet, degap: bool, size: int) -> Iterator[Block]:
    with open_bytes(path) as source:
        reader = ChunkReader(source, size)
        marker, line = sniff(reader, path)
        if marker == b">":
            yield from parse_fasta(reader, path=path, line=line, alphabet=alphabet, degap=degap)
        else:
            for read in parse_fastq(reader, path=path, line=line, alphabet=alphabet, degap=degap):
                if len(read.sequence) <= size:
                    yield Block(read.name, read.description, 0, read.sequence, True, read.line)
                else:
                    yield from _cut(read, size)


def _records(path: str, alphabet: Alphabet, degap: bool, size: int) -> Iterator[Record]:
    with open_bytes(path) as source:
        reader = ChunkReader(source, size)
        marker, line = sniff(reader, path)
        if marker == b">":
            yield from _joined(parse_fasta(reader, path=path, line=line, alphabet=alphabet, degap=degap))
        else:
            yield from parse_fastq(reader, path=path, line=line, alphabet=alphabet, degap=degap)


def _joined(blocks: Iterable[Block]) -> Iterator[Record]:
    pieces: list[bytes] = []
    for block in blocks:
        pieces.append(block.sequence)
        if block.last:
            yield Record(block.name, block.description, b"".join(pieces), block.line)
            pieces = []


def _cut(read: Record, size: int) -> Iterator[Block]:
    length = len(read.sequence)
    for start in range(0, length, size):
        piece = read.sequence[start : start + size]
        yield Block(read.name, read.description, start, piece, start + size >= length, read.line)


def _checked_size(block_size: int) -> int:
    if block_size < 1:
        raise ConfigError(f"block_size: expected 1 byte or more, got {block_size}")
    return block_size


def _fasta_text(record: Record, width: int) -> bytes:
    if not record.sequence:
        raise SequenceFormatError("a record without sequence is no FASTA", record=shown(record.name))
    description = f" {record.description}" if record.description else ""
    return f">{record.name}{description}\n".encode() + _wrapped(record.sequence, width or len(record.sequence))


def _wrapped(sequence: bytes, width: int) -> bytes:
    num_full = len(sequence) // width
    lines = np.full((num_full, width + 1), ord("\n"), np.uint8)
    lines[:, :width] = np.frombuffer(sequence, np.uint8, num_full * width).reshape(num_full, width)
    rest = sequence[num_full * width :]
    return lines.tobytes() + (rest + b"\n" if rest else b"")
