"""Pairs -> training and test sets that share no gene and no near-duplicate of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from hyena_glt.errors import ConfigError
from hyena_glt.multimodal.pairs import CodingPair
from hyena_glt.sequences.alphabets import DNA, PROTEIN, Alphabet, reverse_complement

PROTEIN_WORD, DNA_WORD = 4, 16
SHARED_WORDS = 0.1  # of the smaller set; unrelated proteins of 400 residues share under 0.01 of their 4-mers


def word_codes(codes: NDArray[np.uint8], alphabet: Alphabet, size: int) -> NDArray[np.int64]:
    """Numbers of all words of `size` letters, in order; those with an ambiguous letter are left out.

    Args:
        codes: `(length,)` uint8 codes of the alphabet.
        alphabet: Its letters are the digits.
        size: Letters of a word.
    """
    if codes.size < size:
        return np.zeros(0, np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(codes.astype(np.int64), size)
    numbers = windows @ (alphabet.size ** np.arange(size - 1, -1, -1, dtype=np.int64))
    return numbers[(windows < alphabet.size).all(axis=1)]


def near_duplicate_groups(pairs: Sequence[CodingPair], shared: float = SHARED_WORDS) -> NDArray[np.int64]:
    """Number the groups of pairs that resemble each other, directly or through others.

    Two pairs are linked that share at least this part of the words of the smaller one: 4-mers of the protein, or
    16-mers of the DNA on either strand (genes that overlap in another frame).

    Args:
        pairs: Coding sequences and proteins.
        shared: In (0, 1].

    Returns:
        `(num_pairs,)` int64; equal numbers are one group, from 0 in order of first appearance.

    Raises:
        ConfigError: `shared` out of range.
    """
    if not 0 < shared <= 1:
        raise ConfigError(f"shared: expected a share in (0, 1], got {shared}")
    if not pairs:
        return np.zeros(0, np.int64)
    proteins = [word_codes(PROTEIN.encode(pair.protein), PROTEIN, PROTEIN_WORD) for pair in pairs]
    forward = [word_codes(DNA.encode(pair.dna), DNA, DNA_WORD) for pair in pairs]
    both = [
        np.concatenate([words, word_codes(DNA.encode(reverse_complement(pair.dna)), DNA, DNA_WORD)])
        for words, pair in zip(forward, pairs, strict=True)
    ]
    links = _links(proteins, proteins, shared) + _links(forward, both, shared)
    return connected_components(links, directed=False)[1].astype(np.int64)


def split_pairs(
    pairs: Sequence[CodingPair], test_share: float = 0.2, seed: int = 0
) -> tuple[list[CodingPair], list[CodingPair]]:
    """Training and test pairs, each group of near-duplicates wholly on one side.

    Args:
        pairs: Coding sequences and proteins.
        test_share: About this part of the pairs is for the test, in (0, 1).
        seed: Of the order in which groups are drawn.

    Returns:
        `(train, test)`, in the order of `pairs`; the test set has no more than its share.

    Raises:
        ConfigError: `test_share` out of range.
    """
    if not 0 < test_share < 1:
        raise ConfigError(f"test_share: expected a share in (0, 1), got {test_share}")
    groups = near_duplicate_groups(pairs)
    sizes = np.bincount(groups)
    room, test_groups = int(test_share * len(pairs)), set()
    for group in np.random.default_rng(seed).permutation(sizes.size).tolist():
        if sizes[group] <= room:
            test_groups.add(group)
            room -= int(sizes[group])
    sides: tuple[list[CodingPair], list[CodingPair]] = ([], [])
    for pair, group in zip(pairs, groups.tolist(), strict=True):
        sides[group in test_groups].append(pair)
    return sides


def _links(a: list[NDArray[np.int64]], b: list[NDArray[np.int64]], shared: float) -> csr_array:
    """1 where enough of the distinct words of `a[i]` or `a[j]` are in `b` of the other."""
    _, numbers = np.unique(np.concatenate([*a, *b]), return_inverse=True)
    width = int(numbers.max()) + 1 if numbers.size else 1
    split = sum(words.size for words in a)
    left, right = _word_sets(a, numbers[:split], width), _word_sets(b, numbers[split:], width)
    common = (left @ right.T).tocoo()
    counts = np.maximum(left.sum(axis=1), 1)
    enough = common.data >= shared * np.minimum(counts[common.row], counts[common.col])
    places = (common.row[enough], common.col[enough])
    return csr_array((np.ones(int(enough.sum())), places), shape=(len(a), len(a)))


def _word_sets(words: list[NDArray[np.int64]], numbers: NDArray[np.int64], width: int) -> csr_array:
    """`(sequences, words)` 0/1."""
    rows = np.repeat(np.arange(len(words)), [row.size for row in words])
    pairs = np.unique(rows * width + numbers)
    return csr_array((np.ones(pairs.size), (pairs // width, pairs % width)), shape=(len(words), width))
