from __future__ import annotations

import random

import pytest

from hyena_glt.errors import AnnotationError, DataError
from hyena_glt.sequences.annotations import Feature, read_gff

GFF = (
    b"##gff-version 3\n"
    b"# a comment\n"
    b"chr1\tx\tgene\t1\t30\t.\t+\t.\tID=g1;Name=dna%20A%3B1\n"
    b"chr1\tx\tCDS\t1\t30\t0.5\t-\t2\tID=c1;Parent=g1;\n"
    b"\n"
    b"chr%7C2\tx\texon\t5\t5\t1e-5\t?\t.\t.\n"
    b"###\n"
    b"##FASTA\n>chr1\nACGT\n"
)


@pytest.fixture
def parse(tmp_path):
    def features(content: bytes):
        (tmp_path / "x.gff").write_bytes(content)
        return read_gff(tmp_path / "x.gff")

    return features


def test_features_are_zero_based_half_open_and_decoded(parse):
    expected = [
        Feature("chr1", 0, 30, "+", "gene", "dna A;1", None, 3),
        Feature("chr1", 0, 30, "-", "CDS", "c1", 2, 4),
        Feature("chr|2", 4, 5, "?", "exon", "", None, 6),
    ]
    assert parse(GFF) == expected
    assert parse(GFF.replace(b"\n", b"\r\n")) == expected
    assert parse(GFF.replace(b"##FASTA\n", b"")) == expected


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"chr1\tx\tgene\t1\t30\t.\t+\t.", "expected 9 tab-separated columns, got 8"),
        (b"chr1 x gene 1 30 . + . ID=a", "expected 9 tab-separated columns, got 1"),
        (b"chr1\tx\tgene\t0\t30\t.\t+\t.\tID=a", "expected 1 <= start <= end, got 0 and 30"),
        (b"chr1\tx\tgene\t31\t30\t.\t+\t.\tID=a", "expected 1 <= start <= end, got 31 and 30"),
        (b"chr1\tx\tgene\t-1\t30\t.\t+\t.\tID=a", "start: expected a whole number, got '-1'"),
        (b"chr1\tx\tgene\t1\tx\t.\t+\t.\tID=a", "end: expected a whole number, got 'x'"),
        (b"chr1\tx\tgene\t1\t30\t.\t*\t.\tID=a", r"strand: expected \+ - \. or \?, got '\*'"),
        (b"chr1\tx\tgene\t1\t30\t.\t+\t3\tID=a", "phase: expected 0, 1, 2 or ., got '3'"),
        (b"chr1\tx\tgene\t1\t30\tgood\t+\t.\tID=a", "score: expected a number or ., got 'good'"),
        (b"\tx\tgene\t1\t30\t.\t+\t.\tID=a", "the contig is missing"),
        (b"chr1\tx\t.\t1\t30\t.\t+\t.\tID=a", "the type .* is missing"),
        (b"chr1\tx\tgene\t1\t30\t.\t+\t.\tnothing", "attributes: expected key=value"),
        (b'chr1\tx\tgene\t1\t30\t.\t+\t.\tgene_id "a"; x "b"', "is this GTF"),
        (b"chr1\tx\tgene\t1\t30\t.\t+\t.\tName=a%1B%5B31m", r"control character in the name 'a\\x1b\[31m'"),
        (b"chr%0A1\tx\tgene\t1\t30\t.\t+\t.\tID=a", "control character in the contig"),
        (b"##gff-version 2", "expected GFF version 3, got '##gff-version 2'"),
        (b"chr\xe9\tx\tgene\t1\t30\t.\t+\t.\tID=a", "not UTF-8"),
    ],
)
def test_what_breaks_the_format_is_refused_with_its_line(parse, line, words):
    with pytest.raises(AnnotationError, match=words) as caught:
        parse(b"##gff-version 3\n" + line + b"\n")
    assert caught.value.line == 2
    assert str(caught.value).isprintable()


def test_an_empty_file_is_refused_and_one_without_features_is_not(parse):
    with pytest.raises(AnnotationError, match="no annotation: the file is empty"):
        parse(b"")
    assert parse(b"##gff-version 3\n") == []


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("genomes/mgenitalium_NC_000908.2.gff.gz", 1169, ("NC_000908.2", 0, 580076, "ANONYMOUS")),
        ("genomes/yeast_chrI_NC_001133.gff.gz", 437, ("NC_001133", 0, 230218, "NC_001133")),
        (
            "genomes/phix174_NC_001422.1.pseudocircular.gff",
            11,
            ("NC_001422.1", 131, 393, "NC_001422.1_ORF.1"),
        ),
        ("variants/sarscov2_simple.gff", 3, ("MN908947.3", 265, 21555, "transcript:ORF1ab")),
    ],
)
def test_real_annotations_are_read(data, name, count, first):
    features = read_gff(data(name))
    assert len(features) == count
    assert (features[0].contig, features[0].start, features[0].end, features[0].name) == first


def test_features_past_the_origin_of_a_circle_are_kept(data):
    features = read_gff(data("genomes/phix174_NC_001422.1.pseudocircular.gff"))
    assert max(feature.end for feature in features) > 5386


BITS = [b"\t", b"\n", b"\0", b"\xff", b"%", b"-", b"9", b"", b"="]


def test_mutants_are_read_or_refused(parse):
    rng = random.Random(3)
    refused = 0
    for _ in range(1500):
        text = bytearray(GFF)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text[at : at + rng.randint(0, 4)] = rng.choice([b"\t", b"\n", b"\0", b"\xff", b"%", b"-", b"9", b"", b"="])
        try:
            parse(bytes(text))
        except DataError as error:
            refused += str(error).isprintable()
    assert refused > 200
