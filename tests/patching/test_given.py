"""What a caller hands in with the tokens: taken in any numeric form, refused where it does not belong to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.patching.given import given_logits, given_predictions, given_scores
from hyena_glt.patching.rows import read_rows
from hyena_glt.tokens.byte_tokenizer import BPE_ID


@given(st.lists(st.text("ACGT", max_size=6), min_size=1, max_size=4))
def test_scores_are_kept_in_rows_and_zero_in_padding(texts):
    rows = read_rows(texts)
    values = torch.rand(rows.tokens.shape, dtype=torch.float64) + 1
    scores = given_scores(values, rows)
    assert scores.dtype == torch.float32
    for row, text in enumerate(texts):
        assert torch.equal(scores[row, : len(text)], values[row, : len(text)].float())
        assert not scores[row, len(text) :].any()


@pytest.mark.parametrize("values", [[[0.5, 1.0, 1.5, 2.0]], np.array([[0.5, 1, 1.5, 2]], np.float16)])
def test_lists_and_arrays_count_as_tensors(values):
    assert given_scores(values, read_rows(["ACGT"])).tolist() == [[0.5, 1.0, 1.5, 2.0]]


def test_what_comes_with_a_gradient_is_cut_off_from_it():
    rows = read_rows(["ACGT"])
    assert not given_scores(torch.rand(1, 4, requires_grad=True), rows).requires_grad
    assert not given_logits(torch.rand(1, 4, 5, requires_grad=True), rows).requires_grad


def test_predictions_may_be_of_any_kind_that_names_delimiters():
    rows = read_rows(["ACGT"])
    expected = [[False, True, False, True]]
    assert given_predictions(torch.tensor(expected), rows).tolist() == expected
    assert given_predictions(torch.tensor(expected).int(), rows).tolist() == expected
    logits = torch.zeros(1, 4, BPE_ID + 2)
    logits[0, [1, 3], BPE_ID] = 1.0
    logits[0, [0, 2], BPE_ID + 1] = 1.0
    assert given_predictions(logits, rows).tolist() == expected


@pytest.mark.parametrize("values", [torch.ones(1, 4, dtype=torch.int64), torch.ones(4), torch.ones(1, 5), [[1, 2]]])
def test_scores_that_are_none_are_refused(values):
    with pytest.raises(PatchingError, match="entropies: expected"):
        given_scores(values, read_rows(["ACGT"]))


@pytest.mark.parametrize("values", [torch.ones(1, 4), torch.ones(1, 5, 3), torch.ones(1, 4, 3, dtype=torch.int64)])
def test_logits_that_are_none_are_refused(values):
    with pytest.raises(PatchingError, match="preds: expected"):
        given_logits(values, read_rows(["ACGT"]))
