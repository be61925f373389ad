"""Shared words against their definition and against sourmash."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.evolution.comparison import genome_distances
from hyena_glt.evolution.genome import Genome
from hyena_glt.evolution.kmers import SharedWords, canonical_words, mash_distance
from hyena_glt.sequences.alphabets import DNA, reverse_complement

texts = st.text("ACGTN", min_size=1, max_size=60)


def words_of(text, k):
    """The definition."""
    found = set()
    for i in range(len(text) - k + 1):
        word = text[i : i + k]
        if "N" not in word:
            found.add(min(word, reverse_complement(word)))
    return found


@given(texts, st.integers(1, 31))
def test_words_against_the_definition(text, k):
    words, places = canonical_words(DNA.encode(text), k)
    letters = ["".join("ACGT"[int(word) >> 2 * (k - 1 - i) & 3] for i in range(k)) for word in words]
    assert set(letters) == words_of(text, k)
    assert all("N" not in text[place : place + k] for place in places)


@given(st.text("ACGT", min_size=5, max_size=80), st.text("ACGT", min_size=5, max_size=80), st.integers(1, 9))
def test_jaccard_against_sets_and_blocks_change_nothing(one, two, blocks):
    a, b = words_of(one, 4), words_of(two, 4)
    expected = mash_distance(np.array([len(a & b) / len(a | b)]), 4)[0]
    genomes = [Genome.of("a", one), Genome.of("b", two)]
    found = genome_distances(genomes, "kmer", k=4, blocks=blocks).values
    assert found[0, 1] == pytest.approx(expected, abs=1e-12)
    assert found[0, 1] == found[1, 0]
    assert (np.diag(found) == 0).all()


def test_both_strands_are_one():
    text = "ACGTTGCATTAGCCGATAGCATTACG"
    found = genome_distances([Genome.of("a", text), Genome.of("b", reverse_complement(text))], "kmer", k=11)
    assert found.values[0, 1] == 0.0


def test_equal_genomes_are_0_and_not_minus_0():
    found = genome_distances([Genome.of(name, "ACGTTGCATTAGCC") for name in "ab"], "kmer", k=5).values
    assert not np.signbit(found).any()
    assert not np.signbit(mash_distance(np.ones(1), 5)).any()


def test_nothing_shared_is_1():
    assert genome_distances([Genome.of("a", "A" * 30), Genome.of("b", "ACGGT" * 6)], "kmer").values[0, 1] == 1.0


def test_k_beyond_64_bits_and_genomes_without_words():
    pair = [Genome.of("a", "ACGTACGTA"), Genome.of("b", "ACGNACGNA")]
    with pytest.raises(ConfigError, match="1 to 31"):
        SharedWords(pair, k=32)
    with pytest.raises(DataError, match=r"b: no word of k = 5"):
        SharedWords(pair, k=5)


def test_protein_words():
    pair = [Genome.of("a", "MKVLAWGRTM", "protein"), Genome.of("b", "MKVLAWGRTX", "protein")]
    assert genome_distances(pair, "kmer", k=3).values[0, 1] == pytest.approx(mash_distance(np.array([7 / 8]), 3)[0])
    with pytest.raises(ConfigError, match="1 to 12"):
        genome_distances(pair, "kmer", k=13)


@pytest.mark.parametrize("k", [11, 21, 31])
def test_against_sourmash(data, k):
    sourmash = pytest.importorskip("sourmash")
    with gzip.open(data("phylo/mammal_mtDNA_7.fasta.gz"), "rt") as handle:
        parts = handle.read().upper().split(">")[1:4]
    records = [(part.split(None, 1)[0], "".join(part.split("\n")[1:])) for part in parts]
    sketches = [sourmash.MinHash(n=0, ksize=k, scaled=1) for _ in records]
    for sketch, (_, text) in zip(sketches, records, strict=True):
        sketch.add_sequence(text, force=True)
    found = genome_distances([Genome.of(name, text) for name, text in records], "kmer", k=k).values
    for i, one in enumerate(sketches):
        for j, two in enumerate(sketches):
            expected = mash_distance(np.array([one.jaccard(two)]), k)[0]
            assert found[i, j] == pytest.approx(expected, abs=1e-12)
