"""Heads for questions other than the next byte, and nets that carry one: states -> classes or values.

A sequence head averages byte or patch states, padding left out, and a base head answers at every byte. The nets
save and load like `HyenaGLT`; how many labels there are, and what is averaged, stands in the configuration.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model.hyena_glt import HyenaGLT
from hyena_glt.model.outputs import HyenaGLTOutput
from hyena_glt.model.sources import Piece
from hyena_glt.model.weights import load_net, save_net
from hyena_glt.tokens.byte_tokenizer import PAD_ID

IGNORED_LABEL = PAD_ID  # a class label that the loss leaves out


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


class SequenceClassificationHead(nn.Module):
    """One class per sequence.

    Args:
        dim: Width of the states.
        num_classes: Classes.
        class_weights: Weight of each class in the loss; None: equal.
    """

    class_weights: Tensor | None

    def __init__(self, dim: int, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.project = nn.Linear(dim, num_classes)
        self.register_buffer("class_weights", _weights(class_weights, num_classes), persistent=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """`(batch, num_classes)` logits from `(batch, length, dim)` states; `mask` is False in padding."""
        return self.project(masked_mean(self.norm(states), mask))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy in nats, weighted by class; 0 when every label is ignored.

        Args:
            logits: `(batch, num_classes)`.
            labels: `(batch,)` integers in [0, num_classes), -1 where there is none.

        Raises:
            DataError: Another shape or type, or a label out of range.
        """
        return class_loss(logits, labels, self.class_weights)


class SequenceRegressionHead(nn.Module):
    """Real numbers per sequence.

    Args:
        dim: Width of the states.
        num_targets: Numbers per sequence.
    """

    def __init__(self, dim: int, num_targets: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.project = nn.Linear(dim, num_targets)

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


class BaseLabelHead(nn.Module):
    """One class per base.

    Args:
        dim: Width of the byte states.
        num_classes: Classes.
        class_weights: Weight of each class in the loss; None: equal.
    """

    class_weights: Tensor | None

    def __init__(self, dim: int, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.project = nn.Linear(dim, num_classes)
        self.register_buffer("class_weights", _weights(class_weights, num_classes), persistent=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """`(batch, length, num_classes)` logits from `(batch, length, dim)` byte states; 0 in padding."""
        return self.project(self.norm(states)) * mask.unsqueeze(-1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy in nats over the labelled bases, weighted by class; 0 when there are none.

        Args:
            logits: `(batch, length, num_classes)`.
            labels: `(batch, length)` integers in [0, num_classes), -1 where there is none, padding included.

        Raises:
            DataError: Another shape or type, or a label out of range.
        """
        return class_loss(logits, labels, self.class_weights)


TaskHead = SequenceClassificationHead | SequenceRegressionHead | BaseLabelHead


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


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskOutput:
    """What a net with a task head gives back."""

    logits: Tensor  # (batch, num_labels), or (batch, length, num_labels) per base; values where it is a regression
    net: HyenaGLTOutput
    loss: Tensor | None = None  # of the task, plus the weighted ratio loss where boundaries are learned


class TaskNet(nn.Module):
    """A `HyenaGLT` with a head of its own; the byte head stays as it is and gets no gradient.

    What the task never reads is frozen (`requires_grad=False`): the byte head, and with `head_pooling="patches"`
    also the bridge and the local decoder. So every weight that wants a gradient gets one.

    Args:
        config: Of the net; `num_labels`, `head_pooling` and `class_weights` are the head's.
        external_patcher: As for `HyenaGLT`.
    """

    reads_patches = False

    def __init__(self, config: HyenaGLTConfig, external_patcher: Any | None = None) -> None:
        super().__init__()
        self.net = HyenaGLT(config, external_patcher)
        self.head = self.make_head(config)
        self._freeze_idle()

    @classmethod
    def from_net(cls, net: HyenaGLT, **changes: Any) -> Self:
        """Put a head on a trained net, whose weights are taken over, not copied.

        Args:
            net: A net of bytes.
            **changes: Fields of the configuration that concern the head: `num_labels`, ...

        Raises:
            ConfigError: A field that does not concern the head.
        """
        foreign = sorted(set(changes) - {"num_labels", "head_pooling", "class_weights"})
        if foreign:
            raise ConfigError(f"{foreign[0]}: expected num_labels, head_pooling or class_weights; the net is built")
        task_net = cls(net.config.copy(**changes), net.external_patcher)
        net.config, task_net.net = task_net.config, net
        task_net._freeze_idle()
        return task_net.to(net.device)

    @property
    def config(self) -> HyenaGLTConfig:
        """Of the net and its head."""
        return self.net.config

    @property
    def external_patcher(self) -> Any | None:
        """Of the net."""
        return self.net.external_patcher

    def make_head(self, config: HyenaGLTConfig) -> TaskHead:
        """The head of this task."""
        raise NotImplementedError

    def forward(
        self, tokens: Tensor, patch_lengths: Tensor | None = None, *, labels: Tensor | None = None, **options: Any
    ) -> TaskOutput:
        """Run net and head.

        Args:
            tokens: `(batch, length)` byte tokens, rows padded with -1 at the end.
            patch_lengths: As for `HyenaGLT.forward`.
            labels: As the head's `loss` takes them.
            **options: Of `HyenaGLT.forward`.
        """
        return self._answer(self.net(tokens, patch_lengths, **options), labels)

    def forward_with_patching(
        self, sequence: Piece | Sequence[Piece] | None = None, *, labels: Tensor | None = None, **options: Any
    ) -> TaskOutput:
        """As `HyenaGLT.forward_with_patching`, with the head."""
        return self._answer(self.net.forward_with_patching(sequence, **options), labels)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write configuration, weights and patcher, as `HyenaGLT.save_pretrained` does."""
        task_net: Any = self
        save_net(task_net, folder)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], external_patcher: Any | None = None) -> Self:
        """Read what `save_pretrained` of the same class wrote, in evaluation mode.

        Raises:
            ModelFileError: A file is missing or damaged, or holds another kind of net.
        """
        net_class: Any = cls
        return load_net(net_class, folder, external_patcher)

    def _answer(self, output: HyenaGLTOutput, labels: Tensor | None) -> TaskOutput:
        states, mask = output.byte_hidden_state, output.positions.mask
        if self._averages_patches:
            states, mask = output.last_hidden_state, output.positions.patch_mask
        logits = self.head(states.to(self.head.project.weight.dtype), mask)  # autocast ends with the net
        loss = None if labels is None else self.head.loss(logits, labels.to(logits.device))
        if loss is not None and output.ratio_loss is not None:
            loss = loss + self.config.ratio_loss_weight * output.ratio_loss
        return TaskOutput(logits=logits, net=output, loss=loss)

    @property
    def _averages_patches(self) -> bool:
        return self.reads_patches and self.config.head_pooling == "patches"

    def _freeze_idle(self) -> None:
        self.net.head.requires_grad_(False)
        if self._averages_patches:
            self.net.bridge.requires_grad_(False)
            self.net.local_decoder.requires_grad_(False)


def pooled_size(config: HyenaGLTConfig) -> int:
    """Width of what a sequence head averages."""
    return config.hidden_size if config.head_pooling == "patches" else config.local_hidden_size


class HyenaGLTForSequenceClassification(TaskNet):
    """One of `num_labels` classes per sequence: `logits` `(batch, num_labels)`, `labels` `(batch,)`, -1 for none.

    Example:
        >>> net = HyenaGLTForSequenceClassification(HyenaGLTConfig.preset("tiny", num_labels=3))
        >>> net(torch.tensor([[69, 71, 75]]), torch.tensor([[3]]), labels=torch.tensor([2])).logits.shape
        torch.Size([1, 3])
    """

    reads_patches = True

    def make_head(self, config: HyenaGLTConfig) -> TaskHead:
        """A `SequenceClassificationHead`."""
        return SequenceClassificationHead(pooled_size(config), config.num_labels, config.class_weights)


class HyenaGLTForSequenceRegression(TaskNet):
    """`num_labels` numbers per sequence: `logits` and `labels` `(batch, num_labels)`, NaN where there is no label."""

    reads_patches = True

    def make_head(self, config: HyenaGLTConfig) -> TaskHead:
        """A `SequenceRegressionHead`."""
        return SequenceRegressionHead(pooled_size(config), config.num_labels)


class HyenaGLTForBaseLabels(TaskNet):
    """One of `num_labels` classes per base: `logits` `(batch, length, num_labels)`, `labels` `(batch, length)`."""

    def make_head(self, config: HyenaGLTConfig) -> TaskHead:
        """A `BaseLabelHead`."""
        return BaseLabelHead(config.local_hidden_size, config.num_labels, config.class_weights)
