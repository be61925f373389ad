"""Filters depend on the lag alone and equal their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt.layers import ExplicitFilter, ExponentialFilter, ImplicitFilter
from hyena_glt.layers.hyena_filter import SummedFilter, decay, half_life_rates, unit_energy


def every_filter():
    torch.manual_seed(0)
    return [
        ExplicitFilter(6, 300, decays=True),
        ExplicitFilter(6, 7),
        ImplicitFilter(6, 8),
        ExponentialFilter(6, 5),
        SummedFilter(ImplicitFilter(6, 8), ExponentialFilter(6, 5)),
    ]


@pytest.mark.parametrize("index", range(5))
def test_a_longer_filter_begins_with_the_shorter_one(index):
    taps = every_filter()[index]
    whole = taps(290)
    for length in (0, 1, 2, 127, 128, 129, 290):
        part = taps(length)
        assert part.shape == (6, min(length, whole.shape[1]))
        torch.testing.assert_close(part, whole[:, :length], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("index", range(5))
def test_every_parameter_has_a_gradient(index):
    taps = every_filter()[index]
    taps(50).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in taps.parameters())


@pytest.mark.parametrize("index", range(5))
def test_filters_are_float32_under_autocast(index):
    taps = every_filter()[index]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = taps(40)
    assert mixed.dtype is torch.float32
    assert torch.equal(mixed, taps(40))


def test_the_exponential_filter_is_the_sum_of_its_exponentials():
    taps = ExponentialFilter(3, 4)
    lags = torch.arange(500, dtype=torch.float64)
    rate = taps.log_rate.double().exp()
    energy = (1 - (-2 * rate).exp()).sqrt()
    terms = (taps.amplitude.double() * energy).unsqueeze(-1) * (-rate.unsqueeze(-1) * lags).exp()
    torch.testing.assert_close(taps(500).double(), terms.sum(1), atol=1e-6, rtol=1e-5)


def test_decay_equals_the_exponential():
    rates = half_life_rates(5, 1, 4096)
    expected = (-rates.double().exp().unsqueeze(-1) * torch.arange(1000)).exp()
    torch.testing.assert_close(decay(rates, 1000).double(), expected, atol=1e-6, rtol=1e-5)


def test_half_lives_run_from_the_shortest_to_the_longest():
    half_lives = math.log(2) / half_life_rates(3, 2, 32).exp()
    assert half_lives.tolist() == pytest.approx([2, 8, 32], rel=1e-5)


def test_unit_energy_makes_the_squares_sum_to_one():
    rates = half_life_rates(4, 1, 64)
    window = decay(rates, 4096) * unit_energy(rates)
    torch.testing.assert_close(window.square().sum(1), torch.ones(4), atol=1e-5, rtol=0)


def test_the_explicit_filter_without_decay_is_its_taps():
    taps = ExplicitFilter(3, 7)
    assert torch.equal(taps(100), taps.taps)
