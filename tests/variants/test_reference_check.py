"""REF is compared with the reference by one rule."""

from __future__ import annotations

import pytest

from hyena_glt.errors import DataError
from hyena_glt.sequences.indexed_fasta import IndexedFasta
from hyena_glt.variants.reference_check import CODES, bases_agree, check_reference, fetcher
from hyena_glt.variants.vcf_reader import VcfReader
from hyena_glt.variants.vcf_records import VcfRecord


@pytest.fixture
def genome(tmp_path):
    path = tmp_path / "ref.fa"
    path.write_text(">chr1\nACGTacgtRN\n>chr2\nUUUU\n")
    with IndexedFasta(path) as opened:
        yield opened


def record(pos: int, ref: bytes, chrom: str = "chr1") -> VcfRecord:
    return VcfRecord(b"", chrom, pos, ref, (b"T",), 7)


@pytest.mark.parametrize(
    ("pos", "ref"),
    [(1, b"ACGT"), (3, b"gtACG"), (9, b"A"), (9, b"g"), (10, b"C"), (10, b"N"), (2, b"N"), (0, b"N"), (11, b"N")],
)
def test_soft_mask_iupac_n_and_telomeres_agree(genome, pos, ref):
    check_reference(record(pos, ref), genome, "x.vcf")


def test_u_is_t(genome):
    check_reference(record(1, b"TT", "chr2"), genome, "x.vcf")


@pytest.mark.parametrize(
    ("pos", "ref", "chrom", "words"),
    [
        (2, b"GG", "chr1", "REF is 'GG' but the reference has 'CG'"),
        (9, b"C", "chr1", "REF is 'C' but the reference has 'R'"),
        (10, b"NA", "chr1", "past the end of the contig, which has 10 bases"),
    ],
)
def test_a_mismatch_names_place_and_way_out(genome, pos, ref, chrom, words):
    with pytest.raises(DataError) as caught:
        check_reference(record(pos, ref, chrom), genome, "x.vcf")
    assert str(caught.value).startswith(f"x.vcf:7 ({chrom}:{pos}): ")
    assert words in str(caught.value)
    assert str(caught.value).endswith("is this the right assembly?")


def test_a_contig_is_never_guessed(genome):
    with pytest.raises(DataError, match=r"x\.vcf:7 \(1:1\): unknown contig '1'; did you mean 'chr1'\?.*--rename-chrs"):
        check_reference(record(1, b"A", "1"), genome, "x.vcf")


def test_letters_agree_if_they_share_a_base():
    for one, left in CODES.items():
        for other, right in CODES.items():
            assert bases_agree(one.encode(), other.lower().encode()) == bool(set(left) & set(right))
    assert not bases_agree(b"A", b"AA")
    assert not bases_agree(b"-", b"A")


def test_fetcher_reads_one_contig(genome):
    assert fetcher(genome, "chr1")(2, 6) == b"GTac"


@pytest.mark.parametrize(
    ("variants", "reference", "number"),
    [
        ("BRCA1_SGE_GRCh37_region.vcf.gz", "BRCA1_GRCh37_chr17_41100001-41300000.fa.gz", 3893),
        ("sarscov2_simple.vcf", "EMN908947.fa", 1),
    ],
)
def test_real_calls_agree_with_their_reference(data, tmp_path, variants, reference, number):
    import gzip

    path, raw = data(f"variants/{variants}"), data(f"variants/{reference}").read_bytes()
    copy = tmp_path / "ref.fa"
    copy.write_bytes(gzip.decompress(raw) if reference.endswith(".gz") else raw)
    with IndexedFasta(copy) as genome, VcfReader(path) as reader:
        for found in reader:
            check_reference(found, genome, str(path))
    assert reader.num_records == number
