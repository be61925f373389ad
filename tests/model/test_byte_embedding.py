"""Byte and n-gram embeddings."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.model.byte_embedding import (
    HASH_FACTOR,
    HASH_PRIME,
    ByteEmbedding,
    ngram_hashes,
)

tokens = st.lists(st.integers(-1, 259), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(tokens)
def test_hashes_equal_the_polynomial_of_the_last_tokens(row):
    for size, hashes in zip((2, 5), ngram_hashes(torch.tensor([row]), (2, 5)), strict=True):
        for index in range(len(row)):
            window = row[max(0, index - size + 1) : index + 1]
            exact = sum((token + 2) * HASH_FACTOR**age for age, token in enumerate(reversed(window)))
            assert int(hashes[0, index]) == exact % HASH_PRIME


def test_the_vector_is_the_sum_of_token_and_ngrams():
    embedding = ByteEmbedding(260, 8, (3, 2), 50)
    ids = torch.randint(0, 260, (2, 9), generator=torch.Generator().manual_seed(0))
    pairs, triples = ngram_hashes(ids, (2, 3))
    expected = embedding.table[ids] + embedding.table[260 + pairs % 50] + embedding.table[310 + triples % 50]
    torch.testing.assert_close(embedding(ids), expected)


def test_the_vector_depends_on_the_last_tokens_alone():
    embedding = ByteEmbedding(260, 8, (2, 4), 50)
    first = torch.tensor([[5, 6, 7, 8, 9, 10]])
    second = torch.tensor([[99, 98, 7, 8, 9, 10]])
    assert torch.equal(embedding(first)[0, 5], embedding(second)[0, 5])
    assert not torch.equal(embedding(first)[0, 4], embedding(second)[0, 4])


@pytest.mark.parametrize("shape", [(1, 0), (0, 5), (2, 1)])
def test_short_rows_have_vectors_too(shape):
    embedding = ByteEmbedding(260, 8, (2, 4), 50)
    assert embedding(torch.zeros(shape, dtype=torch.int64)).shape == (*shape, 8)


def test_ngrams_begin_shorter_than_tokens():
    lengths = ByteEmbedding(5, 64, (2, 3), 32).table.detach().norm(dim=1)
    assert lengths[:5].mean() == pytest.approx(1.0, rel=0.2)
    assert lengths[5:].mean() == pytest.approx(0.1, rel=0.05)


def test_dropout_leaves_whole_ngrams_out_while_training():
    torch.manual_seed(0)
    embedding = ByteEmbedding(5, 8, (2, 3), 16, ngram_dropout=0.5)
    ids = torch.randint(5, (4, 200))
    vectors = embedding.table.detach()[embedding.rows(ids)]  # (batch, length, 3, dim)
    trained = embedding(ids).detach()
    choices = torch.tensor([[1.0, a, b] for a in (0.0, 2.0) for b in (0.0, 2.0)])  # kept ones count twice
    distances = (torch.einsum("cs,blsd->blcd", choices, vectors) - trained.unsqueeze(2)).abs().amax(-1)
    assert distances.amin(-1).max() < 1e-6
    shares = distances.argmin(-1).flatten().bincount(minlength=4) / ids.numel()
    assert shares == pytest.approx(torch.full((4,), 0.25), abs=0.06)
    torch.testing.assert_close(embedding.eval()(ids), vectors.sum(2))


def test_dropped_ngrams_leave_the_vectors_of_the_tokens():
    embedding = ByteEmbedding(5, 8, (2, 3), 16)
    ids = torch.randint(5, (2, 9))
    tokens = embedding.table.detach()[:5]
    assert embedding.context == 2
    embedding.drop_ngrams()
    assert torch.equal(embedding(ids), tokens[ids])
    assert (embedding.context, list(embedding.ngram_sizes), len(embedding.table)) == (0, [], 5)


def test_without_ngrams_it_is_a_table():
    embedding = ByteEmbedding(9, 8, (), 50)
    assert torch.equal(embedding(torch.tensor([[4, -1]]))[0], embedding.table[torch.tensor([4, 0])])


@settings(max_examples=60, deadline=None)
@given(tokens, st.sets(st.integers(2, 12), max_size=4), st.sampled_from([1, 2, 50, 64, 4096]))
def test_the_compiled_loop_finds_the_rows_of_the_passes(row, sizes, table_size):
    embedding, ids = ByteEmbedding(260, 8, sorted(sizes), table_size), torch.tensor([row, row[::-1]])
    compiled = embedding.rows(ids)
    with patch.object(torch.compiler, "is_compiling", lambda: True):
        assert torch.equal(compiled, embedding.rows(ids))
