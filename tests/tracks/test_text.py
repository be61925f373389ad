"""The line writers against Python's own formatting."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.tracks.text import bed9_lines, bed9_room, bedgraph_lines, bedgraph_room, put_fixed, put_integer

names = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=0x3FF), min_size=1, max_size=30)


@settings(deadline=None)
@given(st.integers(-(2**62), 2**63 - 1))
def test_integers_are_written_as_python_does(value):
    out = np.zeros(32, np.uint8)
    end = put_integer(out, 0, np.int64(value))
    assert out[:end].tobytes().decode() == str(value)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 6))
def test_fixed_point_numbers_are_right_to_the_last_decimal(value, decimals):
    out = np.zeros(40, np.uint8)
    end = put_fixed(out, 0, np.float64(value), decimals)
    text = out[:end].tobytes().decode()
    assert len(text.partition(".")[2]) == decimals
    assert abs(float(text) - value) <= 0.5 * 10**-decimals + 2 * math.ulp(value)


@settings(deadline=None, max_examples=50)
@given(
    names,
    st.integers(0, 2**40),
    st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 1000)), max_size=20),
    st.integers(0, 10**9),
)
def test_bed9_lines_equal_formatted_text(name, start, patches, first_number):
    contig = np.frombuffer(name.encode(), np.uint8)
    lengths = np.array([p[0] for p in patches], np.int64)
    scores = np.array([p[1] for p in patches], np.int64)
    colours = np.array([list(b"000,000,000"), list(b"255,255,255")], np.uint8)
    out = np.zeros(bed9_room(contig, len(patches), 11), np.uint8)
    used = bed9_lines(out, contig, start, lengths, first_number, scores, colours)
    expected, at = [], start
    for i, (length, score) in enumerate(patches):
        rgb = "000,000,000" if score < 500 else "255,255,255"
        fields = (name, at, at + length, first_number + i, score, ".", at, at + length, rgb)
        expected.append("\t".join(map(str, fields)) + "\n")
        at += length
    assert out[:used].tobytes().decode() == "".join(expected)


@settings(deadline=None, max_examples=50)
@given(names, st.lists(st.tuples(st.integers(0, 2**40), st.floats(0, 100, width=32)), max_size=20))
def test_bedgraph_lines_can_be_read_back(name, rows):
    contig = np.frombuffer(name.encode(), np.uint8)
    starts = np.array([r[0] for r in rows], np.int64)
    values = np.array([r[1] for r in rows], np.float32)
    out = np.zeros(bedgraph_room(contig, len(rows), 6), np.uint8)
    used = bedgraph_lines(out, contig, starts, starts + 1, values, 6)
    lines = out[:used].tobytes().decode().split("\n")[:-1]
    assert len(lines) == len(rows)
    for line, (start, value) in zip(lines, rows, strict=True):
        contig_text, first, last, number = line.split("\t")
        assert (contig_text, int(first), int(last)) == (name, start, start + 1)
        assert abs(float(number) - value) <= 1e-6 + 1e-7 * abs(value)
