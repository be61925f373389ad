"""Shared words of k letters, strands alike: the exact Jaccard index, and the distance that Mash makes of it.

Codes -> canonical words -> distinct words in the block where each occurs first -> numbers over all genomes. A word with
an ambiguity symbol is none. For DNA and RNA a word and its reverse complement are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError
from hyena_glt.evolution.genome import Genome, block_edges

DEFAULT_K = 11


def canonical_words(codes: NDArray[np.uint8], k: int, bits: int = 2, *, both_strands: bool = True) -> tuple[Any, Any]:
    """The words of a sequence as numbers, first letter highest.

    Args:
        codes: `(length,)` uint8 symbol codes; `1 << bits` or above is no letter.
        k: Letters of a word; `k * bits` is 63 at most.
        bits: Of one letter.
        both_strands: Take the smaller of a word and its reverse complement (2 bits only).

    Returns:
        `(words,)` uint64 and `(words,)` int64 places of their first letters, without words that hold no-letters.
    """
    num_words = codes.size - k + 1
    if num_words < 1:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    letters = np.minimum(codes, (1 << bits) - 1).astype(np.uint64)
    bad = np.concatenate([[0], np.cumsum(codes >= 1 << bits)])
    words = np.zeros(num_words, np.uint64)
    reverse = np.zeros(num_words if both_strands else 0, np.uint64)
    for j in range(k):  # over the letters of a word, not over the bases
        column = letters[j : j + num_words]
        words = (words << np.uint64(bits)) | column
        if both_strands:
            reverse |= (np.uint64(3) - column) << np.uint64(2 * j)
    places = np.flatnonzero(bad[k:] == bad[:num_words])
    chosen = np.minimum(words, reverse) if both_strands else words
    return chosen[places], places


def mash_distance(jaccard: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """`-ln(2 j / (1 + j)) / k`, 1 at most and where nothing is shared (Ondov et al., Genome Biology 2016)."""
    with np.errstate(divide="ignore"):
        distance = -np.log(2 * jaccard / (1 + jaccard)) / k
    return np.clip(distance, 0.0, 1.0) + 0.0  # the logarithm of 1 comes out as -0.0


class SharedWords:
    """Counts the words that genomes share. Takes about 20 bytes of memory for each letter of all genomes.

    Args:
        genomes: Of one alphabet.
        blocks: Stretches of each genome whose words are counted apart.
        k: Letters of a word; 1 to 31 for DNA and RNA, fewer for larger alphabets.

    Raises:
        ConfigError: A k that no number of 64 bits holds.
        DataError: A genome without any word of k letters.
    """

    def __init__(self, genomes: Sequence[Genome], *, blocks: int = 1, k: int = DEFAULT_K) -> None:
        alphabet = genomes[0].alphabet
        most = 63 // alphabet.bits
        if not 1 <= k <= most:
            raise ConfigError(f"k: expected 1 to {most} letters for alphabet {alphabet.name}, got {k}")
        self.k, self.blocks = k, blocks
        words, segments = [], []
        for genome in genomes:
            own, edges = _distinct_words(genome, k, blocks)
            if not own.size:
                raise genome.refusal(f"no word of k = {k} letters in it; give a smaller k")
            words.append(own)
            segments.append(edges)
        starts = np.cumsum([0, *(own.size for own in words)])
        self._edges = np.stack([start + edges for start, edges in zip(starts[:-1], segments, strict=True)])
        everything = np.concatenate(words)
        words.clear()
        distinct, self._numbers = np.unique(everything, return_inverse=True)
        self._num_distinct = distinct.size

    def describe(self) -> dict[str, Any]:
        """k, as it appears in outputs."""
        return {"k": self.k}

    def own_sums(self, index: int) -> NDArray[np.float64]:
        """Distinct words of a genome, in the block where each is first: `(blocks,)`."""
        return np.diff(self._edges[index]).astype(np.float64)

    def row(self, index: int) -> NDArray[np.float64]:
        """Distinct words of each genome that genome `index` has too: `(genomes, blocks)`."""
        has = np.zeros(self._num_distinct, np.uint8)
        has[self._numbers[self._edges[index, 0] : self._edges[index, -1]]] = 1
        running = np.zeros(self._numbers.size + 1, np.int64)
        np.cumsum(has[self._numbers], out=running[1:])
        return np.diff(running[self._edges], axis=1).astype(np.float64)

    def distances(self, rows: NDArray[np.float64], own: NDArray[np.float64], weights: Any) -> NDArray[np.float64]:
        """Mash distances of the Jaccard indices, blocks weighted.

        Args:
            rows: `(known, counted, blocks)` words.
            own: `(genomes, blocks)` words.
            weights: `(blocks,)`, how often each block counts.

        Returns:
            `(genomes, genomes)` in [0, 1], symmetric, 0 on the diagonal.
        """
        shared = rows @ weights
        shared = (shared + shared.T) / 2
        total = own @ weights
        union = total[:, None] + total - shared
        jaccard = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        distance = mash_distance(jaccard, self.k)
        np.fill_diagonal(distance, 0.0)
        return distance


def _distinct_words(genome: Genome, k: int, blocks: int) -> tuple[Any, Any]:
    """Distinct words in the order of their first places, `(words,)`, and where each block of them begins and ends."""
    both = genome.alphabet.name in ("dna", "rna")
    words, places = canonical_words(genome.codes, k, genome.alphabet.bits, both_strands=both)
    _, first = np.unique(words, return_index=True)
    first.sort()
    return words[first], np.searchsorted(places[first], block_edges(genome.codes.size, blocks))
