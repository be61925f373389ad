"""Random access to the contigs of a FASTA file, plain or BGZF, through its `.fai`.

htslib's own calls are not used for fetching: they clip silently at a contig's end and stop at 2^31 bases.
"""

from __future__ import annotations

import os
from types import TracebackType

from hyena_glt.errors import DataError, SequenceFormatError, SystemProblem
from hyena_glt.sequences.decompress import (
    BGZF_HEAD_BYTES,
    GZIP_MAGIC,
    GzipSource,
    is_bgzf,
    is_regular,
    open_file,
)
from hyena_glt.sequences.faidx import byte_offset, fresh_index, load_index
from hyena_glt.sequences.intervals import Interval, check_on_contig
from hyena_glt.sequences.quoting import shown


def has_fresh_index(path: str | os.PathLike[str]) -> bool:
    """Tell whether random access costs no indexing: an up-to-date index lies beside a plain or BGZF file.

    Raises:
        DataError: No such file.
        SystemProblem: It cannot be read.
    """
    name = os.fspath(path)
    if not is_regular(name):
        return False
    with open_file(name) as file:
        head = file.read(BGZF_HEAD_BYTES)
    bgzf = is_bgzf(head)
    return (bgzf or not head.startswith(GZIP_MAGIC)) and fresh_index(name, is_bgzf=bgzf) is not None


class IndexedFasta:
    """An indexed FASTA file, open for fetching; a context manager.

    The index is built where it is missing or stale, and put beside the file if the folder is writable.

    Args:
        path: FASTA file, plain or BGZF.

    Raises:
        DataError: Plain gzip, standard input, or a file that cannot be indexed.
        SystemProblem: The file cannot be read.

    Example:
        >>> with IndexedFasta("genome.fa") as genome:  # doctest: +SKIP
        ...     genome.fetch(Interval("chr1", 0, 10))
        b'ACGTTTGACN'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        _check_seekable(self.path)
        self._file = open_file(self.path)
        try:
            bgzf = self._told_bgzf()
            self._entries, self._blocks = load_index(self.path, is_bgzf=bgzf)
        except BaseException:
            self._file.close()
            raise

    @property
    def names(self) -> list[str]:
        """Contigs in file order."""
        return list(self._entries)

    @property
    def lengths(self) -> dict[str, int]:
        """Contig -> number of bases, in file order."""
        return {name: entry.length for name, entry in self._entries.items()}

    def length(self, name: str) -> int:
        """Give the number of bases of a contig.

        Raises:
            RegionError: Unknown contig.
        """
        check_on_contig(Interval(name, 0, 0), self.lengths if name not in self._entries else {name: 0})
        return self._entries[name].length

    def fetch(self, interval: Interval) -> bytes:
        """Read the bases of an interval as the file writes them, case kept.

        Raises:
            RegionError: Unknown contig, or past its end.
            DataError: The index does not belong to the file.
        """
        check_on_contig(interval, {interval.contig: self.length(interval.contig)})
        if not interval.length:
            return b""
        entry = self._entries[interval.contig]
        begin = byte_offset(entry, interval.start)
        raw = self._read(begin, byte_offset(entry, interval.end - 1) + 1 - begin)
        bases = raw.translate(None, b"\r\n")
        if len(bases) != interval.length or b">" in bases:
            raise DataError(
                "the index does not belong to the file; delete it to have it built anew",
                path=f"{self.path}.fai",
                record=shown(interval.contig),
            )
        return bases

    def close(self) -> None:
        """Close the file; fetching ends here."""
        self._file.close()

    def __enter__(self) -> IndexedFasta:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _told_bgzf(self) -> bool:
        head = self._file.read(BGZF_HEAD_BYTES)
        if head.startswith(GZIP_MAGIC) and not is_bgzf(head):
            raise SequenceFormatError(
                "plain gzip cannot be indexed; recompress it with bgzip, or read it without an index",
                path=self.path,
            )
        return is_bgzf(head)

    def _read(self, begin: int, size: int) -> bytes:
        try:
            if self._blocks is None:
                self._file.seek(begin)
                return self._file.read(size)
            block = int(self._blocks[:, 1].searchsorted(begin, side="right")) - 1
            compressed, uncompressed = map(int, self._blocks[block])
            self._file.seek(compressed)
            source = GzipSource(self._file, b"", self.path, SequenceFormatError)
            source.read(begin - uncompressed)
            return source.read(size)
        except OSError as error:
            if isinstance(error, SystemProblem):
                raise
            raise SystemProblem(f"{self.path}: cannot read: {error.strerror}") from error


def _check_seekable(path: str) -> None:
    if path == "-":
        raise DataError("standard input cannot be indexed; give a file, or read without regions", path=path)
    if not is_regular(path):
        raise DataError("a pipe or device cannot be indexed; give a file", path=path)
