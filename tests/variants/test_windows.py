"""Windows with REF and with ALT: equal lengths, equal beginnings, the variant in its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, ConfigError
from hyena_glt.sequences.alphabets import reverse_complement
from hyena_glt.variants.edits import Edit, applied, normalised
from hyena_glt.variants.windows import (
    FOLD,
    allele_windows,
    check_window,
    folded,
    on_other_strand,
    other_strand,
    scored_places,
    window_start,
    window_step,
)

DNA = st.text("ACGT", max_size=12).map(str.encode)


@st.composite
def contigs_with_edits(draw) -> tuple[bytes, Edit]:
    contig = draw(st.text("ACGTacgtN", min_size=1, max_size=120)).encode()
    start = draw(st.integers(0, len(contig)))
    end = draw(st.integers(start, min(len(contig), start + 15)))
    return contig, Edit(start, contig[start:end], draw(DNA))


def fetch_of(contig: bytes):
    return lambda start, end: contig[start:end]


@given(contigs_with_edits(), st.integers(16, 64), st.integers(1, 8))
def test_windows_are_equal_up_to_the_variant_and_of_equal_length(case, window, step):
    contig, edit = case
    fetch = fetch_of(contig)
    edit = normalised(edit, fetch)
    start, first, ref, alt = allele_windows(edit, fetch, len(contig), window, step)
    assert len(ref) == len(alt) <= window
    assert start + first == edit.start
    assert ref[:first] == alt[:first]
    assert folded(contig)[start:].startswith(ref)
    assert folded(applied(contig, edit))[start:].startswith(alt)
    if len(contig) >= window + len(edit.ref) and len(edit.alt) >= len(edit.ref):
        assert len(ref) == window


@given(contigs_with_edits())
def test_as_many_letters_count_in_ref_as_in_alt(case):
    contig, edit = case
    windows = allele_windows(normalised(edit, fetch_of(contig)), fetch_of(contig), len(contig), 32)
    count = windows.num_scored
    for window in (windows.ref, windows.alt):
        places = scored_places(window, windows.first, count)
        assert places.size == count
        assert (places >= max(windows.first, 1)).all()
        assert not set(np.frombuffer(window, np.uint8)[places].tobytes()) & set(b"N")


@given(contigs_with_edits(), st.integers(0, 20))
def test_every_spelling_has_the_same_windows(case, shift):
    contig, edit = case
    fetch = fetch_of(contig)
    assume(normalised(edit, fetch).kind != "none")  # no change has no place of its own
    left = min(shift, edit.start)
    flank = contig[edit.start - left : edit.start]
    behind = contig[edit.end : edit.end + shift]
    spelled = Edit(edit.start - left, flank + edit.ref + behind, flank.upper() + edit.alt + behind.upper())
    windows = [allele_windows(normalised(e, fetch), fetch, len(contig), 32, 2) for e in (edit, spelled)]
    assert windows[0] == windows[1]


@given(contigs_with_edits())
def test_the_other_strand_is_a_contig_of_its_own(case):
    contig, edit = case
    assume(normalised(edit, fetch_of(contig)).kind != "none")
    turned = reverse_complement(contig)
    mirrored = Edit(len(contig) - edit.end, reverse_complement(edit.ref), reverse_complement(edit.alt))
    fetch = other_strand(fetch_of(contig), len(contig))
    there = on_other_strand(normalised(edit, fetch_of(contig)), fetch, len(contig))
    assert fetch(0, len(contig)) == turned
    assert there == normalised(mirrored, fetch_of(turned))


def test_the_variant_lies_in_the_middle_and_at_an_edge_the_other_side_has_more():
    assert window_start(500, 1000, 100) == 450
    assert window_start(3, 1000, 100) == 0
    assert window_start(999, 1000, 100) == 900
    assert window_start(30, 60, 100) == 0
    assert [window_start(position, 1000, 64, 4) for position in range(496, 505)] == [464] * 4 + [468] * 4 + [472]
    assert window_start(999, 1001, 64, 4) == 937


def test_neighbours_share_windows():
    assert window_step(8192) == 512
    assert window_step(16) == 1


def test_letters_fold_by_one_rule():
    assert folded(b"acgtuURYn") == b"ACGTTTNNN"
    assert set(FOLD) == set(b"ACGTN")
    with pytest.raises(AlphabetError):
        folded(b"AC-T")


def test_a_window_without_context_is_refused():
    with pytest.raises(ConfigError, match="at least 16"):
        check_window(15)
