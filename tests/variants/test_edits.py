"""A variant has one normalised edit, whatever way it is spelled."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hyena_glt.errors import DataError
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.variants import edits
from hyena_glt.variants.alleles import SequenceAllele, alleles_of
from hyena_glt.variants.edits import Edit, applied, as_vcf, edit_of, left_aligned, normalised, trimmed
from hyena_glt.variants.reference_check import check_reference, fetcher
from hyena_glt.variants.skipped import SkippedRecords
from hyena_glt.variants.vcf_reader import VcfReader
from hyena_glt.variants.vcf_records import VcfRecord


def fetch_from(sequence: bytes):
    def fetch(start: int, end: int) -> bytes:
        assert 0 <= start <= end <= len(sequence), "outside the contig"
        return sequence[start:end]

    return fetch


def definition(reference: bytes, edit: Edit) -> Edit:
    """Trim the two whole haplotypes, base by base: suffix first, then prefix."""
    before, after = reference, applied(reference, edit)
    while before and after and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    return Edit(start, before[start:], after[start:])


bases = st.binary(max_size=8).map(lambda text: bytes(b"ACGT"[byte % 4] for byte in text))
few_bases = st.binary(max_size=8).map(lambda text: bytes(b"AC"[byte % 2] for byte in text))  # repeats


@st.composite
def edited(draw):
    """A reference and an edit of it."""
    reference = draw(st.lists(st.sampled_from([b"A", b"C", b"AC", b"GT"]), min_size=1, max_size=30).map(b"".join))
    start = draw(st.integers(0, len(reference)))
    end = draw(st.integers(start, min(len(reference), start + 6)))
    return reference, Edit(start, reference[start:end], draw(bases | few_bases))


@given(edited())
def test_normalising_equals_the_definition_on_whole_haplotypes(case):
    reference, edit = case
    assume(applied(reference, edit) != reference)
    assert normalised(edit, fetch_from(reference)) == definition(reference, edit)


@given(edited())
def test_normalising_keeps_the_haplotype_and_is_idempotent(case):
    reference, edit = case
    once = normalised(edit, fetch_from(reference))
    assert applied(reference, once) == applied(reference, edit)
    assert normalised(once, fetch_from(reference)) == once
    assert len(once.ref) <= len(edit.ref)
    assert len(once.alt) <= len(edit.alt)


@given(edited(), st.integers(0, 5), st.integers(0, 5))
def test_padded_and_lower_case_spellings_are_one_variant(case, left, right):
    reference, edit = case
    assume(applied(reference, edit) != reference)
    start, end = max(0, edit.start - left), min(len(reference), edit.end + right)
    alt = reference[start : edit.start] + edit.alt + reference[edit.end : end]
    padded = Edit(start, reference[start:end].lower(), alt.lower())
    assert normalised(padded, fetch_from(reference.lower())) == normalised(edit, fetch_from(reference))


@given(edited())
def test_what_vcf_writes_reads_back_as_the_same_edit(case):
    reference, edit = case
    fetch = fetch_from(reference)
    once = normalised(edit, fetch)
    assume(len(once.ref) < len(reference))  # a contig that is gone as a whole leaves no base to anchor at
    pos, ref, alt = as_vcf(once, fetch)
    assert ref
    assert alt
    assert reference[pos - 1 :].startswith(ref)
    written = edit_of(VcfRecord(b"", "1", pos, ref, (alt,), 1), 0)
    assert applied(reference, written) == applied(reference, once)
    if once.kind != "none":
        assert normalised(written, fetch) == once


@pytest.mark.parametrize("block", [1, 2, 3, 128])
@given(repeat=few_bases.filter(bool), copies=st.integers(1, 20), unit=st.integers(1, 8))
def test_the_block_size_changes_nothing(block, repeat, copies, unit):
    reference = b"G" + repeat * copies
    deletion = Edit(len(reference) - min(unit, len(reference) - 1), reference[-min(unit, len(reference) - 1) :], b"")
    kept, edits.FIRST_BLOCK = edits.FIRST_BLOCK, block
    try:
        assert left_aligned(deletion, fetch_from(reference)) == definition(reference, deletion)
    finally:
        edits.FIRST_BLOCK = kept


def test_a_long_repeat_is_crossed_in_few_fetches():
    reference = b"C" + b"A" * 1_000_000
    calls = []

    def fetch(start: int, end: int) -> bytes:
        calls.append(end - start)
        return reference[start:end]

    assert left_aligned(Edit(999_999, b"AA", b""), fetch) == Edit(1, b"AA", b"")
    assert len(calls) < 20


@pytest.mark.parametrize(
    ("ref", "alt", "kind"),
    [(b"A", b"A", "none"), (b"A", b"T", "snv"), (b"AC", b"TG", "mnv"), (b"A", b"AT", "insertion"),
     (b"AT", b"A", "deletion"), (b"AT", b"CGG", "delins")],
)  # fmt: skip
def test_the_kind_is_that_of_the_trimmed_edit(ref, alt, kind):
    assert trimmed(Edit(3, ref, alt)).kind == kind


def test_the_reference_has_the_last_word_where_ref_is_unknown():
    fetch = fetch_from(b"TTGRAA")
    insertion = normalised(Edit(2, b"N", b"NAC"), fetch)
    assert insertion == Edit(3, b"", b"AC")
    assert normalised(Edit(3, b"A", b"T"), fetch) == normalised(Edit(3, b"N", b"T"), fetch) == Edit(3, b"R", b"T")


@pytest.fixture
def spelled(data, tmp_path):
    """The open genome, and upstream's sequence alleles that agree with it: (contig, edit) each."""
    path, copy = data("variants/norm.vcf"), tmp_path / "norm.fa"
    copy.write_bytes(data("variants/norm.fa").read_bytes())
    found, mismatches = [], []
    with IndexedFasta(copy) as genome, SkippedRecords() as skipped, VcfReader(path, skipped=skipped) as reader:
        for record in reader:
            try:
                check_reference(record, genome, str(path))
            except DataError:
                mismatches.append(record.place)
                continue
            for index, allele in enumerate(alleles_of(record)):
                if type(allele) is SequenceAllele:
                    found.append((record.chrom, edit_of(record, index)))
        assert mismatches == ["1:60"]  # upstream's own mismatch case
        assert skipped.num_skipped == 1  # ALT 'I'
        yield genome, found


def test_norm_vcf_normalises_with_equal_haplotypes(spelled):
    genome, alleles = spelled
    assert len(alleles) == 35
    for contig, edit in alleles:
        fetch = fetcher(genome, contig)
        assert normalised(edit, fetch) == definition(fetch(0, genome.length(contig)).upper(), edit)


def test_norm_vcf_against_bcftools_norm(spelled, tmp_path):
    """bcftools leaves one common base at some delins; once that is trimmed, the edits are equal."""
    import pysam.bcftools

    genome, alleles = spelled
    lines = [f"##contig=<ID={name},length={length}>" for name, length in genome.lengths.items()]
    lines = ["##fileformat=VCFv4.2", *lines, "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for number, (contig, edit) in enumerate(alleles):
        lines.append(f"{contig}\t{edit.start + 1}\t{number}\t{edit.ref.decode()}\t{edit.alt.decode()}\t.\t.\t.")
    source, target = tmp_path / "in.vcf", tmp_path / "out.vcf"
    source.write_text("\n".join(lines) + "\n")
    pysam.bcftools.norm("-f", genome.path, "-o", str(target), str(source), catch_stdout=False)
    with VcfReader(target) as reader:
        theirs = {int(record.raw.split(b"\t")[2]): trimmed(edit_of(record, 0)) for record in reader}
    ours = {number: normalised(edit, fetcher(genome, contig)) for number, (contig, edit) in enumerate(alleles)}
    assert ours == theirs
