from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError
from hyena_glt.reports import Budget
from hyena_glt.reports.contigs import Ledger, Row, contig_payloads, fair_shares, not_shown, whole_input


@pytest.fixture(scope="module")
def ledger_of(make_track):
    def fill(lengths, budget=None):
        ledger = Ledger(budget or Budget())
        for i, length in enumerate(lengths):
            ledger.add(make_track(length, seed=i, name=f"contig{i}"))
        return ledger

    return fill


@given(st.lists(st.integers(0, 1000)), st.integers(0, 5000))
def test_shares_are_fair(needs, budget):
    shares = fair_shares(needs, budget)
    assert all(0 <= share <= need for share, need in zip(shares, needs, strict=True))
    assert sum(shares) <= budget
    short = [share for share, need in zip(shares, needs, strict=True) if share < need]
    if short:
        assert sum(shares) == budget
        assert max(shares) <= max(short) + 1
        assert max(short) - min(short) <= 1


@given(lengths=st.lists(st.integers(1, 60), max_size=12), kept=st.integers(1, 5))
def test_the_largest_contigs_are_kept_in_their_order(ledger_of, lengths, kept):
    shown = ledger_of(lengths, Budget(contigs=kept)).shown()
    names = [summary.name for _, summary in shown]
    ranked = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))[:kept]
    assert names == [f"contig{i}" for i in sorted(ranked)]


def test_sums_are_those_of_all_contigs(make_track):
    tracks = [make_track(length, seed=length) for length in (500, 20, 3000)]
    ledger = Ledger(Budget(contigs=1))
    for track in tracks:
        ledger.add(track)
    lengths = np.concatenate([track.patch_lengths for track in tracks])
    scores = np.concatenate([track.patch_scores for track in tracks]).astype(float)
    total = ledger.total
    assert (total.contigs, total.bases, total.patches) == (3, 3520, lengths.size)
    assert total.longest == lengths.max()
    assert total.mean_length == 3520 / lengths.size
    assert total.score_bits == pytest.approx(np.average(scores, weights=lengths) / np.log(2))
    assert ledger.counts.sum() == lengths.size


def test_the_rest_is_what_the_rows_leave_out(ledger_of):
    ledger = ledger_of([100, 50, 200, 70], Budget(contigs=2))
    rows = [row for row, _ in ledger.shown()]
    rest = not_shown(whole_input(ledger.total, {}), rows)
    assert (rest.contigs, rest.bases) == (2, 120)
    assert rest.patches == ledger.total.patches - sum(row.patches for row in rows)
    assert not_shown(ledger.total, [*rows, rest]) is None


def test_totals_of_a_larger_input_are_believed_and_smaller_ones_refused():
    total = Row(contigs=2, bases=100, patches=10)
    whole = whole_input(total, {"contigs": 7, "bases": 1000, "patches": 90})
    assert (whole.contigs, whole.bases, whole.patches) == (7, 1000, 90)
    with pytest.raises(ConfigError, match="at least 100 bases"):
        whole_input(total, {"bases": 99})


def test_an_empty_contig_is_counted_and_not_drawn(ledger_of):
    ledger = ledger_of([0, 10])
    assert ledger.total.contigs == 2
    assert [summary.name for _, summary in ledger.shown()] == ["contig1"]


def test_the_budget_is_shared_by_all_contigs(ledger_of, decode):
    budget = Budget(bins=60, patches=100, bases=500, base_contigs=2)
    contigs = [summary for _, summary in ledger_of([4000, 100, 6000, 3000], budget).shown()]
    payloads = contig_payloads(contigs, budget)
    assert sum(payload["detail"]["count"] for payload in payloads) == 100
    bases = [decode.numbers(payload["bases"], 16).size for payload in payloads]
    assert bases == [250, 0, 250, 0]
    assert sum(len(decode.varints(payload["bins"]["starts"])) for payload in payloads) <= 60
