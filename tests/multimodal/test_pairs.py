"""Pairs hold what was checked by translating; every CDS is counted once."""

from __future__ import annotations

import pytest

from hyena_glt.multimodal.genetic_code import translate
from hyena_glt.multimodal.pairs import CodingPair, read_pairs

RECORD = """LOCUS       TEST                  21 bp    DNA     linear   SYN 01-JAN-2000
FEATURES             Location/Qualifiers
     CDS             1..9
                     /gene="good"
                     /translation="MA"
     CDS             complement(13..21)
                     /gene="edited"
                     /exception="RNA editing"
                     /translation="MV"
     CDS             1..12
                     /gene="longer"
                     /translation="MA"
     CDS             1..9
                     /gene="untold"
     CDS             1..9
                     /gene="broken"
                     /pseudo
     CDS             1..8
                     /gene="open"
ORIGIN
        1 atggcttgac cctcaagcca t
//
"""


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "made.gb"
    path.write_text(RECORD)
    return path


def test_each_feature_is_counted_once(made):
    found = read_pairs([made])
    assert [pair.name for pair in found.pairs] == ["TEST:good"]
    assert len(found.pairs) + found.untranslated + len(found.mismatches) == found.num_coding == 6
    assert found.num_own == 0


def test_a_mismatch_says_where_and_how(made):
    edited, longer = read_pairs([made]).mismatches
    assert edited.endswith(
        "made.gb:6 (TEST:edited): 1 residues differ, first A for V at 2 (the feature has /exception)"
    )
    assert longer.endswith("made.gb:10 (TEST:longer): translating gives 4 residues, stored are 2")


def test_missing_proteins_are_translated_only_where_the_gene_reads_whole(made):
    found = read_pairs([made], translate_missing=True)
    assert [pair.name for pair in found.pairs] == ["TEST:good", "TEST:untold"]
    assert (found.num_own, found.untranslated) == (1, 2)
    assert found.pairs[1].protein == b"MA"


def test_a_crop_keeps_codons_and_residues_together():
    pair = CodingPair("a", b"ATGGCTTGGAAA", b"MAWK", 1)
    crop = pair.crop(1, 2)
    assert (crop.dna, crop.protein) == (b"GCTTGG", b"AW")


@pytest.mark.parametrize(
    ("name", "num_coding", "num_pairs", "mismatches"),
    [
        ("genomes/mgenitalium_NC_000908.2.gb.gz", 521, 504, 0),
        ("genomes/phix174_NC_001422.gbk", 11, 11, 0),
        ("protein_rna/arabidopsis_chloroplast_NC_000932.gb.gz", 85, 84, 1),
    ],
)
def test_translating_gives_the_stored_proteins(data, name, num_coding, num_pairs, mismatches):
    found = read_pairs([data(name)])
    assert (found.num_coding, len(found.pairs), len(found.mismatches)) == (num_coding, num_pairs, mismatches)
    for pair in found.pairs:
        assert len(pair.dna) == 3 * len(pair.protein)
        assert translate(pair.dna, pair.transl_table)[1:] == pair.protein[1:]


def test_yeast_has_no_stored_proteins_and_reads_whole_with_introns(data):
    path = data("genomes/yeast_chrI_NC_001133.gbk.gz")
    assert read_pairs([path]).untranslated == 94
    found = read_pairs([path], translate_missing=True)
    assert found.num_own == len(found.pairs) == 94
