"""Genomes -> rows of block sums -> distances; a bootstrap weighs the blocks anew and reads no genome twice.

Row y says, for every genome and each of its blocks, what y knows of it: letters' prices or shared words. A row depends
on the genomes alone, so rows may be made in any order, by several threads, and be kept between runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.evolution.genome import Genome, check_genomes, first_copies
from hyena_glt.evolution.kmers import DEFAULT_K, SharedWords
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.evolution.relative_cost import RelativeCost

SEQUENCE_METRICS = ("compression", "kmer")
Row = NDArray[np.float64]


class Metric(Protocol):
    """What compares genomes block by block: `RelativeCost`, `SharedWords`."""

    blocks: int

    def describe(self) -> dict[str, Any]:
        """What it is made of, for the record."""

    def own_sums(self, index: int) -> Row:
        """What a genome is by itself, `(blocks,)`."""

    def row(self, index: int) -> Row:
        """What genome `index` knows of each, `(genomes, blocks)`."""

    def distances(self, rows: Row, own: Row, weights: Any) -> Row:
        """`(genomes, genomes)` from all rows."""


class Comparison(Protocol):
    """Finished work from which distances follow at once, resampled or not."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the genomes."""

    @property
    def blocks(self) -> int:
        """Stretches of each genome."""

    def distances(self, weights: Any | None = None) -> DistanceMatrix:
        """Distances; `weights`, `(blocks,)`, say how often each block counts, once by default."""


class RowStore(Protocol):
    """Where finished rows are kept between runs."""

    def find(self, key: str) -> Row | None:
        """A row that was put there, if it is sound."""

    def put(self, key: str, row: Row) -> None:
        """Keep a row."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockComparison:
    """Rows of all genomes. Takes `8 * genomes ** 2 * blocks` bytes."""

    names: tuple[str, ...]
    metric: Metric
    rows: Row  # (genomes, genomes, blocks)
    own: Row  # (genomes, blocks)

    @property
    def blocks(self) -> int:
        """Stretches of each genome."""
        return self.own.shape[1]

    def distances(self, weights: Any | None = None) -> DistanceMatrix:
        """Distances; `weights`, `(blocks,)`, say how often each block counts, once by default.

        Raises:
            DataError: Weights of another shape.
        """
        chosen = np.ones(self.blocks) if weights is None else np.asarray(weights, np.float64)
        if chosen.shape != (self.blocks,):
            raise DataError(f"weights: expected shape ({self.blocks},), got {chosen.shape}")
        return DistanceMatrix.of(self.names, self.metric.distances(self.rows, self.own, chosen))


def make_metric(
    genomes: Sequence[Genome],
    metric: str = "compression",
    *,
    k: int | None = None,
    order: int | None = None,
    blocks: int = 1,
) -> Metric:
    """The metric of a name.

    Args:
        genomes: Two or more, of one alphabet and different names.
        metric: "compression" or "kmer".
        k: Letters of a word, `kmer` alone; 11 by default.
        order: Context length of table models, `compression` alone; None: the mix for DNA and RNA.
        blocks: Stretches of each genome whose sums are kept apart.

    Raises:
        ConfigError: An unknown metric, an option of another metric, or one out of range.
        DataError: Genomes that cannot be compared so.
    """
    check_genomes(genomes)
    if blocks < 1:
        raise ConfigError(f"blocks: expected 1 or more, got {blocks}")
    if metric == "compression":
        if k is not None:
            raise ConfigError("k: only metric kmer has words; leave it out")
        return RelativeCost(genomes, blocks=blocks, order=order)
    if metric == "kmer":
        if order is not None:
            raise ConfigError("order: only metric compression has contexts; leave it out")
        return SharedWords(genomes, blocks=blocks, k=DEFAULT_K if k is None else k)
    raise ConfigError(f"metric: expected {' or '.join(SEQUENCE_METRICS)} for genomes without a net, got {metric!r}")


def compare_genomes(
    genomes: Sequence[Genome],
    metric: str | Metric = "compression",
    *,
    k: int | None = None,
    order: int | None = None,
    blocks: int = 1,
    threads: int = 1,
    store: RowStore | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> BlockComparison:
    """Compare every genome with each.

    Args:
        genomes, k, order, blocks: As `make_metric` has them.
        metric: Its name, or what `make_metric` made of these genomes; then the three options count for nothing.
        threads: Rows made at a time; the result does not depend on it.
        store: Finished rows are kept and found there, one for each distinct content.
        advance: Told how many more genomes are finished; copies of one content are so together.

    Raises:
        ConfigError, DataError: As `make_metric`.
    """
    if isinstance(metric, str):
        chosen = make_metric(genomes, metric, k=k, order=order, blocks=blocks)
    else:
        chosen = metric
    shape = (len(genomes) + 1, chosen.blocks)
    first = first_copies(genomes)
    copies = Counter(first)

    def finished(index: int) -> tuple[Row, Row]:
        key = genomes[index].sha256
        known = None if store is None else store.find(key)
        if known is None or known.shape != shape:
            known = np.concatenate([chosen.row(index), chosen.own_sums(index)[None]])
            if store is not None:
                store.put(key, known)
        advance(copies[index])
        return known[:-1], known[-1]

    made = dict(zip(copies, _mapped(finished, copies, threads), strict=True))
    rows, own = (np.stack(parts) for parts in zip(*(made[index] for index in first), strict=True))
    return BlockComparison(tuple(genome.name for genome in genomes), chosen, rows, own)


def genome_distances(genomes: Sequence[Genome], metric: str = "compression", **options: Any) -> DistanceMatrix:
    """Distances between genomes; the options are those of `compare_genomes`.

    Example:
        >>> near, far = "ACGTTGCATTAGCCGATAGCATTACGGATC" * 9, "TTGACCATGGCATCCAGATTGCAAGCTTGG" * 9
        >>> genomes = [Genome.of("a", near), Genome.of("b", near), Genome.of("c", far)]
        >>> genome_distances(genomes, "kmer").values.round(2).tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    return compare_genomes(genomes, metric, **options).distances()


def _mapped(call: Callable[[int], tuple[Row, Row]], items: Iterable[int], threads: int) -> Iterable[tuple[Row, Row]]:
    """The results in order; a failure or an interruption drops what has not begun."""
    if threads < 2:
        yield from map(call, items)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(call, items)
    finally:
        pool.shutdown(cancel_futures=True)
