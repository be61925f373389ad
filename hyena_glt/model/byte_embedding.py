"""Token ids -> vectors: one per token, plus one per n-gram that ends at it.

The n-grams are looked up by hash, as in BLT (arXiv:2412.09871).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor, nn

HASH_PRIME = 2**31 - 1
HASH_FACTOR = 1_000_003


def ngram_hashes(ids: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """A hash of the last `n` tokens at each position, for each `n` of `sizes`.

    Polynomial in the ids, modulo 2^31 - 1, so no product leaves 63 bits. Before the row's start there is
    nothing: the hash is then of the fewer tokens there are.

    Args:
        ids: `(batch, length)` int64, at least -1.
        sizes: Ascending n-gram lengths.

    Returns:
        One `(batch, length)` int64 tensor per size.
    """
    if ids.is_cpu and type(ids) is Tensor and ids.dtype is torch.int64 and not torch.compiler.is_compiling():
        hashes_of_sizes = np.empty((len(sizes), *ids.shape), np.int64)
        hash_rows(hashes_of_sizes, ids.contiguous().numpy(), np.array(sizes, np.int64))
        return list(torch.from_numpy(hashes_of_sizes))
    return ngram_hashes_by_size(ids, sizes)


def ngram_hashes_by_size(ids: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """`ngram_hashes` on any device, one pass over the ids for each size up to the largest."""
    values = ids + 2
    hashes, current = [], values
    for size in range(2, max(sizes, default=1) + 1):
        earlier = F.pad(current[:, :-1], (1, 0)) if current.shape[1] else current
        current = (values + earlier * HASH_FACTOR) % HASH_PRIME
        if size in sizes:
            hashes.append(current)
    return hashes


@njit(cache=True, nogil=True)
def hash_rows(hashes, ids, sizes):
    """`ngram_hashes` in one pass: `hashes` `(sizes, batch, length)` is written to; `sizes` ascending."""
    batch, length = ids.shape
    longest = sizes[-1] if sizes.size else 1
    for row in range(batch):
        current = np.zeros(longest + 1, np.int64)  # of the last n tokens, at n
        for place in range(length):
            value = ids[row, place] + 2
            for size in range(longest, 1, -1):
                current[size] = (value + current[size - 1] * HASH_FACTOR) % HASH_PRIME
            current[1] = value
            for index in range(sizes.size):
                hashes[index, row, place] = current[sizes[index]]


def ngram_hash(ids: Sequence[int]) -> int:
    """The same hash of one n-gram, without tensors."""
    value = 0
    for number in ids:
        value = (number + 2 + value * HASH_FACTOR) % HASH_PRIME
    return value


class ByteEmbedding(nn.Module):
    """The sum of a token's vector and its n-grams' vectors.

    Args:
        vocab_size: Token ids.
        dim: Width.
        ngram_sizes: Lengths of the n-grams, all of them ending at the token.
        ngram_table_size: Rows of the table of each length; n-grams share rows by hash.
    """

    def __init__(self, vocab_size: int, dim: int, ngram_sizes: Sequence[int], ngram_table_size: int) -> None:
        super().__init__()
        self.vocab_size, self.table_size = vocab_size, ngram_table_size
        self.ngram_sizes = sorted(set(ngram_sizes))
        self._bases = [vocab_size + index * ngram_table_size for index in range(len(self.ngram_sizes))]
        rows = vocab_size + len(self.ngram_sizes) * ngram_table_size
        self.table = nn.Parameter(torch.randn(rows, dim) / dim**0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """`(batch, length, dim)` from `(batch, length)` int64; padding (-1) reads the row of token 0."""
        hashes = zip(self._bases, ngram_hashes(ids, self.ngram_sizes), strict=True)
        rows = [ids.clamp_min(0), *(base + values % self.table_size for base, values in hashes)]
        index = torch.stack(rows, dim=-1).flatten(0, 1)
        return F.embedding_bag(index, self.table, mode="sum").view(*ids.shape, self.table.shape[1])

    def stream(self, ids: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next tokens of a sequence, exactly as `forward` embeds them.

        Args:
            ids: `(batch, n)` int64.
            context: What the call before returned; None begins a sequence.

        Returns:
            `(batch, n, dim)`, and the ids that the longest n-gram still sees, `(batch, longest - 1)` at most.
        """
        joined = ids if context is None else torch.cat([context, ids], dim=1)
        context = joined[:, max(joined.shape[1] - max(self.ngram_sizes, default=1) + 1, 0) :]
        return self(joined)[:, joined.shape[1] - ids.shape[1] :], context

    def rows_of_last(self, ids: Sequence[int]) -> list[int]:
        """The rows of the table whose sum is the vector of the last token, from it and those before it."""
        sizes = zip(self._bases, self.ngram_sizes, strict=True)
        return [max(ids[-1], 0), *(base + ngram_hash(ids[-size:]) % self.table_size for base, size in sizes)]
