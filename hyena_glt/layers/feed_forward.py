"""The position-wise layer of a trunk block, and how layers run a block of positions at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.ops.allocation import empty_large

BLOCK_POSITIONS = 1024
DEVICE_BLOCKS = 64  # times as long elsewhere, where a block only bounds the memory
LEAST_SHARE = 16  # a block is so many times as long as what is computed again for it


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
        return in_blocks(lambda part, mask: self._block(part), x, size=BLOCK_POSITIONS)

    def stream(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        """`forward`: nothing is remembered."""
        return self(x), None

    def _block(self, x: Tensor) -> Tensor:
        gate, up = self.project_in(x).chunk(2, dim=-1)
        gate = F.silu(gate)
        return self.project_out(gate * up if torch.is_grad_enabled() else gate.mul_(up))


def row_blocks(batch: int, length: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Rows and places of blocks of about `size` positions: parts of a row, or whole rows together if they are short."""
    together = max(size // max(length, 1), 1)
    for first in range(0, batch, together):
        for start in range(0, length, size):
            yield slice(first, min(first + together, batch)), slice(start, min(start + size, length))


def in_blocks(
    run: Callable[[Tensor, Tensor | None], Tensor],
    x: Tensor,
    mask: Tensor | None = None,
    *,
    size: int,
    before: int = 0,
    after: int = 0,
) -> Tensor:
    """`run(x, mask)`, a block of positions at a time so that what lies between its steps stays in the CPU's cache.

    Args:
        run: From `(batch, n, ...)` and a mask `(batch, n)` or None to `(batch, n, dim)`, position by position but for
            the neighbours that a position sees.
        x: `(batch, length, ...)`.
        mask: `(batch, length)` or None, cut as `x` is.
        size: Positions of a block on the CPU, all rows together.
        before: Positions to the left that one sees; they are computed again with each block.
        after: Positions to the right that one sees.

    Returns:
        `(batch, length, dim)`.
    """
    batch, length = x.shape[:2]
    size = size if x.is_cpu else DEVICE_BLOCKS * size
    step = max(size // max(batch, 1), 1 + LEAST_SHARE * (before + after))
    if length <= step:
        return run(x, mask)
    if torch.is_grad_enabled() and before == after == 0:  # the gradient of a split is one concatenation
        masks = [None] * -(-length // step) if mask is None else mask.split(step, dim=1)
        return torch.cat([run(*part) for part in zip(x.split(step, dim=1), masks, strict=True)], dim=1)
    parts = []
    y: Tensor | None = None
    for start in range(0, length, step):
        stop = min(start + step, length)
        low, high = max(start - before, 0), min(stop + after, length)
        part = run(x[:, low:high], None if mask is None else mask[:, low:high])[:, start - low : stop - low]
        if torch.is_grad_enabled():
            parts.append(part)
            continue
        y = empty_large(part, batch, length, part.shape[-1]) if y is None else y
        y[:, start:stop] = part
    return torch.cat(parts, dim=1) if y is None else y
