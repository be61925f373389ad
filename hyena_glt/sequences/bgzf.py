"""BGZF, the gzip of htslib: a file of small gzip members that tabix and faidx can seek in.

Written here, not by htslib, so that standard output and temporary files go through one handle and a full disk
is an `OSError` like any other.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import IO, TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

BLOCK_BYTES = 65280  # uncompressed bytes per member, as htslib cuts them
HEADER = struct.Struct("<4BI2BH2BHH")  # RFC 1952 with the BC field, SAM specification section 4.1
TRAILER = struct.Struct("<II")
END_OF_FILE = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


class BgzfWriter(io.BufferedIOBase):
    """Compress what is written and pass it on to an open binary handle, which stays open.

    `close` writes the end-of-file member; leaving the `with` block by an exception writes nothing more.
    """

    def __init__(self, handle: IO[bytes], level: int = 6) -> None:
        self._handle, self._level = handle, level
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        """Take bytes; whole blocks are compressed at once."""
        size = len(self._buffer)
        self._buffer += data
        size = len(self._buffer) - size
        while len(self._buffer) >= BLOCK_BYTES:
            self._handle.write(_member(bytes(self._buffer[:BLOCK_BYTES]), self._level))
            del self._buffer[:BLOCK_BYTES]
        return size

    def text(self) -> io.TextIOWrapper:
        """Give a handle for UTF-8 text on top of this one."""
        return io.TextIOWrapper(cast(BinaryIO, self), encoding="utf-8", newline="\n", write_through=True)

    def close(self) -> None:
        """Write what is left and the end-of-file member."""
        if self.closed:
            return
        if self._buffer:
            self._handle.write(_member(bytes(self._buffer), self._level))
        self._handle.write(END_OF_FILE)
        self._buffer.clear()
        super().close()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            super().close()


def _member(data: bytes, level: int) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    body = compressor.compress(data) + compressor.flush()
    size = HEADER.size + len(body) + TRAILER.size
    if size > 1 << 16:  # data that does not compress: store it
        return _member(data, 0)
    header = HEADER.pack(31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, size - 1)
    return header + body + TRAILER.pack(zlib.crc32(data), len(data))
