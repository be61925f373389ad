"""`hyena-glt pretrain`: a net trained on sequence files as a recipe says, resumable at any moment."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyena_glt.cli import options as opt
from hyena_glt.cli.runtime import Terminated, note, stop_on_signal

if TYPE_CHECKING:
    from hyena_glt.training.engine import Engine
    from hyena_glt.training.trainer import Progress, Trainer, TrainResult


class Strategy(StrEnum):
    """How a net is spread over the processes of torchrun."""

    ddp = "ddp"
    fsdp2 = "fsdp2"


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="What to do (YAML); docs/training.md explains every option.")],
    fasta: Annotated[
        list[Path] | None,
        typer.Argument(help="FASTA or FASTQ, plain, gzip or BGZF, in place of the recipe's data.files."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run: checkpoints, metrics, and model at the end.")
    ] = Path("run"),
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe: optimizer.lr=1e-3; may be repeated.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint, or begin where there is none.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    strategy: Annotated[
        Strategy,
        typer.Option("--engine-strategy", help="With torchrun: ddp copies the net to each process, fsdp2 shares it."),
    ] = Strategy.ddp,
    threads: opt.Threads = None,
    as_json: opt.Json = False,
    force: opt.Force = False,
) -> None:
    """Train a net from the beginning on genomes, as a recipe says.

    SIGTERM and Ctrl-C finish the update, save and stop; --resume then gives the same bits as a run that was never
    stopped. Start several processes with torchrun.

    Examples:

    hyena-glt pretrain recipe.yaml genome.fa -o run

    hyena-glt pretrain recipe.yaml genome.fa -o run --set schedule.steps=20000 --set optimizer.lr=1e-3

    hyena-glt pretrain recipe.yaml genome.fa -o run --resume
    """
    import torch

    from hyena_glt.training.engine import Engine
    from hyena_glt.training.recipe import load_recipe
    from hyena_glt.training.trainer import open_run

    asked = load_recipe(recipe, changes or [])
    torch.set_num_threads(threads or opt.default_threads())
    with Engine.from_environment(device, strategy.value) as engine:
        tell = note if engine.is_main else _silent
        trainer = open_run(asked, output, engine, fasta or [], resume=resume, force=force, note=tell)
        if trainer is None:
            tell(f"already done: {output}")
            return
        result, stopped_by = _train(trainer, engine)
    if result.model is None:
        tell(f"stopped after {result.step:,} updates; give --resume to go on")
        raise KeyboardInterrupt if stopped_by == signal.SIGINT else Terminated
    if as_json and engine.is_main:
        _print_facts(result)
    tell(f"{result.step:,} updates; wrote {result.model}")


def _train(trainer: Trainer, engine: Engine) -> tuple[TrainResult, int | None]:
    """Run to the end or to a signal; the signal that came first."""
    with stop_on_signal() as received, _bar(trainer.done, engine.is_main) as show:
        result = trainer.run(lambda: bool(received), show)
    return result, next(iter(received), None)


def _silent(text: str) -> None:
    """Say nothing: on all ranks but the first."""


@contextmanager
def _bar(done: float, is_main: bool) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on stderr with bits per base; silent where stderr is no terminal."""
    if not (is_main and sys.stderr.isatty()):
        yield lambda now: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("training"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("step {task.fields[step]:,}  {task.fields[bits]:.4f} bits per base"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=1.0, step=0, bits=0.0)
        bar.update(task, completed=done)
        yield lambda now: bar.update(task, completed=now.done, step=now.step, bits=now.bits_per_base)


def _print_facts(result: TrainResult) -> None:
    import json

    facts = {
        "steps": result.step,
        "bits_per_base": result.bits_per_base,
        "held_out_bits_per_base": result.held_out_bits_per_base,
        "model_steps": result.model_step,
        "model": str(result.model),
    }
    print(json.dumps(facts, indent=2, allow_nan=False))
