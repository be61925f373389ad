"""Rows that are kept, options that do not belong together."""

from __future__ import annotations

import numpy as np
import pytest

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.evolution.comparison import compare_genomes, make_metric


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


def test_options_of_the_other_metric(family):
    for options in ({"metric": "compression", "k": 5}, {"metric": "kmer", "order": 5}, {"metric": "mash"}):
        with pytest.raises(ConfigError):
            make_metric(family, **options)
    with pytest.raises(ConfigError, match="blocks"):
        make_metric(family, blocks=0)
    with pytest.raises(DataError, match=r"shape \(2,\)"):
        compare_genomes(family, "kmer", blocks=2).distances([1, 1, 1])
