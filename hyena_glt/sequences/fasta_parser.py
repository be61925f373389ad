"""FASTA text in chunks of any size -> blocks of records; strict, vectorised, in bounded memory.

Good input is handled a chunk at a time by `bytes` methods. Only a piece that holds something illegal is
walked line by line, to find the line that is to blame or to drop whitespace-only lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hyena_glt.errors import AlphabetError, SequenceFormatError
from hyena_glt.sequences.alphabets import GAPS, Alphabet
from hyena_glt.sequences.chunks import ChunkReader
from hyena_glt.sequences.quoting import quoted, shown
from hyena_glt.sequences.records import (
    Block,
    Header,
    check_header_length,
    parse_header,
    refuse_lone_return,
)

MARKER = ord(">")
SPACES = b" \t\x0b\x0c"
SPACE = re.compile(b"[" + SPACES + b"]")
VISIBLE = re.compile(b"[^" + SPACES + b"]")


def parse_fasta(reader: ChunkReader, *, path: str, line: int, alphabet: Alphabet, degap: bool) -> Iterator[Block]:
    """Yield the blocks of every record; `reader` stands at the first `>`, which is on line `line`."""
    parser = FastaParser(path, line, alphabet, degap)
    while chunk := reader.next():
        yield from parser.feed(chunk)
    yield from parser.finish()


class FastaParser:
    """Where the reading stands between two chunks: inside a header, or inside the sequence of a record."""

    def __init__(self, path: str, line: int, alphabet: Alphabet, degap: bool) -> None:
        self.path, self.line, self.alphabet = path, line, alphabet
        self.gaps = GAPS if degap else b""
        self._bad_symbol = re.compile(b"[^" + re.escape(alphabet.symbols + self.gaps + SPACES) + b"]")
        self.header: Header | None = None
        self.header_text: bytearray | None = None  # the open header line, or None outside a header
        self.first_lines: dict[str, int] = {}  # name -> line of its header
        self.pending: bytes | None = None  # last piece, kept until it is known whether more follows
        self.pending_start = 0
        self.length = 0  # symbols of the record so far
        self.at_line_start = True
        self.open_symbols = False  # the open line holds symbols
        self.open_space = False  # the open line holds whitespace

    def feed(self, chunk: bytes) -> Iterator[Block]:
        """Take the next chunk and yield the blocks that it completes."""
        position, end = 0, len(chunk)
        while position < end:
            if self.header_text is not None:
                position = self._take_header(chunk, position)
            elif self.at_line_start and chunk[position] == MARKER:
                if self.header is not None:
                    yield self._last_block()
                self.header_text = bytearray()
                position += 1
            else:
                stop = _next_header(chunk, position)
                block = self._take_sequence(chunk[position:stop])
                position = stop
                if block is not None:
                    yield block

    def finish(self) -> Iterator[Block]:
        """Yield what is left at the end of the input."""
        if self.header_text is not None:
            self._end_header()
        yield self._last_block()

    def _take_header(self, chunk: bytes, position: int) -> int:
        assert self.header_text is not None
        end = chunk.find(b"\n", position)
        self.header_text += chunk[position : end if end >= 0 else None]
        check_header_length(len(self.header_text), path=self.path, line=self.line)
        if end < 0:
            if b"\r" in self.header_text:
                refuse_lone_return(self.path, self.line)
            return len(chunk)
        self._end_header()
        self.line += 1
        return end + 1

    def _end_header(self) -> None:
        assert self.header_text is not None
        header = parse_header(bytes(self.header_text), path=self.path, line=self.line)
        first = self.first_lines.setdefault(header.name, header.line)
        if first != header.line:
            raise SequenceFormatError(
                f"duplicate name {quoted(header.name)}: first on line {first}",
                path=self.path,
                line=header.line,
            )
        self.header, self.header_text, self.pending, self.length = header, None, None, 0
        self.at_line_start, self.open_symbols, self.open_space = True, False, False

    def _take_sequence(self, piece: bytes) -> Block | None:
        """Check a piece that holds no header and keep it; give the piece before it, if there is one."""
        symbols = self._clean(piece)
        self.at_line_start = piece.endswith(b"\n")
        if not symbols:
            return None
        before = None if self.pending is None else self._block(last=False)
        self.pending, self.pending_start = symbols, self.length
        self.length += len(symbols)
        return before

    def _clean(self, piece: bytes) -> bytes:
        """Remove line ends (and gaps, if asked) and check every symbol."""
        symbols = piece.replace(b"\n", b"")
        num_lines = len(piece) - len(symbols)
        if self.gaps:
            symbols = symbols.translate(None, self.gaps)
        if self.alphabet.has_ambiguity and (self.open_space or symbols.translate(None, self.alphabet.symbols)):
            return self._walk(piece)
        self.line += num_lines
        self.open_symbols = not piece.endswith(b"\n")
        return symbols

    def _walk(self, piece: bytes) -> bytes:
        """Do the work of `_clean` line by line: drop whitespace-only lines, raise for the first bad line."""
        cleaned = bytearray()
        for index, text in enumerate(piece.split(b"\n")):
            if index:
                self.line += 1
                self.open_symbols = self.open_space = False
            cleaned += self._check_line(text, self.length + len(cleaned))
        return bytes(cleaned)

    def _check_line(self, text: bytes, start: int) -> bytes:
        """Check a line, or the part of the open line in this chunk; the leftmost fault is reported."""
        bad, space = self._bad_symbol.search(text), self._misplaced_space(text)
        if space and (not bad or space.start() <= bad.start()):
            raise SequenceFormatError(
                "whitespace inside a sequence line", path=self.path, line=self.line, record=self._shown_name()
            )
        if bad:
            self._refuse_symbol(text, bad.start(), start)
        visible = text.translate(None, SPACES)
        self.open_symbols |= bool(visible)
        self.open_space |= len(visible) < len(text)
        return visible.translate(None, self.gaps)

    def _misplaced_space(self, text: bytes) -> re.Match[bytes] | None:
        """Find where a line turns out to hold both whitespace and symbols."""
        begins_blank = self.open_space or (not self.open_symbols and text[:1] in SPACES)
        return (VISIBLE if begins_blank else SPACE).search(text)

    def _refuse_symbol(self, text: bytes, at: int, start: int) -> None:
        if text[at : at + 1] == b"\r":
            refuse_lone_return(self.path, self.line)
        position = start + len(text[:at].translate(None, SPACES + self.gaps)) + 1
        message = f"position {position}: {self.alphabet.refusal(text[at : at + 4])}"
        raise AlphabetError(message, path=self.path, line=self.line, record=self._shown_name())

    def _last_block(self) -> Block:
        assert self.header is not None
        if self.pending is None:
            raise SequenceFormatError(
                f"record {quoted(self.header.name)} has no sequence", path=self.path, line=self.header.line
            )
        return self._block(last=True)

    def _block(self, last: bool) -> Block:
        assert self.header is not None
        assert self.pending is not None
        header = self.header
        return Block(header.name, header.description, self.pending_start, self.pending, last, header.line)

    def _shown_name(self) -> str:
        assert self.header is not None
        return shown(self.header.name)


def _next_header(chunk: bytes, position: int) -> int:
    """Find the `>` of the next header; its newline belongs to what comes before."""
    if chunk.find(b">", position) < 0:  # several times faster than looking for two bytes
        return len(chunk)
    newline = chunk.find(b"\n>", position)
    return len(chunk) if newline < 0 else newline + 1
