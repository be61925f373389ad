"""Clipping by the global norm; with two processes it is checked in test_engine."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.training.clipping import clip_by_global_norm
from hyena_glt.training.engine import Engine

ENGINE = Engine(torch.device("cpu"))


def with_gradients(*values: list[float] | None) -> list[torch.nn.Parameter]:
    parameters = []
    for value in values:
        parameter = torch.nn.Parameter(torch.zeros(len(value or [0.0])))
        parameter.grad = None if value is None else torch.tensor(value)
        parameters.append(parameter)
    return parameters


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=5), min_size=1, max_size=4),
    max_norm=st.floats(1e-3, 1e4),
)
def test_the_norm_is_that_of_all_values_and_at_most_the_limit_afterwards(values, max_norm):
    parameters = with_gradients(*values)
    expected = torch.tensor([x for value in values for x in value]).double().norm().item()
    assert clip_by_global_norm(parameters, max_norm, ENGINE) == pytest.approx(expected, rel=1e-6, abs=1e-30)
    after = torch.cat([parameter.grad for parameter in parameters]).double().norm().item()
    assert after == pytest.approx(min(expected, max_norm), rel=1e-5, abs=1e-30)


def test_short_gradients_stay_bitwise():
    parameters = with_gradients([3.0, 4.0], None, [0.1])
    before = [parameters[0].grad.clone(), parameters[2].grad.clone()]
    clip_by_global_norm(parameters, 5.01, ENGINE)
    assert torch.equal(parameters[0].grad, before[0])
    assert torch.equal(parameters[2].grad, before[1])
    assert parameters[1].grad is None


def test_infinity_only_measures():
    parameters = with_gradients([3e10, 4e10])
    assert clip_by_global_norm(parameters, math.inf, ENGINE) == pytest.approx(5e10)
    assert parameters[0].grad.tolist() == torch.tensor([3e10, 4e10]).tolist()


def test_no_gradients_have_norm_zero():
    assert clip_by_global_norm(with_gradients(None), 1.0, ENGINE) == 0.0
    assert clip_by_global_norm([], 1.0, ENGINE) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_is_reported_and_nothing_is_scaled(bad):
    parameters = with_gradients([3.0, bad], [100.0])
    assert not math.isfinite(clip_by_global_norm(parameters, 1.0, ENGINE))
    assert parameters[1].grad.item() == 100.0
    assert parameters[0].grad[0].item() == 3.0


def test_a_generator_of_parameters_is_read_once():
    parameters = with_gradients([3.0, 4.0])
    assert clip_by_global_norm((parameter for parameter in parameters), 1.0, ENGINE) == 5.0
    assert parameters[0].grad.norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize("limit", [0, -1.0, math.nan])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ConfigError, match="max_norm: expected a number above 0"):
        clip_by_global_norm(with_gradients([1.0]), limit, ENGINE)
