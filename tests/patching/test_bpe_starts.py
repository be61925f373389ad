from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.patching import Patcher, find_bpe_delim_patch_start_ids, find_bpe_patcher_patch_start_ids
from hyena_glt.patching.bpe_starts import predict_delimiters, predicted_delimiters
from hyena_glt.tokens import BPE_ID


@given(st.lists(st.integers(0, 5), max_size=40))
def test_patches_start_after_delimiters(tokens):
    ids = find_bpe_delim_patch_start_ids(torch.tensor([tokens], dtype=torch.int64), BPE_ID)
    after = {i + 1 for i in range(len(tokens) - 1) if tokens[i] == BPE_ID}
    expected = sorted(start for start in {0, 1} | after if start <= len(tokens))
    assert ids[0].tolist() == expected


def test_a_delimiter_at_the_start_is_no_second_start_of_token_one():
    assert find_bpe_delim_patch_start_ids(torch.tensor([[3, 3, 7, 8]]), 3).tolist() == [[0, 1, 2]]


def test_the_token_after_the_row_never_starts_a_patch():
    tokens = torch.tensor([[7, 8, 9, 3], [7, 3, -1, -1], [3, -1, -1, -1]])
    lengths, _ = Patcher(patching_mode="bpe").patch(tokens, include_next_token=True)
    assert lengths.tolist() == [[1, 4], [1, 2], [1, 1]]


class DelimiterAfter:
    """Predicts a delimiter after every token of one id; counts its windows."""

    def __init__(self, token):
        self.token, self.windows = token, []

    def __call__(self, window):
        self.windows.append(tuple(window.shape))
        logits = torch.zeros(*window.shape, 260)
        logits[..., BPE_ID] = torch.where(window == self.token, 1.0, -1.0)
        return SimpleNamespace(logits=logits)


def test_predicted_delimiters_start_patches():
    tokens = torch.tensor([[9, 9, 5, 9, 5, 6], [5, 5, 9, -1, -1, -1]])
    ids = find_bpe_patcher_patch_start_ids(tokens, DelimiterAfter(9), 2, include_next_token=False)
    assert ids.tolist() == [[0, 1, 2, 4], [0, 1, 3, 6]]
    lengths, scores = Patcher(patching_mode="bpe_patcher", entropy_model=DelimiterAfter(9)).patch(tokens)
    assert lengths.tolist() == [[1, 1, 2, 2], [1, 2, 0, 0]]
    assert scores is None


@given(st.integers(0, 40), st.integers(1, 3), st.integers(2, 9))
def test_windows_cover_each_token_once(length, batch, window):
    tokens = torch.arange(length).expand(batch, -1) % 7
    network = DelimiterAfter(3)
    found = predict_delimiters(tokens, network, 2, max_window=window)
    assert torch.equal(found, tokens == 3)
    assert all(columns <= window for _, columns in network.windows)


def test_windows_overlap_by_half():
    class SeesItsWindow:
        def __call__(self, window):
            logits = torch.zeros(*window.shape, 4)
            logits[:, 2:, BPE_ID] = 1.0  # a fresh start has no past for two tokens
            return logits

    found = predict_delimiters(torch.zeros(1, 30, dtype=torch.int64), SeesItsWindow(), 1, max_window=8)
    assert found[0].tolist() == [False] * 2 + [True] * 28


def test_predictions_may_be_logits_or_decisions():
    logits = torch.zeros(1, 3, 5)
    logits[0, 1, BPE_ID] = 2.0
    expected = [[False, True, False]]
    assert predicted_delimiters(logits).tolist() == expected
    assert predicted_delimiters(torch.tensor([[0, 1, 0]])).tolist() == expected
    assert predicted_delimiters(torch.tensor(expected)).tolist() == expected
    for wrong in (torch.zeros(1, 3), torch.zeros(1, 3, 5, dtype=torch.int64)):
        with pytest.raises(PatchingError, match="preds: expected logits"):
            predicted_delimiters(wrong)


def test_a_network_that_gives_no_logits_is_refused():
    with pytest.raises(PatchingError, match="bpe_patcher: expected logits"):
        find_bpe_patcher_patch_start_ids(torch.zeros(1, 4, dtype=torch.int64), lambda tokens: tokens, 1)


def test_without_predictions_the_mode_says_what_it_needs():
    with pytest.raises(PatchingError, match="pass preds, or a callable"):
        Patcher(patching_mode="bpe_patcher").patch(torch.tensor([[5, 6]]))


def test_predictions_fit_the_tokens():
    with pytest.raises(PatchingError, match="preds: expected \\(batch, length\\)"):
        Patcher(patching_mode="bpe_patcher").patch(torch.tensor([[5, 6]]), preds=torch.tensor([[True]]))
