"""HyenaDNA's filter equals the formula of its paper, and its state dict loads."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt.errors import ConfigError, ModelFileError
from hyena_glt.layers import HyenaDNAFilter, load_hyenadna_filter

CHANNELS, HIDDEN, FEATURES, LENGTH = 6, 8, 5, 50
PREFIX = "backbone.layers.0.mixer.filter_fn."


def state_dict(num_inner: int = 2, frequency: float = 10.0) -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes of a HyenaDNA checkpoint."""
    torch.manual_seed(0)
    last = 2 * (num_inner + 1)
    weights = {
        "bias": torch.randn(CHANNELS),
        "implicit_filter.0.weight": torch.randn(HIDDEN, FEATURES),
        "implicit_filter.0.bias": torch.randn(HIDDEN),
        f"implicit_filter.{last}.weight": torch.randn(CHANNELS, HIDDEN),
        "pos_emb.z": features().unsqueeze(0) + 0.01 * torch.randn(1, LENGTH, FEATURES),
        "pos_emb.t": torch.linspace(0, 1, LENGTH).view(1, -1, 1),
        "modulation.deltas": torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, CHANNELS).view(1, 1, -1),
    }
    for place in range(2, last, 2):
        weights[f"implicit_filter.{place}.weight"] = torch.randn(HIDDEN, HIDDEN) / HIDDEN**0.5
        weights[f"implicit_filter.{place}.bias"] = torch.randn(HIDDEN)
    frequencies = frequency * (1 + 0.1 * torch.randn(1, HIDDEN))
    weights.update({f"implicit_filter.{place}.freq": frequencies for place in range(1, last, 2)})
    return {PREFIX + name: tensor for name, tensor in weights.items()}


def features() -> torch.Tensor:
    """z of one lag at a time: t, then the real and imaginary parts of exp(-i f w)."""
    rows = []
    for lag in range(LENGTH):
        waves = [complex(math.cos(f * w), -math.sin(f * w)) for f in (1e-4, 1.0) for w in [2 * math.pi * lag / LENGTH]]
        rows.append([lag / (LENGTH - 1), *(wave.real for wave in waves), *(wave.imag for wave in waves)])
    return torch.tensor(rows)


def by_the_formula(weights: dict[str, torch.Tensor], num_inner: int, shift: float) -> torch.Tensor:
    """One lag at a time, in float64."""
    w = {name.removeprefix(PREFIX): tensor.double() for name, tensor in weights.items()}
    columns = []
    for lag in range(LENGTH):
        hidden = w["pos_emb.z"][0, lag]
        for place in range(0, 2 * (num_inner + 1), 2):
            linear = w[f"implicit_filter.{place}.weight"] @ hidden + w[f"implicit_filter.{place}.bias"]
            hidden = torch.sin(w[f"implicit_filter.{place + 1}.freq"][0] * linear)
        h = w[f"implicit_filter.{2 * (num_inner + 1)}.weight"] @ hidden
        window = torch.exp(-w["pos_emb.t"][0, lag, 0] * w["modulation.deltas"].flatten().abs())
        columns.append(h * (window + shift))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize(("num_inner", "shift"), [(2, 0.0), (1, 0.05), (3, 0.0)])
def test_a_loaded_filter_equals_the_formula(num_inner, shift):
    weights = state_dict(num_inner)
    taps, bypass = load_hyenadna_filter(weights, PREFIX, shift=shift)
    expected = by_the_formula(weights, num_inner, shift)
    # float64: sines of 10 x make rounding grow tenfold per layer
    torch.testing.assert_close(taps.double()(LENGTH), expected, atol=1e-6, rtol=0)
    assert torch.equal(bypass, weights[PREFIX + "bias"])
    assert taps(2 * LENGTH).shape == (CHANNELS, LENGTH)
    assert taps.reach() == LENGTH


def test_a_filter_of_low_frequency_equals_the_formula_in_float32():
    weights = state_dict(frequency=1.0)
    taps, _ = load_hyenadna_filter(weights, PREFIX)
    torch.testing.assert_close(taps(LENGTH).double(), by_the_formula(weights, 2, 0.0), atol=1e-5, rtol=0)


def test_a_new_filter_starts_from_the_features_and_rates_of_the_paper():
    taps = HyenaDNAFilter(CHANNELS, HIDDEN, FEATURES, LENGTH)
    torch.testing.assert_close(taps.features.detach(), features(), atol=1e-5, rtol=0)
    expected = state_dict()[PREFIX + "modulation.deltas"].flatten()
    torch.testing.assert_close(taps.rates.detach(), expected)
    other = HyenaDNAFilter(CHANNELS, HIDDEN, FEATURES, LENGTH)
    other.load_state_dict(taps.state_dict())
    assert torch.equal(other(LENGTH), taps(LENGTH))


def test_what_does_not_fit_is_refused():
    weights = state_dict()
    with pytest.raises(ModelFileError, match=r"missing pos_emb\.z"):
        load_hyenadna_filter({name: t for name, t in weights.items() if not name.endswith(".z")}, PREFIX)
    with pytest.raises(ModelFileError, match="missing"):
        load_hyenadna_filter(weights, "other.")
    with pytest.raises(ModelFileError, match="do not fit"):
        load_hyenadna_filter({**weights, PREFIX + "implicit_filter.2.weight": torch.zeros(3, 3)}, PREFIX)
    with pytest.raises(ModelFileError, match="one frequency"):
        load_hyenadna_filter({**weights, PREFIX + "implicit_filter.3.freq": torch.zeros(1, HIDDEN)}, PREFIX)
    with pytest.raises(ConfigError, match="num_features"):
        HyenaDNAFilter(2, num_features=4)
    with pytest.raises(ConfigError, match="max_length"):
        HyenaDNAFilter(2, max_length=0)
