"""Filters made in blocks, cached spectra that are never stale, and streams of every filter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hyena_glt.errors import ConfigError
from hyena_glt.layers import ExplicitFilter, ExponentialFilter, HyenaDNAFilter, ImplicitFilter
from hyena_glt.layers.hyena_filter import SummedFilter
from hyena_glt.layers.lag_filter import check_streamable, prepared_blocks, stream_reach
from hyena_glt.ops import WEIGHT_CACHE, causal_conv
from hyena_glt.ops.exponential_conv import CHUNK
from hyena_glt.ops.reference import two_sided_conv_reference

CHANNELS = 6


def every_filter() -> list:
    torch.manual_seed(0)
    return [
        ExplicitFilter(CHANNELS, 100, decays=True),
        ExplicitFilter(CHANNELS, 7),
        ImplicitFilter(CHANNELS, 8),
        ExponentialFilter(CHANNELS, 5),
        SummedFilter(ImplicitFilter(CHANNELS, 8), ExponentialFilter(CHANNELS, 5)),
        HyenaDNAFilter(CHANNELS, 8, max_length=300),
    ]


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("size", [1, 4, 6])
def test_blocks_of_channels_are_the_filter(index, size):
    taps = every_filter()[index]
    blocks = list(taps.blocks(200, size))
    assert [len(block) for block in blocks] == [len(part) for part in torch.zeros(CHANNELS).split(size)]
    torch.testing.assert_close(torch.cat(blocks), taps(200), atol=1e-7, rtol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@pytest.mark.parametrize(
    ("kind", "least"), [(ImplicitFilter, 131072), (ExponentialFilter, CHUNK**2), (HyenaDNAFilter, 131072)]
)
def test_no_tensor_of_a_long_wide_filter_is_larger_than_the_bound(kind, least):
    """131,072 lags, 512 channels: the bound is 64 values per lag (33 MB), where the whole filter is 512."""
    length, channels, hidden = 131072, 512, 64
    arguments = {ImplicitFilter: (hidden,), ExponentialFilter: (16,), HyenaDNAFilter: (hidden, 5, length)}[kind]
    taps = kind(channels, *arguments)
    with torch.no_grad(), LargestTensor() as sizes:
        blocks = iter(prepared_blocks(taps, None, channels=channels, length=length, size=16, dtype=torch.float32))
        seen = [len(next(blocks).tensors[0]) for _ in range(3)]
    assert seen == [16] * 3
    assert sizes.largest >= 16 * least
    assert sizes.largest <= hidden * length


def in_pieces(taps, u, sizes):
    pieces, state = [], None
    for piece in u.split(sizes, dim=-1):
        y, state = taps.stream(piece, state)
        pieces.append(y)
    return torch.cat(pieces, dim=-1), state


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("sizes", [[1] * 260, [260], [100, 1, 1, 58, 100], [20] * 13])
@pytest.mark.parametrize("gradients", [True, False])
def test_any_chunking_equals_the_convolution(index, sizes, gradients):
    taps = every_filter()[index]
    u = torch.randn(2, CHANNELS, 260)
    with torch.set_grad_enabled(gradients):
        expected = causal_conv(u, taps(260))
        result, _ = in_pieces(taps, u, sizes)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("step", [1, 20])
def test_gradients_pass_through_a_stream(index, step):
    taps = every_filter()[index].double()
    u = torch.randn(1, CHANNELS, 40, dtype=torch.float64, requires_grad=True)
    gradients = []
    for y in (causal_conv(u, taps(40)), in_pieces(taps, u, [step] * (40 // step))[0]):
        gradients.append(torch.autograd.grad(y.square().sum(), [u, *taps.parameters()]))
    for whole, streamed in zip(*gradients, strict=True):
        torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=1e-4)  # decay tables are float32 at their lags


@torch.no_grad()
def test_the_exponential_filter_streams_in_constant_memory():
    taps = ExponentialFilter(CHANNELS, 5)
    u = torch.randn(1, CHANNELS, 3000)
    sizes = {in_pieces(taps, u[..., :length], [100] * (length // 100))[1].num_bytes for length in (300, 3000)}
    assert sizes == {4 * CHANNELS * 5}


@torch.no_grad()
def test_an_implicit_filter_forgets_what_its_window_has_forgotten():
    taps = ImplicitFilter(2, 8)
    taps.log_rate.fill_(0.0)  # exp(-lag): below 1e-8 after 19 lags
    assert taps.reach() == stream_reach(taps) == 19
    u = torch.randn(1, 2, 400)
    result, state = in_pieces(taps, u, [1] * 400)
    assert state.buffer.shape[-1] < 200
    torch.testing.assert_close(result, causal_conv(u, taps(400)), atol=1e-6, rtol=0)
    taps.log_rate.fill_(-100.0)
    assert taps.reach() is stream_reach(taps) is None


@torch.no_grad()
def test_reaches_are_those_of_the_farthest_part():
    explicit = ExplicitFilter(2, 50)
    assert SummedFilter(explicit, ExplicitFilter(2, 20)).reach() == 50
    assert SummedFilter(explicit, ExponentialFilter(2, 3)).reach() is None


@torch.no_grad()
def convolved(taps, u) -> torch.Tensor:
    blocks = prepared_blocks(taps, None, channels=CHANNELS, length=u.shape[-1], size=4, dtype=u.dtype)
    return torch.cat([conv(part) for conv, part in zip(blocks, u.split(4, dim=1), strict=True)], dim=1)


def optimizer_step(taps: nn.Module) -> None:
    optimizer = torch.optim.SGD(taps.parameters(), lr=0.1)
    taps(80).square().sum().backward()
    optimizer.step()


def load_other_weights(taps: nn.Module) -> None:
    taps.load_state_dict({name: tensor * 1.5 for name, tensor in taps.state_dict().items()})


def round_weights(taps: nn.Module) -> None:
    taps.to(torch.bfloat16).to(torch.float32)


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("change", [optimizer_step, load_other_weights, round_weights])
def test_a_cached_spectrum_is_never_stale(index, change):
    taps = every_filter()[index]
    u = torch.randn(1, CHANNELS, 300)
    exact = u.double()
    convolved(taps, u)
    with torch.no_grad():
        taps.stream(u)
    change(taps)
    expected = two_sided_conv_reference(exact[..., :90], taps(90).detach().double())
    torch.testing.assert_close(convolved(taps, u)[..., :90].double(), expected, atol=2e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(in_pieces(taps, u, [50] * 6)[0], convolved(taps, u), atol=2e-5, rtol=0)


def test_the_spectrum_is_kept_while_nothing_changes(monkeypatch):
    taps = ImplicitFilter(CHANNELS, 8)
    u, calls = torch.randn(1, CHANNELS, 300), []
    hidden = ImplicitFilter.hidden
    monkeypatch.setattr(ImplicitFilter, "hidden", lambda self, length: calls.append(length) or hidden(self, length))
    WEIGHT_CACHE.clear()
    first = convolved(taps, u)
    assert torch.equal(convolved(taps, u), first)
    assert calls == [300]
    assert len(WEIGHT_CACHE) == 1
    convolved(taps, u.double())
    convolved(taps, u[..., :299])
    assert calls == [300, 300, 299]
    list(prepared_blocks(taps, None, channels=CHANNELS, length=300, size=4, dtype=u.dtype))
    assert len(calls) == 4  # with gradients on nothing is kept


def test_a_filter_of_another_kind_cannot_be_streamed():
    with pytest.raises(ConfigError, match="LagFilter"):
        check_streamable(nn.Identity())
