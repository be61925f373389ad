"""Recall counts ties fairly, and the simple means know what they should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.multimodal import CodingPair, recall_at
from hyena_glt.multimodal.retrieval import chance, length_scores, translated_word_scores


@given(st.integers(1, 12), st.integers(0, 3))
def test_recall_against_sorting(num, seed):
    scores = torch.rand(num, num, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ranks = [scores[i].argsort(descending=True).tolist().index(i) for i in range(num)]
    assert recall_at(scores, [1, 3]) == {k: pytest.approx(sum(rank < k for rank in ranks) / num) for k in (1, 3)}


@given(st.integers(1, 12))
def test_scores_that_say_nothing_are_guessing(num):
    assert recall_at(torch.zeros(num, num)) == pytest.approx(chance(num))


def test_what_is_no_score_is_refused():
    for scores in (torch.zeros(2, 3), torch.zeros(0, 0), torch.zeros(3)):
        with pytest.raises(ConfigError, match=r"expected \(num, num\)"):
            recall_at(scores)
    with pytest.raises(ConfigError, match="finite"):
        recall_at(torch.tensor([[float("nan")]]))


def test_translating_finds_every_random_gene(made_pairs):
    assert recall_at(translated_word_scores(made_pairs(20, 40)))[1] == 1.0


def test_words_of_the_wrong_genetic_code_are_worse(made_pairs):
    pairs = made_pairs(2, 40)
    own = translated_word_scores(pairs).diagonal()
    other = [CodingPair(pair.name, pair.dna, pair.protein, 3) for pair in pairs]  # CTN is threonine there
    assert bool((translated_word_scores(other).diagonal() < own).all())


def test_length_alone_finds_genes_of_different_length_only(made_pairs):
    different = [pair for codons in (10, 20, 30) for pair in made_pairs(1, codons)]
    assert recall_at(length_scores(different))[1] == 1.0
    assert recall_at(length_scores(made_pairs(4, 10)))[1] == 0.25
