"""Coding sequences from GenBank flat files: a thin, strict reader of LOCUS, CDS features and ORIGIN.

Everything else in a record is passed over. What cannot be read exactly (a location with a gap, another record's bases,
a sequence that is not in the file) is refused with its line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from hyena_glt.errors import AlphabetError, AnnotationError
from hyena_glt.multimodal.genetic_code import GENETIC_CODES
from hyena_glt.sequences.alphabets import DNA, PROTEIN, reverse_complement
from hyena_glt.sequences.lines import read_lines
from hyena_glt.sequences.quoting import quoted

FEATURE_LINE = re.compile(r" {5}(\S{1,15}) +(\S.*)")
VALUE_COLUMN = 21
QUALIFIER = re.compile(r"/([A-Za-z0-9_'*-]+)(?:=(.*))?")
ORIGIN_LINE = re.compile(r" *(\d{1,12})((?: [A-Za-z]{1,10}){0,6}) *", re.ASCII)
SPAN = re.compile(r"(<?)(\d{1,12})(?:\.\.(>?)(\d{1,12}))?", re.ASCII)
MAX_NESTING = 4
NAME_KEYS = ("locus_tag", "gene", "protein_id")
JOINED_WITHOUT_BLANK = ("translation",)

Lines = list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the record."""

    start: int  # 0-based
    end: int  # half-open
    strand: str  # "+" or "-"


@dataclass(frozen=True, slots=True)
class CodingFeature:
    """One CDS feature."""

    name: str  # locus_tag, else gene, else protein_id, else ""
    spans: tuple[Span, ...]  # in the order of reading: their bases, joined, are the coding sequence
    starts_inside: bool  # its first codon lies before the record's or the feature's known start
    codon_start: int  # 1, 2 or 3: first base of the first whole codon
    transl_table: int  # number of the genetic code
    translation: bytes | None  # the protein as stored, None where the feature has none (pseudogenes)
    is_pseudo: bool  # the feature says that it is no working gene
    exception: str | None  # the feature's own word that translating does not give the protein
    line: int  # 1-based


@dataclass(frozen=True, slots=True)
class GenBankRecord:
    """One record with its coding sequences."""

    name: str
    sequence: bytes  # upper case, T for U
    coding: tuple[CodingFeature, ...]
    path: str

    def coding_sequence(self, feature: CodingFeature) -> bytes:
        """The bases of a feature in the order of reading, from its first base."""
        pieces = ((self.sequence[span.start : span.end], span.strand) for span in feature.spans)
        return b"".join(piece if strand == "+" else reverse_complement(piece) for piece, strand in pieces)


def read_genbank(path: str | os.PathLike[str]) -> Iterator[GenBankRecord]:
    """Read the records of a GenBank flat file, in order.

    Args:
        path: File name, or `-`; plain or gzip.

    Raises:
        AnnotationError: A record that breaks the format or holds what this reader does not read; with its line.
        AlphabetError: A symbol of the sequence that is no base.
    """
    source = os.fspath(path)
    lines: Lines = []
    seen = False
    for number, text in read_lines(source):
        if text.rstrip() == "//" and lines:
            yield _record(lines, source)
            seen, lines = True, []
        elif lines or text.strip():
            lines.append((number, text))
    if lines:
        _refuse("the record has no '//' line at its end; is the file truncated?", source, lines[-1][0])
    if not seen:
        raise AnnotationError("no GenBank record: the file is empty", path=source)


def _record(lines: Lines, path: str) -> GenBankRecord:
    name, length = _locus(*lines[0], path)
    sections = _sections(lines)
    if "ORIGIN" not in sections:
        _refuse("no ORIGIN: the sequence is not in the file; fetch the record in full", path, lines[0][0])
    sequence = _sequence(sections["ORIGIN"], length, name, path)
    features = _features(sections.get("FEATURES", []), path)
    coding = tuple(_coding(feature, length, path) for key, feature in features if key == "CDS")
    return GenBankRecord(name, sequence, coding, path)


def _locus(number: int, text: str, path: str) -> tuple[str, int]:
    words = text.split()
    if not text.startswith("LOCUS") or len(words) < 4:
        _refuse(f"expected a GenBank record that begins with LOCUS, name and length, got {quoted(text)}", path, number)
    if not re.fullmatch(r"\d{1,12}", words[2], re.ASCII):
        _refuse(f"LOCUS: expected the length in bases, got {quoted(words[2])}", path, number)
    if words[3] != "bp":
        _refuse(f"LOCUS: expected a nucleotide record (bp), got {quoted(words[3])}", path, number)
    return words[1], int(words[2])


def _sections(lines: Lines) -> dict[str, Lines]:
    """Keyword in the first column -> the lines below it."""
    sections: dict[str, Lines] = {}
    below: Lines = []
    for number, text in lines:
        if text[:1].strip():
            below = sections.setdefault(text.split()[0], [])
        elif text.strip():
            below.append((number, text))
    return sections


def _sequence(lines: Lines, length: int, name: str, path: str) -> bytes:
    pieces, count, number = [], 0, None
    for number, text in lines:
        match = ORIGIN_LINE.fullmatch(text)
        if match is None or int(match[1]) != count + 1:
            _refuse(f"ORIGIN: expected '{count + 1}' and blocks of ten bases, got {quoted(text.strip())}", path, number)
        pieces.append(match[2].replace(" ", ""))
        count += len(pieces[-1])
    if count != length:
        _refuse(f"ORIGIN: expected {length} bases as in LOCUS, got {count}", path, number)
    sequence = "".join(pieces).upper().replace("U", "T").encode()
    DNA.encode(sequence, record=name, path=path)
    return sequence


def _features(lines: Lines, path: str) -> Iterator[tuple[str, Lines]]:
    """Key of each feature and its lines, cut to the value column; the first ones hold the location."""
    key, own = "", []
    for number, text in lines:
        if not text[:VALUE_COLUMN].strip():
            if not key:
                _refuse("FEATURES: expected a feature key in column 6", path, number)
            own.append((number, text[VALUE_COLUMN:].rstrip()))
            continue
        match = FEATURE_LINE.fullmatch(text)
        if match is None or match.start(2) != VALUE_COLUMN:
            _refuse(f"FEATURES: expected a key in column 6, a location in 22, got {quoted(text)}", path, number)
        if key:
            yield key, own
        key, own = match[1], [(number, match[2].rstrip())]
    if key:
        yield key, own


def _coding(lines: Lines, length: int, path: str) -> CodingFeature:
    number = lines[0][0]
    split = next((i for i, (_, text) in enumerate(lines) if text.startswith("/")), len(lines))
    location = "".join(text.replace(" ", "") for _, text in lines[:split])
    spans, inside = _location(location, length, path, number)
    values = _qualifiers(lines[split:], path)
    return CodingFeature(
        name=next((values[key] for key in NAME_KEYS if values.get(key)), ""),
        spans=tuple(spans),
        starts_inside=inside,
        codon_start=_number("codon_start", values.get("codon_start", "1"), (1, 2, 3), path, number),
        transl_table=_number("transl_table", values.get("transl_table", "1"), GENETIC_CODES, path, number),
        translation=_protein(values["translation"], path, number) if "translation" in values else None,
        is_pseudo=not values.keys().isdisjoint(("pseudo", "pseudogene")),
        exception=next((key for key in ("exception", "transl_except", "ribosomal_slippage") if key in values), None),
        line=number,
    )


def _qualifiers(lines: Lines, path: str) -> dict[str, str]:
    """Name -> value of `/name=value`, the first one of each; quotes taken off, lines of a value joined."""
    values: dict[str, str] = {}
    rest = iter(lines)
    for number, text in rest:
        match = QUALIFIER.fullmatch(text)
        if match is None:
            _refuse(f"expected a qualifier /name=value, got {quoted(text)}", path, number)
        name, value = match[1], match[2] or ""
        if value.startswith('"'):
            glue = "" if name in JOINED_WITHOUT_BLANK else " "
            value = glue.join(_quoted_lines(name, value, number, rest, path))[1:-1].replace('""', '"')
        values.setdefault(name, value)
    return values


def _quoted_lines(name: str, first: str, number: int, rest: Iterator[tuple[int, str]], path: str) -> list[str]:
    """The lines of a quoted value; it ends with a quote, and a doubled quote inside stands for one."""
    lines, quotes = [first], first.count('"')
    while quotes % 2 or not lines[-1].endswith('"'):
        more = next(rest, None)
        if more is None:
            _refuse(f"/{name}: the quote is never closed", path, number)
        lines.append(more[1])
        quotes += more[1].count('"')
    return lines


def _location(text: str, length: int, path: str, line: int, depth: int = 0) -> tuple[list[Span], bool]:
    """Spans in the order of reading, and whether the first codon may lie outside."""
    if depth > MAX_NESTING:
        _refuse("location: nested too deeply", path, line)
    if text.startswith("complement(") and text.endswith(")"):
        inner = text[len("complement(") : -1]
        spans, _ = _location(inner, length, path, line, depth + 1)
        flipped = [Span(span.start, span.end, "-" if span.strand == "+" else "+") for span in reversed(spans)]
        return flipped, _last_part(inner).rpartition("..")[2].startswith(">")
    if text.startswith("join(") and text.endswith(")"):
        parts = [_location(part, length, path, line, depth + 1) for part in _parts(text[len("join(") : -1])]
        return [span for spans, _ in parts for span in spans], parts[0][1]
    match = SPAN.fullmatch(text)
    if match is None:
        _refuse(f"location: expected start..end, complement(...) or join(...), got {quoted(text)}", path, line)
    start, end = int(match[2]), int(match[4] or match[2])
    if not 1 <= start <= end <= length:
        _refuse(f"location: expected 1 <= start <= end <= {length}, got {quoted(text)}", path, line)
    return [Span(start - 1, end, "+")], bool(match[1])


def _parts(text: str) -> list[str]:
    """Pieces between the commas that stand outside of brackets."""
    parts, depth = [""], 0
    for piece in re.split(r"([(),])", text):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _last_part(text: str) -> str:
    """The last span of a location, without brackets."""
    return text.rstrip(")").rpartition(",")[2].rpartition("(")[2]


def _number(name: str, text: str, allowed: tuple[int, ...], path: str, line: int) -> int:
    if text not in map(str, allowed):
        _refuse(f"/{name}: expected one of {', '.join(map(str, allowed))}, got {quoted(text)}", path, line)
    return int(text)


def _protein(text: str, path: str, line: int) -> bytes:
    protein = text.replace(" ", "").upper().encode("utf-8", "replace")
    try:
        PROTEIN.encode(protein)
    except AlphabetError as fault:
        _refuse(f"/translation: {fault.message}", path, line)
    if not protein:
        _refuse("/translation: expected amino acids, got none", path, line)
    return protein


def _refuse(words: str, path: str, line: int | None) -> NoReturn:
    raise AnnotationError(words, path=path, line=line)
