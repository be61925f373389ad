"""FASTQ text in chunks -> whole reads; strict; wrapped reads too; four-line reads are checked all at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

from hyena_glt.errors import AlphabetError, SequenceFormatError
from hyena_glt.sequences.alphabets import GAPS, Alphabet
from hyena_glt.sequences.chunks import WHITESPACE, ChunkReader
from hyena_glt.sequences.quoting import quoted, shown
from hyena_glt.sequences.records import (
    MAX_HEADER_BYTES,
    Header,
    Record,
    check_header_length,
    parse_header,
    split_name,
)

MAX_READ_BYTES = 1 << 26  # text of one read; longer than any sequencer's, small enough to hold
QUALITY_BYTES = bytes(range(33, 127))
PLAIN_HEADERS = bytes(range(33, 127)) + b"\t \n"
EMPTY_NAME = re.compile(rb"(?m)^@[ \t\n]|^@\Z")


def parse_fastq(reader: ChunkReader, *, path: str, line: int, alphabet: Alphabet, degap: bool) -> Iterator[Record]:
    """Yield every read; `reader` stands at the first `@`, which is on line `line`."""
    parser = FastqParser(path, line, alphabet, degap)
    text, at_end = b"", False
    while not at_end:
        wanted = max(1, len(text))  # doubles while one read does not fit, so that long reads stay linear
        text, at_end = _fill(reader, text, wanted)
        yield from parser.feed(text, at_end)
        text = parser.rest


def _fill(reader: ChunkReader, text: bytes, wanted: int) -> tuple[bytes, bool]:
    pieces, size = [text], 0
    while size < wanted:
        chunk = reader.next()
        if not chunk:
            return b"".join(pieces), True
        pieces.append(chunk)
        size += len(chunk)
    return b"".join(pieces), False


class FastqParser:
    """The line that comes next, and the rest of the text that is no complete read yet."""

    def __init__(self, path: str, line: int, alphabet: Alphabet, degap: bool) -> None:
        self.path, self.line, self.alphabet = path, line, alphabet
        self.gaps = GAPS if degap else b""
        self.rest = b""

    def feed(self, text: bytes, at_end: bool) -> Iterator[Record]:
        """Yield the reads that are complete in `text`, which starts where the last call left `rest`."""
        lines = text.split(b"\n")
        if at_end and not lines[-1]:
            lines.pop()
        complete = len(lines) if at_end else len(lines) - 1
        done = complete - complete % 4
        reads = self._four_line_reads(lines[:done]) if done else None
        if reads is None:
            yield from self._walk(lines, complete, at_end)
            return
        yield from reads
        self._keep(lines, done)
        if at_end and done < len(lines):
            yield from self._walk(lines[done:], len(lines) - done, at_end)

    def _keep(self, lines: list[bytes], done: int) -> None:
        self.line += done
        self.rest = b"\n".join(lines[done:])
        if len(self.rest) > MAX_READ_BYTES:
            raise SequenceFormatError(
                f"read is longer than {MAX_READ_BYTES:,} bytes, or its quality does not end",
                path=self.path,
                line=self.line,
            )

    def _four_line_reads(self, lines: list[bytes]) -> list[Record] | None:
        """Check all lines at once as reads of exactly four lines; None if anything is unusual."""
        headers, sequences, pluses, qualities = (lines[i::4] for i in range(4))
        symbols, scores = b"".join(sequences), b"".join(qualities)
        header_text = b"\n".join(headers)
        usual = (
            all(header.startswith(b"@") for header in headers)
            and pluses.count(b"+") == len(pluses)
            and list(map(len, sequences)) == list(map(len, qualities))
            and not symbols.translate(None, self.alphabet.symbols)
            and not scores.translate(None, QUALITY_BYTES)
            and not header_text.translate(None, PLAIN_HEADERS)
            and not EMPTY_NAME.search(header_text)
            and max(map(len, headers)) <= MAX_HEADER_BYTES
            and not any(sequence.startswith(b"+") for sequence in sequences)
            and not (self.gaps and symbols.translate(None, GAPS) != symbols)
        )
        if not usual:
            return None
        names = [split_name(header[1:]) for header in header_text.decode().split("\n")]
        rows = zip(names, sequences, count(self.line, 4), qualities, strict=False)
        return [Record(*name, sequence, line, quality) for name, sequence, line, quality in rows]

    def _walk(self, lines: list[bytes], complete: int, at_end: bool) -> Iterator[Record]:
        """Parse read by read among the first `complete` lines; keep the rest, or refuse it at the end."""
        done = 0
        while done < complete:
            if not lines[done].strip(WHITESPACE):
                done += 1
                continue
            read = ReadLines(self, lines, done, complete, at_end)
            record = read.record()
            if record is None:
                break
            yield record
            done = read.next
        self._keep(lines, done)


class ReadLines:
    """One read, taken line by line from `lines[first:complete]`."""

    def __init__(self, parser: FastqParser, lines: list[bytes], first: int, complete: int, at_end: bool) -> None:
        self.parser, self.lines, self.first, self.complete, self.at_end = (
            parser,
            lines,
            first,
            complete,
            at_end,
        )
        self.next = first  # index of the line to be taken next
        self.header = Header("", "", parser.line + first)

    def record(self) -> Record | None:
        """Parse the read; None if its end is not among the lines and more text follows."""
        self._take_header()
        sequence = self._take_sequence()
        if sequence is None:
            return None
        qualities = self._take_qualities(len(sequence))
        if qualities is None:
            return None
        sequence, qualities = self._without_gaps(sequence, qualities)
        return Record(self.header.name, self.header.description, sequence, self.header.line, qualities)

    def _take_header(self) -> None:
        text = self.lines[self.next]
        line = self.parser.line + self.next
        if not text.startswith(b"@"):
            self._refuse(f"expected the '@' line of the next read, got {quoted(text)}")
        check_header_length(len(text), path=self.parser.path, line=line)
        self.header = parse_header(text[1:], path=self.parser.path, line=line)
        self.next += 1

    def _take_sequence(self) -> bytes | None:
        """Take the lines up to `+`, and the `+` line itself."""
        pieces: list[bytes] = []
        length = 0
        while self.next < self.complete:
            text = self.lines[self.next]
            if text.startswith(b"+"):
                self._check_plus(text)
                self.next += 1
                return b"".join(pieces)
            self._check_symbols(text, length)
            pieces.append(text)
            length += len(text)
            self.next += 1
        self._refuse_at_end("the '+' line is missing")
        return None

    def _check_plus(self, text: bytes) -> None:
        header = self.lines[self.first]
        if len(text) > 1 and text[1:] != header[1:]:
            self._refuse(f"the '+' line names {quoted(text[1:])}, the '@' line {quoted(header[1:])}")

    def _check_symbols(self, text: bytes, start: int) -> None:
        alphabet = self.parser.alphabet
        if not text.translate(None, alphabet.symbols + self.parser.gaps):
            return
        if text.startswith(b"@"):
            self._refuse("a new '@' line where the '+' line of the read was expected")
        if text.translate(None, WHITESPACE) != text:
            self._refuse("whitespace inside a sequence line")
        bad = text.translate(None, alphabet.symbols + self.parser.gaps)[:1]
        at = text.find(bad)
        message = f"position {start + at + 1}: {alphabet.refusal(text[at : at + 4])}"
        raise AlphabetError(
            message,
            path=self.parser.path,
            line=self.parser.line + self.next,
            record=shown(self.header.name),
        )

    def _take_qualities(self, length: int) -> bytes | None:
        """Take lines until there is one quality byte per symbol; a read of length 0 has one empty line."""
        pieces: list[bytes] = []
        missing = length
        while self.next < self.complete:
            text = self.lines[self.next]
            if not text and missing:
                self._refuse(f"expected {missing} more quality bytes for the sequence of {length}, got a blank line")
            if length == 0 and text:
                return b""  # the empty line was left out; this is the next header
            self._check_quality_line(text, missing, length)
            pieces.append(text)
            missing -= len(text)
            self.next += 1
            if not missing:
                return b"".join(pieces)
        if self.at_end and length == 0:
            return b""
        self._refuse_at_end(f"{missing} of {length} quality bytes are missing")
        return None

    def _check_quality_line(self, text: bytes, missing: int, length: int) -> None:
        bad = text.translate(None, QUALITY_BYTES)
        if bad:
            self._refuse(f"quality byte {quoted(bad[:1])} is not printable ASCII ('!' to '~')")
        if len(text) > missing:
            if text.startswith(b"@") and missing < length:  # the next read: the quality before it was too short
                self.next -= 1
                self._refuse(f"expected {length} quality bytes, one per symbol, got {length - missing}")
            got = length - missing + len(text)
            self._refuse(f"expected {length} quality bytes, one per symbol, got {got}: {quoted(text)}")

    def _without_gaps(self, sequence: bytes, qualities: bytes) -> tuple[bytes, bytes]:
        gaps = self.parser.gaps
        if not gaps or sequence.translate(None, gaps) == sequence:
            return sequence, qualities
        kept = [i for i, symbol in enumerate(sequence) if symbol not in gaps]
        return bytes(sequence[i] for i in kept), bytes(qualities[i] for i in kept)

    def _refuse_at_end(self, words: str) -> None:
        """Refuse an unfinished read if no more text follows."""
        if self.at_end:
            raise SequenceFormatError(
                f"truncated read: {words}",
                path=self.parser.path,
                line=self.header.line,
                record=shown(self.header.name),
            )

    def _refuse(self, words: str) -> None:
        record = shown(self.header.name) or None
        raise SequenceFormatError(words, path=self.parser.path, line=self.parser.line + self.next, record=record)
