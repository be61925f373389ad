from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.reports import Budget
from hyena_glt.reports.track import Shares, contig_payload, summarise

EVERYTHING = Shares(bins=10**6, patches=10**6, bases=10**6, features=10**6, runs=10**6)


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
