"""Words of comparisons against numpy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from hyena_glt.patching.word_bits import WORD, trailing_zeros, word_above, word_equal, word_of_nan, word_rising


@njit
def words_of_scores(scores, first, limit):
    return word_above(scores, first, limit), word_rising(scores, first, limit), word_of_nan(scores, first)


@njit
def word_of_kinds(kinds, first, kind):
    return word_equal(kinds, first, kind)


@njit
def zeros_below(word):
    return trailing_zeros(word)


def number(bits) -> int:
    return sum(1 << i for i, bit in enumerate(bits) if bit)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), first=st.integers(1, 9), limit=st.floats(-1, 1, width=32))
def test_words_are_the_comparisons_of_64_numbers(seed, first, limit):
    scores = np.random.default_rng(seed).normal(size=WORD + 10).astype(np.float32).round(1)
    scores[seed % scores.size] = np.nan
    here, before = scores[first : first + WORD], scores[first - 1 : first - 1 + WORD]
    expected = (here > np.float32(limit), here - before > np.float32(limit), np.isnan(here))
    assert words_of_scores(scores, first, np.float32(limit)) == tuple(map(number, expected))
    kinds = np.random.default_rng(seed).integers(0, 3, WORD + 10).astype(np.uint8)
    assert word_of_kinds(kinds, first, np.uint8(2)) == number(kinds[first : first + WORD] == 2)


@given(st.integers(0, 63), st.integers(0, 2**64 - 1))
def test_zeros_below_the_lowest_bit_are_counted(place, higher):
    word = (1 << place) | (higher << (place + 1)) & (2**64 - 1)
    assert zeros_below(np.uint64(word)) == place
