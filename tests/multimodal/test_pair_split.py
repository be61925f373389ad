"""Training and test sets share no gene and nothing that resembles one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.multimodal import CodingPair, near_duplicate_groups, split_pairs, translate
from hyena_glt.multimodal.pair_split import word_codes
from hyena_glt.sequences.alphabets import DNA, reverse_complement


def test_random_genes_stand_alone_and_copies_together(made_pairs):
    pairs = made_pairs(6, 100)
    assert near_duplicate_groups(pairs).tolist() == list(range(6))
    assert near_duplicate_groups([*pairs, pairs[2]]).tolist() == [0, 1, 2, 3, 4, 5, 2]


def test_proteins_with_other_codons_are_near_duplicates(made_pairs):
    (first,), (other,) = made_pairs(1, 100), made_pairs(1, 100, seed=1)
    copy = CodingPair("copy", other.dna, first.protein[:60] + other.protein[60:], 1)
    assert near_duplicate_groups([first, copy]).tolist() == [0, 0]


@pytest.mark.parametrize("turn", [bytes, reverse_complement])
def test_genes_that_overlap_in_another_frame_or_strand_are_near_duplicates(made_pairs, turn):
    (first,) = made_pairs(1, 100)
    dna = turn(first.dna)[1:-2]
    assert near_duplicate_groups([first, CodingPair("frame", dna, translate(dna), 1)]).tolist() == [0, 0]


def test_resemblance_carries_over(made_pairs):
    a, b, c = made_pairs(3, 100)
    bridge = CodingPair("bridge", a.dna[:150] + c.dna[150:], a.protein[:50] + c.protein[50:], 1)
    groups = near_duplicate_groups([a, b, c, bridge]).tolist()
    assert groups[0] == groups[2] == groups[3] != groups[1]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 5), st.sampled_from([0.2, 0.5]))
def test_no_group_is_on_both_sides_and_none_is_lost(seed, share):
    random = np.random.default_rng(seed)
    names = [f"{number}" for number in range(12)]
    dna = ["".join(random.choice(list("ACGT"), 60)).encode() for _ in range(6)] * 2
    pairs = [CodingPair(name, row, translate(row), 1) for name, row in zip(names, dna, strict=True)]
    train, test = split_pairs(pairs, share, seed)
    assert sorted([*train, *test], key=lambda pair: int(pair.name)) == pairs
    assert not {pair.dna for pair in train} & {pair.dna for pair in test}
    assert len(test) <= share * len(pairs)


def test_the_same_seed_gives_the_same_split(made_pairs):
    pairs = made_pairs(20, 30)
    assert split_pairs(pairs, 0.3, 1) == split_pairs(pairs, 0.3, 1)
    assert split_pairs(pairs, 0.3, 1) != split_pairs(pairs, 0.3, 2)


def test_words_with_ambiguous_letters_are_left_out():
    assert word_codes(DNA.encode("ACNGT"), DNA, 2).tolist() == [1, 11]
    assert word_codes(DNA.encode("A"), DNA, 2).size == 0


def test_shares_out_of_range_are_refused(made_pairs):
    with pytest.raises(ConfigError, match="test_share"):
        split_pairs(made_pairs(2, 10), 1.0)
    with pytest.raises(ConfigError, match="shared"):
        near_duplicate_groups(made_pairs(2, 10), 0)


def test_no_pairs_have_no_groups():
    assert near_duplicate_groups([]).size == 0


def test_real_genes_are_split_between_groups(data):
    from hyena_glt.multimodal import read_pairs

    pairs = read_pairs([data("genomes/phix174_NC_001422.gbk")]).pairs
    groups = near_duplicate_groups(pairs)
    by_name = {pair.name.rpartition(":")[2]: group for pair, group in zip(pairs, groups.tolist(), strict=True)}
    assert len(by_name) == 11
    assert len(set(by_name.values())) < 11  # A and A* share a frame, others overlap
