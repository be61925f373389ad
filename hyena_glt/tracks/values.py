"""Per-base values as files: bedGraph text and bigWig.

The value at base `i` is the entropy of the prediction made *after* base `i`, the library's own index, so a
track read back takes the place of the entropies without a shift. Bases that are ambiguity symbols have no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np

from hyena_glt.errors import DataError
from hyena_glt.tracks.provenance import Provenance
from hyena_glt.tracks.text import bedgraph_lines, bedgraph_room

DECIMALS = 6


@dataclass(frozen=True, slots=True)
class ValueBatch:
    """Values of consecutive bases of one contig."""

    contig: str
    start: int  # 0-based position of the first value
    values: np.ndarray  # (length,) float32
    missing: np.ndarray  # (length,) bool, True where a base has no value


class ValueWriter(Protocol):
    """What every format offers."""

    def write(self, batch: ValueBatch) -> None:
        """Append the values of a batch."""

    def close(self) -> None:
        """Finish the file."""


class BedGraphWriter:
    """bedGraph with a track line, equal neighbours merged, `DECIMALS` decimals."""

    def __init__(self, handle: IO[bytes], provenance: Provenance | None) -> None:
        self._handle = handle
        if provenance is not None:
            handle.write(provenance.as_comments())
        handle.write(
            b'track type=bedGraph name="entropy" description="entropy after each base, nats" '
            b"visibility=full autoScale=on\n"
        )

    def write(self, batch: ValueBatch) -> None:
        """Append the values of a batch."""
        contig = np.frombuffer(batch.contig.encode(), dtype=np.uint8)
        starts, ends, values = merged_runs(batch)
        out = np.empty(bedgraph_room(contig, values.size, DECIMALS), dtype=np.uint8)
        used = bedgraph_lines(out, contig, starts, ends, values, DECIMALS)
        self._handle.write(out[:used].data)

    def close(self) -> None:
        """Nothing is held back."""


class BigWigWriter:
    """bigWig, one value per base. The library writes by name, so this writer takes a path, not a handle."""

    def __init__(self, path: str, contig_lengths: Mapping[str, int]) -> None:
        import pyBigWig

        self._file: Any = pyBigWig.open(path, "w")
        self._file.addHeader(list(contig_lengths.items()))

    def write(self, batch: ValueBatch) -> None:
        """Append the values of a batch.

        Raises:
            DataError: A contig that comes twice (reads may share a name), which the format cannot hold.
        """
        try:
            for first, last in present_runs(batch.missing):
                values = batch.values[first:last]
                self._file.addEntries(batch.contig, batch.start + first, values=values, span=1, step=1)
        except RuntimeError:
            raise DataError(
                "bigWig holds each position once and contigs in order; write bedGraph instead", record=batch.contig
            ) from None

    def close(self) -> None:
        """Write the index and close the file."""
        self._file.close()


def merged_runs(batch: ValueBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends and value of each run of equal values, bases without a value left out."""
    values, missing = batch.values, batch.missing
    if not values.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), values
    changes = (values[1:] != values[:-1]) | (missing[1:] != missing[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    ends = np.concatenate([starts[1:], [values.size]])
    present = ~missing[starts]
    starts, ends = starts[present], ends[present]
    return starts + batch.start, ends + batch.start, values[starts]


def present_runs(missing: np.ndarray) -> Iterator[tuple[int, int]]:
    """`[first, last)` of each stretch of bases that have a value."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], missing, [True]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
