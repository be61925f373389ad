"""Training on random windows: what is drawn, what is learned, and that it repeats."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.entropies.byte_network import ByteNetwork
from hyena_glt.entropies.network_files import weights_sha256
from hyena_glt.entropies.network_fit import (
    IGNORED,
    FitOptions,
    LabelledSequences,
    fit_network,
    next_symbols,
    rate_at,
)
from hyena_glt.errors import ConfigError, DataError, SystemProblem

QUICK = {"batch_size": 4, "window": 32, "learning_rate": 0.01}


pytestmark = pytest.mark.usefixtures("one_thread")


def small():
    return ByteNetwork(width=8, conv_taps=3, filter_taps=4, layers=1, outputs=4, vocab_size=8)


def cycle(length=400):
    codes = (np.arange(length) % 4).astype(np.uint8)
    return LabelledSequences([codes], [next_symbols(codes, 4)])


def test_the_next_symbol_is_the_target():
    codes = np.array([0, 1, 254, 255, 2, 3], np.uint8)
    assert next_symbols(codes, 4).tolist() == [1, IGNORED, IGNORED, 2, 3, IGNORED]
    assert next_symbols(codes[:0], 4).tolist() == []


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=5), size=st.integers(1, 12), seed=st.integers(0, 99))
def test_windows_stay_in_one_sequence_and_hold_a_target(lengths, size, seed):
    ends = list(itertools.accumulate(lengths))
    whole = np.arange(ends[-1])
    tokens = [whole[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    targets = [np.where(row % 3 == 0, 1, IGNORED) for row in tokens]
    data = LabelledSequences(tokens, targets)
    assert data.num_targets == sum(int((row != IGNORED).sum()) for row in targets)
    if not data.num_targets:
        return
    drawn, learned = data.windows(np.random.default_rng(seed), 8, size)
    assert drawn.shape == learned.shape == (8, size)
    for row, labels in zip(drawn, learned, strict=True):
        assert (labels != IGNORED).any()
        owner = int(np.searchsorted(ends, row[0], side="right"))
        length = min(size, lengths[owner])
        assert row[:length].tolist() == list(range(row[0], row[0] + length))
        assert row[length - 1] < ends[owner]
        assert (labels[:length] == np.where(row[:length] % 3 == 0, 1, IGNORED)).all()
        assert (labels[length:] == IGNORED).all()


def test_every_target_is_drawn_about_as_often():
    codes = np.zeros(100, np.uint8)
    targets = np.full(100, IGNORED)
    targets[[0, 50, 99]] = 1
    data = LabelledSequences([codes, codes], [targets, targets * 0 + IGNORED])
    _, learned = data.windows(np.random.default_rng(0), 3000, 1)
    assert (learned == 1).all()


def test_a_cycle_is_learned_and_the_same_seed_gives_the_same_weights():
    state = torch.random.get_rng_state()
    runs = [fit_network(small, cycle(), FitOptions(steps=80, seed=seed, **QUICK)) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    (network, result), (again, same), (other, _) = runs
    assert result.steps == 80
    assert result.num_tokens == 80 * 4 * 32
    assert result.losses[0] == pytest.approx(math.log(4), abs=0.5)
    assert result.losses[-1] < 0.05
    assert result.losses == same.losses
    assert weights_sha256(network) == weights_sha256(again) != weights_sha256(other)
    assert not network.training


def test_progress_rises_to_the_end():
    seen = []
    fit_network(small, cycle(), FitOptions(steps=25, **QUICK), progress=lambda done, loss: seen.append((done, loss)))
    shares = [done for done, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(math.isfinite(loss) for _, loss in seen)


def test_seconds_end_the_training():
    _, result = fit_network(small, cycle(), FitOptions(seconds=0.3, **QUICK))
    assert result.steps >= 1
    assert 0.3 <= result.elapsed_s < 30
    _, result = fit_network(small, cycle(), FitOptions(seconds=600, steps=3, **QUICK))
    assert result.steps == 3


def test_the_first_token_of_a_window_is_put_in():
    seen = []

    class Watched(ByteNetwork):
        def forward(self, tokens):
            seen.append(tokens)
            return super().forward(tokens)

    def watched():
        return Watched(width=8, conv_taps=3, filter_taps=4, layers=1, outputs=4, vocab_size=8)

    fit_network(watched, cycle(), FitOptions(steps=2, **QUICK), first_token=7)
    assert all((tokens[:, 0] == 7).all() and (tokens[:, 1:] < 4).all() for tokens in seen)


def test_the_rate_goes_up_and_down():
    rates = [rate_at(done / 200) for done in range(201)]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] > 0
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.05)


def test_what_cannot_be_trained_is_said():
    with pytest.raises(DataError, match="no target"):
        fit_network(small, LabelledSequences([], []), FitOptions())
    with pytest.raises(ConfigError, match="learning_rate: the loss became"):
        fit_network(small, cycle(), FitOptions(steps=40, batch_size=2, window=8, learning_rate=1e15, clip_norm=1e30))
    if not torch.cuda.is_available():
        with pytest.raises(SystemProblem, match="CUDA"):
            fit_network(small, cycle(), FitOptions(device="cuda"))


@pytest.mark.parametrize("option", ["steps", "seconds", "batch_size", "window", "learning_rate", "clip_norm"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ConfigError, match=f"{option}: expected a number above 0"):
        FitOptions(**{option: 0})
    with pytest.raises(ConfigError, match="at least 0"):
        FitOptions(seed=-1)


@pytest.mark.parametrize("broken_off_after", [1, 7, 19])
def test_an_interrupted_training_ends_with_the_same_weights(broken_off_after):
    options = FitOptions(steps=20, **QUICK)
    kept = {}

    def keep(step, state):
        if step == broken_off_after:
            kept.update(state())
            raise KeyboardInterrupt

    whole, result = fit_network(small, cycle(), options)
    with pytest.raises(KeyboardInterrupt):
        fit_network(small, cycle(), options, after_step=keep)
    resumed, again = fit_network(small, cycle(), options, state=kept)
    assert again.losses == result.losses
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())
