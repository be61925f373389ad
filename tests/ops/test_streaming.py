"""A stream in pieces of any size equals the definition over the whole, and old states stay valid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.ops import causal_conv, short_conv, stream_conv, stream_short_conv
from hyena_glt.ops.fftconv import direct_conv, fft_conv, overlap_conv, shifted_conv
from hyena_glt.ops.reference import two_sided_conv_reference
from hyena_glt.ops.stream_state import LEAST_CAPACITY, History
from hyena_glt.ops.streaming import conv_end

FLOAT32_BOUND = 1e-6  # of the sum of absolute products: rounding of an FFT of a few thousand points, with room


def signal_and_filter(length: int, taps: int, batch: int = 2, channels: int = 3):
    generator = torch.Generator().manual_seed(length * 1000 + taps)
    u = torch.randn(batch, channels, length, generator=generator, dtype=torch.float64)
    return u, torch.randn(channels, taps, generator=generator, dtype=torch.float64)


def in_pieces(stream, x, sizes, dim: int = -1):
    """The outputs of `stream(piece, state)` over pieces of these sizes, the last taking what is left."""
    pieces, start, state = [], 0, None
    length = x.shape[dim]
    for size in [*sizes, length]:
        size = min(size, length - start)
        if size:
            y, state = stream(x.narrow(dim, start, size), state)
            pieces.append(y)
        start += size
    return torch.cat(pieces, dim=dim), state


chunkings = st.lists(st.integers(1, 60), max_size=8)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 150), taps=st.integers(1, 150), sizes=chunkings, gradients=st.booleans())
def test_any_chunking_of_a_long_convolution_equals_the_definition(length, taps, sizes, gradients):
    u, h = signal_and_filter(length, taps, batch=1, channels=2)
    expected = two_sided_conv_reference(u, h)
    with torch.set_grad_enabled(gradients):
        for reach in (None, taps):
            result, _ = in_pieces(lambda piece, state: stream_conv(piece, h, state, reach), u, sizes)  # noqa: B023
            torch.testing.assert_close(result, expected, atol=1e-9, rtol=0)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 120), taps=st.integers(1, 120))
def test_every_way_equals_the_direct_sum_in_both_precisions(length, taps):
    u, h = signal_and_filter(length, taps, batch=1, channels=2)
    exact = two_sided_conv_reference(u, h)
    scale = two_sided_conv_reference(u.abs(), h.abs()).max()
    steps = [1] * length
    ways = [shifted_conv, direct_conv, overlap_conv, fft_conv]
    for precision, bound in ((torch.float64, 1e-9), (torch.float32, FLOAT32_BOUND * scale)):
        v, g = u.to(precision), h.to(precision)
        results = [way(v, g, 0) for way in ways]
        results += [causal_conv(v, g), in_pieces(lambda piece, state: stream_conv(piece, g, state), v, steps)[0]]  # noqa: B023
        for result in results:
            assert result.dtype is precision
            assert (result.double() - exact).abs().max() <= bound


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 40), taps=st.integers(1, 12), sizes=st.lists(st.integers(1, 9), max_size=6))
def test_any_chunking_of_a_short_convolution_equals_one_pass(length, taps, sizes):
    u, h = signal_and_filter(length, taps)
    for dim in (-1, 1):
        x = u if dim == -1 else u.transpose(1, 2)
        result, state = in_pieces(
            lambda piece, state: stream_short_conv(piece, h, state, dim=dim),  # noqa: B023
            x,
            sizes,
            dim,
        )
        torch.testing.assert_close(result, short_conv(x, h, dim=dim), atol=1e-12, rtol=0)
        assert state.values.shape[dim] == taps - 1


@pytest.mark.parametrize(("n", "taps"), [(1, 9), (16, 40), (17, 5), (40, 30), (200, 70), (400, 70), (50, 250)])
def test_the_end_of_a_convolution_is_the_end_of_the_whole(n, taps, monkeypatch):
    u, h = signal_and_filter(450, taps)
    expected = two_sided_conv_reference(u, h)[..., -n:]
    torch.testing.assert_close(conv_end(u, h.flip(-1), n), expected, atol=1e-10, rtol=0)
    monkeypatch.setattr("hyena_glt.ops.fftconv.BLOCK_ELEMENTS", 1)
    monkeypatch.setattr("hyena_glt.ops.streaming.DOT_ELEMENTS", 1)
    torch.testing.assert_close(conv_end(u, h.flip(-1), n), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("n", [1, 20])
def test_gradients_of_a_stream_are_those_of_the_sum(n):
    u, h = signal_and_filter(23, 30, batch=1, channels=2)

    def streamed(u, h):
        return in_pieces(lambda piece, state: stream_conv(piece, h, state), u, [n] * 3)[0]

    assert torch.autograd.gradcheck(streamed, (u.requires_grad_(), h.requires_grad_()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_old_state_stays_valid_when_two_streams_go_on_from_it(mode):
    u, h = signal_and_filter(40, 40, batch=1)
    with mode():
        _, start = in_pieces(lambda piece, state: stream_conv(piece, h, state), u[..., :20], [7] * 3)
        before = start.last(20).clone()
        branches = [u[..., 20:], -u[..., 20:]]
        results = [
            in_pieces(lambda piece, state: stream_conv(piece, h, state or start), branch, [1] * 20)[0]
            for branch in branches
        ]
    assert torch.equal(start.last(20), before)
    for branch, result in zip(branches, results, strict=True):
        expected = two_sided_conv_reference(torch.cat([u[..., :20], branch], dim=-1), h)[..., 20:]
        torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)


def test_a_history_of_inference_goes_on_outside_it():
    u, h = signal_and_filter(30, 30, batch=1)
    with torch.inference_mode():
        _, state = stream_conv(u[..., :10].clone(), h)
    with torch.no_grad():
        result, _ = stream_conv(u[..., 10:], h, state)
    torch.testing.assert_close(result, two_sided_conv_reference(u, h)[..., 10:], atol=1e-12, rtol=0)


def test_a_bounded_history_keeps_no_more_than_it_needs():
    u, h = signal_and_filter(3000, 20, batch=1)
    with torch.no_grad():
        _, state = in_pieces(lambda piece, state: stream_conv(piece, h, state, 20), u, [2000] + [1] * 900)
    assert state.buffer.shape[-1] <= 4 * 19 + LEAST_CAPACITY
    assert torch.equal(state.last(19), u[..., -19:])


@torch.no_grad()
def test_appending_copies_rarely():
    state, buffers = History.of(torch.zeros(1, 1, 0)), set()
    for step in range(1000):
        state = state.append(torch.full((1, 1, 1), float(step)), None)
        buffers.add(state.buffer.data_ptr())
    assert state.last(1000).flatten().tolist() == list(range(1000))
    assert len(buffers) < 10


@torch.no_grad()
def test_states_can_be_cloned_detached_and_moved():
    u, h = signal_and_filter(12, 12, batch=1)
    _, state = stream_conv(u, h)
    for copy in (state.clone(), state.detach(), state.to("cpu")):
        longer = copy.append(u[..., :1], None)
        assert torch.equal(longer.last(13)[..., :12], u)
    assert state.length == 12
    assert state.to("meta").buffer.device.type == "meta"
    assert state.clone().num_bytes == 12 * 3 * 8


def test_a_state_of_a_graph_can_be_cut_from_it():
    u, h = signal_and_filter(6, 4, batch=1)
    _, state = stream_conv(u.requires_grad_(), h)
    assert state.buffer.requires_grad
    assert not state.detach().buffer.requires_grad
