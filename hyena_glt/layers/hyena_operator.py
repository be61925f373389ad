"""The Hyena operator of order 2: y = q * (h conv (k * v)), each projection short-filtered first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hyena_glt.ops.fftconv import two_sided_conv
from hyena_glt.ops.short_conv import short_conv

PROJECTION_TAPS = 3


class HyenaOperator(nn.Module):
    """Mixes a sequence along its length (Hyena, arXiv:2302.10866, definition 3.1).

    Args:
        hidden: Width.
        make_filter: Builds the filter of `hidden` channels: length -> `(hidden, taps)`.
        causal: Look back only. Otherwise a second filter looks ahead.

    Deviation from the paper: the bypass term `D u` is added to the first tap of the filter, which is the
    same sum.
    """

    def __init__(self, hidden: int, make_filter: Callable[[], nn.Module], *, causal: bool = True) -> None:
        super().__init__()
        self.project_in = nn.Linear(hidden, 3 * hidden, bias=False)
        self.project_out = nn.Linear(hidden, hidden, bias=False)
        self.short_taps = nn.Parameter(torch.randn(3 * hidden, PROJECTION_TAPS) / PROJECTION_TAPS**0.5)
        self.bypass = nn.Parameter(torch.ones(hidden))
        self.past = make_filter()
        self.future = None if causal else make_filter()

    def taps(self, length: int) -> tuple[Tensor, int]:
        """The whole filter and how many of its taps look ahead: `(hidden, taps)` float32, int."""
        past = self.past(length)
        now = past[:, :1] + self.bypass.unsqueeze(-1)
        if self.future is None:
            return torch.cat([now, past[:, 1:]], dim=1), 0
        ahead = self.future(max(length - 1, 0)).flip(-1)
        return torch.cat([ahead, now, past[:, 1:]], dim=1), ahead.shape[1]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix along the length.

        Args:
            x: `(batch, length, hidden)`.
            mask: `(batch, length)` bool, False in padding; needed only where padding could be seen (not
                causal).

        Returns:
            `(batch, length, hidden)`.
        """
        seen = None if mask is None else mask.unsqueeze(1)
        projected = self.project_in.weight @ x.transpose(1, 2)  # (batch, 3 hidden, length)
        projected = projected if seen is None else projected * seen
        short = short_conv(
            projected, self.short_taps, lead=0 if self.future is None else PROJECTION_TAPS // 2
        )
        query, key, value = short.chunk(3, dim=1)
        gated = key * value if seen is None else key * value * seen
        mixed = query * two_sided_conv(gated, *self.taps(x.shape[1]))
        return self.project_out(mixed.transpose(1, 2))
