"""Heads for sequences and bases: shapes, losses, padding."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model import BaseLabelHead, SequenceClassificationHead, SequenceRegressionHead
from hyena_glt.model.task_heads import ClassHead, TaskHead, class_loss, masked_mean


def test_the_mean_leaves_padding_out():
    states, mask = torch.randn(2, 4, 3), torch.tensor([[True] * 4, [True, False, False, False]])
    torch.testing.assert_close(masked_mean(states, mask)[0], states[0].mean(0))
    torch.testing.assert_close(masked_mean(states, mask)[1], states[1, 0])
    assert not masked_mean(states, torch.zeros(2, 4, dtype=torch.bool)).any()


@pytest.mark.parametrize("head", [SequenceClassificationHead(6, 3), SequenceRegressionHead(6, 3), BaseLabelHead(6, 3)])
def test_padding_changes_no_answer(head):
    states, mask = torch.randn(2, 5, 6), torch.tensor([[True] * 5, [True, True, False, False, False]])
    padded = torch.cat([states, torch.randn(2, 4, 6)], dim=1)
    longer = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1)
    short, long = head(states, mask), head(padded, longer)
    torch.testing.assert_close(short, long if long.ndim == 2 else long[:, :5])
    alone = head(states[1:, :2], mask[1:, :2])
    torch.testing.assert_close(short[1:] if short.ndim == 2 else short[1:, :2], alone)
    if long.ndim == 3:
        assert not long[~longer].any()


def test_the_loss_of_classes_is_torchs_where_labels_are_there():
    logits, labels = torch.randn(4, 5, 3), torch.randint(-1, 3, (4, 5))
    weights = torch.tensor([1.0, 0.25, 2.0])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights, ignore_index=-1)
    torch.testing.assert_close(class_loss(logits, labels, weights), expected)
    head = BaseLabelHead(6, 3, weights.tolist())
    torch.testing.assert_close(head.loss(logits, labels), expected)
    assert class_loss(logits, torch.full((4, 5), -1)) == 0
    assert class_loss(torch.zeros(1, 3), torch.tensor([2])).item() == pytest.approx(math.log(3))
    assert class_loss(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([0.0, 1, 1])) == 0


def test_the_loss_of_values_leaves_nan_out():
    head, values = SequenceRegressionHead(6, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    labels = torch.tensor([[0.0, math.nan], [math.nan, 6.0]])
    loss = head.loss(values, labels)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 4) / 2)
    assert values.grad.tolist() == [[1.0, 0.0], [0.0, -2.0]]
    assert head.loss(values, torch.full((2, 2), math.nan)) == 0
    assert SequenceRegressionHead(6).loss(torch.zeros(3, 1), torch.ones(3)) == 1


def test_labels_that_do_not_fit_are_refused():
    classes, values = SequenceClassificationHead(6, 3), SequenceRegressionHead(6)
    wrong = [torch.tensor([0, 3]), torch.tensor([-2, 0]), torch.tensor([0.0, 1.0]), torch.tensor([0])]
    for labels in wrong:
        with pytest.raises(DataError, match="labels"):
            classes.loss(torch.zeros(2, 3), labels)
    for labels in (torch.tensor([1, 2]), torch.tensor([math.inf, 0.0]), torch.zeros(3)):
        with pytest.raises(DataError, match="labels"):
            values.loss(torch.zeros(2, 1), labels)
    for weights in ([1.0, 2.0], [1.0, 1.0, -1.0]):
        with pytest.raises(ConfigError, match="class_weights"):
            BaseLabelHead(6, 3, weights)


@pytest.mark.parametrize("unfinished", [TaskHead, ClassHead])
def test_a_head_without_answers_cannot_be_made(unfinished):
    with pytest.raises(TypeError, match="forward"):
        unfinished(6, 3)
