"""Byte mode and patches under the same conditions."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt import Patcher
from hyena_glt.diagnostics.mode_comparison import Limits, Mode, bits_per_base, compare_modes
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

BYTE = Mode("byte", None)
FOUR = Mode("patches of 4", Patcher(patching_mode="static", patch_size=4), 4.0)


@pytest.fixture(scope="module")
def window():
    return generate_random_genomic_sequence(300, seed=3).encode()


def test_each_mode_is_measured_in_turn(make_net, window):
    steps = []
    windows = {200: window[:200], 300: window}
    rows = compare_modes(make_net(), [BYTE, FOUR], windows, repeats=2, progress=steps.append)
    assert [(row.task, row.length, row.mode) for row in rows] == [
        (task, length, mode)
        for task in ("forward", "training step")
        for length in (200, 300)
        for mode in ("byte", "patches of 4")
    ]
    assert all(row.wall_s > 0 and row.cpu_s > 0 and row.repeats == 2 and row.left_out is None for row in rows)
    assert [row.mean_patch_length for row in rows[:2]] == [1.0, 4.0]
    assert rows[0].bases_per_s == pytest.approx(200 / rows[0].wall_s)
    of_one_length = [step for step in steps if step.startswith("forward, 200")]
    assert of_one_length == ["forward, 200 bases, byte", "forward, 200 bases, patches of 4"] * 2


def test_training_leaves_the_net_as_it_was(make_net, window):
    net = make_net(dropout=0.1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random_state = torch.random.get_rng_state()
    compare_modes(net, [FOUR], {300: window}, repeats=1, tasks=("forward",))
    assert torch.equal(random_state, torch.random.get_rng_state())
    compare_modes(net, [FOUR], {300: window}, repeats=1, tasks=("training step",))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(weight.grad is None for weight in net.parameters())


@pytest.mark.parametrize("changes", [{"causal": False}, {"genomic_vocab_size": 4}])
def test_other_nets_train_as_well(make_net, window, changes):
    rows = compare_modes(make_net(**changes), [BYTE, FOUR], {300: window}, repeats=1)
    assert all(row.wall_s for row in rows)


def test_learned_boundaries_are_a_mode(make_net, window):
    net = make_net(boundaries="learned")
    rows = compare_modes(net, [BYTE, Mode("own", net.patcher())], {300: window}, repeats=1)
    assert [row.mode for row in rows if row.wall_s] == ["byte", "own"] * 2
    assert rows[0].mean_patch_length == 1.0
    assert rows[1].mean_patch_length > 1.0


@pytest.mark.parametrize(
    ("limits", "words"), [(Limits(longest_s=1e-9), "to take"), (Limits(memory_bytes=1), "to need")]
)
def test_what_is_too_much_is_left_out_and_said(make_net, window, limits, words):
    rows = compare_modes(make_net(), [BYTE, FOUR], {300: window}, repeats=1, tasks=("forward",), limits=limits)
    assert [row.wall_s for row in rows] == [None, None]
    assert all(words in row.left_out for row in rows)


def test_wrong_input_is_refused(make_net, window):
    with pytest.raises(ConfigError, match="repeats"):
        compare_modes(make_net(), [BYTE], {300: window}, repeats=0)
    for windows in ({}, {200: window}):
        with pytest.raises(DataError, match="windows"):
            compare_modes(make_net(), [BYTE], windows)


@torch.no_grad()
def test_bits_are_those_of_the_definition(make_net, window):
    net = make_net()
    text = window[:40] + b"N" * 10 + window[40:]
    found = bits_per_base(net, FOUR, [text, window], "dna")
    nats, count = 0.0, 0
    for sequence in (text, window):
        logits = net.forward_with_patching(sequence, patcher_config=FOUR.patcher.args).logits[0].double()
        scores = logits.log_softmax(-1)
        for place in range(1, len(sequence)):
            if sequence[place] != ord("N"):
                nats -= float(scores[place - 1, sequence[place] + 4])
                count += 1
    assert found == pytest.approx(nats / count / math.log(2), rel=1e-5)
    assert bits_per_base(net, BYTE, [text, window], "dna") != pytest.approx(found, rel=1e-5)


def test_bits_need_a_causal_net_and_a_base(make_net, window):
    with pytest.raises(ConfigError, match="causal"):
        bits_per_base(make_net(causal=False), BYTE, [window], "dna")
    with pytest.raises(DataError, match="no called base"):
        bits_per_base(make_net(), BYTE, [b"N" * 20], "dna")
