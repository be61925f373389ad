"""Rows that are kept, options that do not belong together."""

from __future__ import annotations

import numpy as np
import pytest

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.evolution.comparison import compare_genomes, make_metric
from hyena_glt.evolution.genome import Genome


class Kept:
    """A store in memory that counts what it gives back."""

    def __init__(self):
        self.rows, self.found = {}, 0

    def find(self, key):
        self.found += key in self.rows
        return self.rows.get(key)

    def put(self, key, row):
        self.rows[key] = row


@pytest.mark.parametrize("metric", ["compression", "kmer"])
def test_kept_rows_give_the_same_distances(family, metric):
    store, steps = Kept(), []
    first = compare_genomes(family, metric, blocks=4, store=store, advance=steps.append)
    del store.rows[family[2].sha256]
    again = compare_genomes(family, metric, blocks=4, store=store)
    assert sum(steps) == 5
    assert store.found == 4
    assert np.array_equal(first.distances().values, again.distances().values)


def test_a_kept_row_of_another_shape_is_made_again(family):
    store = Kept()
    compare_genomes(family, "kmer", blocks=4, store=store)
    found = compare_genomes(family, "kmer", blocks=2, store=store)
    assert found.blocks == 2


@pytest.mark.parametrize("metric", ["compression", "kmer"])
def test_equal_genomes_are_computed_once_whatever_the_threads(family, metric, monkeypatch):
    copies = [
        *family[:3],
        *(Genome(f"again {genome.name}", genome.sequences, genome.alphabet) for genome in family[:3]),
    ]
    kind = type(make_metric(copies, metric))
    whole, made = kind.row, []
    monkeypatch.setattr(kind, "row", lambda self, index: made.append(index) or whole(self, index))
    store, steps = Kept(), []
    found = compare_genomes(copies, metric, blocks=4, threads=4, store=store, advance=steps.append)
    assert sorted(made) == [0, 1, 2]
    assert sum(steps) == 6
    assert set(store.rows) == {genome.sha256 for genome in family[:3]}
    for index, genome in enumerate(copies):  # as if each were asked for
        assert np.array_equal(found.rows[index], whole(found.metric, index)), genome.name
        assert np.array_equal(found.own[index], found.metric.own_sums(index))
    one = compare_genomes(copies, metric, blocks=4)
    for weights in (None, [3, 0, 0, 1]):
        assert np.array_equal(found.distances(weights).values, one.distances(weights).values)


def test_options_of_the_other_metric(family):
    for options in ({"metric": "compression", "k": 5}, {"metric": "kmer", "order": 5}, {"metric": "mash"}):
        with pytest.raises(ConfigError):
            make_metric(family, **options)
    with pytest.raises(ConfigError, match="blocks"):
        make_metric(family, blocks=0)
    with pytest.raises(DataError, match=r"shape \(2,\)"):
        compare_genomes(family, "kmer", blocks=2).distances([1, 1, 1])
