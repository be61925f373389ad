"""The reader gives every record of a sound file, whatever its packing, and refuses the rest with file and line."""

from __future__ import annotations

import gzip
import io
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError, VariantFormatError
from hyena_glt.sequences.bgzf import BgzfWriter
from hyena_glt.variants import vcf_reader
from hyena_glt.variants.skipped import SkippedRecords
from hyena_glt.variants.vcf_reader import VcfReader

REAL = [
    "BRCA1_SGE_GRCh37_chr17.vcf.gz", "BRCA1_SGE_GRCh37_region.vcf.gz",
    "clinvar2018_BRCA1_GRCh37_chr17.vcf.gz", "clinvar2018_BRCA1_GRCh37_region.vcf.gz",
    "giab_HG001_hg19_chr20_100kb.vcf.gz", "giab_HG001_hg19_chr20_100kb.vcf", "norm.vcf",
    "sarscov2_ribosomal-slippage.vcf", "sarscov2_simple.vcf", "spec_simple.vcf", "spec_sv44.vcf",
]  # fmt: skip


def records(path, **options):
    with VcfReader(path, **options) as reader:
        return list(reader)


def test_every_byte_is_in_the_header_or_in_a_record(vcf, save):
    with VcfReader(save(vcf)) as reader:
        found = list(reader)
    assert b"".join([*reader.header.lines, *(record.raw for record in found)]) == vcf
    assert [record.line for record in found] == [5, 6]
    assert reader.num_records == 2
    assert reader.is_sorted


def test_packings_give_equal_records(vcf, save, monkeypatch):
    expected = records(save(vcf))
    packed = io.BytesIO()
    with BgzfWriter(packed) as writer:
        writer.write(vcf)
    half = len(vcf) // 2
    for text in (gzip.compress(vcf), packed.getvalue(), gzip.compress(vcf[:half]) + gzip.compress(vcf[half:])):
        assert records(save(text, "any.name")) == expected
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert records("-") == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 400))
def test_the_block_size_changes_nothing(vcf, save, size):
    path = save(vcf)
    assert records(path, block_size=size) == records(path)


def test_crlf_and_a_missing_last_newline_are_sound(vcf, save):
    crlf = vcf.replace(b"\n", b"\r\n")
    for text in (crlf, vcf.removesuffix(b"\n"), crlf.removesuffix(b"\r\n")):
        with VcfReader(save(text)) as reader:
            found = list(reader)
        assert b"".join([*reader.header.lines, *(record.raw for record in found)]) == text
        assert [record[1:] for record in found] == [record[1:] for record in records(save(vcf, "y.vcf"))]


def test_blank_lines_at_the_end_are_left_out_and_others_refused(vcf, save):
    assert len(records(save(vcf + b"\n\r\n\n"))) == 2
    with pytest.raises(VariantFormatError, match=r"x\.vcf:7: blank line"):
        records(save(vcf + b"\n\n" + vcf.splitlines(keepends=True)[-1]))


def test_a_file_without_records_is_sound(vcf, save):
    assert records(save(b"".join(vcf.splitlines(keepends=True)[:4]))) == []


def test_order_is_told_and_refused_on_demand(vcf, save):
    path = save(vcf + b"1\t9\t.\tA\t.\t.\t.\t.\tGT\t0\t0\n2\t1\t.\tA\t.\t.\t.\t.\tGT\t0\t0\n")
    with VcfReader(path) as reader:
        assert len(list(reader)) == 4
    assert not reader.is_sorted
    with pytest.raises(VariantFormatError, match=r"x\.vcf:7 \(1:9\): out of order"):
        records(path, require_sorted=True)


def test_positions_beyond_2_to_the_31_are_exact(vcf, save):
    line = b"1\t4294967299\t.\tA\tT\t.\t.\t.\tGT\t0\t0\n"
    assert records(save(b"".join(vcf.splitlines(keepends=True)[:4]) + line))[0].pos == 2**32 + 3


def test_bad_records_are_skipped_and_counted_on_demand(vcf, save, tmp_path):
    lines = vcf.splitlines(keepends=True)
    text = b"".join([*lines[:4], b"1\tx\t.\tA\tT\t.\t.\t.\tGT\t0\t0\n", lines[4], b"short\n", lines[5], b"\x00\xff\n"])
    path = save(text)
    with pytest.raises(VariantFormatError, match=r"x\.vcf:5 \(1:x\): POS"):
        records(path)
    with SkippedRecords(tmp_path / "out.skipped.tsv") as skipped:
        assert [record.raw for record in records(path, skipped=skipped)] == lines[4:]
    assert skipped.num_skipped == 3
    table = (tmp_path / "out.skipped.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in table] == ["line", "5", "7", "9"]


def test_a_bad_header_is_never_skipped(save):
    with pytest.raises(VariantFormatError), SkippedRecords() as skipped:
        VcfReader(save(b"##fileformat=VCFv4.2\nx\n"), skipped=skipped)


@pytest.mark.parametrize("cut", [30, -30, -1])
def test_truncated_gzip_is_refused(vcf, save, cut):
    with pytest.raises(VariantFormatError, match=r"x\.vcf\.gz: truncated gzip"):
        records(save(gzip.compress(vcf)[:cut], "x.vcf.gz"))


def test_a_bgzf_file_without_its_end_is_refused(vcf, save):
    packed = io.BytesIO()
    with BgzfWriter(packed) as writer:
        writer.write(vcf)
    with pytest.raises(VariantFormatError, match="end-of-file block"):
        records(save(packed.getvalue()[:-28], "x.vcf.gz"))


def test_a_line_that_never_ends_is_refused(vcf, save, monkeypatch):
    monkeypatch.setattr(vcf_reader, "MAX_LINE_BYTES", 1000)
    with pytest.raises(VariantFormatError, match=r"x\.vcf:7: line is longer than 1,000 bytes"):
        records(save(vcf + b"A" * 5000), block_size=64)


def test_bcf_is_read_as_its_text(data, save, tmp_path):
    import pysam

    source, target = data("variants/giab_HG001_hg19_chr20_100kb.vcf"), tmp_path / "x.bcf"
    with pysam.VariantFile(str(source)) as text, pysam.VariantFile(str(target), "wb", header=text.header) as binary:
        for record in text:
            binary.write(record)
    found = records(target)
    assert [record[1:5] for record in found] == [record[1:5] for record in records(source)]
    with pytest.raises(VariantFormatError, match=r"truncated|damaged"):
        records(save(target.read_bytes()[:3000], "cut.bcf"))


def test_bcf_from_a_pipe_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"BCF\x02\x02")))
    with pytest.raises(VariantFormatError, match="<stdin>: BCF from a pipe"):
        records("-")


def test_a_missing_file_and_a_bad_block_size_are_refused(vcf, save, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        VcfReader(tmp_path / "absent.vcf")
    with pytest.raises(ConfigError, match="block_size"):
        VcfReader(save(vcf), block_size=0)


def test_a_file_that_htslib_cannot_read(data):
    """INFO in double quotes: `"AC=1;AN=1073"`, and header lines padded with tabs."""
    found = records(data("variants/1kgp_HG00097_mtDNA.vcf.gz"))
    assert len(found) == 2834
    assert found[0][1:5] == ("MT", 3, b"T", (b"C",))


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_as_htslib_reads_them(data, name):
    import pysam

    path = data(f"variants/{name}")
    with SkippedRecords() as skipped:
        ours = [
            (r.chrom, r.pos, r.ref.decode(), tuple(a.decode() for a in r.alts)) for r in records(path, skipped=skipped)
        ]
    verbosity = pysam.set_verbosity(0)
    with pysam.VariantFile(str(path)) as file:
        theirs = [(r.chrom, r.pos, r.ref, r.alts or ()) for r in file]
    pysam.set_verbosity(verbosity)
    bad = [record for record in theirs if "I" in record[3]]  # norm.vcf: ALT 'I' is no base
    assert skipped.num_skipped == len(bad) == (name == "norm.vcf")
    assert ours == [record for record in theirs if record not in bad]


def mutants(vcf: bytes, count: int, seed: int):
    import random

    rng = random.Random(seed)
    pieces = [
        b"\t",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b'"',
        b";",
        b",",
        b"=",
        b"<",
        b">",
        b".",
        b"#",
        b" ",
        b"-1",
        b"N",
        b"",
        b"9" * 20,
    ]
    for _ in range(count):
        text = bytearray(vcf)
        for _ in range(rng.randint(1, 4)):
            at, width = rng.randrange(len(text)), rng.choice([0, 1, 1, 3, 20])
            text[at : at + width] = rng.choice([*pieces, bytes([rng.randrange(256)]), bytes(text[: rng.randrange(40)])])
        yield bytes(text)


def outcome_of(path) -> bytes | DataError:
    try:
        with VcfReader(path) as reader:
            return b"".join([*reader.header.lines, *(record.raw for record in reader)])
    except DataError as error:
        return error


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutants_are_read_whole_or_refused_in_one_line(vcf, save, count):
    num_refused = 0
    for text in mutants(vcf, count, seed=7):
        outcome = outcome_of(save(text))
        if isinstance(outcome, bytes):
            assert text.startswith(outcome)
            assert not text[len(outcome) :].strip(b"\r\n")  # blank lines at the end
        else:
            num_refused += 1
            assert "x.vcf" in str(outcome)
            assert str(outcome).isprintable()
            assert len(outcome.message) <= 300
    assert count / 4 < num_refused < count
