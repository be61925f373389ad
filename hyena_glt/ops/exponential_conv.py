"""Convolution with sums of real exponentials in time linear in the length: chunks by matrix products, sums between.

Within a chunk the filter is a small triangular matrix. All that an exponential remembers of the chunks before is one
number, s <- s exp(-32 rate) + what the chunk adds, so the length never meets itself. No FFT, and what comes out at a
position depends on no later one, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

from hyena_glt.ops.shifted_sum import compiled_loops_read

CHUNK = 32  # as fast as 64, or faster, at 512 to 62,500 steps, with a quarter of the matrix within


@dataclass(frozen=True, kw_only=True, eq=False)
class ExponentialConv:
    """A filter, h[lag] = sum over k of weight_k exp(-rate_k lag), in the form that chunks are multiplied with."""

    within: Tensor  # (channels, CHUNK, CHUNK), from inputs to outputs of a chunk
    added: Tensor  # (channels, CHUNK, exponentials), what each input of a chunk adds to the sums at its end
    carried: Tensor  # (channels, exponentials, CHUNK), what the sums before a chunk add to its outputs
    decay: Tensor  # (channels, exponentials) float64, of a sum over a chunk; thousands of them are multiplied

    @classmethod
    def of(cls, rate: Tensor, weight: Tensor) -> ExponentialConv:
        """From `(channels, exponentials)` rates and weights."""
        with torch.autocast(rate.device.type, enabled=False):
            place = torch.arange(CHUNK, device=rate.device)
            powers = (-rate.unsqueeze(-1) * place).exp()  # (channels, exponentials, lag)
            taps = torch.einsum("ck,ckl->cl", weight, powers)
            lag = place - place.unsqueeze(-1)  # of the output, less that of the input
            return cls(
                within=taps[:, lag.clamp_min(0)] * (lag >= 0),
                added=powers.flip(-1).transpose(1, 2).contiguous(),
                carried=powers * (weight * (-rate).exp()).unsqueeze(-1),
                decay=(-rate.double() * CHUNK).exp(),
            )

    @property
    def tensors(self) -> list[Tensor]:
        """What is kept."""
        return [self.within, self.added, self.carried, self.decay]

    def __call__(self, u: Tensor) -> Tensor:
        """The causal convolution of `(batch, channels, length)`, in float32 at least."""
        return self.stream(u, None)[0].to(u.dtype)

    def stream(self, u: Tensor, sums: Tensor | None) -> tuple[Tensor, Tensor]:
        """The convolution of a stream's next piece.

        Args:
            u: `(batch, channels, n)`, `n` at least 1.
            sums: `(batch, channels, exponentials)` after the piece before; None: there was none.

        Returns:
            `(batch, channels, n)` in the dtype of the filter, and the sums after it.
        """
        batch, _, length = u.shape
        with torch.autocast(u.device.type, enabled=False):
            chunks = F.pad(u.to(self.within.dtype), (0, -length % CHUNK)).unflatten(-1, (-1, CHUNK))
            framed = chunks.transpose(0, 1).flatten(1, 2)  # (channels, batch * chunks, CHUNK)
            before = sums_before((framed @ self.added).unflatten(1, (batch, -1)), self.decay, sums)
            y = torch.baddbmm(before.flatten(1, 2) @ self.carried, framed, self.within)
            y = y.unflatten(1, (batch, -1)).transpose(0, 1).flatten(2)[..., :length]
            last = self._last_sums(chunks[:, :, -1, : length - (chunks.shape[2] - 1) * CHUNK], before[:, :, -1])
        return y, last

    def _last_sums(self, u: Tensor, before: Tensor) -> Tensor:
        """The sums after a chunk of up to CHUNK inputs."""
        n = u.shape[-1]
        added = torch.einsum("bcn,cnk->bck", u, self.added[:, CHUNK - n :])
        left = self.decay if n == CHUNK else self.decay ** (n / CHUNK)
        return before.transpose(0, 1) * left.to(before.dtype) + added


def sums_before(added: Tensor, decay: Tensor, first: Tensor | None = None) -> Tensor:
    """The sums before each chunk.

    Args:
        added: `(channels, batch, chunks, exponentials)`, what each chunk adds.
        decay: `(channels, exponentials)` float64, of a sum over a chunk.
        first: `(batch, channels, exponentials)` before the first chunk; None: 0.

    Returns:
        The shape of `added`.
    """
    start = torch.zeros_like(added[:, :, 0]) if first is None else first.to(added.dtype).transpose(0, 1)
    if not torch.is_grad_enabled() and compiled_loops_read(added):
        sums = torch.empty_like(added)
        add_up(sums.numpy(), added.contiguous().numpy(), decay.contiguous().numpy(), start.contiguous().numpy())
        return sums
    sums = torch.cat([start.unsqueeze(2), added[:, :, :-1]], dim=2)
    shift = 1
    while shift < sums.shape[2]:  # each step doubles how many chunks a sum looks back
        reached = sums[:, :, :-shift] * (decay**shift).to(sums.dtype).view(len(decay), 1, 1, -1)
        sums = torch.cat([sums[:, :, :shift], sums[:, :, shift:] + reached], dim=2)
        shift *= 2
    return sums


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def add_up(sums, added, decay, first):
    """`sums_before`, chunk after chunk; `first` `(channels, batch, exponentials)`."""
    channels, batch, chunks, exponentials = added.shape
    running = np.empty(exponentials, np.float64)
    for c in range(channels):
        left = decay[c]
        for b in range(batch):
            running[:] = first[c, b]
            for chunk in range(chunks):
                row, new = sums[c, b, chunk], added[c, b, chunk]
                for k in range(row.size):
                    row[k] = running[k]
                    running[k] = running[k] * left[k] + new[k]
