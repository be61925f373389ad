"""One patch state through the trunk: its products as matrix times vector, all between them in compiled loops.

A step reads every weight of the trunk once, which is the time it cannot do without; what lies between the products
would take half as long again as separate tensor operations. Equal to `HyenaTrunk.stream` up to rounding; for float32
weights on the CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hyena_glt.layers.hyena_operator import OperatorState
from hyena_glt.layers.lag_filter import LagFilter, check_streamable
from hyena_glt.model.byte_step import normed
from hyena_glt.model.trunk import HyenaTrunk, TrunkBlock
from hyena_glt.ops.stream_state import History, PastInputs, StreamState, StreamStates
from hyena_glt.ops.streaming import extend, kept_values
from hyena_glt.patching.scan import Floats

ANY_LENGTH = 1 << 62  # values; more than any history


class BlockWeights(NamedTuple):
    """The weights of a trunk block where they lie."""

    operator_norm: Floats  # (hidden,)
    project_in: Floats  # (3 * hidden, hidden)
    short_taps: Floats  # (3 * hidden, taps)
    bypass: Floats  # (hidden,)
    long: LongStep
    project_out: Floats  # (hidden, hidden)
    feed_forward_norm: Floats  # (hidden,)
    inner_in: Floats  # (2 * inner, hidden)
    inner_out: Floats  # (hidden, inner)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def product(weight, x):
    """`weight @ x`, `(rows,)`; rows of four places at a time, since one row alone does not fill the memory's width."""
    rows = weight.shape[0]
    y = np.empty(rows, x.dtype)
    quarter = rows // 4
    for row in range(quarter):
        first, second = weight[row], weight[row + quarter]
        third, fourth = weight[row + 2 * quarter], weight[row + 3 * quarter]
        a, b, c, d = x.dtype.type(0), x.dtype.type(0), x.dtype.type(0), x.dtype.type(0)
        for i in range(x.size):
            a += first[i] * x[i]
            b += second[i] * x[i]
            c += third[i] * x[i]
            d += fourth[i] * x[i]
        y[row], y[row + quarter], y[row + 2 * quarter], y[row + 3 * quarter] = a, b, c, d
    for row in range(4 * quarter, rows):
        total = x.dtype.type(0)
        for i in range(x.size):
            total += weight[row, i] * x[i]
        y[row] = total
    return y


@njit(cache=True, nogil=True)
def add_and_norm(x, branch, weight):
    """`x + branch` `(dim,)`, and the same normalised."""
    x = x + branch
    return x, normed(x, weight)


@njit(cache=True, nogil=True)
def filter_step(projected, taps, past):
    """The short filter's newest output `(channels,)`, and the inputs that stay, `(channels, taps - 1)`."""
    kept = past.shape[1]
    filtered, after = np.empty_like(projected), np.empty_like(past)
    for channel in range(projected.size):
        total = projected[channel] * taps[channel, 0]
        for lag in range(1, kept + 1):
            value = past[channel, kept - lag]
            total += value * taps[channel, lag]
            if lag < kept:
                after[channel, kept - lag - 1] = value
        filtered[channel] = total
        after[channel, kept - 1] = projected[channel]
    return filtered, after


@njit(cache=True, nogil=True)
def gated_unit(projected):
    """`silu(gate) * up` from both, `(2 * inner,)`."""
    inner = projected.size // 2
    gate, up = projected[:inner], projected[inner:]
    return gate * up / (np.float32(1) + np.exp(-gate))


@njit(cache=True, nogil=True)
def before_long(residual, branch, norm, project_in, taps, past):
    """A block up to its long filter: the sum that goes on, query, key * value, the inputs that stay."""
    residual, signal = add_and_norm(residual, branch, norm)
    filtered, after = filter_step(product(project_in, signal), taps, past)
    hidden = residual.size
    return residual, filtered[:hidden], filtered[hidden : 2 * hidden] * filtered[2 * hidden :], after


@njit(cache=True, nogil=True)
def after_long(residual, query, convolved, gated, bypass, project_out, norm, inner_in, inner_out):
    """The rest of a block: the sum that goes on, and what the feed-forward part adds to it."""
    mixed = query * (convolved + bypass * gated)
    residual, signal = add_and_norm(residual, product(project_out, mixed), norm)
    return residual, product(inner_out, gated_unit(product(inner_in, signal)))


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def newest_output(values, length, reversed_taps):
    """The last output of a causal convolution, `(channels,)`.

    Args:
        values: `(channels, capacity)`, of which the first `length` count.
        reversed_taps: `(channels, taps)`, lag 0 last.
    """
    channels, taps = reversed_taps.shape
    y = np.empty(channels, np.float32)
    count = min(length, taps)
    for channel in range(channels):
        newest, weights = values[channel, length - count : length], reversed_taps[channel, taps - count :]
        total = np.float32(0)
        for i in range(count):
            total += newest[i] * weights[i]
        y[channel] = total
    return y


class LongStep:
    """Runs single inputs through a long filter; those with a history meet taps that are looked up rarely."""

    def __init__(self, taps: LagFilter) -> None:
        self._filter = taps
        self._has_history = type(taps).stream is LagFilter.stream
        self._length = 0  # values that the taps kept here can meet
        self._reach: int | None = None
        self._taps = np.zeros((0, 0), np.float32)

    def __call__(self, gated: Floats, state: StreamState) -> tuple[Floats, StreamState]:
        """As `LagFilter.stream` of `(channels,)`."""
        u = torch.from_numpy(gated).view(1, -1, 1)
        if not (self._has_history and isinstance(state, History)):
            convolved, state = self._filter.stream(u, state)
            return convolved.numpy().reshape(-1), state
        if state.length >= self._length:
            self._reach, taps = self._filter.stream_taps(state.length + 1)
            self._taps = taps.contiguous().numpy()
            self._length = ANY_LENGTH if taps.shape[1] == self._reach else taps.shape[1]
        history = extend(u, state, self._reach)
        y = newest_output(history.buffer[0].numpy(), history.length, self._taps)
        return y, history.trimmed(kept_values(self._reach))


class PatchStep:
    """Runs single patches through a trunk, with its weights as they are now: later changes may not count.

    Args:
        trunk: A causal trunk with float32 weights on the CPU.
    """

    def __init__(self, trunk: HyenaTrunk) -> None:
        self._blocks = [_weights(block) for block in trunk.blocks if isinstance(block, TrunkBlock)]
        self._norm = _array(trunk.norm.weight)

    def __call__(self, x: Tensor, state: StreamStates) -> tuple[Tensor, StreamStates]:
        """As `HyenaTrunk.stream` without dropout, for `(1, 1, hidden)` and a stream that has begun."""
        residual, branch = x.numpy().reshape(-1), np.zeros(x.shape[-1], np.float32)
        states: list[OperatorState] = []
        for block, old in zip(self._blocks, state.parts, strict=True):
            assert isinstance(old, OperatorState)
            past = old.short.values[0].numpy()
            residual, query, gated, after = before_long(
                residual, branch, block.operator_norm, block.project_in, block.short_taps, past
            )
            convolved, long = block.long(gated, old.long)
            states.append(OperatorState(short=PastInputs(values=torch.from_numpy(after).unsqueeze(0)), long=long))
            residual, branch = after_long(
                residual,
                query,
                convolved,
                gated,
                block.bypass,
                block.project_out,
                block.feed_forward_norm,
                block.inner_in,
                block.inner_out,
            )
        _, result = add_and_norm(residual, branch, self._norm)
        return torch.from_numpy(result).view(1, 1, -1), StreamStates(parts=tuple(states))


def _weights(block: TrunkBlock) -> BlockWeights:
    operator, feed_forward = block.operator, block.feed_forward
    return BlockWeights(
        operator_norm=_array(block.operator_norm.weight),
        project_in=_array(operator.project_in.weight),
        short_taps=_array(operator.short_taps),
        bypass=_array(operator.bypass),
        long=LongStep(check_streamable(operator.past)),
        project_out=_array(operator.project_out.weight),
        feed_forward_norm=_array(block.feed_forward_norm.weight),
        inner_in=_array(feed_forward.project_in.weight),
        inner_out=_array(feed_forward.project_out.weight),
    )


def _array(weight: Tensor) -> Floats:
    return weight.detach().numpy()
