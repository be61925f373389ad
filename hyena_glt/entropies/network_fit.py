"""Training of a small network on random windows of sequences: the same seed gives the same weights on one machine.

AdamW with a linear warm-up and a cosine decay, gradients clipped. What is predicted after each token is given by
the caller: the next symbol, or any other label.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hyena_glt.checks import LARGEST_RATE
from hyena_glt.errors import ConfigError, DataError

IGNORED = -100  # a target that is not learned
DEFAULT_STEPS = 500
LOOK_EVERY = 10  # steps between two reports of the loss
WARM_UP = 0.05  # share of the training
LAST_RATE = 0.05  # of the learning rate, at the end

Progress = Callable[[float, float], None]
AfterStep = Callable[[int, Callable[[], dict[str, Tensor]]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions:
    """How long and how fast a network learns.

    Args:
        steps: Batches; None with `seconds` given trains until the time is over, None without it takes 500.
        seconds: Longest time. What it cuts off depends on the machine: give `steps` for results that repeat.
        batch_size: Windows in a batch.
        window: Tokens in a window.
        learning_rate: Highest one.
        weight_decay: AdamW's.
        clip_norm: Longest gradient.
        seed: Of weights and windows.
        device: "auto" (CUDA if there, else CPU), "cpu", "cuda", "cuda:1".

    Raises:
        ConfigError: A number out of range.
    """

    steps: int | None = None
    seconds: float | None = None
    batch_size: int = 8
    window: int = 1024
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "seconds", "batch_size", "window", "learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name}: expected a number above 0, got {value!r}")
        if max(self.learning_rate, self.weight_decay) > LARGEST_RATE:
            raise ConfigError(f"learning_rate, weight_decay: expected at most {LARGEST_RATE:g}")
        if self.weight_decay < 0 or self.seed < 0:
            raise ConfigError("weight_decay, seed: expected at least 0")

    @property
    def most_steps(self) -> int | None:
        """Batches at which training ends, if it does by count."""
        return DEFAULT_STEPS if self.steps is None and self.seconds is None else self.steps


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training has done."""

    losses: tuple[float, ...]  # nats per target, of each batch
    num_tokens: int  # in all batches
    elapsed_s: float

    @property
    def steps(self) -> int:
        """Batches."""
        return len(self.losses)


class LabelledSequences:
    """Sequences of tokens with a target after each, from which random windows are drawn.

    Args:
        tokens: `(length,)` integer ids of each sequence.
        targets: As many arrays of the same lengths; `IGNORED` where nothing is to be learned.

    Raises:
        DataError: No target in any of them.
    """

    def __init__(self, tokens: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]]) -> None:
        self._tokens = np.concatenate([np.zeros(0, np.int16), *tokens])
        self._targets = np.concatenate([np.zeros(0, np.int16), *targets])
        self._ends = np.cumsum([row.size for row in tokens])
        learned = np.concatenate([[False], self._targets != IGNORED, [False]])
        edges = np.flatnonzero(learned[1:] != learned[:-1])
        self._run_starts, run_ends = edges[::2], edges[1::2]
        self._learned_before = np.concatenate([[0], np.cumsum(run_ends - self._run_starts)])

    @property
    def num_targets(self) -> int:
        """Targets that are learned."""
        return int(self._learned_before[-1])

    def windows(self, generator: np.random.Generator, count: int, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Random windows, each around a target drawn evenly from all, inside one sequence.

        Returns:
            `(tokens, targets)`, both `(count, size)` int64; where a sequence is shorter, 0 and `IGNORED`.
        """
        chosen = generator.integers(self.num_targets, size=count)
        runs = np.searchsorted(self._learned_before, chosen, side="right") - 1
        places = self._run_starts[runs] + chosen - self._learned_before[runs]
        sequences = np.searchsorted(self._ends, places, side="right")
        ends = self._ends[sequences]
        starts = np.where(sequences > 0, self._ends[sequences - 1], 0)
        firsts = np.minimum(places - generator.integers(size, size=count), ends - size)
        index = np.maximum(firsts, starts)[:, None] + np.arange(size)
        inside = index < ends[:, None]
        index = np.minimum(index, ends[:, None] - 1)
        tokens = np.where(inside, self._tokens[index], 0).astype(np.int64)
        return tokens, np.where(inside, self._targets[index], IGNORED).astype(np.int64)


def next_symbols(codes: NDArray[np.uint8], letters: int) -> NDArray[np.int16]:
    """The code after each symbol, `(length,)`; `IGNORED` where that is no letter or there is none.

    Args:
        codes: `(length,)` uint8 codes of an alphabet.
        letters: Its size.
    """
    targets = np.full(codes.size, IGNORED, np.int16)
    targets[:-1] = np.where(codes[1:] < letters, codes[1:].astype(np.int16), IGNORED)
    return targets


def fit_network(
    make_network: Callable[[], nn.Module],
    data: LabelledSequences,
    options: FitOptions,
    *,
    first_token: int | None = None,
    progress: Progress | None = None,
    state: Mapping[str, Tensor] | None = None,
    after_step: AfterStep | None = None,
) -> tuple[nn.Module, FitResult]:
    """Train a network.

    Args:
        make_network: Builds it: `(rows, length)` int64 tokens to logits `(rows, length, outputs)`.
        data: What it learns.
        options: How long and how fast.
        first_token: Put in place of every window's first token, so that the network knows a beginning by it.
        progress: Called now and then with the share of the training that is done, in [0, 1], and the loss in nats.
        state: Of an interrupted training of the same network, data and options; the same weights follow as without
            the interruption, unless `options.seconds` is set.
        after_step: Called after each batch with their number and a function that gives the state; it may raise.

    Returns:
        The network in evaluation mode on the device it was trained on, and the losses. The global random state is
        left as it was.

    Raises:
        DataError: Nothing to learn.
        ConfigError: The loss is no number any more: the learning rate is too high.
    """
    if not data.num_targets:
        raise DataError("no target in the sequences to train on; they hold no letter of the alphabet, or one at most")
    device = training_device(options.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = make_network().to(device).train()
    generator = np.random.default_rng(options.seed)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=options.weight_decay
    )
    losses: list[Tensor] = []
    began = time.perf_counter()
    if state is not None:
        losses, elapsed = _restore(state, network, optimizer, generator)
        began -= elapsed
    while (done := _share_done(options, len(losses), time.perf_counter() - began)) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rate_at(done)
        tokens, targets = data.windows(generator, options.batch_size, options.window)
        if first_token is not None:
            tokens[:, 0] = first_token
        losses.append(_learn(network, optimizer, tokens, targets, options.clip_norm))
        if len(losses) % LOOK_EVERY == 0:
            _look(losses[-1], done, progress)
        if after_step is not None:
            after_step(len(losses), partial(_state, network, optimizer, generator, losses, began))
    if losses:
        _look(losses[-1], 1.0, progress)
    elapsed = time.perf_counter() - began
    result = FitResult(
        tuple(float(loss) for loss in losses), len(losses) * options.batch_size * options.window, elapsed
    )
    return network.eval(), result


def rate_at(done: float) -> float:
    """Share of the learning rate when that share of the training is done: up over `WARM_UP`, then down a cosine."""
    if done < WARM_UP:
        return (done + 0.1 * WARM_UP) / (1.1 * WARM_UP)
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))


def training_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA if there, else the CPU.

    Raises:
        ConfigError: No such kind of device.
        SystemProblem: CUDA is asked for and not there.
    """
    from hyena_glt.entropies.windows import network_device

    return network_device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name, None)


def _learn(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    tokens: NDArray[np.int64],
    targets: NDArray[np.int64],
    clip_norm: float,
) -> Tensor:
    device = next(network.parameters()).device
    logits = network(torch.from_numpy(tokens).to(device))
    labels = torch.from_numpy(targets).to(device)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    optimizer.step()
    return loss.detach()


def _state(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: np.random.Generator,
    losses: list[Tensor],
    began: float,
) -> dict[str, Tensor]:
    """Where a training stands, on the CPU."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in slots.items()}
    drawn = json.dumps(generator.bit_generator.state).encode()
    tensors |= {
        "losses": torch.stack(losses),
        "generator": torch.frombuffer(bytearray(drawn), dtype=torch.uint8),
        "elapsed_s": torch.tensor(time.perf_counter() - began, dtype=torch.float64),
    }
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _restore(
    state: Mapping[str, Tensor], network: nn.Module, optimizer: torch.optim.Optimizer, generator: np.random.Generator
) -> tuple[list[Tensor], float]:
    """Take up a training where `_state` has seen it: its losses so far, and its seconds."""
    network.load_state_dict({name.partition("/")[2]: t for name, t in state.items() if name.startswith("network/")})
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("optimizer/"):
            _, index, slot = name.split("/")
            slots.setdefault(int(index), {})[slot] = tensor.clone()
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.bit_generator.state = json.loads(state["generator"].numpy().tobytes())
    device = next(network.parameters()).device
    return list(state["losses"].to(device).unbind()), float(state["elapsed_s"])


def _share_done(options: FitOptions, steps: int, elapsed_s: float) -> float:
    shares = [0.0]
    if options.most_steps is not None:
        shares.append(steps / options.most_steps)
    if options.seconds is not None:
        shares.append(elapsed_s / options.seconds)
    return min(max(shares), 1.0)


def _look(loss: Tensor, done: float, progress: Progress | None) -> None:
    value = float(loss)
    if not math.isfinite(value):
        raise ConfigError(f"learning_rate: the loss became {value} in training; take a smaller one")
    if progress is not None:
        progress(done, value)
