from __future__ import annotations

from itertools import accumulate

from hyena_glt.reports.features import LaneFeature, features_payload, lane_features, longest
from hyena_glt.sequences.annotations import Feature, read_gff


def feature(start, end, kind="gene", name="x", strand="+"):
    return Feature(contig="chr1", start=start, end=end, strand=strand, kind=kind, name=name, phase=None, line=1)


def test_rows_of_one_gene_become_one_arrow():
    rows = [feature(10, 40, "gene", "dnaN"), feature(10, 40, "CDS", "WP_1"), feature(10, 40, "mRNA", "rna-1")]
    assert lane_features(rows, 0, 100) == [LaneFeature(10, 40, "+", "CDS", "dnaN")]


def test_the_kind_that_says_most_is_kept():
    rows = [feature(1, 9, "gene", "trnA"), feature(1, 9, "exon", ""), feature(1, 9, "tRNA", "rna-trnA")]
    assert lane_features(rows, 0, 100) == [LaneFeature(1, 9, "+", "tRNA", "trnA")]
    rows = [feature(1, 9, "pseudogene", "p"), feature(1, 9, "CDS", "cds-p")]
    assert lane_features(rows, 0, 100)[0].kind == "pseudogene"


def test_parts_are_left_to_their_gene_and_drawn_without_one():
    exons = [feature(10, 20, "exon"), feature(30, 40, "CDS")]
    assert [f.kind for f in lane_features([feature(10, 40), *exons], 0, 100)] == ["gene"]
    assert [f.kind for f in lane_features(exons, 0, 100)] == ["exon", "CDS"]
    assert [f.kind for f in lane_features([*exons, feature(5, 45, "mRNA")], 0, 100)] == ["mRNA"]


def test_what_no_gene_of_its_strand_holds_is_drawn():
    rows = [
        feature(10, 40),
        feature(50, 60, "tRNA"),
        feature(20, 30, "CDS", strand="-"),
        feature(35, 45, "CDS"),
    ]
    drawn = [(f.kind, f.start, f.strand) for f in lane_features(rows, 0, 100)]
    assert drawn == [("gene", 10, "+"), ("CDS", 20, "-"), ("CDS", 35, "+"), ("tRNA", 50, "+")]


def test_the_sequence_itself_is_no_feature_and_repeats_stand_alone():
    rows = [feature(0, 100, "region"), feature(5, 9, "repeat_region"), feature(20, 50)]
    assert [f.kind for f in lane_features(rows, 0, 100)] == ["repeat_region", "gene"]


def test_features_are_moved_and_clipped_to_the_track():
    rows = [feature(90, 120), feature(150, 160), feature(190, 230), feature(0, 100), feature(200, 210)]
    assert [(f.start, f.end) for f in lane_features(rows, 100, 100)] == [(0, 20), (50, 60), (90, 100)]


def test_an_unknown_strand_is_none():
    assert lane_features([feature(1, 5, strand="?")], 0, 10)[0].strand == "."


def test_the_longest_stay_in_their_order():
    features = [LaneFeature(i, i + size, "+", "gene", str(i)) for i, size in enumerate([3, 9, 1, 5])]
    assert [f.name for f in longest(features, 2)] == ["1", "3"]
    assert longest(features, 4) is features


def test_columns_hold_every_feature():
    features = [LaneFeature(5, 9, "+", "gene", "a"), LaneFeature(7, 30, "-", "tRNA", "b")]
    columns = features_payload(features)
    starts = list(accumulate(columns["steps"]))
    ends = [start + length for start, length in zip(starts, columns["lengths"], strict=True)]
    kinds = [columns["kinds"][i] for i in columns["kind"]]
    back = map(LaneFeature, starts, ends, columns["strands"], kinds, columns["names"])
    assert list(back) == features


def test_a_real_annotation_gives_one_arrow_per_gene(data):
    features = read_gff(data("genomes/mgenitalium_NC_000908.2.gff.gz"))
    genes = {(f.start, f.end, f.strand) for f in features if f.kind in ("gene", "pseudogene")}
    drawn = lane_features(features, 0, 580_076)
    assert {(f.start, f.end, f.strand) for f in drawn} >= genes
    assert next(f for f in drawn if f.start == 685).name == "dnaN"
    assert sum(f.kind == "tRNA" for f in drawn) == 36
