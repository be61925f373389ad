"""Each form of ALT is told apart, and only sequences without N are scored."""

from __future__ import annotations

import pytest

from hyena_glt.errors import VariantFormatError
from hyena_glt.variants.alleles import (
    Breakend,
    MissingAllele,
    SequenceAllele,
    SpanningDeletion,
    SymbolicAllele,
    alleles_of,
    parse_allele,
    unscored_reason,
)
from hyena_glt.variants.vcf_records import VcfRecord


def record(pos: int = 5, alts: tuple[bytes, ...] = (b"T",)) -> VcfRecord:
    return VcfRecord(b"", "1", pos, b"A", alts, 1)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        (b"A", SequenceAllele, None),
        (b"acGT", SequenceAllele, None),
        (b"ACN", SequenceAllele, "ambiguous_base"),
        (b"n", SequenceAllele, "ambiguous_base"),
        (b".", MissingAllele, "no_alt"),
        (b"*", SpanningDeletion, "spanning_deletion"),
        (b"<DEL>", SymbolicAllele, "symbolic"),
        (b"<INS:ME:ALU>", SymbolicAllele, "symbolic"),
        (b"C<ctg1>", SymbolicAllele, "symbolic"),
        (b"<validIdWithSymbols!\"#$%&'()*+-./;=?@[\\]^_`{|}~>", SymbolicAllele, "symbolic"),
        (b"<*>", SymbolicAllele, "unspecified"),
        (b"<NON_REF>", SymbolicAllele, "unspecified"),
        (b"]1:100]AGT", Breakend, "breakend"),
        (b"[1:100[AGT", Breakend, "breakend"),
        (b"AGT]1:100]", Breakend, "breakend"),
        (b"AGT[1:100[", Breakend, "breakend"),
        (b".[13:123457[", Breakend, "breakend"),
        (b"]<ctg1>:329]T", Breakend, "breakend"),
        (b"G[HLA-A*01:01:01:01:55[", Breakend, "breakend"),
        (b".A", Breakend, "breakend"),
        (b"A.", Breakend, "breakend"),
    ],
)
def test_each_form_has_its_class_and_its_reason(text, kind, reason):
    allele = parse_allele(text)
    assert type(allele) is kind
    assert allele.text == text
    assert allele.reason == reason


def test_a_breakend_names_its_mate():
    allele = parse_allele(b"G[HLA-A*01:01:55[")
    assert (allele.mate_contig, allele.mate_pos) == ("HLA-A*01:01", 55)
    assert parse_allele(b".A").mate_contig is None


@pytest.mark.parametrize(
    "text",
    [b"", b"R", b"-", b"I", b"A T", b"<INS>BLAH>", b"<>", b"<A B>", b"<A,B>", b"[1:100[", b"T[1:100]", b"T[1[", b"..",
     b"A[1:1[C", b"**", b"A*", b"<DEL", b"U", b"\xc3\x84"],
)  # fmt: skip
def test_what_has_no_form_is_refused(text):
    with pytest.raises(VariantFormatError, match="ALT"):
        parse_allele(text)


def test_a_record_without_alternative_has_one_missing_allele():
    assert alleles_of(record(alts=())) == (MissingAllele(b"."),)
    assert [allele.text for allele in alleles_of(record(alts=(b"T", b"*")))] == [b"T", b"*"]


def test_a_telomere_is_not_scored():
    assert unscored_reason(record(pos=0), parse_allele(b"T")) == "telomere"
    assert unscored_reason(record(pos=1), parse_allele(b"T")) is None
