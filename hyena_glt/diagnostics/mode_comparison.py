"""Byte mode against patches on given sequence: forward, training step, memory, bits per base.

windows -> every way to cut, in turn -> medians -> ModeRow
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from hyena_glt.diagnostics.cost import Cost, available_bytes, measured
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model import HyenaGLT, HyenaGLTOutput, LearnedPatcher
from hyena_glt.model.heads import token_losses
from hyena_glt.model.inputs import PatchedTokens
from hyena_glt.model.sources import encode_rows, patch_rows
from hyena_glt.tokens.byte_tokenizer import PAD_ID
from hyena_glt.training.windows import learned_targets

Task = Literal["forward", "training step"]
TASKS: tuple[Task, ...] = ("forward", "training step")
TRIAL_TOKENS = 1024  # of the short run that warms up and tells what a long one will take
LEARNING_RATE = 1e-4
REPEAT_LIMIT_S = 20.0  # a run above this is not repeated


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to cut sequence for the net."""

    name: str
    patcher: Any | None  # None: byte mode, every token a patch
    wanted_length: float | None = None  # bases per patch that it was calibrated to

    @property
    def is_byte(self) -> bool:
        """Whether every token is a patch."""
        return self.patcher is None

    def run(self, net: HyenaGLT, tokens: Tensor, **options: Any) -> HyenaGLTOutput:
        """Cut and run `(batch, length)` tokens without padding."""
        if isinstance(self.patcher, LearnedPatcher):
            return net(tokens, return_position_info=False, **options)
        if self.is_byte:
            patched = PatchedTokens(tokens=tokens, patch_lengths=torch.ones_like(tokens))
        else:
            patched = patch_rows(self.patcher, tokens)
        return net(patched.tokens, patched.patch_lengths, patched.known_starts, return_position_info=False, **options)


@dataclass(frozen=True, slots=True)
class ModeRow:
    """One mode at one length: medians over the repeats."""

    task: Task
    length: int  # bases of a run
    mode: str
    wanted_length: float | None
    mean_patch_length: float | None = None  # as it came out
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_bytes: int | None = None  # above what the process held before, in the fullest run
    bases_per_s: float | None = None  # by wall seconds
    repeats: int = 0
    left_out: str | None = None  # why there are no figures

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is left out."""

    longest_s: float = 60.0  # a run that is expected to take longer
    memory_bytes: int | None = None  # one that is expected to need more; None: what is free


def compare_modes(
    net: HyenaGLT,
    modes: Sequence[Mode],
    windows: Mapping[int, bytes],
    *,
    repeats: int = 3,
    tasks: Sequence[Task] = TASKS,
    limits: Limits | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> list[ModeRow]:
    """Time every mode on the same sequence: one run of each in turn, again and again.

    Cutting is part of every run. A training step is forward, backward and AdamW on a copy of the net, whose weights
    stay as they are. The first run at a length also makes the filters of that length, which the median leaves out from
    three repeats on.

    Args:
        net: The net.
        modes: Byte mode among them.
        windows: Length -> one sequence of so many bases.
        repeats: Runs of each mode, task and length; at least 1.
        tasks: What is timed.
        limits: What is too much, judged by a run over 1,024 bases and by `estimate_memory`.
        progress: Told what runs next.

    Raises:
        ConfigError: Fewer than 1 repeat.
        DataError: No window, or one of another length than its key.
    """
    if repeats < 1:
        raise ConfigError(f"repeats: expected at least 1, got {repeats}")
    if not windows or any(len(window) != length for length, window in windows.items()):
        raise DataError("windows: expected at least one, each as long as its key says")
    limits = limits or Limits()
    rows = []
    for task in tasks:
        run = Training(net) if task == "training step" else Forward(net)
        progress(f"{task}, warm-up")
        trial = encode_rows([next(iter(windows.values()))[:TRIAL_TOKENS]])
        pace = {mode.name: _pace(run, mode, trial) for mode in modes}
        for length, window in sorted(windows.items()):
            tokens = encode_rows([window])
            reasons = {mode.name: _why_not(run, mode, length, pace[mode.name], limits) for mode in modes}
            able = [mode for mode in modes if reasons[mode.name] is None]
            found = _in_turn(run, able, tokens, repeats, partial(_tell, progress, f"{task}, {length:,} bases"))
            for mode in modes:
                blank = ModeRow(task, length, mode.name, mode.wanted_length, left_out=reasons[mode.name])
                rows.append(_row(blank, *found[mode.name]) if mode in able else blank)
    return rows


def _tell(progress: Callable[[str], None], work: str, mode: str) -> None:
    progress(f"{work}, {mode}")


class Forward:
    """The net without gradients."""

    is_training = False

    def __init__(self, net: HyenaGLT) -> None:
        self.net = net.eval()

    @torch.no_grad()
    def __call__(self, mode: Mode, tokens: Tensor) -> float:
        """Tokens per patch."""
        return mode.run(self.net, tokens).compression_ratio


class Training:
    """Forward, backward and optimizer on a copy of the net."""

    is_training = True

    def __init__(self, net: HyenaGLT) -> None:
        with torch.random.fork_rng(devices=[]):
            copy = HyenaGLT(net.config)
        copy.load_state_dict(net.state_dict())
        self.net = copy.to(net.device).train()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=LEARNING_RATE)

    def __call__(self, mode: Mode, tokens: Tensor) -> float:
        """Tokens per patch."""
        patcher = LearnedPatcher(self.net) if isinstance(mode.patcher, LearnedPatcher) else mode.patcher
        output = Mode(mode.name, patcher).run(self.net, tokens, labels=tokens)
        assert output.loss is not None
        output.loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return output.compression_ratio


def _pace(run: Forward | Training, mode: Mode, trial: Tensor) -> tuple[float, float]:
    """Seconds per token and tokens per patch of a short run, after another that warms up."""
    run(mode, trial)
    ratio, cost = measured(partial(run, mode, trial), run.net.device)
    return cost.wall_s / trial.numel(), ratio


def _why_not(run: Forward | Training, mode: Mode, length: int, pace: tuple[float, float], limits: Limits) -> str | None:
    """Why a run is too much; None where it is not."""
    expected_s = pace[0] * length
    if expected_s > limits.longest_s:
        return f"expected to take {expected_s:.0f} s, above --longest {limits.longest_s:g}"
    room = available_bytes(run.net.device) if limits.memory_bytes is None else limits.memory_bytes
    needed = run.net.estimate_memory(length, patch_length=max(pace[1], 1.0), training=run.is_training).peak_bytes
    if room is not None and needed > room:
        return f"expected to need {needed / 2**30:.1f} GiB of {room / 2**30:.1f} free"
    return None


def _in_turn(
    run: Forward | Training, modes: Sequence[Mode], tokens: Tensor, repeats: int, progress: Callable[[str], None]
) -> dict[str, tuple[float, list[Cost]]]:
    """Tokens per patch and the costs of each mode."""
    costs: dict[str, list[Cost]] = {mode.name: [] for mode in modes}
    ratios: dict[str, float] = {}
    for _ in range(repeats):
        for mode in modes:
            if costs[mode.name] and costs[mode.name][0].wall_s > REPEAT_LIMIT_S:
                continue
            progress(mode.name)
            ratios[mode.name], cost = measured(partial(run, mode, tokens), run.net.device)
            costs[mode.name].append(cost)
    return {name: (ratios[name], found) for name, found in costs.items()}


def _row(blank: ModeRow, ratio: float, costs: Sequence[Cost]) -> ModeRow:
    wall, cpu = (statistics.median(getattr(cost, part) for cost in costs) for part in ("wall_s", "cpu_s"))
    return ModeRow(
        task=blank.task,
        length=blank.length,
        mode=blank.mode,
        wanted_length=blank.wanted_length,
        mean_patch_length=ratio,
        wall_s=wall,
        cpu_s=cpu,
        peak_bytes=max(cost.peak_bytes for cost in costs),
        bases_per_s=blank.length / wall if wall else None,
        repeats=len(costs),
    )


@torch.no_grad()
def bits_per_base(net: HyenaGLT, mode: Mode, windows: Sequence[bytes], alphabet: str) -> float:
    """Mean of -log2 p over the called bases of windows that are read one by one, each from nothing.

    Args:
        net: Causal.
        mode: How they are cut.
        windows: Of at least 2 bases.
        alphabet: What counts as a called base.

    Raises:
        ConfigError: The net sees what it would predict.
        DataError: No called base to predict.
    """
    if not net.config.causal:
        raise ConfigError("bits per base: expected a causal net, got causal=False; it sees what it would predict")
    nats = bases = 0.0
    net.eval()
    for tokens in _each(windows, net.device):
        targets = tokens.masked_fill(~learned_targets(tokens, alphabet), PAD_ID)[:, 1:]
        logits = mode.run(net, tokens).logits[:, :-1]
        nats += float(token_losses(logits, net.vocabulary_ids(targets)).double().sum())
        bases += int((targets != PAD_ID).sum())
    if not bases:
        raise DataError("no called base to predict: the windows hold ambiguity symbols only")
    return nats / bases / math.log(2)


def _each(windows: Sequence[bytes], device: torch.device) -> Iterator[Tensor]:
    for window in windows:
        yield encode_rows([window]).to(device)
