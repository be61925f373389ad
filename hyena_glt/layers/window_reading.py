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

LANES = 16  # single-precision numbers of the widest vectors
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
        loops = compiled_loops(query.shape[-1], len(slots))
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
        spread = compiled_loops(query.shape[-1], len(slots)).spread
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
def compiled_loops(width: int, num_slots: int) -> Loops:
    """The loops for heads of this width and windows of so many states.

    Tokens that follow each other mostly read the same window, so its keys and values are laid out once, as the sums
    over them want to find them. A sum becomes vector instructions where its own length is a constant, and that of the
    loop around it is not. Exponentials are left to the caller, which has a vectorised one.
    """
    num_lanes = -(-(num_slots + 1) // LANES) * LANES

    @njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
    def score(scores, query, key_value, slots, null, first, num_states):
        """Logits less their largest, `(tokens, heads, slots + 1)`, the null state last; -inf outside the row."""
        tokens, heads, _ = query.shape
        scale = query.dtype.type(1) / np.sqrt(query.dtype.type(width))
        keys, totals = np.zeros((heads, width, num_lanes), query.dtype), np.empty(num_lanes, query.dtype)
        for head in range(heads):
            for c in range(width):
                keys[head, c, num_slots] = null[0, head, c] * scale
        window = np.int64(0)
        for token in range(tokens):
            low, high = max(0, -first[token]), min(num_slots, num_states - first[token])
            if token == 0 or first[token] != window:
                window = first[token]
                for slot in range(low, high):
                    for head in range(heads):
                        for c in range(width):
                            keys[head, c, slot] = (key_value[window + slot, 0, head, c] + slots[slot, head, c]) * scale
            for head in range(heads):
                asked, known, row = query[token, head], keys[head], scores[token, head]
                for lane in range(totals.size):
                    total = query.dtype.type(0)
                    for c in range(width):
                        total += asked[c] * known[c, lane]
                    totals[lane] = total
                largest = totals[num_slots]
                for slot in range(low, high):
                    largest = max(largest, totals[slot])
                for slot in range(num_slots + 1):
                    row[slot] = totals[slot] - largest
                for slot in range(low):
                    row[slot] = -np.inf
                for slot in range(max(high, 0), num_slots):
                    row[slot] = -np.inf

    @njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
    def blend(y, weights, key_value, null, first, num_states):
        """`y` `(tokens, heads, width)`: the mean of the values under unnormalised weights, 0 outside the row."""
        tokens, heads, _ = y.shape
        values = np.zeros((heads, num_slots + 1, width), y.dtype)
        values[:, num_slots] = null[1]
        window = np.int64(0)
        for token in range(tokens):
            if token == 0 or first[token] != window:
                window = first[token]
                for slot in range(max(0, -window), min(num_slots, num_states - window)):
                    values[:, slot] = key_value[window + slot, 1]
            for head in range(heads):
                row, shares, known = y[token, head], weights[token, head], values[head]
                total = y.dtype.type(0)
                for slot in range(num_slots + 1):
                    total += shares[slot]
                for c in range(row.size):
                    mean = y.dtype.type(0)
                    for slot in range(num_slots + 1):
                        mean += shares[slot] * known[slot, c]
                    row[c] = mean / total

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
