from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AnnotationError, RegionError
from hyena_glt.sequences.intervals import Interval, parse_region, read_bed, resolve

LENGTHS = {"chr1": 1000, "chr2": 50, "HLA-A*01:01": 300, "X": 2**31 + 8}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr1", ("chr1", None, None)),
        ("chr1:1-1000", ("chr1", 0, 1000)),
        ("chr1:1-1,000", ("chr1", 0, 1000)),
        ("chr1:1,000", ("chr1", 999, None)),
        ("chr1:5-", ("chr1", 4, None)),
        ("chr1:-5", ("chr1", None, 5)),
        ("chr1:7-7", ("chr1", 6, 7)),
        ("{HLA-A*01:01}:2-3", ("HLA-A*01:01", 1, 3)),
        ("{a:1-2}", ("a:1-2", None, None)),
        ("X:2,147,483,650-2147483656", ("X", 2147483649, 2147483656)),
    ],
)
def test_region_strings_count_from_one_and_include_their_end(text, expected):
    assert parse_region(text) == expected


def test_names_with_a_colon_are_recognised_among_the_names():
    assert parse_region("HLA-A*01:01", LENGTHS) == ("HLA-A*01:01", None, None)
    assert parse_region("HLA-A*01:01:5-6", LENGTHS) == ("HLA-A*01:01", 4, 6)


def test_a_region_that_reads_in_two_ways_is_refused():
    with pytest.raises(RegionError, match=r"write \{chr1:1-5\} or \{chr1\}:1-5"):
        parse_region("chr1:1-5", ["chr1", "chr1:1-5"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "without a contig name"),
        (":1-5", "without a contig name"),
        ("chr1:", "expected CONTIG"),
        ("chr1:-", "expected CONTIG"),
        ("chr1:a-b", "expected CONTIG"),
        ("chr1:1-2-3", "expected CONTIG"),
        ("chr1:1..5", "expected CONTIG"),
        ("chr1:0-5", "starts at 0, but region strings count from 1"),
        ("chr1:5-4", "the end 4 comes before the start 5"),
        ("chr1:-0", "the end 0 comes before the start 1"),
        ("chr1:1-" + "9" * 5000, "expected CONTIG"),
        ("chr1:\uff11-5", "expected CONTIG"),
    ],
)
def test_malformed_regions_are_refused(text, words):
    with pytest.raises(RegionError, match=words) as caught:
        parse_region(text)
    assert len(str(caught.value)) < 300


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_an_interval_is_written_as_the_region_that_reads_as_it(start, length):
    interval = Interval("chr1", start, start + length)
    assert parse_region(str(interval)) == ("chr1", start, start + length)
    assert interval.length == length


def test_resolved_regions_lie_on_their_contig():
    assert resolve("chr1", LENGTHS) == Interval("chr1", 0, 1000)
    assert resolve("chr2:41-50", LENGTHS) == Interval("chr2", 40, 50)
    assert resolve("chr2:50", LENGTHS) == Interval("chr2", 49, 50)
    assert resolve("X:2147483656", LENGTHS) == Interval("X", 2**31 + 7, 2**31 + 8)


@pytest.mark.parametrize("text", ["chr2:41-51", "chr2:51", "chr2:51-", "chr2:60-70", "chr2:-51"])
def test_past_the_end_is_an_error_and_no_clip(text):
    with pytest.raises(RegionError, match="past the end of the contig, which has 50 bases"):
        resolve(text, LENGTHS)


def test_unknown_contigs_are_met_with_the_nearest_name():
    with pytest.raises(RegionError, match="unknown contig '1'; did you mean 'chr1'"):
        resolve("1:1-5", LENGTHS)
    with pytest.raises(RegionError, match="unknown contig 'chrX'; did you mean 'X'"):
        resolve("chrX", LENGTHS)
    with pytest.raises(RegionError, match="unknown contig 'plasmid_q'; there are 4 contigs"):
        resolve("plasmid_q", LENGTHS)


def test_intervals_are_checked_and_sort_along_the_genome():
    assert sorted([Interval("b", 0, 1), Interval("a", 5, 6), Interval("a", 0, 9)])[0] == Interval("a", 0, 9)
    for start, end in ((-1, 5), (5, 4)):
        with pytest.raises(RegionError, match="0 <= start <= end"):
            Interval("a", start, end)


BED = b"# comment\ntrack name=x\nbrowser position chr1\n\nchr1\t0\t10\nchr2\t5\t6\tname\t0\t+\n"


@pytest.mark.parametrize(
    "content",
    [BED, gzip.compress(BED), BED.replace(b"\n", b"\r\n"), BED.rstrip()],
    ids=["plain", "gzip", "CRLF", "no last newline"],
)
def test_bed_counts_from_zero(tmp_path, content):
    (tmp_path / "x.bed").write_bytes(content)
    assert read_bed(tmp_path / "x.bed") == [Interval("chr1", 0, 10), Interval("chr2", 5, 6)]


def test_bed_columns_may_be_parted_by_spaces(tmp_path):
    (tmp_path / "x.bed").write_bytes(b"chr1  0 10\n")
    assert read_bed(tmp_path / "x.bed") == [Interval("chr1", 0, 10)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"chr1\t5", "expected 3 or more columns .* got 2"),
        (b"chr1", "got 1"),
        (b"chr1\t5\tx", "expected a whole number >= 0, got 'x'"),
        (b"chr1\t-5\t8", "expected a whole number >= 0, got '-5'"),
        (b"chr1\t1.5\t8", "got '1.5'"),
        (b"chr1\t8\t5", "expected start < end .* got 8 and 5"),
        (b"chr1\t5\t5", "expected start < end"),
        (b"\t5\t6", "expected a contig name"),
        (b"ch\x1br\t5\t6", "expected a contig name"),
        (b"chr1\t1\t" + b"9" * 5000, "expected a whole number"),
    ],
)
def test_lines_that_are_no_bed_are_refused_with_their_number(tmp_path, line, words):
    (tmp_path / "x.bed").write_bytes(b"chr1\t0\t10\n" + line + b"\n")
    with pytest.raises(AnnotationError, match=words) as caught:
        read_bed(tmp_path / "x.bed")
    assert caught.value.line == 2


def test_a_bed_without_intervals_is_refused(tmp_path):
    (tmp_path / "x.bed").write_bytes(b"# nothing\n")
    with pytest.raises(AnnotationError, match="no interval"):
        read_bed(tmp_path / "x.bed")


@pytest.mark.parametrize(("name", "line"), [("nucleus_malformed.bed", 4), ("pyfaidx_malformed.bed", 1)])
def test_real_malformed_beds_are_refused(data, name, line):
    with pytest.raises(AnnotationError, match="expected 3 or more columns") as caught:
        read_bed(data(f"malformed/{name}"))
    assert caught.value.line == line
