"""A header is whole and sound, or refused with its line; keys are declared behind the last ##INFO."""

from __future__ import annotations

import time

import pytest

from hyena_glt.errors import ConfigError, VariantFormatError
from hyena_glt.tracks.provenance import Provenance
from hyena_glt.variants.vcf_header import InfoField, read_header

FORMAT = b"##fileformat=VCFv4.2\n"
CHROM = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
SCORE = InfoField("HGLT_LLR", "A", "Float", 'Log ratio, "ALT" over REF')


def short(value):
    """Name of a case: the end of its bytes."""
    return repr(value[-60:]) if isinstance(value, bytes) else None


def header_of(text: bytes):
    return read_header(text.splitlines(keepends=True), "x.vcf")


def test_a_sound_header_tells_its_parts(vcf):
    header = header_of(vcf)
    assert header.version == (4, 2)
    assert header.samples == ("s1", "s2")
    assert header.contigs == {"1": 100}
    assert header.num_columns == 11
    assert b"".join(header.lines) + b"".join(vcf.splitlines(keepends=True)[4:]) == vcf


@pytest.mark.parametrize("version", [b"4.1", b"4.2", b"4.3", b"4.4", b"4.5"])
def test_versions_from_4_1_to_4_5_are_read(version):
    assert header_of(b"##fileformat=VCFv" + version + b"\n" + CHROM).num_columns == 8


@pytest.mark.parametrize(
    "line",
    [
        b'##INFO=<ID=X,Type=Float,Number=1,Description="order, commas, = and \\" quotes">',
        b'##INFO=<ID=X,Number=A,Type=String,Description="",Source="s",Version="1">',
        b'##INFO=<ID=X,Number=1,Type=Float,Description="padded">\t\t ',
        b"##contig=<ID=20,length=62435964,assembly=B36,species=\"Homo sapiens\",taxonomy=x>",
        b"##contig=<ID=HLA-A*01:01:01:01>",
        b'##ALT=<ID=DUP:TANDEM,Description="Tandem">',
        b"##META=<ID=Assay,Type=String,Number=.,Values=[WholeGenome, Exome]>",
        b'##ID=<Description="ClinVar Variation ID">',
        b"##GATKCommandLine=<ID=H,Cmd=a <b> \"c>",
        b"##commandline=\"x y\"",
        b"##source=",
    ],
)  # fmt: skip
def test_odd_but_sound_lines_pass(line):
    header = header_of(FORMAT + line + b"\n" + CHROM)
    assert header.lines[1] == line + b"\n"


def test_the_same_line_twice_passes():
    line = b'##contig=<ID=1,length=5>\n##FILTER=<ID=q,Description="d">\n'
    assert header_of(FORMAT + line + line + CHROM).contigs == {"1": 5}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"", None, "empty"),
        (b"\n", 1, "##fileformat"),
        (CHROM, 1, "##fileformat"),
        (b"##fileformat=VCFv4.0\n" + CHROM, 1, "4.1 to 4.5"),
        (b"##fileformat=VCFv4.6\n" + CHROM, 1, "4.1 to 4.5"),
        (b"##fileformat=VCFv9999.1\n", 1, "VCFv4.x"),
        (b"\xef\xbb\xbf" + FORMAT + CHROM, 1, "byte-order mark"),
        (b">chr1\nACGT\n", 1, "FASTA"),
        (b"BZh9", 1, "bunzip2"),
        (b"\x1f\x8bxx", 1, "gunzip"),
        (FORMAT, 1, "truncated"),
        (FORMAT + b"##a=b\n", 2, "truncated"),
        (FORMAT + FORMAT + CHROM, 2, "twice"),
        (FORMAT + b"\n" + CHROM, 2, "blank line"),
        (FORMAT + b"1\t5\t.\tA\tT\t.\t.\t.\n", 2, "before the records"),
        (FORMAT + b"##plain text\n" + CHROM, 2, "##key=value"),
        (FORMAT + b"##a=\x01\n" + CHROM, 2, "control"),
        (FORMAT + b"##INFO=ID\n" + CHROM, 2, "<...>"),
        (FORMAT + b'##INFO=<ID=X,Number=1,Type=Float,Description="x"\n' + CHROM, 2, "<...>"),
        (FORMAT + b'##INFO=<ID=X,Number=1,Type=Float,Description="x>\n' + CHROM, 2, "pairs"),
        (FORMAT + b"##INFO=<ID=X,Number=1,Type=Float,Description=x>\n" + CHROM, 2, "quotes"),
        (FORMAT + b"##INFO=<ID=X,Number=1,Type=Float>\n" + CHROM, 2, "Description is missing"),
        (FORMAT + b'##INFO=<Number=1,Type=Float,Description="x">\n' + CHROM, 2, "ID is missing"),
        (FORMAT + b'##INFO=<ID=,Number=1,Type=Float,Description="x">\n' + CHROM, 2, "ID is missing"),
        (FORMAT + b'##INFO=<ID=X,Number=-1,Type=Float,Description="x">\n' + CHROM, 2, "Number"),
        (FORMAT + b'##INFO=<ID=X,Number=P,Type=Float,Description="x">\n' + CHROM, 2, "Number"),
        (FORMAT + b'##INFO=<ID=X,Number=1,Type=float,Description="x">\n' + CHROM, 2, "Type"),
        (FORMAT + b'##FORMAT=<ID=X,Number=0,Type=Flag,Description="x">\n' + CHROM, 2, "Type"),
        (FORMAT + b'##FILTER=<ID=X,ID=Y,Description="x">\n' + CHROM, 2, "twice"),
        (FORMAT + b"##contig=<ID=1,length=x>\n" + CHROM, 2, "length"),
        (FORMAT + b"##contig=<ID=1,length=5>\n##contig=<ID=1,length=6>\n" + CHROM, 3, "differently"),
        (FORMAT + b"##FILTER=<ID=" + b"x" * (1 << 20) + b">\n" + CHROM, 2, "more than 1,048,576 bytes"),
        (FORMAT + CHROM.rstrip() + b"\tx" * (1 << 21), 2, "more than 2,097,152 samples"),
        (FORMAT + CHROM.replace(b"\t", b" "), 2, "by tabs"),
        (FORMAT + CHROM.replace(b"POS", b"POSITION"), 2, "expected the columns"),
        (FORMAT + CHROM.replace(b"\tINFO", b""), 2, "expected the columns"),
        (FORMAT + CHROM.rstrip() + b"\tFORMAT\n", 2, "without a sample"),
        (FORMAT + CHROM.rstrip() + b"\ts1\n", 2, "ninth column"),
        (FORMAT + CHROM.rstrip() + b"\tFORMAT\ts1\ts1\n", 2, "'s1' stands twice"),
        (FORMAT + CHROM.rstrip() + b"\tFORMAT\ts1\t\n", 2, "sample name"),
        (FORMAT + CHROM.rstrip() + b"\tFORMAT\t\x1b[31m\n", 2, "sample name"),
        (FORMAT + CHROM.rstrip() + b"\tFORMAT\t\xff\n", 2, "UTF-8"),
    ],
    ids=short,
)  # fmt: skip
def test_a_broken_header_is_refused_with_its_line(text, line, words):
    with pytest.raises(VariantFormatError, match=r"x\.vcf") as caught:
        header_of(text)
    assert caught.value.line == line
    assert words in caught.value.message
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 300


def test_number_p_is_of_4_4():
    line = b'##INFO=<ID=X,Number=P,Type=Float,Description="x">\n'
    assert header_of(b"##fileformat=VCFv4.4\n" + line + CHROM).version == (4, 4)


def test_keys_go_behind_the_last_info_line_and_provenance_behind_the_first_line(vcf):
    lines = header_of(vcf).with_fields([SCORE], Provenance(("hyena-glt", "variants"))).lines
    assert lines[0] == FORMAT
    assert lines[1].startswith(b"##hyena_gltVersion=")
    assert lines[2] == b"##hyena_gltCommand=hyena-glt variants\n"
    assert lines[4] == SCORE.header_line() + b"\n"
    assert [line for line in lines if b"hyena_glt" not in line and b"HGLT" not in line] == list(header_of(vcf).lines)


def test_without_info_lines_keys_go_before_the_column_line():
    lines = header_of(FORMAT + b"##a=b\n" + CHROM).with_fields([SCORE]).lines
    assert lines == (FORMAT, b"##a=b\n", SCORE.header_line() + b"\n", CHROM)


def test_keys_and_provenance_of_an_earlier_run_are_replaced(vcf):
    origin = Provenance(("hyena-glt",), {"model": "m"})
    once = header_of(vcf).with_fields(
        [InfoField("HGLT_LLR", "A", "Float", "older")], Provenance(("older",), {"b": "c"})
    )
    again = header_of(b"".join(once.lines)).with_fields([SCORE], origin)
    assert again.lines == header_of(vcf).with_fields([SCORE], origin).lines


def test_added_lines_end_as_the_others():
    lines = header_of((FORMAT + CHROM).replace(b"\n", b"\r\n")).with_fields([SCORE], Provenance(("x",))).lines
    assert all(line.endswith(b"\r\n") for line in lines)


def test_a_declared_key_reads_back():
    assert len(header_of(FORMAT + SCORE.header_line() + b"\n" + CHROM).lines) == 3


@pytest.mark.parametrize("values", [("1X", "A", "Float", "d"), ("X;", "A", "Float", "d"), ("X", "R", "Float", "d"),
                                    ("X", "A", "Flag", "d"), ("X", "A", "Float", "d\n")])  # fmt: skip
def test_a_key_that_vcf_does_not_allow_is_refused(values):
    with pytest.raises(ConfigError, match="INFO key"):
        InfoField(*values)


@pytest.mark.parametrize(
    "text", [b'"' + b"\\x" * 480_000, b'"' * 1_000_001, b"a,=" * 300_000, b"x" * 1_000_000 + b"="], ids=short
)
def test_no_megabyte_header_line_hangs(text):
    start = time.monotonic()
    with pytest.raises(VariantFormatError):
        header_of(FORMAT + b"##INFO=<ID=X,Number=1,Type=Float,Description=" + text + b">\n" + CHROM)
    assert time.monotonic() - start < 5
