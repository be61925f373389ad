"""Patch tables as files: BED9 for genome browsers, Parquet and TSV for data frames.

Every writer takes the patches of a contig in order, in batches of any size, through
`write(PatchBatch(...))`, and numbers them from 0 over the whole file.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np

from hyena_glt.tracks.provenance import Provenance
from hyena_glt.tracks.text import bed9_lines, bed9_room

# Mean surprise 0 .. 1000 from dark to light (a viridis ramp, readable with any colour vision).
COLOURS = ("068,001,084", "059,082,139", "033,145,140", "094,201,098", "253,231,037")
ROW_GROUP = 1 << 18  # rows of a Parquet row group, at least
SCORE_CEILING_BITS = 4.0  # bits per base that give score 1000; a uniform guess over four bases is 2


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Consecutive patches of one contig."""

    contig: str
    start: int  # 0-based start of the first patch on the contig
    lengths: np.ndarray  # (patches,) int64
    mean_surprises: np.ndarray  # (patches,) float64 nats per base


class PatchWriter(Protocol):
    """What every format offers."""

    def write(self, batch: PatchBatch) -> None:
        """Append the patches of a batch."""

    def close(self) -> None:
        """Finish the file (the caller owns the handle)."""


def scaled_scores(mean_surprises: np.ndarray) -> np.ndarray:
    """BED scores: mean surprise from 0 to `SCORE_CEILING_BITS` bits mapped to 0..1000, `(patches,)` int64."""
    per_nat = 1000.0 / (SCORE_CEILING_BITS * np.log(2.0))
    return np.clip(np.rint(mean_surprises * per_nat), 0, 1000).astype(np.int64)


class BedWriter:
    """BED9, 0-based half-open; name is the running number, score the scaled mean surprise."""

    def __init__(self, handle: IO[bytes], provenance: Provenance | None) -> None:
        self._handle = handle
        self._number = 0
        self._lines = np.empty(0, dtype=np.uint8)
        self._colours = np.array([list(text.encode()) for text in COLOURS], dtype=np.uint8)
        if provenance is not None:
            handle.write(provenance.as_comments())
            handle.write(b"#chrom\tstart\tend\tname\tscore\tstrand\tthickStart\tthickEnd\titemRgb\n")

    def write(self, batch: PatchBatch) -> None:
        """Append the patches of a batch."""
        contig = np.frombuffer(batch.contig.encode(), dtype=np.uint8)
        out = self._room(bed9_room(contig, batch.lengths.size, self._colours.shape[1]))
        scores = scaled_scores(batch.mean_surprises)
        used = bed9_lines(out, contig, batch.start, batch.lengths, self._number, scores, self._colours)
        self._handle.write(out[:used].data)
        self._number += batch.lengths.size

    def close(self) -> None:
        """Nothing is held back."""

    def _room(self, size: int) -> np.ndarray:
        """The same memory every time, for as long as it suffices."""
        if self._lines.size < size:
            self._lines = np.empty(2 * size, dtype=np.uint8)
        return self._lines


class ParquetWriter:
    """One row per patch: contig, start, end, number, length, mean_surprise_nats."""

    def __init__(self, handle: IO[bytes], provenance: Provenance | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        fields = [
            ("contig", pa.string()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("number", pa.int64()),
            ("length", pa.int64()),
            ("mean_surprise_nats", pa.float32()),
        ]
        metadata = {"hyena_glt": json.dumps(provenance.as_dict())} if provenance else None
        self._schema = pa.schema(fields, metadata=metadata)
        self._writer = pq.ParquetWriter(handle, self._schema, compression="zstd")
        self._waiting: list[PatchBatch] = []
        self._rows = 0  # of the batches waiting
        self._number = 0

    def write(self, batch: PatchBatch) -> None:
        """Append the patches of a batch; rows are written in groups of `ROW_GROUP` or more."""
        self._waiting.append(batch)
        self._rows += batch.lengths.size
        if self._rows >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Let go of a file that will not be finished; the library would do so later, and complain then."""
        with suppress(Exception):
            self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            tables = [self._table(batch) for batch in self._waiting]
            self._writer.write_table(self._pa.concat_tables(tables).combine_chunks())
            self._waiting, self._rows = [], 0

    def _table(self, batch: PatchBatch) -> Any:
        pa, patches = self._pa, batch.lengths.size
        ends = batch.start + np.cumsum(batch.lengths)
        first, self._number = self._number, self._number + patches
        columns = [
            pa.repeat(batch.contig, patches),
            pa.array(ends - batch.lengths),
            pa.array(ends),
            pa.array(np.arange(first, self._number)),
            pa.array(batch.lengths),
            pa.array(batch.mean_surprises.astype(np.float32)),
        ]
        return pa.Table.from_arrays(columns, schema=self._schema)


class TsvWriter:
    """Tab-separated table with a header line, the columns of `ParquetWriter`."""

    def __init__(self, handle: IO[bytes], provenance: Provenance | None) -> None:
        self._handle = handle
        self._number = 0
        if provenance is not None:
            handle.write(provenance.as_comments())
        handle.write(b"contig\tstart\tend\tnumber\tlength\tmean_surprise_nats\n")

    def write(self, batch: PatchBatch) -> None:
        """Append the patches of a batch."""
        ends = batch.start + np.cumsum(batch.lengths)
        numbers = range(self._number, self._number + batch.lengths.size)
        rows = zip(
            (ends - batch.lengths).tolist(),
            ends.tolist(),
            numbers,
            batch.lengths.tolist(),
            batch.mean_surprises.tolist(),
            strict=True,
        )
        lines = (f"{batch.contig}\t{s}\t{e}\t{n}\t{length}\t{mean:.6f}\n" for s, e, n, length, mean in rows)
        self._handle.write("".join(lines).encode())
        self._number += batch.lengths.size

    def close(self) -> None:
        """Nothing is held back."""
