"""Scores along contigs as they lie in a file: bigWig or bedGraph, told apart by content.

    file -> values of a stretch of one contig, NaN where there is none

Coordinates are 0-based half-open. A bigWig is read block by block; a bedGraph (plain, gzip or BGZF) is read once and
kept as intervals, 12 bytes each (about 34 while it is read), 20 where a contig is longer than 2^31 bases.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from hyena_glt.entropies.bigwig_header import BIGWIG_MAGIC, bigwig_contigs
from hyena_glt.errors import AnnotationError, MissingExtraError
from hyena_glt.sequences.decompress import open_bytes, open_file
from hyena_glt.sequences.lines import BYTE_ORDER_MARK, MAX_LINE_BYTES
from hyena_glt.sequences.quoting import quoted, shown

BIGBED_MAGIC = 0x8789F2EB
READ_BASES = 1 << 16  # asked of a bigWig at once
READ_BYTES = 1 << 22  # of bedGraph text at once
NUM_COLUMNS = 4
COORDINATE = re.compile(r"\d{1,18}", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
BEYOND_COORDINATES = 10**18
FOR_THE_LINE_LOOP = (b"\r", b"\0", b" ", b"\t0x", b"\t0X", b"\n#", b"\ntrack", b"\nbrowser", b"\n\n")

Floats = NDArray[np.float32]


class TrackFile(Protocol):
    """What both formats offer."""

    lengths: Mapping[str, int | None]  # contig -> bases, None where the format does not say

    def values(self, contig: str, start: int, end: int) -> Floats:
        """Values of `[start, end)`, `(end - start,)`, NaN where there is none."""

    def last_before(self, contig: str, position: int) -> float:
        """The value nearest before a position; NaN for none."""

    def end(self, contig: str) -> int:
        """A place behind which there is no value."""


def open_track(path: str | os.PathLike[str]) -> TrackFile:
    """Open a local track file.

    Raises:
        DataError: No such file.
        AnnotationError: Neither bigWig nor bedGraph, or damaged.
        SystemProblem: It cannot be read.
    """
    name = os.fspath(path)
    with open_file(name) as file:
        head = file.read(4)
    magics = {int.from_bytes(head, order) for order in ("little", "big")} if len(head) == 4 else set()
    if BIGBED_MAGIC in magics:
        raise AnnotationError("a bigBed file, which has no value per base; expected bigWig or bedGraph", path=name)
    return BigWigFile(name) if BIGWIG_MAGIC in magics else BedGraphFile(name)


class BigWigFile:
    """A bigWig on the disk, read as it is asked for; one handle per process, threads take turns."""

    def __init__(self, path: str) -> None:
        self.lengths: Mapping[str, int | None] = dict(bigwig_contigs(path))
        self._path = path
        self._opened: tuple[int, Any] | None = None  # process id, handle: a fork may not share the file's offset
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def values(self, contig: str, start: int, end: int) -> Floats:
        """Values of `[start, end)`, `(end - start,)`, NaN where there is none.

        Raises:
            AnnotationError: An infinite value, or data that cannot be read.
        """
        out = np.full(max(end - start, 0), np.nan, np.float32)
        for first in range(start, end, READ_BASES):
            last = min(first + READ_BASES, end)
            found = self._read(contig, first, last)
            if found.size:  # a file without any data gives nothing at all
                out[first - start : last - start] = found
        if np.isinf(out).any():
            place = start + int(np.isinf(out).argmax())
            raise self._fault(f"expected finite values, got an infinite one at {place}", contig)
        return out

    def last_before(self, contig: str, position: int) -> float:
        """The value nearest before a position; NaN for none."""
        for last in range(position, 0, -READ_BASES):
            values = self.values(contig, max(last - READ_BASES, 0), last)
            present = np.flatnonzero(~np.isnan(values))
            if present.size:
                return float(values[present[-1]])
        return float("nan")

    def end(self, contig: str) -> int:
        """A place behind which there is no value: the contig's end."""
        return self.lengths[contig] or 0

    def _read(self, contig: str, start: int, end: int) -> Floats:
        with self._lock:
            try:
                found = self._handle().values(contig, start, end, numpy=True)
            except RuntimeError as problem:
                raise self._fault(f"cannot read [{start}, {end}) ({problem}); is the file damaged?", contig) from None
        if len(found) not in (0, end - start):
            raise self._fault(f"damaged bigWig: no data for [{start}, {end})", contig)
        return np.asarray(found, np.float32)

    def _handle(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), _open_bigwig(self._path))
        return self._opened[1]

    def _fault(self, words: str, contig: str) -> AnnotationError:
        return AnnotationError(words, path=self._path, record=shown(contig))


def _open_bigwig(path: str) -> Any:
    try:
        import pyBigWig
    except ImportError:
        raise MissingExtraError("bigWig needs pyBigWig: pip install pyBigWig, or convert it to bedGraph") from None
    try:
        return pyBigWig.open(path)
    except RuntimeError as problem:
        raise AnnotationError(f"not a bigWig that can be read ({problem})", path=path) from None


class Intervals(NamedTuple):
    """The intervals of one contig in order; none overlap."""

    starts: NDArray[Any]  # (intervals,) int32, int64 on contigs longer than 2^31 bases
    ends: NDArray[Any]  # (intervals,)
    values: Floats  # (intervals,)


class BedGraphFile:
    """A bedGraph as intervals in memory. The format has no contig lengths: behind the last interval all is missing."""

    def __init__(self, path: str) -> None:
        self._intervals = read_bedgraph(path)
        self.lengths: Mapping[str, int | None] = dict.fromkeys(self._intervals)

    def values(self, contig: str, start: int, end: int) -> Floats:
        """Values of `[start, end)`, `(end - start,)`, NaN where there is none."""
        starts, ends, values = self._intervals[contig]
        first, last = int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(starts, end, side="left"))
        edges = np.empty(2 * (last - first) + 2, np.int64)  # gap, interval, gap, ... by their ends
        edges[0], edges[-1] = start, end
        edges[1:-1:2], edges[2:-1:2] = starts[first:last], ends[first:last]
        filling = np.full(edges.size - 1, np.nan, np.float32)
        filling[1::2] = values[first:last]
        return np.repeat(filling, np.diff(edges.clip(start, end)))

    def last_before(self, contig: str, position: int) -> float:
        """The value nearest before a position; NaN for none."""
        starts, _, values = self._intervals[contig]
        index = int(np.searchsorted(starts, position, side="left")) - 1
        return float(values[index]) if index >= 0 else float("nan")

    def end(self, contig: str) -> int:
        """A place behind which there is no value: the end of the last interval."""
        return int(self._intervals[contig].ends[-1])


def read_bedgraph(path: str | os.PathLike[str]) -> dict[str, Intervals]:
    """Read a bedGraph strictly: sorted by contig and start, no overlap, finite numbers, one track.

    Columns are separated by tabs or by spaces. Lines `track`, `browser` and comments may stand before the intervals,
    comments and empty lines anywhere.

    Args:
        path: File name; plain, gzip or BGZF.

    Raises:
        AnnotationError: A line that breaks the format, with `file:line`; no interval at all.
    """
    name = os.fspath(path)
    parser = BedGraphParser(name)
    rest = b""
    with open_bytes(name, error=AnnotationError) as source:
        while chunk := source.read(READ_BYTES):
            text = rest + chunk
            cut = text.rfind(b"\n") + 1
            rest = text[cut:]
            parser.feed(text[:cut])
            if len(rest) > MAX_LINE_BYTES:
                raise AnnotationError(f"line is longer than {MAX_LINE_BYTES:,} bytes", path=name, line=parser.line)
    parser.feed(rest + b"\n" if rest else b"")
    return parser.finish()


class BedGraphParser:
    """Text in whole lines -> intervals by contig.

    `pyarrow` reads what is plain; anything else, faults among it, goes through a loop over lines that says what a
    bedGraph is and names the line.
    """

    def __init__(self, path: str) -> None:
        self.line = 1  # 1-based, of the next line
        self._path = path
        self._pieces: dict[str, list[Intervals]] = {}
        self._contig: str | None = None  # of the last interval
        self._end = 0  # of the last interval

    def feed(self, text: bytes) -> None:
        """Take whole lines."""
        while self._contig is None and text and not (text[:1].isalnum() and not text.startswith(WORDS_OF_HEADERS)):
            head, _, text = text.partition(b"\n")
            self._by_lines(head + b"\n")
        if text and not self._at_once(text):
            self._by_lines(text)

    def finish(self) -> dict[str, Intervals]:
        """The intervals of each contig, in the order of the file.

        Raises:
            AnnotationError: None came.
        """
        if not self._pieces:
            raise AnnotationError("no interval: expected bigWig, or bedGraph lines of four columns", path=self._path)
        return {contig: _joined(pieces) for contig, pieces in self._pieces.items()}

    def _at_once(self, text: bytes) -> bool:
        """Take plain lines by `pyarrow`; False, with nothing taken, where a line may be something else."""
        if any(mark in text for mark in FOR_THE_LINE_LOOP) or text.startswith((b"#", b"\n", *WORDS_OF_HEADERS)):
            return False
        columns = _parsed(text)
        if columns is None:
            return False
        codes, names, starts, ends, values = columns
        edges = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1, [codes.size]]).tolist()
        runs = [names[code] for code in codes[edges[:-1]].tolist()]
        goes_on = runs[0] == self._contig
        new = runs[goes_on:]
        before = np.concatenate([[self._end if goes_on else 0], ends[:-1]])
        before[edges[1:-1]] = 0
        is_plain = (
            len(set(new)) == len(new)
            and not any(contig in self._pieces or not _is_name(contig) for contig in new)
            and bool((starts >= before).all() and (ends > starts).all() and ends.max() < BEYOND_COORDINATES)
            and bool(np.isfinite(values).all())
        )
        if is_plain:
            for contig, first, last in zip(runs, edges[:-1], edges[1:], strict=True):
                self._keep(contig, starts[first:last], ends[first:last], values[first:last])
            self.line += codes.size
        return is_plain

    def _by_lines(self, text: bytes) -> None:
        """Take lines one by one: the definition of the format."""
        contig, starts, ends, values = self._contig, list[int](), list[int](), list[float]()
        for raw in text.removesuffix(b"\n").split(b"\n"):
            columns = self._columns(raw)
            if columns is not None:
                name, start, end, value = self._interval(columns)
                if name != contig and starts:
                    assert contig is not None
                    self._keep(contig, starts, ends, values)
                    starts, ends, values = [], [], []
                if name != contig and name in self._pieces:
                    self._refuse(f"contig {quoted(name)} comes back; sort the file by contig and start")
                self._end = 0 if name != contig else self._end
                contig = name
                if start < self._end:
                    self._refuse(f"start {start} is before the end {self._end} of the interval above; sort, no overlap")
                self._contig, self._end = contig, end
                starts.append(start)
                ends.append(end)
                values.append(value)
            self.line += 1
        if starts:
            assert contig is not None
            self._keep(contig, starts, ends, values)

    def _columns(self, raw: bytes) -> list[str] | None:
        """The columns of an interval line; None for a header, a comment or an empty line."""
        try:
            text = raw.removesuffix(b"\r").decode()
        except UnicodeDecodeError as fault:
            self._refuse(f"text is not UTF-8: got {quoted(raw[fault.start : fault.start + 4])}")
        if self.line == 1 and text.startswith(BYTE_ORDER_MARK):
            self._refuse("byte-order mark before the text; save the file as UTF-8 without BOM")
        words = text.split()
        if not words or text.startswith("#"):
            return None
        if words[0] in ("track", "browser"):
            if self._contig is not None:
                self._refuse("a second track begins here; expected one track per file")
            if "wiggle_0" in text:
                self._refuse("wiggle, expected bedGraph; convert it with wigToBigWig")
            return None
        if words[0] in ("fixedStep", "variableStep"):
            self._refuse("wiggle, expected bedGraph; convert it with wigToBigWig")
        columns = text.split("\t") if "\t" in text else words
        if len(columns) != NUM_COLUMNS:
            self._refuse(f"expected 4 columns (contig, start, end, value), got {len(columns)}: {quoted(text)}")
        return columns

    def _interval(self, columns: list[str]) -> tuple[str, int, int, float]:
        contig, start, end, value = columns
        if not _is_name(contig):
            self._refuse(f"contig: expected a name, got {quoted(contig)}")
        for name, text in (("start", start), ("end", end)):
            if not COORDINATE.fullmatch(text):
                self._refuse(f"{name}: expected a whole number, got {quoted(text)}")
        if int(end) <= int(start):
            self._refuse(f"expected start < end, got {start} and {end}")
        if not NUMBER.fullmatch(value) or not np.isfinite(_as_float32(float(value))):
            self._refuse(f"value: expected a finite number, got {quoted(value)}")
        return contig, int(start), int(end), float(value)

    def _keep(self, contig: str, starts: Any, ends: Any, values: Any) -> None:
        width = np.int32 if int(ends[-1]) < 1 << 31 else np.int64
        piece = Intervals(np.array(starts, width), np.array(ends, width), np.array(values, np.float32))
        self._pieces.setdefault(contig, []).append(piece)
        self._contig, self._end = contig, int(ends[-1])

    def _refuse(self, words: str) -> NoReturn:
        raise AnnotationError(words, path=self._path, line=self.line)


WORDS_OF_HEADERS = (b"track", b"browser", b"fixedStep", b"variableStep")


def _parsed(text: bytes) -> tuple[NDArray[np.int32], list[str], NDArray[np.int64], NDArray[np.int64], Floats] | None:
    """Contig codes, contig names, starts, ends, values of tab-separated lines; None where `pyarrow` refuses one."""
    import pyarrow as pa
    from pyarrow import csv

    types = {
        "contig": pa.dictionary(pa.int32(), pa.string()),
        "start": pa.int64(),
        "end": pa.int64(),
        "value": pa.float64(),
    }
    try:
        table = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=list(types), use_threads=False, block_size=len(text) + 1),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            convert_options=csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    contig = table["contig"].combine_chunks()
    contig = contig.chunk(0) if isinstance(contig, pa.ChunkedArray) else contig
    starts, ends, values = (table[name].to_numpy() for name in ("start", "end", "value"))
    return contig.indices.to_numpy(), contig.dictionary.to_pylist(), starts, ends, _as_float32(values)


def _as_float32(values: Any) -> Floats:
    """The nearest float32, infinite where none is near."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(np.float32)


def _is_name(text: str) -> bool:
    return bool(text) and text.isprintable() and " " not in text


def _joined(pieces: list[Intervals]) -> Intervals:
    return Intervals(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))
