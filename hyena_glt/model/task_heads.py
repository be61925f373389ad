"""Heads for questions other than the next byte: states -> classes or values, per sequence or per base.

A sequence head averages byte or patch states, padding left out; a base head answers at every byte.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.tokens.byte_tokenizer import PAD_ID

IGNORED_LABEL = PAD_ID  # a class label that the loss leaves out


class TaskHead(nn.Module, ABC):
    """Norm and projection of states, which every head has.

    Args:
        dim: Width of the states.
        num_outputs: Classes, or numbers per sequence.
    """

    def __init__(self, dim: int, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.project = nn.Linear(dim, num_outputs)

    @abstractmethod
    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Answers from `(batch, length, dim)` states; `mask` `(batch, length)` bool is False in padding."""

    @abstractmethod
    def loss(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of what `forward` gave; 0 when there are no labels."""


class ClassHead(TaskHead, ABC):
    """A head that answers with classes.

    Args:
        dim: Width of the states.
        num_classes: Classes.
        class_weights: Weight of each class in the loss; None: equal.

    Raises:
        ConfigError: Another number of weights than classes, or one below 0.
    """

    class_weights: Tensor | None

    def __init__(self, dim: int, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__(dim, num_classes)
        self.register_buffer("class_weights", _weights(class_weights, num_classes), persistent=False)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy in nats, weighted by class; 0 when every label is ignored.

        Args:
            logits: `(..., num_classes)`, as `forward` gives them.
            labels: `(...)` integers in [0, num_classes), -1 where there is none, padding included.

        Raises:
            DataError: Another shape or type, or a label out of range.
        """
        return class_loss(logits, labels, self.class_weights)


class SequenceClassificationHead(ClassHead):
    """One class per sequence; arguments and loss of `ClassHead`, with `labels` `(batch,)`."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """`(batch, num_classes)` logits from `(batch, length, dim)` states; `mask` is False in padding."""
        return self.project(masked_mean(self.norm(states), mask))


class BaseLabelHead(ClassHead):
    """One class per base; arguments and loss of `ClassHead`, with `labels` `(batch, length)`."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """`(batch, length, num_classes)` logits from `(batch, length, dim)` byte states; 0 in padding."""
        return self.project(self.norm(states)) * mask.unsqueeze(-1)


class SequenceRegressionHead(TaskHead):
    """Real numbers per sequence.

    Args:
        dim: Width of the states.
        num_targets: Numbers per sequence.
    """

    def __init__(self, dim: int, num_targets: int = 1) -> None:
        super().__init__(dim, num_targets)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """`(batch, num_targets)` from `(batch, length, dim)` states; `mask` is False in padding."""
        return self.project(masked_mean(self.norm(states), mask))

    def loss(self, values: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error over the labels that are there; 0 when there are none.

        Args:
            values: `(batch, num_targets)`.
            labels: The same shape, or `(batch,)` for one target; floating point, NaN where there is none.

        Raises:
            DataError: Another shape or type, or an infinite label.
        """
        labels = labels.unsqueeze(-1) if labels.ndim == 1 else labels
        if labels.shape != values.shape or not labels.is_floating_point():
            got = f"{labels.dtype} {tuple(labels.shape)}"
            raise DataError(f"labels: expected floating point {tuple(values.shape)}, got {got}")
        if bool(labels.isinf().any()):
            raise DataError("labels: expected finite numbers, or NaN where there is none, got infinity")
        missing = labels.isnan()
        errors = (values.float() - labels.float().masked_fill(missing, 0)).square().masked_fill(missing, 0)
        return errors.sum() / (~missing).sum().clamp_min(1)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the length, padding left out.

    Args:
        states: `(batch, length, dim)`.
        mask: `(batch, length)` bool, False in padding.

    Returns:
        `(batch, dim)`; 0 for a row without tokens.
    """
    kept = states * mask.unsqueeze(-1)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)


def class_loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Weighted mean of the cross entropies in nats: sum of w_label * loss over sum of w_label; 0 without labels.

    Args:
        logits: `(..., num_classes)`.
        labels: `(...)` integers in [0, num_classes), -1 where there is none.
        class_weights: `(num_classes,)`, or None for equal ones.

    Raises:
        DataError: Another shape or type, or a label out of range.
    """
    num_classes = logits.shape[-1]
    if labels.shape != logits.shape[:-1] or labels.is_floating_point() or labels.dtype is torch.bool:
        got = f"{labels.dtype} {tuple(labels.shape)}"
        raise DataError(f"labels: expected integers {tuple(logits.shape[:-1])}, got {got}")
    flat = labels.long().flatten()
    if flat.numel() and (int(flat.min()) < IGNORED_LABEL or int(flat.max()) >= num_classes):
        raise DataError(f"labels: expected -1 to {num_classes - 1}, got {int(flat.min())} to {int(flat.max())}")
    real = flat != IGNORED_LABEL
    scores = logits.float().flatten(0, -2)
    weights = scores.new_ones(num_classes) if class_weights is None else class_weights.to(scores)
    losses = F.cross_entropy(scores, flat, weight=weights, ignore_index=IGNORED_LABEL, reduction="none")
    total = (weights[flat.clamp_min(0)] * real).sum()
    return losses.sum() / torch.where(total > 0, total, 1.0)


def _weights(class_weights: Sequence[float] | None, num_classes: int) -> Tensor | None:
    if class_weights is None:
        return None
    if len(class_weights) != num_classes or min(class_weights) < 0:
        raise ConfigError(f"class_weights: expected {num_classes} numbers >= 0, got {list(class_weights)}")
    return torch.tensor(class_weights, dtype=torch.float32)
