"""Embeddings of long sequences: windows cut at patch starts, batches of windows, pooled patch states.

patched blocks -> windows -> batches -> HyenaGLT.hidden_states -> rows of vectors -> one row per record
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.sequences.alphabets import Alphabet, reverse_complement
from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT
    from hyena_glt.patching.genome import PatchedBlock

Pool = Literal["mean", "max", "patch"]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one record that goes through the net by itself."""

    name: str
    start: int  # 0-based position of its first base on the contig
    sequence: bytes
    patch_lengths: np.ndarray  # (num_patches,) int64, sums to the sequence's length
    forced_starts: np.ndarray  # (length,) bool, True where a token starts a patch because of what it is itself
    record: int = 0  # number of its record, or region, in the input


@dataclass(frozen=True, slots=True)
class Embedding:
    """The pooled patch states of a window or of a whole record, or the state of one patch."""

    name: str
    start: int  # 0-based
    end: int
    patches: int
    vector: np.ndarray  # (hidden,) float32


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingRows:
    """Many embeddings side by side, in the order of the input."""

    records: NDArray[np.int64]  # (rows,), number of each row's record
    starts: NDArray[np.int64]  # (rows,), 0-based position on the contig
    ends: NDArray[np.int64]  # (rows,)
    patches: NDArray[np.int64]  # (rows,)
    vectors: NDArray[np.float32]  # (rows, hidden)

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def joined(cls, parts: list[EmbeddingRows]) -> EmbeddingRows:
        """The rows of all parts, at least one."""
        if len(parts) == 1:
            return parts[0]
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__)
        return cls(*columns)

    def between(self, first: int, last: int) -> EmbeddingRows:
        """Rows `[first, last)`."""
        return EmbeddingRows(*(getattr(self, name)[first:last] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Span:
    """One record of the input, or the region of it that was asked for."""

    name: str
    start: int  # 0-based
    end: int


def cut_windows(
    name: str,
    start: int,
    sequence: bytes,
    patch_lengths: np.ndarray,
    forced_starts: np.ndarray,
    ambiguous: np.ndarray,
    window: int,
    offset: int = 0,
    record: int = 0,
) -> Iterator[Window]:
    """Cut a patched sequence into windows at patch starts.

    A window holds the patches that begin within the same `window` bases. Windows of ambiguity symbols alone say
    nothing and are left out.

    Args:
        name: Name of the record.
        start: 0-based position of the sequence on its contig.
        sequence: Its bytes, `(length,)`.
        patch_lengths: `(num_patches,)` int64, none longer than `window`.
        forced_starts: `(length,)` bool.
        ambiguous: `(length,)` bool.
        window: Bases per window, about.
        offset: Bases of the record before this sequence.
        record: Number of the record.
    """
    ends = np.cumsum(patch_lengths)
    starts = ends - patch_lengths
    changes = np.flatnonzero(np.diff((starts + offset) // window)) + 1
    first_patches = np.concatenate([[0], changes, [patch_lengths.size]])
    for a, b in pairwise(first_patches.tolist()):
        first, last = int(starts[a]), int(ends[b - 1])
        if ambiguous[first:last].all():
            continue
        yield Window(name, start + first, sequence[first:last], patch_lengths[a:b], forced_starts[first:last], record)


class WindowCutter:
    """Windows of a stream of patched blocks, in memory that does not grow with the record.

    Args:
        window: Bases per window, about; no patch is longer.

    Attributes:
        spans: The records that are complete, in order; `Window.record` is the place here.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.spans: list[Span] = []

    def windows(self, blocks: Iterable[PatchedBlock]) -> Iterator[Window]:
        """The windows of every record, as soon as the patches after them are known; `cut_windows` has the rule."""
        held: _Held | None = None
        for patched in blocks:
            held = _Held.of(patched) if held is None else held.extended(patched)
            yield from held.cut(self.window, len(self.spans), whole=patched.block.last)
            held = held.rest(self.window)
            if patched.block.last:
                end = patched.block.start + len(patched.block.sequence)
                self.spans.append(Span(patched.block.name, held.first, end))
                held = None


@dataclass(frozen=True, slots=True)
class _Held:
    """What of a record has been read and not yet been cut."""

    name: str
    first: int  # start of the record
    start: int  # of what is held, on the contig
    sequence: bytes
    lengths: np.ndarray  # of the completed patches; the sequence may be longer
    forced_starts: np.ndarray
    ambiguous: np.ndarray

    @classmethod
    def of(cls, patched: PatchedBlock) -> _Held:
        block = patched.block
        arrays = patched.lengths, patched.forced_starts, patched.ambiguous
        return cls(block.name, block.start, block.start, block.sequence, *arrays)

    def extended(self, patched: PatchedBlock) -> _Held:
        return _Held(
            self.name,
            self.first,
            self.start,
            self.sequence + patched.block.sequence,
            np.concatenate([self.lengths, patched.lengths]),
            np.concatenate([self.forced_starts, patched.forced_starts]),
            np.concatenate([self.ambiguous, patched.ambiguous]),
        )

    def num_ready(self, window: int) -> int:
        """Patches of the windows that no later patch can belong to."""
        if not self.lengths.size:
            return 0
        places = (self.start - self.first + np.cumsum(self.lengths) - self.lengths) // window
        return int(np.searchsorted(places, places[-1]))

    def cut(self, window: int, record: int, *, whole: bool) -> Iterator[Window]:
        count = self.lengths.size if whole else self.num_ready(window)
        if count:
            lengths, offset = self.lengths[:count], self.start - self.first
            arrays = lengths, self.forced_starts, self.ambiguous
            yield from cut_windows(self.name, self.start, self.sequence, *arrays, window, offset, record)

    def rest(self, window: int) -> _Held:
        """What is left when the ready windows are gone."""
        count = self.num_ready(window)
        bases = int(self.lengths[:count].sum())
        if not count:
            return self
        arrays = self.lengths[count:], self.forced_starts[bases:], self.ambiguous[bases:]
        return _Held(self.name, self.first, self.start + bases, self.sequence[bases:], *arrays)


def other_strand(window: Window, alphabet: Alphabet | str, cut: Callable[[bytes], np.ndarray]) -> Window:
    """The reverse complement of a window, patched by itself, at the same place.

    Args:
        window: One strand.
        alphabet: Of its sequence; it has complements.
        cut: Sequence -> its patch lengths, `(num_patches,)` int64.

    Raises:
        AlphabetError: An alphabet with one strand.
    """
    sequence = reverse_complement(window.sequence, alphabet)
    forced = np.zeros_like(window.forced_starts)
    forced[1:] = window.forced_starts[1:][::-1]  # a run's end becomes its start
    return Window(window.name, window.start, sequence, cut(sequence), forced, window.record)


def embed_rows(
    net: HyenaGLT,
    windows: Iterable[Window],
    batch_size: int,
    *,
    pool: Pool = "mean",
    layer: int = -1,
    flip: Callable[[Window], Window] | None = None,
) -> Iterator[EmbeddingRows]:
    """Run windows through the net, one result per batch; a row does not depend on its batch but by rounding.

    Args:
        net: The model, in evaluation mode. One with learned boundaries cuts the windows into patches itself.
        windows: What to embed, in order.
        batch_size: Windows per forward.
        pool: `mean` or `max` over a window's patches, or a row for each `patch`.
        layer: States after so many layers of the trunk; 0 is before it, -1 the last.
        flip: Gives a window's other strand; a row is then the average of both. None: one strand.

    Raises:
        ConfigError: An unknown pool or layer, or both strands of single patches, which do not correspond.
        DataError: A vector that is not finite.
    """
    if pool not in ("mean", "max", "patch"):
        raise ConfigError(f"pool: expected mean, max or patch, got {pool!r}")
    if pool == "patch" and flip is not None:
        raise ConfigError("the patches of the two strands do not correspond; average windows, records or regions")
    waiting = iter(windows)
    while batch := list(islice(waiting, batch_size)):
        rows = _embed_batch(net, batch, pool, layer)
        if flip is not None:
            other = _embed_batch(net, [flip(window) for window in batch], pool, layer)
            mean = (rows.vectors.astype(np.float64) + other.vectors) / 2
            rows = EmbeddingRows(rows.records, rows.starts, rows.ends, rows.patches, mean.astype(np.float32))
        if not np.isfinite(rows.vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(rows.vectors).all(axis=1))[0])
            name = next(window.name for window in batch if window.record == rows.records[bad])
            raise DataError(f"the net gave a vector that is not finite at base {rows.starts[bad]:,}", record=name)
        yield rows


def embed_windows(
    net: HyenaGLT,
    windows: Iterable[Window],
    batch_size: int,
    *,
    pool: Pool = "mean",
    layer: int = -1,
    flip: Callable[[Window], Window] | None = None,
) -> Iterator[Embedding]:
    """As `embed_rows`, one `Embedding` per window, or per patch, in order."""
    names: dict[int, str] = {}

    def named() -> Iterator[Window]:
        for window in windows:
            names[window.record] = window.name
            yield window

    for rows in embed_rows(net, named(), batch_size, pool=pool, layer=layer, flip=flip):
        columns = (rows.records.tolist(), rows.starts.tolist(), rows.ends.tolist(), rows.patches.tolist())
        for record, start, end, patches, vector in zip(*columns, rows.vectors, strict=True):
            yield Embedding(names[record], start, end, patches, vector)


def pool_records(parts: Iterable[EmbeddingRows], pool: Pool = "mean") -> Iterator[EmbeddingRows]:
    """One row per record from the rows of its windows, which follow each other.

    Args:
        parts: Rows of windows, in order.
        pool: `mean` is over all patches of the record, so windows weigh by their patches; `max` by component.

    Yields:
        The records that each part completes; a part may complete none.
    """
    add = np.maximum if pool == "max" else np.add
    held: tuple[EmbeddingRows, NDArray[np.float64]] | None = None  # one row and its unfinished pool
    for part in parts:
        if not len(part):
            continue
        weights = np.ones(len(part)) if pool == "max" else part.patches
        values = part.vectors.astype(np.float64) * weights[:, None]
        firsts = np.concatenate([[0], np.flatnonzero(np.diff(part.records)) + 1])
        lasts = np.concatenate([firsts[1:], [len(part)]]) - 1
        pooled = add.reduceat(values, firsts, axis=0)
        rows = EmbeddingRows(
            part.records[firsts],
            part.starts[firsts],
            part.ends[lasts],
            np.add.reduceat(part.patches, firsts),
            np.empty((firsts.size, 0), np.float32),
        )
        if held is not None:
            rows, pooled = _merged(held, (rows, pooled), add)
        if len(rows) > 1:
            yield _finished(rows.between(0, len(rows) - 1), pooled[:-1], pool)
        held = rows.between(len(rows) - 1, len(rows)), pooled[-1:]
    if held is not None:
        yield _finished(*held, pool)


def _merged(
    before: tuple[EmbeddingRows, NDArray[np.float64]], after: tuple[EmbeddingRows, NDArray[np.float64]], add: np.ufunc
) -> tuple[EmbeddingRows, NDArray[np.float64]]:
    """Both, the last record of the one and the first of the other being one where they have the same number."""
    (held, first), (rows, pooled) = before, after
    if held.records[-1] != rows.records[0]:
        return EmbeddingRows.joined([held, rows]), np.concatenate([first, pooled])
    starts, patches = rows.starts.copy(), rows.patches.copy()
    starts[0] = held.starts[-1]
    patches[0] += held.patches[-1]
    pooled[0] = add(first[-1], pooled[0])
    return EmbeddingRows(rows.records, starts, rows.ends, patches, rows.vectors), pooled


def _finished(rows: EmbeddingRows, pooled: NDArray[np.float64], pool: Pool) -> EmbeddingRows:
    vectors = pooled if pool == "max" else pooled / rows.patches[:, None]
    return EmbeddingRows(rows.records, rows.starts, rows.ends, rows.patches, vectors.astype(np.float32))


def mean_embedding(parts: list[Embedding]) -> Embedding:
    """One vector for a record: the mean over all its patches.

    Args:
        parts: The windows of one record, in order, at least one.
    """
    patches = np.array([part.patches for part in parts], dtype=np.float64)
    vectors = np.stack([part.vector for part in parts]).astype(np.float64)
    vector = (vectors * patches[:, None]).sum(axis=0) / patches.sum()
    total = int(patches.sum())
    return Embedding(parts[0].name, parts[0].start, parts[-1].end, total, vector.astype(np.float32))


@torch.inference_mode()
def _embed_batch(net: HyenaGLT, batch: list[Window], pool: Pool, layer: int) -> EmbeddingRows:
    learned = net.config.boundaries == "learned"
    states, info = net.hidden_states(
        _padded([np.frombuffer(w.sequence, np.uint8).astype(np.int64) + OFFSET for w in batch], PAD_ID),
        None if learned else _padded([window.patch_lengths for window in batch], 0),
        layer=layer,
        global_position_offset=torch.tensor([window.start for window in batch]),
    )
    counts = info.patch_mask.sum(1)
    records = np.array([window.record for window in batch])
    starts = np.array([window.start for window in batch])
    if pool == "patch":
        shift = torch.from_numpy(starts).to(info.patch_starts.device)[:, None]
        firsts = (info.patch_starts + shift)[info.patch_mask].cpu().numpy()
        lengths = info.patch_lengths[info.patch_mask].cpu().numpy()
        repeated = np.repeat(records, counts.cpu().numpy())
        vectors = states[info.patch_mask].float().cpu().numpy()
        return EmbeddingRows(repeated, firsts, firsts + lengths, np.ones_like(firsts), vectors)
    if pool == "max":
        pooled = states.masked_fill(~info.patch_mask[..., None], -torch.inf).amax(dim=1)
    else:
        pooled = states.double().sum(dim=1) / counts[:, None]  # padding holds zeros
    ends = starts + np.array([len(window.sequence) for window in batch])
    return EmbeddingRows(records, starts, ends, counts.cpu().numpy(), pooled.float().cpu().numpy())


def _padded(rows: list[np.ndarray], filler: int) -> torch.Tensor:
    """Rows of unequal lengths as one tensor, right-padded."""
    padded = np.full((len(rows), max(row.size for row in rows)), filler, dtype=rows[0].dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: values.size] = values
    return torch.from_numpy(padded)
