"""Reading a few consecutive states per token: compiled loops, and the step of a graph that is made of them.

Each token reads its states where they lie, so neither the windows nor their gradients are ever gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from hyena_glt.ops.shifted_sum import own_array

FLUSH_TOKENS = 1024  # single-precision sums of so many tokens go into double precision


class Loops(NamedTuple):
    """Compiled for one width of a head."""

    score: Callable[..., None]
    blend: Callable[..., None]
    spread: Callable[..., None]


class ReadWindows(torch.autograd.Function):
    """What tokens read of windows of states, with both passes compiled; float32 or float64 on the CPU.

    `apply(query, key_value, slots, null, first, num_states)`: `(batch, length, heads, width)` from queries of that
    shape, `(batch, num_states, 2, heads, width)` keys and values, `(slots, heads, width)` keys of the slots, the null
    state's key and value `(2, heads, width)`, first states `(batch, length)` and real states `(batch,)`.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key_value: Tensor, slots: Tensor, null: Tensor, first: Tensor, num_states: Tensor
    ) -> Tensor:
        query, key_value, first = query.contiguous(), key_value.contiguous(), first.contiguous()
        loops = compiled_loops(query.shape[-1])
        own_slots, own_null = own_array(slots), own_array(null)
        weights = query.new_empty(*query.shape[:3], len(slots) + 1)
        read = torch.empty_like(query)
        rows = list(zip(key_value.numpy(), first.numpy(), num_states.tolist(), strict=True))
        for scores, asked, (states, starts, count) in zip(weights.numpy(), query.numpy(), rows, strict=True):
            loops.score(scores, asked, states, own_slots, own_null, starts, count)
        weights.exp_()
        for result, shares, (states, starts, count) in zip(read.numpy(), weights.numpy(), rows, strict=True):
            loops.blend(result, shares, states, own_null, starts, count)
        ctx.save_for_backward(query, key_value, slots, null, first, num_states, weights)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key_value, slots, null, first, num_states, weights = ctx.saved_tensors
        spread = compiled_loops(query.shape[-1]).spread
        grad_query, grad_key_value = torch.empty_like(query), torch.zeros_like(key_value)
        grad_slots, grad_null = (torch.zeros(part.shape, dtype=torch.float64) for part in (slots, null))
        own_slots, own_null, sums = own_array(slots), own_array(null), (grad_slots.numpy(), grad_null.numpy())
        rows = zip(
            *(
                part.numpy()
                for part in (grad_query, grad_key_value, grad.contiguous(), weights, query, key_value, first)
            ),
            num_states.tolist(),
            strict=True,
        )
        for to_query, to_states, coming, shares, asked, states, starts, count in rows:
            spread(to_query, to_states, *sums, coming, shares, asked, states, own_slots, own_null, starts, count)
        return grad_query, grad_key_value, grad_slots.to(slots.dtype), grad_null.to(null.dtype), None, None


@lru_cache(maxsize=16)
def compiled_loops(width: int) -> Loops:
    """The loops for heads of this width: short loops are vectorised only where their length is constant.

    Exponentials are left to the caller, which has a vectorised one.
    """

    @njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
    def score(scores, query, key_value, slots, null, first, num_states):
        """Logits less their largest, `(tokens, heads, slots + 1)`, the null state last; -inf outside the row."""
        tokens, heads, _ = query.shape
        num_slots = slots.shape[0]
        scale = query.dtype.type(1) / np.sqrt(query.dtype.type(width))
        for token in range(tokens):
            for head in range(heads):
                total = query.dtype.type(0)
                for c in range(width):
                    total += query[token, head, c] * null[0, head, c]
                scores[token, head, num_slots] = total * scale
                largest = total * scale
                for slot in range(num_slots):
                    state = first[token] + slot
                    if 0 <= state < num_states:
                        total = query.dtype.type(0)
                        for c in range(width):
                            total += query[token, head, c] * (key_value[state, 0, head, c] + slots[slot, head, c])
                        scores[token, head, slot] = total * scale
                        largest = max(largest, total * scale)
                    else:
                        scores[token, head, slot] = -np.inf
                for slot in range(num_slots + 1):
                    scores[token, head, slot] -= largest

    @njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
    def blend(y, weights, key_value, null, first, num_states):
        """`y` `(tokens, heads, width)`: the mean of the values under unnormalised weights."""
        tokens, heads, _ = y.shape
        num_slots = weights.shape[2] - 1
        for token in range(tokens):
            low, high = max(first[token], 0), min(first[token] + num_slots, num_states)
            for head in range(heads):
                total = weights[token, head, num_slots]
                for slot in range(num_slots):
                    total += weights[token, head, slot]
                share = weights[token, head, num_slots] / total
                for c in range(width):
                    y[token, head, c] = share * null[1, head, c]
                for state in range(low, high):
                    share = weights[token, head, state - first[token]] / total
                    for c in range(width):
                        y[token, head, c] += share * key_value[state, 1, head, c]

    @njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
    def spread(
        to_query, to_key_value, to_slots, to_null, grad, weights, query, key_value, slots, null, first, num_states
    ):
        """The gradients of query (written), states, slots and null state (added to) from that of `blend`'s result."""
        tokens, heads, _ = query.shape
        num_slots = slots.shape[0]
        scale = query.dtype.type(1) / np.sqrt(query.dtype.type(width))
        slot_sums, null_sums = np.zeros_like(slots), np.zeros_like(null)
        slopes = np.zeros(num_slots + 1, query.dtype)
        for token in range(tokens):
            start = first[token]
            low, high = max(0, -start), min(num_slots, num_states - start)
            for head in range(heads):
                total, mean = query.dtype.type(0), query.dtype.type(0)
                for slot in range(low, high):
                    slope = query.dtype.type(0)
                    for c in range(width):
                        slope += grad[token, head, c] * key_value[start + slot, 1, head, c]
                    slopes[slot] = slope
                    total += weights[token, head, slot]
                    mean += weights[token, head, slot] * slope
                slope = query.dtype.type(0)
                for c in range(width):
                    slope += grad[token, head, c] * null[1, head, c]
                null_weight = weights[token, head, num_slots]
                total += null_weight
                mean = (mean + null_weight * slope) / total
                share = null_weight / total
                change = share * (slope - mean) * scale
                for c in range(width):
                    to_query[token, head, c] = change * null[0, head, c]
                    null_sums[0, head, c] += change * query[token, head, c]
                    null_sums[1, head, c] += share * grad[token, head, c]
                for slot in range(low, high):
                    share = weights[token, head, slot] / total
                    change = share * (slopes[slot] - mean) * scale
                    state = start + slot
                    for c in range(width):
                        asked = change * query[token, head, c]
                        to_query[token, head, c] += change * (key_value[state, 0, head, c] + slots[slot, head, c])
                        to_key_value[state, 0, head, c] += asked
                        to_key_value[state, 1, head, c] += share * grad[token, head, c]
                        slot_sums[slot, head, c] += asked
            if token % FLUSH_TOKENS == FLUSH_TOKENS - 1 or token == tokens - 1:
                to_slots += slot_sums
                to_null += null_sums
                slot_sums[:] = 0
                null_sums[:] = 0

    return Loops(score, blend, spread)
