"""The network on a sequence that arrives in blocks: each byte's answer as soon as the byte has been fed.

    block -> ids -> local encoder ----------------------------+-> bridge -> local decoder -> logits
          -> patch starts -> complete patches -> pooling -> trunk ^

What `NetStream.feed` gives for the blocks of a sequence equals one forward over the whole of it, up to float
rounding. A byte's answer never changes later: with a causal patcher, whether the next byte starts a patch is
known once the byte itself has been fed, except where the next byte forces a start (the edge of a run of N), and
such a start is one that no earlier byte may know of (`known_starts`).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from hyena_glt.errors import ConfigError
from hyena_glt.layers.gated_conv import GatedConv, GatedConvStack
from hyena_glt.model.bridge import BridgeState
from hyena_glt.model.inputs import check_tokens
from hyena_glt.model.sources import Piece, encode_piece, resolve_patcher
from hyena_glt.model.visibility import readable_in_block
from hyena_glt.ops.stream_state import PastInputs, StreamStates
from hyena_glt.patching import scan_kernels as kernels
from hyena_glt.patching.online import Symbols, TokenSequence
from hyena_glt.patching.patcher import Patcher
from hyena_glt.patching.scan import NO_BOOLS, Bools, Floats, Lengths, Scanner
from hyena_glt.positions.position_embedding import OffsetEncoding
from hyena_glt.positions.position_info import PositionInfo

if TYPE_CHECKING:
    from hyena_glt.model.hyena_glt import HyenaGLT

NORM_EPSILON = 1e-5  # of nn.LayerNorm


class LookingScanner(Scanner):
    """A scanner that decides about the token after a block in every mode, and keeps which starts were forced.

    In mode mask, entry `i` of what is fed is about token `i + 1`.
    """

    known: Bools = NO_BOOLS  # (n,) of the tokens fed last; False at a start that only the forced mask made

    def feed(self, scores: NDArray[Any], forced: Bools | None = None) -> Lengths:
        """As `Scanner.feed`."""
        self.known = np.ones(scores.size, np.bool_)
        if self.rule.mode == "mask" and scores.size:
            return self._close(scores, forced, shift=1)
        return super().feed(scores, forced)

    def _force_first(self, forced: Bools | None) -> Lengths:
        opening = super()._force_first(forced)
        self.known[:1] = not opening.size
        return opening

    def _close(self, starts: Bools, forced: Bools | None, shift: int) -> Lengths:
        first, cap = self._seen + shift, self.rule.cap
        edges = NO_BOOLS if forced is None else np.ascontiguousarray(forced)
        room = np.count_nonzero(starts) + np.count_nonzero(edges) + (first + starts.size - self._last_start) // cap
        lengths, known = np.empty(room, np.int64), np.ones(starts.size, np.bool_)
        count, self._last_start = kernels.close_patches(
            np.ascontiguousarray(starts), edges, first, self._last_start, self.rule.shortest, cap, lengths, known
        )
        self.known[1:] = known[:-1]
        self._seen += starts.size
        return lengths[:count]


class StartSequence(TokenSequence):
    """Cuts one sequence as `OnlinePatcher` does, each patch as soon as its last byte is fed where that can be known."""

    _scanner: LookingScanner

    def __init__(self, patcher: Patcher) -> None:
        super().__init__(patcher)
        self._scanner = LookingScanner(self._scanner.rule)

    @property
    def known(self) -> Bools:
        """`(n,)` bool of the tokens fed last; False at a start that its own token forced."""
        return self._scanner.known

    def feed(self, symbols: Symbols, entropies: Any = None, preds: Any = None) -> Lengths:
        """`(num_patches,)` int64: the patches that are complete now, as far as the past and these tokens tell."""
        if self._token_starts is None:
            return super().feed(symbols, entropies, preds)
        starts = self._token_starts.feed(symbols)
        following = deepcopy(self._token_starts).feed(np.zeros(1, symbols.dtype))
        return self._scanner.feed(np.concatenate([starts[1:], following])[: starts.size])

    def fork(self) -> StartSequence:
        """An independent copy; the patcher and its model are shared."""
        shared = [self._patcher, getattr(self._stream, "model", None)]
        return deepcopy(self, {id(part): part for part in shared if part is not None})


class StackWeights(NamedTuple):
    """A stack of gated convolutions as the compiled step reads it, products transposed."""

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
def stack_step(x, weights, past, after):
    """One byte `(dim,)` through gated convolutions; `after` `(layers, taps - 1, dim)` gets the inputs that stay."""
    dim = x.size
    for layer in range(weights.norm.shape[0]):
        projected = product(normed(x, weights.norm[layer]), weights.project_in[layer])
        signal, gate = projected[:dim], projected[dim:]
        taps = weights.taps[layer]
        mixed = signal * taps[0]
        kept = past.shape[1]
        for lag in range(1, kept + 1):
            mixed += past[layer, kept - lag] * taps[lag]
        after[layer, : kept - 1] = past[layer, 1:]
        after[layer, kept - 1] = signal
        x = x + product(mixed * gate / (np.float32(1) + np.exp(-gate)), weights.project_out[layer])
    return x


@njit(cache=True, nogil=True)
def bridge_step(x, weights, keys, values):
    """One byte `(dim,)` reads patch states, laid out as `BridgeState` says."""
    query = product(normed(x, weights.norm), weights.query)
    heads, width, _ = keys.shape
    read = np.zeros(x.size, np.float32)
    for head in range(heads):
        scores = product(query[head * width : (head + 1) * width], keys[head])
        scores = np.exp(scores - scores.max())
        read[head * width : (head + 1) * width] = product(scores / scores.sum(), values[head])
    return x + product(read, weights.project_out)


class ByteStep:
    """One byte through the narrow layers in one go: hundreds of small tensor operations cost more than the arithmetic.

    Equal to the layers' own `stream` up to rounding; for float32 weights on the CPU.
    """

    def __init__(self, net: HyenaGLT) -> None:
        attention, head = net.bridge.attention, net.head
        self.net, self.embedding = net, net.local_encoder.embedding
        self.table = _array(self.embedding.table)
        self.encoder = _packed(net.local_encoder.convolutions)
        self.decoder = _packed(net.local_decoder)
        self.bridge = BridgeWeights(
            _array(attention.norm.weight), _array(attention.to_query.weight.T), _array(attention.project_out.weight.T)
        )
        self.head = HeadWeights(_array(head.norm.weight), _array(head.project.weight.T), _array(head.project.bias))
        self.offsets = _array(net.bridge.offsets.table.weight)

    @staticmethod
    def fits(net: HyenaGLT) -> bool:
        """Whether the net has the precision and the place."""
        plain = net.config.mixed_precision == "fp32" and net.device.type == "cpu"
        return plain and net.head.project.weight.dtype is torch.float32

    def encode(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As `LocalEncoder.stream` of one byte."""
        context, layers = state
        context = torch.cat([context, ids], dim=1)
        seen = context[0].tolist()
        embedded = self.table[self.embedding.rows_of_last(seen)].sum(0)
        encoded, layers = self._stack(embedded, self.encoder, layers)
        kept = max(self.embedding.ngram_sizes, default=1) - 1
        return encoded, (context[:, max(len(seen) - kept, 0) :], layers)

    def decode(self, encoded: Tensor, offset: int, bridge: BridgeState, state: Any) -> tuple[Tensor, Tensor, Any]:
        """Bridge, decoder and head of one byte that closes no patch: byte state, logits and the decoder's state."""
        row = offset if offset < OffsetEncoding.EXACT else int(self.net.bridge.offsets.bucket(torch.tensor(offset)))
        x = encoded.numpy().reshape(-1) + self.offsets[row]
        bridged = bridge_step(x, self.bridge, bridge.keys.numpy(), bridge.values.numpy())
        decoded, state = self._stack(bridged, self.decoder, state)
        logits = product(normed(decoded.numpy().reshape(-1), self.head.norm), self.head.project) + self.head.bias
        return decoded, torch.from_numpy(logits).view(1, 1, -1), state

    def _stack(self, x: Floats, weights: StackWeights, state: StreamStates) -> tuple[Tensor, StreamStates]:
        past = np.concatenate([part.values.numpy() for part in state.parts])  # type: ignore[union-attr]
        after = np.empty_like(past)
        y = stack_step(x, weights, past, after)
        parts = tuple(PastInputs(values=values.unsqueeze(0)) for values in torch.from_numpy(after).unbind())
        return torch.from_numpy(y).view(1, 1, -1), StreamStates(parts=parts)


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


@dataclass(slots=True, eq=False)
class StreamingState:
    """What a network carries from block to block."""

    starts: StartSequence
    num_bytes: int = 0  # fed so far
    num_patches: int = 0  # complete so far
    encoder: Any = None
    open_bytes: list[Tensor] = field(default_factory=list)  # (1, n, local) encoder states of the open patch
    open_length: int = 0
    trunk: Any = None
    bridge: BridgeState | None = None
    decoder: Any = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StreamOutput:
    """What one block adds. A patch belongs to the block that completes it."""

    logits: Tensor  # (1, n, vocab); row i predicts the byte after byte i of the block
    byte_hidden_state: Tensor  # (1, n, local)
    last_hidden_state: Tensor  # (1, num_patches, hidden), trunk states of the patches completed
    patch_lengths: Tensor  # (1, num_patches) int64; the first may have begun in an earlier block
    known_starts: Tensor  # (1, n) bool, False at a start that its own byte forced
    next_starts_patch: bool  # the next byte is known to start a patch


class NetStream:
    """Runs a causal network over one sequence, block by block.

    The blocks' results joined equal `net(tokens, patch_lengths, known_starts, next_starts_patch)` on the whole
    sequence. Memory: the open patch, and what the trunk's filters keep, which is constant for exponential
    filters and grows with the patches for implicit ones.

    Args:
        net: A causal network; call `net.eval()` first if it has dropout.
        patcher: In place of the net's. It must decide from the past alone and in a stream: `static`, `byte`,
            `space`, or `entropy` with a fitted model or with the entropies given.
        global_position_offset: Position of the first byte on its contig.

    Raises:
        ConfigError: A net or a patcher that needs the future, or a patcher that cannot be streamed.

    Example:
        >>> from hyena_glt import HyenaGLT, HyenaGLTConfig, Patcher
        >>> net = HyenaGLT(HyenaGLTConfig.preset("tiny"), Patcher(patching_mode="static", patch_size=4))
        >>> stream = net.stream()
        >>> stream.feed("ACGTA").logits.shape, stream.feed("CGT").patch_lengths.tolist()
        (torch.Size([1, 5, 260]), [[4]])
    """

    def __init__(self, net: HyenaGLT, patcher: Any | None = None, global_position_offset: int = 0) -> None:
        if not net.config.causal:
            raise ConfigError("causal: expected a causal net, got causal=False; its outputs depend on what follows")
        if net.config.boundaries == "learned":
            raise ConfigError("boundaries: expected 'patcher', got 'learned', which cannot be streamed yet")
        self.net, self.offset = net, global_position_offset
        patcher = resolve_patcher(net.config, net.external_patcher, None) if patcher is None else patcher
        if not isinstance(patcher, Patcher):
            raise ConfigError(f"patcher: expected a Patcher, which can be streamed, got {type(patcher).__name__}")
        self.patcher = patcher
        self._step: ByteStep | None = None  # holds copies of the weights as they are when the first byte comes alone
        self.state = StreamingState(StartSequence(patcher))

    @torch.no_grad()
    def feed(self, chunk: Piece, entropies: Any = None) -> StreamOutput:
        """Take the next bytes.

        Args:
            chunk: str, bytes or 1-D byte tokens; may be empty.
            entropies: `(n,)` nats after each of these bytes, in place of the patcher's model; with every block of a
                sequence or with none.

        Raises:
            AlphabetError: A byte that a small vocabulary does not have.
            ConfigError: The patcher cannot be streamed.
            PatchingError: No byte tokens, padding, or entropies that do not fit. The state is as it was.
        """
        tokens = encode_piece(chunk)
        check_tokens(tokens.unsqueeze(0))
        ids = self.net.vocabulary_ids(tokens.to(self.net.device).unsqueeze(0))
        state, starts = self.state, self.state.starts
        lengths = starts.feed(starts.symbols(tokens), entropies, None)
        if not len(tokens):
            return self._output(self._no_bytes(), self._pool(lengths), lengths, starts.known)
        with self.net._precision():
            output = self._run(ids, lengths, starts.known)
        state.num_bytes += len(tokens)
        state.open_length += len(tokens) - int(lengths.sum())
        return output

    @torch.no_grad()
    def finish(self) -> StreamOutput:
        """End the sequence: the state of the patch that was open, if any, without bytes; then begin another."""
        length = self.state.open_length
        with self.net._precision():
            lengths = np.full(1 if length else 0, length, np.int64)
            output = self._output(self._no_bytes(), self._pool(lengths), lengths, NO_BOOLS)
        self.state, self._step = StreamingState(StartSequence(self.patcher)), None
        return output

    def fork(self) -> NetStream:
        """An independent stream that goes on from here; net and patcher are shared."""
        copy = NetStream(self.net, self.patcher, self.offset)
        state = self.state  # its tensors are never written to
        copy._step = self._step
        copy.state = replace(state, starts=state.starts.fork(), open_bytes=list(state.open_bytes))
        return copy

    def _run(self, ids: Tensor, lengths: Lengths, known: Bools) -> StreamOutput:
        """The network on bytes that complete these patches."""
        state, net = self.state, self.net
        step = self._byte_step() if ids.shape[1] == 1 else None
        encode = net.local_encoder.stream if step is None else step.encode
        encoded, state.encoder = encode(ids, state.encoder)
        state.open_bytes.append(encoded)
        if step is not None and state.bridge is not None and not lengths.size:
            decoded, logits, state.decoder = step.decode(encoded, state.open_length, state.bridge, state.decoder)
            return self._output(decoded, self._pool(lengths), lengths, known, logits)
        patch_states = self._pool(lengths)
        offsets, readable = readable_in_block(lengths, state.open_length, known)
        bridged, state.bridge = net.bridge.stream(encoded, patch_states, offsets, readable, state.bridge)
        decoded, state.decoder = net.local_decoder.stream(bridged, state.decoder)
        return self._output(decoded, patch_states, lengths, known)

    def _byte_step(self) -> ByteStep | None:
        """The compiled step, once the stream has begun and where the net allows it."""
        if self._step is None and self.state.num_bytes and ByteStep.fits(self.net):
            self._step = ByteStep(self.net)
        return self._step if self.state.num_bytes else None

    def _pool(self, lengths: Lengths) -> Tensor:
        """Trunk states of the patches completed by the last bytes, `(1, num_patches, hidden)`."""
        state, net = self.state, self.net
        if not lengths.size:
            return net.head.project.weight.new_zeros(1, 0, net.config.hidden_size)
        total = int(lengths.sum())
        states = state.open_bytes[0] if len(state.open_bytes) == 1 else torch.cat(state.open_bytes, dim=1)
        first = self.offset + state.num_bytes - state.open_length
        info = PositionInfo.from_patch_lengths(torch.from_numpy(lengths).to(net.device).unsqueeze(0), first, total)
        pooled = net.pooling(states[:, :total], info)
        trunk, state.trunk = net.trunk.stream(pooled, state.trunk)
        state.open_bytes = [states[:, total:].clone()] if states.shape[1] > total else []
        state.num_patches += lengths.size
        return trunk

    def _no_bytes(self) -> Tensor:
        return self.net.head.project.weight.new_zeros(1, 0, self.net.config.local_hidden_size)

    def _output(
        self, decoded: Tensor, patch_states: Tensor, lengths: Lengths, known: Bools, logits: Tensor | None = None
    ) -> StreamOutput:
        return StreamOutput(
            logits=self.net.head(decoded) if logits is None else logits,
            byte_hidden_state=decoded,
            last_hidden_state=patch_states,
            patch_lengths=torch.from_numpy(lengths).unsqueeze(0),
            known_starts=torch.from_numpy(known.copy()).unsqueeze(0),
            next_starts_patch=bool(decoded.shape[1]) and not self.state.open_bytes,
        )
