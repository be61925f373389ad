"""RNA secondary structure in dot-bracket text -> base pairs -> patch lengths.

A structure has one symbol per base: `.` or `-` for an unpaired base, a pair of brackets for a base pair; `()` for the
nested ones, `[]`, `{}` and `<>` for pseudoknots. A patch is one strand of a stem (pairs stacked on each other without a
bulge) or one run of unpaired bases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import AlphabetError, AnnotationError, ConfigError, DataError
from hyena_glt.sequences.alphabets import RNA
from hyena_glt.sequences.lines import read_lines
from hyena_glt.sequences.quoting import quoted

UNPAIRED = ".-"
BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"))
SYMBOLS = UNPAIRED + "".join(opening + closing for opening, closing in BRACKETS)
UNPAIRED_BASE = -1


@dataclass(frozen=True, slots=True)
class RnaStructure:
    """An RNA and its secondary structure."""

    name: str
    sequence: str
    structure: str  # dot-bracket, as long as the sequence


def base_pairs(structure: str | bytes, *, record: str | None = None) -> NDArray[np.int64]:
    """The partner of each base.

    Args:
        structure: Dot-bracket text.
        record: Name for the message.

    Returns:
        `(length,)` int64: 0-based position of the partner, -1 for an unpaired base.

    Raises:
        AnnotationError: A symbol that is no bracket and no dot, or a bracket without its partner; the 1-based
            position is named.

    Example:
        >>> base_pairs("((.[))]").tolist()
        [5, 4, -1, 6, 1, 0, 3]
    """
    symbols = _symbols(structure, record)
    partners = np.full(symbols.size, UNPAIRED_BASE, np.int64)
    is_known = np.isin(symbols, np.frombuffer(UNPAIRED.encode(), np.uint8))
    for opening, closing in BRACKETS:
        opens, closes = symbols == ord(opening), symbols == ord(closing)
        is_known |= opens | closes
        places = np.flatnonzero(opens | closes)
        left, right = _matched(places, opens[places], (opening, closing), record)
        partners[left], partners[right] = right, left
    if not is_known.all():
        first = int(np.flatnonzero(~is_known)[0])
        got = quoted(chr(symbols[first]))
        raise AnnotationError(f"structure: expected {SYMBOLS}, got {got} at {first + 1}", record=record)
    return partners


def structure_patch_lengths(
    structure: str | bytes, max_patch_length: int | None = None, *, record: str | None = None
) -> NDArray[np.int64]:
    """Patches of an RNA by its structure: each strand of a stem, each run of unpaired bases.

    Args:
        structure: Dot-bracket text.
        max_patch_length: Bases; longer elements are cut.
        record: Name for the message.

    Returns:
        `(num_patches,)` int64, sums to the length.

    Raises:
        AnnotationError: As `base_pairs`.
        ConfigError: `max_patch_length` below 1.

    Example:
        >>> structure_patch_lengths("((..((...))))").tolist()
        [2, 2, 2, 3, 2, 2]
    """
    if max_patch_length is not None and max_patch_length < 1:
        raise ConfigError(f"max_patch_length: expected at least 1, got {max_patch_length}")
    partners = base_pairs(structure, record=record)
    paired = partners != UNPAIRED_BASE
    stacked = paired[1:] & paired[:-1] & (partners[1:] == partners[:-1] - 1)
    starts = np.ones(partners.size, np.bool_)
    starts[1:] = ~(stacked | (~paired[1:] & ~paired[:-1]))
    places = np.flatnonzero(starts)
    lengths = np.diff(np.append(places, partners.size))
    return lengths if max_patch_length is None else _capped(lengths, max_patch_length)


def check_structure(sequence: str, structure: str, *, record: str | None = None) -> None:
    """Refuse a structure that does not belong to its sequence.

    Raises:
        AlphabetError: A symbol that is no base of RNA.
        AnnotationError: Unequal lengths, or a structure that `base_pairs` refuses.
    """
    RNA.encode(sequence, record=record)
    if len(sequence) != len(structure):
        raise AnnotationError(
            f"structure: expected {len(sequence)} symbols, one per base, got {len(structure)}", record=record
        )
    base_pairs(structure, record=record)


def read_dot_bracket(path: str | os.PathLike[str]) -> Iterator[RnaStructure]:
    """Read RNAs with their structures: per record a `>name` line, the sequence, the structure (Vienna format).

    A file of one record may leave the name out. What follows the structure after a blank (an energy) is left out.

    Args:
        path: File name, or `-`; plain or gzip.

    Raises:
        AnnotationError: A record that breaks the format, with its line; or an empty file.
        AlphabetError: A symbol that is no base of RNA.
    """
    source = os.fspath(path)
    lines = ((number, text.strip()) for number, text in read_lines(source) if text.strip())
    count = 0
    for number, text in lines:
        name, first = text[1:].strip(), number
        if not text.startswith(">"):
            if count:
                raise AnnotationError(f"expected a line '>name', got {quoted(text)}", path=source, line=number)
            name, sequence = "", text
        else:
            first, sequence = next(lines, (number, ""))
        last, structure = next(lines, (first, ""))
        yield _checked(name, sequence, structure.split()[0] if structure else "", source, last)
        count += 1
    if not count:
        raise AnnotationError("no record: the file is empty", path=source)


def _checked(name: str, sequence: str, structure: str, path: str, line: int) -> RnaStructure:
    if not structure:
        raise AnnotationError("expected a sequence and its structure, the file ends before", path=path, line=line)
    try:
        check_structure(sequence, structure)
    except (AlphabetError, AnnotationError) as fault:
        kind: type[DataError] = type(fault)
        raise kind(fault.message, path=path, line=line, record=quoted(name)[1:-1] or None) from None
    return RnaStructure(name, sequence, structure)


def _symbols(structure: str | bytes, record: str | None) -> NDArray[np.uint8]:
    try:
        data = structure.encode("ascii") if isinstance(structure, str) else bytes(structure)
    except UnicodeEncodeError as fault:
        got = quoted(fault.object[fault.start])
        raise AnnotationError(
            f"structure: expected ASCII text, got {got} at {fault.start + 1}", record=record
        ) from None
    return np.frombuffer(data, np.uint8)


def _matched(
    places: NDArray[np.int64], opens: NDArray[np.bool_], bracket: tuple[str, str], record: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the opening and closing partners of one kind of bracket.

    On one level of nesting openings and closings alternate, so sorted by level they stand in pairs.
    """
    depth = np.cumsum(np.where(opens, 1, -1))
    if (depth < 0).any():
        place = int(places[np.argmax(depth < 0)])
        raise AnnotationError(f"structure: '{bracket[1]}' at {place + 1} closes nothing", record=record)
    if depth.size and depth[-1]:
        level = np.where(opens, depth, depth + 1)
        lone = places[np.flatnonzero(opens & (level == depth[-1]))[-1]]
        raise AnnotationError(f"structure: '{bracket[0]}' at {int(lone) + 1} is never closed", record=record)
    order = places[np.argsort(np.where(opens, depth, depth + 1), kind="stable")]
    return order[0::2], order[1::2]


def _capped(lengths: NDArray[np.int64], cap: int) -> NDArray[np.int64]:
    """Lengths above the cap cut into pieces of the cap and a rest."""
    pieces = -(-lengths // cap)
    capped = np.full(int(pieces.sum()), cap, np.int64)
    last = np.cumsum(pieces) - 1
    capped[last] = lengths - (pieces - 1) * cap
    return capped
