"""The way back: every byte reads the patch states around it, each with its own question."""

from __future__ import annotations

from torch import Tensor, nn

from hyena_glt.config import HyenaGLTConfig
from hyena_glt.layers.cross_attention import WindowedCrossAttention
from hyena_glt.model.visibility import readable_patches
from hyena_glt.positions.position_embedding import OffsetEncoding
from hyena_glt.positions.position_info import PositionInfo


class CrossAttentionPositionBridge(nn.Module):
    """Byte states + what they read of the patch states.

    In causal mode a byte attends to the most recent complete patches, otherwise to its own patch and its
    neighbours on both sides. Each byte brings its state and its offset in the patch as the query, so the
    bytes of a patch differ.
    """

    def __init__(self, config: HyenaGLTConfig) -> None:
        super().__init__()
        dim = config.local_hidden_size
        self.causal, self.num_patches = config.causal, config.bridge_num_patches
        self.offsets = OffsetEncoding(dim)
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

    def first_patch(self, info: PositionInfo, known_starts: Tensor | None, next_starts_patch: Tensor | None) -> Tensor:
        """First patch of each byte's window: `(batch, length)` int64, negative near the start."""
        if self.causal:
            return readable_patches(info, known_starts, next_starts_patch) - self.num_patches
        return info.patch_ids * info.mask - self.num_patches // 2
