"""Each column of a record is checked by the version's grammar, and the line is kept."""

from __future__ import annotations

import time

import pytest

from hyena_glt.errors import VariantFormatError
from hyena_glt.variants.vcf_header import VcfHeader
from hyena_glt.variants.vcf_records import parse_record, split_info

SOUND = {"chrom": b"1", "pos": b"5", "id": b".", "ref": b"A", "alt": b"T", "qual": b".", "filter": b".", "info": b"."}


def header(version: tuple[int, int] = (4, 2), samples: tuple[str, ...] = ()) -> VcfHeader:
    return VcfHeader((), version, {}, samples)


def line_with(**columns: bytes) -> bytes:
    return b"\t".join((SOUND | columns).values()) + b"\n"


def parse(raw: bytes, version: tuple[int, int] = (4, 2), samples: tuple[str, ...] = ()):
    return parse_record(raw, 3, header(version, samples), "x.vcf")


def test_a_record_tells_its_parts_and_keeps_its_line():
    raw = line_with(chrom=b"chrX", pos=b"12", ref=b"acN", alt=b"T,*,<DEL>")
    record = parse(raw)
    assert record == (raw, "chrX", 12, b"acN", (b"T", b"*", b"<DEL>"), 3)
    assert record.place == "chrX:12"
    assert parse(line_with(alt=b".")).alts == ()


@pytest.mark.parametrize(
    ("columns", "version"),
    [
        ({"pos": b"0"}, (4, 1)),
        ({"pos": b"5000000000"}, (4, 1)),
        ({"pos": b"007"}, (4, 1)),
        ({"chrom": b"<ctg1>"}, (4, 2)),
        ({"chrom": b"<1*>"}, (4, 2)),
        ({"chrom": b"HLA-A*01:01"}, (4, 3)),
        ({"chrom": b"undeclared"}, (4, 5)),
        ({"ref": b"acgtn"}, (4, 1)),
        ({"alt": b"A"}, (4, 1)),
        ({"qual": b"2e+1"}, (4, 2)),
        ({"qual": b"Inf"}, (4, 3)),
        ({"qual": b"NaN"}, (4, 3)),
        ({"qual": b"-0"}, (4, 2)),
        ({"filter": b"q10;my-filter"}, (4, 2)),
        ({"id": b"rs1;rs2"}, (4, 2)),
        ({"info": b'"AC=1;AN=2"'}, (4, 1)),
        ({"info": b'AA=2;EXPLAIN="a; b = c"'}, (4, 2)),
        ({"info": b'X=5";AA=2'}, (4, 2)),
        ({"info": b"AC=;1000G;UNDECLARED=1;X=a=b"}, (4, 2)),
        ({"info": b"G|-0.37|FUNC"}, (4, 1)),
        ({"info": b"A=1;A=2"}, (4, 2)),
        ({"info": b"A=x y"}, (4, 3)),
        ({"info": b"A=\xc3\xa9"}, (4, 3)),
    ],
)
def test_odd_but_sound_columns_pass(columns, version):
    raw = line_with(**columns)
    assert parse(raw, version).raw == raw


@pytest.mark.parametrize(
    ("columns", "words", "version"),
    [
        ({"chrom": b"chr 1"}, "CHROM", (4, 2)),
        ({"chrom": b"<1"}, "CHROM", (4, 2)),
        ({"chrom": b"chr:1"}, "from 4.3 on", (4, 2)),
        ({"chrom": b"chr,1"}, "CHROM", (4, 3)),
        ({"chrom": b"*1"}, "CHROM", (4, 3)),
        ({"chrom": b"\xff"}, "CHROM", (4, 2)),
        ({"pos": b"."}, "POS", (4, 2)),
        ({"pos": b"-1"}, "POS", (4, 2)),
        ({"pos": b"1.0"}, "POS", (4, 2)),
        ({"pos": b"1e3"}, "POS", (4, 2)),
        ({"pos": b" 5"}, "POS", (4, 2)),
        ({"pos": b"9" * 30}, "POS", (4, 2)),
        ({"pos": "\u0665".encode()}, "POS", (4, 2)),
        ({"id": b"a b"}, "ID", (4, 2)),
        ({"id": b"a;;b"}, "ID", (4, 2)),
        ({"ref": b"."}, "REF is missing", (4, 2)),
        ({"ref": b"A,C"}, "one allele", (4, 2)),
        ({"ref": b"B"}, "IUPAC", (4, 2)),
        ({"ref": b"-"}, "REF", (4, 2)),
        ({"ref": b"*"}, "REF", (4, 2)),
        ({"alt": b"R"}, "IUPAC", (4, 5)),
        ({"alt": b"A,,T"}, "empty", (4, 2)),
        ({"alt": b"A,"}, "empty", (4, 2)),
        ({"alt": b"A,."}, "beside", (4, 2)),
        ({"alt": b"A T"}, "ALT", (4, 2)),
        ({"qual": b"good"}, "QUAL", (4, 2)),
        ({"qual": b"-1"}, ">= 0", (4, 2)),
        ({"qual": b"0x10"}, "QUAL", (4, 2)),
        ({"qual": b"1_0"}, "QUAL", (4, 2)),
        ({"filter": b"q10;."}, "FILTER", (4, 2)),
        ({"filter": b"q10 PASS"}, "FILTER", (4, 2)),
        ({"filter": b";q10"}, "FILTER", (4, 2)),
        ({"info": b"A=1;;B=2"}, "INFO", (4, 2)),
        ({"info": b"A=1;"}, "INFO", (4, 2)),
        ({"info": b"=1"}, "without a key", (4, 2)),
        ({"info": b"A=x y"}, "space", (4, 2)),
        ({"info": b"A=1;A=2"}, "'A' stands twice", (4, 3)),
        ({"info": b"A B=1"}, "space in a key", (4, 3)),
        ({"info": b""}, "empty column", (4, 2)),
        ({"id": b""}, "empty column", (4, 2)),
        ({"info": b"A=\x00"}, "control", (4, 2)),
        ({"info": b"A=\x1b[31m"}, "control", (4, 2)),
        ({"info": b"A\rB"}, "carriage return", (4, 2)),
        ({"info": b".\t."}, "expected 8 columns as in the header, got 9", (4, 2)),
        ({"info": b"A;" * 100_000 + b"A"}, "at most 100,000, got 100,001", (4, 1)),
        ({"alt": b"A," * 65_535 + b"T"}, "at most 65,535, got 65,536", (4, 1)),
        ({"chrom": b"#1"}, "header line among the records", (4, 2)),
    ],
)
def test_a_broken_column_is_refused_with_its_place(columns, words, version):
    with pytest.raises(VariantFormatError) as caught:
        parse(line_with(**columns), version)
    message = str(caught.value)
    assert message.startswith("x.vcf:3 (")
    assert words in message
    assert message.isprintable()
    assert len(message) <= 300


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"1 5 . A T . . .\n", "by tabs"),
        (b"1\n", "got 1"),
        (b"\n", "blank"),
        (b"\t" * 7 + b"\n", "blank"),
        (b"1\t5\t.\tA\tT\n", "got 5"),
    ],
)
def test_a_line_of_another_shape_is_refused(raw, words):
    with pytest.raises(VariantFormatError, match=words):
        parse(raw)


@pytest.mark.parametrize(
    "genotypes", [b"GT:DP\t0|1:7\t.", b"GT\t0/1\t1", b"DP:GL\t7:-1,-2\t8", b".\t.\t.", b"GT:DP:X\t0/1\t1/1:2"]
)
def test_genotypes_pass_through(genotypes):
    raw = line_with().rstrip() + b"\t" + genotypes + b"\r\n"
    assert parse(raw, samples=("a", "b")).raw == raw


@pytest.mark.parametrize(
    ("genotypes", "words"),
    [
        (b"GT\t0/1", "got 10"),
        (b"GT\t0/1\t1\t1", "got 12"),
        (b"GT\t\t1", "empty column"),
        (b"GT\t1\t", "empty column"),
        (b"GT::GL\t0\t1", "FORMAT"),
        (b"DP:GT\t0:1\t1:1", "first"),
        (b"GT:DP\t0:1:2\t1", "sample 1: expected at most 2 values"),
    ],
)
def test_broken_genotypes_are_refused(genotypes, words):
    with pytest.raises(VariantFormatError, match=words):
        parse(line_with().rstrip() + b"\t" + genotypes + b"\n", samples=("a", "b"))


@pytest.mark.parametrize(
    ("info", "fields"),
    [
        (b"A", [b"A"]),
        (b"A=1;B", [b"A=1", b"B"]),
        (b'A="x;y";B', [b'A="x;y"', b"B"]),
        (b'"A=1;B=2"', [b'"A=1;B=2"']),
        (b'A=5";B', [b'A=5"', b"B"]),
        (b"A;;B;", [b"A", b"", b"B", b""]),
        (b'A="";;B', [b'A=""', b"", b"B"]),
    ],
)
def test_info_is_split_outside_quotes(info, fields):
    assert split_info(info) == fields
    assert b";".join(fields) == info


MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "columns",
    [
        {"qual": b"1" * MEGABYTE + b"x"},
        {"alt": b"A[" + b"1:" * (MEGABYTE // 2)},
        {"alt": b"A" * MEGABYTE + b"x"},
        {"alt": b"A," * (MEGABYTE // 2) + b"x"},
        {"chrom": b"<" * MEGABYTE},
        {"filter": b"q;" * (MEGABYTE // 2)},
        {"info": b'a="x' * (MEGABYTE // 4) + b";=b"},
        {"info": b'";' * (MEGABYTE // 2) + b'"=b;;'},
        {"info": b";".join(b"%d" % number for number in range(90_000)) + b";89999"},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_no_megabyte_column_hangs(columns):
    start = time.monotonic()
    with pytest.raises(VariantFormatError):
        parse(line_with(**columns), (4, 3))
    assert time.monotonic() - start < 5
