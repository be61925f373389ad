"""Repeated and leaking sequences, and the validation part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.training.labelled import LabelledRows, LabelledSet, encode_labels
from hyena_glt.training.labelled_split import find_leaks, find_repeats, sequence_keys, split_rows

dna = st.binary(min_size=1, max_size=6).map(lambda raw: bytes(b"ACGT"[byte % 4] for byte in raw))


def labelled_of(pairs: list[tuple[bytes, str]], task: str = "classification") -> LabelledSet:
    sequences, labels = zip(*pairs, strict=True)
    lines = tuple(range(2, 2 + len(pairs)))
    rows = LabelledRows(path="t.tsv", sequences=sequences, labels=labels, lines=lines)
    return encode_labels(rows, task, ("a", "b") if task == "classification" else None)


def test_both_strands_are_one_sequence_where_there_are_strands():
    assert sequence_keys([b"AAC", b"GTT", b"AAG"]) == [b"AAC", b"AAC", b"AAG"]
    assert sequence_keys([b"AAC", b"GTT"], "protein") == [b"AAC", b"GTT"]


def test_repeats_are_counted_and_contradictions_named_first():
    found = find_repeats(labelled_of([(b"AAC", "a"), (b"AAC", "a"), (b"CCC", "b"), (b"GTT", "b")]))
    assert (found.num_repeated, found.num_contradicting, found.first) == (2, 1, (5, 2))
    assert find_repeats(labelled_of([(b"AAC", "a"), (b"AAA", "b")])).first is None
    bases = find_repeats(labelled_of([(b"AAC", "xxy"), (b"GTT", "yxx")], "per-base"))
    assert (bases.num_repeated, bases.num_contradicting) == (1, 0)


def test_leaks_are_rows_that_the_other_set_has():
    train = labelled_of([(b"AAC", "a"), (b"CCC", "b"), (b"GGG", "b")])
    assert find_leaks(train, labelled_of([(b"CCC", "a")])).tolist() == [1, 2]


@given(st.lists(st.tuples(dna, st.sampled_from("ab")), min_size=2, max_size=40), st.integers(0, 5))
def test_a_split_covers_all_rows_and_leaks_nothing(pairs, seed):
    labelled = labelled_of(pairs)
    try:
        train, valid = split_rows(labelled, 0.3, seed)
    except DataError:
        assert min(np.bincount([int(x) for x in labelled.labels], minlength=2)) <= 1 or (
            len(set(sequence_keys(labelled.rows.sequences))) < 4
        )
        return
    assert sorted([*train, *valid]) == list(range(len(pairs)))
    assert find_leaks(labelled.take(train), labelled.take(valid)).size == 0
    assert all(np.array_equal(x, y) for x, y in zip((train, valid), split_rows(labelled, 0.3, seed), strict=True))


def test_each_class_has_its_share():
    rng = np.random.default_rng(0)
    draw = [bytes(rng.choice(list(b"ACGT"), 20).tolist()) for _ in range(500)]
    labelled = labelled_of([(sequence, "a" if row < 100 else "b") for row, sequence in enumerate(draw)])
    _, valid = split_rows(labelled, 0.1, 0)
    assert [int((valid < 100).sum()), int((valid >= 100).sum())] == [10, 40]
    assert not np.array_equal(valid, split_rows(labelled, 0.1, 1)[1])
    values = labelled_of([(sequence, str(row)) for row, sequence in enumerate(draw)], "regression")
    _, valid = split_rows(values, 0.1, 0)
    assert np.bincount(valid // 50).tolist() == [5] * 10


def test_a_class_of_one_sequence_is_learned():
    labelled = labelled_of([(b"AAC", "a"), (b"ACC", "b"), (b"CAC", "b"), (b"CTC", "b")])
    train, valid = split_rows(labelled, 0.5, 0)
    assert 0 in train
    assert len(valid) == 2
    with pytest.raises(ConfigError, match="valid_share"):
        split_rows(labelled, 1.0, 0)
    with pytest.raises(DataError, match="enough different sequences"):
        split_rows(labelled_of([(b"AAC", "a"), (b"GTT", "b")]), 0.5, 0)
