"""The network on a sequence that arrives in blocks: each byte's answer as soon as the byte has been fed.

    block -> ids -> local encoder ----------------------------+-> bridge -> local decoder -> logits
          -> patch starts -> complete patches -> pooling -> trunk ^

What `NetStream.feed` gives for the blocks of a sequence equals one forward over the whole of it, up to float
rounding. A byte's answer never changes later: with a causal patcher, whether the next byte starts a patch is
known once the byte itself has been fed, except where the next byte forces a start (the edge of a run of N), and
such a start is one that no earlier byte may know of (`known_starts`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.model.adaptive_merger import smooth_states, start_weights
from hyena_glt.model.block_starts import LearnedStarts, StartSequence
from hyena_glt.model.bridge import BridgeState
from hyena_glt.model.byte_step import ByteStep, NarrowStates, pack, unpack
from hyena_glt.model.inputs import check_tokens
from hyena_glt.model.patch_step import PatchStep
from hyena_glt.model.sources import Piece, encode_piece, resolve_patcher
from hyena_glt.model.visibility import readable_in_block
from hyena_glt.patching.patcher import Patcher
from hyena_glt.patching.scan import NO_BOOLS, Bools, Lengths
from hyena_glt.positions.position_info import PositionInfo
from hyena_glt.tokens.byte_tokenizer import VOCAB_SIZE

if TYPE_CHECKING:
    from hyena_glt.model.hyena_glt import HyenaGLT

NO_LENGTHS: Lengths = np.zeros(0, np.int64)


@dataclass(slots=True, eq=False)
class StreamingState:
    """What a network carries from block to block."""

    starts: StartSequence | LearnedStarts
    num_bytes: int = 0  # fed so far
    num_patches: int = 0  # complete so far
    encoder: Any = None
    decoder: Any = None
    narrow: NarrowStates | None = None  # in place of these two after a byte that came alone
    last_byte: Tensor | None = None  # (1, 1, local) encoder state, where boundaries are learned
    open_bytes: list[Tensor] = field(default_factory=list)  # (1, n, local) encoder states of the open patch
    open_chances: list[Tensor] = field(default_factory=list)  # (1, n) of a start there, where boundaries are learned
    open_length: int = 0
    trunk: Any = None
    smoothed: Tensor | None = None  # (1, 1, hidden) of the last patch, where boundaries are learned
    bridge: BridgeState | None = None


class CompiledSteps(NamedTuple):
    """What single bytes take; it may hold copies of the weights as they are when the first byte comes alone."""

    byte: ByteStep
    patch: PatchStep


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
    sequence, up to rounding: within 1e-5 of the largest value in float32. Memory: the open patch, and what the trunk's
    filters keep, which is constant for exponential filters and grows with the patches for implicit ones.

    A net with `boundaries="learned"` cuts by its own byte states, as its forward does: the byte that starts a patch
    decides so itself, and the byte before it never knows, unless the cap forces the start. Only a probability within
    rounding of 1/2 can fall differently in other blocks.

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
        self.net, self.offset = net, global_position_offset
        if patcher is None and net.merger is None:
            patcher = resolve_patcher(net.config, net.external_patcher, None)
        if patcher is not None and not isinstance(patcher, Patcher):
            raise ConfigError(f"patcher: expected a Patcher, which can be streamed, got {type(patcher).__name__}")
        self.patcher: Patcher | None = patcher  # None: the net cuts by itself
        self._steps: CompiledSteps | None = None
        weight = net.head.project.weight.detach()
        self._no_bytes = weight.new_zeros(1, 0, net.config.local_hidden_size)
        self._no_patches = weight.new_zeros(1, 0, net.config.hidden_size)
        self.state = self._beginning()

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
        return self._feed(chunk, entropies, is_last=False)

    @torch.no_grad()
    def finish(self, chunk: Piece = b"", entropies: Any = None) -> StreamOutput:
        """Take the last bytes, maybe none, and end the sequence; the next call begins another.

        The patch that they leave open, if any, is complete now: its state comes last, and no byte reads it. One call
        for the last block is faster than `feed` and then `finish`, which runs the trunk once more for that patch.

        Args:
            chunk, entropies: As in `feed`, which says what is raised.
        """
        output = self._feed(chunk, entropies, is_last=True)
        self.state, self._steps = self._beginning(), None
        return output

    def _feed(self, chunk: Piece, entropies: Any, is_last: bool) -> StreamOutput:
        tokens = encode_piece(chunk)
        is_byte = len(tokens) == 1 and 0 <= int(tokens) < VOCAB_SIZE
        if not is_byte:
            check_tokens(tokens.unsqueeze(0))
        ids = self.net.vocabulary_ids(tokens.to(self.net.device).unsqueeze(0))
        state, starts = self.state, self.state.starts
        lengths = None
        if isinstance(starts, StartSequence):
            lengths = starts.feed(starts.symbols(tokens), entropies, None)
        else:
            _check_for_learned(tokens, entropies)
        with self.net._precision():
            if not len(tokens):
                lengths = self._closed(NO_LENGTHS, 0, is_last)
                return self._output(self._no_bytes, self._pool(lengths), lengths, NO_BOOLS)
            if is_byte and not is_last and self._may_step():
                output = self._run_byte(ids, lengths)
            else:
                output = self._run_block(ids, lengths, is_last)
        state.num_bytes += len(tokens)
        state.open_length += len(tokens)
        if output.patch_lengths.numel():
            state.open_length -= int(output.patch_lengths.sum())
        return output

    def fork(self) -> NetStream:
        """An independent stream that goes on from here; net and patcher are shared."""
        other = NetStream(self.net, self.patcher, self.offset)
        state = self.state  # its tensors are never written to
        other._steps = self._steps
        other.state = replace(
            state,
            starts=state.starts.fork(),
            open_bytes=list(state.open_bytes),
            open_chances=list(state.open_chances),
        )
        return other

    def _beginning(self) -> StreamingState:
        if self.patcher is not None:
            return StreamingState(StartSequence(self.patcher))
        assert self.net.merger is not None
        return StreamingState(LearnedStarts(self.net.merger))

    def _closed(self, lengths: Lengths, num_bytes: int, is_last: bool) -> Lengths:
        """Patches that are complete with the next bytes; after the last byte that is every one."""
        left = self.state.open_length + num_bytes - int(lengths.sum())
        return np.append(lengths, left) if is_last and left else lengths

    def _run_block(self, ids: Tensor, lengths: Lengths | None, is_last: bool) -> StreamOutput:
        """The network on bytes `(1, n)` that complete these patches; None: as the net decides."""
        state, net = self.state, self.net
        if state.narrow is not None:
            (state.encoder, state.decoder), state.narrow = unpack(state.narrow), None
        encoded, state.encoder = net.local_encoder.stream(ids, state.encoder)
        lengths = self._take(encoded, lengths)
        known, position = state.starts.known, self.offset + state.num_bytes
        offsets, readable = readable_in_block(lengths, state.open_length, known)
        closed = self._closed(lengths, ids.shape[1], is_last)
        patch_states = self._pool(closed)
        seen = patch_states[:, : lengths.size]
        bridged, state.bridge = net.bridge.stream(encoded, seen, offsets, readable, position, state.bridge)
        decoded, state.decoder = net.local_decoder.stream(bridged, state.decoder)
        output = self._output(decoded, patch_states, closed, known)
        return output if closed is lengths else replace(output, next_starts_patch=False)

    def _run_byte(self, ids: Tensor, lengths: Lengths | None) -> StreamOutput:
        """The same for a byte that comes alone: it may read every patch that is complete after it."""
        state = self.state
        self._steps = self._steps or CompiledSteps(ByteStep(self.net), PatchStep(self.net.trunk))
        step = self._steps.byte
        narrow = pack(state.encoder, state.decoder) if state.narrow is None else state.narrow
        encoded, narrow = step.encode(int(ids), narrow)
        lengths = self._take(torch.from_numpy(encoded).view(1, 1, -1), lengths)
        patch_states, known, offset = self._pool(lengths), state.starts.known, state.open_length
        if lengths.size:
            offset = int(readable_in_block(lengths, offset, known)[0][0])
            state.bridge = self.net.bridge.carry(patch_states, state.bridge)
        assert state.bridge is not None
        decoded, logits, state.narrow = step.decode(
            encoded, offset, self.offset + state.num_bytes, state.bridge, narrow
        )
        rows = (torch.from_numpy(values).view(1, 1, -1) for values in (decoded, logits))
        return self._output(next(rows), patch_states, lengths, known, next(rows))

    def _may_step(self) -> bool:
        """Whether a byte that comes alone takes the compiled way: the stream has begun and the net allows it."""
        return bool(self.state.num_bytes) and (self._steps is not None or ByteStep.fits(self.net))

    def _take(self, encoded: Tensor, lengths: Lengths | None) -> Lengths:
        """Add encoder states `(1, n, local)` to the open patch; the patches that they complete."""
        state, merger, starts = self.state, self.net.merger, self.state.starts
        state.open_bytes.append(encoded)
        if merger is None:
            assert lengths is not None
            return lengths
        joined = encoded if state.last_byte is None else torch.cat([state.last_byte, encoded], dim=1)
        everywhere = torch.ones(joined.shape[:2], dtype=torch.bool, device=joined.device)
        chances = merger(joined, everywhere)[:, joined.shape[1] - encoded.shape[1] :]
        state.open_chances.append(chances)
        state.last_byte = encoded[:, -1:].clone()
        if lengths is None:
            assert isinstance(starts, LearnedStarts)
            return starts.feed(chances[0])
        return lengths

    def _pool(self, lengths: Lengths) -> Tensor:
        """Trunk states of the patches completed by the last bytes, `(1, num_patches, hidden)`."""
        state, net = self.state, self.net
        if not lengths.size:
            return self._no_patches
        total = int(lengths.sum())
        states, state.open_bytes = _split_at(state.open_bytes, total)
        first = self.offset + state.num_bytes - state.open_length
        info = PositionInfo.from_patch_lengths(torch.from_numpy(lengths).to(net.device).unsqueeze(0), first, total)
        pooled = net.pooling(states, info)
        if lengths.size == 1 and state.trunk is not None and self._steps is not None and not net.training:
            trunk, state.trunk = self._steps.patch(pooled, state.trunk)
        else:
            trunk, state.trunk = net.trunk.stream(pooled, state.trunk)
        state.num_patches += lengths.size
        return trunk if net.merger is None else self._smooth(trunk, info)

    def _smooth(self, trunk: Tensor, info: PositionInfo) -> Tensor:
        """`smooth_states` of the next patches of a net whose boundaries are learned."""
        state = self.state
        chances, state.open_chances = _split_at(state.open_chances, info.patch_ids.shape[1])
        weights = start_weights(chances, info)
        if state.smoothed is not None:  # the patch before, as it is: all that the new ones need of the past
            trunk, weights = torch.cat([state.smoothed, trunk], dim=1), F.pad(weights, (1, 0), value=1.0)
        smoothed = smooth_states(trunk, weights)[:, trunk.shape[1] - info.patch_lengths.shape[1] :]
        state.smoothed = smoothed[:, -1:].clone()
        return smoothed

    def _output(
        self, decoded: Tensor, patch_states: Tensor, lengths: Lengths, known: Bools, logits: Tensor | None = None
    ) -> StreamOutput:
        return StreamOutput(
            logits=self.net.head(decoded) if logits is None else logits,
            byte_hidden_state=decoded,
            last_hidden_state=patch_states,
            patch_lengths=torch.from_numpy(lengths).unsqueeze(0),
            known_starts=torch.from_numpy(known).unsqueeze(0),
            next_starts_patch=bool(decoded.shape[1]) and not self.state.open_bytes,
        )


def _split_at(parts: list[Tensor], count: int) -> tuple[Tensor, list[Tensor]]:
    """The first `count` of what lies along dimension 1, and the rest in memory of its own."""
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return joined[:, :count], [joined[:, count:].clone()] if joined.shape[1] > count else []


def _check_for_learned(tokens: Tensor, entropies: Any) -> None:
    """What a net that cuts by itself can't take."""
    if entropies is not None:
        raise PatchingError("entropies: expected None, since the net has learned boundaries; give a patcher as well")
    if len(tokens) and int(tokens.min()) < 0:
        raise PatchingError("chunk: expected ids >= 0; a stream holds no PAD, cut the row at its end")
