"""Byte states -> answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hyena_glt.layers.norm_loops import norm_writer
from hyena_glt.tokens.byte_tokenizer import PAD_ID


class ByteHead(nn.Module):
    """Logits over the vocabulary at every byte.

    Args:
        dim: Width of the byte states.
        vocab_size: Ids.
    """

    def __init__(self, dim: int, vocab_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, bias=False)
        self.project = nn.Linear(dim, vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, length, vocab)` from `(batch, length, dim)`."""
        return self.project(self.norm(x))

    @property
    def num_ids(self) -> int:
        """Width of the logits."""
        return self.project.out_features

    def writer(self) -> Callable[[Tensor, Tensor], None]:
        """`forward` for many blocks on the CPU without gradients: into `(n, vocab)` from contiguous `(n, dim)`."""
        norm = norm_writer(self.norm)
        weight = torch.cat([self.project.weight, self.project.bias.unsqueeze(-1)], dim=-1).T.contiguous()

        def write(logits: Tensor, x: Tensor) -> None:
            normed = x.new_ones(len(x), len(weight))  # the last stays 1 and meets the bias
            norm(normed, x)
            torch.mm(normed, weight, out=logits)

        return write


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of each target in nats, 0 where the target is padding (-1).

    Args:
        logits: `(batch, length, vocab)`; row `i` is about target `i`.
        targets: `(batch, length)` int64.

    Returns:
        `(batch, length)` float32.
    """
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=PAD_ID, reduction="none")
    return losses.view_as(targets)


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy in nats over the targets that are no padding; 0 when there are none."""
    return token_losses(logits, targets).sum() / (targets != PAD_ID).sum().clamp_min(1)
