"""The way back: every byte reads the patch states around it, each with its own question."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.layers.cross_attention import Reader, WindowedCrossAttention
from hyena_glt.model.visibility import readable_patches
from hyena_glt.positions.position_embedding import CODON, OffsetEncoding
from hyena_glt.positions.position_info import PositionInfo


class BridgeState(NamedTuple):
    """What a stream of bytes still reads of complete patches."""

    states: Tensor  # (1, num_states, hidden), the last ones, as many as a byte reads at most
    keys: Tensor  # (heads, local / heads, num_states + 1) of these states and of the null state
    values: Tensor  # (heads, num_states + 1, local / heads)


class CrossAttentionPositionBridge(nn.Module):
    """Byte states + what they read of the patch states.

    In causal mode a byte attends to the most recent complete patches, otherwise to its own patch and its
    neighbours on both sides. Each byte brings its state, its offset in the patch and its place modulo 3 as the
    query, so the bytes of a patch differ, and one that knows the reading frame finds its place in the codon.
    """

    def __init__(self, config: HyenaGLTConfig) -> None:
        super().__init__()
        dim = config.local_hidden_size
        self.causal, self.num_patches = config.causal, config.bridge_num_patches
        self.offsets = OffsetEncoding(dim, CODON if config.reading_frame else 1)
        self.attention = WindowedCrossAttention(dim, config.hidden_size, config.bridge_heads, self.num_patches)

    def forward(
        self,
        x: Tensor,
        states: Tensor,
        info: PositionInfo,
        known_starts: Tensor | None = None,
        next_starts_patch: Tensor | None = None,
    ) -> Tensor:
        """Carry patch states to bytes.

        Args:
            x: `(batch, length, local)` byte states.
            states: `(batch, num_patches, hidden)` patch states.
            info: Positions of the bytes.
            known_starts: `(batch, length)` bool; see `readable_patches`.
            next_starts_patch: `(batch,)` bool; see `readable_patches`.

        Returns:
            `(batch, length, local)`.
        """
        x = x + self.offsets(info)
        first = self.first_patch(info, known_starts, next_starts_patch)
        return x + self.attention(x, states, first, info.patch_mask.sum(1))

    def reader(
        self, states: Tensor, info: PositionInfo, known_starts: Tensor | None, next_starts_patch: Tensor | None
    ) -> Reader:
        """What adds to a part of the bytes their offsets and what they read, without gradients on the CPU."""
        first = self.first_patch(info, known_starts, next_starts_patch)
        read = self.attention.reader(states, first, info.patch_mask.sum(1))
        vectors, rows = self.offsets.vectors(), self.offsets.rows(info.offsets, info.global_positions)
        weight = self.attention.project_out.weight.T.contiguous()

        def bridge(x: Tensor, which: slice, part: slice) -> Tensor:
            placed = vectors.index_select(0, rows[which, part].flatten()).view_as(x).add_(x)
            placed.view(-1, x.shape[-1]).addmm_(read(placed, which, part).flatten(0, 1), weight)
            return placed

        return bridge

    def first_patch(self, info: PositionInfo, known_starts: Tensor | None, next_starts_patch: Tensor | None) -> Tensor:
        """First patch of each byte's window: `(batch, length)` int64, negative near the start."""
        if self.causal:
            return readable_patches(info, known_starts, next_starts_patch) - self.num_patches
        return info.patch_ids * info.mask - self.num_patches // 2

    def stream(
        self,
        x: Tensor,
        states: Tensor,
        offsets: NDArray[np.int64],
        readable: NDArray[np.int64],
        position: int,
        state: BridgeState | None = None,
    ) -> tuple[Tensor, BridgeState]:
        """Carry patch states to the next bytes of a sequence; causal only.

        Args:
            x: `(1, n, local)` byte states.
            states: `(1, num_patches, hidden)` of the patches that these bytes complete.
            offsets: `(n,)` int64, bytes since the start of the patch.
            readable: `(n,)` int64, how many of `states` each byte may read, besides all earlier ones.
            position: Global position of the first of these bytes.
            state: What the call before returned; None begins a sequence.

        Returns:
            `(1, n, local)`, and the state.
        """
        positions = torch.arange(x.shape[1], device=x.device) + position
        x = x + self.offsets.vectors()[self.offsets.rows(torch.from_numpy(offsets).to(x.device), positions)]
        recent = states[:, :0] if state is None else state.states
        if state is not None and not states.shape[1] and x.shape[1] == 1:
            return x + self._read_again(x, state), state
        known = torch.cat([recent, states], dim=1)
        first = torch.from_numpy(readable + recent.shape[1] - self.num_patches).to(x.device).unsqueeze(0)
        read = self.attention(x, known, first, torch.tensor([known.shape[1]], device=x.device))
        return x + read, self.carry(known)

    def carry(self, states: Tensor, state: BridgeState | None = None) -> BridgeState:
        """The state after more patch states `(1, num_patches, hidden)`, without bytes."""
        known = states if state is None else torch.cat([state.states, states], dim=1)
        last = known[:, max(known.shape[1] - self.num_patches, 0) :].clone()
        return BridgeState(last, *self._keys_and_values(last))

    def _keys_and_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """What a byte reads that may read all of the last states, laid out as `BridgeState` says."""
        attention, count = self.attention, states.shape[1]
        key_value = torch.cat(
            [attention.to_key_value(states)[0], attention.null_key_value.to(states.dtype).unsqueeze(0)]
        )
        keys, values = key_value.chunk(2, dim=-1)  # (count + 1, local)
        slots = F.pad(attention.slot_keys[self.num_patches - count :], (0, 0, 0, 1)).to(keys.dtype)
        heads = (attention.num_heads, -1)
        keys, values = (keys + slots).unflatten(-1, heads), values.unflatten(-1, heads)
        return keys.permute(1, 2, 0).contiguous() / math.sqrt(keys.shape[-1]), values.transpose(0, 1).contiguous()

    def _read_again(self, x: Tensor, state: BridgeState) -> Tensor:
        """What one byte reads of states that were known before it, `(1, 1, local)`."""
        attention = self.attention
        query = attention.to_query(attention.norm(x)).view(attention.num_heads, 1, -1)
        weights = torch.bmm(query, state.keys.to(query.dtype)).softmax(-1)
        return attention.project_out(torch.bmm(weights.to(query.dtype), state.values.to(query.dtype)).view(1, 1, -1))
