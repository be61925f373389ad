from __future__ import annotations

import gzip
import os
import subprocess
import sys

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import DataError, RegionError, SequenceFormatError, SystemProblem
from hyena_glt.sequences import faidx, indexed_fasta
from hyena_glt.sequences.fasta import IndexedFasta, Record, has_fresh_index, read_records, write_fasta
from hyena_glt.sequences.intervals import Interval

FASTA = b">chr1 first\nACGTacgtNN\nTTTTTTTTTT\nGG\n>chr2\nAC\n\n"


@pytest.fixture
def write(tmp_path):
    def put(content: bytes, name: str = "x.fa"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return put


def bgzip(path):
    packed = path.with_suffix(path.suffix + ".gz")
    pysam.tabix_compress(str(path), str(packed), force=True)
    return packed


def test_intervals_are_fetched_with_their_case(write):
    with IndexedFasta(write(FASTA)) as genome:
        assert genome.names == ["chr1", "chr2"]
        assert genome.lengths == {"chr1": 22, "chr2": 2}
        assert genome.length("chr1") == 22
        assert genome.fetch(Interval("chr1", 4, 13)) == b"acgtNNTTT"
        assert genome.fetch(Interval("chr1", 20, 22)) == b"GG"
        assert genome.fetch(Interval("chr2", 0, 2)) == b"AC"
        assert genome.fetch(Interval("chr1", 22, 22)) == b""


@given(
    st.lists(st.text("ACGTNacgt", min_size=1, max_size=60).map(str.encode), min_size=1, max_size=4),
    st.integers(1, 70),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.data(),
)
def test_what_is_fetched_is_the_slice_of_the_record(tmp_path_factory, rows, width, end, packed, draw):
    folder = tmp_path_factory.mktemp("slices")
    path = folder / "x.fa"
    write_fasta(path, [Record(f"r{i}", "", row, 0) for i, row in enumerate(rows)], width)
    path.write_bytes(path.read_bytes().replace(b"\n", end))
    which = draw.draw(st.integers(0, len(rows) - 1))
    start = draw.draw(st.integers(0, len(rows[which])))
    stop = draw.draw(st.integers(start, len(rows[which])))
    with IndexedFasta(bgzip(path) if packed else path) as genome:
        assert genome.fetch(Interval(f"r{which}", start, stop)) == rows[which][start:stop]


@pytest.mark.parametrize("packed", [False, True])
def test_a_real_genome_gives_the_same_bases_as_reading_it_through(data, tmp_path, packed):
    (record,) = read_records(data("genomes/mgenitalium_NC_000908.2.fa.gz"))
    path = tmp_path / "x.fa"
    write_fasta(path, [record], 70)
    with IndexedFasta(bgzip(path) if packed else path) as genome:
        for start in range(0, 580_000, 17_777):
            interval = Interval(record.name, start, min(start + 70_001, 580_076))
            assert genome.fetch(interval) == record.sequence[interval.start : interval.end]


def test_past_the_end_and_unknown_contigs_are_errors_and_no_clips(write):
    with IndexedFasta(write(FASTA)) as genome:
        with pytest.raises(RegionError, match="'chr2:1-3': past the end of the contig, which has 2 bases"):
            genome.fetch(Interval("chr2", 0, 3))
        with pytest.raises(RegionError, match="unknown contig 'chr3'; did you mean"):
            genome.fetch(Interval("chr3", 0, 1))
        with pytest.raises(RegionError, match="unknown contig '1'; did you mean 'chr1'"):
            genome.length("1")


def test_a_contig_beyond_two_to_the_31_is_exact(tmp_path):
    path, size = tmp_path / "x.fa", 2**31 + 8
    with path.open("wb") as file:  # the hole in the middle takes no room on the disk
        file.write(b">x\n")
        file.seek(3 + size - 16)
        file.write(b"AACCGGTTACGTACGA\n")
    (tmp_path / "x.fa.fai").write_text(f"x\t{size}\t3\t{size}\t{size + 1}\n")
    with IndexedFasta(path) as genome:
        assert genome.length("x") == size
        assert genome.fetch(Interval("x", size - 8, size)) == b"ACGTACGA"
        with pytest.raises(RegionError):
            genome.fetch(Interval("x", size - 8, size + 1))


def test_plain_gzip_is_refused_with_the_way_out(write):
    path = write(gzip.compress(FASTA), "x.fa.gz")
    with pytest.raises(SequenceFormatError, match=r"x\.fa\.gz: plain gzip cannot be indexed; .* bgzip"):
        IndexedFasta(path)
    assert not has_fresh_index(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b">a\nACGT\nAC\nACGT\n", r"x\.fa:4: cannot be indexed: lines of a record differ in length"),
        (b">a\nAC\nACGT\n", r"x\.fa:3: cannot be indexed"),
        (b">a\nAC\n>a\nAC\n", r"x\.fa:3: duplicate name 'a'"),
        (b">a\n>b\nAC\n", r"x\.fa:1: record 'a' has no sequence"),
        (b"@a\nAC\n+\nII\n", "a FASTQ file cannot be indexed"),
        (b"", "no sequence"),
    ],
)
def test_what_cannot_be_indexed_is_refused_and_leaves_no_index(write, tmp_path, capfd, content, words):
    with pytest.raises(DataError, match=words):
        IndexedFasta(write(content))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.fa"]
    assert capfd.readouterr() == ("", "")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="missing: no such file"):
        IndexedFasta(tmp_path / "missing")
    with pytest.raises(DataError, match="is a directory"):
        IndexedFasta(tmp_path)
    with pytest.raises(DataError, match="standard input cannot be indexed"):
        IndexedFasta("-")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="a pipe or device cannot be indexed"):
        IndexedFasta(tmp_path / "fifo")
    assert not has_fresh_index("-")
    assert not has_fresh_index(tmp_path / "fifo")


def test_the_index_is_htslibs_and_is_kept_beside_the_file(write):
    path = write(FASTA)
    assert not has_fresh_index(path)
    IndexedFasta(path).close()
    assert has_fresh_index(path)
    assert (path.parent / "x.fa.fai").read_text() == "chr1\t22\t12\t10\t11\nchr2\t2\t43\t2\t3\n"
    with pysam.FastaFile(str(path)) as file:
        assert file.fetch("chr1", 4, 13) == "acgtNNTTT"


def test_a_fresh_index_is_used_as_it_is(write, monkeypatch):
    path = write(FASTA)
    IndexedFasta(path).close()
    monkeypatch.setattr(faidx, "_build_index", None)
    with IndexedFasta(path) as genome:
        assert genome.length("chr1") == 22


@pytest.mark.parametrize("packed", [False, True])
def test_an_index_older_than_its_file_is_built_anew(write, packed):
    path = write(FASTA)
    target = bgzip(path) if packed else path
    IndexedFasta(target).close()
    path.write_bytes(FASTA.replace(b">chr1 first\n", b">chr1 now longer\n"))
    target = bgzip(path) if packed else path
    os.utime(target, ns=(0, os.stat(f"{target}.fai").st_mtime_ns + 1))
    assert not has_fresh_index(target)
    with IndexedFasta(target) as genome:
        assert genome.fetch(Interval("chr1", 0, 4)) == b"ACGT"


@pytest.mark.parametrize(
    "text",
    ["", "chr1\t22\n", "chr1\tx\t12\t10\t11\n", "chr1\t22\t12\t10\t10\n", "chr1\t22\t12\t0\t1\n",
     "chr1\t99\t12\t10\t11\n", "chr1\t22\t12\t10\t11\n", "chr1\t22\t12\t10\t11\nchr1\t2\t43\t2\t3\n",
     "chr1\t-22\t12\t10\t11\nchr2\t2\t43\t2\t3\n", "\xff"],
)  # fmt: skip
def test_an_index_that_is_damaged_or_does_not_fit_is_built_anew(write, text):
    path = write(FASTA)
    (path.parent / "x.fa.fai").write_text(text, encoding="latin-1")
    with IndexedFasta(path) as genome:
        assert genome.lengths == {"chr1": 22, "chr2": 2}
        assert genome.fetch(Interval("chr2", 0, 2)) == b"AC"


def test_an_index_that_lies_about_the_lines_is_noticed_when_fetching(write):
    path = write(b">chr1\nACGT\nACGT\n>chr2\nACGT\n")
    (path.parent / "x.fa.fai").write_text("chr1\t8\t6\t8\t9\nchr2\t4\t22\t4\t5\n")
    with IndexedFasta(path) as genome, pytest.raises(DataError, match=r"x\.fa\.fai .*delete it"):
        genome.fetch(Interval("chr1", 0, 8))


def test_a_damaged_gzi_is_built_anew(write):
    path = bgzip(write(FASTA))
    IndexedFasta(path).close()
    for content in (b"", b"\xff" * 9, (5).to_bytes(8, "little")):
        (path.parent / "x.fa.gz.gzi").write_bytes(content)
        with IndexedFasta(path) as genome:
            assert genome.fetch(Interval("chr2", 0, 2)) == b"AC"


def test_a_read_only_folder_works_without_an_index_on_disk(write, monkeypatch):
    path = write(FASTA)

    def refuse(*args, **options):
        raise SystemProblem("read-only")

    monkeypatch.setattr(faidx, "atomic_write", refuse)
    with IndexedFasta(path) as genome:
        assert genome.fetch(Interval("chr1", 0, 4)) == b"ACGT"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.fa"]


def test_a_file_that_changes_while_it_is_indexed_is_refused(write, monkeypatch):
    path = write(FASTA)
    real = faidx._run_faidx

    def change(*args):
        real(*args)
        path.write_bytes(FASTA + b">chr3\nA\n")

    monkeypatch.setattr(faidx, "_run_faidx", change)
    with pytest.raises(DataError, match="the file changed while it was being indexed"):
        IndexedFasta(path)


def test_an_input_error_is_a_problem_of_the_system(write, monkeypatch):
    class Failing:
        def seek(self, place):
            raise OSError(5, "Input/output error")

        def close(self):
            pass

    with IndexedFasta(write(FASTA)) as genome:
        real, genome._file = genome._file, Failing()  # type: ignore[assignment]
        with pytest.raises(SystemProblem, match=r"x\.fa: cannot read: Input/output error"):
            genome.fetch(Interval("chr1", 0, 4))
        real.close()


COLD = """
import sys
from hyena_glt.sequences.fasta import IndexedFasta
from hyena_glt.sequences.intervals import Interval
sys.stdin.readline()
with IndexedFasta(sys.argv[1]) as genome:
    print(sum(genome.fetch(Interval(name, 5, 9)) == b"CGTA" for name in genome.names))
"""


@pytest.mark.parametrize("packed", [False, True])
def test_many_processes_may_start_cold_on_the_same_file(write, packed):
    path = write(b"".join(b">c%d\n%s\n" % (i, b"ACGTACGTAC" * 6) for i in range(500)))
    target = bgzip(path) if packed else path
    started = [
        subprocess.Popen(
            [sys.executable, "-c", COLD, str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in started] == ["500\n"] * 4
    sides = {"x.fa.gz", "x.fa.gz.fai", "x.fa.gz.gzi"} if packed else {"x.fa.fai"}
    assert {entry.name for entry in path.parent.iterdir()} == {"x.fa", *sides}


def test_the_public_name_is_the_class():
    assert IndexedFasta is indexed_fasta.IndexedFasta
