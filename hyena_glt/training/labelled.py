"""Labelled sequences: rows of a table, or regions of a genome, with a class, a number or a label at every base.

    TSV, CSV or BED + FASTA -> LabelledRows (text) -> encode_labels -> LabelledSet (numbers)

Readers are strict: every fault is one error with `file:line`.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, get_args

import numpy as np
from numpy.typing import NDArray

from hyena_glt.checks import nearest_name
from hyena_glt.errors import AlphabetError, AnnotationError, ConfigError, DataError, RegionError
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet, reverse_complement
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.sequences.intervals import COORDINATE, HEADER_WORDS, Interval
from hyena_glt.sequences.lines import read_lines
from hyena_glt.sequences.quoting import quoted

Task = Literal["classification", "regression", "per-base"]
SEPARATORS = {"tsv": "\t", "tab": "\t", "txt": "\t", "csv": ","}
NAMED_SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}
UNLABELLED = "?"  # of a base, in a label string
IGNORED = -1  # of a base, in numbers
NAME_COLUMN, STRAND_COLUMN = 4, 6  # of BED, from 1
STRANDS = ("+", "-", ".")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRows:
    """Sequences with what stands beside them, as text."""

    path: str
    sequences: tuple[bytes, ...]  # upper case, but as written in the alphabet "bytes"; none empty
    labels: tuple[str, ...]
    lines: tuple[int, ...]  # 1-based, in the file

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> Self:
        """Some of the rows, in the order given."""
        picked = [int(row) for row in rows]
        return type(self)(
            path=self.path,
            sequences=tuple(self.sequences[row] for row in picked),
            labels=tuple(self.labels[row] for row in picked),
            lines=tuple(self.lines[row] for row in picked),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledSet:
    """Sequences with labels as numbers."""

    task: Task
    classes: tuple[str, ...]  # sorted; the label of a class is its index; empty for a regression
    rows: LabelledRows
    labels: tuple[NDArray[Any], ...]  # each () int64, () float64 or (length,) int64 with -1 where there is none

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> Self:
        """Some of the rows, in the order given."""
        labels = tuple(self.labels[int(row)] for row in rows)
        return type(self)(task=self.task, classes=self.classes, rows=self.rows.take(rows), labels=labels)


def read_table(
    path: str | os.PathLike[str],
    *,
    sequence_column: str = "sequence",
    label_column: str = "label",
    separator: str | None = None,
    alphabet: str | Alphabet = "dna",
) -> LabelledRows:
    """Read a table with a header line; empty lines are skipped, fields lose the blanks around them.

    Args:
        path: File name, or `-`; plain or gzip.
        sequence_column: Name of the column with the sequences.
        label_column: Name of the column with the labels.
        separator: One character, or tab, comma, semicolon, space; None: by suffix (.tsv, .csv), a tab for stdin.
        alphabet: What the sequences may hold.

    Raises:
        DataError: No such column, a line with another number of fields, an empty sequence or label, no row.
        AlphabetError: A symbol that the alphabet does not have.
        ConfigError: The suffix tells no separator.
    """
    name, letters = os.fspath(path), get_alphabet(alphabet)
    between = separator_of(name, separator)
    lines = ((number, text) for number, text in read_lines(name, error=DataError) if text.strip())
    header_line, header = next(lines, (1, ""))
    names = _fields(header, between, name, header_line)
    at = [_column(names, wanted, name, header_line) for wanted in (sequence_column, label_column)]
    collected: list[tuple[bytes, str, int]] = []
    for number, text in lines:
        fields = _fields(text, between, name, number)
        if len(fields) != len(names):
            raise DataError(
                f"expected {len(names)} columns as in the header, got {len(fields)}", path=name, line=number
            )
        sequence, label = (fields[column] for column in at)
        symbols = _checked(sequence.encode(), letters, name, number)
        collected.append((symbols, _label(label, label_column, name, number), number))
    return _rows(name, collected)


def read_regions(
    bed: str | os.PathLike[str],
    fasta: str | os.PathLike[str],
    *,
    label_column: int = NAME_COLUMN,
    alphabet: str | Alphabet = "dna",
) -> LabelledRows:
    """Read regions of a genome; those on the reverse strand (column 6 is -) come reverse complemented.

    Args:
        bed: Tab-separated, 0-based half-open; plain or gzip, or `-`.
        fasta: What the regions are of, plain or BGZF.
        label_column: Number of the column with the labels, from 1; 4 is the name. Labels of bases are written in the
            order of the strand.
        alphabet: What the sequences may hold.

    Raises:
        DataError: A line that is no BED line, an empty label, no row.
        RegionError: An unknown contig, or a region past the end of its contig.
        AlphabetError: A symbol that the alphabet does not have.
        ConfigError: The label column is one of the first three.
    """
    name, letters = os.fspath(bed), get_alphabet(alphabet)
    if label_column < NAME_COLUMN:
        raise ConfigError(f"label_column: expected the number of a BED column from 4, got {label_column}")
    collected: list[tuple[bytes, str, int]] = []
    with IndexedFasta(fasta) as genome:
        for number, text in read_lines(name):
            if text.strip() and not text.startswith(HEADER_WORDS):
                fields = [field.strip() for field in text.split("\t")]
                sequence = _fetched(genome, fields, letters, name, number)
                symbols = _checked(sequence, letters, name, number)
                label = fields[label_column - 1] if len(fields) >= label_column else ""
                collected.append((symbols, _label(label, str(label_column), name, number), number))
    return _rows(name, collected)


def encode_labels(rows: LabelledRows, task: Task, classes: Sequence[str] | None = None) -> LabelledSet:
    """Turn labels into numbers.

    A class is a text. The labels of bases are one symbol per base, `?` where there is none, or, where a label of the
    table holds a comma, whole numbers with commas between, -1 where there is none. A regression has finite numbers.

    Args:
        rows: What was read.
        task: What the labels are.
        classes: Those that there are; None: those that occur, sorted (whole numbers by value).

    Raises:
        DataError: A label of the wrong form or length, a class that is not among those given, fewer than two classes.
        ConfigError: Unknown task.
    """
    if task not in get_args(Task):
        raise ConfigError(f"task: expected one of {', '.join(get_args(Task))}, got {task!r}")
    if task == "regression":
        numbers = tuple(np.float64(_number(rows, row)) for row in range(len(rows)))
        return LabelledSet(task=task, classes=(), rows=rows, labels=tuple(np.asarray(value) for value in numbers))
    cells = [_base_labels(rows, row) for row in range(len(rows))] if task == "per-base" else [[x] for x in rows.labels]
    given = tuple(classes) if classes is not None else sorted_classes({text for cell in cells for text in set(cell)})
    if len(given) < 2:
        raise DataError(f"expected at least two classes, got {len(given)}: {', '.join(given)}", path=rows.path)
    index = {name: place for place, name in enumerate(given)}
    if task == "per-base":
        index |= dict.fromkeys((UNLABELLED, str(IGNORED)), IGNORED)
    labels = []
    for row, cell in enumerate(cells):
        unknown = set(cell) - index.keys()
        if unknown:
            _refuse(rows, row, f"unknown class {quoted(min(unknown))}; expected one of {', '.join(map(quoted, given))}")
        numbers_here = np.array([index[text] for text in cell], dtype=np.int64)
        labels.append(numbers_here if task == "per-base" else numbers_here[0])
    return LabelledSet(task=task, classes=given, rows=rows, labels=tuple(np.asarray(label) for label in labels))


def sorted_classes(names: set[str]) -> tuple[str, ...]:
    """Class names in order: whole numbers by value if all are, else texts; marks of unlabelled bases left out.

    Example:
        >>> sorted_classes({"10", "9"}), sorted_classes({"b", "a", "10"})
        (('9', '10'), ('10', 'a', 'b'))
    """
    kept = names - {UNLABELLED, str(IGNORED)}
    is_numbers = all(name.isascii() and name.isdigit() for name in kept)
    return tuple(sorted(kept, key=lambda name: (int(name), name)) if is_numbers else sorted(kept))


def separator_of(path: str, wanted: str | None) -> str:
    """What stands between the fields of a table.

    Raises:
        ConfigError: More than one character, or a suffix that does not tell.
    """
    if wanted is not None:
        found = NAMED_SEPARATORS.get(wanted, wanted)
        if len(found) != 1 or found in '"\r\n':
            raise ConfigError(f"separator: expected one character, or tab, comma, semicolon or space, got {wanted!r}")
        return found
    if path == "-":
        return "\t"
    suffixes = [suffix.lstrip(".").lower() for suffix in Path(path).suffixes if suffix not in (".gz", ".bgz")]
    if not suffixes or suffixes[-1] not in SEPARATORS:
        raise ConfigError(f"{path}: the suffix tells no separator; expected .tsv or .csv, or give --separator")
    return SEPARATORS[suffixes[-1]]


def _fields(text: str, separator: str, path: str, line: int) -> list[str]:
    """The fields of a line; the csv module is asked only where a field may be quoted, since it limits their length."""
    if '"' not in text:
        return [field.strip() for field in text.split(separator)]
    try:
        return [field.strip() for field in next(csv.reader([text], delimiter=separator, strict=True))]
    except csv.Error as problem:
        raise DataError(f"damaged quotes: {problem}", path=path, line=line) from None


def _column(names: list[str], wanted: str, path: str, line: int) -> int:
    if names.count(wanted) == 1:
        return names.index(wanted)
    if wanted in names:
        raise DataError(f"the header has column {quoted(wanted)} more than once", path=path, line=line)
    meant = nearest_name(wanted, names)
    there = ", ".join(quoted(name) for name in names[:8])
    hint = f"; did you mean {quoted(meant)}?" if meant else ""
    raise DataError(f"the header has no column {quoted(wanted)}, it has {there}{hint}", path=path, line=line)


def _label(text: str, column: str, path: str, line: int) -> str:
    """A label as it is, if it is one and prints on one line."""
    if not text:
        raise DataError(f"column {quoted(column)} is empty: expected a label", path=path, line=line)
    if not text.isprintable():
        raise DataError(f"label: expected printable text, got {quoted(text)}", path=path, line=line)
    return text


def _checked(sequence: bytes, alphabet: Alphabet, path: str, line: int) -> bytes:
    if not sequence:
        raise DataError("the sequence is empty", path=path, line=line)
    try:
        alphabet.encode(sequence)
    except AlphabetError as problem:
        raise AlphabetError(problem.message, path=path, line=line) from None
    return sequence.upper() if alphabet.has_ambiguity else sequence


def _rows(path: str, collected: list[tuple[bytes, str, int]]) -> LabelledRows:
    if not collected:
        raise DataError("no labelled row: the file is empty or has a header only", path=path)
    sequences, labels, lines = zip(*collected, strict=True)
    return LabelledRows(path=path, sequences=sequences, labels=labels, lines=lines)


def _fetched(genome: IndexedFasta, fields: list[str], alphabet: Alphabet, path: str, line: int) -> bytes:
    if len(fields) < 3 or not all(COORDINATE.fullmatch(field) for field in fields[1:3]) or not fields[0]:
        raise AnnotationError("expected contig, start and end, separated by tabs", path=path, line=line)
    start, end = int(fields[1]), int(fields[2])
    if start >= end:
        raise AnnotationError(f"expected start < end (0-based, half-open), got {start} and {end}", path=path, line=line)
    strand = fields[STRAND_COLUMN - 1] if len(fields) >= STRAND_COLUMN else "."
    if strand not in STRANDS:
        raise AnnotationError(f"strand: expected + - or ., got {quoted(strand)}", path=path, line=line)
    try:
        sequence = genome.fetch(Interval(fields[0], start, end))
        return reverse_complement(sequence, alphabet) if strand == "-" else sequence
    except (RegionError, AlphabetError) as problem:
        raise type(problem)(problem.message, path=path, line=line, record=problem.record) from None


def _number(rows: LabelledRows, row: int) -> float:
    try:
        value = float(rows.labels[row])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        _refuse(rows, row, f"expected a finite number, got {quoted(rows.labels[row])}")
    return value


def _base_labels(rows: LabelledRows, row: int) -> list[str]:
    text = rows.labels[row]
    labels = [part.strip() for part in text.split(",")] if "," in text else list(text)
    if "," in text:
        wrong = next((x for x in labels if not (x.isascii() and x.removeprefix("-").isdigit() and int(x) >= -1)), None)
        if wrong is not None:
            _refuse(rows, row, f"expected whole numbers from -1 with commas between, got {quoted(wrong)}")
        labels = [str(int(label)) for label in labels]
    length = len(rows.sequences[row])
    if len(labels) != length:
        _refuse(rows, row, f"expected {length} labels, one per base, got {len(labels)}")
    return labels


def _refuse(rows: LabelledRows, row: int, words: str) -> NoReturn:
    raise DataError(f"label: {words}", path=rows.path, line=rows.lines[row])
