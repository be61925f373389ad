"""Labelled rows that are the same sequence, and a validation part that shares none with the rest.

Two rows are the same where their sequences are, or where one is the reverse complement of the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.sequences.alphabets import Alphabet, get_alphabet, reverse_complement
from hyena_glt.training.labelled import LabelledSet

Rows = NDArray[np.int64]
VALUE_STRATA = 10  # of a regression: parts of equal size by value
SPLIT_SALT = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """Rows of one set whose sequence came before."""

    num_repeated: int
    num_contradicting: int  # of those: with another label
    first: tuple[int, int] | None  # lines of the first repeated row and of the one before; contradictions first


def sequence_keys(sequences: Iterable[bytes], alphabet: str | Alphabet = "dna") -> list[bytes]:
    """What both strands of a sequence share: the one that comes first; without complement the sequence itself."""
    letters = get_alphabet(alphabet)
    if not letters.complements:
        return list(sequences)
    return [min(sequence, reverse_complement(sequence, letters)) for sequence in sequences]


def find_repeats(labelled: LabelledSet, alphabet: str | Alphabet = "dna") -> Repeats:
    """Sequences that a set has more than once.

    Labels of bases contradict each other only where both rows have the same strand.
    """
    seen: dict[bytes, int] = {}
    repeated, contradicting = [], []
    rows = labelled.rows
    for row, key in enumerate(sequence_keys(rows.sequences, alphabet)):
        before = seen.setdefault(key, row)
        if before == row:
            continue
        repeated.append((rows.lines[row], rows.lines[before]))
        comparable = labelled.task != "per-base" or rows.sequences[row] == rows.sequences[before]
        if comparable and not np.array_equal(labelled.labels[row], labelled.labels[before]):
            contradicting.append(repeated[-1])
    first = next(iter(contradicting or repeated), None)
    return Repeats(num_repeated=len(repeated), num_contradicting=len(contradicting), first=first)


def find_leaks(train: LabelledSet, valid: LabelledSet, alphabet: str | Alphabet = "dna") -> Rows:
    """Rows of `train` whose sequence `valid` has too, ascending."""
    known = set(sequence_keys(valid.rows.sequences, alphabet))
    keys = sequence_keys(train.rows.sequences, alphabet)
    return np.array([row for row, key in enumerate(keys) if key in known], dtype=np.int64)


def split_rows(labelled: LabelledSet, share: float, seed: int, alphabet: str | Alphabet = "dna") -> tuple[Rows, Rows]:
    """Divide a set at random, in equal shares of each class (of tenths of the values in a regression).

    Rows of one sequence stay together; of a class with several sequences each side gets at least one. The labels of
    bases have no strata.

    Args:
        labelled: What is divided.
        share: Of the sequences, for validation, in (0, 1).
        seed: Of the draws.
        alphabet: Of the sequences.

    Returns:
        `(train, valid)`: row numbers, ascending.

    Raises:
        ConfigError: A share out of range.
        DataError: Too few sequences for both sides.
    """
    if not 0 < share < 1:
        raise ConfigError(f"valid_share: expected a share in (0, 1), got {share}")
    _, firsts, group = np.unique(
        np.array(sequence_keys(labelled.rows.sequences, alphabet), dtype=object), return_index=True, return_inverse=True
    )
    strata = _strata(labelled, firsts)
    order = np.random.default_rng((seed, SPLIT_SALT)).permutation(len(firsts))
    order = order[np.argsort(strata[order], kind="stable")]  # strata in turn, at random within
    sizes = np.bincount(strata)
    wanted = np.minimum(np.maximum(np.rint(share * sizes), sizes > 1), np.maximum(sizes - 1, 0)).astype(np.int64)
    place = np.arange(len(order)) - np.repeat(sizes.cumsum() - sizes, sizes)
    chosen = np.zeros(len(firsts), dtype=bool)
    chosen[order[place < np.repeat(wanted, sizes)]] = True
    is_valid = chosen[group]
    if not is_valid.any() or is_valid.all():
        raise DataError(
            f"expected enough different sequences for training and validation, got {len(firsts)}",
            path=labelled.rows.path,
        )
    return np.flatnonzero(~is_valid), np.flatnonzero(is_valid)


def _strata(labelled: LabelledSet, firsts: Rows) -> Rows:
    """The stratum of each group, by the label of its first row: `(groups,)` int64."""
    if labelled.task == "per-base":
        return np.zeros(len(firsts), dtype=np.int64)
    labels = np.stack([labelled.labels[int(row)] for row in firsts])
    if labelled.task == "classification":
        return labels.astype(np.int64)
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[np.argsort(labels, kind="stable")] = np.arange(len(labels))
    parts = min(VALUE_STRATA, max(len(labels) // 2, 1))
    return ranks * parts // len(labels)
