"""A net and labelled sequences -> the net with a head that answers them: full, head only, or low-rank adapters.

    HyenaGLT -> task_net -> finetune (train, validate, keep the best) -> FinetunedNet

The same seed, data and number of threads give the same weights on one machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from hyena_glt.checks import build_config
from hyena_glt.config import HyenaGLTConfig, PositiveWhole, Real, Whole
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.task_nets import TaskNet
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.training.clipping import clip_by_global_norm
from hyena_glt.training.engine import Engine
from hyena_glt.training.finetuned import (
    NETS,
    AdapterOptions,
    CutRows,
    FinetunedNet,
    TaskOptions,
    cut_rows,
    other_strands,
)
from hyena_glt.training.labelled import IGNORED, LabelledSet, Task
from hyena_glt.training.low_rank import ADAPTERS, LowRankLinear, adapted_layers, add_adapters, merge_adapters
from hyena_glt.training.recipe import OptimizerSection, PositiveReal, Section, Share
from hyena_glt.training.schedule import make_optimizer, rate_at, set_rate
from hyena_glt.training.task_metrics import (
    CLASS_METRICS,
    VALUE_METRICS,
    Estimate,
    classification_estimates,
    is_better,
    regression_estimates,
)

Mode = Literal["full", "frozen", "lora"]
Log = Callable[[str, int, Mapping[str, Any], Mapping[str, float]], None]
DEFAULT_METRICS = {"classification": "loss", "regression": "mse", "per-base": "loss"}


class FinetuneOptions(Section):
    """How a net is fine-tuned."""

    mode: Mode = Field("full", description="all weights, the head only, or low-rank adapters and the head")
    epochs: PositiveWhole = Field(10, description="times that every sequence is learned from")
    batch_size: PositiveWhole = Field(32, description="sequences of an update")
    learning_rate: PositiveReal = Field(1e-3, description="highest learning rate")
    weight_decay: Annotated[Real, Field(ge=0)] = Field(0.01, description="of the matrices of linear layers, no others")
    clip_norm: PositiveReal = Field(1.0, description="longest gradient, all parameters together")
    warm_up: Share = Field(0.1, description="share of the training in which the rate rises")
    floor: Annotated[Real, Field(ge=0, le=1)] = Field(0.0, description="last rate, as a share of the highest")
    seed: Whole = Field(0, description="of every draw")
    augment_strands: bool = Field(False, description="learn each sequence on either strand, drawn anew each epoch")
    average_strands: bool = Field(False, description="average the answers for both strands, here and in the result")
    class_weights: Literal["balanced"] | tuple[Annotated[Real, Field(ge=0)], ...] | None = Field(
        None, description="weight of each class in the loss; balanced: the rarer, the heavier; None: equal"
    )
    pooling: Literal["bytes", "patches"] = Field("bytes", description="states that a head of sequences averages")
    metric: str | None = Field(None, description="whose best value on validation is kept; None: loss, mse")
    patience: PositiveWhole | None = Field(None, description="epochs without a better value that end it; None: never")
    adapters: str = Field(ADAPTERS, description="names of the layers that get adapters, as a file name pattern")
    rank: PositiveWhole = Field(8, description="of the adapters")
    alpha: PositiveReal = Field(16.0, description="weight of the adapters, before it is divided by the rank")
    merge: bool = Field(True, description="put the adapters into the weights at the end")

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if isinstance(self.class_weights, tuple) and not any(self.class_weights):
            raise ValueError("class_weights: expected a weight above 0")
        return self


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FinetuneResult:
    """What a fine-tuning gives."""

    tuned: FinetunedNet  # in evaluation mode, with the best weights
    steps: int
    epochs: int  # that were run
    best_epoch: int  # whose weights these are; the last where nothing was validated on
    metric: str
    best_value: float | None
    num_trained: int  # weights that were trained
    num_weights: int


def untrained_net(size: str, alphabet: str, patcher: Any | None, seed: int, **changes: Any) -> HyenaGLT:
    """A net with random weights that sees both sides, over the alphabet's own letters.

    Args:
        size: Of a preset.
        alphabet: Of the sequences.
        patcher: What cuts them.
        seed: Of the weights.
        **changes: Other fields of `HyenaGLTConfig`.

    Raises:
        ConfigError: Unknown size.
    """
    letters = get_alphabet(alphabet)
    vocabulary = {"causal": False, "genomic_vocab_size": letters.size, "alphabet": alphabet}
    config = HyenaGLTConfig.preset(size, **{**vocabulary, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HyenaGLT(config, patcher)


def task_net(base: HyenaGLT, train: LabelledSet, options: FinetuneOptions, alphabet: str = "dna") -> FinetunedNet:
    """Put the head of a task on a net, and choose what learns.

    Args:
        base: Taken over, not copied.
        train: Says the classes, their numbers, or the scale of the values.
        options: How it is fine-tuned; the seed draws the head and the adapters.
        alphabet: Of the sequences.

    Raises:
        ConfigError: Class weights that do not fit, no layer for adapters, or strands of an alphabet without another.
        DataError: The values of a regression are all the same.
    """
    if (options.augment_strands or options.average_strands) and not get_alphabet(alphabet).complements:
        raise ConfigError(f"strands: expected an alphabet with a complement (dna, rna), got {alphabet!r}")
    task = _task_options(train, options, alphabet)
    changes: dict[str, Any] = {"num_labels": max(len(train.classes), 1), "head_pooling": options.pooling}
    changes["class_weights"] = _class_weights(train, options)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        net = NETS[train.task].from_net(base, **changes)
        _choose_trained(net, options)
    return FinetunedNet(net, task)


def finetune(
    tuned: FinetunedNet,
    train: LabelledSet,
    valid: LabelledSet | None,
    options: FinetuneOptions,
    *,
    log: Log | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> FinetuneResult:
    """Train what `task_net` made; the net is changed in place.

    Args:
        tuned: The net.
        train: What is learned.
        valid: What decides which epoch is best and when to stop; None: the last epoch is kept.
        options: How.
        log: Told `(kind, step, values, timings)` after each epoch: kind "train" or "evaluation".
        progress: Told the share that is done, in [0, 1], and the loss, after each update.

    Raises:
        ConfigError: A metric that the task does not have, early stopping without validation, or a loss that is not
            finite.
    """
    metric = chosen_metric(options, train.task, is_validated=valid is not None)
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        return _Run(tuned, train, valid, options, metric, log, progress).finish()


def chosen_metric(options: FinetuneOptions, task: Task, *, is_validated: bool) -> str:
    """The metric whose best value is kept.

    Raises:
        ConfigError: One that the task does not have, or early stopping without validation.
    """
    metric = options.metric or DEFAULT_METRICS[task]
    allowed = VALUE_METRICS if task == "regression" else CLASS_METRICS
    if metric not in allowed:
        raise ConfigError(f"metric: expected one of {', '.join(allowed)} in a {task} task, got {metric!r}")
    if not is_validated and options.patience is not None:
        raise ConfigError("patience: expected sequences to validate on, got none")
    return metric


def task_estimates(
    tuned: FinetunedNet, labelled: LabelledSet, answers: list[NDArray[np.float64]], **options: Any
) -> dict[str, Estimate]:
    """Measures of predictions, with intervals; the labels of bases are resampled by sequence.

    Args:
        tuned: What predicted.
        labelled: The labels.
        answers: What `predict` gave for its sequences.
        **options: `resamples`, `seed`, `confidence`.
    """
    if tuned.task.kind == "regression":
        return regression_estimates(np.stack(labelled.labels), np.stack(answers), **options)
    if tuned.task.kind == "classification":
        return classification_estimates(np.stack(labelled.labels), np.stack(answers), **options)
    groups = np.repeat(np.arange(len(labelled)), [len(label) for label in labelled.labels])
    return classification_estimates(np.concatenate(labelled.labels), np.concatenate(answers), groups=groups, **options)


class _Run:
    """One fine-tuning."""

    def __init__(
        self,
        tuned: FinetunedNet,
        train: LabelledSet,
        valid: LabelledSet | None,
        options: FinetuneOptions,
        metric: str,
        log: Log | None,
        progress: Callable[[float, float], None] | None,
    ) -> None:
        self.tuned, self.train, self.valid, self.options, self.metric = tuned, train, valid, options, metric
        self.log, self.progress = log, progress
        self.net = tuned.net.train()
        self.engine = Engine(self.net.net.device)
        rates = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
        self.optimizer = make_optimizer(self.net, build_config(OptimizerSection, rates))
        sequences = train.rows.sequences
        self.strands = [cut_rows(self.net, sequences)]
        if options.augment_strands:
            self.strands.append(cut_rows(self.net, other_strands(sequences, tuned.task.alphabet)))
        self.valid_strands = None if valid is None else tuned.strands(valid.rows.sequences)
        self.total_steps = options.epochs * math.ceil(len(train) / options.batch_size)
        self.draws = np.random.default_rng((options.seed, 6))
        self.step = 0
        self.best: tuple[int, float | None, dict[str, Tensor]] | None = None

    def finish(self) -> FinetuneResult:
        """Run all epochs, or until none is better any more."""
        epoch = 0
        for epoch in range(1, self.options.epochs + 1):
            self._learn(epoch)
            if self.valid is not None and self._is_over(epoch):
                break
        best_epoch, value = epoch, None
        if self.best is not None:
            best_epoch, value, weights = self.best
            self.net.load_state_dict(weights, strict=False)
        trained = sum(weight.numel() for weight in self.net.parameters() if weight.requires_grad)
        every = sum(weight.numel() for weight in self.net.parameters())
        if self.options.mode == "lora" and self.options.merge:
            merge_adapters(self.net)
        self.net.eval()
        return FinetuneResult(
            tuned=self.tuned,
            steps=self.step,
            epochs=epoch,
            best_epoch=best_epoch,
            metric=self.metric,
            best_value=value,
            num_trained=trained,
            num_weights=every,
        )

    def _learn(self, epoch: int) -> None:
        """One epoch of updates."""
        began, losses = time.perf_counter(), []
        order = self.draws.permutation(len(self.train))
        is_other = self.draws.random(len(self.train)) < 0.5 if len(self.strands) == 2 else np.zeros(len(order), bool)
        for first in range(0, len(order), self.options.batch_size):
            rows = order[first : first + self.options.batch_size].tolist()
            losses.append(self._update(rows, is_other))
            if self.progress is not None:
                self.progress(self.step / self.total_steps, losses[-1])
        if self.log is not None:
            values = {"epoch": epoch, "loss": math.fsum(losses) / len(losses)}
            self.log("train", self.step, values, {"seconds": time.perf_counter() - began})

    def _update(self, rows: list[int], is_other: NDArray[np.bool_]) -> float:
        done = self.step / self.total_steps
        set_rate(self.optimizer, self.options.learning_rate * rate_at(done, self.options.warm_up, self.options.floor))
        tokens, lengths, known = self._batch(rows, is_other)
        labels = self._labels(rows, is_other)
        loss = self.net(tokens, lengths, known_starts=known, labels=labels, return_position_info=False).loss
        self.optimizer.zero_grad()
        loss.backward()
        learned = [weight for weight in self.net.parameters() if weight.requires_grad]
        norm = clip_by_global_norm(learned, self.options.clip_norm, self.engine)
        value = float(loss.detach())
        if not (math.isfinite(norm) and math.isfinite(value)):
            raise ConfigError(
                f"step {self.step + 1}: the loss or its gradient is not finite; take a smaller learning rate"
            )
        self.optimizer.step()
        self.step += 1
        return value

    def _batch(self, rows: list[int], is_other: NDArray[np.bool_]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        chosen = [self.strands[int(is_other[row])] for row in rows]
        lengths = [strand.patch_lengths[row] for strand, row in zip(chosen, rows, strict=True) if strand.patch_lengths]
        known = [strand.known_starts[row] for strand, row in zip(chosen, rows, strict=True) if strand.known_starts]
        batch = CutRows(
            tokens=[strand.tokens[row] for strand, row in zip(chosen, rows, strict=True)],
            patch_lengths=lengths if len(lengths) == len(rows) else None,
            known_starts=known if len(known) == len(rows) else None,
        )
        return batch.batch(range(len(rows)), self.engine.device)

    def _labels(self, rows: list[int], is_other: NDArray[np.bool_]) -> Tensor:
        labels, task = self.train.labels, self.tuned.task
        if task.kind == "regression":
            values = (np.stack([labels[row] for row in rows]) - task.mean) / task.deviation
            return torch.from_numpy(values).float().unsqueeze(1)
        if task.kind == "classification":
            return torch.from_numpy(np.stack([labels[row] for row in rows]))
        turned = [labels[row][::-1].copy() if is_other[row] else labels[row] for row in rows]
        return nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in turned], True, IGNORED)

    def _is_over(self, epoch: int) -> bool:
        """Validate, keep the weights if they are the best so far; whether patience has run out."""
        assert self.valid is not None
        assert self.valid_strands is not None
        began = time.perf_counter()
        answers = self.tuned.predict_rows(self.valid_strands)
        found = task_estimates(self.tuned, self.valid, answers, resamples=0)
        value = found[self.metric].value
        if self.best is None or is_better(self.metric, value, self.best[1]):
            learned = {name for name, weight in self.net.named_parameters() if weight.requires_grad}
            kept = {name: tensor.clone() for name, tensor in self.net.state_dict().items() if name in learned}
            self.best = (epoch, value, kept)
        if self.log is not None:
            values = {name: each.value for name, each in found.items() if each.value is not None}
            self.log("evaluation", self.step, {"epoch": epoch, **values}, {"seconds": time.perf_counter() - began})
        return self.options.patience is not None and epoch - self.best[0] >= self.options.patience


def _task_options(train: LabelledSet, options: FinetuneOptions, alphabet: str) -> TaskOptions:
    adapters = None
    if options.mode == "lora" and not options.merge:
        adapters = AdapterOptions(pattern=options.adapters, rank=options.rank, alpha=options.alpha)
    mean, deviation = 0.0, 1.0
    if train.task == "regression":
        values = np.stack(train.labels)
        mean, deviation = float(values.mean()), float(values.std())
        if not deviation > 0 or not math.isfinite(deviation):
            raise DataError("label: expected values that differ, by no more than floats hold", path=train.rows.path)
    return TaskOptions(
        kind=train.task,
        alphabet=alphabet,
        classes=train.classes,
        mean=mean,
        deviation=deviation,
        average_strands=options.average_strands,
        adapters=adapters,
    )


def _class_weights(train: LabelledSet, options: FinetuneOptions) -> tuple[float, ...] | None:
    given = options.class_weights
    if given is None:
        return None
    if train.task == "regression":
        raise ConfigError("class_weights: expected none in a regression")
    if given != "balanced":
        if len(given) != len(train.classes):
            raise ConfigError(f"class_weights: expected {len(train.classes)} weights, got {len(given)}")
        return given
    labels = np.concatenate([np.atleast_1d(label) for label in train.labels])
    counts = np.bincount(labels[labels >= 0], minlength=len(train.classes))
    return tuple((counts.sum() / (len(counts) * np.maximum(counts, 1))).tolist())


def _choose_trained(net: TaskNet, options: FinetuneOptions) -> None:
    """Freeze what the mode leaves as it is."""
    if options.mode == "full":
        return
    if options.mode == "lora":
        add_adapters(net.net, options.adapters, rank=options.rank, alpha=options.alpha)
    net.net.requires_grad_(False)
    for _, layer in adapted_layers(net):
        _train_adapter(layer)


def _train_adapter(layer: LowRankLinear) -> None:
    layer.adapter_a.requires_grad_(True)
    layer.adapter_b.requires_grad_(True)
