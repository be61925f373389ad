"""A plain convolutional classifier of sequences, sized to a wanted number of weights: what a net has to beat.

One-hot bases -> (convolution, batch norm, ReLU, max-pool) x 2 -> convolution, ReLU -> largest value in each of
`BINS` parts of the sequence -> dropout -> linear. The parts keep the place of a motif, which promoters and splice sites
need. AdamW, warm-up and cosine, clipping and early stopping are those of `hyena_glt.training.finetune`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hyena_glt.training.schedule import rate_at, set_rate

KERNEL = 9  # bases of a filter
BINS = 8  # parts of the sequence whose largest values are kept
DROPOUT = 0.3
BATCH = 32
WARM_UP = 0.1  # share of the training in which the rate rises
CLIP = 1.0
PREDICTED = 512  # sequences of a forward without gradients
PROBE_BATCHES = 6
CHANNEL_OF = np.full(256, 4, dtype=np.int64)  # 4: no base, all channels 0
for _channel, _base in enumerate("ACGT"):
    CHANNEL_OF[[ord(_base), ord(_base.lower())]] = _channel

Whole = NDArray[np.int64]
Reals = NDArray[np.float64]


class BaselineCnn(nn.Module):
    """`(batch, 4, length)` one-hot bases -> `(batch, classes)` logits.

    Args:
        width: Channels of each convolution.
        num_classes: Logits.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(4, width, KERNEL, padding="same"),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(width, width, KERNEL, padding="same"),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(width, width, KERNEL, padding="same"),
            nn.ReLU(),
            nn.AdaptiveMaxPool1d(BINS),
        )
        self.answer = nn.Sequential(nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(width * BINS, num_classes))

    def forward(self, bases: Tensor) -> Tensor:
        """Logits of a batch."""
        return self.answer(self.features(bases))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CnnFit:
    """A trained classifier and what it took."""

    net: BaselineCnn  # with the weights of the best epoch
    num_weights: int
    epochs: int  # that were run
    best_epoch: int
    cpu_s: float


def one_hot(sequences: Sequence[bytes]) -> Tensor:
    """`(sequences, 4, longest)` float32; ambiguous bases and what follows the end of a sequence are 0."""
    longest = max(map(len, sequences))
    codes = np.full((len(sequences), longest), 4, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        codes[row, : len(sequence)] = CHANNEL_OF[np.frombuffer(sequence, np.uint8)]
    return torch.from_numpy(np.eye(5, 4, dtype=np.float32)[codes]).transpose(1, 2).contiguous()


def num_weights(net: nn.Module) -> int:
    """Numbers that a net learns."""
    return sum(weight.numel() for weight in net.parameters())


def width_for(wanted: int, num_classes: int) -> int:
    """The width whose number of weights comes nearest to a wanted one."""
    squares, others = 2 * KERNEL, 4 * KERNEL + BINS * num_classes + 7  # convolutions between; the rest of a channel
    guess = (-others + math.sqrt(others**2 + 4 * squares * max(wanted - num_classes, 0))) / (2 * squares)
    nearby = range(max(int(guess) - 1, 1), max(int(guess), 1) + 3)
    return min(nearby, key=lambda width: abs(num_weights(BaselineCnn(width, num_classes)) - wanted))


def planned_epochs(epoch_s: float, budget_s: float, most: int) -> int:
    """Whole epochs that fit into a budget of processor seconds; one at least, `most` at most."""
    return max(min(int(budget_s / max(epoch_s, 1e-9)), most), 1)


def fit_cnn(
    train: tuple[Sequence[bytes], Whole],
    valid: tuple[Sequence[bytes], Whole],
    *,
    num_classes: int,
    wanted_weights: int,
    budget_s: float,
    most_epochs: int,
    patience: int,
    learning_rate: float,
    weight_decay: float,
    augment_strands: bool,
    seed: int,
) -> CnnFit:
    """Train with early stopping on the loss of the validation part.

    Args:
        train: Sequences and labels `(sequences,)`.
        valid: Held out of the training; decides the epoch.
        num_classes: Labels are below it.
        wanted_weights: Size of the net, about.
        budget_s: Processor seconds; a short probe sets the number of epochs from it.
        most_epochs: Whatever the budget.
        patience: Epochs without a better loss that end the training.
        learning_rate, weight_decay: Of AdamW.
        augment_strands: Learn each sequence on a strand drawn anew each epoch.
        seed: Of weights, order, strands and dropout.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        width = width_for(wanted_weights, num_classes)
        rates = {"lr": learning_rate, "weight_decay": weight_decay}
        data = one_hot(train[0]), torch.from_numpy(np.asarray(train[1]))
        held_out = one_hot(valid[0]), torch.from_numpy(np.asarray(valid[1]))
        epochs = planned_epochs(_probe(width, num_classes, data, held_out, rates), budget_s, most_epochs)
        torch.manual_seed(seed)  # the probe has drawn
        net = BaselineCnn(width, num_classes)
        optimizer = torch.optim.AdamW(net.parameters(), **rates)
        draws = np.random.default_rng((seed, 7))
        began, step, total = time.process_time(), 0, epochs * math.ceil(len(data[0]) / BATCH)
        best = (0, math.inf, net.state_dict())
        epoch = 0
        for epoch in range(1, epochs + 1):
            net.train()
            order = torch.from_numpy(draws.permutation(len(data[0])))
            for rows in order.split(BATCH):
                set_rate(optimizer, learning_rate * rate_at(step / total, WARM_UP, 0.0))
                turned = torch.from_numpy(draws.random(len(rows)) < 0.5) if augment_strands else None
                _update(net, optimizer, data[0][rows], data[1][rows], turned)
                step += 1
            loss = float(nn.functional.cross_entropy(_logits(net, held_out[0]), held_out[1]))
            if loss < best[1]:
                best = (epoch, loss, {name: tensor.clone() for name, tensor in net.state_dict().items()})
            if epoch - best[0] >= patience:
                break
        net.load_state_dict(best[2])
    seconds = time.process_time() - began
    return CnnFit(net=net.eval(), num_weights=num_weights(net), epochs=epoch, best_epoch=best[0], cpu_s=seconds)


def cnn_probabilities(net: BaselineCnn, sequences: Sequence[bytes], *, both_strands: bool) -> Reals:
    """`(sequences, classes)` float64; averaged over the strands if asked for."""
    bases = one_hot(sequences)
    found = _logits(net, bases).double().softmax(-1)
    if both_strands:
        found = (found + _logits(net, bases.flip(1, 2)).double().softmax(-1)) / 2
    return found.numpy()


def _probe(
    width: int, num_classes: int, data: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], rates: dict[str, float]
) -> float:
    """Processor seconds of an epoch, from a few updates of a net that is thrown away."""
    net = BaselineCnn(width, num_classes).train()
    optimizer = torch.optim.AdamW(net.parameters(), **rates)
    rows = torch.arange(min(BATCH, len(data[0])))
    _update(net, optimizer, data[0][rows], data[1][rows], None)  # the first one is slow
    began = time.process_time()
    for _ in range(PROBE_BATCHES):
        _update(net, optimizer, data[0][rows], data[1][rows], None)
    learned = (time.process_time() - began) / PROBE_BATCHES * math.ceil(len(data[0]) / BATCH)
    began = time.process_time()
    asked = held_out[0][:PREDICTED]
    _logits(net, asked)
    return learned + (time.process_time() - began) * len(held_out[0]) / len(asked)


def _update(
    net: BaselineCnn, optimizer: torch.optim.Optimizer, bases: Tensor, labels: Tensor, turned: Tensor | None
) -> None:
    if turned is not None:  # channels are in the order ACGT, so turning them round is the complement
        bases = torch.where(turned[:, None, None], bases.flip(1, 2), bases)
    loss = nn.functional.cross_entropy(net(bases), labels)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    optimizer.step()


@torch.no_grad()
def _logits(net: BaselineCnn, bases: Tensor) -> Tensor:
    was_training = net.training
    net.eval()
    found = torch.cat([net(part) for part in bases.split(PREDICTED)])
    net.train(was_training)
    return found
