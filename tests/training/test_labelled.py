"""Labelled tables and regions: what is read, and every fault with its line."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import AlphabetError, AnnotationError, ConfigError, DataError, RegionError
from hyena_glt.sequences import reverse_complement
from hyena_glt.training.labelled import (
    LabelledRows,
    encode_labels,
    read_regions,
    read_table,
    separator_of,
    sorted_classes,
)


@pytest.fixture
def table(tmp_path):
    """`table(text, name="t.tsv")` writes a file."""

    def write(text: str, name: str = "t.tsv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def rows_of(labels: list[str], sequences: list[bytes] | None = None) -> LabelledRows:
    given_sequences = sequences or [b"ACGT"] * len(labels)
    lines = tuple(range(2, 2 + len(labels)))
    return LabelledRows(path="t.tsv", sequences=tuple(given_sequences), labels=tuple(labels), lines=lines)


def test_columns_are_found_by_name_and_letters_are_upper_case(table):
    path = table("id\tlabel\tsequence\nx\tyes\tacgN\n\ny\t no \tGG\n")
    rows = read_table(path)
    assert rows == LabelledRows(path=str(path), sequences=(b"ACGN", b"GG"), labels=("yes", "no"), lines=(2, 4))
    assert read_table(path, label_column="id").labels == ("x", "y")
    assert read_table(path, alphabet="bytes").sequences == (b"acgN", b"GG")


def test_a_quoted_csv_and_a_gzipped_table_read_the_same(table, tmp_path):
    plain = table('sequence,label\n"ACGT","a, ""b"""\nAC,c\n', "t.csv")
    packed = tmp_path / "t.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        rows = read_table(path)
        assert (rows.sequences, rows.labels) == ((b"ACGT", b"AC"), ('a, "b"', "c"))


def test_a_field_may_be_longer_than_the_csv_module_allows(table):
    assert len(read_table(table(f"sequence\tlabel\n{'ACGT' * 50_000}\ta\n")).sequences[0]) == 200_000


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "no column 'sequence'"),
        ("sequence\tlabel\n", None, "no labelled row"),
        ("seqence\tlabel\nAC\t1\n", 1, "did you mean 'seqence'"),
        ("sequence\tlabel\tlabel\nAC\t1\t2\n", 1, "more than once"),
        ("sequence\tlabel\nAC\t1\nAC\n", 3, "expected 2 columns"),
        ("sequence\tlabel\n\t1\n", 2, "the sequence is empty"),
        ("sequence\tlabel\nAC\t \n", 2, "column 'label' is empty"),
        ("sequence\tlabel\nAC\t1\n\nAZ\t1\n", 4, "position 2: expected a dna symbol"),
        ('sequence\tlabel\n"AC\t1\n', 2, "damaged quotes"),
        ("sequence\tlabel\nAC\ta\x07b\n", 2, "printable"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(table, text, line, words):
    path = table(text)
    with pytest.raises(DataError, match=words) as caught:
        read_table(path)
    assert caught.value.line == (1 if text == "" else line)
    assert str(path) in str(caught.value)


def test_the_separator_comes_from_the_suffix_or_is_one_character():
    found = [separator_of(*words) for words in (("a.tsv.gz", None), ("a.csv", None), ("-", None), ("a", "semicolon"))]
    assert found == ["\t", ",", "\t", ";"]
    for path, wanted in (("a.data", None), ("a.tsv", "ab"), ("a.tsv", '"')):
        with pytest.raises(ConfigError):
            separator_of(path, wanted)


def test_regions_come_from_the_genome_and_the_reverse_strand_is_complemented(table):
    genome = table(">c\nAACCGGTTAACC\nGGTA\n", "g.fa")
    bed = table("# x\nc\t0\t4\tpos\t0\t+\nc\t10\t15\tneg\t0\t-\nc\t1\t3\tpos\n", "r.bed")
    rows = read_regions(bed, genome)
    assert rows.sequences == (b"AACC", reverse_complement(b"CCGGT"), b"AC")
    assert (rows.labels, rows.lines) == (("pos", "neg", "pos"), (2, 3, 4))
    assert read_regions(table("c\t0\t4\tn\t7\n", "s.bed"), genome, label_column=5).labels == ("7",)


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("c\t0", AnnotationError, "contig, start and end"),
        ("c\t4\t4\tx", AnnotationError, "start < end"),
        ("c\t0\t99\tx", RegionError, "past the end"),
        ("d\t0\t1\tx", RegionError, "unknown contig"),
        ("c\t0\t2\tx\t0\t*", AnnotationError, "strand"),
        ("c\t0\t2", DataError, "expected a label"),
    ],
)
def test_a_bad_region_is_refused_with_its_line(table, line, kind, words):
    genome, bed = table(">c\nAACCGGTT\n", "g.fa"), table(f"c\t0\t2\tx\n{line}\n", "r.bed")
    with pytest.raises(kind, match=words) as caught:
        read_regions(bed, genome)
    assert (caught.value.path, caught.value.line) == (str(bed), 2)
    with pytest.raises(ConfigError, match="from 4"):
        read_regions(bed, genome, label_column=3)


def test_classes_are_sorted_and_labels_are_their_places():
    labelled = encode_labels(rows_of(["b", "a", "b"]), "classification")
    assert labelled.classes == ("a", "b")
    assert [int(label) for label in labelled.labels] == [1, 0, 1]
    with pytest.raises(DataError, match=r"t.tsv:3: label: unknown class 'a'"):
        encode_labels(rows_of(["b", "a"]), "classification", ("b", "c"))
    with pytest.raises(DataError, match="at least two classes"):
        encode_labels(rows_of(["b", "b"]), "classification")


def test_a_regression_has_finite_numbers():
    assert [float(label) for label in encode_labels(rows_of(["1e3", "-2"]), "regression").labels] == [1000.0, -2.0]
    for text in ("x", "nan", "inf"):
        with pytest.raises(DataError, match=r"t.tsv:3: label: expected a finite number"):
            encode_labels(rows_of(["1", text]), "regression")


def test_labels_of_bases_are_symbols_or_numbers():
    labelled = encode_labels(rows_of(["(.)?", "...("]), "per-base")
    assert labelled.classes == ("(", ")", ".")
    assert [label.tolist() for label in labelled.labels] == [[0, 2, 1, -1], [2, 2, 2, 0]]
    labelled = encode_labels(rows_of(["10,9,-1,10", "9, 9,9,9"]), "per-base")
    assert labelled.classes == ("9", "10")
    assert [label.tolist() for label in labelled.labels] == [[1, 0, -1, 1], [0, 0, 0, 0]]
    for bad, words in (
        ("01", "expected 4 labels, one per base, got 2"),
        ("1,2,x,1", "whole numbers"),
        ("1,2", "got 2"),
    ):
        with pytest.raises(DataError, match=words):
            encode_labels(rows_of(["0101", bad]), "per-base")
    with pytest.raises(ConfigError, match="task"):
        encode_labels(rows_of(["0"]), "clustering")


@given(st.lists(st.text("ab?01", min_size=4, max_size=4), min_size=1))
def test_labels_of_bases_round_trip(texts):
    rows = rows_of(texts)
    if len(sorted_classes(set("".join(texts)))) < 2:
        with pytest.raises(DataError):
            encode_labels(rows, "per-base")
        return
    labelled = encode_labels(rows, "per-base")
    names = np.array([*labelled.classes, "?"])
    assert ["".join(names[label]) for label in labelled.labels] == texts


def test_real_tables_are_read(data):
    rows = read_table(data("classification/ecoli_promoter.tsv.gz"), sequence_column="seq")
    labelled = encode_labels(rows, "classification")
    assert labelled.classes == ("0", "1")
    assert sorted(np.bincount(np.stack(labelled.labels)).tolist()) == [839, 3000]
    with pytest.raises(AlphabetError, match=r"ecoli_promoter.tsv.gz:2"):
        read_table(data("classification/ecoli_promoter.tsv.gz"), sequence_column="id")
