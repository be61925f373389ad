"""Windows cover what can be embedded, and vectors do not depend on their batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt import HyenaGLT, HyenaGLTConfig
from hyena_glt.processing import Embedding, cut_windows, embed_windows, mean_embedding

lengths_lists = st.lists(st.integers(1, 16), min_size=1, max_size=40)


def windows_of(lengths, window=16, sequence=None, start=100):
    lengths = np.array(lengths, np.int64)
    sequence = sequence or b"ACGT" * (int(lengths.sum()) // 4 + 1)
    sequence = sequence[: int(lengths.sum())]
    ambiguous = np.frombuffer(sequence, np.uint8) == ord("N")
    edges = np.zeros(len(sequence), bool)
    edges[1:] = ambiguous[1:] != ambiguous[:-1]
    return list(cut_windows("c", start, sequence, lengths, edges, ambiguous, window))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False, genomic_vocab_size=4)).eval()


@given(lengths_lists)
def test_windows_join_to_the_sequence_at_patch_starts(lengths):
    windows = windows_of(lengths)
    assert [length for window in windows for length in window.patch_lengths.tolist()] == lengths
    position = 100
    for window in windows:
        assert window.start == position
        assert len(window.sequence) == window.patch_lengths.sum() <= 2 * 16
        position += len(window.sequence)


def test_windows_of_n_alone_are_left_out():
    windows = windows_of([8, 8, 16, 8], sequence=b"ACGTACGT" * 2 + b"N" * 16 + b"ACGTACGT")
    assert [window.start for window in windows] == [100, 132]


@settings(max_examples=10, deadline=None)
@given(lengths_lists, st.integers(1, 5))
def test_a_vector_does_not_depend_on_its_batch(net, lengths, batch_size):
    windows = windows_of(lengths, window=32)
    alone = [next(embed_windows(net, [window], 1)) for window in windows]
    together = list(embed_windows(net, windows, batch_size))
    assert [(e.start, e.end, e.patches) for e in together] == [(e.start, e.end, e.patches) for e in alone]
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(one.vector, other.vector, rtol=1e-5, atol=1e-6)


def test_a_vector_is_the_mean_of_the_patch_states(net):
    (window,) = windows_of([3, 5, 4], window=64)
    tokens = torch.tensor([[byte + 4 for byte in window.sequence]])
    with torch.inference_mode():
        states = net(tokens, torch.tensor([[3, 5, 4]]), global_position_offset=100).last_hidden_state
    (embedding,) = embed_windows(net, [window], 1)
    assert np.allclose(embedding.vector, states[0].mean(dim=0).numpy(), atol=1e-6)


def test_a_record_is_the_mean_over_its_patches():
    parts = [
        Embedding("c", 0, 10, 1, np.array([1.0, 0.0], np.float32)),
        Embedding("c", 10, 30, 3, np.array([0.0, 2.0], np.float32)),
    ]
    whole = mean_embedding(parts)
    assert (whole.start, whole.end, whole.patches) == (0, 30, 4)
    assert whole.vector.tolist() == [0.25, 1.5]
