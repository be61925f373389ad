"""Totals of a run: parts add up to the whole, and nothing is divided by zero."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.cli.patch_run import ContigStats

COUNTS = ("bases", "patches", "ambiguous_bases", "ambiguous_patches", "max_length")
parts = st.builds(ContigStats, st.just("a"), st.just(0), *(st.integers(0, 1000) for _ in COUNTS))


@given(st.lists(parts, max_size=5))
def test_parts_add_up(stats):
    whole = ContigStats("", 0)
    for part in stats:
        whole.add(part)
    for name in COUNTS:
        values = [asdict(part)[name] for part in stats]
        assert asdict(whole)[name] == (max(values, default=0) if name == "max_length" else sum(values))


def test_means_leave_runs_of_ambiguity_symbols_out():
    stats = ContigStats("a", 0, bases=110, patches=11, ambiguous_bases=10, ambiguous_patches=1, surprise=100.0)
    assert stats.mean_called_length == 10.0
    assert stats.bits_per_base == pytest.approx(1 / math.log(2))
    assert stats.as_dict()["mean_length"] == 10.0


@pytest.mark.parametrize("stats", [ContigStats("a", 0), ContigStats("a", 0, 5, 1, 5, 1, 5)])
def test_a_contig_without_letters_has_zeros(stats):
    assert stats.mean_called_length == stats.bits_per_base == stats.as_dict()["bases_per_second"] == 0.0
