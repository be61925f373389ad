"""Token ids -> vectors: one per token, plus one per n-gram that ends at it.

The n-grams are looked up by hash, as in BLT (arXiv:2412.09871).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn

HASH_PRIME = 2**31 - 1
HASH_FACTOR = 1_000_003
NGRAM_SCALE = 0.1  # length of an n-gram's vector over a token's, at first: until it has learned it is noise


def ngram_hashes(ids: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """A hash of the last `n` tokens at each position, for each `n` of `sizes`; a pass over them for each size.

    Polynomial in the ids, modulo 2^31 - 1, so no product leaves 63 bits. Before the row's start there is
    nothing: the hash is then of the fewer tokens there are.

    Args:
        ids: `(batch, length)` int64, at least -1.
        sizes: Ascending n-gram lengths.

    Returns:
        One `(batch, length)` int64 tensor per size.
    """
    values = ids + 2
    hashes, current = [], values
    for size in range(2, max(sizes, default=1) + 1):
        earlier = F.pad(current[:, :-1], (1, 0)) if current.shape[1] else current
        current = (values + earlier * HASH_FACTOR) % HASH_PRIME
        if size in sizes:
            hashes.append(current)
    return hashes


@njit(cache=True, nogil=True, error_model="numpy")
def find_rows(rows, ids, sizes, bases, table_size):
    """Rows of the table for each token, `(batch, length, 1 + sizes)`, written to; `ids` `(batch, length)`.

    The hash of a window is that of all tokens so far less that of those before the window, times a power.
    """
    batch, length = ids.shape
    powers = np.ones(sizes.size, np.int64)  # HASH_FACTOR^n modulo the prime
    for index in range(sizes.size):
        for _ in range(sizes[index]):
            powers[index] = powers[index] * HASH_FACTOR % HASH_PRIME
    low_bits = table_size - 1 if table_size & (table_size - 1) == 0 else 0
    so_far = np.zeros(length + 1, np.int64)  # hash of the first n tokens
    for row in range(batch):
        for place in range(length):
            so_far[place + 1] = (so_far[place] * HASH_FACTOR + ids[row, place] + 2) % HASH_PRIME
            rows[row, place, 0] = max(ids[row, place], 0)
        for index in range(sizes.size):
            for place in range(length):
                before = so_far[max(place + 1 - sizes[index], 0)]
                value = (so_far[place + 1] + (HASH_PRIME - before) * powers[index]) % HASH_PRIME
                slot = value & low_bits if low_bits else value % table_size
                rows[row, place, 1 + index] = bases[index] + slot


@njit(cache=True, nogil=True, error_model="numpy")
def embed_last(table, ids, sizes, bases, table_size):
    """The vector `(dim,)` of the last of some tokens; `ids` `(length,)` reaches as far back as the longest n-gram."""
    rows = np.empty((1, ids.size, 1 + sizes.size), np.int64)
    find_rows(rows, ids.reshape(1, -1), sizes, bases, table_size)
    vector = np.zeros(table.shape[1], table.dtype)
    for row in rows[0, -1]:
        vector += table[row]
    return vector


class ByteEmbedding(nn.Module):
    """The sum of a token's vector and its n-grams' vectors.

    Args:
        vocab_size: Token ids.
        dim: Width.
        ngram_sizes: Lengths of the n-grams, all of them ending at the token.
        ngram_table_size: Rows of the table of each length; n-grams share rows by hash.
        ngram_dropout: Chance of an n-gram's vector to be left out while training; those that stay are the longer.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        ngram_sizes: Sequence[int],
        ngram_table_size: int,
        ngram_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocab_size, self.table_size, self.dropout = vocab_size, ngram_table_size, ngram_dropout
        self.ngram_sizes = sorted(set(ngram_sizes))
        self._bases = [vocab_size + index * ngram_table_size for index in range(len(self.ngram_sizes))]
        rows = vocab_size + len(self.ngram_sizes) * ngram_table_size
        table = torch.randn(rows, dim) / dim**0.5
        table[vocab_size:] *= NGRAM_SCALE
        self.table = nn.Parameter(table)

    def forward(self, ids: Tensor) -> Tensor:
        """`(batch, length, dim)` from `(batch, length)` int64; padding (-1) reads the row of token 0."""
        index = self.rows(ids).flatten(0, 1)
        weights = self._kept_ngrams(index) if self.training and self.dropout and self.ngram_sizes else None
        vectors = F.embedding_bag(index, self.table, mode="sum", per_sample_weights=weights)
        return vectors.view(*ids.shape, self.table.shape[1])

    def _kept_ngrams(self, index: Tensor) -> Tensor:
        """Weights `(tokens, 1 + sizes)` of the vectors that are summed: 1 for the token's, 0 for what is left out."""
        ngrams = F.dropout(torch.ones_like(index[:, 1:], dtype=self.table.dtype), self.dropout)
        return torch.cat([torch.ones_like(ngrams[:, :1]), ngrams], dim=1)

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of the table whose sum is a token's vector: `(batch, length, 1 + sizes)` int64."""
        if ids.is_cpu and type(ids) is Tensor and ids.dtype is torch.int64 and not torch.compiler.is_compiling():
            rows = ids.new_empty(*ids.shape, 1 + len(self.ngram_sizes))
            find_rows(rows.numpy(), ids.contiguous().numpy(), *self.ngram_tables)
            return rows
        hashes = zip(self._bases, ngram_hashes(ids, self.ngram_sizes), strict=True)
        return torch.stack([ids.clamp_min(0), *(base + values % self.table_size for base, values in hashes)], dim=-1)

    @property
    def context(self) -> int:
        """Tokens before one that its vector depends on."""
        return max(self.ngram_sizes, default=1) - 1

    def drop_ngrams(self) -> None:
        """Embed tokens alone from now on."""
        self.ngram_sizes, self._bases = [], []
        self.table = nn.Parameter(self.table.detach()[: self.vocab_size].clone())

    @property
    def ngram_tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Sizes of the n-grams, the first row of each one's table, the rows of a table: as compiled loops take them."""
        return np.array(self.ngram_sizes, np.int64), np.array(self._bases, np.int64), self.table_size

    def stream(self, ids: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next tokens of a sequence, exactly as `forward` embeds them.

        Args:
            ids: `(batch, n)` int64.
            context: What the call before returned; None begins a sequence.

        Returns:
            `(batch, n, dim)`, and the ids that the longest n-gram still sees, `(batch, longest - 1)` at most.
        """
        joined = ids if context is None else torch.cat([context, ids], dim=1)
        context = joined[:, max(joined.shape[1] - self.context, 0) :]
        return self(joined)[:, joined.shape[1] - ids.shape[1] :], context
