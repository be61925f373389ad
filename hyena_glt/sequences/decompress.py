"""Bytes of a file or of standard input, decompressed on the way: plain, gzip, multi-member gzip or BGZF.

Compression is told by the magic bytes, never by the name. Memory stays bounded whatever the ratio, so that a
gzip bomb is only a long stream.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hyena_glt.errors import DataError, SequenceFormatError, SystemProblem

GZIP_MAGIC = b"\x1f\x8b"
BGZF_HEAD_BYTES = 18
COMPRESSED_READ = 1 << 17  # small, so that the unused rest of a BGZF member is cheap to carry over


def is_bgzf(head: bytes) -> bool:
    """Tell BGZF from plain gzip by the first `BGZF_HEAD_BYTES` bytes (its extra field starts with BC)."""
    return head[:4] == b"\x1f\x8b\x08\x04" and head[12:14] == b"BC"


class PlainSource:
    """Uncompressed bytes, the first ones already read."""

    def __init__(self, file: BinaryIO, head: bytes, path: str) -> None:
        self._file, self._head, self._path = file, head, path

    def read(self, size: int) -> bytes:
        """Give `size` bytes, fewer only at the end of the input."""
        head, self._head = self._head[:size], self._head[size:]
        missing = size - len(head)
        if not missing:
            return head
        rest = _read(self._file, missing, self._path)
        return head + rest if head else rest


class GzipSource:
    """Bytes out of one or more gzip members; zero bytes after the last member are padding."""

    def __init__(self, file: BinaryIO, head: bytes, path: str, error: type[DataError]) -> None:
        self._file, self._path, self._error = file, path, error
        self._input = head
        self._member = zlib.decompressobj(wbits=31)
        self._member_is_empty = True
        self._is_bgzf = is_bgzf(head)
        self._done = False

    def read(self, size: int) -> bytes:
        """Give `size` decompressed bytes, fewer only at the end of the input.

        Raises:
            DataError: The compressed data is truncated, damaged or followed by something else.
        """
        pieces: list[bytes] = []
        while size and not self._done:
            if self._member.eof:
                self._next_member()
                continue
            piece = self._inflate(size)
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _inflate(self, size: int) -> bytes:
        if not self._input:
            self._input = _read(self._file, COMPRESSED_READ, self._path)
        at_end = not self._input
        try:
            piece = self._member.decompress(self._input, size)
        except zlib.error as error:
            raise self._error(f"damaged gzip: {_reason(error)}", path=self._path) from None
        self._input = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        if at_end and not piece and not self._member.eof:
            raise self._error("truncated gzip: the data ends inside a compressed block", path=self._path)
        self._member_is_empty &= not piece
        return piece

    def _next_member(self) -> None:
        """Go to the next member, or finish; `_input` holds what follows the member just ended."""
        while True:
            self._input = self._input.lstrip(b"\0")
            if len(self._input) >= len(GZIP_MAGIC):
                break
            more = _read(self._file, COMPRESSED_READ, self._path)
            if not more:
                break
            self._input += more
        if self._input.startswith(GZIP_MAGIC):
            self._member, self._member_is_empty = zlib.decompressobj(wbits=31), True
        elif self._input:
            raise self._error("garbage after the end of the gzip data", path=self._path)
        elif self._is_bgzf and not self._member_is_empty:
            raise self._error("truncated BGZF: its end-of-file block is missing", path=self._path)
        else:
            self._done = True


Source = PlainSource | GzipSource


@contextmanager
def open_bytes(path: str | os.PathLike[str], *, error: type[DataError] = SequenceFormatError) -> Iterator[Source]:
    """Open a file, or standard input for `-`, and decompress it if its first bytes say so.

    Args:
        path: File name, or `-`.
        error: Class of the error for damaged compressed data.

    Yields:
        An object whose `read(size)` gives `size` bytes until the input ends.

    Raises:
        DataError: No such file, or a directory.
        SystemProblem: No permission, or the disk fails.
    """
    name = os.fspath(path)
    file = open_file(name)
    try:
        head = _read(file, BGZF_HEAD_BYTES, name)
        if head.startswith(GZIP_MAGIC):
            yield GzipSource(file, head, name, error)
        else:
            yield PlainSource(file, head, name)
    finally:
        if name != "-":
            file.close()


def is_regular(path: str) -> bool:
    """Tell whether a path is a file that can be read twice; True as well where opening it will fail."""
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return path != "-"
    return path != "-" and (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def open_file(path: str) -> BinaryIO:
    """Open a file as it is, or standard input for `-`; raises as `open_bytes`."""
    if path == "-":
        if sys.stdin is None:
            raise DataError("standard input is closed", path=path)
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise DataError("no such file", path=path) from None
    except IsADirectoryError:
        raise DataError("is a directory, expected a file", path=path) from None
    except NotADirectoryError:
        raise DataError("no such file: a part of the path is not a directory", path=path) from None
    except ValueError:
        raise DataError("not a file name: it holds a zero byte", path=path.replace("\0", "\\x00")) from None
    except OSError as error:
        raise SystemProblem(f"{path}: cannot read: {error.strerror}") from error


def _read(file: BinaryIO, size: int, path: str) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        place = "<stdin>" if path == "-" else path
        raise SystemProblem(f"{place}: cannot read: {error.strerror}") from error


def _reason(error: zlib.error) -> str:
    """Keep the words of a message such as 'Error -3 while decompressing data: incorrect data check'."""
    return str(error).rpartition(": ")[2]
