"""Tokens -> byte states -> patch states: everything that happens before the trunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.layers.gated_conv import GatedConvStack
from hyena_glt.model.byte_embedding import ByteEmbedding
from hyena_glt.ops.segments import segment_softmax, segment_sum
from hyena_glt.positions.position_embedding import SegmentAwarePositionalEncoding
from hyena_glt.positions.position_info import PositionInfo


class LocalEncoder(nn.Module):
    """Byte states of the tokens: embedding, then narrow gated convolutions."""

    def __init__(self, config: HyenaGLTConfig) -> None:
        super().__init__()
        dim = config.local_hidden_size
        self.embedding = ByteEmbedding(config.vocab_size, dim, config.ngram_sizes, config.ngram_table_size)
        self.convolutions = GatedConvStack(
            dim, config.num_local_encoder_layers, config.local_kernel_size, causal=config.causal
        )

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, length, local)` from `(batch, length)` int64 ids; `mask` is False in padding."""
        return self.convolutions(self.embedding(ids), mask)

    def stream(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """The next tokens of a sequence: `(batch, n, local)` from `(batch, n)` ids, and the state; causal only."""
        context, convolutions = (None, None) if state is None else state
        embedded, context = self.embedding.stream(ids, context)
        states, convolutions = self.convolutions.stream(embedded, convolutions)
        return states, (context, convolutions)


class PatchPooling(nn.Module):
    """Byte states of each patch -> one patch state: attention within the patch, and the patch's last byte.

    Positions enter here, and only here: a patch state is read when the patch is complete, so it may know
    the length of the patch and each byte's relative position.
    """

    def __init__(self, config: HyenaGLTConfig) -> None:
        super().__init__()
        dim = config.local_hidden_size
        self.num_heads = config.pooling_heads
        self.positions = SegmentAwarePositionalEncoding(dim, config.position_scales)
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_score = nn.Linear(dim, self.num_heads, bias=False)
        self.to_value = nn.Linear(dim, 2 * dim, bias=False)
        self.project_out = nn.Linear(3 * dim, config.hidden_size)

    def forward(self, x: Tensor, info: PositionInfo) -> Tensor:
        """Pool.

        Args:
            x: `(batch, length, local)`.
            info: Positions of the same tokens.

        Returns:
            `(batch, num_patches, hidden)`; padding patches hold finite values that nothing reads.
        """
        batch, num_patches = info.patch_lengths.shape
        states = self.norm(x + self.positions(info)).flatten(0, 1)
        pooled = self.attend(states, info.segment_ids, batch * num_patches)
        last = states.index_select(0, last_tokens(info))
        return self.project_out(torch.cat([pooled, last], dim=-1)).unflatten(0, (batch, num_patches))

    def attend(self, states: Tensor, segment_ids: Tensor, num_segments: int) -> Tensor:
        """`(num_segments, 2 * local)`: each head's weighted sum of its share of the values."""
        weights = segment_softmax(self.to_score(states), segment_ids, num_segments)
        values = self.to_value(states).unflatten(-1, (self.num_heads, -1))
        weighted = (values * weights.unsqueeze(-1)).flatten(1)
        return segment_sum(weighted, segment_ids, num_segments)


def last_tokens(info: PositionInfo) -> Tensor:
    """Index of each patch's last token in the flat batch: `(batch * num_patches,)`; 0 in padding."""
    batch, length = info.patch_ids.shape
    rows = torch.arange(batch, device=info.patch_ids.device).view(-1, 1) * length
    last = rows + info.patch_starts + info.patch_lengths - 1
    return last.masked_fill(~info.patch_mask, 0).flatten()
