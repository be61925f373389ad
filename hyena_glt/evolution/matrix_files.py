"""Distances as PHYLIP (relaxed, or strict with names of ten columns) and as TSV, in and out, without loss."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hyena_glt.errors import DataError
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.sequences.atomic import open_output
from hyena_glt.sequences.decompress import open_bytes
from hyena_glt.sequences.quoting import quoted

STRICT_WIDTH = 10
LARGEST_FILE = 1 << 31  # bytes of text that are read
MOST_NAMES = 1 << 16
FORMULA_STARTS = "=+-@"  # a spreadsheet would run a cell that begins so

PathLike = str | os.PathLike[str]


def write_phylip(path: PathLike, matrix: DistanceMatrix, *, strict: bool = False, overwrite: bool = False) -> None:
    """Write a square PHYLIP matrix; numbers read back are the same.

    Args:
        path: File name, or `-`; `.gz` is BGZF.
        matrix: The distances.
        strict: Names cut to ten columns, as the programs of PHYLIP have them; else whole, without blanks.
        overwrite: Replace an existing file.

    Raises:
        DataError: A name with blanks or control characters, or names that are the same in ten columns.
        OutputExistsError: The file exists.
    """
    names = _strict_names(matrix.names) if strict else _relaxed_names(matrix.names)
    with open_output(path, overwrite=overwrite, binary=False) as handle:
        handle.write(f"{len(matrix):5d}\n")
        for name, row in zip(names, matrix.values, strict=True):
            handle.write(f"{name} {' '.join(map(_number, row))}\n")


def write_tsv(path: PathLike, matrix: DistanceMatrix, *, comments: bytes = b"", overwrite: bool = False) -> None:
    """Write a square table with the names in its first row and column.

    Args:
        path: File name, or `-`; `.gz` is BGZF.
        matrix: The distances.
        comments: Lines that begin with `##`, put before the table.
        overwrite: Replace an existing file.

    Raises:
        DataError: A name that a table or a spreadsheet would take for something else.
        OutputExistsError: The file exists.
    """
    for name in matrix.names:
        if not name.isprintable() or name[:1] in FORMULA_STARTS or name.startswith("##") or not name.strip():
            raise DataError(f"the name {quoted(name)} cannot stand in a table; rename it, or write PHYLIP (.phy)")
    with open_output(path, overwrite=overwrite) as handle:
        handle.write(comments)
        handle.write(("\t".join(["name", *matrix.names]) + "\n").encode())
        for name, row in zip(matrix.names, matrix.values, strict=True):
            handle.write(("\t".join([name, *map(_number, row)]) + "\n").encode())


def read_distances(path: PathLike) -> DistanceMatrix:
    """Read a matrix: PHYLIP (square or lower triangle, relaxed or strict names) or a table as `write_tsv` makes it.

    A file whose first line is a number is PHYLIP. Rows may go on over several lines. Names are strict where the
    relaxed reading of a one-line row does not give one number for each name.

    Raises:
        DataError: No matrix, or one that is no distances; the line is named.
    """
    name = os.fspath(path)
    lines = _lines(name)
    while lines and lines[0][1].startswith("##"):
        lines.pop(0)
    if not lines:
        raise DataError("no line in it, expected a matrix of distances", path=name)
    try:
        if lines[0][1].strip().isdigit():
            return _read_phylip(lines, name)
        return _read_table(lines, name)
    except DataError as problem:
        raise DataError(problem.message, path=name, line=problem.line) from None


def _number(value: float) -> str:
    """The shortest decimal, without exponent, that reads back the same."""
    return np.format_float_positional(value, unique=True, trim="0")


def _relaxed_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not name or not name.isprintable() or any(c.isspace() for c in name):
            raise DataError(
                f"the name {quoted(name)} cannot stand in PHYLIP, where blanks end a name; rename it, or write .tsv"
            )
    return names


def _strict_names(names: tuple[str, ...]) -> list[str]:
    _relaxed_names(names)
    cut = [name[:STRICT_WIDTH].ljust(STRICT_WIDTH) for name in names]
    seen: dict[str, str] = {}
    for short, name in zip(cut, names, strict=True):
        if short in seen:
            both = f"{quoted(seen[short])} and {quoted(name)}"
            raise DataError(
                f"strict PHYLIP cuts names to {STRICT_WIDTH} columns, where {both} are the same; write relaxed names"
            )
        seen[short] = name
    return cut


def _lines(path: str) -> list[tuple[int, str]]:
    """Lines that are not blank, with their 1-based numbers."""
    with open_bytes(path) as source:
        content = source.read(LARGEST_FILE)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise DataError("is not UTF-8 text, expected a matrix of distances", path=path) from None
    return [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _read_phylip(lines: list[tuple[int, str]], path: str) -> DistanceMatrix:
    count = int(lines[0][1])
    if not 2 <= count <= MOST_NAMES:
        raise DataError(f"expected a number of names between 2 and {MOST_NAMES:,}, got {count}", line=lines[0][0])
    rest = iter(lines[1:])
    names: list[str] = []
    values = np.zeros((count, count))
    is_lower = False
    for i in range(count):
        number, line = next(rest, (lines[-1][0] + 1, ""))
        if not line:
            raise DataError(f"expected {count} rows, the file ends after {i}", line=lines[-1][0])
        if i == 0:
            is_lower = not any(map(_is_number, line.split()[1:]))
        wanted = i if is_lower else count
        name, cells = _row_of(line, wanted)
        while len(cells) < wanted:
            number, line = next(rest, (number, ""))
            if not line:
                raise DataError(f"expected {wanted} numbers for {quoted(name)}, got {len(cells)}", line=number)
            cells += line.split()
        names.append(name)
        values[i, :wanted] = _numbers(cells, wanted, name, number)
    extra = next(rest, None)
    if extra is not None:
        raise DataError(f"expected {count} rows, got more", line=extra[0])
    if is_lower:
        values += values.T
    return DistanceMatrix.of(names, values)


def _row_of(line: str, wanted: int) -> tuple[str, list[str]]:
    """Name and numbers of a row's first line."""
    name, *cells = line.split()
    if len(cells) > wanted or (cells and not _is_number(cells[0])):
        strict = line[STRICT_WIDTH:].split()
        if len(strict) == wanted and all(map(_is_number, strict)):
            return line[:STRICT_WIDTH].strip(), strict
    return name, cells


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_table(lines: list[tuple[int, str]], path: str) -> DistanceMatrix:
    _, *names = lines[0][1].split("\t")
    if len(names) < 2:
        raise DataError("expected PHYLIP or a table with the names in its first line", line=lines[0][0])
    if len(lines) - 1 != len(names):
        raise DataError(f"expected {len(names)} rows under the names, got {len(lines) - 1}", line=lines[-1][0])
    values = []
    for expected, (number, line) in zip(names, lines[1:], strict=True):
        name, *cells = line.split("\t")
        if name != expected:
            raise DataError(f"expected the row of {quoted(expected)}, got {quoted(name)}", line=number)
        values.append(_numbers(cells, len(names), name, number))
    return DistanceMatrix.of(names, values)


def _numbers(cells: list[str], wanted: int, name: str, line: int) -> list[float]:
    if len(cells) != wanted:
        raise DataError(f"expected {wanted} numbers for {quoted(name)}, got {len(cells)}", line=line)
    bad = next((cell for cell in cells if not _is_number(cell)), None)
    if bad is not None:
        raise DataError(f"expected a number for {quoted(name)}, got {quoted(bad)}", line=line)
    return [float(cell) for cell in cells]


def is_matrix_file(path: PathLike) -> bool:
    """True where the suffix (`.gz` aside) says that a file holds distances, not sequences."""
    suffixes: Iterator[str] = (s for s in reversed(Path(path).suffixes) if s not in (".gz", ".bgz"))
    return next(suffixes, "") in (".phy", ".phylip", ".tsv", ".dist")
