from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.reports import bins as module
from hyena_glt.reports.bins import bin_track, merged_bins, score_extremes, without_ambiguous

NO_RUNS = np.empty((0, 2), np.int64)


@st.composite
def tracks(draw):
    """(patch lengths, patch scores, entropies) of a short track, some values unknown."""
    lengths = np.array(draw(st.lists(st.integers(1, 9), min_size=1, max_size=30)), np.int64)
    unknown_or = st.floats(0, 4, width=32) | st.just(float("nan"))
    scores = draw(st.lists(unknown_or, min_size=lengths.size, max_size=lengths.size))
    total = int(lengths.sum())
    entropies = draw(st.lists(unknown_or, min_size=total, max_size=total))
    return lengths, np.array(scores, np.float32), np.array(entropies, np.float32)


@given(tracks(), st.integers(1, 40))
def test_bins_are_what_a_loop_over_bases_gives(track, max_bins):
    lengths, scores, entropies = track
    bins = bin_track(lengths, scores, entropies, NO_RUNS, max_bins)
    starts = np.cumsum(lengths) - lengths
    of_base = np.repeat(scores, lengths)
    assert bins.starts.size <= max_bins
    for i, start in enumerate(range(0, entropies.size, bins.width)):
        part, score = entropies[start : start + bins.width], of_base[start : start + bins.width]
        known, scored = part[~np.isnan(part)], score[~np.isnan(score)]
        assert bins.bases[i] == known.size
        assert bins.total[i] == pytest.approx(known.astype(float).sum())
        assert bins.score_bases[i] == pytest.approx(scored.size)
        assert bins.score_total[i] == pytest.approx(scored.astype(float).sum(), abs=1e-9)
        assert bins.starts[i] == ((starts >= start) & (starts < start + bins.width)).sum()
        if known.size:
            assert (bins.lowest[i], bins.highest[i]) == (known.min(), known.max())
        else:
            assert np.isnan(bins.lowest[i])


@given(tracks(), st.integers(1, 8), st.integers(1, 10))
def test_merging_bins_equals_binning_wider(track, factor, max_bins):
    lengths, scores, entropies = track
    fine = bin_track(lengths, scores, entropies, NO_RUNS, 10**6)
    coarse = merged_bins(fine, max_bins)
    direct = bin_track(lengths, scores, entropies, NO_RUNS, max_bins)
    assert coarse.width == direct.width
    for name in ("lowest", "highest", "bases", "starts"):
        assert np.array_equal(getattr(coarse, name), getattr(direct, name), equal_nan=True)
    np.testing.assert_allclose(coarse.total, direct.total)
    np.testing.assert_allclose(coarse.score_total, direct.score_total, atol=1e-9)


def test_without_entropies_the_scores_stand_in():
    lengths, scores = np.array([2, 3]), np.array([1.0, 3.0], np.float32)
    bins = bin_track(lengths, scores, None, NO_RUNS, 1)
    assert (bins.lowest[0], bins.highest[0], bins.total[0]) == (1.0, 3.0, 11.0)


def test_nothing_is_known_at_ambiguous_symbols():
    entropies = np.arange(8, dtype=np.float32)
    shown = without_ambiguous(entropies, np.array([[0, 2], [2, 3], [6, 8]]))
    assert np.isnan(shown).tolist() == [True, True, True, False, False, False, True, True]
    assert without_ambiguous(entropies, NO_RUNS) is entropies


@given(tracks(), st.integers(1, 40))
def test_the_extremes_of_the_scores_are_those_of_the_bases(track, width):
    lengths, scores, _ = track
    of_base = np.repeat(scores, lengths)
    edges = np.append(np.arange(0, of_base.size, width), of_base.size)
    found = score_extremes(lengths, scores, edges)
    for i, (start, end) in enumerate(pairwise(edges)):
        known = of_base[start:end][~np.isnan(of_base[start:end])]
        expected = (known.min(), known.max()) if known.size else (np.nan, np.nan)
        np.testing.assert_equal((found["lowest"][i], found["highest"][i]), expected)


@given(tracks(), st.integers(1, 20), st.integers(1, 30), st.integers(0, 20))
def test_blocks_and_runs_change_nothing(track, block, max_bins, first):
    lengths, scores, entropies = track
    runs = np.array([[min(first, entropies.size - 1), entropies.size]])
    masked = np.where(np.arange(entropies.size) < runs[0, 0], entropies, np.nan).astype(np.float32)
    whole = bin_track(lengths, scores, masked, NO_RUNS, max_bins)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        blocked = bin_track(lengths, scores, entropies, runs, max_bins)
    for name in ("lowest", "highest", "total", "bases"):
        assert np.array_equal(getattr(whole, name), getattr(blocked, name), equal_nan=True)


def test_lengths_beyond_31_bits_stay_exact():
    lengths, scores = np.array([2**31 + 3, 5]), np.array([1.0, 2.0], np.float32)
    bins = bin_track(lengths, scores, None, NO_RUNS, 4)
    assert bins.width == 2**29 + 2
    assert bins.starts.tolist() == [1, 0, 0, 1]
    assert bins.highest.tolist() == [1.0, 1.0, 1.0, 2.0]
    assert bins.total.sum() == 2**31 + 3 + 10
