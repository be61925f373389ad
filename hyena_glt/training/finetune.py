"""A net and labelled sequences -> the net with a head that answers them: full, head only, or low-rank adapters.

    HyenaGLT -> task_net -> finetune (train, validate, keep the best) -> FinetunedNet

The same seed, data and number of threads give the same weights on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from hyena_glt.config import HyenaGLTConfig, PositiveWhole, Real, Whole
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.model import HyenaGLT
from hyena_glt.model.task_nets import TaskNet
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.training.checkpoints import CheckpointFolder
from hyena_glt.training.finetune_run import FinetuneResult, FinetuneRun
from hyena_glt.training.finetuned import (
    NETS,
    AdapterOptions,
    FinetunedNet,
    TaskOptions,
)
from hyena_glt.training.labelled import LabelledSet, Task
from hyena_glt.training.low_rank import ADAPTERS, LowRankLinear, adapted_layers, add_adapters
from hyena_glt.training.recipe import Decay, PositiveReal, Rate, Section, Share
from hyena_glt.training.task_metrics import (
    CLASS_METRICS,
    VALUE_METRICS,
)

Mode = Literal["full", "frozen", "lora"]
Log = Callable[[str, int, Mapping[str, Any], Mapping[str, float]], None]
DEFAULT_METRICS = {"classification": "loss", "regression": "mse", "per-base": "loss"}


class FinetuneOptions(Section):
    """How a net is fine-tuned."""

    mode: Mode = Field("full", description="all weights, the head only, or low-rank adapters and the head")
    epochs: PositiveWhole = Field(10, description="times that every sequence is learned from")
    batch_size: PositiveWhole = Field(32, description="sequences of an update")
    learning_rate: Rate = Field(1e-3, description="highest learning rate")
    weight_decay: Decay = Field(0.01, description="of the matrices of linear layers, no others")
    clip_norm: PositiveReal = Field(1.0, description="longest gradient, all parameters together")
    warm_up: Share = Field(0.1, description="share of the training in which the rate rises")
    floor: Annotated[Real, Field(ge=0, le=1)] = Field(0.0, description="last rate, as a share of the highest")
    seed: Whole = Field(0, description="of every draw")
    augment_strands: bool = Field(False, description="learn each sequence on either strand, drawn anew each epoch")
    average_strands: bool = Field(False, description="average the answers for both strands, here and in the result")
    class_weights: Literal["balanced"] | tuple[Annotated[Real, Field(ge=0)], ...] | None = Field(
        None, description="weight of each class in the loss; balanced: the rarer, the heavier; None: equal"
    )
    drop_ngrams: bool = Field(False, description="leave out the net's vectors of n-grams")
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


def untrained_net(
    size: str, alphabet: str, patcher: Any | None, seed: int, *, ngrams: bool = False, **changes: Any
) -> HyenaGLT:
    """A net with random weights that sees both sides, over the alphabet's own letters.

    Args:
        size: Of a preset.
        alphabet: Of the sequences.
        patcher: What cuts them.
        seed: Of the weights.
        ngrams: Embed the preset's n-grams too. Their random vectors tell every training sequence apart, so a net
            remembers a small labelled set by heart and answers worse than without them (docs/results.md).
        **changes: Other fields of `HyenaGLTConfig`.

    Raises:
        ConfigError: Unknown size.
    """
    letters = get_alphabet(alphabet)
    shape = {"causal": False, "genomic_vocab_size": letters.size, "alphabet": alphabet}
    without = {} if ngrams else {"ngram_sizes": ()}
    config = HyenaGLTConfig.preset(size, **{**shape, **without, **changes})
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
    if options.drop_ngrams:
        base.drop_ngrams()
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
    checkpoints: CheckpointFolder | None = None,
    sync: Callable[[], None] | None = None,
    stop: Callable[[], BaseException | None] | None = None,
) -> FinetuneResult:
    """Train what `task_net` made; the net is changed in place.

    Args:
        tuned: The net.
        train: What is learned.
        valid: What decides which epoch is best and when to stop; None: the last epoch is kept.
        options: How.
        log: Told `(kind, step, values, timings)` after each epoch: kind "train" or "evaluation".
        progress: Told the share that is done, in [0, 1], and the loss, after each update.
        checkpoints: Where the state is saved now and then; from the newest of them the fine-tuning goes on, to the
            same weights.
        sync: Called before each of them is saved: what was logged should then be on the disk.
        stop: Asked after each update; an exception that it returns is raised when the state has been saved.

    Raises:
        ConfigError: A metric that the task does not have, early stopping without validation, a loss that is not
            finite, or checkpoints of another net, other sequences or options.
        ModelFileError, SystemProblem: Checkpoints that cannot be read or written.
    """
    metric = chosen_metric(options, train.task, is_validated=valid is not None)
    with torch.random.fork_rng():
        return FinetuneRun(tuned, train, valid, options, metric, log, progress, checkpoints, sync, stop).finish()


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
