"""HyenaDNA as its papers write it (arXiv:2302.10866, arXiv:2306.15794), in plain PyTorch: the yardstick.

Nothing is cached, blocked or fused: every forward computes the filter anew, the FFT takes the whole length at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TextbookHyena(nn.Module):
    """Byte embedding, blocks of an order-2 Hyena operator and a 4x GELU layer, a final norm and a head.

    Args:
        width: Channels.
        depth: Blocks.
        vocab: Token ids and logits.
    """

    def __init__(self, width: int, depth: int, vocab: int = 260) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(TextbookBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(batch, length, vocab)` logits from `(batch, length)` int64 ids."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class TextbookBlock(nn.Module):
    """x + operator(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.operator_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.operator = TextbookOperator(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, length, width)` to the same."""
        x = x + self.operator(self.operator_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class TextbookOperator(nn.Module):
    """y = x0 * (h conv (x1 * v)), each projection through a short convolution first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(width, 3 * width)
        self.short_filter = nn.Conv1d(3 * width, 3 * width, 3, padding=2, groups=3 * width)
        self.filter = TextbookFilter(width)
        self.bias = nn.Parameter(torch.randn(width))
        self.project_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, length, width)` to the same."""
        length = x.shape[1]
        projected = self.short_filter(self.project_in(x).transpose(1, 2))[..., :length]
        x0, x1, v = projected.chunk(3, dim=1)
        v = v * x1
        y = fft_conv(v, self.filter(length)) + v * self.bias.unsqueeze(-1)
        return self.project_out((y * x0).transpose(1, 2))


class TextbookFilter(nn.Module):
    """A network of the normalised lag with sine activations, under an exponential window."""

    def __init__(self, width: int, hidden: int = 64, num_features: int = 5, frequency: float = 10.0) -> None:
        super().__init__()
        self.num_features = num_features
        sizes = [num_features, hidden, hidden]
        self.layers = nn.ModuleList(nn.Linear(size, hidden) for size in sizes)
        self.last = nn.Linear(hidden, width, bias=False)
        self.frequency = nn.Parameter(torch.full((hidden,), frequency))
        self.rates = nn.Parameter(torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, width))

    def forward(self, length: int) -> Tensor:
        """`(width, length)`."""
        t = torch.linspace(0, 1, length).unsqueeze(-1)
        bands = (self.num_features - 1) // 2
        angles = 2 * math.pi * torch.arange(length).unsqueeze(-1) / length * torch.linspace(1e-4, bands - 1, bands)
        hidden = torch.cat([t, angles.cos(), -angles.sin()], dim=-1)
        for layer in self.layers:
            hidden = torch.sin(self.frequency * layer(hidden))
        return (self.last(hidden) * torch.exp(-t * self.rates.abs())).T


def fft_conv(u: Tensor, h: Tensor) -> Tensor:
    """The causal convolution through FFTs of twice the length, in one piece: `(batch, channels, length)`."""
    length = u.shape[-1]
    product = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(h, n=2 * length)
    return torch.fft.irfft(product, n=2 * length)[..., :length]
