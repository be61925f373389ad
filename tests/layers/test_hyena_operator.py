"""The operator equals its formula, looks back only, and never sees padding."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.layers import ExplicitFilter, ExponentialFilter, HyenaOperator, ImplicitFilter
from hyena_glt.ops.reference import two_sided_conv_reference

HIDDEN = 6


def operator(causal: bool = True, taps: int | None = 5) -> HyenaOperator:
    torch.manual_seed(0)
    make = partial(ImplicitFilter, HIDDEN, 8) if taps is None else partial(ExplicitFilter, HIDDEN, taps)
    return HyenaOperator(HIDDEN, make, causal=causal)


def by_the_formula(layer: HyenaOperator, x: torch.Tensor) -> torch.Tensor:
    causal = layer.future is None
    projected = layer.project_in(x).transpose(1, 2)
    query, key, value = two_sided_conv_reference(projected, layer.short_taps, 0 if causal else 1).chunk(3, 1)
    gated = key * value
    mixed = two_sided_conv_reference(gated, layer.past(x.shape[1]), 0) + layer.bypass[:, None] * gated
    if not causal:
        ahead = layer.future(x.shape[1] - 1)
        flipped = two_sided_conv_reference(gated.flip(-1), ahead, 0).flip(-1)
        mixed = mixed + torch.cat([flipped[..., 1:], torch.zeros_like(flipped[..., :1])], dim=-1)
    return layer.project_out((query * mixed).transpose(1, 2))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("taps", [5, None])
@pytest.mark.parametrize("length", [1, 2, 4, 13])
def test_the_operator_equals_its_formula(causal, taps, length):
    layer = operator(causal, taps)
    x = torch.randn(2, length, HIDDEN)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), by_the_formula(layer, x), atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("taps", [5, 200, None])
def test_nothing_changes_before_a_change(taps):
    layer = operator(taps=taps)
    x = torch.randn(1, 150, HIDDEN)
    changed = x.clone()
    changed[:, 100:] += 1
    with torch.no_grad():
        torch.testing.assert_close(layer(changed)[:, :100], layer(x)[:, :100], atol=1e-5, rtol=0)


def test_a_two_sided_operator_sees_both_sides():
    layer = operator(causal=False, taps=None)
    x = torch.randn(1, 20, HIDDEN)
    changed = x.clone()
    changed[:, 10] += 1
    with torch.no_grad():
        moved = (layer(changed) - layer(x)).abs().amax(-1)[0] > 1e-6
    assert moved.all()


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(causal):
    layer = operator(causal, taps=None)
    x = torch.randn(1, 12, HIDDEN)
    padded = torch.cat([x, torch.full((1, 5, HIDDEN), 1e3)], dim=1)
    mask = torch.arange(17)[None] < 12
    with torch.no_grad():
        torch.testing.assert_close(layer(padded, mask)[:, :12], layer(x), atol=1e-6, rtol=1e-5)


def test_blocks_of_channels_change_nothing(monkeypatch):
    layer, x = operator(taps=None), torch.randn(2, 9, HIDDEN)
    whole = layer(x)
    monkeypatch.setattr("hyena_glt.layers.hyena_operator.BLOCK_ELEMENTS", 1)
    torch.testing.assert_close(layer(x), whole)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 6])
def test_every_parameter_is_part_of_the_graph(causal, length):
    layer = operator(causal, taps=None)
    layer(torch.randn(1, length, HIDDEN)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def in_pieces(layer, x, sizes):
    pieces, start, state = [], 0, None
    for size in [*sizes, x.shape[1]]:
        y, state = layer.stream(x[:, start : start + size], state)
        pieces.append(y)
        start += size
    return torch.cat(pieces, dim=1), state


def streamed_operator(kind: str) -> HyenaOperator:
    torch.manual_seed(0)
    makers = {
        "short": partial(ExplicitFilter, HIDDEN, 7),
        "medium": partial(ExplicitFilter, HIDDEN, 90, decays=True),
        "implicit": partial(ImplicitFilter, HIDDEN, 8),
        "exponential": partial(ExponentialFilter, HIDDEN, 4),
    }
    return HyenaOperator(HIDDEN, makers[kind])


STREAM_BOUND = 1e-5  # float32 rounding of outputs of order 1; 2e-6 is what was seen


@pytest.mark.parametrize("kind", ["short", "medium", "implicit", "exponential"])
@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 120), sizes=st.lists(st.integers(0, 50), max_size=8), batch=st.integers(1, 3))
def test_any_chunking_of_a_stream_equals_the_whole(kind, length, sizes, batch):
    layer = streamed_operator(kind)
    x = torch.randn(batch, length, HIDDEN, generator=torch.Generator().manual_seed(length))
    with torch.no_grad():
        result, _ = in_pieces(layer, x, sizes)
        torch.testing.assert_close(result, layer(x), atol=STREAM_BOUND, rtol=0)


@torch.no_grad()
def test_a_stream_does_not_depend_on_the_rows_beside_it():
    layer, x = streamed_operator("implicit"), torch.randn(3, 60, HIDDEN)
    whole, _ = in_pieces(layer, x, [1] * 60)
    for row in range(3):
        alone, _ = in_pieces(layer, x[row : row + 1], [1] * 60)
        torch.testing.assert_close(alone, whole[row : row + 1], atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["medium", "implicit", "exponential"])
def test_a_stream_can_branch_from_a_kept_state(kind):
    layer, x = streamed_operator(kind), torch.randn(1, 50, HIDDEN)
    _, start = in_pieces(layer, x[:, :30], [1] * 30)
    others = [torch.cat([x[:, :30], tail], dim=1) for tail in (x[:, 30:], -x[:, 30:])]
    states = [start, start]
    for step in range(30, 50):
        for branch, other in enumerate(others):
            y, states[branch] = layer.stream(other[:, step : step + 1], states[branch])
            torch.testing.assert_close(y, layer(other)[:, step : step + 1], atol=STREAM_BOUND, rtol=0)


@torch.no_grad()
def test_states_are_constant_in_size_where_the_filter_is_exponential():
    layer = streamed_operator("exponential")
    sizes = {in_pieces(layer, torch.randn(1, n, HIDDEN), [10] * (n // 10))[1].num_bytes for n in (60, 600)}
    assert sizes == {4 * HIDDEN * (3 * 2 + 4)}


def test_a_state_can_be_detached_for_truncated_backpropagation():
    layer = streamed_operator("implicit")
    _, state = layer.stream(torch.randn(1, 5, HIDDEN))
    assert any(tensor.requires_grad for tensor in state.tensors())
    cut = state.detach()
    assert not any(tensor.requires_grad for tensor in cut.tensors())
    y, _ = layer.stream(torch.randn(1, 5, HIDDEN), cut)
    y.square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_mixed_precision_stays_near_float32():
    layer, x = streamed_operator("implicit"), torch.randn(2, 200, HIDDEN)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = layer(x)
        streamed, _ = in_pieces(layer, x, [1] * 100 + [40])
    with torch.no_grad():
        exact = layer(x)
    # bfloat16 keeps 8 bits: three products and two projections of it, so 5 * 2^-8 of the largest value
    bound = 5 * 2**-8 * exact.abs().max()
    assert (whole - exact).abs().max() < bound
    assert (streamed - exact).abs().max() < bound


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(ConfigError, match="causal"):
        operator(causal=False).stream(torch.zeros(1, 1, HIDDEN))
    with pytest.raises(ConfigError, match=r"\(batch, n, 6\)"):
        operator().stream(torch.zeros(1, HIDDEN))
    _, state = operator().stream(torch.zeros(2, 1, HIDDEN))
    with pytest.raises(ConfigError, match="batch 3"):
        operator().stream(torch.zeros(3, 1, HIDDEN), state)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("medium", {"past.taps", "past.log_rate"}),
        ("exponential", {"past.amplitude", "past.log_rate"}),
        (
            "implicit",
            {"past.log_rate", "past.outer.weight"}
            | {f"past.{layer}.{part}" for layer in ("inner", "middle") for part in ("weight", "bias")},
        ),
    ],
)
def test_saved_weights_keep_their_names(kind, names):
    own = {"short_taps", "bypass", "project_in.weight", "project_out.weight"}
    assert set(streamed_operator(kind).state_dict()) == own | names
