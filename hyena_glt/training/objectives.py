"""A batch of windows -> what goes into the net, what it has to predict, and the loss of its predictions.

    next_byte     a causal net predicts every base but the first from those before it
    masked_byte   a net that sees both sides predicts the letters that were hidden

Losses are sums in nats, with the number of targets beside them, so that batches, accumulation and several processes
add up to the mean over all targets of an update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hyena_glt.model.heads import token_losses
from hyena_glt.model.masked_bytes import mask_bytes
from hyena_glt.tokens.byte_tokenizer import PAD_ID
from hyena_glt.training.windows import learned_targets

if TYPE_CHECKING:
    from hyena_glt.model import HyenaGLT
    from hyena_glt.training.loader import Batch
    from hyena_glt.training.recipe import ObjectiveSection

BITS_PER_NAT = 1.0 / math.log(2.0)
HELD_OUT = -1  # in place of the epoch: masks of held-out windows never change

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """One batch as the net sees it."""

    inputs: Tensor  # (batch, length) int64 byte tokens, PAD tails
    targets: Tensor  # (batch, length) int64 byte tokens, -1 where nothing is to be predicted
    patch_lengths: Tensor | None  # (batch, num_patches) int64; None: the net cuts
    known_starts: Tensor | None  # (batch, length) bool
    window_ids: tuple[int, ...]
    places: tuple[tuple[int, int, int], ...]  # contig, start, end of each window

    @property
    def num_targets(self) -> int:
        """Bases to predict."""
        return int((self.targets != PAD_ID).sum())

    @property
    def num_bases(self) -> int:
        """Bases of all windows."""
        return int((self.inputs != PAD_ID).sum())

    def without_targets(self) -> Task:
        """The same with nothing to predict."""
        return replace(self, targets=torch.full_like(self.targets, PAD_ID))

    def to(self, device: torch.device) -> Task:
        """The same on another device."""
        lengths, known = self.patch_lengths, self.known_starts
        return replace(
            self,
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            patch_lengths=None if lengths is None else lengths.to(device),
            known_starts=None if known is None else known.to(device),
        )


def make_task(batch: Batch, objective: ObjectiveSection, alphabet: str, seed: int, epoch: int | None = None) -> Task:
    """What a batch asks of the net.

    What is hidden depends on seed, epoch and window alone, so on neither batch size nor the number of processes.

    Args:
        batch: Of a loader.
        objective: What is predicted.
        alphabet: Ambiguity symbols and padding are never predicted.
        seed: Of the masks.
        epoch: In place of the batch's.
    """
    ids = tuple(batch.window_ids.tolist())
    if objective.kind == "masked_byte":
        at = batch.epoch if epoch is None else epoch
        inputs, targets = _masked(batch.tokens, objective.mask_rate, alphabet, [(seed, at + 1, id) for id in ids])
    else:
        inputs = batch.tokens
        targets = inputs.masked_fill(~learned_targets(inputs, alphabet), PAD_ID)
        targets[:, 0] = PAD_ID  # nothing stands before it
    return Task(
        inputs=inputs,
        targets=targets,
        patch_lengths=batch.patch_lengths,
        known_starts=batch.known_starts,
        window_ids=ids,
        places=tuple(map(tuple, batch.places.tolist())),
    )


def summed_loss(model: Callable[..., Any], net: HyenaGLT, task: Task) -> tuple[Tensor, Tensor]:
    """Run a batch.

    Args:
        model: The net, or what wraps it.
        net: The net itself: its vocabulary and its rules.
        task: On the net's device.

    Returns:
        Two scalars: the cross entropy of all targets together, in nats, and the same with the ratio loss of learned
        boundaries, weighted by the targets.
    """
    output = model(task.inputs, task.patch_lengths, task.known_starts, return_position_info=False)
    loss = target_losses(output.logits, net, task).sum()
    if output.ratio_loss is None:
        return loss.detach(), loss
    return loss.detach(), loss + net.config.ratio_loss_weight * task.num_targets * output.ratio_loss


def target_losses(logits: Tensor, net: HyenaGLT, task: Task) -> Tensor:
    """Cross entropy in nats, 0 where nothing is to be predicted.

    Returns:
        `(batch, length)`, or `(batch, length - 1)` of a causal net, whose first base has no prediction.
    """
    targets = net.vocabulary_ids(task.targets)
    if net.config.causal:
        targets, logits = targets[:, 1:], logits[:, :-1]
    return token_losses(logits, targets)


def summed_losses(model: Callable[..., Any], net: HyenaGLT, tasks: Iterable[Task], autocast: Autocast) -> Tensor:
    """Cross entropy and targets of many batches, without gradients or dropout: `(2,)` float64 on the net's device."""
    total = torch.zeros(2, dtype=torch.float64, device=net.device)
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            for task in tasks:
                here = task.to(net.device)
                with autocast():
                    loss, _ = summed_loss(model, net, here)
                total += torch.stack([loss.double(), total.new_tensor(float(here.num_targets))])
    finally:
        net.train(was_training)
    return total


def _masked(tokens: Tensor, rate: float, alphabet: str, keys: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Each row masked by draws of its own, without its padding: draws depend on the shape of what they are for."""
    inputs, labels = tokens.clone(), torch.full_like(tokens, PAD_ID)
    for row, key in enumerate(keys):
        length = int((tokens[row] != PAD_ID).sum())
        hidden, asked = mask_bytes(tokens[row : row + 1, :length], rate, row_generator(*key), alphabet)
        inputs[row, :length], labels[row, :length] = hidden[0], asked[0]
    return inputs, labels


def row_generator(*key: int) -> torch.Generator:
    """A generator on the CPU whose draws depend on these whole numbers >= 0 alone."""
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)
