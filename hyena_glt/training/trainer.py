"""A recipe and sequence files -> a trained net in a folder, through checkpoints from which the same bits follow."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from hyena_glt.errors import ConfigError, SystemProblem
from hyena_glt.model import HyenaGLT
from hyena_glt.training.best_weights import BestWeights
from hyena_glt.training.checkpoints import CheckpointFolder
from hyena_glt.training.clipping import clip_by_global_norm
from hyena_glt.training.corpus import Corpus
from hyena_glt.training.loader import Batch, WindowLoader, eval_batches
from hyena_glt.training.metrics_log import MetricsLog, SpikeWatch
from hyena_glt.training.nan_report import (
    REPORT_FILE,
    all_finite,
    first_module_not_finite,
    gradients_not_finite,
    write_nan_report,
)
from hyena_glt.training.objectives import BITS_PER_NAT, HELD_OUT, Task, make_task, summed_loss, summed_losses
from hyena_glt.training.recipe import Recipe
from hyena_glt.training.run_data import Note, TrainingData, evenly_spaced, prepare_data
from hyena_glt.training.run_folder import RunFolder, run_identity, run_place
from hyena_glt.training.schedule import make_optimizer, rate_at, set_rate, share_done
from hyena_glt.training.state import optimizer_tensors, restore_optimizer, restore_rng, rng_state

if TYPE_CHECKING:
    from hyena_glt.training.engine import Engine

PROMPT_BASES = 64
STEP_SALT = 0x5EED


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands after an update."""

    step: int
    done: float  # share of the run
    bits_per_base: float


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run has come to."""

    step: int  # updates
    bits_per_base: float | None  # of the last update
    held_out_bits_per_base: float | None  # of the finished net, or of the last evaluation before the end
    model_step: int | None  # updates that the finished net has had
    model: Path | None  # None: stopped before the end, to be resumed


def open_run(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    engine: Engine,
    files: Sequence[str | os.PathLike[str]] = (),
    *,
    resume: bool = False,
    force: bool = False,
    note: Note = lambda text: None,
) -> Trainer | None:
    """Read the data and set up a run, at its beginning or where its last checkpoint left it.

    Args:
        recipe: What to do.
        folder: Where everything is written.
        engine: This process's place among those that train together, and its device.
        files: FASTA files in place of the recipe's.
        resume: Go on with the run that is there, or begin one where there is none.
        force: Begin anew, whatever is there.
        note: Told what a person should know.

    Returns:
        What runs it; None where this run is finished already.

    Raises:
        ConfigError: No files, options that do not fit, or a resumed run with another recipe or corpus.
        OutputExistsError: Something is there, and neither `resume` nor `force` is set.
        DataError: Sequences that are malformed, or too little of them.
        SystemProblem: The folder cannot be written.
    """
    paths = [Path(file) for file in (files or recipe.data.files)]
    if not paths:
        raise ConfigError("data.files: expected FASTA files, in the recipe or on the command line, got none")
    corpus = Corpus.from_fasta(paths, recipe.data.alphabet, keep_case=recipe.data.keep_case)
    run, identity = RunFolder(folder), run_identity(recipe, corpus)
    state = run.state(identity, resume=resume, force=force)
    engine.barrier()
    if state == "done":
        return None
    with run.alone() if engine.is_main else nullcontext():
        if state == "new" and engine.is_main:
            run.begin(identity, run_place(engine))
        engine.barrier()
        if moved := run.moved(run_place(engine)):
            note(f"going on elsewhere than the run began ({'; '.join(moved)}): last bits may differ")
        data = prepare_data(recipe, corpus, run, engine, note)
    return Trainer(recipe, run, data, engine, note)


class Trainer:
    """A run that is set up: `run` takes it to its end, or to the next checkpoint when it is asked to stop.

    Args:
        recipe: What to do.
        run: Where everything is written; what is there is continued.
        data: What is read.
        engine: The processes that train together.
        note: Told what a person should know.

    Raises:
        ModelFileError: A checkpoint that does not fit the net.
    """

    def __init__(self, recipe: Recipe, run: RunFolder, data: TrainingData, engine: Engine, note: Note) -> None:
        self.recipe, self.data, self.engine = recipe, data, engine
        self._run_folder, self._note = run, note
        _seed_generators(recipe.seed)
        self.net = self._make_net()
        if recipe.compile:
            self.net.trunk.compile(dynamic=True)  # all the depth, and no graph break
        self.model = engine.prepare(self.net)
        self.optimizer = make_optimizer(self.net, recipe.optimizer)
        self.loader = WindowLoader(
            data.train.corpus,
            data.train,
            batch_size=recipe.batch.size,
            seed=recipe.seed,
            rank=engine.rank,
            world=engine.world,
            reverse_complement=recipe.data.reverse_complement,
            shift=recipe.data.shift,
            patches=data.patches,
        )
        self.checkpoints = CheckpointFolder(run.checkpoints, recipe.checkpoint.keep)
        self.step, self.elapsed_s = 0, 0.0
        self.bits_per_base: float | None = None
        self.held_out_bits_per_base: float | None = None
        self.best = BestWeights()
        self._is_rounded_off = True  # whether evaluation and sample of this step are done
        self._saved_step: int | None = None
        self._samples_are_off = False
        self._spikes = SpikeWatch()
        self._restore()
        self._batches = iter(self.loader)
        self._log: MetricsLog | None = None

    def run(
        self, stop: Callable[[], bool] = lambda: False, show: Callable[[Progress], None] = lambda now: None
    ) -> TrainResult:
        """Train.

        Args:
            stop: Asked after every update; True makes a checkpoint and returns, to be resumed.
            show: Told of every update.

        Raises:
            ConfigError: A loss or a gradient is no number any more; nothing was updated by it.
            SystemProblem: The disk is full, another process has ended or trains in the same folder, ...
        """
        with self._run_folder.alone() if self.engine.is_main else nullcontext():
            return self._run(stop, show)

    def _run(self, stop: Callable[[], bool], show: Callable[[Progress], None]) -> TrainResult:
        if self.engine.is_main:
            self._log = MetricsLog(self._run_folder.path, self.step, self._note, self._is_rounded_off)
        try:
            with self.engine.watched():
                finished = self._round_off(stop) and self._train(stop, show)
            if not finished:
                self._save()
            model = self._save_net() if finished else None
        finally:
            if self._log is not None:
                self._log.close()
        held_out, model_step = self.held_out_bits_per_base, self.step
        if finished and self.best.step is not None:
            held_out, model_step = self.best.bits_per_base, self.best.step
        return TrainResult(self.step, self.bits_per_base, held_out, model_step if finished else None, model)

    @property
    def done(self) -> float:
        """Share of the run that is behind, in [0, 1]."""
        return share_done(self.recipe.schedule, self.step, self.elapsed_s)

    @property
    def is_over(self) -> bool:
        """Whether no more updates are to come."""
        every, patience = self.recipe.evaluation.every, self.recipe.evaluation.patience
        if self.done >= 1.0 or every is None or patience is None or self.best.step is None:
            return self.done >= 1.0
        return self.step - self.best.step >= patience * every

    def _make_net(self) -> HyenaGLT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            net = HyenaGLT(self.recipe.model, self.data.patcher)
        net.gradient_checkpointing_enable(self.recipe.gradient_checkpointing)
        return net.train()

    def _train(self, stop: Callable[[], bool], show: Callable[[Progress], None]) -> bool:
        """Update until the end; False when asked to stop before it."""
        while not self.is_over:
            if not self.engine.all_true(not stop()):
                return False
            self._update()
            show(Progress(self.step, self.done, self.bits_per_base or 0.0))
            if not self._round_off(stop):
                return False
        return True

    def _update(self) -> None:
        """One update from `accumulate` batches of every process."""
        began, place = time.perf_counter(), self.loader.state_dict()
        batches = [next(self._batches) for _ in range(self.recipe.batch.accumulate)]
        tasks = [self._task(batch) for batch in batches]
        torch.manual_seed(_step_seed(self.recipe.seed, self.step, self.engine.rank))  # what is dropped out
        num_targets = self.engine.sum(float(sum(task.num_targets for task in tasks)))
        own_loss = self._backward(tasks, num_targets)
        norm = clip_by_global_norm(self.net.parameters(), self.recipe.optimizer.clip_norm, self.engine)
        if not self.engine.all_true(math.isfinite(own_loss) and math.isfinite(norm)):
            self._refuse(tasks, own_loss, norm, place)
        rate = self.recipe.optimizer.lr * rate_at(self.done, self.recipe.schedule.warm_up, self.recipe.schedule.floor)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        num_bases = float(sum(task.num_bases for task in tasks))
        loss_sum, num_bases = self.engine.sum([own_loss, num_bases])
        self.step += 1
        self._is_rounded_off = False
        self._count_update(tasks, loss_sum / max(num_targets, 1.0), norm, rate, batches[-1].epoch, num_bases, began)

    def _backward(self, tasks: list[Task], num_targets: float) -> float:
        """Gradients of the mean loss of an update; this process's share of the loss, a sum in nats."""
        total = 0.0
        for index, task in enumerate(tasks):
            is_last = index + 1 == len(tasks)
            with nullcontext() if is_last else self.engine.no_sync(self.model):
                with self._autocast():
                    plain, loss = summed_loss(self.model, self.net, task)
                self.engine.scaled_loss(loss, task.num_targets, num_targets).backward()
            total += float(plain)
        return total

    def _count_update(
        self, tasks: list[Task], loss: float, norm: float, rate: float, epoch: int, num_bases: float, began: float
    ) -> None:
        """Write the line of an update; a loss that stands out gets a line of its own."""
        limit = self._spikes.limit()
        is_spike = self._spikes.is_spike(loss)
        windows = self._windows_of_all(tasks) if is_spike else []
        seconds = self.engine.mean(time.perf_counter() - began)  # so that all processes end together
        self.elapsed_s += seconds
        self.bits_per_base = loss * BITS_PER_NAT
        if self._log is None:
            return
        values = {"loss": loss, "bits_per_base": self.bits_per_base, "lr": rate, "grad_norm": norm, "epoch": epoch}
        timings = {"bases_per_second": num_bases / max(seconds, 1e-9), "elapsed_s": self.elapsed_s}
        self._log.write("train", self.step, values, timings)
        if is_spike:
            self._log.write("spike", self.step, {"loss": loss, "limit": limit, "windows": windows})
            self._note(f"step {self.step:,}: the loss of {loss:.4f} nats stands out (limit {limit:.4f})")

    def _round_off(self, stop: Callable[[], bool]) -> bool:
        """Do what is due after an update; False when asked to stop before all of it is done."""
        if not self._is_rounded_off:
            if self._is_due(self.recipe.evaluation.every, self.is_over) and not self._evaluate(stop):
                return False
            is_last = self.is_over
            if self._is_due(self.recipe.samples.every, is_last and self.recipe.samples.every is not None):
                self._sample()
            self._is_rounded_off = True
            if self._is_due(self.recipe.checkpoint.every, is_last):
                self._save()
        return True

    def _is_due(self, every: int | None, is_last: bool) -> bool:
        return is_last or (every is not None and self.step % every == 0)

    def _evaluate(self, stop: Callable[[], bool]) -> bool:
        """Bits per base on held-out sequence; False when asked to stop meanwhile, with one process."""
        if self.data.held_out is None:
            return True
        began = time.perf_counter()
        tasks = _until(self._held_out_tasks(), stop if self.engine.world == 1 else lambda: False)
        sums = summed_losses(self.model, self.net, tasks, self._autocast)
        if self.engine.world == 1 and stop():
            return False
        loss_sum, num_targets = self.engine.sum(sums.tolist())
        loss = loss_sum / max(num_targets, 1.0)
        if not math.isfinite(loss):
            raise ConfigError(f"step {self.step}: the held-out loss is no finite number; take a smaller optimizer.lr")
        self.held_out_bits_per_base = loss * BITS_PER_NAT
        if self._log is not None:
            values = {"loss": loss, "bits_per_base": self.held_out_bits_per_base, "num_targets": int(num_targets)}
            self._log.write("evaluation", self.step, values, {"seconds": time.perf_counter() - began})
            self._note(f"step {self.step:,}: {self.held_out_bits_per_base:.4f} bits per base held out")
        if self.recipe.evaluation.keep == "best" and self.best.is_beaten_by(self.held_out_bits_per_base):
            self.best.take(self.step, self.held_out_bits_per_base, self.engine.full_state(self.model))
        return True

    def _held_out_tasks(self) -> Iterator[Task]:
        """This process's share of the held-out batches; every process has as many, the last perhaps without targets."""
        assert self.data.held_out is not None
        size, most = self.recipe.batch.size, self.recipe.evaluation.batches
        table = evenly_spaced(self.data.held_out, None if most is None else most * size)
        number = 0
        for number, batch in enumerate(eval_batches(table.corpus, table, size, self.data.patches)):
            if number == 0:
                first = batch
            if number % self.engine.world == self.engine.rank:
                yield self._task(batch, HELD_OUT)
        if self.engine.rank > number % self.engine.world:
            yield self._task(first, HELD_OUT).without_targets()

    def _task(self, batch: Batch, epoch: int | None = None) -> Task:
        task = make_task(batch, self.recipe.objective, self.recipe.data.alphabet, self.recipe.seed, epoch)
        return task.to(self.engine.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.engine.device.type, torch.bfloat16)

    def _sample(self) -> None:
        """Let the net write some sequence after the first bases of a window."""
        if self._log is None or self._samples_are_off:
            return
        table = self.data.held_out or self.data.train
        contig, start, end = table.windows[0].tolist()
        prompt = table.corpus.sequence(contig, start, min(start + PROMPT_BASES, end)).tobytes()
        began = time.perf_counter()
        try:
            if self.engine.world > 1 and self.engine.strategy == "fsdp2":
                raise ConfigError("the weights are spread over several processes")
            text = self.net.generate(prompt, self.recipe.samples.length, seed=self.recipe.seed, include_prompt=False)
        except ConfigError as problem:
            self._samples_are_off = True
            self._note(f"no samples: {problem}")
            return
        values = {"prompt": prompt.decode("latin-1"), "sequence": text.decode("latin-1")}
        self._log.write("sample", self.step, values, {"seconds": time.perf_counter() - began})

    def _refuse(self, tasks: list[Task], own_loss: float, norm: float, place: Mapping[str, Any]) -> NoReturn:
        """Say where a loss or gradient that is no number began; nothing is updated, and what was learned is saved."""
        engine, step = self.engine, self.step + 1
        is_bad = not math.isfinite(own_loss)
        ranks = [rank for rank in range(engine.world) if not engine.all_true(not (is_bad and engine.rank == rank))]
        rank = ranks[0] if ranks else 0
        gradients = gradients_not_finite(self.net.named_parameters())
        self.optimizer.zero_grad(set_to_none=True)
        module = first_module_not_finite(self.net, lambda: self._repeat(tasks))
        path = self._run_folder.path / REPORT_FILE
        if engine.rank == rank:
            windows = [window for task in tasks for window in task.window_ids]
            facts = {
                "step": step,
                "rank": rank,
                "loss_sum": str(own_loss),
                "grad_norm": str(norm),
                "windows": windows,
                "places": [self._named(place) for task in tasks for place in task.places],
                "first_module": module,
                "gradients": gradients[:20],
            }
            write_nan_report(self._run_folder.path, facts)
        is_sound = engine.all_true(self._is_finite())
        if is_sound and self._saved_step != self.step:
            self.loader.load_state_dict(place)  # before the batches of this update
            self._save()
        engine.barrier()
        kept = f"the state after {self.step:,} updates is saved" if is_sound else "the weights were not finite before"
        raise ConfigError(
            f"step {step}: the {'loss' if ranks else 'gradient'} is no finite number on rank {rank}; nothing was "
            f"updated by it, see {path}; {kept}; begin anew with a smaller optimizer.lr"
        )

    def _is_finite(self) -> bool:
        """Whether all that a checkpoint of this process would hold is finite."""
        slots = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.net.state_dict().values(), *(value for value in slots if isinstance(value, torch.Tensor))]
        return all(all_finite(tensor) for tensor in tensors)

    def _repeat(self, tasks: list[Task]) -> None:
        """The forwards of an update once more, without what wraps the net."""
        torch.manual_seed(_step_seed(self.recipe.seed, self.step, self.engine.rank))
        for task in tasks:
            with self._autocast():
                summed_loss(self.net, self.net, task)

    def _named(self, place: tuple[int, int, int]) -> list[Any]:
        """A window's contig by its name, start and end."""
        contig, start, end = place
        return [self.data.train.corpus.contigs.names[contig], start, end]

    def _windows_of_all(self, tasks: list[Task]) -> list[int]:
        """Ids of the windows of an update, on all processes."""
        own = [window for task in tasks for window in task.window_ids]
        room = (self.recipe.batch.size + 1) * self.recipe.batch.accumulate  # a last batch may have one more
        padded = torch.tensor([*own, *[-1] * (room - len(own))])
        stacked = self.engine.stack({"windows": padded})["windows"]
        return stacked[stacked >= 0].tolist()

    def _save(self) -> None:
        """Write a checkpoint of this step."""
        engine = self.engine
        weights = engine.full_state(self.model)
        state, about_state = optimizer_tensors(self.optimizer, is_kept=engine.is_main)
        rng, about_rng = rng_state(engine.device)
        parts: dict[str, Mapping[str, torch.Tensor]] = {"model": weights, "optimizer": state, "rng": engine.stack(rng)}
        if self.best.step is not None:
            parts["best"] = self.best.tensors
        if self._log is not None:
            self._log.sync()
            facts = {
                "is_rounded_off": self._is_rounded_off,
                "loader": self.loader.state_dict(),
                "optimizer": about_state,
                "rng": about_rng,
                "last_losses": list(self._spikes.losses),
                "bits_per_base": self.bits_per_base,
                "held_out_bits_per_base": self.held_out_bits_per_base,
                "best": self.best.facts(),
                "timings": {"elapsed_s": self.elapsed_s},
            }
            self.checkpoints.save(self.step, parts, _in_one_order(facts))
        engine.barrier()
        self._saved_step = self.step

    def _restore(self) -> None:
        """Take everything from the newest checkpoint, if there is one."""
        found = self.checkpoints.newest()
        step = -1 if found is None else found.step
        if not self.engine.all_true(step == self.engine.from_main(step)):
            raise SystemProblem(f"{self.checkpoints.path}: processes see different checkpoints; share the folder")
        if found is None:
            return
        facts = found.facts
        self.engine.load_full_state(self.model, found.tensors("model"))
        restore_optimizer(self.optimizer, found.tensors("optimizer"), facts["optimizer"])
        rng = found.tensors("rng")
        if len(rng["torch"]) == self.engine.world:
            own = {name: rows[self.engine.rank] for name, rows in rng.items()}
            restore_rng(own, facts["rng"], self.engine.device)
        self.loader.load_state_dict(facts["loader"])
        self.step = self._saved_step = found.step
        self.elapsed_s = facts["timings"]["elapsed_s"]
        self.bits_per_base = facts["bits_per_base"]
        self.held_out_bits_per_base = facts["held_out_bits_per_base"]
        if facts["best"] is not None:
            self.best.take(**facts["best"], tensors=found.tensors("best") if self.engine.is_main else {})
        self._is_rounded_off = facts["is_rounded_off"]
        self._spikes = SpikeWatch(facts["last_losses"])
        self._note(f"going on from step {self.step:,}")

    def _save_net(self) -> Path:
        """Write the finished net, its patcher inside."""
        weights = self.engine.full_state(self.model) if self.best.step is None else self.best.tensors
        if self.best.step is not None:
            self._note(f"the net after {self.best.step:,} updates is kept: {self.best.bits_per_base:.4f} bits per base")
        if self.engine.is_main:
            net = HyenaGLT(self.recipe.model, self.data.patcher)
            net.load_state_dict(weights)
            net.save_pretrained(self._run_folder.model)
        self.engine.barrier()
        return self._run_folder.model


def _until(tasks: Iterator[Task], stop: Callable[[], bool]) -> Iterator[Task]:
    """Tasks until `stop()`."""
    for task in tasks:
        if stop():
            return
        yield task


def _in_one_order(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts with sorted keys, whatever order a resumed optimizer has put its options in."""
    return json.loads(json.dumps(facts, sort_keys=True, allow_nan=False))


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Of torch's generator during an update: the same whether or not the run was resumed before it."""
    return int(np.random.SeedSequence((seed, STEP_SALT, step, rank)).generate_state(1, np.uint64)[0]) >> 1


def _seed_generators(seed: int) -> None:
    """Begin every global generator from the seed; nothing here draws from Python's and NumPy's, callers may."""
    random.seed(seed)
    np.random.seed(seed % (1 << 32))  # noqa: NPY002 - the global generator itself
    torch.manual_seed(seed)
