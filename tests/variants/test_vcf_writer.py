"""Every byte passes through; only our INFO keys are added, and htslib reads the result."""

from __future__ import annotations

import gzip
import io
import os

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError, OutputExistsError, UsageError
from hyena_glt.tracks.provenance import Provenance
from hyena_glt.variants.skipped import SkippedRecords
from hyena_glt.variants.vcf_header import InfoField, VcfHeader
from hyena_glt.variants.vcf_reader import VcfReader
from hyena_glt.variants.vcf_records import VcfRecord, split_info
from hyena_glt.variants.vcf_writer import VcfWriter, index_vcf, open_vcf_writer

LLR = InfoField("HGLT_LLR", "A", "Float", "Log-likelihood ratio, ALT over REF, nats")
WHY = InfoField("HGLT_WHY", "A", "String", "Why an allele has no score")
COUNT = InfoField("HGLT_N", "1", "Integer", "Patches")
FIELDS = [LLR, WHY, COUNT]
REAL = [
    "1kgp_HG00097_mtDNA.vcf.gz", "1kgp_chr20_1Mb_z.vcf.gz", "BRCA1_SGE_GRCh37_chr17.vcf.gz",
    "BRCA1_SGE_GRCh37_region.vcf.gz", "clinvar2018_BRCA1_GRCh37_chr17.vcf.gz", "clinvar2018_BRCA1_GRCh37_region.vcf.gz",
    "giab_HG001_hg19_chr20_100kb.vcf.gz", "giab_HG001_hg19_chr20_100kb.vcf", "norm.vcf",
    "sarscov2_ribosomal-slippage.vcf", "sarscov2_simple.vcf", "spec_simple.vcf", "spec_sv44.vcf",
]  # fmt: skip


def written(record: VcfRecord, values, fields=FIELDS) -> bytes:
    handle = io.BytesIO()
    writer = VcfWriter(handle, VcfHeader((b"", b""), (4, 2), {}, ()), fields)
    at = handle.tell()
    writer.write(record, values)
    return handle.getvalue()[at:]


def record_with(info: bytes, alts: tuple[bytes, ...] = (b"T", b"<DEL>"), end: bytes = b"\n") -> VcfRecord:
    raw = b"\t".join([b"1", b"5", b".", b"A", b",".join(alts) or b".", b".", b".", info]) + end
    return VcfRecord(raw, "1", 5, b"A", alts, 1)


def info_of(line: bytes) -> bytes:
    return line.split(b"\t")[7]


def test_one_value_per_alt_and_a_dot_where_it_is_missing():
    values = {"HGLT_LLR": [-1.25, None], "HGLT_WHY": [None, "symbolic"], "HGLT_N": 3}
    line = written(record_with(b"AC=1,2;DB"), values)
    assert info_of(line) == b"AC=1,2;DB;HGLT_LLR=-1.25,.;HGLT_WHY=.,symbolic;HGLT_N=3\n"
    assert info_of(written(record_with(b"."), {})) == b"HGLT_LLR=.,.;HGLT_WHY=.,.;HGLT_N=.\n"
    assert info_of(written(record_with(b".", ()), {"HGLT_LLR": []})) == b"HGLT_LLR=.;HGLT_WHY=.;HGLT_N=.\n"
    values = {"HGLT_LLR": [None], "HGLT_WHY": ["no_alt"]}
    assert info_of(written(record_with(b".", ()), values)) == b"HGLT_LLR=.;HGLT_WHY=no_alt;HGLT_N=.\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_line_ends_and_columns_behind_info_stay(end):
    record = record_with(b"DB", (b"T",), b"\tGT\t0/1" + end)
    assert written(record, {"HGLT_LLR": [1]}, [LLR]) == record.raw.replace(b"DB", b"DB;HGLT_LLR=1")


def test_values_of_an_earlier_run_are_replaced():
    once = written(record_with(b'A=1;HGLT_LLR=9,9;B="x;HGLT_N=1"'), {"HGLT_LLR": [1, 2]})
    assert info_of(once) == b'A=1;B="x;HGLT_N=1";HGLT_LLR=1,2;HGLT_WHY=.,.;HGLT_N=.\n'
    again = written(VcfRecord(once, "1", 5, b"A", (b"T", b"<DEL>"), 1), {"HGLT_LLR": [1, 2]})
    assert again == once


def test_numbers_are_short_and_exact_to_six_digits():
    line = written(record_with(b"."), {"HGLT_LLR": [0.1 + 0.2, -1e-9], "HGLT_N": 10**12})
    assert info_of(line) == b"HGLT_LLR=0.3,-1e-09;HGLT_WHY=.,.;HGLT_N=1000000000000\n"


@given(st.text(max_size=20))
def test_text_never_breaks_the_column(text):
    info = info_of(written(record_with(b"A=1", (b"T",)), {"HGLT_WHY": [text]}, [WHY]))
    fields = split_info(info.removesuffix(b"\n"))
    assert len(fields) == 2
    assert not set(b' \t\r",') & set(fields[1].replace(b"\n", b""))
    from urllib.parse import unquote

    assert unquote(fields[1].partition(b"=")[2].decode()) == (text or ".")


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"HGLT_LLR": [1.0]}, ConfigError, "expected 2 values, got 1"),
        ({"HGLT_N": [1, 2]}, ConfigError, "expected 1 values, got 2"),
        ({"OTHER": [1]}, ConfigError, "OTHER: not declared"),
        ({"HGLT_LLR": [float("nan"), 1.0]}, DataError, "finite"),
        ({"HGLT_LLR": [float("-inf"), 1.0]}, DataError, "finite"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_written(values, kind, words):
    with pytest.raises(kind, match=words):
        written(record_with(b"."), values)


def test_a_key_given_twice_is_refused():
    with pytest.raises(ConfigError, match="twice"):
        VcfWriter(io.BytesIO(), VcfHeader((b"",), (4, 2), {}, ()), [LLR, LLR])


def passed_through(path, target, fields=(), provenance=None, values=lambda record: None):
    """Reader -> writer; gives the reader and the number of skipped records."""
    with (
        SkippedRecords() as skipped,
        VcfReader(path, skipped=skipped) as reader,
        open_vcf_writer(target, reader.header, fields, provenance) as writer,
    ):
        for record in reader:
            writer.write(record, values(record))
    return reader, skipped.num_skipped


def strictly_passed(path, target):
    with VcfReader(path) as reader, open_vcf_writer(target, reader.header) as writer:
        for record in reader:
            writer.write(record)


def text_of(path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw


def without_bad_record(text: bytes) -> bytes:
    """Without the one record of norm.vcf whose ALT is no base."""
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"4\t37\t.\tC\tI\t"))


@pytest.mark.parametrize("name", REAL)
def test_without_additions_every_byte_is_the_same(data, tmp_path, name):
    path, target = data(f"variants/{name}"), tmp_path / "out.vcf"
    _, num_skipped = passed_through(path, target)
    assert num_skipped == (name == "norm.vcf")
    assert text_of(target) == without_bad_record(text_of(path))


@pytest.mark.parametrize("name", [name for name in REAL if "mtDNA" not in name])  # htslib cannot read that one at all
def test_htslib_reads_what_was_added(data, tmp_path, name):
    path, target = data(f"variants/{name}"), tmp_path / "out.vcf.gz"
    origin = Provenance(("hyena-glt", "variants", "a b.fa"), {"model": {"order": 8}})

    def values(record):
        scores = [i / 7 for i in range(len(record.alts))]
        return {"HGLT_LLR": scores, "HGLT_WHY": ["a;b"] * len(scores), "HGLT_N": len(scores)}

    reader, _ = passed_through(path, target, FIELDS, origin, values)
    assert reader.is_sorted
    assert index_vcf(target, max_end=reader.max_end) == f"{target}.tbi"
    verbosity = pysam.set_verbosity(0)
    with pysam.VariantFile(str(target)) as file:
        assert file.header.info["HGLT_LLR"].number == "A"
        assert file.header.info["HGLT_LLR"].type == "Float"
        found = list(file)
        fetched = list(file.fetch(found[0].chrom))
    pysam.set_verbosity(verbosity)
    assert len(found) == reader.num_records
    assert len(fetched) == sum(record.chrom == found[0].chrom for record in found)
    for record in found:
        count = len(record.alts or ())
        assert record.info["HGLT_N"] == count
        if count:
            assert record.info["HGLT_LLR"] == pytest.approx([i / 7 for i in range(count)], rel=1e-5)
    # what was added taken off again leaves the input
    lines = text_of(target).splitlines(keepends=True)
    stripped = b"".join(line for line in lines if not line.startswith((b"##hyena_glt", b"##INFO=<ID=HGLT_")))
    assert taken_off(stripped) == without_bad_record(text_of(path))


def taken_off(text: bytes) -> bytes:
    import re

    return re.sub(rb"(?:(\t)|;)HGLT_LLR=[^;\t]*;HGLT_WHY=[^;\t]*;HGLT_N=\d+", lambda m: b"\t." if m[1] else b"", text)


def test_a_second_run_gives_the_same_file(vcf, save, tmp_path):
    origin = Provenance(("hyena-glt",))
    values = lambda record: {"HGLT_LLR": [0.5] * len(record.alts)}  # noqa: E731
    passed_through(save(vcf), tmp_path / "one.vcf", FIELDS, origin, values)
    passed_through(tmp_path / "one.vcf", tmp_path / "two.vcf", FIELDS, origin, values)
    assert (tmp_path / "one.vcf").read_bytes() == (tmp_path / "two.vcf").read_bytes()


def test_standard_output_takes_the_text(vcf, save, capfdbinary):
    passed_through(save(vcf), "-")
    assert capfdbinary.readouterr().out == vcf


def test_outputs_are_whole_or_absent_and_never_replaced_silently(vcf, save, tmp_path):
    path = save(vcf + b"broken\n")
    with pytest.raises(DataError, match=r"x\.vcf:7"):
        strictly_passed(path, tmp_path / "o.vcf.gz")
    assert os.listdir(tmp_path) == ["x.vcf"]
    (tmp_path / "o.vcf").write_text("old")
    with VcfReader(save(vcf)) as reader:
        with pytest.raises(OutputExistsError), open_vcf_writer(tmp_path / "o.vcf", reader.header):
            pass
        with pytest.raises(UsageError, match="bcftools view -Ob"), open_vcf_writer(tmp_path / "o.bcf", reader.header):
            pass


def test_an_index_is_made_where_there_can_be_one(vcf, save, tmp_path):
    target = tmp_path / "o.vcf.gz"
    passed_through(save(vcf), target)
    assert index_vcf(save(vcf), max_end=10) is None
    assert index_vcf(target, max_end=1 << 31) is None
    assert index_vcf(target, max_end=1 << 29) == f"{target}.csi"
    assert index_vcf(target, max_end=10) == f"{target}.tbi"
    with pytest.raises(OutputExistsError):
        index_vcf(target, max_end=10)
    assert index_vcf(target, max_end=10, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["o.vcf.gz", "o.vcf.gz.csi", "o.vcf.gz.tbi", "x.vcf"]


def test_a_contig_too_long_for_tbi_is_indexed_by_csi(vcf, save, tmp_path):
    target = tmp_path / "o.vcf.gz"
    path = save(vcf + b"2\t9\t.\tA\t<DEL>\t.\t.\tDB;END=1000000009\tGT\t0\t1\n")
    reader, _ = passed_through(path, target)
    assert reader.max_end == 1_000_000_009
    assert index_vcf(target, max_end=reader.max_end) == f"{target}.csi"
    verbosity = pysam.set_verbosity(0)
    with pysam.VariantFile(str(target)) as file:
        assert [record.pos for record in file.fetch("2", 999_999_999, 1_000_000_000)] == [9]
    pysam.set_verbosity(verbosity)


def test_an_unsorted_file_is_not_indexed(vcf, save, tmp_path):
    lines = vcf.splitlines(keepends=True)
    target = tmp_path / "o.vcf.gz"
    text = b"".join([*lines, lines[4]])
    passed_through(save(text), target)
    with pytest.raises(DataError, match="sorted"):
        index_vcf(target, max_end=10)
    assert sorted(os.listdir(tmp_path)) == ["o.vcf.gz", "x.vcf"]
