"""Who does what: items dealt out to several processes, each item exactly once, results back in input order.

lengths -> batches of similar length -> shards, one per process -> results -> input order

Nothing here depends on anything but the numbers given, so every process works out the same shards by itself.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError

Item = TypeVar("Item")
Whole = NDArray[np.int64]


def balanced_shards(sizes: Sequence[int] | Whole, num_shards: int) -> list[Whole]:
    """Deal items out so that the shards have about the same size.

    The largest item first, each to the shard that has least so far (Graham 1969: the largest shard is at most 4/3 of
    the least possible); ties go to the lower index.

    Args:
        sizes: Of the items, such as their bases; at least 0.
        num_shards: How many shards, some of them empty where there are fewer items.

    Returns:
        Indices of the items of each shard, `(num_items,)` int64 ascending; together each index once.

    Raises:
        ConfigError: A negative size, or no shard.

    Example:
        >>> [shard.tolist() for shard in balanced_shards([5, 1, 1, 1, 4], 2)]
        [[0, 2], [1, 3, 4]]
    """
    weights, count = _sizes("sizes", sizes), _whole("num_shards", num_shards)
    shards: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, 0, shard) for shard in range(count)]  # size and number of items so far
    for index in np.lexsort((np.arange(weights.size), -weights)).tolist():
        load, items, shard = heapq.heappop(loads)
        shards[shard].append(index)
        heapq.heappush(loads, (load + int(weights[index]), items + 1, shard))
    return [np.array(sorted(shard), np.int64) for shard in shards]


def batches_of_similar_length(lengths: Sequence[int] | Whole, batch_size: int) -> list[Whole]:
    """Put items of similar length together, the shortest first; of equal ones the lower index first.

    Made before anything is dealt out, so that a batch is the same for any number of processes.

    Args:
        lengths: Of the items.
        batch_size: Items of a batch; the last one may have fewer.

    Returns:
        Indices of the items of each batch, `(batch,)` int64.

    Raises:
        ConfigError: A negative length, or a batch size below 1.
    """
    order = np.argsort(_sizes("lengths", lengths), kind="stable").astype(np.int64)
    size = _whole("batch_size", batch_size)
    return [order[first : first + size] for first in range(0, order.size, size)]


def cut_contigs(lengths: Sequence[int] | Whole, longest: int) -> Whole:
    """Cut contigs into pieces of about equal length, so that one long contig can be shared.

    Args:
        lengths: Bases of each contig.
        longest: Bases that a piece may have.

    Returns:
        `(num_pieces, 3)` int64: contig, start, end (0-based, half-open), in input order; together each base once. A
        contig without a base has no piece.

    Raises:
        ConfigError: A negative length, or `longest` below 1.

    Example:
        >>> cut_contigs([5, 0, 2], 3).tolist()
        [[0, 0, 2], [0, 2, 5], [2, 0, 2]]
    """
    bases, most = _sizes("lengths", lengths), _whole("longest", longest)
    counts = -(-bases // most)
    contigs = np.repeat(np.arange(bases.size), counts)
    places = np.arange(contigs.size) - np.repeat(np.cumsum(counts) - counts, counts)
    step, rest = np.divmod(bases[contigs], counts[contigs])
    late = counts[contigs] - rest  # pieces of a contig before those with one base more
    starts = places * step + np.maximum(places - late, 0)
    ends = starts + step + (places >= late)
    return np.stack([contigs, starts, ends], axis=1).astype(np.int64)


def in_input_order(shards: Sequence[Iterable[int]], parts: Sequence[Sequence[Item]]) -> list[Item]:
    """Put the results of the shards together.

    Args:
        shards: Indices of each shard.
        parts: Results of each shard, in the order of its indices.

    Raises:
        ConfigError: A result that is missing or there twice.
    """
    found: dict[int, Item] = {}
    for indices, results in zip(shards, parts, strict=True):
        own = [int(index) for index in indices]
        if len(own) != len(results):
            raise ConfigError(f"results: expected {len(own)} of a shard, got {len(results)}")
        found.update(zip(own, results, strict=True))
    total = sum(len(results) for results in parts)
    if len(found) != total or found.keys() != set(range(total)):
        raise ConfigError(f"results: expected each of {total} items once, got {len(found)} of them")
    return [found[index] for index in range(total)]


def _sizes(name: str, values: Any) -> Whole:
    sizes = np.asarray(values, dtype=np.int64).reshape(-1)
    if (sizes < 0).any():
        raise ConfigError(f"{name}: expected numbers of at least 0, got {int(sizes.min())}")
    return sizes


def _whole(name: str, value: int) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return number
