"""The reference that variants are compared with: random access, or in memory where a file cannot be indexed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from hyena_glt.errors import SequenceFormatError
from hyena_glt.sequences.decompress import BGZF_HEAD_BYTES, GZIP_MAGIC, is_bgzf, is_regular, open_file
from hyena_glt.sequences.fasta import read_blocks
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.sequences.intervals import Interval, check_on_contig

MOST_IN_MEMORY = 1 << 30  # bases of a plain-gzip reference


class Genome(Protocol):
    """Contigs by name; `IndexedFasta` is one."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Contig -> number of bases."""
        ...

    def length(self, name: str) -> int:
        """Number of bases of a contig."""
        ...

    def fetch(self, interval: Interval) -> bytes:
        """Bases of an interval, case kept."""
        ...


class GenomeInMemory:
    """Contigs held as bytes, with the calls of `IndexedFasta`.

    Args:
        contigs: Name -> bases.

    Example:
        >>> GenomeInMemory({"chr1": b"ACGT"}).fetch(Interval("chr1", 1, 3))
        b'CG'
    """

    def __init__(self, contigs: Mapping[str, bytes]) -> None:
        self._contigs = dict(contigs)

    @property
    def lengths(self) -> Mapping[str, int]:
        """Contig -> number of bases, in file order."""
        return {name: len(bases) for name, bases in self._contigs.items()}

    def length(self, name: str) -> int:
        """Give the number of bases of a contig.

        Raises:
            RegionError: Unknown contig.
        """
        if name not in self._contigs:
            check_on_contig(Interval(name, 0, 0), self.lengths)
        return len(self._contigs[name])

    def fetch(self, interval: Interval) -> bytes:
        """Give the bases of an interval, case kept.

        Raises:
            RegionError: Unknown contig, or past its end.
        """
        check_on_contig(interval, {interval.contig: self.length(interval.contig)})
        return self._contigs[interval.contig][interval.start : interval.end]


@contextmanager
def open_reference(path: str | os.PathLike[str]) -> Iterator[Genome]:
    """A FASTA file for random access: by its index, or, where plain gzip allows none, read into memory.

    Raises:
        DataError: Standard input, or a file that cannot be indexed.
        SequenceFormatError: Plain gzip with more than `MOST_IN_MEMORY` bases, or a name that stands twice in it.
        SystemProblem: The file cannot be read.
    """
    name = os.fspath(path)
    if _is_plain_gzip(name):
        yield GenomeInMemory(_contigs(name))
        return
    with IndexedFasta(name) as genome:
        yield genome


def _is_plain_gzip(name: str) -> bool:
    if name == "-" or not is_regular(name):
        return False
    with open_file(name) as file:
        head = file.read(BGZF_HEAD_BYTES)
    return head.startswith(GZIP_MAGIC) and not is_bgzf(head)


def _contigs(name: str) -> dict[str, bytes]:
    contigs: dict[str, bytes] = {}
    parts: list[bytes] = []
    room = MOST_IN_MEMORY
    for block in read_blocks(name):
        parts.append(block.sequence)
        room -= len(block.sequence)
        if room < 0:
            raise SequenceFormatError(
                f"plain gzip cannot be indexed, and {MOST_IN_MEMORY:,} bases is the most that is read into memory; "
                "recompress it with bgzip",
                path=name,
            )
        if block.last:
            if block.name in contigs:
                raise SequenceFormatError("a contig of this name stands twice", path=name, record=block.name)
            contigs[block.name] = b"".join(parts)
            parts = []
    return contigs
