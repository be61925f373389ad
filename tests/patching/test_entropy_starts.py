from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.patching import (
    find_entropy_patch_start_ids,
    patch_start_mask_from_entropy_with_monotonicity,
    patch_start_mask_global_and_monotonicity,
)
from hyena_glt.patching.entropy_starts import entropy_start_mask, patch_start_mask_top_k


@st.composite
def entropies(draw, min_length=0):
    batch, length = draw(st.integers(1, 4)), draw(st.integers(min_length, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return torch.from_numpy((random.integers(0, 9, (batch, length)) / 8).astype(np.float32))


eighths = st.integers(-4, 8).map(lambda number: number / 8)


@given(entropies(1), eighths)
def test_a_rise_above_the_threshold_starts_a_patch(values, t):
    mask = patch_start_mask_from_entropy_with_monotonicity(values, t)
    for row, found in zip(values.tolist(), mask.tolist(), strict=True):
        assert found == [i == 0 or row[i] - row[i - 1] > t for i in range(len(row))]


@given(entropies(1), eighths, eighths)
def test_both_conditions_start_a_patch_but_never_in_column_one(values, t, t_add):
    mask = patch_start_mask_global_and_monotonicity(values, t, t_add)
    for row, found in zip(values.tolist(), mask.tolist(), strict=True):
        assert found == [i == 0 or (i > 1 and row[i] > t and row[i] - row[i - 1] > t_add) for i in range(len(row))]


def test_the_second_threshold_is_zero_by_default():
    values = torch.tensor([[0.0, 0.0, 2.0, 2.0, 3.0, 2.5]])
    mask = patch_start_mask_global_and_monotonicity(values, 1.0)
    assert mask.tolist() == [[True, False, True, False, True, False]]


def starts_by_definition(row, count):
    """Top-k: the highest entries, of equal ones the earlier."""
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    return sorted(order[:count])


@given(entropies(), st.data())
def test_top_k_takes_the_highest_and_of_equal_ones_the_earlier(values, data):
    budgets = [data.draw(st.integers(0, values.shape[1])) for _ in range(values.shape[0])]
    mask = patch_start_mask_top_k(values, torch.tensor(budgets))
    for row, budget, found in zip(values.tolist(), budgets, mask, strict=True):
        assert found.nonzero().flatten().tolist() == starts_by_definition(row, budget)


@given(entropies(), st.sampled_from([1, 2, 3, 4.5]), st.booleans())
def test_top_k_spends_the_budget_of_the_row(values, patch_size, include_next):
    ids = find_entropy_patch_start_ids(values, patch_size=patch_size, include_next_token=include_next)
    length = values.shape[1]
    for row, found in zip(values.tolist(), ids.tolist(), strict=True):
        budget = max(0, int(length // patch_size) - 2)
        chosen = [i + 2 for i in starts_by_definition(row[1:], budget)]
        width = length + include_next
        expected = [i for i in [0, 1, *chosen] if i < width]
        assert found == expected + [width] * (len(found) - len(expected))


@given(entropies(), eighths, st.booleans())
def test_ids_follow_entropies_above_the_threshold(values, threshold, include_next):
    ids = find_entropy_patch_start_ids(values, threshold=threshold, include_next_token=include_next)
    width = values.shape[1] + include_next
    for row, found in zip(values.tolist(), ids.tolist(), strict=True):
        starts = {0, 1} | {i + 1 for i in range(1, len(row)) if row[i] > threshold}
        expected = sorted(start for start in starts if start < width)
        assert found == expected + [width] * (len(found) - len(expected))


def test_monotonicity_rules_over_the_second_threshold():
    values = torch.rand(2, 30, generator=torch.Generator().manual_seed(1))
    both = find_entropy_patch_start_ids(values, threshold=0.2, threshold_add=0.5, monotonicity=True)
    assert torch.equal(both, find_entropy_patch_start_ids(values, threshold=0.2, monotonicity=True))


@given(entropies(), st.data())
def test_top_k_of_a_padded_row_ignores_the_padding(values, data):
    lengths = [data.draw(st.integers(0, values.shape[1])) for _ in range(values.shape[0])]
    mask = entropy_start_mask(values, 3, row_lengths=torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = entropy_start_mask(values[row : row + 1, :length], 3)
        assert torch.equal(mask[row, : length + 1], alone[0])


def test_half_and_double_precision_are_taken():
    values = torch.tensor([[0.0, 0.0, 2.0, 0.0]])
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        assert find_entropy_patch_start_ids(values.to(kind), threshold=1.0).tolist() == [[0, 1, 3]]


@pytest.mark.parametrize("values", [torch.tensor([0.5]), torch.tensor([[1, 2]]), torch.tensor([[0.0, float("nan")]])])
@pytest.mark.parametrize(
    "function",
    [
        lambda values: find_entropy_patch_start_ids(values, threshold=1.0),
        lambda values: patch_start_mask_from_entropy_with_monotonicity(values, 1.0),
        lambda values: patch_start_mask_global_and_monotonicity(values, 1.0),
        lambda values: patch_start_mask_top_k(values, torch.tensor([1])),
    ],
)
def test_other_shapes_integers_and_nan_are_refused(function, values):
    with pytest.raises(PatchingError, match="entropies: expected"):
        function(values)


@pytest.mark.parametrize("patch_size", [None, 0, -2])
def test_top_k_needs_a_patch_size(patch_size):
    with pytest.raises(PatchingError, match="patch_size"):
        find_entropy_patch_start_ids(torch.rand(1, 9), patch_size=patch_size)
