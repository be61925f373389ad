"""The position-wise layer of a trunk block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK_POSITIONS = 1024


class FeedForward(nn.Module):
    """down(silu(gate) * up): a gated feed-forward layer (SwiGLU, arXiv:2002.05202).

    Args:
        hidden: Outer width.
        inner: Inner width.
    """

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(hidden, 2 * inner, bias=False)
        self.project_out = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, length, hidden)` to the same, in blocks of positions: the inner width is never whole."""
        return torch.cat([self._block(part) for part in x.split(BLOCK_POSITIONS, dim=1)], dim=1)

    def stream(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        """`forward`: nothing is remembered."""
        return self(x), None

    def _block(self, x: Tensor) -> Tensor:
        gate, up = self.project_in(x).chunk(2, dim=-1)
        return self.project_out(F.silu(gate) * up)
