"""Nets that carry a task head: bytes -> classes or values, per sequence or per base.

They save and load like `HyenaGLT`; how many labels there are, and what is averaged, stands in the configuration.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError
from hyena_glt.model.hyena_glt import HyenaGLT
from hyena_glt.model.outputs import HyenaGLTOutput
from hyena_glt.model.sources import Piece
from hyena_glt.model.task_heads import BaseLabelHead, SequenceClassificationHead, SequenceRegressionHead, TaskHead
from hyena_glt.model.weights import load_net, save_net


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskOutput:
    """What a net with a task head gives back."""

    logits: Tensor  # (batch, num_labels), or (batch, length, num_labels) per base; values where it is a regression
    net: HyenaGLTOutput
    loss: Tensor | None = None  # of the task, plus the weighted ratio loss where boundaries are learned


class TaskNet(nn.Module, ABC):
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

    @abstractmethod
    def make_head(self, config: HyenaGLTConfig) -> TaskHead:
        """The head of this task."""

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
        >>> import torch
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
