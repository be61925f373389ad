"""Windowed attention equals a loop over tokens, heads and states."""

from __future__ import annotations

import math

import pytest
import torch

from hyena_glt.layers import WindowedCrossAttention

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


@pytest.mark.parametrize("block", [1, 4, 2048])
def test_attention_equals_the_loop(block, monkeypatch):
    monkeypatch.setattr("hyena_glt.layers.cross_attention.BLOCK_TOKENS", block)
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
