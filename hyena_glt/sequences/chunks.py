"""Text of a sequence file in chunks: CRLF folded to LF, blank lines skipped, the format told by content."""

from __future__ import annotations

import re

from hyena_glt.errors import SequenceFormatError
from hyena_glt.sequences.decompress import Source
from hyena_glt.sequences.quoting import quoted

WHITESPACE = b" \t\n\r\x0b\x0c"
VISIBLE = re.compile(b"[^" + WHITESPACE + b"]")
SHOWN_BYTES = 256

FOREIGN_STARTS = {
    b"\xef\xbb\xbf": "byte-order mark before the text; save the file as UTF-8 without BOM",
    b"\xff\xfe": "UTF-16 text (byte-order mark); save the file as UTF-8",
    b"\xfe\xff": "UTF-16 text (byte-order mark); save the file as UTF-8",
    b";": "';' header of the legacy FASTA format; start headers with '>'",
    b"BZh": "bzip2 data; decompress it first (bunzip2)",
    b"\xfd7zXZ": "xz data; decompress it first (unxz)",
    b"(\xb5/\xfd": "zstd data; decompress it first (unzstd)",
    b"PK\x03\x04": "a zip archive; unpack it first (unzip)",
    b"\x1f\x8b": "gzip inside gzip; decompress it once first (gunzip)",
    b"BAM\x01": "a BAM file; convert it first (samtools fasta)",
    b"CRAM": "a CRAM file; convert it first (samtools fasta)",
    b"LOCUS ": "a GenBank record; convert it to FASTA first",
    b"##fileformat=VCF": "a VCF file, expected FASTA or FASTQ",
    b"##gff-version": "a GFF file, expected FASTA or FASTQ",
}


class ChunkReader:
    """Chunks of at most `size` bytes in which every line ends with LF only.

    A carriage return that is left in a chunk ends no line; one that is the last byte of the input is dropped.
    """

    def __init__(self, source: Source, size: int) -> None:
        self.size = size
        self._source = source
        self._given_back = b""
        self._ahead = b""  # the byte after a carriage return at the end of a chunk, if it is no newline

    def next(self) -> bytes:
        """Give the next chunk, or `b""` at the end of the input."""
        if self._given_back:
            chunk, self._given_back = self._given_back[: self.size], self._given_back[self.size :]
            return chunk
        chunk, self._ahead = self._ahead + self._source.read(self.size - len(self._ahead)), b""
        if chunk.endswith(b"\r"):
            chunk = self._with_its_newline(chunk)
        return chunk.replace(b"\r\n", b"\n") if b"\r" in chunk else chunk

    def _with_its_newline(self, chunk: bytes) -> bytes:
        """Look at the byte after a carriage return that ends a chunk."""
        following = self._source.read(1)
        if following == b"\n":
            return chunk + following
        self._ahead = following
        return chunk if following else chunk[:-1]

    def give_back(self, text: bytes) -> None:
        """Make these bytes the next chunks."""
        self._given_back = text + self._given_back if self._given_back else text


def skip_blank_lines(reader: ChunkReader) -> int:
    """Move to the first line that is not blank and return its 1-based number; 0 when there is none."""
    line, opening = 1, b""
    while chunk := reader.next():
        text = opening + chunk if opening else chunk
        visible = VISIBLE.search(text)
        begin = text.rfind(b"\n", 0, visible.start() if visible else None) + 1
        line += text.count(b"\n", 0, begin)
        if visible:
            reader.give_back(text[begin:])
            return line
        opening = text[begin : begin + SHOWN_BYTES]
    return 0


def sniff(reader: ChunkReader, path: str) -> tuple[bytes, int]:
    """Find where the records start and of what format they are.

    Returns:
        The marker `b">"` (FASTA) or `b"@"` (FASTQ), and the 1-based line of the first record.

    Raises:
        SequenceFormatError: Nothing there, or something else than a record.
    """
    line = skip_blank_lines(reader)
    head = _peek(reader) if line else b""
    if not head:
        raise SequenceFormatError("no sequence: the file is empty or holds blank lines only", path=path)
    if head[:1] in (b">", b"@"):
        return head[:1], line
    raise SequenceFormatError(_foreign(head), path=path, line=line)


def _peek(reader: ChunkReader) -> bytes:
    text = b""
    while len(text) < SHOWN_BYTES and (chunk := reader.next()):
        text += chunk
    reader.give_back(text)
    return text


def _foreign(head: bytes) -> str:
    for start, words in FOREIGN_STARTS.items():
        if head.startswith(start):
            return words
    text = head.split(b"\n")[0]
    if b"\0" in head:
        return f"binary data, expected a line that starts with '>' (FASTA) or '@' (FASTQ); got {quoted(text)}"
    return f"data before the first record: expected '>' (FASTA) or '@' (FASTQ), got {quoted(text)}"
