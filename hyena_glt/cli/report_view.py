"""The view in two dimensions of a report: windows spread over a genome through a net, or a table of embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hyena_glt.errors import DataError
from hyena_glt.reports import Embeddings

if TYPE_CHECKING:
    from hyena_glt.cli.source import GenomeSource
    from hyena_glt.model import HyenaGLT

MOST_WINDOWS = 200  # that a report runs through the net
WINDOW, SHORTEST = 4096, 256  # bases
LETTERS = b"ACGTUacgtu"


class Sample(NamedTuple):
    """One window of a genome."""

    name: str
    start: int  # 0-based
    sequence: bytes


def embedded_windows(source: GenomeSource, symbols: int, net: HyenaGLT, weights: str) -> Embeddings | None:
    """The first two principal components of windows that are evenly spread over a genome; None for fewer than three.

    Args:
        source: Read once more.
        symbols: How many it holds.
        net: What embeds; without a patcher one is calibrated on the windows.
        weights: What it is called on the page.
    """
    from hyena_glt.processing import GenomeEmbedder

    samples = list(spread_windows(source, max(WINDOW, -(-symbols // MOST_WINDOWS))))
    if len(samples) < 3:
        return None
    embedder = GenomeEmbedder(net, window=WINDOW, alphabet=source.alphabet.name)
    vectors = embedder.fit_transform([sample.sequence for sample in samples])
    return in_two_dimensions(
        vectors.astype(np.float64),
        [sample.name for sample in samples],
        [(sample.start, sample.start + len(sample.sequence)) for sample in samples],
        weights,
    )


def spread_windows(source: GenomeSource, step: int) -> Iterator[Sample]:
    """Up to `WINDOW` bases at every `step`-th place of each contig; those with too few letters are left out."""
    held, name, start = b"", "", 0
    for block in source.blocks():
        if block.name != name or block.start != start + len(held):
            held, name, start = b"", block.name, block.start
        held += block.sequence
        while len(held) >= step or (block.last and held):
            sequence = held[:WINDOW]
            if sum(map(sequence.count, map(bytes, zip(LETTERS, strict=True)))) >= SHORTEST:
                yield Sample(name, start, sequence)
            start, held = start + min(step, len(held)), held[step:]


def read_embeddings(path: Path) -> Embeddings:
    """The first two principal components of a table that `hyena-glt embed` wrote.

    Raises:
        DataError: Not such a table, or fewer than two rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["name", "start", "end", "embedding"])
    except (OSError, pa.ArrowException, KeyError) as problem:
        raise DataError(f"expected a table of hyena-glt embed: {problem}", path=path) from None
    if table.num_rows < 2:
        raise DataError("a view in two dimensions needs two rows or more; embed with --per window", path=path)
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False)).astype(np.float64)
    names, starts, ends = (table[column].to_pylist() for column in ("name", "start", "end"))
    about = json.loads((table.schema.metadata or {}).get(b"hyena_glt", b"{}"))
    places = list(zip(starts, ends, strict=True))
    return in_two_dimensions(vectors, names, places, str(about.get("weights", "")))


def in_two_dimensions(vectors: np.ndarray, names: list[str], places: list[tuple[int, int]], weights: str) -> Embeddings:
    """Points of `(rows, dimensions)`, labelled by region and coloured by contig."""
    points, explained = principal_components(vectors)
    return Embeddings(
        labels=[f"{name}:{start + 1}-{end}" for name, (start, end) in zip(names, places, strict=True)],
        points=points,
        groups=names if len(set(names)) > 1 else None,
        explained=explained,
        note=weights,
    )


def principal_components(vectors: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Project `(rows, dimensions)` on its two directions of largest variance; with their share of the variance."""
    centred = vectors - vectors.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)  # small, however many rows there are
    kept = min(2, variances.size)
    points, share = np.zeros((len(vectors), 2)), np.zeros(2)
    points[:, :kept] = centred @ directions[:, ::-1][:, :kept]
    largest = variances.clip(min=0)[::-1]
    share[:kept] = largest[:kept] / max(float(largest.sum()), 1e-300)
    return points, (float(share[0]), float(share[1]))
