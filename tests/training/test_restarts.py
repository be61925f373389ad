"""Runs of several processes that end badly: killed, NaN on one rank, resumed by another number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hyena_glt.errors import ConfigError
from hyena_glt.sequences.simulate import simulate_genome
from hyena_glt.training.engine import Engine
from hyena_glt.training.recipe import build_recipe
from hyena_glt.training.trainer import Trainer, open_run

WORLD = 2
KILLED_AT, POISONED_AT, STOPPED_AT = 5, 4, 5
NET = {
    "hidden_size": 16,
    "num_layers": 1,
    "trunk_layout": ["short"],
    "local_hidden_size": 8,
    "num_local_encoder_layers": 1,
    "num_local_decoder_layers": 1,
    "ngram_sizes": [3],
    "ngram_table_size": 64,
    "dropout": 0.1,
}
RUN = {
    "model": NET,
    "data": {"window": 128, "held_out_share": 0.1, "block": 2048, "gap": 128},
    "schedule": {"steps": 8},
    "batch": {"size": 2, "accumulate": 2},
    "evaluation": {"every": 4, "batches": 2},
    "checkpoint": {"every": 3, "keep": 3},
}
LONG = {**RUN, "schedule": {"steps": 40}, "evaluation": {"every": None}}  # more than an epoch of one process


# ---- what each process does ----------------------------------------------------------------------------------------


def opened(folder: Path, genome: Path, engine: Engine, recipe: dict) -> Trainer:
    trainer = open_run(build_recipe(recipe), folder, engine, [genome], resume=True)
    assert trainer is not None
    return trainer


def train(folder: Path, genome: Path) -> None:
    with Engine.from_environment("cpu") as engine:
        opened(folder, genome, engine, RUN).run()


def train_and_die_once(folder: Path, genome: Path) -> None:
    """Rank 1 is killed after an update that no checkpoint holds, unless torchrun has restarted it."""
    is_first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

    def show(now):
        if is_first_life and engine.rank == 1 and now.step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    with Engine.from_environment("cpu") as engine:
        opened(folder, genome, engine, RUN).run(show=show)


def train_into_nan(folder: Path, genome: Path) -> None:
    """The trunk of rank 1 gives NaN in one update; each rank says what it saw."""
    with Engine.from_environment("cpu") as engine:
        trainer = opened(folder, genome, engine, {**RUN, "checkpoint": {"every": 1, "keep": 9}})

        def poison(_module, _inputs, output):
            return output * float("nan") if engine.rank == 1 and trainer.step + 1 == POISONED_AT else output

        trainer.net.get_submodule("trunk.blocks.0").register_forward_hook(poison)
        problem = ""
        try:
            trainer.run()
        except ConfigError as error:
            problem = str(error)
        weights = {name: tensor.tolist() for name, tensor in trainer.net.state_dict().items()}
        facts = {"problem": problem, "step": trainer.step, "weights": weights}
        Path(f"{folder}.{engine.rank}.json").write_text(json.dumps(facts))


def train_for_a_while(folder: Path, genome: Path, stop_at: str) -> None:
    """Note the windows that this rank reads, as lines of epoch and window."""
    with Engine.from_environment("cpu") as engine:
        trainer = opened(folder, genome, engine, LONG)
        with open(f"{folder}.windows.{engine.world}.{engine.rank}", "w") as handle:
            trainer._batches = noted(trainer._batches, handle)
            trainer.run(stop=lambda: trainer.step == int(stop_at))


def noted(batches, handle) -> Iterator:
    for batch in batches:
        handle.writelines(f"{batch.epoch} {window}\n" for window in batch.window_ids.tolist())
        yield batch


# ---- starting them -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> Path:
    return simulate_genome(seed=3, length=20_000).write_genome(tmp_path_factory.mktemp("genome"))[0]


def torchrun(*words: object, world: int = WORLD, restarts: int = 0, limit_s: float = 240) -> subprocess.Popen:
    """Run this file under torchrun, to its end."""
    own = [f"--nproc-per-node={world}", f"--max-restarts={restarts}", "--monitor-interval=0.2", "--standalone"]
    command = [sys.executable, "-m", "torch.distributed.run", *own, __file__, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        _, process.messages = process.communicate(timeout=limit_s)
    finally:
        process.kill()
        process.wait()
    return process


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def windows_read(folder: Path, world: int, epoch: int) -> list[int]:
    texts = [Path(f"{folder}.windows.{world}.{rank}").read_text() for rank in range(world)]
    lines = [line.split() for text in texts for line in text.splitlines()]
    return [int(window) for own_epoch, window in lines if int(own_epoch) == epoch]


# ---- the tests -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_rank_restarts_from_the_last_checkpoint(genome, tmp_path):
    """Killed after update 5, with a checkpoint of update 3: weights and metrics are those of the undisturbed run."""
    undisturbed = torchrun("train", tmp_path / "whole", genome)
    assert undisturbed.returncode == 0, undisturbed.messages
    killed = torchrun("train_and_die_once", tmp_path / "killed", genome, restarts=1)
    assert killed.returncode == 0, killed.messages
    assert "Signal 9" in killed.messages or "exitcode: -9" in killed.messages
    expected, found = weights_of(tmp_path / "whole/model"), weights_of(tmp_path / "killed/model")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for kind in ("train", "evaluation"):
        assert metrics(tmp_path / "killed", kind) == metrics(tmp_path / "whole", kind) != []
    steps = [sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("whole", "killed")]
    assert steps[0] == steps[1] == ["step-000000003", "step-000000006", "step-000000008"]


@pytest.mark.slow
def test_a_killed_rank_without_restart_ends_the_run_with_a_sound_checkpoint(genome, tmp_path):
    killed = torchrun("train_and_die_once", tmp_path / "killed", genome)
    assert killed.returncode != 0
    assert not (tmp_path / "killed/model").exists()
    weights = weights_of(tmp_path / "killed/checkpoints/step-000000003")
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    again = torchrun("train", tmp_path / "killed", genome)
    assert again.returncode == 0, again.messages
    assert [line["step"] for line in metrics(tmp_path / "killed", "train")] == list(range(1, 9))


@pytest.mark.slow
def test_nan_on_one_rank_stops_both_before_the_update(genome, tmp_path):
    folder = tmp_path / "run"
    done = torchrun("train_into_nan", folder, genome)
    assert done.returncode == 0, done.messages
    saved = weights_of(folder / "checkpoints/step-000000003")
    assert all(bool(tensor.isfinite().all()) for tensor in saved.values())
    assert not (folder / "checkpoints/step-000000004").exists()
    assert not (folder / "model").exists()
    for rank in range(WORLD):
        seen = json.loads(Path(f"{folder}.{rank}.json").read_text())
        assert "step 4: the loss is no finite number on rank 1; nothing was updated" in seen["problem"]
        assert seen["step"] == POISONED_AT - 1
        assert all(torch.equal(saved[name], torch.tensor(value)) for name, value in seen["weights"].items())
    report = json.loads((folder / "nan_report.json").read_text())
    assert (report["step"], report["rank"], report["first_module"]) == (4, 1, "trunk.blocks.0")
    assert len(report["windows"]) == 4
    assert [line["step"] for line in metrics(folder, "train")] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_without_skipping_or_repeating_a_window(genome, tmp_path, first, then):
    """A changed world size is no reason to refuse: the rest of the epoch is dealt out anew (RELIABILITY F)."""
    folder = tmp_path / "run"
    stopped = torchrun("train_for_a_while", folder, genome, STOPPED_AT, world=first)
    assert stopped.returncode == 0, stopped.messages
    assert [line["step"] for line in metrics(folder, "train")] == list(range(1, STOPPED_AT + 1))
    resumed = torchrun("train_for_a_while", folder, genome, -1, world=then)
    assert resumed.returncode == 0, resumed.messages
    before, after = windows_read(folder, first, 0), windows_read(folder, then, 0)
    assert len(before) == STOPPED_AT * 4 * first
    assert windows_read(folder, first, 1) == []
    assert windows_read(folder, then, 1), "the resumed run should have come to the next epoch"
    epoch = sorted(before + after)
    assert epoch == list(range(len(epoch)))
    assert len(epoch) == len(opened_table(folder, genome))


def opened_table(folder: Path, genome: Path):
    """The windows of the finished run, from the recipe."""
    recipe = build_recipe(LONG)
    trainer = open_run(recipe, folder.with_name("other"), Engine(torch.device("cpu")), [genome])
    assert trainer is not None
    return trainer.data.train


def metrics(folder: Path, kind: str) -> list[dict]:
    """Lines of a kind, without what is measured in seconds."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("timings", None)
    return [line for line in found if line["kind"] == kind]


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](*map(Path, sys.argv[2:4]), *sys.argv[4:])
    sys.exit()
