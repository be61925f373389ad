"""Embeddings of long sequences: windows cut at patch starts, batches of windows, means over patch states.

patched contig -> windows -> batches -> HyenaGLT.forward -> one vector per window -> one per record
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from hyena_glt.tokens.byte_tokenizer import OFFSET, PAD_ID

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one record that goes through the net by itself."""

    name: str
    start: int  # 0-based position of its first base on the contig
    sequence: bytes
    patch_lengths: np.ndarray  # (num_patches,) int64, sums to the sequence's length
    forced_starts: np.ndarray  # (length,) bool, True where a token starts a patch because of what it is itself


@dataclass(frozen=True, slots=True)
class Embedding:
    """The mean of the trunk's patch states over a window, or over a whole record."""

    name: str
    start: int  # 0-based
    end: int
    patches: int
    vector: np.ndarray  # (hidden,) float32


def cut_windows(
    name: str,
    start: int,
    sequence: bytes,
    patch_lengths: np.ndarray,
    forced_starts: np.ndarray,
    ambiguous: np.ndarray,
    window: int,
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
    """
    ends = np.cumsum(patch_lengths)
    starts = ends - patch_lengths
    changes = np.flatnonzero(np.diff(starts // window)) + 1
    first_patches = np.concatenate([[0], changes, [patch_lengths.size]])
    for a, b in pairwise(first_patches.tolist()):
        first, last = int(starts[a]), int(ends[b - 1])
        if ambiguous[first:last].all():
            continue
        yield Window(name, start + first, sequence[first:last], patch_lengths[a:b], forced_starts[first:last])


def embed_windows(net: HyenaGLT, windows: Iterable[Window], batch_size: int) -> Iterator[Embedding]:
    """Run windows through the net; a window's vector does not depend on its batch.

    Args:
        net: The model, in evaluation mode.
        windows: What to embed, in order.
        batch_size: Windows per forward.

    Yields:
        One `Embedding` per window, in order.
    """
    waiting = iter(windows)
    while batch := list(islice(waiting, batch_size)):
        states, counts = _mean_states(net, batch)
        for window, vector, patches in zip(batch, states, counts, strict=True):
            end = window.start + len(window.sequence)
            yield Embedding(window.name, window.start, end, patches, vector)


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
def _mean_states(net: HyenaGLT, batch: list[Window]) -> tuple[np.ndarray, list[int]]:
    """Mean patch state `(batch, hidden)` float32, and the number of patches of each window."""
    counts = [window.patch_lengths.size for window in batch]
    output = net(
        _padded([np.frombuffer(w.sequence, np.uint8).astype(np.int64) + OFFSET for w in batch], PAD_ID),
        patch_lengths=_padded([window.patch_lengths for window in batch], 0),
        known_starts=_padded([~window.forced_starts for window in batch], True),
        global_position_offset=torch.tensor([window.start for window in batch]),
        return_position_info=False,
    )
    sums = output.last_hidden_state.double().sum(dim=1).cpu()  # padding holds zeros
    return (sums / torch.tensor(counts)[:, None]).float().numpy(), counts


def _padded(rows: list[np.ndarray], filler: int | bool) -> torch.Tensor:
    """Rows of unequal lengths as one tensor, right-padded."""
    padded = np.full((len(rows), max(row.size for row in rows)), filler, dtype=rows[0].dtype)
    for row, values in zip(padded, rows, strict=True):
        row[: values.size] = values
    return torch.from_numpy(padded)
