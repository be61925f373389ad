"""Losses in nats."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt.model.heads import ByteHead, mean_loss, token_losses


def test_losses_are_negative_log_probabilities_in_nats():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[0, 4, 2], [1, -1, -1]])
    losses = token_losses(logits, targets)
    probabilities = logits.softmax(-1)
    assert losses[0, 1].item() == pytest.approx(-math.log(probabilities[0, 1, 4]), rel=1e-5)
    assert losses[1].tolist()[1:] == [0.0, 0.0]
    real = targets >= 0
    assert mean_loss(logits, targets).item() == pytest.approx(losses[real].mean().item(), rel=1e-6)


def test_uniform_logits_cost_the_log_of_the_vocabulary():
    assert mean_loss(torch.zeros(1, 4, 260), torch.ones(1, 4, dtype=torch.int64)).item() == pytest.approx(math.log(260))


@pytest.mark.parametrize("shape", [(1, 0), (0, 3), (1, 2)])
def test_no_target_costs_nothing(shape):
    assert mean_loss(torch.randn(*shape, 5), torch.full(shape, -1)).item() == 0.0


def test_half_precision_logits_are_scored_in_float32():
    assert token_losses(torch.randn(1, 2, 5).bfloat16(), torch.tensor([[1, 2]])).dtype is torch.float32


def test_the_head_gives_one_logit_per_id():
    assert ByteHead(8, 9)(torch.randn(2, 3, 8)).shape == (2, 3, 9)
