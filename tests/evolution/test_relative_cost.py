"""The compression metric: what it has to be whatever the genomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import DataError
from hyena_glt.evolution import relative_cost
from hyena_glt.evolution.comparison import compare_genomes, genome_distances
from hyena_glt.evolution.genome import Genome
from hyena_glt.evolution.relative_cost import RelativeCost
from hyena_glt.sequences.alphabets import reverse_complement

from .conftest import mutated, random_sequence

contigs = st.lists(st.text("ACGTN", min_size=1, max_size=80), min_size=1, max_size=3).filter(
    lambda parts: any(set(part) - {"N"} for part in parts)
)


@settings(max_examples=8, deadline=None)
@given(st.lists(contigs, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_symmetric_zero_diagonal_and_whatever_the_order(parts, random):
    genomes = [Genome.of(str(i), own) for i, own in enumerate(parts)]
    found = genome_distances(genomes).values
    assert np.array_equal(found, found.T)
    assert (np.diag(found) == 0).all()
    assert (found >= 0).all()
    order = list(range(len(genomes)))
    random.shuffle(order)
    again = genome_distances([genomes[i] for i in order]).values
    assert np.allclose(again, found[np.ix_(order, order)], rtol=1e-12, atol=0)


def test_identical_is_0_and_unrelated_is_about_1():
    one, two = random_sequence(4000, 1), random_sequence(4000, 2)
    found = genome_distances([Genome.of("a", one), Genome.of("b", one), Genome.of("c", two)]).values
    assert found[0, 1] == 0.0
    assert 0.9 < found[0, 2] < 1.2


def test_each_change_adds_about_as_much_as_the_first():
    base = random_sequence(20_000, 3)
    genomes = [Genome.of("base", base), *(Genome.of(str(n), mutated(base, n, 4)) for n in (20, 40, 80))]
    found = genome_distances(genomes).values[0, 1:]
    assert found / found[0] == pytest.approx([1, 2, 4], rel=0.1)


def test_the_other_strand_is_the_same_genome():
    base = random_sequence(3000, 5)
    near = mutated(base, 30, 6)
    flipped = reverse_complement(near)
    found = genome_distances([Genome.of("a", base), Genome.of("b", near), Genome.of("c", flipped)]).values
    assert found[0, 1] == pytest.approx(found[0, 2], rel=0.05)
    assert found[1, 2] < 0.02


def test_ambiguity_costs_nothing_by_itself():
    base = random_sequence(6000, 7)
    masked = base[:3000] + b"N" * 100 + base[3100:]
    found = genome_distances([Genome.of("a", base), Genome.of("b", masked)]).values
    assert found[0, 1] < 0.03


@pytest.mark.parametrize("options", [{}, {"order": 6}])
def test_threads_and_blocks_change_nothing(family, options):
    plain = genome_distances(family, **options).values
    assert np.array_equal(genome_distances(family, threads=2, **options).values, plain)
    assert np.allclose(genome_distances(family, blocks=50, **options).values, plain, rtol=1e-9)


def test_a_row_does_not_depend_on_what_was_priced_before(family):
    alone = RelativeCost([family[0], family[3]]).row(0)
    among = RelativeCost(family).row(0)
    assert np.array_equal(alone, among[[0, 3]])


def test_protein_takes_tables():
    metric = RelativeCost([Genome.of("a", "MKVLAWGRTM" * 30, "protein"), Genome.of("b", "MKVLAWGRTM" * 30, "protein")])
    assert metric.describe()["model"] == "markov"
    found = genome_distances(metric.genomes).values
    assert found.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_genome_too_long_is_refused_by_name(monkeypatch, family):
    monkeypatch.setattr(relative_cost, "MOST_SYMBOLS", 2999)
    with pytest.raises(DataError, match=r"a: 3,000 symbols.*--metric kmer"):
        compare_genomes(family)
