"""Windowed attention equals a loop over tokens, heads and states."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyena_glt.layers import WindowedCrossAttention
from hyena_glt.layers.window_reading import FLUSH_TOKENS

DIM, STATES, HEADS, SLOTS = 8, 6, 2, 3


def attention() -> WindowedCrossAttention:
    torch.manual_seed(0)
    return WindowedCrossAttention(DIM, STATES, HEADS, SLOTS)


def one_token(layer: WindowedCrossAttention, x: torch.Tensor, states: torch.Tensor, first: int, count: int):
    """What one token `(dim,)` reads of the states `(num_states, state_dim)` of its row."""
    width = DIM // HEADS
    query = layer.to_query(layer.norm(x))
    null_key, null_value = layer.null_key_value.chunk(2)
    keys, values = [null_key], [null_value]
    for slot in range(SLOTS):
        if 0 <= first + slot < count:
            key, value = layer.to_key_value(states[first + slot]).chunk(2)
            keys.append(key + layer.slot_keys[slot])
            values.append(value)
    read = []
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = torch.stack([query[part] @ key[part] for key in keys]) / math.sqrt(width)
        read.append((scores.softmax(0)[:, None] * torch.stack([value[part] for value in values])).sum(0))
    return layer.project_out(torch.cat(read))


@pytest.mark.parametrize("block", [0, 1, 4, 2048])
def test_attention_equals_the_loop(block, monkeypatch):
    if block:  # else by the compiled loops
        monkeypatch.setattr("hyena_glt.layers.cross_attention.BLOCK_TOKENS", block)
        monkeypatch.setattr("hyena_glt.layers.cross_attention.compiled_loops_read", lambda *tensors: False)
    layer = attention()
    x, states = torch.randn(2, 5, DIM), torch.randn(2, 4, STATES)
    first = torch.tensor([[-3, -2, -1, 0, 1], [-3, 2, 3, 0, -1]])
    counts = torch.tensor([4, 2])
    result = layer(x, states, first, counts)
    for row in range(2):
        for token in range(5):
            place = (x[row, token], states[row], int(first[row, token]), int(counts[row]))
            torch.testing.assert_close(result[row, token], one_token(layer, *place), atol=1e-6, rtol=1e-5)


def test_without_any_state_every_token_reads_the_null_state():
    layer = attention()
    result = layer(torch.randn(1, 3, DIM), torch.zeros(1, 0, STATES), torch.full((1, 3), -SLOTS), torch.tensor([0]))
    null_value = layer.null_key_value.chunk(2)[1]
    torch.testing.assert_close(result, layer.project_out(null_value).expand(1, 3, DIM))


def test_a_state_outside_the_window_changes_nothing():
    layer = attention()
    x, states = torch.randn(1, 4, DIM), torch.randn(1, 6, STATES)
    first = torch.tensor([[0, 1, -1, -2]])
    changed = states.clone()
    changed[:, 4:] = 1e3
    assert torch.equal(layer(x, states, first, torch.tensor([6])), layer(x, changed, first, torch.tensor([6])))


@torch.no_grad()
@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(1, 30),
    num_states=st.integers(0, 12),
    real=st.integers(0, 12),
    block=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_the_compiled_loops_equal_the_gathered_windows(length, num_states, real, block, seed):
    generator = torch.Generator().manual_seed(seed)
    layer = attention().double()
    x = torch.randn(2, length, DIM, generator=generator, dtype=torch.float64)
    states = torch.randn(2, num_states, STATES, generator=generator, dtype=torch.float64)
    first = torch.randint(-SLOTS, max(num_states, 1 - SLOTS), (2, length), generator=generator)
    place = (x, states, first, torch.tensor([num_states, min(real, num_states)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyena_glt.layers.cross_attention.COMPILED_TOKENS", block)
        compiled = layer(*place)
        patch.setattr("hyena_glt.layers.cross_attention.compiled_loops_read", lambda *tensors: False)
        gathered = layer(*place)
    torch.testing.assert_close(compiled, gathered, atol=1e-12, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@example(length=FLUSH_TOKENS + 9, num_states=300, real=200, seed=0)
@given(
    length=st.integers(1, 30),
    num_states=st.integers(0, 12),
    real=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_compiled_gradients_equal_those_of_the_gathered_windows(length, num_states, real, seed):
    generator = torch.Generator().manual_seed(seed)
    layer = attention().double()
    x = torch.randn(2, length, DIM, generator=generator, dtype=torch.float64, requires_grad=True)
    states = torch.randn(2, num_states, STATES, generator=generator, dtype=torch.float64, requires_grad=True)
    first = torch.randint(-SLOTS, max(num_states, 1 - SLOTS), (2, length), generator=generator)
    counts = torch.tensor([num_states, min(real, num_states)])
    coming = torch.randn(2, length, DIM, generator=generator, dtype=torch.float64)
    leaves = [x, states, *layer.parameters()]
    with pytest.MonkeyPatch.context() as patch:
        compiled = torch.autograd.grad(layer(x, states, first, counts), leaves, coming)
        patch.setattr("hyena_glt.layers.cross_attention.compiled_loops_read", lambda *tensors: False)
        gathered = torch.autograd.grad(layer(x, states, first, counts), leaves, coming)
    for ours, plain in zip(compiled, gathered, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-11)


def test_half_precision_without_gradients_is_answered_in_half_precision():
    layer = attention()
    place = (torch.randn(1, 5, DIM), torch.randn(1, 2, STATES), torch.zeros(1, 5, dtype=torch.int64), torch.tensor([2]))
    with torch.no_grad():
        exact = layer(*place)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = layer(*place)
    assert rounded.dtype is torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)
