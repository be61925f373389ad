"""Scores of queries against candidates -> recall, and what simpler means reach: chance, length, translated words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.multimodal.genetic_code import translate
from hyena_glt.multimodal.pair_split import word_codes
from hyena_glt.multimodal.pairs import CodingPair
from hyena_glt.sequences.alphabets import PROTEIN

WORD = 3


def recall_at(scores: Tensor, ks: Sequence[int] = (1, 5)) -> dict[int, float]:
    """Share of the queries whose own candidate is among the `k` best.

    Equal scores are drawn at random: each query counts with the probability that its candidate is among them.

    Args:
        scores: `(num, num)`, higher is better; candidate `i` belongs to query `i`.
        ks: How many candidates are looked at.

    Raises:
        ConfigError: Scores that are not square, empty or not finite.

    Example:
        >>> recall_at(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), [1, 2])
        {1: 0.75, 2: 1.0}
    """
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or not len(scores):
        raise ConfigError(f"scores: expected (num, num), got {tuple(scores.shape)}")
    if not bool(scores.isfinite().all()):
        raise ConfigError("scores: expected finite numbers, got NaN or infinity")
    own = scores.diagonal().unsqueeze(1)
    better, equal = (scores > own).sum(1).double(), (scores == own).sum(1).double()
    return {k: float(((k - better) / equal).clamp(0, 1).mean()) for k in ks}


def chance(num: int, ks: Sequence[int] = (1, 5)) -> dict[int, float]:
    """Recall of guessing among `num` candidates."""
    return {k: min(k / num, 1.0) for k in ks}


def length_scores(pairs: Sequence[CodingPair]) -> Tensor:
    """Minus the difference between a coding sequence's codons and a protein's residues, `(num, num)`."""
    codons = torch.tensor([len(pair.dna) / 3 for pair in pairs])
    residues = torch.tensor([float(len(pair.protein)) for pair in pairs])
    return -(codons[:, None] - residues).abs()


def translated_word_scores(pairs: Sequence[CodingPair], size: int = WORD) -> Tensor:
    """Cosine of the counts of words in the translated coding sequence and in the protein, `(num, num)`."""
    found = [translate(pair.dna, pair.transl_table) for pair in pairs]
    left, right = _word_counts([*found], size), _word_counts([pair.protein for pair in pairs], size)
    return torch.from_numpy(left @ right.T)


def _word_counts(proteins: Sequence[bytes], size: int) -> NDArray[np.float64]:
    """Unit vectors of the counts, `(num, 20 ** size)`; zeros where there is no word."""
    counts = np.zeros((len(proteins), PROTEIN.size**size))
    for row, protein in zip(counts, proteins, strict=True):
        np.add.at(row, word_codes(PROTEIN.encode(protein), PROTEIN, size), 1.0)
    norms = np.linalg.norm(counts, axis=1, keepdims=True)
    return counts / np.where(norms > 0, norms, 1.0)
