"""Optimizer and random generators: the same next update and the same next numbers, bit for bit, after a round trip."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.training.state import optimizer_tensors, restore_optimizer, restore_rng, rng_state

CPU = torch.device("cpu")


def make_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def adamw(net: nn.Module, **options) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.named_parameters(), **{"lr": 1e-2, **options})


def two_groups(net: nn.Module, **options) -> torch.optim.Optimizer:
    named = list(net.named_parameters())
    matrices = [pair for pair in named if pair[1].ndim > 1]
    vectors = [pair for pair in named if pair[1].ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-2, **options)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        optimizer.zero_grad()
        net(torch.randn(5, 3, generator=generator)).square().mean().backward()
        optimizer.step()


def through_files(tensors, facts):
    """As a checkpoint would keep them."""
    return load(save(tensors)), json.loads(json.dumps(facts, allow_nan=False))


def copy_of(net: nn.Module) -> nn.Module:
    other = make_net(seed=9)
    other.load_state_dict(net.state_dict())
    return other


def assert_same_weights(net: nn.Module, other: nn.Module) -> None:
    for (name, weight), (_, found) in zip(net.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(weight, found), name


OPTIMIZERS = {
    "adamw": adamw,
    "two groups": two_groups,
    "amsgrad": lambda net: adamw(net, amsgrad=True, betas=(0.8, 0.95)),
    "not foreach": lambda net: adamw(net, foreach=False),
    "learning rate as tensor": lambda net: adamw(net, lr=torch.tensor(1e-2), foreach=False),
    "momentum": lambda net: torch.optim.SGD(net.named_parameters(), lr=1e-2, momentum=0.9),
    "plain": lambda net: torch.optim.SGD(net.named_parameters(), lr=1e-2),
    "step in numbers": lambda net: torch.optim.Rprop(net.named_parameters(), lr=1e-2),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_the_next_updates_are_bitwise_the_same(make, num_steps):
    net = make_net()
    optimizer = make(net)
    train(net, optimizer, num_steps, seed=1)
    state = through_files(*optimizer_tensors(optimizer))
    other = copy_of(net)
    restored = make(other)
    restore_optimizer(restored, *state)
    train(net, optimizer, 3, seed=2)
    train(other, restored, 3, seed=2)
    assert_same_weights(net, other)


def test_a_schedule_of_learning_rates_goes_on():
    net = make_net()
    optimizer = adamw(net)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    train(net, optimizer, 2, seed=1)
    schedule.step()
    state = through_files(*optimizer_tensors(optimizer))
    restored = adamw(copy_of(net))
    restore_optimizer(restored, *state)
    assert restored.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 5e-3
    assert restored.param_groups[0]["betas"] == (0.9, 0.999)


def test_how_an_update_is_computed_stays_with_the_running_optimizer():
    net = make_net()
    optimizer = adamw(net, foreach=True)
    train(net, optimizer, 1, seed=1)
    state = optimizer_tensors(optimizer)
    restored = adamw(net, foreach=False, lr=3.0)
    restore_optimizer(restored, *state)
    assert restored.param_groups[0]["foreach"] is False
    assert restored.param_groups[0]["lr"] == 1e-2


def test_parameters_are_matched_by_name_and_not_by_order():
    net = make_net()
    optimizer = adamw(net)
    train(net, optimizer, 2, seed=1)
    state = through_files(*optimizer_tensors(optimizer))
    other = copy_of(net)
    restored = torch.optim.AdamW(list(other.named_parameters())[::-1], lr=1e-2)
    restore_optimizer(restored, *state)
    train(net, optimizer, 2, seed=2)
    train(other, restored, 2, seed=2)
    assert_same_weights(net, other)


def test_the_state_is_a_copy_on_both_sides():
    net = make_net()
    optimizer = adamw(net)
    train(net, optimizer, 1, seed=1)
    tensors, facts = optimizer_tensors(optimizer)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    train(net, optimizer, 1, seed=2)
    restore_optimizer(optimizer, tensors, facts)
    train(net, optimizer, 1, seed=2)
    assert all(torch.equal(tensors[name], before[name]) for name in before)


def test_state_of_a_frozen_parameter_may_be_absent():
    net = make_net()
    net[0].requires_grad_(False)
    optimizer = adamw(net)
    train(net, optimizer, 1, seed=1)
    tensors, facts = optimizer_tensors(optimizer)
    assert {name.partition(":")[0] for name in tensors} == {"2.weight", "2.bias"}
    restore_optimizer(adamw(net), tensors, facts)


def test_ranks_that_write_nothing_keep_nothing():
    net = make_net()
    optimizer = adamw(net)
    train(net, optimizer, 1, seed=1)
    tensors, facts = optimizer_tensors(optimizer, is_kept=False)
    assert tensors == {}
    assert facts == optimizer_tensors(optimizer)[1]


def test_parameters_without_names_are_refused():
    optimizer = torch.optim.AdamW(make_net().parameters())
    with pytest.raises(ConfigError, match="expected named parameters"):
        optimizer_tensors(optimizer)


def test_state_that_is_no_data_is_refused():
    net = make_net()
    optimizer = adamw(net)
    train(net, optimizer, 1, seed=1)
    optimizer.state[net[0].weight]["hook"] = print
    with pytest.raises(ConfigError, match=r"0\.weight:hook: expected a tensor or a JSON value, got builtin"):
        optimizer_tensors(optimizer)


def test_the_state_of_another_class_is_refused():
    net = make_net()
    state = optimizer_tensors(adamw(net))
    with pytest.raises(ModelFileError, match="expected the state of SGD, got that of 'AdamW'"):
        restore_optimizer(torch.optim.SGD(net.named_parameters(), lr=1.0), *state)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t, f: f["groups"].append({}), "expected 1 groups of parameters, got 2"),
        (lambda t, f: f.update(groups=None), "expected 1 groups of parameters, got None"),
        (lambda t, f: f.update(groups=[3]), "group 0: expected names and options"),
        (lambda t, f: f["groups"][0]["names"].append("x"), "group 0: 1 unexpected, such as x"),
        (lambda t, f: f["groups"][0]["names"].remove("0.bias"), r"group 0: 1 missing, such as 0\.bias"),
        (lambda t, f: t.update({"x:step": torch.zeros(())}), "x:step: expected the state of a parameter"),
        (lambda t, f: f["numbers"].update(x={"step": 1}), "state of an unknown parameter x"),
        (lambda t, f: t.update({"0.bias:exp_avg": torch.zeros(5)}), r"0\.bias:exp_avg: expected \(4,\), got \(5,\)"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, reason):
    net = make_net()
    optimizer = adamw(net)
    train(net, optimizer, 1, seed=1)
    before, _ = optimizer_tensors(optimizer)
    train(net, optimizer, 1, seed=2)
    tensors, facts = optimizer_tensors(optimizer)
    change(tensors, facts)
    restore_optimizer(optimizer, before, optimizer_tensors(optimizer)[1])
    with pytest.raises(ModelFileError, match=reason):
        restore_optimizer(optimizer, tensors, facts)
    after, _ = optimizer_tensors(optimizer)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def draw() -> tuple:
    """A few numbers of every generator, of both kinds that keep a number for the next call."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.random(),  # noqa: NPY002
        np.random.standard_normal(),  # noqa: NPY002
        *torch.rand(3).tolist(),
        *torch.randn(1).tolist(),
    )


@pytest.fixture
def _generators_as_they_were():
    state = rng_state(CPU)
    yield
    restore_rng(*state, CPU)


@pytest.mark.usefixtures("_generators_as_they_were")
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_draws=st.integers(0, 5))
def test_random_numbers_go_on_bitwise(seed, num_draws):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    for _ in range(num_draws):
        draw()
    state = through_files(*rng_state(CPU))
    expected = [draw() for _ in range(3)]
    restore_rng(*state, CPU)
    assert [draw() for _ in range(3)] == expected


@pytest.mark.usefixtures("_generators_as_they_were")
def test_states_of_several_ranks_come_back_from_rows():
    states, expected = [], []
    for rank in range(3):
        torch.manual_seed(rank)
        random.seed(rank)
        states.append(rng_state(CPU))
        expected.append(draw())
    rows = {name: torch.stack([tensors[name] for tensors, _ in states]) for name in states[0][0]}
    for rank in (2, 0, 1):
        restore_rng({name: row[rank] for name, row in rows.items()}, states[0][1], CPU)
        assert draw()[0] == expected[rank][0]
        restore_rng({name: row[rank] for name, row in rows.items()}, states[0][1], CPU)
        assert draw()[4:] == expected[rank][4:]


@pytest.mark.usefixtures("_generators_as_they_were")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t, f: t.pop("numpy"), "expected a state of 'numpy', got none"),
        (lambda t, f: t.update(torch=torch.zeros(3, dtype=torch.uint8)), "torch: expected torch.uint8"),
        (lambda t, f: t.update(python=t["python"].float()), "python: expected torch.int64"),
        (lambda t, f: f.update(numpy="PCG64"), "expected states of this Python"),
        (lambda t, f: f.pop("python"), "expected states of this Python"),
    ],
)
def test_a_random_state_that_does_not_fit_changes_nothing(change, reason):
    before, _ = rng_state(CPU)
    tensors, facts = rng_state(CPU)
    random.random(), torch.rand(1)
    now, _ = rng_state(CPU)
    change(tensors, facts)
    with pytest.raises(ModelFileError, match=reason):
        restore_rng(tensors, facts, CPU)
    after, _ = rng_state(CPU)
    assert all(torch.equal(now[name], after[name]) for name in now)
    assert not torch.equal(before["python"], after["python"])


@pytest.mark.usefixtures("_generators_as_they_were")
def test_states_of_cuda_devices_that_are_not_here_are_left_out_with_a_warning(caplog):
    tensors, facts = rng_state(CPU)
    restore_rng({**tensors, "cuda_0": torch.zeros(16, dtype=torch.uint8)}, facts, CPU)
    assert "states of 1 CUDA devices were saved, 0 are here" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_random_numbers_of_cuda_go_on_bitwise():
    state = through_files(*rng_state("cuda"))
    expected = torch.rand(4, device="cuda")
    restore_rng(*state, "cuda")
    assert torch.equal(torch.rand(4, device="cuda"), expected)
