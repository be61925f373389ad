"""bedGraph is read strictly, by two routes that agree; bigWig is opened only where it is whole."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyBigWig
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.entropies import track_files
from hyena_glt.entropies.bigwig_header import bigwig_contigs
from hyena_glt.entropies.track_files import BedGraphFile, BedGraphParser, BigWigFile, open_track, read_bedgraph
from hyena_glt.errors import AnnotationError, DataError

at_leisure = settings(deadline=None, max_examples=60)  # the first call of a library may take long

HEAD = "# made by hand\nbrowser position c:1-5\ntrack type=bedGraph name=x\n"


def parsed(text: str | bytes) -> dict[str, list[tuple[int, int, float]]]:
    parser = BedGraphParser("t.bg")
    parser.feed(text if isinstance(text, bytes) else text.encode())
    return {
        contig: list(zip(starts.tolist(), ends.tolist(), values.tolist(), strict=True))
        for contig, (starts, ends, values) in parser.finish().items()
    }


intervals = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 5), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    min_size=1,
    max_size=12,
)


@at_leisure
@given(st.dictionaries(st.sampled_from(["chr1", "2", "MT|x", "é"]), intervals, min_size=1))
def test_both_routes_give_what_was_written(by_contig):
    lines, expected = [], {}
    for contig, steps in by_contig.items():
        place, rows = 0, []
        for gap, width, value in steps:
            rows.append((place + gap, place + gap + width, value))
            place += gap + width
        expected[contig] = rows
        lines += [f"{contig}\t{start}\t{end}\t{value!r}\n" for start, end, value in rows]
    text = "".join(lines)
    assert parsed(text) == expected
    assert parsed(HEAD + text) == expected
    assert parsed(text.replace("\t", " ")) == expected  # by the line loop
    assert parsed(text.replace("\n", "\r\n")) == expected
    assert parsed(text.replace("\n", "\n# comment\n\n")) == expected


@at_leisure
@given(st.lists(st.text("c1\t 05.e-+nx#\r", max_size=14), max_size=6).map("\n".join))
def test_the_fast_route_takes_only_what_the_line_loop_takes(text):
    class ByLines(BedGraphParser):
        def _at_once(self, text: bytes) -> bool:
            return False

    results = []
    for kind in (BedGraphParser, ByLines):
        parser = kind("t.bg")
        try:
            parser.feed(f"c\t0\t1\t1\n{text}\nd\t0\t5\t2\n".encode())
            results.append({name: [c.tolist() for c in columns] for name, columns in parser.finish().items()})
        except AnnotationError as problem:
            results.append(str(problem))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("c\t0\t1\n", "t.bg:1: expected 4 columns"),
        ("c\t0\t1\t2\tx\n", "expected 4 columns (contig, start, end, value), got 5"),
        ("c\t0\t1\tnan\n", "value: expected a finite number, got 'nan'"),
        ("c\t0\t1\tinf\n", "finite number"),
        ("c\t0\t1\t1e39\n", "finite number, got '1e39'"),
        ("c\t0\t1\t\n", "finite number, got ''"),
        ("c\t0\t1\t1_0\n", "finite number"),
        ("c\t0\t1\t1\nc\t-1\t1\t1\n", "t.bg:2: start: expected a whole number, got '-1'"),
        ("c\t0x1\t2\t1\n", "start: expected a whole number"),
        ("c\t0\t1.0\t1\n", "end: expected a whole number"),
        ("c\t5\t5\t1\n", "expected start < end, got 5 and 5"),
        ("c\t0\t4\t1\nc\t3\t5\t1\n", "t.bg:2: start 3 is before the end 4 of the interval above"),
        ("c\t0\t4\t1\nd\t0\t1\t1\nc\t6\t7\t1\n", "t.bg:3: contig 'c' comes back"),
        ("\t0\t4\t1\n", "contig: expected a name"),
        ("c\x01\t0\t4\t1\n", "contig: expected a name"),
        ("c\t0\t4\t1\ntrack name=y\n", "t.bg:2: a second track begins here"),
        ("track type=wiggle_0\nc\t0\t4\t1\n", "wiggle, expected bedGraph"),
        ("fixedStep chrom=c start=1 step=1\n1\n", "wiggle, expected bedGraph"),
        ("\ufeffc\t0\t4\t1\n", "byte-order mark"),
        ("# only words\n\n", "no interval"),
        ("", "no interval"),
        (b"c\xff\t0\t4\t1\n", "not UTF-8"),
        ("c\t0\t4\t1\rc\t4\t5\t1\n", "expected 4 columns"),
        (f"c\t0\t{10**19}\t1\n", "end: expected a whole number"),
    ],
)
def test_faults_are_named_with_their_line(text, words):
    with pytest.raises(AnnotationError) as caught:
        parsed(text)
    assert words in str(caught.value)


def test_blocks_of_text_join(tmp_path, monkeypatch):
    rows = "".join(f"c{i // 400}\t{i}\t{i + 1}\t{i / 8}\n" for i in range(1200))
    plain, packed = tmp_path / "a.bg", tmp_path / "a.bg.gz"
    plain.write_text(HEAD + rows.rstrip("\n"))
    packed.write_bytes(gzip.compress((HEAD + rows).encode()))
    whole = read_bedgraph(plain)
    for size in (50, 333, 4096):
        monkeypatch.setattr(track_files, "READ_BYTES", size)
        for path in (plain, packed):
            again = read_bedgraph(path)
            assert list(again) == list(whole) == ["c0", "c1", "c2"]
            for contig in whole:
                assert all(np.array_equal(a, b) for a, b in zip(whole[contig], again[contig], strict=True))
    monkeypatch.setattr(track_files, "READ_BYTES", 50)
    plain.write_text(HEAD + rows + "c2\t5\t6\t1\n")
    with pytest.raises(AnnotationError, match=r"a\.bg:1204: start 5 is before"):
        read_bedgraph(plain)


def test_coordinates_beyond_32_bits(tmp_path):
    path = tmp_path / "far.bg"
    path.write_text(f"c\t0\t3\t1\nc\t{2**31 + 5}\t{2**31 + 7}\t2\n")
    track = BedGraphFile(str(path))
    assert np.array_equal(track.values("c", 2**31 + 4, 2**31 + 8), [np.nan, 2, 2, np.nan], equal_nan=True)
    assert track.last_before("c", 2**31 + 5) == 1


@at_leisure
@given(st.integers(0, 40), st.integers(0, 40))
def test_stretches_of_a_bedgraph(tmp_path_factory, first, length):
    path = tmp_path_factory.getbasetemp() / "stretch.bg"
    if not path.exists():
        path.write_text("c\t3\t7\t1\nc\t7\t8\t2\nc\t20\t30\t3\n")
    dense = np.full(100, np.nan, np.float32)
    dense[3:7], dense[7:8], dense[20:30] = 1, 2, 3
    track = BedGraphFile(str(path))
    assert np.array_equal(track.values("c", first, first + length), dense[first : first + length], equal_nan=True)
    before = dense[:first][~np.isnan(dense[:first])]
    assert np.array_equal(track.last_before("c", first), before[-1] if before.size else np.nan, equal_nan=True)


@pytest.fixture(scope="module")
def bigwig(tmp_path_factory):
    path = tmp_path_factory.mktemp("bigwig") / "a.bw"
    file = pyBigWig.open(str(path), "w")
    file.addHeader([("c1", 200_000), ("c2", 50)])
    values = np.random.default_rng(0).random(100_000).astype(np.float32)
    file.addEntries("c1", 10, values=values, span=1, step=1)
    file.addEntries(["c2"], [0], ends=[3], values=[2.5])
    file.close()
    return path


def test_a_bigwig_is_read_as_the_library_reads_it(bigwig):
    track = open_track(bigwig)
    assert isinstance(track, BigWigFile)
    assert dict(track.lengths) == {"c1": 200_000, "c2": 50}
    oracle = pyBigWig.open(str(bigwig)).values("c1", 0, 200_000, numpy=True)
    for start, end in ((0, 200_000), (65_000, 66_000), (99_999, 150_001), (7, 7)):
        assert np.array_equal(track.values("c1", start, end), oracle[start:end], equal_nan=True)
    assert track.last_before("c1", 200_000) == oracle[100_009]
    assert track.last_before("c1", 12) == oracle[11]
    assert np.isnan(track.last_before("c1", 10))
    again = pickle.loads(pickle.dumps(track))  # as processes that are spawned take it
    assert np.array_equal(again.values("c2", 0, 5), track.values("c2", 0, 5), equal_nan=True)


@pytest.mark.parametrize("size", [4, 40, 64, 600, 1000, 20_000, -1])
def test_a_bigwig_that_is_cut_short_is_refused(bigwig, tmp_path, size):
    path = tmp_path / "cut.bw"
    path.write_bytes(bigwig.read_bytes()[:size])
    with pytest.raises(AnnotationError, match=r"cut\.bw: truncated or damaged bigWig"):
        open_track(path)


@at_leisure
@given(st.integers(0, 420), st.integers(0, 7))
def test_a_damaged_bigwig_header_is_refused_or_harmless(bigwig, tmp_path_factory, place, bit):
    content = bytearray(bigwig.read_bytes())
    content[place] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "damaged.bw"
    path.write_bytes(content)
    with suppress(AnnotationError):
        assert len(bigwig_contigs(str(path))) == 2


def test_the_file_that_comes_with_the_library(tmp_path):
    package = pytest.importorskip("pyBigWigTest")
    path = next(Path(package.__path__[0]).glob("test.bw"))
    oracle, track = pyBigWig.open(str(path)), open_track(path)
    assert dict(track.lengths) == oracle.chroms()
    for contig, length in oracle.chroms().items():
        end = min(length, 200_000)
        assert np.array_equal(track.values(contig, 0, end), oracle.values(contig, 0, end, numpy=True), equal_nan=True)


def test_a_forked_process_reads_on_its_own(bigwig):
    script = f"""
import os
from hyena_glt.entropies.track_files import open_track

track = open_track({str(bigwig)!r})
expected = [track.values("c1", start, start + 500).tobytes() for start in range(10, 90_000, 997)]
child = os.fork()
found = [track.values("c1", start, start + 500).tobytes() for _ in range(3) for start in range(10, 90_000, 997)]
same = found == 3 * expected
if not child:
    os._exit(0 if same else 1)
assert same and os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_many_contigs_take_a_deeper_tree(tmp_path):
    file = pyBigWig.open(str(tmp_path / "many.bw"), "w")
    lengths = [(f"scaffold_{number}", 100 + number) for number in range(3000)]
    file.addHeader(lengths)
    file.addEntries(["scaffold_7"], [5], ends=[7], values=[1.0])
    file.close()
    assert list(open_track(tmp_path / "many.bw").lengths.items()) == lengths


def test_a_bigwig_without_data(tmp_path):
    file = pyBigWig.open(str(tmp_path / "e.bw"), "w")
    file.addHeader([("c1", 100), ("c2", 100)])
    file.addEntries(["c1"], [5], ends=[7], values=[1.0])
    file.close()
    assert np.isnan(open_track(tmp_path / "e.bw").values("c2", 0, 100)).all()


def test_other_files_are_named(tmp_path):
    path = tmp_path / "x.bb"
    path.write_bytes((0x8789F2EB).to_bytes(4, "little") + bytes(60))
    with pytest.raises(AnnotationError, match="bigBed"):
        open_track(path)
    with pytest.raises(DataError, match="no such file"):
        open_track(tmp_path / "none.bw")
    with pytest.raises(DataError, match="no such file"):
        open_track("http://example.org/a.bw")
    path.write_bytes(b"\x00\x01\x02")
    with pytest.raises(AnnotationError, match=r"x\.bb:1: "):
        open_track(path)
