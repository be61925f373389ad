"""The header of a VCF file: its lines kept as they came, its structure checked, INFO keys added.

`##fileformat` first, `##key=value` lines, one `#CHROM` line last. INFO, FORMAT, FILTER, ALT and contig lines have to
be whole; other structured lines are passed through unread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar

from hyena_glt.errors import ConfigError, VariantFormatError
from hyena_glt.sequences.quoting import quoted
from hyena_glt.tracks.provenance import Provenance

Version = tuple[int, int]
Name = TypeVar("Name", str, bytes)

OLDEST, NEWEST = (4, 1), (4, 5)
MAX_HEADER_BYTES = 1 << 28
MAX_STRUCTURED_BYTES = 1 << 20  # one line with <...>
MAX_SAMPLES = 1 << 21
CONTROL_BYTES = bytes({*range(32), 127} - {9})  # all but the tab
COLUMNS = (b"#CHROM", b"POS", b"ID", b"REF", b"ALT", b"QUAL", b"FILTER", b"INFO")
FORMAT_COLUMN = b"FORMAT"
FILE_FORMAT = re.compile(rb"##fileformat=VCFv(\d{1,3})\.(\d{1,3})\s*")
META = re.compile(rb"##[^=]+=.*")
STRUCTURED = re.compile(rb"##(INFO|FORMAT|FILTER|ALT|contig)=(.*)")
ATTRIBUTE = re.compile(rb'([^\s=,"<>]+)=("[^"\\]*+(?:\\.[^"\\]*+)*+"|[^,"]*+)(,\s*|$)')
REQUIRED = {
    "INFO": ("ID", "Number", "Type", "Description"),
    "FORMAT": ("ID", "Number", "Type", "Description"),
    "FILTER": ("ID", "Description"),
    "ALT": ("ID", "Description"),
    "contig": ("ID",),
}
NUMBERS = re.compile(r"\d{1,9}|[ARG.]")
NEWER_NUMBERS = ("P", "LA", "LR", "LG", "M")  # 4.4 and 4.5
TYPES = {
    "INFO": ("Integer", "Float", "Flag", "Character", "String"),
    "FORMAT": ("Integer", "Float", "Character", "String"),
}
INFO_KEY = re.compile(r"[A-Za-z_][0-9A-Za-z_.]*")
OUR_COMMENT = b"##hyena_glt"
FOREIGN_STARTS = {
    b"\xef\xbb\xbf": "byte-order mark before the text; save the file as UTF-8 without BOM",
    b"\xff\xfe": "UTF-16 text (byte-order mark); save the file as UTF-8",
    b"\xfe\xff": "UTF-16 text (byte-order mark); save the file as UTF-8",
    b"BZh": "bzip2 data; decompress it first (bunzip2)",
    b"\xfd7zXZ": "xz data; decompress it first (unxz)",
    b"(\xb5/\xfd": "zstd data; decompress it first (unzstd)",
    b"PK\x03\x04": "a zip archive; unpack it first (unzip)",
    b"\x1f\x8b": "gzip inside gzip; decompress it once first (gunzip)",
    b"BAM\x01": "a BAM file, expected VCF",
    b"CRAM": "a CRAM file, expected VCF",
    b">": "a FASTA file, expected VCF",
    b"##gff-version": "a GFF file, expected VCF",
}


@dataclass(frozen=True, slots=True)
class InfoField:
    """An INFO key that we declare and fill."""

    id: str
    number: str  # A for one value per ALT, or a count
    type: str  # Integer, Float or String
    description: str

    def __post_init__(self) -> None:
        if not INFO_KEY.fullmatch(self.id):
            raise ConfigError(f"INFO key: expected letters, digits, '_' and '.', got {quoted(self.id)}")
        if not re.fullmatch(r"A|[1-9]\d{0,8}", self.number):
            raise ConfigError(f"INFO key {self.id}: Number: expected A or a count, got {quoted(self.number)}")
        if self.type not in ("Integer", "Float", "String"):
            raise ConfigError(f"INFO key {self.id}: Type: expected Integer, Float or String, got {quoted(self.type)}")
        if not self.description.isprintable():
            raise ConfigError(f"INFO key {self.id}: control character in its description")

    def header_line(self) -> bytes:
        """`##INFO=<...>` without a line end."""
        words = self.description.replace("\\", "\\\\").replace('"', '\\"')
        return f'##INFO=<ID={self.id},Number={self.number},Type={self.type},Description="{words}">'.encode()


@dataclass(frozen=True, slots=True)
class VcfHeader:
    """A header that passed the checks."""

    lines: tuple[bytes, ...]  # as they came, with their line ends; the last is the #CHROM line
    version: Version  # (4, 2) for VCFv4.2
    contigs: dict[str, int | None]  # declared contig -> its declared length
    samples: tuple[str, ...]

    @property
    def num_columns(self) -> int:
        """Columns that every record has."""
        return len(COLUMNS) + (1 + len(self.samples) if self.samples else 0)

    @property
    def line_end(self) -> bytes:
        """LF, or CRLF where the first line has it."""
        return b"\r\n" if self.lines[0].endswith(b"\r\n") else b"\n"

    def with_fields(self, fields: Sequence[InfoField], provenance: Provenance | None = None) -> VcfHeader:
        """The header with INFO keys declared, behind its last `##INFO` line, and provenance, behind its first line.

        What an earlier run has left of the same keys and of the provenance is replaced.
        """
        stale = {field.id.encode() for field in fields}
        kept = [line for line in self.lines if _info_id(line) not in stale]
        if provenance is not None:
            kept = [line for line in kept if not line.startswith(OUR_COMMENT)]
        behind = max((i for i, line in enumerate(kept) if line.startswith(b"##INFO=")), default=len(kept) - 2) + 1
        kept[behind:behind] = [field.header_line() + self.line_end for field in fields]
        if provenance is not None:
            kept[1:1] = [line + self.line_end for line in provenance.as_comments().splitlines()]
        return replace(self, lines=tuple(kept))


def read_header(lines: Iterable[bytes], path: str) -> VcfHeader:
    """Take the header lines off an iterator of lines, up to and with the `#CHROM` line.

    Args:
        lines: Raw lines from the first one on.
        path: For messages.

    Raises:
        VariantFormatError: The header is missing, incomplete or broken; names file and line.
    """
    return _HeaderReader(path).read(iter(lines))


class _HeaderReader:
    def __init__(self, path: str) -> None:
        self._path, self._line = path, 0
        self._version: Version = OLDEST
        self._contigs: dict[str, int | None] = {}
        self._seen: dict[tuple[str, str], bytes] = {}

    def read(self, lines: Iterator[bytes]) -> VcfHeader:
        kept, size = [], 0
        for self._line, raw in enumerate(lines, start=1):
            kept.append(raw)
            size += len(raw)
            if size > MAX_HEADER_BYTES:
                self._refuse(f"the header is longer than {MAX_HEADER_BYTES:,} bytes")
            text = raw.rstrip()
            if self._line == 1:
                self._version = self._file_format(text)
            elif text.startswith(b"##"):
                self._meta(text)
            elif text.startswith(b"#"):
                samples = self._samples(raw.removesuffix(b"\n").removesuffix(b"\r"))
                return VcfHeader(tuple(kept), self._version, self._contigs, samples)
            else:
                words = f"got {quoted(text)}" if text else "got a blank line"
                self._refuse(f"expected header lines ('##') and a #CHROM line before the records, {words}")
        if not kept:
            raise VariantFormatError("the file is empty, expected VCF", path=self._path)
        words = "the file ends without a #CHROM line; is it truncated?"
        raise VariantFormatError(words, path=self._path, line=self._line)

    def _file_format(self, text: bytes) -> Version:
        match = FILE_FORMAT.fullmatch(text)
        if match is None:
            for start, words in FOREIGN_STARTS.items():
                if text.startswith(start):
                    self._refuse(words)
            self._refuse(f"expected '##fileformat=VCFv4.x' in the first line, got {quoted(text)}")
        version = int(match[1]), int(match[2])
        if not OLDEST <= version <= NEWEST:
            self._refuse(f"expected VCF 4.1 to 4.5, got {version[0]}.{version[1]}; convert it (bcftools view)")
        return version

    def _meta(self, text: bytes) -> None:
        if len(text.translate(None, CONTROL_BYTES)) != len(text):
            self._refuse("control character in the header; is the file damaged?")
        if not META.fullmatch(text):
            self._refuse(f"expected '##key=value', got {quoted(text)}")
        if text.startswith(b"##fileformat="):
            self._refuse("##fileformat stands twice; are two files pasted together?")
        if match := STRUCTURED.fullmatch(text):
            self._structured(match[1].decode(), match[2])

    def _structured(self, key: str, content: bytes) -> None:
        if len(content) > MAX_STRUCTURED_BYTES:
            self._refuse(f"##{key}: a line of more than {MAX_STRUCTURED_BYTES:,} bytes")
        if not (content.startswith(b"<") and content.endswith(b">")):
            self._refuse(f"##{key}: expected '<...>' to the end of the line, got {quoted(content)}")
        values = self._attributes(key, content[1:-1])
        for name in REQUIRED[key]:
            if not values.get(name.encode()):
                self._refuse(f"##{key}: {name} is missing in {quoted(content)}")
        if b"Description" in values and not values[b"Description"].startswith(b'"'):
            self._refuse(f"##{key}: Description has to stand in double quotes, got {quoted(values[b'Description'])}")
        name = values[b"ID"].decode(errors="backslashreplace")
        if key in TYPES:
            self._check_type(key, name, values[b"Number"].decode("latin-1"), values[b"Type"].decode("latin-1"))
        if key == "contig":
            self._contig(name, values.get(b"length"))
        elif self._seen.setdefault((key, name), content) != content:
            self._refuse(f"##{key}: {quoted(name)} is declared twice and differently")

    def _attributes(self, key: str, content: bytes) -> dict[bytes, bytes]:
        values: dict[bytes, bytes] = {}
        at = 0
        while at < len(content):
            match = ATTRIBUTE.match(content, at)
            if match is None:
                self._refuse(f"##{key}: expected key=value pairs between commas, got {quoted(content[at:])}")
            if match[1] in values:
                self._refuse(f"##{key}: {quoted(match[1])} stands twice in one line")
            values[match[1]] = match[2]
            at = match.end()
        return values

    def _check_type(self, key: str, name: str, number: str, kind: str) -> None:
        newer = self._version >= (4, 4) and number in NEWER_NUMBERS
        if not NUMBERS.fullmatch(number) and not newer:
            self._refuse(f"##{key} {quoted(name)}: Number: expected a count, A, R, G or '.', got {quoted(number)}")
        if kind not in TYPES[key]:
            self._refuse(f"##{key} {quoted(name)}: Type: expected one of {', '.join(TYPES[key])}, got {quoted(kind)}")

    def _contig(self, name: str, length: bytes | None) -> None:
        if length is not None and not re.fullmatch(rb"\d{1,18}", length):
            self._refuse(f"##contig {quoted(name)}: length: expected a whole number, got {quoted(length)}")
        bases = None if length is None else int(length)
        if self._contigs.setdefault(name, bases) != bases:
            self._refuse(f"##contig: {quoted(name)} is declared twice and differently")

    def _samples(self, text: bytes) -> tuple[str, ...]:
        if text.count(b"\t") > MAX_SAMPLES:
            self._refuse(f"more than {MAX_SAMPLES:,} samples")
        columns = tuple(text.split(b"\t"))
        if columns[: len(COLUMNS)] != COLUMNS:
            hint = "; separate the columns by tabs" if b"\t" not in text and b" " in text else ""
            expected = " ".join(column.decode() for column in COLUMNS)
            self._refuse(f"expected the columns {expected}, got {quoted(text)}{hint}")
        rest = columns[len(COLUMNS) :]
        if not rest:
            return ()
        if rest[0] != FORMAT_COLUMN:
            self._refuse(f"expected FORMAT as the ninth column, got {quoted(rest[0])}")
        if len(rest) == 1:
            self._refuse("a FORMAT column without a sample; remove it or add the samples")
        samples = tuple(map(self._sample, rest[1:]))
        if (twice := first_repeated(samples)) is not None:
            self._refuse(f"the sample {quoted(twice)} stands twice in the #CHROM line; rename one")
        return samples

    def _sample(self, name: bytes) -> str:
        try:
            text = name.decode()
        except UnicodeDecodeError:
            self._refuse(f"sample name is not UTF-8: {quoted(name)}")
        if not text.strip() or not text.isprintable():
            self._refuse(f"expected a sample name, got {quoted(name)}")
        return text

    def _refuse(self, words: str) -> NoReturn:
        raise VariantFormatError(words, path=self._path, line=self._line)


def _info_id(line: bytes) -> bytes | None:
    """The ID that an `##INFO` line declares."""
    if not line.startswith(b"##INFO=<"):
        return None
    content = line.rstrip()[len(b"##INFO=<") : -1]
    at = 0
    while match := ATTRIBUTE.match(content, at):
        if match[1] == b"ID":
            return match[2]
        at = match.end()
    return None


def first_repeated(names: Iterable[Name]) -> Name | None:
    """The first name that stood before; None where all differ."""
    seen: set[Name] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
