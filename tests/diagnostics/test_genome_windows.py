"""Windows are evenly spaced, within contigs, and hold what the genome holds there."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.diagnostics.genome_windows import cut_spans, genome_windows, spread_spans
from hyena_glt.sequences.alphabets import get_alphabet
from hyena_glt.sequences.records import Block
from hyena_glt.sequences.simulate import generate_random_genomic_sequence

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=6)


def blocks_of(contigs, size):
    for number, contig in enumerate(contigs):
        for start in range(0, len(contig), size):
            part = contig[start : start + size]
            yield Block(f"c{number}", "", start, part, start + size >= len(contig), 1)


def contigs_of(lengths):
    return [generate_random_genomic_sequence(length, seed=i).encode() for i, length in enumerate(lengths)]


@given(LENGTHS, st.integers(1, 60), st.integers(1, 20))
def test_spans_lie_within_contigs_and_apart(lengths, window, count):
    spans = spread_spans(lengths, window, count)
    room = sum(length // window for length in lengths)
    assert len(spans) == min(room, count)
    assert all(span.start >= 0 and span.end - span.start == window for span in spans)
    assert all(span.end <= lengths[span.contig] for span in spans)
    assert all((a.contig, a.end) <= (b.contig, b.start) for a, b in pairwise(spans))


@given(LENGTHS, st.integers(1, 60), st.integers(1, 20), st.integers(1, 70))
def test_blocks_of_any_size_give_the_same_windows(lengths, window, count, size):
    contigs = contigs_of(lengths)
    spans = spread_spans(lengths, window, count)
    found = cut_spans(blocks_of(contigs, size), spans)
    assert found == [contigs[span.contig][span.start : span.end] for span in spans]


def test_short_contigs_go_whole_where_that_is_allowed():
    assert spread_spans([5, 9, 7], 50, 10) == []
    spans = spread_spans([5, 0, 7], 50, 10, whole_only=False)
    assert [(span.contig, span.start, span.end) for span in spans] == [(0, 0, 5), (2, 0, 7)]


def test_one_window_is_from_the_middle():
    (span,) = spread_spans([1000], 100, 1)
    assert 400 <= span.start <= 500


def test_windows_of_n_are_passed_over():
    contigs = [b"N" * 700 + b"ACGTT" * 60]
    found = genome_windows(blocks_of(contigs, 128), get_alphabet("dna"), [1000], 100, 3)
    assert len(found) == 3
    assert all(b"N" not in window for window in found)
    assert genome_windows(blocks_of([b"N" * 500], 128), get_alphabet("dna"), [500], 100, 3) == []
