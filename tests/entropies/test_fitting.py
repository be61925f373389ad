"""Orders and concentrations."""

from __future__ import annotations

import numpy as np
import pytest

from hyena_glt.entropies import context_tables as tables
from hyena_glt.entropies.fitting import best_concentration, check_order, default_order, fit_tables
from hyena_glt.errors import ConfigError
from hyena_glt.sequences.alphabets import BYTES, DNA, PROTEIN


@pytest.mark.parametrize(
    ("symbols", "order"), [(0, 2), (100, 2), (4**6, 5), (4_641_652, 10), (2_320_826, 9), (3_100_000_000, 10)]
)
def test_the_order_follows_the_amount_of_data(symbols, order):
    assert default_order(symbols, DNA) == order


def test_best_concentration_finds_the_minimum():
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (4096, 4)).astype(np.uint32)
    lower = np.full((1024, 4), 0.25)
    found = best_concentration(counts, lower)
    losses = [tables.leave_one_out_loss(counts, lower, found * f)[0] for f in (0.5, 1.0, 2.0)]
    assert losses[1] <= min(losses)


def test_without_a_count_every_letter_is_alike():
    fitted = fit_tables(tables.empty_counts(1, PROTEIN.bits), 1, PROTEIN)
    entropies = tables.entropies_of(fitted.rows)[:, 0]
    assert entropies == pytest.approx(np.full(len(fitted.rows), np.log(20)), abs=1e-6)
    assert fitted.held_out_bits == pytest.approx(np.log2(20))


@pytest.mark.parametrize(
    ("order", "alphabet"), [(13, DNA), (-1, DNA), (2.0, DNA), (True, DNA), (5, PROTEIN), (3, BYTES)]
)
def test_a_table_that_cannot_be_held_is_refused(order, alphabet):
    with pytest.raises(ConfigError, match="order: expected an integer"):
        check_order(order, alphabet)
