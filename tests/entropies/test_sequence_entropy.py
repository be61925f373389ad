"""What a source gets by writing `score` alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.entropies.sequence_entropy import SequenceEntropy
from hyena_glt.entropies.symbols import Scores
from hyena_glt.errors import DataError
from hyena_glt.sequences.alphabets import DNA


class Places(SequenceEntropy):
    """Entropy: the place; surprise: 1 nat for A, 2 for C and so on, 0 for ambiguity symbols."""

    alphabet = DNA

    def score(self, codes):
        surprises = np.where(codes < DNA.size, codes + 1, 0).astype(np.float32)
        return Scores(np.arange(codes.size, dtype=np.float32), surprises, np.zeros(codes.size, np.bool_))


def test_a_source_without_scores_cannot_be_made():
    with pytest.raises(TypeError, match="score"):
        SequenceEntropy()


@pytest.mark.parametrize("sequence", ["acGUN", b"ACGTN", np.array([69, 71, 75, 88, 82])])
def test_text_bytes_and_tokens_are_scored_alike(sequence):
    source = Places()
    assert source.is_causal
    assert source.entropies(sequence).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert source.surprises(sequence).tolist() == [1.0, 2.0, 3.0, 4.0, 0.0]


@given(st.text("ACGTN", max_size=40))
def test_a_start_is_forced_where_ambiguity_begins_or_has_ended(text):
    changes = ((before == "N") != (after == "N") for before, after in itertools.pairwise(text))
    expected = [False, *changes][: len(text)]
    assert Places().forced_starts(text).tolist() == expected


@given(st.lists(st.text("ACGTN", max_size=12), min_size=1, max_size=4))
def test_bits_per_base_are_the_mean_over_all_letters(texts):
    letters = "".join(texts).replace("N", "")
    if not letters:
        with pytest.raises(DataError, match="no letter"):
            Places().bits_per_base(texts)
        return
    mean = sum("ACGT".index(letter) + 1 for letter in letters) / len(letters)
    assert Places().bits_per_base(texts) == pytest.approx(mean / math.log(2))
