"""What a genome is to a comparison."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hyena_glt.errors import AlphabetError, DataError
from hyena_glt.evolution.genome import Genome, block_edges, block_sums, check_genomes
from hyena_glt.sequences.alphabets import AMBIGUOUS


def test_contigs_meet_at_a_symbol_that_is_no_letter():
    genome = Genome.of("x", ["acg", "NT"])
    assert genome.codes.tolist() == [0, 1, 2, AMBIGUOUS, AMBIGUOUS, 3]
    assert genome.num_letters == 4


def test_case_means_nothing_and_gaps_are_removed_on_demand():
    assert Genome.of("x", "ac-g.t", degap=True).sha256 == Genome.of("y", "ACGT").sha256
    with pytest.raises(AlphabetError, match="--degap"):
        Genome.of("x", "ac-g")


def test_contigs_are_part_of_the_hash():
    assert Genome.of("x", ["ACGT", "AC"]).sha256 != Genome.of("x", ["ACG", "TAC"]).sha256


def test_a_genome_without_letters_is_refused():
    with pytest.raises(DataError, match="got none"):
        Genome.of("x", "NNN")
    with pytest.raises(DataError, match=r"^a\.fa \(x\): expected a letter of alphabet dna, got none; leave it out$"):
        Genome.of("x", "NNN", path="a.fa")


def test_genomes_that_cannot_be_compared():
    a, b = Genome.of("a", "ACGT"), Genome.of("b", "MKV", "protein")
    with pytest.raises(DataError, match="two genomes or more"):
        check_genomes([a])
    with pytest.raises(DataError, match="names have to differ"):
        check_genomes([a, a])
    with pytest.raises(DataError, match="alphabet dna, got protein"):
        check_genomes([a, b])


@pytest.mark.parametrize(("length", "blocks"), [(10, 3), (2, 5), (7, 7), (0, 2)])
def test_blocks_hold_everything_once(length, blocks):
    edges = block_edges(length, blocks)
    assert edges[0] == 0
    assert edges[-1] == length
    assert np.ptp(np.diff(edges)) <= 1
    values = np.arange(length, dtype=np.float64)
    expected = [values[a:b].sum() for a, b in pairwise(edges)]
    assert np.allclose(block_sums(values, blocks), expected)
