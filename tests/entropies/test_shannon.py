"""Entropy of logits against its definition, and windows that never reset inside a row."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies.shannon import calculate_entropies, entropy, entropy_reference
from hyena_glt.errors import PatchingError


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(0, 700), st.sampled_from([1, 4, 260]), st.integers(0, 2**31))
def test_entropies_are_those_of_the_definition(batch, length, vocab, seed):
    scores = torch.randn(batch, length, vocab, generator=torch.Generator().manual_seed(seed)) * 5
    torch.testing.assert_close(entropy(scores), entropy_reference(scores.double()).float(), rtol=0, atol=2e-6)
    assert torch.equal(entropy(scores.requires_grad_()), entropy_reference(scores))  # with a graph, to the bit


def test_known_distributions_have_their_entropy():
    even = torch.zeros(1, 1, 8)
    assert entropy(even).item() == pytest.approx(math.log(8))
    certain = torch.tensor([[[0.0, -1e4, -1e4]]])
    assert entropy(certain).item() == 0.0


def test_half_precision_is_summed_in_float32():
    scores = torch.randn(2, 5, 260, generator=torch.Generator().manual_seed(0)).half()
    assert entropy(scores).dtype == torch.float32
    torch.testing.assert_close(entropy(scores), entropy_reference(scores.float()), rtol=0, atol=2e-6)


def test_integer_logits_are_refused():
    with pytest.raises(PatchingError, match="floating-point logits"):
        entropy(torch.zeros(2, 3, 4, dtype=torch.int64))


def counting_model(tokens: torch.Tensor) -> torch.Tensor:
    """A causal model whose entropy tells how much past it saw: logit 0 grows with the number of tokens before."""
    logits = torch.zeros(*tokens.shape, 4)
    logits[..., 0] = torch.arange(tokens.shape[1]) * 0.01
    return logits


def last_four_model(tokens: torch.Tensor) -> torch.Tensor:
    """A causal model that looks at four tokens only."""
    table = torch.randn(260, 7, generator=torch.Generator().manual_seed(1))
    own = table[tokens]
    logits = own.clone()
    for lag in (1, 2, 3):
        logits[:, lag:] += own[:, :-lag] * (0.5**lag)
    return logits


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=4), st.integers(8, 40), st.integers(1, 5))
def test_windows_equal_the_whole_row_for_a_model_of_short_memory(lengths, max_length, batch):
    width = max(lengths)
    tokens = torch.randint(0, 260, (len(lengths), width), generator=torch.Generator().manual_seed(width))
    for row, length in enumerate(lengths):
        tokens[row, length:] = -1
    windowed = calculate_entropies(tokens, last_four_model, batch, max_length=max_length)
    whole = calculate_entropies(tokens, last_four_model, batch, max_length=10_000)
    assert torch.allclose(windowed, whole, atol=1e-6)
    assert (windowed[tokens == -1] == 0).all()


def test_no_token_but_the_first_is_predicted_from_a_fresh_start():
    tokens = torch.zeros(1, 100, dtype=torch.int64)
    values = calculate_entropies(tokens, counting_model, 1, max_length=20)
    fresh = entropy(counting_model(tokens[:, :10]))[0]
    assert (values[0, 10:] < fresh[-1]).all()


def test_rows_never_influence_each_other():
    tokens = torch.randint(0, 260, (3, 50), generator=torch.Generator().manual_seed(0))
    together = calculate_entropies(tokens, last_four_model, 2, max_length=16)
    for row in range(3):
        alone = calculate_entropies(tokens[row : row + 1], last_four_model, 2, max_length=16)
        assert torch.allclose(together[row], alone[0], atol=1e-6)


def test_faults_of_the_model_are_named():
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(PatchingError, match="got NaN"):
        calculate_entropies(tokens, lambda t: torch.full((*t.shape, 4), float("nan")), 1)
    with pytest.raises(PatchingError, match=r"expected \(\*\(1, 4\), vocab\)"):
        calculate_entropies(tokens, lambda t: torch.zeros(1, 3, 4), 1)
    with pytest.raises(PatchingError, match="patching_batch_size"):
        calculate_entropies(tokens, last_four_model, 0)
    with pytest.raises(PatchingError, match="expected integers"):
        calculate_entropies(torch.zeros(4), last_four_model, 1)


def test_gradients_reach_the_model_when_asked():
    weight = torch.nn.Parameter(torch.randn(260, 5))
    tokens = torch.randint(0, 260, (1, 6))
    calculate_entropies(tokens, lambda t: weight[t], 1, enable_grad=True).sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_a_logit_of_minus_infinity_adds_nothing():
    scores = torch.tensor([[0.0, 0.0, float("-inf")], [1.0, 2.0, 3.0]])
    values = entropy(scores)
    assert values[0].item() == pytest.approx(math.log(2))
    torch.testing.assert_close(values[1], entropy_reference(scores[1:])[0], rtol=0, atol=2e-6)
    assert bool(entropy(torch.tensor([[0.0, float("nan")]])).isnan().all())
