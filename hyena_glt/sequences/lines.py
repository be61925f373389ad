"""Lines of a text file (GFF, BED, tables) with their numbers: plain or gzip, UTF-8, CRLF or LF."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hyena_glt.errors import AnnotationError, DataError
from hyena_glt.sequences.decompress import open_bytes
from hyena_glt.sequences.quoting import quoted

READ_BYTES = 1 << 18
MAX_LINE_BYTES = 1 << 24
BYTE_ORDER_MARK = "\ufeff"


def read_lines(path: str | os.PathLike[str], *, error: type[DataError] = AnnotationError) -> Iterator[tuple[int, str]]:
    """Yield `(line number from 1, text without its line end)`.

    Args:
        path: File name, or `-` for standard input.
        error: Class of the error for text that is damaged.

    Raises:
        DataError: No such file, damaged gzip, not UTF-8, a line of more than 16 MiB, zero bytes.
        SystemProblem: The file cannot be read.
    """
    name = os.fspath(path)
    number, rest = 0, b""
    with open_bytes(name, error=error) as source:
        while chunk := source.read(READ_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for text in lines:
                number += 1
                yield number, _decoded(text, name, number, error)
            if len(rest) > MAX_LINE_BYTES:
                raise error(f"line is longer than {MAX_LINE_BYTES:,} bytes", path=name, line=number + 1)
    if rest:
        yield number + 1, _decoded(rest, name, number + 1, error)


def _decoded(text: bytes, path: str, number: int, error: type[DataError]) -> str:
    try:
        line = text.removesuffix(b"\r").decode()
    except UnicodeDecodeError as fault:
        got = quoted(text[fault.start : fault.start + 4])
        raise error(f"text is not UTF-8: got {got}", path=path, line=number) from None
    if number == 1 and line.startswith(BYTE_ORDER_MARK):
        raise error("byte-order mark before the text; save the file as UTF-8 without BOM", path=path, line=1)
    if "\r" in line:
        raise error("carriage return without a newline (old Mac line ends?)", path=path, line=number)
    if "\0" in line:
        raise error("zero byte in the text", path=path, line=number)
    return line
