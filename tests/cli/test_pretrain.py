"""`hyena-glt pretrain`: a recipe and a genome become a net, whatever happens in between."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyena_glt import HyenaGLT
from hyena_glt.cli.runtime import Terminated, stop_on_signal

RECIPE = """
model:
  {hidden_size: 16, num_layers: 1, trunk_layout: [short], local_hidden_size: 8, ngram_sizes: [3], ngram_table_size: 64,
   num_local_encoder_layers: 1, num_local_decoder_layers: 1, dropout: 0.1}
data: {window: 128, held_out_share: 0.1, block: 2048, gap: 128}
schedule: {steps: STEPS}
batch: {size: 2}
evaluation: {every: 5, batches: 1}
samples: {every: 10, length: 3}
checkpoint: {every: 4, keep: 2}
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def recipe(tmp_path) -> Path:
    return write_recipe(tmp_path, 6)


def write_recipe(folder: Path, steps: int) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("STEPS", str(steps)))
    return path


def results(folder: Path) -> dict[str, object]:
    """What may not differ between two runs of one recipe: lines without timings, and the files of the net."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("timings", None)
    found: dict[str, object] = {"metrics": lines}
    parts = [*folder.glob("model/*"), *folder.glob("checkpoints/*/*.safetensors")]
    return found | {str(path.relative_to(folder)): path.read_bytes() for path in parts}


def command(recipe: Path, genome: Path, folder: Path) -> list[str]:
    words = ["pretrain", recipe, genome, "-o", folder, "--resume", "--device", "cpu", "-@", 1]
    return [sys.executable, "-m", "hyena_glt", *map(str, words)]


def num_lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_recipe_and_a_genome_become_a_net(cli, genome, recipe, tmp_path):
    folder = tmp_path / "run"
    done = cli("pretrain", recipe, genome, "-o", folder, "--set", "schedule.steps=3", "-@", 1, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert (facts["steps"], facts["model"]) == (3, str(folder / "model"))
    assert 0 < facts["held_out_bits_per_base"] < 10
    assert "bits per base held out" in done.err
    assert HyenaGLT.from_pretrained(folder / "model").external_patcher is not None
    again = cli("pretrain", recipe, genome, "-o", folder, "--set", "schedule.steps=3", "-@", 1)
    assert (again.code, again.out) == (0, "")
    assert "already done" in again.err
    other = cli("pretrain", recipe, genome, "-o", folder, "--resume", "-@", 1)
    assert other.code == 1
    assert "recipe.schedule.steps: 3, now 6" in other.err
    assert len(other.err.splitlines()) == 1


def test_files_may_stand_in_the_recipe(cli, genome, recipe, tmp_path):
    with open(recipe, "a") as file:
        file.write("precision: bf16\n")
    os.symlink(genome, tmp_path / "here.fa")
    words = ("--set", "schedule.steps=1", "--set", f"data.files=[{tmp_path / 'here.fa'}]")
    done = cli("pretrain", recipe, "-o", tmp_path / "run", *words, "-@", 1)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "optimizer.lr"], 2, "--set: expected key.path=value"),
        (["--set", "optimiser.lr=1"], 2, "did you mean optimizer?"),
        (["--set", "schedule.steps=few"], 2, "schedule.steps: expected a number, got 'few'"),
        (["--device", "gpu"], 1, "gpu"),
        (["--engine-strategy", "dp"], 2, "dp"),
    ],
)
def test_mistakes_are_one_line(cli, genome, recipe, tmp_path, words, code, said):
    done = cli("pretrain", recipe, genome, "-o", tmp_path / "run", *words)
    assert done.code == code
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_run_without_files_or_with_bad_ones_is_refused(cli, recipe, tmp_path):
    done = cli("pretrain", recipe, "-o", tmp_path / "run")
    assert done.code == 1
    assert "data.files" in done.err
    (tmp_path / "bad.fa").write_text("no fasta\n")
    done = cli("pretrain", recipe, tmp_path / "bad.fa", "-o", tmp_path / "run")
    assert done.code == 1
    assert "bad.fa:1" in done.err


def test_a_begun_run_needs_resume_or_force(cli, genome, recipe, tmp_path):
    folder = tmp_path / "run"
    words = ("pretrain", recipe, genome, "-o", folder, "-@", 1)
    assert cli(*words).code == 0
    (folder / "model" / "manifest.json").unlink()
    refused = cli(*words)
    assert refused.code == 2
    assert "--resume" in refused.err
    assert cli(*words, "--resume").code == 0
    assert cli(*words, "--force").code == 0


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_the_first_signal_is_noted_and_the_second_ends_the_program(number, kind):
    before = signal.getsignal(number)
    with stop_on_signal() as received:
        os.kill(os.getpid(), number)
        assert received == [number]
        with pytest.raises(kind):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_resume_goes_on(cli, genome, tmp_path, monkeypatch, number, code):
    from hyena_glt.training.trainer import Trainer

    recipe, update = write_recipe(tmp_path, 6), Trainer._update

    def interrupted(self):
        update(self)
        if self.step == 3:
            os.kill(os.getpid(), number)

    words = ("pretrain", recipe, genome, "--resume", "-@", 1, "-o")
    assert cli(*words, tmp_path / "whole").code == 0
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_update", interrupted)
        stopped = cli(*words, tmp_path / "parts")
    assert stopped.code == code
    assert "stopped after 3 updates" in stopped.err
    assert (tmp_path / "parts/checkpoints/step-000000003/manifest.json").exists()
    assert cli(*words, tmp_path / "parts").code == 0
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def kill_at_random(words: list[str], folder: Path, draws: random.Random, wait_for: int | None) -> bool:
    """Start a command and kill -9 it: after some lines of metrics, or at any time from its start; True if it was."""
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + (300 if wait_for is not None else draws.uniform(0, 12))
        while process.poll() is None and time.monotonic() < deadline:
            if wait_for is not None and num_lines(folder) >= wait_for:
                time.sleep(draws.uniform(0, 0.05))
                break
            time.sleep(0.002)
        was_running = process.poll() is None
    finally:
        process.kill()
        process.wait()
    return was_running


def check_kills(cli, genome, tmp_path, kills: int, steps: int, from_the_start: bool) -> None:
    recipe, draws = write_recipe(tmp_path, steps), random.Random(kills)
    done = cli(*command(recipe, genome, tmp_path / "whole")[3:])
    assert done.code == 0, done.err
    folder = tmp_path / "killed"
    killed = 0
    while killed < kills:
        wait_for = None if from_the_start and killed % 2 else draws.randint(1, num_lines(folder) + steps // kills)
        killed += kill_at_random(command(recipe, genome, folder), folder, draws, wait_for)
    done = cli(*command(recipe, genome, folder)[3:])
    assert done.code == 0, done.err
    assert results(folder) == results(tmp_path / "whole")


def test_three_kills_change_nothing(cli, genome, tmp_path):
    check_kills(cli, genome, tmp_path, kills=3, steps=30, from_the_start=False)


@pytest.mark.slow
def test_twenty_kills_change_nothing(cli, genome, tmp_path):
    check_kills(cli, genome, tmp_path, kills=20, steps=200, from_the_start=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_equal_one_with_batches_of_both(cli, genome, tmp_path, strategy):
    """Losses agree to rounding; without dropout, which each process draws for itself."""
    recipe = write_recipe(tmp_path, 6)
    changes = ["model.dropout=0.0", "evaluation.batches=2"]
    ours = [word for change in changes for word in ("--set", change)]
    words = ["--set", "batch.size=4", "--set", "evaluation.batches=1"]
    one = cli(*command(recipe, genome, tmp_path / "one")[3:], *ours, *words)
    assert one.code == 0, one.err
    run = [*command(recipe, genome, tmp_path / "two")[1:], *ours, "--engine-strategy", strategy]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, run)]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    expected, found = (results(tmp_path / name)["metrics"] for name in ("one", "two"))
    for lines in (expected, found):
        lines[:] = [line for line in lines if line["kind"] != "sample"]
    assert [(line["kind"], line["step"]) for line in found] == [(line["kind"], line["step"]) for line in expected]
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=1e-4)
    HyenaGLT.from_pretrained(tmp_path / "two" / "model")


@pytest.mark.slow
def test_a_real_genome_is_learned_better_than_by_its_composition(cli, data, tmp_path):
    genome = data("genomes/ecoli_K12_MG1655_NC_000913.3.fna.gz")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {preset: tiny}\ndata: {window: 2048, held_out_share: 0.05, gap: 2048}\n"
        "patching: {mode: static, size: 8}\nschedule: {steps: 150}\nbatch: {size: 4}\n"
        "optimizer: {lr: 4e-3}\nevaluation: {every: null, batches: 16}\n"
    )
    done = cli("pretrain", recipe, genome, "-o", tmp_path / "run", "--json", "--device", "cpu", "-@", 1)
    assert done.code == 0, done.err
    assert json.loads(done.out)["held_out_bits_per_base"] < 2.0
