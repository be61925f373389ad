"""Genes and other features from GFF3, for the tracks under a sequence; strict, every fault with its line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import unquote

from hyena_glt.errors import AnnotationError
from hyena_glt.sequences.lines import read_lines
from hyena_glt.sequences.quoting import quoted

NUM_COLUMNS = 9
COORDINATE = re.compile(r"\d{1,18}", re.ASCII)
STRANDS = ("+", "-", ".", "?")
PHASES = {"0": 0, "1": 1, "2": 2, ".": None}
NAME_KEYS = ("Name", "gene", "ID")


@dataclass(frozen=True, slots=True)
class Feature:
    """One line of a GFF3 file."""

    contig: str
    start: int  # 0-based
    end: int  # half-open; past the contig's length where a circular feature crosses the origin
    strand: str  # "+", "-", "." (none) or "?" (unknown)
    kind: str  # third column: gene, CDS, ...
    name: str  # attribute Name, else gene, else ID, else ""
    phase: int | None  # bases to skip to the first whole codon: 0, 1, 2
    line: int  # 1-based


def read_gff(path: str | os.PathLike[str]) -> list[Feature]:
    """Read every feature of a GFF3 file, in file order; a `##FASTA` line ends the features.

    Args:
        path: File name, or `-`; plain or gzip.

    Raises:
        AnnotationError: A line that breaks the format, GFF2 or GTF, or no line at all.
    """
    name = os.fspath(path)
    features, seen = [], False
    for number, text in _feature_lines(name):
        seen = True
        if text and not text.startswith("#"):
            features.append(_feature(text.split("\t"), name, number))
    if not seen:
        raise AnnotationError("no annotation: the file is empty", path=name)
    return features


def _feature_lines(path: str) -> Iterator[tuple[int, str]]:
    for number, text in read_lines(path):
        if text.startswith("##gff-version") and not text[len("##gff-version") :].strip().startswith("3"):
            raise AnnotationError(f"expected GFF version 3, got {quoted(text)}", path=path, line=number)
        if text == "##FASTA" or text.startswith(">"):
            return
        yield number, text.rstrip() if not text.strip() else text


def _feature(columns: list[str], path: str, line: int) -> Feature:
    if len(columns) != NUM_COLUMNS:
        _refuse(f"expected 9 tab-separated columns, got {len(columns)}: {quoted(columns[0])}", path, line)
    contig, _, kind, start, end, score, strand, phase, attributes = columns
    first, last = _coordinate("start", start, path, line), _coordinate("end", end, path, line)
    if not 1 <= first <= last:
        _refuse(f"expected 1 <= start <= end, got {first} and {last}", path, line)
    if not kind or kind == ".":
        _refuse("the type (column 3) is missing", path, line)
    if strand not in STRANDS:
        _refuse(f"strand: expected + - . or ?, got {quoted(strand)}", path, line)
    if phase not in PHASES:
        _refuse(f"phase: expected 0, 1, 2 or ., got {quoted(phase)}", path, line)
    _check_score(score, path, line)
    return Feature(
        contig=_text("contig", contig, path, line),
        start=first - 1,
        end=last,
        strand=strand,
        kind=_text("type", kind, path, line),
        name=_name(_attributes(attributes, path, line), path, line),
        phase=PHASES[phase],
        line=line,
    )


def _coordinate(column: str, text: str, path: str, line: int) -> int:
    if not COORDINATE.fullmatch(text):
        _refuse(f"{column}: expected a whole number, got {quoted(text)}", path, line)
    return int(text)


def _check_score(text: str, path: str, line: int) -> None:
    if text == ".":
        return
    try:
        float(text)
    except ValueError:
        _refuse(f"score: expected a number or ., got {quoted(text)}", path, line)


def _attributes(text: str, path: str, line: int) -> dict[str, str]:
    """Split `key=value;key=value`; values stay percent-encoded."""
    if text in (".", ""):
        return {}
    pairs = [pair.strip() for pair in text.split(";")]
    if any(pair and "=" not in pair for pair in pairs):
        hint = "; is this GTF? convert it to GFF3" if ' "' in text else ""
        _refuse(f"attributes: expected key=value;..., got {quoted(text)}{hint}", path, line)
    return dict(pair.split("=", 1) for pair in pairs if pair)


def _name(attributes: dict[str, str], path: str, line: int) -> str:
    value = next((attributes[key] for key in NAME_KEYS if attributes.get(key)), "")
    return _text("name", value, path, line) if value else ""


def _text(what: str, value: str, path: str, line: int) -> str:
    """Decode percent escapes and refuse what would not stay on one line."""
    text = unquote(value, errors="backslashreplace")
    if not text:
        _refuse(f"the {what} is missing", path, line)
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
        _refuse(f"control character in the {what} {quoted(text)}", path, line)
    return text


def _refuse(words: str, path: str, line: int) -> NoReturn:
    raise AnnotationError(words, path=path, line=line)
