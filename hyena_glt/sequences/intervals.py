"""Intervals on contigs, 0-based half-open, and the two forms users write them in: region strings and BED."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NoReturn

from hyena_glt.errors import AnnotationError, RegionError
from hyena_glt.sequences.lines import read_lines
from hyena_glt.sequences.quoting import quoted, shown

Region = tuple[str, int | None, int | None]

RANGE = re.compile(r"(?P<start>\d[\d,]{0,24})?(?P<dash>-)?(?P<end>\d[\d,]{0,24})?", re.ASCII)
COORDINATE = re.compile(r"\d{1,18}", re.ASCII)
HEADER_WORDS = ("#", "track", "browser")
MAX_NAMES_TO_COMPARE = 10_000


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """Bases `[start, end)` of a contig, counted from 0.

    `str` gives the region string, which counts from 1 and includes its end.

    Example:
        >>> str(Interval("chr1", 0, 1000))
        'chr1:1-1000'
    """

    contig: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise RegionError(
                f"interval {quoted(self.contig)}: expected 0 <= start <= end, got [{self.start}, {self.end})"
            )

    @property
    def length(self) -> int:
        """Number of bases."""
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.contig}:{self.start + 1}-{self.end}"


def parse_region(text: str, names: Collection[str] | None = None) -> Region:
    """Read a region string as samtools does: 1-based, end included, commas allowed.

    `chr1` is the whole contig, `chr1:100` and `chr1:100-` go from base 100 to its end, `chr1:-100` is its
    first 100. A contig whose name holds a colon is recognised when `names` are given, or as `{name}:1-10`.

    Args:
        text: The region.
        names: Contigs that there are.

    Returns:
        `(contig, start, end)`, 0-based half-open; None where the string leaves the bound open.

    Raises:
        RegionError: Malformed, unknown contig, or readable in two ways.

    Example:
        >>> parse_region("chr1:1-1,000")
        ('chr1', 0, 1000)
    """
    if text.startswith("{") and "}" in text:
        contig, _, bounds = text[1:].rpartition("}")
        _check_known(contig, names)
        return (contig, *_bounds(bounds.removeprefix(":"), text)) if bounds else (contig, None, None)
    contig, colon, bounds = text.rpartition(":")
    if not colon:
        _check_known(text, names)
        return text, None, None
    if names is not None and text in names:
        if contig in names and RANGE.fullmatch(bounds):
            raise RegionError(
                f"region {quoted(text)}: is a contig and also a part of {quoted(contig)}; "
                f"write {{{shown(text)}}} or {{{shown(contig)}}}:{shown(bounds)}"
            )
        return text, None, None
    _check_known(contig, names)
    return (contig, *_bounds(bounds, text))


def resolve(region: str, lengths: Mapping[str, int]) -> Interval:
    """Turn a region string into an interval that lies on its contig.

    Args:
        region: As for `parse_region`.
        lengths: Contig -> number of bases.

    Raises:
        RegionError: Malformed, unknown contig, or past the end (never clipped).
    """
    contig, start, end = parse_region(region, lengths)
    first = start or 0
    interval = Interval(contig, first, max(first + 1, lengths[contig] if end is None else end))
    check_on_contig(interval, lengths)
    return interval


def check_on_contig(interval: Interval, lengths: Mapping[str, int]) -> None:
    """Refuse an interval whose contig is unknown or that goes past the contig's end.

    Raises:
        RegionError: Either of them.
    """
    _check_known(interval.contig, lengths)
    length = lengths[interval.contig]
    if interval.end > length:
        raise RegionError(
            f"region {quoted(str(interval))}: past the end of the contig, which has {length:,} bases",
            record=shown(interval.contig),
        )


def read_bed(path: str | os.PathLike[str]) -> list[Interval]:
    """Read the first three columns of a BED file; comments, blank, `track` and `browser` lines are skipped.

    Args:
        path: File name, or `-`; plain or gzip.

    Returns:
        The intervals in file order, each with at least one base.

    Raises:
        AnnotationError: A line that is no BED line, or no line at all.
    """
    name = os.fspath(path)
    intervals = [
        _bed_interval(text, name, number)
        for number, text in read_lines(name)
        if text.strip() and not text.startswith(HEADER_WORDS)
    ]
    if not intervals:
        raise AnnotationError("no interval: the file is empty or holds comments only", path=name)
    return intervals


def _bounds(text: str, region: str) -> tuple[int | None, int | None]:
    match = RANGE.fullmatch(text)
    if not match or not text or text == "-":
        raise RegionError(f"region {quoted(region)}: expected CONTIG, CONTIG:START or CONTIG:START-END, 1-based")
    start = int(match["start"].replace(",", "")) if match["start"] else None
    end = int(match["end"].replace(",", "")) if match["end"] else None
    if start == 0:
        raise RegionError(f"region {quoted(region)}: starts at 0, but region strings count from 1")
    if end is not None and end < (start or 1):
        raise RegionError(f"region {quoted(region)}: the end {end} comes before the start {start or 1}")
    return None if start is None else start - 1, end


def _check_known(contig: str, names: Collection[str] | None) -> None:
    if not contig:
        raise RegionError("region without a contig name; expected CONTIG or CONTIG:START-END")
    if names is not None and contig not in names:
        _refuse_unknown(contig, names)


def _refuse_unknown(contig: str, names: Collection[str]) -> NoReturn:
    near = _nearest(contig, names)
    hint = f"; did you mean {quoted(near)}?" if near else f"; there are {len(names):,} contigs"
    raise RegionError(f"unknown contig {quoted(contig)}{hint}")


def _nearest(contig: str, names: Collection[str]) -> str | None:
    for twin in (f"chr{contig}", contig.removeprefix("chr")):
        if twin != contig and twin in names:
            return twin
    if len(names) > MAX_NAMES_TO_COMPARE:
        return None
    return next(iter(difflib.get_close_matches(contig[:100], list(names), n=1)), None)


def _bed_interval(text: str, path: str, line: int) -> Interval:
    fields = text.split("\t") if "\t" in text else text.split()
    if len(fields) < 3:
        raise AnnotationError(
            f"expected 3 or more columns (contig, start, end), got {len(fields)}: {quoted(text)}",
            path=path,
            line=line,
        )
    contig, start, end = fields[0], _coordinate(fields[1], path, line), _coordinate(fields[2], path, line)
    if not contig.strip() or not contig.isprintable():
        raise AnnotationError(f"expected a contig name, got {quoted(contig)}", path=path, line=line)
    if start >= end:
        raise AnnotationError(f"expected start < end (0-based, half-open), got {start} and {end}", path=path, line=line)
    return Interval(contig, start, end)


def _coordinate(text: str, path: str, line: int) -> int:
    if not COORDINATE.fullmatch(text):
        raise AnnotationError(f"expected a whole number >= 0, got {quoted(text)}", path=path, line=line)
    return int(text)
