"""Learning rates over a run, and which weights decay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hyena_glt.training.recipe import OptimizerSection, ScheduleSection
from hyena_glt.training.schedule import make_optimizer, matrix_names, rate_at, set_rate, share_done

shares = st.floats(0, 0.99)


@given(shares, shares, st.floats(0, 1), st.floats(0, 1))
def test_the_rate_rises_then_falls(warm_up, done, floor, share):
    rate = rate_at(done, warm_up, floor)
    assert min(floor, 0.05) <= rate <= 1.0 + 1e-12
    later = done + (1 - done) * share
    if done >= warm_up:
        assert rate_at(later, warm_up, floor) <= rate + 1e-12
    elif later < warm_up:
        assert rate_at(later, warm_up, floor) >= rate - 1e-12


def test_the_rate_at_the_edges():
    assert rate_at(0.0, 0.1, 0.2) == pytest.approx(0.1 / 1.1)
    assert rate_at(0.1, 0.1, 0.2) == 1.0
    assert rate_at(1.0, 0.1, 0.2) == pytest.approx(0.2)
    assert rate_at(0.55, 0.1, 0.2) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert rate_at(0.0, 0.0, 0.2) == 1.0


def test_a_run_ends_by_steps_or_seconds():
    assert share_done(ScheduleSection(steps=10), 5, 1e9) == 0.5
    assert share_done(ScheduleSection(seconds=10.0), 10**6, 2.5) == 0.25
    assert share_done(ScheduleSection(steps=10, seconds=10.0), 2, 9.0) == 0.9
    assert share_done(ScheduleSection(), 1000, 0.0) == share_done(ScheduleSection(steps=1), 7, 0.0) == 1.0


def test_only_matrices_of_linear_layers_decay():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv1d(4, 4, 3), nn.Embedding(5, 4))
    assert matrix_names(net) == {"0.weight"}
    optimizer = make_optimizer(net, OptimizerSection(lr=0.5, weight_decay=0.25, betas=(0.8, 0.9)))
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert decays.pop("0.weight") == 0.25
    assert set(decays.values()) == {0.0}
    assert set(decays) | {"0.weight"} == {name for name, _ in net.named_parameters()}
    set_rate(optimizer, 0.125)
    assert {group["lr"] for group in optimizer.param_groups} == {0.125}


def test_decay_pulls_matrices_to_zero_and_nothing_else():
    net = nn.Linear(2, 2)
    before = net.bias.detach().clone(), net.weight.detach().clone()
    optimizer = make_optimizer(net, OptimizerSection(lr=0.5, weight_decay=0.5))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(net.bias, before[0])
    torch.testing.assert_close(net.weight, before[1] * 0.75)
