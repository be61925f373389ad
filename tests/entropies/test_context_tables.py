"""Context tables against dictionaries that count and interpolate as the text book says."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies import context_tables as tables

LETTERS, BITS = 4, 2
sequences = st.lists(st.integers(0, 4), min_size=0, max_size=60).map(lambda codes: np.array(codes, np.uint8))


def counted(sequence: np.ndarray, order: int) -> Counter[tuple[int, ...]]:
    """(context..., symbol) -> occurrences, at the longest context known since the last ambiguity symbol (code 4)."""
    found: Counter[tuple[int, ...]] = Counter()
    context: list[int] = []
    for symbol in sequence.tolist():
        if symbol >= LETTERS:
            context = []
            continue
        found[(*context, symbol)] += 1
        context = [*context, symbol][-order:] if order else []
    return found


def cell(word: tuple[int, ...]) -> int:
    """Place of a word (context and symbol) in the flat table."""
    number = 0
    for symbol in word:
        number = number << BITS | symbol
    return (tables.context_offset(len(word) - 1, BITS) << BITS) + number


def table_counts(blocks: list[np.ndarray], order: int) -> np.ndarray:
    low, high = (tables.empty_counts(order, BITS, dtype) for dtype in (np.uint8, np.uint32))
    state, offsets = tables.new_state(), tables.context_offsets(order, BITS)
    for block in blocks:
        tables.count_symbols(block, LETTERS, BITS, order, offsets, state, low, high)
    return tables.joined_counts(low, high)


@settings(max_examples=60, deadline=None)
@given(sequences, st.integers(0, 4))
def test_counts_equal_a_dictionary(sequence, order):
    counts = table_counts([sequence], order)
    expected = counted(sequence, order)
    assert counts.sum() == sum(expected.values())
    assert all(counts[cell(word)] == n for word, n in expected.items())


@settings(max_examples=60, deadline=None)
@given(sequences, st.integers(0, 4), st.lists(st.integers(0, 60), max_size=4))
def test_blocks_of_any_size_count_the_same(sequence, order, cuts):
    pieces = np.split(sequence, sorted(min(cut, sequence.size) for cut in cuts))
    assert np.array_equal(table_counts(pieces, order), table_counts([sequence], order))


def test_counts_go_beyond_sixteen_bits():
    counts = table_counts([np.zeros(200_000, np.uint8)], 2)
    assert counts[cell((0, 0, 0))] == 199_998
    assert counts.sum() == 200_000


@settings(max_examples=40, deadline=None)
@given(sequences, st.integers(0, 3))
def test_pooling_adds_the_reverse_complement_of_every_word(sequence, order):
    counts = table_counts([sequence], order)
    pooled = tables.pool_strands(counts, order)
    for word, n in counted(sequence, order).items():
        partner = tuple(3 - symbol for symbol in reversed(word))
        assert pooled[cell(word)] == n + counts[cell(partner)]
        assert pooled[cell(word)] == pooled[cell(partner)]


@settings(max_examples=40, deadline=None)
@given(sequences, st.integers(1, 4))
def test_shorter_contexts_have_all_their_occurrences(sequence, order):
    counts = table_counts([sequence], order)
    tables.sum_shorter_contexts(counts, order, BITS)
    for j in range(order + 1):
        expected: Counter[tuple[int, ...]] = Counter()
        for word, n in counted(sequence, order).items():
            if len(word) > j:
                expected[word[-(j + 1) :]] += n
        block = tables.order_block(counts, j, BITS)
        assert block.sum() == sum(expected.values())
        assert all(counts[cell(word)] == n for word, n in expected.items())


def test_back_off_interpolates_with_the_shorter_context():
    counts = np.array([[3, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 5, 0, 0]], np.uint32)
    lower = np.array([[0.4, 0.3, 0.2, 0.1]])
    probabilities = np.empty((4, 4))
    tables.backed_off(counts, lower, 2.0, 0.0, probabilities)
    assert probabilities[0] == pytest.approx([3.8 / 6, 0.6 / 6, 0.4 / 6, 1.2 / 6])
    assert probabilities[1] == pytest.approx(lower[0])
    assert probabilities.sum(axis=1) == pytest.approx(1.0)


def test_leave_one_out_predicts_each_occurrence_from_the_others():
    counts = np.array([[3, 0, 0, 1]], np.uint32)
    lower = np.full((1, 4), 0.25)
    loss, occurrences = tables.leave_one_out_loss(counts, lower, 2.0)
    assert occurrences == 4
    assert loss == pytest.approx(-3 * math.log((2 + 0.5) / 5) - math.log((0 + 0.5) / 5))
