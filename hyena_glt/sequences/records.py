"""What the sequence readers hand on: whole `Record`s or bounded `Block`s, and the header they share."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from hyena_glt.errors import SequenceFormatError
from hyena_glt.sequences.quoting import quoted

MAX_HEADER_BYTES = 1 << 20
UNSAFE_CATEGORIES = ("Cc", "Zl", "Zp")  # control characters, line and paragraph separators


@dataclass(frozen=True, slots=True)
class Record:
    """One FASTA record or FASTQ read, whole."""

    name: str  # first word of the header
    description: str  # header after the name; may be empty
    sequence: bytes  # as in the file, case kept, line ends removed
    line: int  # 1-based line of the header
    qualities: bytes | None = None  # FASTQ only: as in the file, one byte per symbol


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of one record; the blocks of a record follow each other without gap or overlap."""

    name: str  # first word of the record's header
    description: str  # header after the name; may be empty
    start: int  # 0-based offset of the block in its record
    sequence: bytes  # as in the file, case kept, line ends removed
    last: bool  # True for the final block of the record
    line: int  # 1-based line of the record's header


class Header(NamedTuple):
    """A FASTA or FASTQ header line, taken apart."""

    name: str
    description: str
    line: int  # 1-based


def parse_header(text: bytes, *, path: str, line: int) -> Header:
    """Take a header line apart.

    Args:
        text: The line without its `>` or `@` and without its line end.
        path: File, for messages.
        line: 1-based line of the header, for messages.

    Raises:
        SequenceFormatError: Empty name, not UTF-8, a control character in the name, a lone carriage return.
    """
    if b"\r" in text:
        refuse_lone_return(path, line)
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        got = quoted(text[error.start : error.start + 4])
        raise SequenceFormatError(f"header is not UTF-8: got {got}", path=path, line=line) from None
    name, description = split_name(decoded)
    if not name:
        got = f"; the line goes on with {quoted(description)}" if description else ""
        raise SequenceFormatError(
            f"record without a name: expected the name right after the marker{got}", path=path, line=line
        )
    if not name.isprintable() and any(unicodedata.category(c) in UNSAFE_CATEGORIES for c in name):
        raise SequenceFormatError(f"control character in the name {quoted(name)}", path=path, line=line)
    return Header(name, description, line)


def check_header_length(length: int, *, path: str, line: int) -> None:
    """Refuse a header that can only be damage or an attack, before it fills the memory."""
    if length > MAX_HEADER_BYTES:
        raise SequenceFormatError(f"header is longer than {MAX_HEADER_BYTES:,} bytes", path=path, line=line)


def refuse_lone_return(path: str, line: int) -> NoReturn:
    """Raise the error for a carriage return that ends no CRLF line."""
    raise SequenceFormatError(
        "carriage return without a newline (old Mac line ends?); convert the file with: tr '\\r' '\\n'",
        path=path,
        line=line,
    )


def split_name(text: str) -> tuple[str, str]:
    """Split a header at its first space or tab: `(name, description)`."""
    if "\t" not in text:
        name, _, description = text.partition(" ")
        return name, description.strip(" ")
    end = min((at for at in (text.find(" "), text.find("\t")) if at >= 0), default=len(text))
    return text[:end], text[end:].strip(" \t")
