"""The epochs of a fine-tuning: learn, validate, keep the best, save; a run that was cut goes on to the same weights.

epoch -> draws of (seed, epoch) -> updates -> validation -> best weights -> checkpoint
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hyena_glt.checks import build_config
from hyena_glt.errors import ConfigError
from hyena_glt.training.checkpoints import Checkpoint, CheckpointFolder
from hyena_glt.training.clipping import clip_by_global_norm
from hyena_glt.training.engine import Engine
from hyena_glt.training.finetuned import CutRows, FinetunedNet, cut_rows, other_strands, task_estimates
from hyena_glt.training.labelled import IGNORED, LabelledSet
from hyena_glt.training.low_rank import merge_adapters
from hyena_glt.training.recipe import OptimizerSection, differences
from hyena_glt.training.schedule import make_optimizer, rate_at, set_rate
from hyena_glt.training.state import optimizer_tensors, restore_optimizer
from hyena_glt.training.task_metrics import is_better

if TYPE_CHECKING:
    from hyena_glt.training.finetune import FinetuneOptions, Log

SAVE_EVERY = 10.0  # seconds at least between checkpoints, so that short epochs need not wait for the disk
SAVE_WITHIN = 60.0  # the same within an epoch


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


class FinetuneRun:
    """One fine-tuning: all its epochs, or those after the newest checkpoint."""

    def __init__(
        self,
        tuned: FinetunedNet,
        train: LabelledSet,
        valid: LabelledSet | None,
        options: FinetuneOptions,
        metric: str,
        log: Log | None,
        progress: Callable[[float, float], None] | None,
        checkpoints: CheckpointFolder | None,
        sync: Callable[[], None] | None,
        stop: Callable[[], BaseException | None] | None = None,
    ) -> None:
        self.tuned, self.train, self.valid, self.options, self.metric = tuned, train, valid, options, metric
        self.log, self.progress, self.sync, self.stop = log, progress, sync, stop
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
        self.step = self.epoch = 0
        self.losses: list[float] = []  # of the updates of an epoch that is not over
        self.best_epoch = 0
        self.best_value: float | None = None
        self.best: dict[str, Tensor] = {}
        self.checkpoints, self.saved_at = checkpoints, time.monotonic()
        if checkpoints is not None:
            self.identity = self._identity()
            newest = checkpoints.newest()
            if newest is not None:
                self._restore(newest)

    def finish(self) -> FinetuneResult:
        """Run all epochs, or until none is better any more."""
        while self.losses or not self._is_over():
            self._learn()
            if self.valid is not None:
                self._validate()
            self._keep(SAVE_EVERY)
        self._put(self.best)
        trained = sum(weight.numel() for weight in self._learned().values())
        every = sum(weight.numel() for weight in self.net.parameters())
        if self.options.mode == "lora" and self.options.merge:
            merge_adapters(self.net)
        self.net.eval()
        return FinetuneResult(
            tuned=self.tuned,
            steps=self.step,
            epochs=self.epoch,
            best_epoch=self.best_epoch or self.epoch,
            metric=self.metric,
            best_value=self.best_value,
            num_trained=trained,
            num_weights=every,
        )

    def _is_over(self) -> bool:
        patience = self.options.patience
        return self.epoch == self.options.epochs or (
            patience is not None and self.best_epoch > 0 and self.epoch - self.best_epoch >= patience
        )

    def _learn(self) -> None:
        """One epoch of updates, whose draws follow from the seed and its number; or the rest of one."""
        began, is_new = time.perf_counter(), not self.losses
        self.epoch += is_new
        draws = np.random.default_rng((self.options.seed, 6, self.epoch))
        own_seed = int(draws.integers(2**62))
        if is_new:
            torch.manual_seed(own_seed)
        order = draws.permutation(len(self.train))
        is_other = draws.random(len(self.train)) < 0.5 if len(self.strands) == 2 else np.zeros(len(order), bool)
        size = self.options.batch_size
        for first in range(len(self.losses) * size, len(order), size):
            self.losses.append(self._update(order[first : first + size].tolist(), is_other))
            if self.progress is not None:
                self.progress(self.step / self.total_steps, self.losses[-1])
            if first + size < len(order):
                self._keep(SAVE_WITHIN)
        if self.log is not None:
            values = {"epoch": self.epoch, "loss": math.fsum(self.losses) / len(self.losses)}
            self.log("train", self.step, values, {"seconds": time.perf_counter() - began})
        self.losses = []

    def _update(self, rows: list[int], is_other: NDArray[np.bool_]) -> float:
        done = self.step / self.total_steps
        set_rate(self.optimizer, self.options.learning_rate * rate_at(done, self.options.warm_up, self.options.floor))
        tokens, lengths, known = self._batch(rows, is_other)
        labels = self._labels(rows, is_other)
        loss = self.net(tokens, lengths, known_starts=known, labels=labels, return_position_info=False).loss
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_by_global_norm(list(self._learned().values()), self.options.clip_norm, self.engine)
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

    def _validate(self) -> None:
        """Measure, and keep the weights if they are the best so far."""
        assert self.valid is not None
        assert self.valid_strands is not None
        began = time.perf_counter()
        answers = self.tuned.predict_rows(self.valid_strands)
        found = task_estimates(self.tuned, self.valid, answers, resamples=0)
        value = found[self.metric].value
        if not self.best_epoch or is_better(self.metric, value, self.best_value):
            self.best_epoch, self.best_value = self.epoch, value
            self.best = {name: weight.detach().clone() for name, weight in self._learned().items()}
        if self.log is not None:
            values = {name: each.value for name, each in found.items() if each.value is not None}
            timings = {"seconds": time.perf_counter() - began}
            self.log("evaluation", self.step, {"epoch": self.epoch, **values}, timings)

    def _learned(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.net.named_parameters() if weight.requires_grad}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        learned = self._learned()
        for name, values in weights.items():
            learned[name].copy_(values)

    def _identity(self) -> dict[str, Any]:
        """What makes two fine-tunings the same: options, sequences and labels, the weights at the beginning."""
        whole = hashlib.sha256()
        for name, weight in self.net.named_parameters():
            whole.update(name.encode())
            whole.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        facts: dict[str, Any] = {"options": self.options.model_dump(mode="json"), "net_sha256": whole.hexdigest()}
        for name, labelled in (("train", self.train), ("valid", self.valid)):
            facts[f"{name}_sha256"] = None if labelled is None else _digest(labelled)
        return facts

    def _keep(self, every: float) -> None:
        """Save if the last time is so many seconds ago, or if the run is to end, which it then does."""
        problem = None if self.stop is None else self.stop()
        if self.checkpoints is not None and (problem is not None or time.monotonic() - self.saved_at >= every):
            self._save(self.checkpoints)
        if problem is not None:
            raise problem

    def _save(self, checkpoints: CheckpointFolder) -> None:
        if self.sync is not None:
            self.sync()
        state, facts = optimizer_tensors(self.optimizer)
        rng = {"cpu": torch.get_rng_state()}
        if self.engine.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.engine.device)
        parts = {"net": self._learned(), "optimizer": state, "rng": rng, **({"best": self.best} if self.best else {})}
        progress = {"epoch": self.epoch, "losses": self.losses}
        best = {"best_epoch": self.best_epoch, "best_value": self.best_value}
        checkpoints.save(self.step, parts, {**progress, **best, "identity": self.identity, "optimizer": facts})
        self.saved_at = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        facts = checkpoint.facts
        changed = differences(facts["identity"], self.identity)
        if changed:
            raise ConfigError(
                f"{checkpoint.path}: the fine-tuning was begun with other options or data: {'; '.join(changed)}; "
                "give another folder, or --force to begin anew"
            )
        device = self.engine.device
        self.step, self.epoch = checkpoint.step, facts["epoch"]
        self.best_epoch, self.best_value = facts["best_epoch"], facts["best_value"]
        self.losses = facts["losses"]
        rng = checkpoint.tensors("rng")
        torch.set_rng_state(rng["cpu"].clone())
        if "cuda" in rng and device.type == "cuda":
            torch.cuda.set_rng_state(rng["cuda"].clone(), device)
        if "best" in checkpoint.parts:
            self.best = {name: tensor.to(device) for name, tensor in checkpoint.tensors("best").items()}
        self._put(checkpoint.tensors("net"))
        restore_optimizer(self.optimizer, checkpoint.tensors("optimizer"), facts["optimizer"])


def _digest(labelled: LabelledSet) -> str:
    """Of sequences and labels."""
    whole = hashlib.sha256()
    for sequence, label in zip(labelled.rows.sequences, labelled.labels, strict=True):
        for part in (sequence, np.asarray(label).tobytes()):
            whole.update(len(part).to_bytes(8, "little"))
            whole.update(part)
    return whole.hexdigest()
