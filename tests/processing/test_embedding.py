"""Windows cover what can be embedded, and vectors do not depend on their batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt import HyenaGLT, HyenaGLTConfig
from hyena_glt.entropies import MarkovEntropy
from hyena_glt.errors import ConfigError, DataError
from hyena_glt.patching import PatcherArgs
from hyena_glt.patching.genome import patch_blocks
from hyena_glt.processing import (
    Embedding,
    EmbeddingRows,
    WindowCutter,
    cut_windows,
    embed_rows,
    embed_windows,
    mean_embedding,
    other_strand,
    pool_records,
)
from hyena_glt.sequences.alphabets import DNA
from hyena_glt.sequences.records import Block

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


def blocks_of(records, sizes):
    """Records in blocks of the given sizes, taken in turn."""
    turn = 0
    for name, sequence in records:
        at = 0
        while at < len(sequence):
            size = sizes[turn % len(sizes)]
            turn += 1
            piece = sequence[at : at + size]
            yield Block(name, "", 50 + at, piece, at + size >= len(sequence), 1)
            at += size


def patched(records, sizes):
    args = PatcherArgs(patching_mode="static", patch_size=7)
    return patch_blocks(blocks_of(records, sizes), DNA, MarkovEntropy.uniform("dna"), args, entropies=False)


def as_tuples(windows):
    return [
        (w.name, w.record, w.start, w.sequence, w.patch_lengths.tolist(), w.forced_starts.tolist()) for w in windows
    ]


sequences = st.lists(st.text("ACGTN", min_size=1, max_size=300).map(str.encode), min_size=1, max_size=4)


@given(sequences, st.lists(st.integers(1, 90), min_size=1, max_size=5), st.integers(7, 120))
def test_windows_do_not_depend_on_the_blocks(sequences, sizes, window):
    records = [(f"r{i}", sequence) for i, sequence in enumerate(sequences)]
    cutter, whole = WindowCutter(window), WindowCutter(window)
    found = as_tuples(cutter.windows(patched(records, sizes)))
    assert found == as_tuples(whole.windows(patched(records, [1000])))
    assert cutter.spans == whole.spans
    assert [(s.name, s.start, s.end) for s in cutter.spans] == [(n, 50, 50 + len(q)) for n, q in records]
    for index, (_, sequence) in enumerate(records):
        own = [row for row in found if row[1] == index]
        assert b"".join(row[3] for row in own).translate(None, b"N") == sequence.translate(None, b"N")


@settings(max_examples=15, deadline=None)
@given(lengths_lists)
def test_the_rows_of_patches_are_what_the_pools_pool(net, lengths):
    windows = windows_of(lengths, window=64)
    states = [e.vector for e in embed_windows(net, windows, 2, pool="patch")]
    spans = [(e.start, e.end) for e in embed_windows(net, windows, 2, pool="patch")]
    ends = 100 + np.cumsum(lengths)
    assert spans == list(zip((ends - lengths).tolist(), ends.tolist(), strict=True))
    for pool, reduced in (("mean", np.mean), ("max", np.max)):
        at = 0
        for row in embed_windows(net, windows, 3, pool=pool):
            assert np.allclose(row.vector, reduced(states[at : at + row.patches], axis=0), rtol=1e-5, atol=1e-6)
            at += row.patches


rows_lists = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=12)


@given(rows_lists, st.integers(1, 5), st.sampled_from(["mean", "max"]))
def test_records_are_pooled_the_same_however_their_windows_come(steps, chunk, pool):
    records = np.cumsum([step for step, _ in steps])
    patches = np.array([count for _, count in steps])
    rng = np.random.default_rng(len(steps))
    vectors = rng.normal(size=(len(steps), 3)).astype(np.float32)
    starts = np.arange(len(steps)) * 10
    rows = EmbeddingRows(records, starts, starts + 10, patches, vectors)
    parts = [rows.between(first, first + chunk) for first in range(0, len(rows), chunk)]
    found = EmbeddingRows.joined(list(pool_records(parts, pool)))
    assert found.records.tolist() == sorted(set(records.tolist()))
    for index, record in enumerate(found.records):
        own = records == record
        assert (found.starts[index], found.ends[index]) == (starts[own][0], starts[own][-1] + 10)
        assert found.patches[index] == patches[own].sum()
        mean = np.average(vectors[own].astype(float), axis=0, weights=patches[own])
        expected = mean if pool == "mean" else vectors[own].max(axis=0)
        assert np.allclose(found.vectors[index], expected, rtol=1e-6, atol=1e-7)


def test_the_other_strand_of_the_other_strand_is_the_window():
    (window,) = windows_of([4, 3, 5], window=64, sequence=b"ACGTNNNGGATC")

    def cut(sequence):
        return np.array([len(sequence)])

    other = other_strand(window, "dna", cut)
    assert other.sequence == b"GATCCNNNACGT"
    assert np.flatnonzero(other.forced_starts).tolist() == [5, 8]
    again = other_strand(other, "dna", cut)
    assert again.sequence == window.sequence
    assert np.array_equal(again.forced_starts, window.forced_starts)


def test_both_strands_give_the_same_average(net):
    (window,) = windows_of([8] * 8, window=64, sequence=b"ACGGTTAC" * 8)

    def flip(one):
        return other_strand(one, "dna", lambda sequence: np.full(8, 8))

    (one,) = embed_rows(net, [window], 1, flip=flip)
    (other,) = embed_rows(net, [flip(window)], 1, flip=flip)
    (alone,) = embed_rows(net, [window], 1)
    assert np.allclose(one.vectors, other.vectors, rtol=1e-5, atol=1e-6)
    assert not np.allclose(one.vectors, alone.vectors, atol=1e-3)
    with pytest.raises(ConfigError, match="strands"):
        next(embed_rows(net, [window], 1, pool="patch", flip=flip))
    with pytest.raises(ConfigError, match="pool"):
        next(embed_rows(net, [window], 1, pool="median"))


def test_a_net_with_learned_boundaries_cuts_by_itself():
    torch.manual_seed(0)
    config = HyenaGLTConfig.preset("tiny", causal=False, boundaries="learned", target_patch_length=4)
    learned = HyenaGLT(config).eval()
    (window,) = windows_of([16, 16, 16], window=64)
    rows = list(embed_windows(learned, [window], 1, pool="patch"))
    assert (rows[0].start, rows[-1].end) == (100, 148)
    assert len(rows) != 3


def test_a_vector_that_is_not_finite_is_no_result():
    torch.manual_seed(0)
    broken = HyenaGLT(HyenaGLTConfig.preset("tiny", causal=False)).eval()
    with torch.no_grad():
        broken.trunk.norm.weight.fill_(torch.nan)
    with pytest.raises(DataError, match="not finite at base 100"):
        list(embed_windows(broken, windows_of([8, 8]), 1))
