"""Strict reading of VCF, plain, gzip or BGZF, and of BCF, from files and standard input, in bounded memory.

file or stdin -> open_bytes (decompress) -> raw lines -> read_header, then parse_record -> VcfRecord
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

from hyena_glt.errors import ConfigError, VariantFormatError
from hyena_glt.sequences.decompress import Source, is_regular, open_bytes
from hyena_glt.variants.skipped import SkippedRecords
from hyena_glt.variants.vcf_header import read_header
from hyena_glt.variants.vcf_records import VcfRecord, parse_record

BLOCK_SIZE = 1 << 18
MAX_LINE_BYTES = 1 << 26
BCF_MAGIC = b"BCF\x02"
INFO_END = re.compile(rb"[\t;]END=(\d{1,18})[;\t\r\n]")


class VcfReader:
    """An open VCF file: its `header`, and its records by iteration, once; a context manager.

    Blank lines at the end of the file are left out. Order is not asked for: `is_sorted` tells it.

    Args:
        path: File name, or `-`; plain, gzip or BGZF text, or a BCF file.
        skipped: Takes the bad records in place of an error; a bad header is always an error.
        require_sorted: Refuse records out of order (by contig block, then POS) as bad records.
        block_size: Bytes of text read at a time.

    Raises:
        VariantFormatError: The header, or, while iterating, a record breaks the format; damaged compression.
        DataError: No such file.
        SystemProblem: It cannot be read.

    Example:
        >>> with VcfReader("calls.vcf.gz") as reader:  # doctest: +SKIP
        ...     places = [(record.chrom, record.pos) for record in reader]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        skipped: SkippedRecords | None = None,
        require_sorted: bool = False,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        if block_size < 1:
            raise ConfigError(f"block_size: expected 1 byte or more, got {block_size}")
        self.path = os.fspath(path)
        self.num_records = 0  # good ones so far
        self.is_sorted = True  # so far: contigs in blocks, POS not falling within one
        self.max_end = 0  # so far: largest 1-based end of a record, by REF or INFO/END; what `index_vcf` asks for
        self._skipped, self._require_sorted = skipped, require_sorted
        self._contigs: set[str] = set()
        self._last: tuple[str, int] | None = None
        with ExitStack() as stack:
            source = stack.enter_context(open_bytes(self.path, error=VariantFormatError))
            self._lines = _raw_lines(source, self.path, block_size)
            self.header = read_header(self._lines, self.path)
            self._stack = stack.pop_all()

    def __enter__(self) -> VcfReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __iter__(self) -> Iterator[VcfRecord]:
        blank: list[tuple[int, bytes]] = []  # the first blank line of those that may be the last ones
        for number, raw in enumerate(self._lines, start=len(self.header.lines) + 1):
            if raw in (b"\n", b"\r\n"):
                blank = blank or [(number, raw)]
                continue
            for line, text in (*blank, (number, raw)):
                record = self._record(text, line)
                if record is not None:
                    self.num_records += 1
                    yield record
            blank = []

    def _record(self, raw: bytes, line: int) -> VcfRecord | None:
        try:
            record = parse_record(raw, line, self.header, self.path)
            self._note_order(record)
            self.max_end = max(self.max_end, _end(record))
        except VariantFormatError as error:
            if self._skipped is None:
                raise
            self._skipped.add(error)
            return None
        return record

    def _note_order(self, record: VcfRecord) -> None:
        contig, pos = self._last or ("", 0)
        if record.chrom == contig:
            in_order, words = record.pos >= pos, f"POS comes after {pos:,}"
        else:
            in_order, words = record.chrom not in self._contigs, "its contig had records further up"
        if not in_order and self._require_sorted:
            raise VariantFormatError(
                f"out of order: {words}; sort the file (bcftools sort)",
                path=self.path,
                line=record.line,
                record=record.place,
            )
        self.is_sorted &= in_order
        self._contigs.add(record.chrom)
        self._last = record.chrom, record.pos


def _end(record: VcfRecord) -> int:
    end = record.pos + len(record.ref) - 1
    declared = INFO_END.search(record.raw) if b"END=" in record.raw else None
    return max(end, int(declared[1])) if declared else end


def _raw_lines(source: Source, path: str, block_size: int) -> Iterator[bytes]:
    """Lines with their line ends; those of a BCF file as htslib writes them as text."""
    head = source.read(max(block_size, len(BCF_MAGIC)))
    if head.startswith(BCF_MAGIC):
        return _bcf_lines(path)
    return _text_lines(source, head, path, block_size)


def _text_lines(source: Source, chunk: bytes, path: str, block_size: int) -> Iterator[bytes]:
    number, size = 1, 0
    pieces: list[bytes] = []  # of the line that goes on
    while chunk:
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        size += len(first)
        if others:
            yield b"".join(pieces) + b"\n"
            for line in others[:-1]:
                yield line + b"\n"
            number += len(others)
            pieces, size = [others[-1]], len(others[-1])
        if size > MAX_LINE_BYTES:
            raise VariantFormatError(f"line is longer than {MAX_LINE_BYTES:,} bytes", path=path, line=number)
        chunk = source.read(block_size)
    if last := b"".join(pieces):
        yield last


def _bcf_lines(path: str) -> Iterator[bytes]:
    if not is_regular(path):
        raise VariantFormatError("BCF from a pipe cannot be read; convert it (bcftools view) or give a file", path=path)
    import pysam

    verbosity = pysam.set_verbosity(0)
    try:
        with pysam.VariantFile(path) as file:
            yield from str(file.header).encode().splitlines(keepends=True)
            for record in file:
                yield str(record).encode()
    except (OSError, ValueError) as error:
        raise VariantFormatError(f"damaged BCF: {error}", path=path) from None
    finally:
        pysam.set_verbosity(verbosity)
