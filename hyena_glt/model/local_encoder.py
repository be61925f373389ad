"""Tokens -> byte states -> patch states: everything that happens before the trunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.layers.feed_forward import in_blocks, row_blocks
from hyena_glt.layers.gated_conv import BLOCK_BYTES, GatedConvStack
from hyena_glt.layers.norm_loops import prepared_norm
from hyena_glt.model.byte_embedding import ByteEmbedding
from hyena_glt.ops.segments import segment_softmax, segment_sum, softmax_pool_runs, turn_runs
from hyena_glt.ops.shifted_sum import compiled_loops_read
from hyena_glt.positions.position_embedding import CODON, SegmentAwarePositionalEncoding
from hyena_glt.positions.position_info import PositionInfo

BLOCK_TOKENS = 8192
PHASES = np.arange(CODON) * (2 * np.pi / CODON)
TURNS = np.stack([np.cos(PHASES), np.sin(PHASES)], axis=1).astype(np.float32)  # (3, 2)


class LocalEncoder(nn.Module):
    """Byte states of the tokens: embedding, then narrow gated convolutions."""

    def __init__(self, config: HyenaGLTConfig) -> None:
        super().__init__()
        dim = config.local_hidden_size
        self.embedding = ByteEmbedding(
            config.vocab_size, dim, config.ngram_sizes, config.ngram_table_size, config.ngram_dropout
        )
        self.convolutions = GatedConvStack(
            dim, config.num_local_encoder_layers, config.local_kernel_size, causal=config.causal
        )

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, length, local)` from `(batch, length)` int64 ids; `mask` is False in padding."""
        if torch.is_grad_enabled():
            return self.convolutions.run_whole(self.embedding(ids), mask)
        before, after = self.convolutions.reach
        run = self.convolutions.prepared(self.embedding.table)
        return in_blocks(
            lambda part, seen: run(self.embedding(part), seen),
            ids,
            mask,
            size=BLOCK_BYTES,
            before=before + self.embedding.context,
            after=after,
        )

    def stream(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The next tokens of a sequence: `(batch, n, local)` from `(batch, n)` ids, and the state; causal only."""
        context, convolutions = (None, None) if state is None else state
        embedded, context = self.embedding.stream(ids, context)
        states, convolutions = self.convolutions.stream(embedded, convolutions)
        return states, (context, convolutions)


class PatchPooling(nn.Module):
    """Byte states of each patch -> one patch state: attention within the patch, and the patch's last byte.

    Lengths and relative positions enter here, and only here: a patch state is read when the patch is
    complete, so it may know them.

    Beside these stand sums in which each byte is turned by a third of a circle for each base of its global position.
    What recurs with every codon adds up in them over patches of any lengths, where the trunk could else follow the
    reading frame in equal patches alone (docs/results.md, what unequal lengths cost).
    """

    turns: Tensor

    def __init__(self, config: HyenaGLTConfig) -> None:
        super().__init__()
        dim = config.local_hidden_size
        self.num_heads = config.pooling_heads
        self.positions = SegmentAwarePositionalEncoding(dim, config.position_scales)
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_score = nn.Linear(dim, self.num_heads, bias=False)
        self.to_value = nn.Linear(dim, 2 * dim, bias=False)
        self.to_turned = nn.Linear(dim, (dim + 1) // 2, bias=False) if config.reading_frame else None
        turned = 0 if self.to_turned is None else TURNS.shape[1] * self.to_turned.out_features
        self.register_buffer("turns", torch.tensor(TURNS), persistent=False)
        self.project_out = nn.Linear(3 * dim + turned, config.hidden_size)

    def forward(self, x: Tensor, info: PositionInfo) -> Tensor:
        """Pool.

        Args:
            x: `(batch, length, local)`.
            info: Positions of the same tokens.

        Returns:
            `(batch, num_patches, hidden)`; padding patches hold finite values that nothing reads.
        """
        if not torch.is_grad_enabled() and compiled_loops_read(x, self.to_value.weight, self.to_score.weight):
            return self.pool_compiled(x, info)
        batch, num_patches = info.patch_lengths.shape
        states = self.norm(x + self.positions(info)).flatten(0, 1)
        pooled = [self.attend(states, info.segment_ids, batch * num_patches)]
        pooled.append(states.index_select(0, last_tokens(info)))
        if self.to_turned is not None:
            turned = turned_states(self.to_turned(states), info.global_positions.flatten(), self.turns.to(states.dtype))
            sums = segment_sum(turned, info.segment_ids, batch * num_patches)
            pooled.append(sums / root_lengths(info.patch_lengths))
        return self.project_out(torch.cat(pooled, dim=-1)).unflatten(0, (batch, num_patches))

    def pool_compiled(self, x: Tensor, info: PositionInfo) -> Tensor:
        """`forward` without gradients on the CPU: whole patches in blocks, values projected once per patch."""
        pooled = x.new_zeros(*info.patch_lengths.shape, self.project_out.out_features)
        norm = prepared_norm(self.norm)
        value = self.to_value.weight.unflatten(0, (self.num_heads, -1)).transpose(1, 2)  # (heads, local, share)
        for rows, _ in row_blocks(len(x), x.shape[1], max(x.shape[1], BLOCK_TOKENS)):
            pooled[rows][info.patch_mask[rows]] = self._pool_rows(x[rows], slice_rows(info, rows), norm, value)
        return pooled

    def _pool_rows(self, x: Tensor, info: PositionInfo, norm: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
        """`(patches, hidden)` of a few rows, all their patches one after the other."""
        x, info = (x[0], info) if len(x) == 1 else (x[info.mask], in_one_row(info))
        pooled = x.new_empty(int(info.patch_mask.sum()), self.project_out.out_features)
        for patches, tokens in patch_blocks(info.patch_lengths[0], BLOCK_TOKENS):
            part = slice_positions(info, patches, tokens)
            states = norm(self.positions(part).add_(x[tokens]))[0]
            lengths = part.patch_lengths[0]
            sums = x.new_empty(len(lengths), self.num_heads, x.shape[-1])
            scores = self.to_score(states)
            softmax_pool_runs(sums.numpy(), scores.numpy(), states.numpy(), lengths.numpy())
            values = torch.bmm(sums.transpose(0, 1), value).transpose(0, 1).flatten(1)
            parts = [values, states.index_select(0, lengths.cumsum(0) - 1)]
            if self.to_turned is not None:
                turned = x.new_empty(len(lengths), 2, x.shape[-1])
                turn_runs(turned.numpy(), states.numpy(), part.global_positions[0].numpy(), lengths.numpy(), TURNS)
                parts.append(self.to_turned(turned).flatten(1) / root_lengths(lengths))
            pooled[patches] = self.project_out(torch.cat(parts, dim=-1))
        return pooled

    def attend(self, states: Tensor, segment_ids: Tensor, num_segments: int) -> Tensor:
        """`(num_segments, 2 * local)`: each head's weighted sum of its share of the values."""
        weights = segment_softmax(self.to_score(states), segment_ids, num_segments)
        values = self.to_value(states).unflatten(-1, (self.num_heads, -1))
        weighted = (values * weights.unsqueeze(-1)).flatten(1)
        return segment_sum(weighted, segment_ids, num_segments)


def turned_states(states: Tensor, positions: Tensor, turns: Tensor) -> Tensor:
    """States times the weights of their positions modulo the period: `(tokens, weights * dim)` from `(tokens, dim)`."""
    return (turns[positions % len(turns)].unsqueeze(-1) * states.unsqueeze(-2)).flatten(-2)


def root_lengths(patch_lengths: Tensor) -> Tensor:
    """Square root of each patch's length, at least 1, `(patches, 1)`: sums over it are as large in long patches."""
    return patch_lengths.flatten().clamp_min(1).float().sqrt().unsqueeze(-1)


def last_tokens(info: PositionInfo) -> Tensor:
    """Index of each patch's last token in the flat batch: `(batch * num_patches,)`; 0 in padding."""
    batch, length = info.patch_ids.shape
    rows = torch.arange(batch, device=info.patch_ids.device).view(-1, 1) * length
    last = rows + info.patch_starts + info.patch_lengths - 1
    return last.masked_fill(~info.patch_mask, 0).flatten()


def slice_rows(info: PositionInfo, rows: slice) -> PositionInfo:
    """Positions of some rows."""
    return PositionInfo(**{field.name: getattr(info, field.name)[rows] for field in fields(info)})


def in_one_row(info: PositionInfo) -> PositionInfo:
    """The patches of all rows one after the other, without padding."""
    lengths, real = info.patch_lengths[info.patch_mask], info.mask
    return PositionInfo(
        patch_lengths=lengths.unsqueeze(0),
        patch_ids=torch.arange(len(lengths)).repeat_interleave(lengths).unsqueeze(0),
        offsets=info.offsets[real].unsqueeze(0),
        global_positions=info.global_positions[real].unsqueeze(0),
        relative_positions=info.relative_positions[real].unsqueeze(0),
    )


def patch_blocks(patch_lengths: Tensor, size: int) -> Iterator[tuple[slice, slice]]:
    """Patches and tokens of consecutive blocks of whole patches, about `size` tokens each.

    Args:
        patch_lengths: `(num_patches,)` int64 on the CPU, 0 at the end for padding.
        size: Tokens; a longer patch is a block of its own.
    """
    lengths = patch_lengths.numpy()
    ends = lengths[lengths > 0].cumsum()
    first = start = 0
    while first < ends.size:
        last = max(int(np.searchsorted(ends, start + size, side="right")), first + 1)
        stop = int(ends[last - 1])
        yield slice(first, last), slice(start, stop)
        first, start = last, stop


def slice_positions(info: PositionInfo, patches: slice, tokens: slice) -> PositionInfo:
    """Positions of some whole patches of a batch of one, without padding."""
    return replace(
        info,
        patch_lengths=info.patch_lengths[:, patches].contiguous(),
        patch_ids=info.patch_ids[:, tokens] - patches.start,
        offsets=info.offsets[:, tokens],
        global_positions=info.global_positions[:, tokens],
        relative_positions=info.relative_positions[:, tokens],
    )
