"""One byte through the narrow layers in two compiled calls: `encode` before its patches are known, `decode` after.

    id -> embedding -> local encoder -> byte state
    byte state, patch states -> bridge -> local decoder -> head -> logits

Hundreds of small tensor operations cost more than the arithmetic of one byte. Equal to the layers' own `stream` up to
rounding; for float32 weights on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.layers.gated_conv import GatedConv, GatedConvStack
from hyena_glt.model.bridge import BridgeState
from hyena_glt.model.byte_embedding import embed_last
from hyena_glt.ops.stream_state import PastInputs, StreamStates
from hyena_glt.patching.scan import Floats

if TYPE_CHECKING:
    from hyena_glt.model.hyena_glt import HyenaGLT

NORM_EPSILON = 1e-5  # of nn.LayerNorm
TABULATED_OFFSETS = 4096  # bytes; the rows of larger offsets are computed when they come


class StackWeights(NamedTuple):
    """A stack of gated convolutions, products transposed."""

    norm: Floats  # (layers, dim)
    project_in: Floats  # (layers, dim, 2 * dim)
    project_out: Floats  # (layers, dim, dim)
    taps: Floats  # (layers, taps, dim)


class BridgeWeights(NamedTuple):
    """What the bridge does to a byte, products transposed."""

    norm: Floats  # (dim,)
    query: Floats  # (dim, dim)
    project_out: Floats  # (dim, dim)


class HeadWeights(NamedTuple):
    """The byte head, product transposed."""

    norm: Floats  # (dim,)
    project: Floats  # (dim, vocab)
    bias: Floats  # (vocab,)


class NarrowStates(NamedTuple):
    """What the narrow layers remember between single bytes; never written to."""

    ids: NDArray[np.int64]  # the ids that the longest n-gram still sees
    encoder: Floats  # (layers, taps - 1, dim)
    decoder: Floats  # (layers, taps - 1, dim)


@njit(cache=True, nogil=True)
def normed(x, weight):
    """`x` `(dim,)` normalised as `nn.LayerNorm` does without a bias."""
    mean = x.mean()
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean() + np.float32(NORM_EPSILON)) * weight


@njit(cache=True, nogil=True)
def product(x, weight):
    """`x` `(n,)` times `weight` `(n, m)`, row by row, which is contiguous."""
    y = np.zeros(weight.shape[1], np.float32)
    for i in range(x.size):
        for j in range(y.size):
            y[j] += x[i] * weight[i, j]
    return y


@njit(cache=True, nogil=True)
def stack_step(x, weights, past):
    """One byte `(dim,)` through gated convolutions; also the `(layers, taps - 1, dim)` inputs that stay."""
    norm, project_in, project_out, taps = weights
    dim, kept = x.size, past.shape[1]
    after = np.empty_like(past)
    for layer in range(norm.shape[0]):
        projected = product(normed(x, norm[layer]), project_in[layer])
        signal, gate = projected[:dim], projected[dim:]
        mixed = signal * taps[layer, 0]
        for lag in range(1, kept + 1):
            mixed += past[layer, kept - lag] * taps[layer, lag]
        after[layer, : kept - 1] = past[layer, 1:]
        after[layer, kept - 1] = signal
        x = x + product(mixed * gate / (np.float32(1) + np.exp(-gate)), project_out[layer])
    return x, after


@njit(cache=True, nogil=True)
def encode_step(number, ids, table, ngrams, stack, past):
    """From an id and those before it to the byte state; the ids that the next one needs, the inputs that stay."""
    seen = np.append(ids, number)
    sizes, bases, table_size = ngrams
    encoded, after = stack_step(embed_last(table, seen, sizes, bases, table_size), stack, past)
    kept = sizes.max() - 1 if sizes.size else 0
    return encoded, seen[max(seen.size - kept, 0) :], after


@njit(cache=True, nogil=True)
def bridge_step(x, weights, keys, values):
    """One byte `(dim,)` reads patch states, laid out as `BridgeState` says."""
    norm, to_query, project_out = weights
    query = product(normed(x, norm), to_query)
    heads, width, _ = keys.shape
    read = np.zeros(x.size, np.float32)
    for head in range(heads):
        scores = product(query[head * width : (head + 1) * width], keys[head])
        scores = np.exp(scores - scores.max())
        read[head * width : (head + 1) * width] = product(scores / scores.sum(), values[head])
    return x + product(read, project_out)


@njit(cache=True, nogil=True)
def decode_step(x, bridge, keys, values, stack, past, head):
    """From the byte state with its offset to the decoded state, the logits and the inputs that stay."""
    norm, project, bias = head
    decoded, after = stack_step(bridge_step(x, bridge, keys, values), stack, past)
    return decoded, product(normed(decoded, norm), project) + bias, after


class ByteStep:
    """The narrow layers of a net as they are now: changes to its weights do not count.

    Args:
        net: A causal net that `fits`.
    """

    def __init__(self, net: HyenaGLT) -> None:
        attention, head, offsets = net.bridge.attention, net.head, net.bridge.offsets
        embedding = net.local_encoder.embedding
        self._table, self._ngrams = _array(embedding.table), embedding.ngram_tables
        # plain tuples: compiled code takes half as long to receive them as named ones
        self._encoder = tuple(_packed(net.local_encoder.convolutions))
        self._decoder = tuple(_packed(net.local_decoder))
        self._bridge = tuple(
            BridgeWeights(
                norm=_array(attention.norm.weight),
                query=_array(attention.to_query.weight.T),
                project_out=_array(attention.project_out.weight.T),
            )
        )
        self._head = tuple(
            HeadWeights(
                norm=_array(head.norm.weight), project=_array(head.project.weight.T), bias=_array(head.project.bias)
            )
        )
        self._offset_vectors, self._period = _array(offsets.vectors()), offsets.period
        self._bucket = offsets.bucket
        self._rows = offsets.bucket(torch.arange(TABULATED_OFFSETS)).tolist()

    @staticmethod
    def fits(net: HyenaGLT) -> bool:
        """Whether the net has the precision and the place."""
        plain = net.config.mixed_precision == "fp32" and net.device.type == "cpu"
        return plain and net.head.project.weight.dtype is torch.float32

    def encode(self, number: int, states: NarrowStates) -> tuple[Floats, NarrowStates]:
        """The byte state `(local,)` of one id, and the states after it."""
        encoded, ids, after = encode_step(number, states.ids, self._table, self._ngrams, self._encoder, states.encoder)
        return encoded, NarrowStates(ids, after, states.decoder)

    def decode(
        self, encoded: Floats, offset: int, position: int, bridge: BridgeState, states: NarrowStates
    ) -> tuple[Floats, Floats, NarrowStates]:
        """The decoded state `(local,)` and the logits `(vocab,)` of a byte that may read all that the bridge holds.

        Args:
            encoded: As `encode` gave it.
            offset: Bytes since the start of the patch.
            position: Global position.
            bridge: What can be read.
            states: As `encode` left them.
        """
        row = self._rows[offset] if offset < TABULATED_OFFSETS else int(self._bucket(torch.tensor(offset)))
        decoded, logits, after = decode_step(
            encoded + self._offset_vectors[row * self._period + position % self._period],
            self._bridge,
            bridge.keys.numpy(),
            bridge.values.numpy(),
            self._decoder,
            states.decoder,
            self._head,
        )
        return decoded, logits, NarrowStates(states.ids, states.encoder, after)


def pack(encoder: tuple[Tensor, StreamStates], decoder: StreamStates) -> NarrowStates:
    """The states of `LocalEncoder.stream` and of the decoder's, as the compiled step takes them; one row."""
    ids, layers = encoder
    return NarrowStates(ids[0].numpy(), _joined(layers), _joined(decoder))


def unpack(states: NarrowStates) -> tuple[tuple[Tensor, StreamStates], StreamStates]:
    """The way back, for a block of several bytes."""
    ids = torch.from_numpy(states.ids).unsqueeze(0)
    return (ids, _parted(states.encoder)), _parted(states.decoder)


def _joined(states: StreamStates) -> Floats:
    return np.concatenate([part.values.numpy() for part in states.parts if isinstance(part, PastInputs)])


def _parted(past: Floats) -> StreamStates:
    return StreamStates(parts=tuple(PastInputs(values=part) for part in torch.from_numpy(past).split(1)))


def _packed(stack: GatedConvStack) -> StackWeights:
    layers = [layer for layer in stack.layers if isinstance(layer, GatedConv)]
    return StackWeights(
        norm=np.stack([_array(layer.norm.weight) for layer in layers]),
        project_in=np.stack([_array(layer.project_in.weight.T) for layer in layers]),
        project_out=np.stack([_array(layer.project_out.weight.T) for layer in layers]),
        taps=np.stack([_array(layer.taps.T) for layer in layers]),
    )


def _array(weight: Tensor) -> Floats:
    return np.ascontiguousarray(weight.detach().numpy())
