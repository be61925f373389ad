"""Windows over regions, and the targets that are learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.tokens.byte_tokenizer import PAD_ID, ByteTokenizer
from hyena_glt.training import Corpus, Regions, WindowTable, learned_targets, split_corpus
from hyena_glt.training.windows import tile

quick = settings(deadline=None, max_examples=80)


def corpus_of(sequences):
    return Corpus.from_sequences({f"c{index}": sequence for index, sequence in enumerate(sequences)})


def tile_by_hand(spans, window, stride):
    windows = []
    for contig, start, end in spans:
        covered, at = start, start
        while covered < end:
            windows.append([contig, at, min(at + window, end)])
            covered, at = min(at + window, end), at + stride
            covered = max(covered, min(at, end)) if stride > window else covered
    return windows


@quick
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 60)), max_size=5),
    st.integers(1, 20),
    st.integers(1, 30),
)
def test_tiles_equal_those_laid_by_hand(places, window, stride):
    spans = np.array([[contig, start, start + length] for contig, start, length in places], np.int64).reshape(-1, 3)
    assert tile(spans, window, stride).tolist() == tile_by_hand(spans.tolist(), window, stride)


@quick
@given(st.lists(st.integers(1, 200), min_size=1, max_size=6), st.integers(2, 50))
def test_windows_cover_each_base_once(lengths, window):
    corpus = corpus_of(["A" * length for length in lengths])
    if max(lengths) < 2:
        return
    table = WindowTable(Regions.whole(corpus), window)
    covered = np.zeros((len(lengths), max(lengths)), np.int64)
    for contig, start, end in table.windows.tolist():
        assert 2 <= end - start <= window
        covered[contig, start:end] += 1
    assert covered.max() == 1
    assert covered.sum() == table.num_bases == corpus.num_bases - table.num_bases_left_out
    assert table.num_left_out == table.num_bases_left_out == sum(length % window == 1 for length in lengths)


@quick
@given(
    st.lists(st.one_of(st.text("ACGT", max_size=30), st.text("NY", max_size=20)), min_size=1).map("".join),
    st.floats(0, 1),
    st.integers(2, 12),
)
def test_windows_of_mostly_n_are_left_out_and_counted(text, share, window):
    every = [text[first : first + window] for first in range(0, len(text), window)]
    kept = [piece for piece in every if len(piece) > 1 and sum(c in "NY" for c in piece) <= share * len(piece)]
    if not text:
        return
    if not kept:
        with pytest.raises(DataError, match="no window is left"):
            WindowTable(Regions.whole(corpus_of([text])), window, max_ambiguous_share=share)
        return
    table = WindowTable(Regions.whole(corpus_of([text])), window, max_ambiguous_share=share)
    assert [text[start:end] for _, start, end in table.windows.tolist()] == kept
    assert table.num_left_out == len(every) - len(kept)


@quick
@given(
    st.lists(st.integers(20, 2000), min_size=2, max_size=5),
    st.floats(0.02, 0.4),
    st.integers(0, 80),
    st.integers(2, 120),
    st.integers(1, 150),
    st.integers(0, 1000),
)
def test_no_train_window_touches_a_held_out_window_or_its_gap(lengths, share, gap, window, stride, seed):
    corpus = corpus_of(["ACGT" * length for length in lengths])
    try:
        halves = split_corpus(corpus, held_out_contigs=["c0"], held_out_share=share, block=200, gap=gap, seed=seed)
        train, held_out = (WindowTable(half, window, stride).windows for half in halves)
    except DataError:
        return
    assert 0 not in train[:, 0]
    same = train[:, None, 0] == held_out[None, :, 0]
    apart = (train[:, None, 2] + gap <= held_out[None, :, 1]) | (held_out[None, :, 2] + gap <= train[:, None, 1])
    assert (apart | ~same).all()


def test_a_short_contig_is_one_shorter_window():
    table = WindowTable(Regions.whole(corpus_of(["ACG", "A", "ACGTACGTAC"])), 8)
    assert table.windows.tolist() == [[0, 0, 3], [2, 0, 8], [2, 8, 10]]
    assert table.lengths.tolist() == [3, 8, 2]
    assert (table.num_left_out, table.num_bases_left_out, len(table)) == (1, 1, 3)


def test_overlapping_windows_end_with_the_region():
    table = WindowTable(Regions.whole(corpus_of(["ACGTACGTAC"])), 4, stride=2)
    assert table.windows[:, 1:].tolist() == [[0, 4], [2, 6], [4, 8], [6, 10]]


def test_the_hash_tells_tables_apart():
    corpus, other = corpus_of(["ACGTACGT"]), corpus_of(["ACGTACGA"])
    tables = [WindowTable(Regions.whole(corpus), size) for size in (4, 4, 8)]
    hashes = [table.sha256 for table in [*tables, WindowTable(Regions.whole(other), 4)]]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize(
    "options", [{"window": 1}, {"window": 4, "stride": 0}, {"window": 4, "max_ambiguous_share": 1.5}]
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        WindowTable(Regions.whole(corpus_of(["ACGTACGT"])), **options)


def test_nothing_to_window_is_refused():
    empty = split_corpus(corpus_of(["ACGT"]))[1]
    with pytest.raises(DataError, match="no window is left"):
        WindowTable(empty, 4)


@quick
@given(st.text("ACGTUacgtNnRYKMSWBDHVX*-", min_size=1, max_size=40), st.integers(0, 5))
def test_targets_are_letters_only(text, padding):
    tokens = torch.nn.functional.pad(ByteTokenizer().encode(text)[None], (0, padding), value=PAD_ID)
    expected = [letter in "ACGTUacgtu" for letter in text] + [False] * padding
    assert learned_targets(tokens, "dna")[0].tolist() == expected
    every = learned_targets(tokens, "bytes")[0].tolist()
    assert every == [True] * len(text) + [False] * padding


def test_special_ids_are_no_targets():
    assert learned_targets(torch.tensor([[0, 1, 2, 3, 69]]))[0].tolist() == [False] * 4 + [True]


@quick
@given(st.lists(st.integers(30, 90), min_size=1, max_size=3), st.integers(2, 12), st.integers(0, 40), st.integers(0, 9))
def test_moved_windows_stay_in_their_region(lengths, window, shift, seed):
    corpus = corpus_of(["A" * length for length in lengths])
    learned, _ = split_corpus(corpus, held_out_share=0.2, block=8, gap=2, seed=seed)
    table = WindowTable(learned, window)
    ids = np.arange(len(table))
    moved = table.moved(ids, shift)
    assert np.array_equal(moved[:, 2] - moved[:, 1], table.lengths)
    for before, after in zip(table.windows, moved, strict=True):
        (region,) = (s for s in learned.spans if s[0] == before[0] and s[1] <= before[1] and before[2] <= s[2])
        assert after.tolist() == [before[0], *(before[1:] + min(shift, region[2] - before[2]))]
    assert np.array_equal(table.moved(ids, 0), table.windows)
