from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.reports import Budget, ContigTrack
from hyena_glt.reports.track import (
    Shares,
    bin_track,
    contig_payload,
    merged_bins,
    summarise,
    without_ambiguous,
)

EVERYTHING = Shares(bins=10**6, patches=10**6, bases=10**6, features=10**6, runs=10**6)


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
    bins = bin_track(lengths, scores, entropies, max_bins)
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
    fine = bin_track(lengths, scores, entropies, 10**6)
    coarse = merged_bins(fine, max_bins)
    direct = bin_track(lengths, scores, entropies, max_bins)
    assert coarse.width == direct.width
    for name in ("lowest", "highest", "bases", "starts"):
        assert np.array_equal(getattr(coarse, name), getattr(direct, name), equal_nan=True)
    np.testing.assert_allclose(coarse.total, direct.total)
    np.testing.assert_allclose(coarse.score_total, direct.score_total, atol=1e-9)


def test_without_entropies_the_scores_stand_in():
    lengths, scores = np.array([2, 3]), np.array([1.0, 3.0], np.float32)
    bins = bin_track(lengths, scores, None, 1)
    assert (bins.lowest[0], bins.highest[0], bins.total[0]) == (1.0, 3.0, 11.0)


def test_nothing_is_drawn_for_ambiguous_symbols(make_track):
    entropies = np.arange(8, dtype=np.float32)
    shown = without_ambiguous(entropies, np.array([[0, 2], [2, 3], [6, 8]]))
    assert np.isnan(shown).tolist() == [True, True, True, False, False, False, True, True]
    assert without_ambiguous(entropies, np.empty((0, 2), np.int64)) is entropies


@settings(max_examples=20)
@given(st.integers(1, 3000), st.integers(0, 10))
def test_the_payload_holds_the_arrays_themselves(decode, make_track, length, seed):
    track = make_track(length, seed)
    payload = contig_payload(summarise(track, Budget()), EVERYTHING)
    assert decode.varints(payload["detail"]["lengths"]) == track.patch_lengths.tolist()
    scores, bases, mean = payload["detail"]["scores"], payload["bases"], payload["bins"]["mean"]
    off = np.abs(decode.numbers(scores, 8) - track.patch_scores).max()
    assert off <= decode.half_step(scores, 8) + 1e-6
    assert np.abs(decode.numbers(bases, 16) - track.entropies).max() <= decode.half_step(bases, 16) + 1e-6
    width = payload["bins"]["width"]
    means = [track.entropies[i : i + width].astype(float).mean() for i in range(0, length, width)]
    assert np.abs(decode.numbers(mean, 16) - means).max() <= decode.half_step(mean, 16) + 1e-6
    assert sum(decode.varints(payload["bins"]["starts"])) == track.patch_lengths.size
    assert payload["notes"] == []


def test_what_a_share_leaves_out_is_said(make_track, decode):
    track = make_track(5000, ambiguous=np.array([[0, 10], [20, 50]]))
    summary = summarise(track, Budget(runs=1))
    payload = contig_payload(summary, Shares(bins=10, patches=7, bases=100, features=1, runs=1))
    covered = int(track.patch_lengths[:7].sum())
    assert decode.varints(payload["detail"]["lengths"]) == track.patch_lengths[:7].tolist()
    assert payload["detail"]["covered"] == covered
    assert decode.numbers(payload["bases"], 16).size == 100
    assert payload["runs"] == [[20, 50]]
    assert len(decode.varints(payload["bins"]["starts"])) <= 10
    patches, bases, runs = payload["notes"]
    assert f"first {covered:,} bases (7 of {track.patch_lengths.size:,} patches)" in patches
    assert "first 100 bases" in bases
    assert "1 longest of 2 ambiguous runs" in runs


def test_a_track_with_an_offset_is_drawn_from_its_own_start(make_track):
    track = make_track(100, offset=1000, ambiguous=np.array([[1010, 1020]]))
    payload = contig_payload(summarise(track, Budget()), EVERYTHING)
    assert payload["runs"] == [[10, 20]]
    assert payload["offset"] == 1000


def test_a_summary_does_not_grow_with_the_contig(make_track):
    budget = Budget(bins=64, patches=10, bases=20)
    summary = summarise(make_track(50_000), budget)
    assert summary.bins.starts.size <= 64
    assert (summary.patch_lengths.size, summary.patch_scores.size, summary.entropies.size) == (10, 10, 20)
    assert summary.patch_lengths.base is None
    assert summary.entropies.base is None


def test_lengths_beyond_31_bits_stay_exact(decode):
    length = 2**31 + 8
    track = ContigTrack(
        name="chr1",
        length=length,
        patch_lengths=np.array([length - 5, 5]),
        patch_scores=np.array([1.0, 2.0], np.float32),
        entropies=None,
    )
    detail = {"lengths": decode.varints("iICAgAgF")}
    assert detail["lengths"] == [2**31 + 8, 5]
    assert int(track.patch_lengths.sum()) == length
