"""Windows go on where the last one ended, base by base, on every contig."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.errors import PatchingError
from hyena_glt.positions import PositionInfo, PositionTracker

windows = st.lists(
    st.integers(1, 50).flatmap(lambda length: st.tuples(st.just(length), st.integers(0, length - 1))),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(windows, st.integers(0, 1 << 40))
def test_the_new_bases_of_all_windows_are_the_contig_once(plan, first):
    tracker, seen = PositionTracker(), []
    tracker.begin("chr1", first)
    for length, overlap in plan:
        covered = tracker.num_covered
        info = tracker.positions(torch.tensor([length]))
        assert tracker.advance(length, overlap=overlap) == info.global_positions[0, 0]
        seen += info.global_positions[0, covered:].tolist()
    assert seen == list(range(first, tracker.end))
    assert tracker.end - tracker.position == tracker.num_covered >= plan[-1][1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.data())
def test_windows_of_whole_patches_have_the_positions_of_the_contig(lengths, data):
    whole = PositionInfo.from_patch_lengths(torch.tensor([lengths]))
    tracker, parts, patch = PositionTracker(), [], 0
    while patch < len(lengths):
        count = data.draw(st.integers(1, len(lengths) - patch))
        window = torch.tensor(lengths[patch : patch + count])
        parts.append(tracker.positions(window))
        tracker.advance(int(window.sum()))
        patch += count
    for field in ("global_positions", "relative_positions", "offsets"):
        assert torch.cat([getattr(part, field) for part in parts], dim=1).equal(getattr(whole, field))


def test_contigs_do_not_disturb_each_other():
    tracker = PositionTracker("chr1")
    assert tracker.advance(100, overlap=10) == 0
    assert tracker.advance(40, contig="chr2") == 0
    assert (tracker.contig, tracker.position) == ("chr2", 40)
    assert tracker.advance(100, contig="chr1") == 90
    assert (tracker.position, tracker.end, tracker.num_covered) == (190, 190, 0)
    assert tracker.contigs == ["chr1", "chr2"]
    info = tracker.positions(torch.tensor([[2, 1], [1, 0]]), ["chr1", "chr2"])
    assert info.global_positions.tolist() == [[190, 191, 192], [40, -1, -1]]


def test_reset_forgets_one_contig_or_all():
    tracker = PositionTracker("a")
    tracker.advance(5)
    tracker.advance(6, contig="b")
    tracker.reset("b")
    assert (tracker.position, tracker.contigs) == (0, ["a"])
    tracker.reset()
    assert tracker.contigs == []
    tracker.begin("a", 7)
    assert (tracker.position, tracker.end) == (7, 7)


def test_a_window_that_is_shorter_than_the_shared_bases_covers_nothing_new():
    tracker = PositionTracker()
    tracker.advance(100, overlap=20)
    tracker.advance(10)
    assert (tracker.position, tracker.end, tracker.num_covered) == (90, 100, 10)


def test_positions_are_exact_near_the_end_of_63_bits():
    tracker = PositionTracker()
    tracker.begin("long", 2**62)
    assert tracker.positions(torch.tensor([1, 2])).global_positions.tolist() == [[2**62, 2**62 + 1, 2**62 + 2]]
    assert tracker.positions(torch.tensor([4, 4]), starts=torch.tensor([0, 2])).global_positions[0, 4] == 2**62 + 2
    with pytest.raises(PatchingError, match="below 2\\^63"):
        tracker.advance(2**62)


def test_an_empty_window_moves_nothing():
    tracker = PositionTracker()
    assert tracker.advance(0) == tracker.position == tracker.end == 0


@pytest.mark.parametrize(("length", "overlap"), [(-1, 0), (10, 10), (10, 11), (10, -1), (0, 1)])
def test_windows_that_lead_nowhere_are_refused(length, overlap):
    tracker = PositionTracker()
    with pytest.raises(PatchingError, match="0 <= overlap < length"):
        tracker.advance(length, overlap=overlap)
    assert tracker.position == 0


def test_wrong_contigs_are_refused():
    tracker = PositionTracker("a")
    tracker.advance(3)
    with pytest.raises(PatchingError, match="not begun, got 'a'"):
        tracker.begin("a")
    with pytest.raises(PatchingError, match="got -1"):
        tracker.begin("b", -1)
    for names in (None, ["a", "a"], ["a"]):
        with pytest.raises(PatchingError, match="a different contig for each of 2 rows"):
            tracker.positions(torch.tensor([[1], [1]]), names)
    with pytest.raises(PatchingError, match="patch_lengths"):
        tracker.positions(torch.tensor([1.5]))
