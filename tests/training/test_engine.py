"""One process or several: equal gradients, numbers that all agree on, and no process that waits for ever.

Run as a script, this file is one process of those that the tests start.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.errors import ConfigError, ModelFileError, SystemProblem
from hyena_glt.ops.weight_cache import WEIGHT_CACHE
from hyena_glt.training.clipping import clip_by_global_norm
from hyena_glt.training.engine import OWN_VARIABLES, VARIABLES, Engine, whole_tensor
from hyena_glt.training.state import optimizer_tensors, restore_optimizer, restore_rng, rng_state

SMALL = {
    "hidden_size": 24,
    "num_layers": 3,
    "local_hidden_size": 16,
    "ngram_sizes": (2, 4),
    "ngram_table_size": 64,
    "filter_hidden_size": 8,
    "medium_filter_length": 24,
}
LENGTHS = (40, 33, 9, 2)  # bases of the rows of a batch: half of it has 71 targets, half 9
PATCH = 4
MAX_NORM = 0.05
TIMEOUT_S = 60.0
WORLD = 2


def small_net(seed: int = 0) -> nn.Module:
    from hyena_glt.model import HyenaGLT  # some of the processes need no net, and start faster without

    torch.manual_seed(seed)
    return HyenaGLT(HyenaGLTConfig(**SMALL))


def make_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`(4, 40)` tokens, padded with -1, and their static patch lengths."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([69, 71, 75, 88])[torch.randint(0, 4, (len(LENGTHS), max(LENGTHS)), generator=generator)]
    tokens[torch.arange(max(LENGTHS)) >= torch.tensor(LENGTHS)[:, None]] = -1
    starts = torch.arange(0, max(LENGTHS), PATCH)
    return tokens, (torch.tensor(LENGTHS)[:, None] - starts).clamp(0, PATCH)


def loss_sum(net: nn.Module, tokens: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Sum of the losses of a batch, and its number of targets."""
    from hyena_glt.model.heads import token_losses

    targets = tokens[:, 1:]
    logits = net(tokens, lengths).logits[:, :-1]
    return token_losses(logits, targets).sum(), int((targets != -1).sum())


def half(rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, lengths = make_batch(seed)
    return tokens[rank * 2 : rank * 2 + 2], lengths[rank * 2 : rank * 2 + 2]


def gradients(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole_tensor(weight.grad).clone() for name, weight in net.named_parameters()}


def make_optimizer(net: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(net.named_parameters(), lr=1e-3)


def update(engine: Engine, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> float:
    """One update from this rank's half of a batch, or from all of it with one process."""
    batch = make_batch(seed) if engine.world == 1 else half(engine.rank, seed)
    optimizer.zero_grad()
    engine.scaled_loss(*loss_sum(model, *batch)).backward()
    norm = clip_by_global_norm(engine.unwrap(model).parameters(), MAX_NORM, engine)
    optimizer.step()
    return norm


def held_out_loss(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        total, count = loss_sum(model, *make_batch(99))
    model.train()
    return float(total / count)


def is_mark_forgotten(model: nn.Module) -> bool:
    """Whether a forward empties the cache of values that follow from weights."""
    weight, computed = torch.ones(1), []

    def look() -> None:
        with torch.no_grad():
            WEIGHT_CACHE.get("mark", [weight], lambda: computed.append(1) or weight, lambda value: [value])

    look()
    held_out_loss(model)
    look()
    return len(computed) == 2


# ---- what each process does; named on the command line -------------------------------------------------------------


def equal_gradients(folder: Path, strategy: str) -> None:
    """Gradients and updates of two ranks, and a resumed second update beside the undisturbed one."""
    with Engine.from_environment("cpu", strategy, timeout_s=TIMEOUT_S) as engine:
        model = engine.prepare(small_net(seed=engine.rank))  # rank 0's weights are to be everybody's
        net, tensors, numbers = engine.unwrap(model), {}, {}
        names = [name for name, _ in net.named_parameters()]
        engine.scaled_loss(*loss_sum(model, *half(engine.rank))).backward()
        tensors |= {f"gradient/{name}": tensor for name, tensor in gradients(net).items()}
        numbers["norm"] = clip_by_global_norm(net.parameters(), MAX_NORM, engine)
        tensors |= {f"clipped/{name}": tensor for name, tensor in gradients(net).items()}

        net.zero_grad()
        total = engine.sum(float(2 * loss_sum(model, *half(engine.rank))[1]))
        with engine.no_sync(model):
            engine.scaled_loss(*loss_sum(model, *half(engine.rank)), total).backward()
        engine.scaled_loss(*loss_sum(model, *half(engine.rank)), total).backward()
        tensors |= {f"accumulated/{name}": tensor for name, tensor in gradients(net).items()}

        optimizer = make_optimizer(net)
        update(engine, model, optimizer, 1)
        numbers["held_out_first"] = held_out_loss(model)
        state, (slots, facts) = engine.full_state(model), optimizer_tensors(optimizer)
        update(engine, model, optimizer, 2)
        numbers["held_out"] = held_out_loss(model)
        end = engine.full_state(model)
        tensors |= {f"end/{name}": tensor for name, tensor in end.items()}

        saved = {name: torch.empty_like(tensor) for name, tensor in small_net().state_dict().items()}
        if engine.is_main:
            save_file(state, folder / f"{strategy}.state")
        engine.barrier()
        saved |= load_file(folder / f"{strategy}.state")
        again = engine.prepare(small_net(seed=7))
        engine.load_full_state(again, saved)
        optimizer = make_optimizer(engine.unwrap(again))
        restore_optimizer(optimizer, slots, facts)
        update(engine, again, optimizer, 2)
        resumed = engine.full_state(again)
        numbers["num_gathered"] = len(end)
        numbers["is_mark_forgotten"] = is_mark_forgotten(model)
        numbers["is_resume_bitwise"] = all(torch.equal(end[name], resumed[name]) for name in end)
        numbers["are_names_plain"] = names == [name for name, _ in small_net().named_parameters()]
        _save(folder / f"{strategy}.{engine.rank}", tensors, numbers)


def one_process(folder: Path) -> None:
    engine = Engine(torch.device("cpu"))
    net, tensors, numbers = small_net(), {}, {}
    engine.scaled_loss(*loss_sum(net, *make_batch())).backward()
    tensors |= {f"gradient/{name}": tensor for name, tensor in gradients(net).items()}
    numbers["norm"] = clip_by_global_norm(net.parameters(), MAX_NORM, engine)
    tensors |= {f"clipped/{name}": tensor for name, tensor in gradients(net).items()}
    optimizer = make_optimizer(net)
    update(engine, net, optimizer, 1)
    numbers["held_out_first"] = held_out_loss(net)
    update(engine, net, optimizer, 2)
    numbers["held_out"] = held_out_loss(net)
    tensors |= {f"end/{name}": tensor for name, tensor in net.state_dict().items()}
    _save(folder / "one", tensors, numbers)


def agree(folder: Path) -> None:
    """The small collectives, all in one run."""
    with Engine.from_environment("cpu", timeout_s=TIMEOUT_S) as engine:
        rank = engine.rank
        random_state, _ = rng_state(engine.device)
        torch.manual_seed(rank)
        own, facts = rng_state(engine.device)
        expected = torch.rand(3)
        stacked = engine.stack(own)
        restore_rng({name: rows[rank] for name, rows in stacked.items()}, facts, engine.device)
        numbers = {
            "world": engine.world,
            "is_main": engine.is_main,
            "all_true": [engine.all_true(True), engine.all_true(rank == 0), engine.all_true(torch.tensor(rank == 1))],
            "sum": engine.sum(rank + 1.0),
            "sums": engine.sum([rank + 1.0, 10.0]),
            "named": engine.sum({"a": rank + 1.0, "b": 2.0}),
            "mean": engine.mean(rank + 1.0),
            "means": engine.mean({"a": rank + 1.0}),
            "from_main": engine.from_main(5.0 if rank == 0 else 9.0),
            "nan": str(engine.sum(float("nan") if rank else 1.0)),
            "rows": len(stacked["torch"]),
            "is_rng_own": torch.equal(torch.rand(3), expected) and random_state.keys() == own.keys(),
        }
        _save(folder / f"agree.{rank}", {}, numbers)


def lost(folder: Path, kind: str) -> None:
    """Rank 1 fails in one of several ways; rank 0 says what it saw, and after how long."""
    with Engine.from_environment("cpu", timeout_s=8.0 if kind == "hangs" else TIMEOUT_S) as engine:
        model = engine.prepare(nn.Linear(3, 1))
        engine.barrier()
        if engine.rank == 1 and kind == "raises":
            raise RuntimeError("rank 1 has a problem of its own")
        if engine.rank == 1 and kind == "is killed":
            os.kill(os.getpid(), 9)
        if engine.rank == 1:
            time.sleep(20)
        began = time.monotonic()
        try:
            with engine.watched():
                engine.scaled_loss(model(torch.ones(2, 3)).sum(), 2, 4.0).backward()
            engine.barrier()
        except SystemProblem as problem:
            _save(folder / f"lost.{engine.rank}", {}, {"problem": str(problem), "seconds": time.monotonic() - began})
            os._exit(3)


def leave(folder: Path, strategy: str) -> None:
    """The threads that are left when the engine is closed; with DDP while the net that it spread lives on."""
    with Engine.from_environment("cpu", strategy, timeout_s=TIMEOUT_S) as engine:
        model = engine.prepare(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)))
        engine.scaled_loss(model(torch.ones(2, 3)).sum(), 2).backward()
        rank = engine.rank
        if strategy == "fsdp2":
            del model
    tasks = Path("/proc/self/task").iterdir()
    _save(folder / f"leave.{strategy}.{rank}", {}, {"threads": [(task / "comm").read_text().strip() for task in tasks]})


def _save(path: Path, tensors: dict, numbers: dict) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, f"{path}.safetensors")
    Path(f"{path}.json").write_text(json.dumps(numbers))


# ---- starting them -------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(*words: str | os.PathLike[str], world: int = WORLD, limit_s: float = 120) -> list[int]:
    """Run this file in as many processes as the world has; their exit codes."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = []
    for rank in range(world):
        own = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen([sys.executable, __file__, *map(os.fspath, words)], env=own))
    try:
        return [process.wait(timeout=limit_s) for process in processes]
    finally:
        for process in processes:
            process.kill()


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    return load_file(f"{path}.safetensors"), json.loads(Path(f"{path}.json").read_text())


def relative_error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], kind: str, like: str) -> float:
    """Norm of the difference over the norm of what is expected, all tensors of a kind together."""
    names = [name.removeprefix(f"{like}/") for name in expected if name.startswith(f"{like}/")]
    assert len(names) > 50
    wrong = sum((found[f"{kind}/{n}"] - expected[f"{like}/{n}"]).double().square().sum() for n in names)
    return float((wrong / sum(expected[f"{like}/{n}"].double().square().sum() for n in names)).sqrt())


@pytest.fixture
def alone(monkeypatch) -> Engine:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Engine.from_environment("cpu")


# ---- one process ---------------------------------------------------------------------------------------------------


def test_one_process_needs_no_group(alone):
    net = nn.Linear(2, 1)
    assert alone.prepare(net) is net
    assert (alone.rank, alone.world, alone.is_main, alone.device.type) == (0, 1, True, "cpu")
    assert not torch.distributed.is_initialized()
    with alone.no_sync(net), alone.watched():
        alone.barrier()
    alone.close()
    alone.close()


def test_numbers_of_one_process_stay_as_they_are(alone):
    assert alone.sum(2) == alone.mean(2) == alone.from_main(2) == 2.0
    assert alone.sum(torch.tensor(2.5)) == 2.5
    assert alone.sum([1, 2.5]) == alone.mean([1, 2.5]) == [1.0, 2.5]
    assert alone.sum({"a": 1}) == alone.mean({"a": 1}) == {"a": 1.0}
    assert alone.all_true(True)
    assert not alone.all_true(torch.tensor(False))
    assert torch.equal(alone.stack({"a": torch.arange(3)})["a"], torch.arange(3)[None])


@pytest.mark.parametrize("num_targets", [1, 7, 1000])
def test_scaled_loss_of_one_process_is_the_mean(alone, num_targets):
    losses = torch.rand(num_targets, generator=torch.Generator().manual_seed(0))
    assert torch.equal(alone.scaled_loss(losses.sum(), num_targets), losses.sum() / num_targets)


def test_scaled_loss_of_parts_adds_up_to_the_mean(alone):
    losses = torch.arange(10.0)
    parts = [alone.scaled_loss(part.sum(), len(part), 10) for part in losses.split([2, 7, 1])]
    torch.testing.assert_close(sum(parts), losses.mean())


def test_scaled_loss_without_targets_is_zero(alone):
    assert float(alone.scaled_loss(torch.zeros(()), 0)) == 0.0


def test_state_is_a_copy_and_comes_back(alone):
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    state = alone.full_state(net)
    before = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(1)
    assert all(torch.equal(state[name], before[name]) for name in before)
    alone.load_full_state(net, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("bias"), "1 missing tensors, such as bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 unexpected tensors, such as extra"),
        (lambda t: t.update(bias=torch.zeros(3)), r"bias: expected torch.float32 \(1,\), got torch.float32 \(3,\)"),
        (lambda t: t.update(bias=torch.zeros(1).double()), r"bias: expected torch.float32 .*, got torch.float64"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(alone, change, reason):
    net = nn.Linear(2, 1)
    state = alone.full_state(net)
    tensors = {name: tensor + 1 for name, tensor in state.items()}
    change(tensors)
    with pytest.raises(ModelFileError, match=reason):
        alone.load_full_state(net, tensors)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when the compiler is imported
def test_the_wrapper_of_compile_is_taken_off(alone):
    net = nn.Linear(2, 1)
    compiled = torch.compile(net, backend="eager")
    assert alone.unwrap(compiled) is net
    assert alone.full_state(compiled).keys() == {"weight", "bias"}


GOOD = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize("name", sorted(GOOD))
@pytest.mark.parametrize("value", [None, ""])
def test_a_half_set_environment_is_refused_by_name(monkeypatch, name, value):
    for key in GOOD:
        monkeypatch.setenv(key, GOOD[key])
    monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"environment: {name} not set.*torchrun"):
        Engine.from_environment("cpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RANK", "2"),
        ("RANK", "-1"),
        ("RANK", "x"),
        ("WORLD_SIZE", "0"),
        ("WORLD_SIZE", "1.5"),
        ("WORLD_SIZE", "²"),
        ("LOCAL_RANK", "2"),
        ("MASTER_PORT", "70000"),
        ("MASTER_PORT", "0"),
    ],
)
def test_a_variable_out_of_range_is_named(monkeypatch, name, value):
    for key in GOOD:
        monkeypatch.setenv(key, GOOD[key])
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"environment: {name}: expected a whole number from .*, got"):
        Engine.from_environment("cpu")


def test_a_master_without_ranks_is_no_torchrun(monkeypatch):
    for name in OWN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert Engine.from_environment("cpu").world == 1


@pytest.mark.parametrize("options", [{"device": "tpu9"}, {"device": "meta"}, {"strategy": "zero"}, {"timeout_s": 0}])
def test_unknown_options_are_refused(alone, options):
    with pytest.raises(ConfigError, match=r"device: |strategy: |timeout_s: "):
        Engine.from_environment(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_that_is_not_there_is_a_problem_of_the_system(alone):
    with pytest.raises(SystemProblem, match="expected a CUDA device"):
        Engine.from_environment("cuda")


def test_other_processes_that_never_come_end_the_wait(monkeypatch):
    for key, value in {**GOOD, "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(SystemProblem, match="rank 0 of 2: another process"):
        Engine.from_environment("cpu", timeout_s=1)
    assert not torch.distributed.is_initialized()


def test_watched_leaves_other_errors_alone(alone):
    with pytest.raises(RuntimeError, match="shape"), alone.watched():
        raise RuntimeError("shapes do not fit")


# ---- two processes -------------------------------------------------------------------------------------------------


def test_two_processes_agree(tmp_path):
    assert start("agree", tmp_path) == [0, 0]
    for rank in range(WORLD):
        _, numbers = read(tmp_path / f"agree.{rank}")
        assert numbers == {
            "world": 2,
            "is_main": rank == 0,
            "all_true": [True, False, False],
            "sum": 3.0,
            "sums": [3.0, 20.0],
            "named": {"a": 3.0, "b": 4.0},
            "mean": 1.5,
            "means": {"a": 1.5},
            "from_main": 5.0,
            "nan": "nan",
            "rows": 2,
            "is_rng_own": True,
        }


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed in /proc")
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_a_closed_engine_leaves_no_thread_of_gloo(tmp_path, strategy):
    """One that lets go of a tensor as Python ends would abort the process."""
    assert start("leave", tmp_path, strategy) == [0, 0]
    for rank in range(WORLD):
        _, found = read(tmp_path / f"leave.{strategy}.{rank}")
        assert not [name for name in found["threads"] if "gloo" in name]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_compute_what_one_computes(tmp_path, strategy):
    """Also with unequal halves: 71 targets here, 9 there. 1e-6 is rounding of float32 sums in another order."""
    one_process(tmp_path)
    expected, numbers = read(tmp_path / "one")
    num_tensors = sum(name.startswith("end/") for name in expected)
    assert start("equal_gradients", tmp_path, strategy, limit_s=300) == [0, 0]
    for rank in range(WORLD):
        found, own = read(tmp_path / f"{strategy}.{rank}")
        for kind in ("gradient", "clipped"):
            assert relative_error(found, expected, kind, kind) < 1e-6
        assert relative_error(found, expected, "accumulated", "gradient") < 1e-6
        assert own["norm"] == pytest.approx(numbers["norm"], rel=1e-6)
        assert own["held_out_first"] == pytest.approx(numbers["held_out_first"], rel=1e-6)
        assert own["held_out"] == pytest.approx(numbers["held_out"], rel=1e-6)
        assert own["are_names_plain"]
        assert own["is_resume_bitwise"]
        assert own["is_mark_forgotten"] == (strategy == "fsdp2")
        assert own["num_gathered"] == (num_tensors if rank == 0 else 0)
    end, _ = read(tmp_path / f"{strategy}.0")
    assert relative_error(end, expected, "end", "end") < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raises", "is killed", "hangs"])
def test_a_lost_process_ends_the_other(tmp_path, kind):
    began = time.monotonic()
    codes = start("lost", tmp_path, kind)
    assert codes[0] == 3
    assert codes[1] == {"raises": 1, "is killed": -9, "hangs": 3}[kind]
    _, seen = read(tmp_path / "lost.0")
    assert "rank 0 of 2: another process has ended or does not answer" in seen["problem"]
    assert seen["seconds"] < 20
    assert time.monotonic() - began < 120


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
    sys.exit()
