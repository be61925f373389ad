"""GenBank flat files: coding sequences in the order of reading, and a line for everything that is refused."""

from __future__ import annotations

import gzip
import time

import pytest

from hyena_glt.errors import AlphabetError, AnnotationError, HyenaGLTError
from hyena_glt.multimodal.genbank import Span, read_genbank


def genbank(features: str, sequence: str = "ATGGCTTGACCCTCAAGCCAT", length: int | None = None, unit: str = "bp") -> str:
    """A record with these feature lines."""
    blocks = " ".join(sequence[i : i + 10].lower() for i in range(0, len(sequence), 10))
    rows = [f"{1:>9} {blocks}"]  # a line holds up to 60 bases
    head = f"LOCUS       TEST {len(sequence) if length is None else length} {unit}    DNA     linear   SYN 01-JAN-2000"
    table = "FEATURES             Location/Qualifiers\n     source          1..21\n"
    return "\n".join([head, "DEFINITION  made.", table + features + "ORIGIN", *rows, "//", ""])


def cds(location: str, *qualifiers: str) -> str:
    lines = [f"     CDS             {location}", *(f"                     {text}" for text in qualifiers)]
    return "\n".join(lines) + "\n"


def read_one(tmp_path, text: str):
    path = tmp_path / "x.gb"
    path.write_text(text)
    (record,) = read_genbank(path)
    return record


@pytest.mark.parametrize(
    ("location", "sequence"),
    [
        ("1..9", b"ATGGCTTGA"),
        ("complement(13..21)", b"ATGGCTTGA"),
        ("join(1..3,7..9)", b"ATGTGA"),
        ("complement(join(13..15,19..21))", b"ATGTGA"),
        ("join(complement(19..21),7..9)", b"ATGTGA"),
        ("join(10..12,1..3)", b"CCCATG"),
        ("5", b"C"),
    ],
)
def test_bases_come_in_the_order_of_reading(tmp_path, location, sequence):
    record = read_one(tmp_path, genbank(cds(location)))
    assert record.coding_sequence(record.coding[0]) == sequence


@pytest.mark.parametrize(
    ("location", "inside"),
    [
        ("<1..9", True),
        ("1..>9", False),
        ("complement(1..>9)", True),
        ("complement(<1..9)", False),
        ("complement(join(1..3,7..>9))", True),
        ("join(complement(1..>9),10..12)", True),
    ],
)
def test_a_start_outside_is_known_on_either_strand(tmp_path, location, inside):
    assert read_one(tmp_path, genbank(cds(location))).coding[0].starts_inside is inside


def test_qualifiers_are_read_over_lines_quotes_and_slashes(tmp_path):
    text = cds(
        "1..9",
        '/note="a quote "" and a line that looks like one',
        '/gene=""false"" end"',
        "/codon_start=2",
        "/transl_table=4",
        '/locus_tag="T1"',
        '/translation="MA',
        'WK"',
        "/pseudo",
    )
    feature = read_one(tmp_path, genbank(text)).coding[0]
    assert (feature.name, feature.translation, feature.codon_start, feature.transl_table) == ("T1", b"MAWK", 2, 4)
    assert feature.is_pseudo
    assert feature.line == 5


def test_an_endless_quote_takes_no_endless_time(tmp_path):
    start = time.process_time()
    with pytest.raises(AnnotationError, match="never closed"):
        read_one(tmp_path, genbank(cds("1..9", '/note="', *["A" * 58] * 100_000)))
    assert time.process_time() - start < 10


def test_a_location_may_go_on_over_lines(tmp_path):
    record = read_one(tmp_path, genbank(cds("join(1..3,", "7..9)", '/gene="g"')))
    assert record.coding[0].spans == (Span(0, 3, "+"), Span(6, 9, "+"))


def test_records_follow_each_other_and_gzip_is_read(tmp_path):
    path = tmp_path / "two.gb.gz"
    path.write_bytes(gzip.compress((genbank("") + "\n" + genbank(cds("1..9"))).encode()))
    assert [len(record.coding) for record in read_genbank(path)] == [0, 1]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "", "the file is empty"),
        (">chr1\nACGT\n//\n", ":1", "begins with LOCUS"),
        (genbank("", unit="aa"), ":1", "expected a nucleotide record"),
        (genbank("", length=22), ":6", "expected 22 bases as in LOCUS, got 21"),
        (genbank("")[:-3], ":6", "no '//' line"),
        (genbank("").replace("ORIGIN", "CONTIG"), ":1", "no ORIGIN"),
        (genbank("").replace("        1 atg", "        2 atg"), ":6", "expected '1' and blocks"),
        (genbank(cds("order(1..3,7..9)")), ":5", "expected start..end"),
        (genbank(cds("J00194.1:1..9")), ":5", "expected start..end"),
        (genbank(cds("-2..9")), ":5", "got '-2..9'"),
        (genbank(cds("1..22")), ":5", "<= 21"),
        (genbank(cds("9..1")), ":5", "1 <= start"),
        (genbank(cds("join(1..3,7..9")), ":5", "expected start..end"),
        (genbank(cds("complement(" * 9000 + "1..3" + ")" * 9000)), ":5", "nested too deeply"),
        (genbank(cds("1..9", "/codon_start=4")), ":5", "expected one of 1, 2, 3"),
        (genbank(cds("1..9", "/transl_table=99")), ":5", "/transl_table"),
        (genbank(cds("1..9", '/translation="M1"')), ":5", "/translation: position 2"),
        (genbank(cds("1..9", '/translation="MA')), ":6", "never closed"),
        (genbank(cds("1..9", '/gene="a"', "stray")), ":7", "expected a qualifier"),
        (genbank("  CDS   1..9\n"), ":5", "expected a key in column 6"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path, text, place, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_one(tmp_path, text)
    assert f"x.gb{place}: " in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) <= 300


def test_a_letter_that_is_no_base_is_refused(tmp_path):
    with pytest.raises(AlphabetError, match=r"x\.gb \(TEST\): position 2"):
        read_one(tmp_path, genbank("", sequence="AEG"))


@pytest.mark.parametrize(
    ("name", "size", "coding"),
    [
        ("genomes/mgenitalium_NC_000908.2.gb.gz", 580_076, 521),
        ("genomes/phix174_NC_001422.gbk", 5_386, 11),
        ("genomes/yeast_chrI_NC_001133.gbk.gz", 230_218, 94),
        ("genomes/sarscov2_MN908947.gb", 29_903, 12),
        ("protein_rna/arabidopsis_chloroplast_NC_000932.gb.gz", 154_478, 85),
    ],
)
def test_real_files_are_read_whole(data, name, size, coding):
    (record,) = read_genbank(data(name))
    assert (len(record.sequence), len(record.coding)) == (size, coding)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("bio_bad_loc_wrap.gb", 1),
        ("bio_empty_accession.gbk", 0),
        ("bio_blank_seq.gb", ":1: LOCUS: expected a nucleotide record"),
        ("bio_negative_location.gb", ":15: location: expected start..end"),
        ("bio_no_end_marker.gb", ":124: the record has no '//' line"),
    ],
)
def test_odd_files_are_read_or_refused(data, name, outcome):
    path = data(f"malformed/{name}")
    if isinstance(outcome, int):
        (record,) = read_genbank(path)
        assert len(record.coding) == outcome
        return
    with pytest.raises(HyenaGLTError, match=outcome):
        list(read_genbank(path))
