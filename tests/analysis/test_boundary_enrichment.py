"""Boundaries against annotation: planted ties are found, chance is not, and each site is where a GFF says."""

from __future__ import annotations

import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyena_glt.analysis import BoundaryEnrichment, write_enrichment
from hyena_glt.analysis.boundary_enrichment import BIT, SITES, coding_sequences, count_shifted, site_bits
from hyena_glt.entropies import MarkovEntropy, MixEntropy
from hyena_glt.errors import AnnotationError, ConfigError, PatchingError
from hyena_glt.patching import Scanner, ScanRule, calibrate_threshold
from hyena_glt.sequences.annotations import Feature, read_gff


def feature(start, end, strand="+", kind="CDS", name="", phase=0, line=1, contig="c"):
    return Feature(contig, start, end, strand, kind, name, phase if kind == "CDS" else None, line)


def genes(length):
    """Coding sequences on alternating strands, of all lengths and distances, as in a genome."""
    random = np.random.default_rng(11)
    features, at = [], 97
    while at + 700 < length:
        size = 3 * int(random.integers(60, 220))
        features.append(feature(at, at + size, "+-"[len(features) % 2], name=f"g{at}", line=len(features)))
        at += size + int(random.integers(20, 200))
    return features


def rows_of(features, length, starts, **options):
    enrichment = BoundaryEnrichment(features, **options)
    enrichment.add("c", length, starts)
    return {row.site: row for row in enrichment.table()}


def sites_slowly(features, length, window):
    """Each site as a set of bases, base by base."""
    found = {site: set() for site in SITES}
    frames = [set() for _ in range(length)]
    for f in features:
        if f.kind == "repeat_region":
            found["repeats"] |= {base % length for base in range(f.start, f.end)}
        if f.kind != "CDS":
            continue
        bases = list(range(f.start, f.end))
        found["coding"] |= {base % length for base in bases}
        if f.strand not in "+-":
            continue
        read = bases if f.strand == "+" else bases[::-1]
        for place, base in enumerate(read):
            frames[base % length].add((place - f.phase) % 3)
        reach = max([length, *(g.end for g in features)])
        for site, base in (("gene_start", read[0]), ("gene_stop", read[-1])):
            found[site] |= {b % length for b in range(max(base - window, 0), min(base + window + 1, reach))}
    for base, places in enumerate(frames):
        if len(places) == 1:
            found[f"codon_phase_{places.pop()}"].add(base)
    found["noncoding"] = set(range(length)) - found["coding"]
    return found


@st.composite
def annotated(draw):
    length = draw(st.integers(20, 80))
    features = []
    for line in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, length - 1))
        end = draw(st.integers(start + 1, start + min(length, 30)))
        kind = draw(st.sampled_from(["CDS", "CDS", "repeat_region", "gene", "exon"]))
        features.append(feature(start, end, draw(st.sampled_from("+-.")), kind, "", draw(st.integers(0, 2)), line))
    return length, features


@given(annotated(), st.integers(0, 9))
@settings(deadline=None)
def test_each_base_belongs_to_the_sites_that_the_definition_says(genome, window):
    length, features = genome
    bits, slow = site_bits(features, length, window), sites_slowly(features, length, window)
    for site in SITES:
        assert set(np.flatnonzero(bits & BIT[site]).tolist()) == slow[site], site


@given(annotated(), st.data())
@settings(deadline=None)
def test_counts_of_shifted_boundaries_are_those_of_a_loop(genome, data):
    length, features = genome
    bits = site_bits(features, length, 2)
    places = np.array(sorted(data.draw(st.sets(st.integers(0, length - 1)))), np.int64)
    shifts = np.array(data.draw(st.lists(st.integers(0, length), min_size=1, max_size=4)), np.int64)
    for shift, counts in zip(shifts, count_shifted(bits, places, shifts), strict=True):
        assert counts.tolist() == np.bincount(bits[(places + shift) % length], minlength=256).tolist()


def test_planted_boundaries_are_found():
    length = 200_000
    features = genes(length)
    background = np.random.default_rng(1).random(length) < 1 / 20
    plus = [f.start for f in features if f.strand == "+"]
    minus = [f.end - 1 for f in features if f.strand == "-"]
    background[plus + minus] = True
    for f in features:
        codons = np.arange(f.start + 2, f.end, 3) if f.strand == "+" else np.arange(f.end - 3, f.start - 1, -3)
        background[codons] = False  # no patch begins at the third base of a codon
    rows = rows_of(features, length, np.flatnonzero(background), window=3)
    assert rows["gene_start"].z > 5
    assert rows["gene_start"].ratio > 1.5
    assert rows["codon_phase_2"].z < -5
    assert rows["codon_phase_2"].observed == 0
    assert rows["codon_phase_1"].ratio > 1
    assert abs(rows["gene_stop"].z) < 4
    assert rows["gene_start"].p == pytest.approx(1 / 1001)


def test_boundaries_at_random_show_nothing():
    length = 300_000
    features = [*genes(length), feature(1000, 9000, ".", "repeat_region"), feature(50_000, 50_900, kind="LTR")]
    scores = []
    for seed in range(12):
        starts = np.flatnonzero(np.random.default_rng(seed).random(length) < 1 / 16)
        rows = rows_of(features, length, starts, seed=seed, num_shifts=300)
        assert set(rows) == set(SITES)
        scores += [row.z for row in rows.values()]
    assert np.abs(scores).max() < 4
    assert 0.7 < np.sqrt(np.mean(np.square(scores))) < 1.4  # the null is as wide as chance is


def test_the_null_is_the_mean_rate_and_keeps_no_frame():
    length = 100_000
    features = genes(length)
    every_codon = np.concatenate([np.arange(f.start, f.end, 3) for f in features if f.strand == "+"])
    rows = rows_of(features, length, every_codon)
    assert rows["codon_phase_0"].observed == every_codon.size
    for place in range(3):
        row = rows[f"codon_phase_{place}"]
        assert row.expected == pytest.approx(every_codon.size * row.bases / length, rel=0.05)


def test_contigs_add_up_in_any_order_and_those_without_features_are_counted():
    random = np.random.default_rng(5)
    features = [feature(10 + 50 * i, 40 + 50 * i, contig=name) for name in "ab" for i in range(20)]
    starts = {name: np.flatnonzero(random.random(2000) < 0.1) for name in "abx"}
    tables = []
    for order in ("abx", "xba"):
        enrichment = BoundaryEnrichment(features, num_shifts=50)
        for name in order:
            enrichment.add(name, 2000, starts[name])
        tables.append(enrichment.summary())
    assert tables[0] == tables[1]
    assert (tables[0]["contigs"], tables[0]["contigs_without_features"], tables[0]["bases"]) == (2, 1, 4000)
    assert tables[0]["boundaries"] == sum(int((starts[name] > 0).sum()) for name in "ab")
    assert json.loads(json.dumps(tables[0])) == tables[0]
    other = BoundaryEnrichment(features, num_shifts=50, seed=1)
    other.add("a", 2000, starts["a"])
    assert other.table() != tables[0]["rows"]


def test_segments_of_one_coding_sequence_have_one_start_and_one_stop():
    spliced = [
        feature(100, 400, kind="gene", line=1),
        feature(110, 150, name="p", phase=0, line=2),
        feature(200, 261, name="p", phase=2, line=3),
        feature(500, 560, name="IS", line=4),
        feature(580, 640, "-", name="IS", line=5),
        feature(700, 760, name="", line=6),
        feature(770, 830, name="", line=7),
        feature(900, 960, name="broken", line=8),
        feature(900, 960, kind="pseudogene", line=9),
    ]
    found = [[segment.line for segment in segments] for segments in coding_sequences(spliced)]
    assert found == [[2, 3], [4], [5], [6], [7]]
    bits = site_bits(spliced, 1000, 0)
    assert np.flatnonzero(bits & BIT["gene_start"]).tolist() == [110, 500, 639, 700, 770]
    assert np.flatnonzero(bits & BIT["gene_stop"]).tolist() == [260, 559, 580, 759, 829]
    assert np.flatnonzero(bits & BIT["codon_phase_0"])[12:16].tolist() == [146, 149, 202, 205]


def test_one_name_in_two_genes_is_two_coding_sequences():
    copies = [
        feature(0, 90, kind="gene", line=1),
        feature(0, 90, name="WP", line=2),
        feature(200, 290, kind="gene", line=3),
        feature(200, 290, name="WP", line=4),
    ]
    assert len(coding_sequences(copies)) == 2


def test_the_table_is_written_with_a_header():
    rows = list(rows_of([feature(30, 60)], 200, np.arange(0, 200, 7), num_shifts=30).values())
    text = io.StringIO()
    write_enrichment(rows, text)
    lines = [line.split("\t") for line in text.getvalue().splitlines()]
    assert lines[0] == ["site", "bases", "observed", "expected", "ratio", "z", "p"]
    assert [line[0] for line in lines[1:]] == [row.site for row in rows]
    assert int(lines[1][2]) == rows[0].observed
    empty = rows_of([feature(30, 60)], 200, np.array([0]), num_shifts=30)["coding"]
    assert (empty.ratio, empty.z, empty.p) == (None, None, 1.0)
    text = io.StringIO()
    write_enrichment([empty], text)
    assert text.getvalue().splitlines()[1] == "coding\t30\t0\t0\t.\t.\t1"


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (np.array([[1]]), "one-dimensional"),
        (np.array([1.0]), "integers"),
        ([1, 2], "array of integers"),
        (np.array([1, 100]), "0 to 99"),
        (np.array([-1, 5]), "0 to 99"),
        (np.array([5, 5]), "increasing"),
    ],
)
def test_starts_of_another_form_are_refused(starts, message):
    with pytest.raises(PatchingError, match=message):
        BoundaryEnrichment([feature(3, 9)]).add("c", 100, starts)


def test_a_wrong_annotation_is_named():
    starts = np.arange(0, 100, 9)
    with pytest.raises(AnnotationError, match=r"line 7 \(c\): CDS 101-120 does not fit a contig of 100 bases"):
        BoundaryEnrichment([feature(100, 120, line=7)]).add("c", 100, starts)
    enrichment = BoundaryEnrichment([feature(3, 9, contig="chr1")])
    enrichment.add("1", 100, starts)
    with pytest.raises(AnnotationError, match=r"contigs patched \(1\), got those of chr1"):
        enrichment.table()
    with pytest.raises(PatchingError, match="'1' again"):
        enrichment.add("1", 100, starts)
    with pytest.raises(ConfigError, match="window, num_shifts, seed"):
        BoundaryEnrichment([], window=-1)


def starts_at_mean(entropies, target, cap):
    threshold = calibrate_threshold([entropies], target_mean_length=target, max_patch_length=cap)
    scanner = Scanner(ScanRule("threshold", threshold, max_patch_length=cap))
    lengths = np.concatenate([scanner.feed(entropies), scanner.finish()])
    return np.cumsum(lengths) - lengths


def test_entropy_patches_of_a_bacterium_follow_its_codons(data):
    with gzip.open(data("genomes/mgenitalium_NC_000908.2.fa.gz")) as handle:
        sequence = b"".join(handle.read().split(b"\n")[1:])
    features = read_gff(data("genomes/mgenitalium_NC_000908.2.gff.gz"))
    starts = starts_at_mean(MarkovEntropy.fit([sequence]).entropies(sequence), 16, None)
    enrichment = BoundaryEnrichment(features, window=5)
    enrichment.add("NC_000908.2", len(sequence), starts)
    rows = {row.site: row for row in enrichment.table()}
    assert "repeats" not in rows
    assert rows["codon_phase_2"].z < -10
    assert rows["codon_phase_0"].ratio / rows["codon_phase_2"].ratio > 1.5
    assert 1.05 < rows["gene_start"].ratio < 1.3
    assert rows["gene_start"].z > 2


def test_copies_far_apart_are_seen_by_the_match_model_alone():
    random = np.random.default_rng(2)
    bases = random.choice(np.frombuffer(b"ACGT", np.uint8), 200_000, p=[0.3, 0.2, 0.2, 0.3])
    features = []
    for number, at in enumerate(range(100_000, 190_000, 9_000)):
        bases[at : at + 1500] = bases[at - 95_000 : at - 93_500]
        changed = at + random.integers(0, 1500, 45)
        bases[changed] = random.choice(np.frombuffer(b"ACGT", np.uint8), 45)
        features.append(feature(at, at + 1500, ".", "dispersed_repeat", line=number))
    sequence = bases.tobytes()
    ratios = []
    for model, cap in ((MarkovEntropy.fit([sequence]), None), (MixEntropy(), 64)):
        starts = starts_at_mean(model.entropies(sequence), 16, cap)
        ratios.append(rows_of(features, len(sequence), starts)["repeats"].ratio)
    assert ratios[0] == pytest.approx(1, abs=0.1)
    assert ratios[1] < 0.5
