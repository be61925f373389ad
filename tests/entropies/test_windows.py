"""Windows on a fixed plan: each token has one window, whatever the length, the batch or the cuts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies.windows import WindowPlan, network_device, windowed_logits
from hyena_glt.errors import ConfigError, PatchingError, SystemProblem

plans = st.builds(
    lambda window, share, batch: WindowPlan(window, int(share * (window - 1)), batch),
    st.integers(2, 40),
    st.floats(0, 1),
    st.integers(1, 4),
)


class Recorder:
    """One output a token, the running sum of its window; remembers the shapes of its calls."""

    def __init__(self):
        self.shapes = set()

    def __call__(self, tokens):
        self.shapes.add(tuple(tokens.shape))
        return tokens.cumsum(dim=1)[..., None].float()


def joined(network, plan, tokens, **options):
    windows = list(windowed_logits(network, plan, tokens, **options))
    assert all(window.logits.shape == (plan.window, 1) for window in windows)
    values = [window.logits[window.part] for window in windows]
    ends = [window.position + value.shape[0] for window, value in zip(windows, values, strict=True)]
    assert [window.position for window in windows[1:]] == ends[:-1]
    return torch.cat(values)[:, 0].numpy()


@given(plan=plans, position=st.integers(0, 500))
def test_each_token_has_one_window_that_holds_it(plan, position):
    owner = plan.owner(position)
    first, end = plan.owned(owner)
    assert first <= position < end
    assert owner == 0 or position - owner * plan.step >= plan.overlap
    assert plan.owned(owner + 1)[0] == end


@settings(deadline=None, max_examples=60)
@given(plan=plans, length=st.integers(1, 200), seed=st.integers(0, 9))
def test_logits_are_of_the_token_s_own_window(plan, length, seed):
    tokens = np.random.default_rng(seed).integers(0, 9, length)
    network = Recorder()
    values = joined(network, plan, tokens)
    starts = [plan.owner(position) * plan.step for position in range(length)]
    assert values.tolist() == [tokens[start : place + 1].sum() for place, start in enumerate(starts)]
    assert network.shapes == {(plan.batch_size, plan.window)}


@settings(deadline=None, max_examples=60)
@given(plan=plans, length=st.integers(1, 200), data=st.data())
def test_a_part_gives_what_the_whole_gives(plan, length, data):
    first = data.draw(st.integers(0, length - 1))
    tokens = np.arange(length) % 7
    origin = plan.owner(first) * plan.step
    part = joined(Recorder(), plan, tokens[origin:], origin=origin, first=first)
    assert part.tolist() == joined(Recorder(), plan, tokens)[first:].tolist()


def test_nothing_asks_for_nothing():
    assert list(windowed_logits(Recorder(), WindowPlan(), np.zeros(0, np.int64))) == []


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"window": 1, "overlap": 0}, "window >= 2"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"window": 8, "overlap": 8}, "overlap: expected 0 to 7"),
        ({"overlap": -1}, "overlap: expected 0"),
        ({"window": 8.0}, "window: expected an integer"),
        ({"batch_size": True}, "batch_size: expected an integer"),
    ],
)
def test_plans_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        WindowPlan(**sizes)


@pytest.mark.parametrize("network", [lambda t: t, lambda t: t[:, :1, None].float(), lambda t: None])
def test_logits_of_another_shape_are_refused(network):
    with pytest.raises(PatchingError, match="logits: expected"):
        list(windowed_logits(network, WindowPlan(8, 2), np.arange(5)))


def test_devices_are_named():
    assert network_device("auto", torch.nn.Linear(1, 1)).type == "cpu"
    assert network_device("auto", len).type == "cpu"
    with pytest.raises(ConfigError, match="device: expected auto"):
        network_device("abacus", None)
    if not torch.cuda.is_available():
        with pytest.raises(SystemProblem, match="device: expected a CUDA device for 'cuda'"):
            network_device("cuda", None)
