"""The compiled step of one patch equals the trunk's own stream."""

from __future__ import annotations

import pytest
import torch

from hyena_glt.layers import ImplicitFilter
from hyena_glt.model.patch_step import LongStep, PatchStep, newest_output, product
from hyena_glt.ops import causal_conv
from hyena_glt.patching import Patcher

SINGLE = 1e-5  # of the largest value, in float32


@torch.no_grad()
@pytest.mark.parametrize("long_filter", ["implicit", "exponential", "both"])
@pytest.mark.parametrize("begun_with", [1, 40])
def test_a_patch_goes_through_the_trunk_as_through_the_layers(small_net, long_filter, begun_with):
    trunk = small_net(long_filter=long_filter).trunk
    step, x = PatchStep(trunk), torch.randn(1, begun_with + 90, 24)
    expected = trunk(x)
    _, state = trunk.stream(x[:, :begun_with])
    for place in range(begun_with, x.shape[1]):
        kept = state.clone()
        found, after = step(x[:, place : place + 1], state)
        assert (found - expected[:, place : place + 1]).abs().max() < SINGLE * expected.abs().max()
        for old, copy in zip(state.tensors(), kept.tensors(), strict=True):
            assert torch.equal(old, copy)
        state = after


@torch.no_grad()
def test_both_ways_go_on_from_the_same_state(small_net):
    trunk = small_net(long_filter="both").trunk
    x = torch.randn(1, 30, 24)
    _, state = trunk.stream(x[:, :10])
    _, state = PatchStep(trunk)(x[:, 10:11], state)
    found, _ = trunk.stream(x[:, 11:], state)
    expected = trunk(x)
    assert (found - expected[:, 11:]).abs().max() < SINGLE * expected.abs().max()


@pytest.mark.parametrize(("length", "taps"), [(1, 1), (5, 9), (9, 5), (300, 130)])
def test_the_newest_output_is_the_end_of_the_convolution(length, taps):
    values, reversed_taps = torch.randn(3, 400), torch.randn(3, taps)
    expected = causal_conv(values[None, :, :length], reversed_taps.flip(-1))[0, :, -1]
    found = newest_output(values.numpy(), length, reversed_taps.numpy())
    assert (torch.from_numpy(found) - expected).abs().max() < SINGLE * max(1.0, float(expected.abs().max()))


@torch.no_grad()
def test_a_window_that_ends_is_forgotten():
    taps = ImplicitFilter(2, 8)
    taps.log_rate.fill_(0.0)  # exp(-lag): below 1e-8 after 19 lags
    u, step = torch.randn(400, 2), LongStep(taps)
    _, state = taps.stream(u[:1].T[None])
    expected = causal_conv(u.T[None], taps(400))[0].T
    for place in range(1, 400):
        y, state = step(u[place].numpy(), state)
        assert (torch.from_numpy(y) - expected[place]).abs().max() < 1e-6
    assert state.buffer.shape[-1] < 200


def test_dropout_takes_the_layers(small_net):
    net = small_net(Patcher(patching_mode="static", patch_size=2), dropout=0.5).train()
    drawn = []
    for _ in range(2):
        stream = net.stream()
        drawn.append([stream.feed(letter).logits for letter in "ACGTACGT"][-1])
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("rows", [1, 4, 7, 64])
def test_the_product_is_that_of_matrix_and_vector(rows):
    weight, x = torch.randn(rows, 33), torch.randn(33)
    torch.testing.assert_close(torch.from_numpy(product(weight.numpy(), x.numpy())), weight @ x, atol=1e-5, rtol=1e-5)
