from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from hyena_glt.errors import ConfigError, OutputExistsError, SystemProblem
from hyena_glt.sequences.alphabets import reverse_complement, soft_mask
from hyena_glt.sequences.annotations import read_gff
from hyena_glt.sequences.fasta import read_records
from hyena_glt.sequences.simulate import generate_random_genomic_sequence, simulate_genome

STOPS = {b"TAA", b"TGA", b"TAG"}


@pytest.fixture(scope="module")
def genome():
    return simulate_genome()


def bases(genome, feature) -> bytes:
    (record,) = (record for record in genome.records if record.name == feature.contig)
    found = record.sequence[feature.start : feature.end]
    return reverse_complement(found) if feature.strand == "-" else found


def of_kind(genome, kind: str):
    return [feature for feature in genome.features if feature.kind == kind]


def test_a_seed_gives_the_same_genome_everywhere(genome):
    text = b"".join(record.sequence for record in genome.records)
    assert hashlib.sha256(text).hexdigest() == "2bea94e563fda9d72c2edba95c7b818862e610ee2be07c9921aa27835e8988e2"
    assert simulate_genome() == genome
    assert simulate_genome(seed=8).records[0].sequence != genome.records[0].sequence


@pytest.mark.parametrize("length", [4_000, 9_999, 200_000])
def test_the_contigs_have_the_length_asked_for(length):
    genome = simulate_genome(length=length)
    assert sum(len(record.sequence) for record in genome.records) == length
    assert len(genome.records) == 2


def test_genes_of_both_strands_are_open_reading_frames(genome):
    genes = of_kind(genome, "gene")
    strands = Counter(feature.strand for feature in genes)
    assert min(strands["+"], strands["-"]) > 40
    for gene in genes:
        frame = bases(genome, gene)
        codons = [frame[i : i + 3] for i in range(0, len(frame), 3)]
        assert codons[0] == b"ATG"
        assert codons[-1] in STOPS
        assert not STOPS & set(codons[:-1])


def test_every_gene_has_its_coding_sequence(genome):
    places = [(f.contig, f.start, f.end, f.strand, f.name) for f in of_kind(genome, "gene")]
    assert places == [(f.contig, f.start, f.end, f.strand, f.name) for f in of_kind(genome, "CDS")]
    assert {f.phase for f in of_kind(genome, "CDS")} == {0}


def test_codon_usage_is_biased(genome):
    frames = [bases(genome, gene) for gene in of_kind(genome, "gene")]
    counts = Counter(frame[i : i + 3] for frame in frames for i in range(3, len(frame) - 3, 3))
    assert counts[b"CTG"] > 10 * counts[b"CTA"]
    assert len(counts) > 55


def test_features_do_not_overlap_but_gene_and_cds(genome):
    for record in genome.records:
        covered = np.zeros(len(record.sequence), int)
        for feature in genome.features:
            if feature.contig == record.name and feature.kind != "CDS":
                covered[feature.start : feature.end] += 1
        assert covered.max() == 1


def test_copies_of_a_repeat_differ_in_about_five_percent_of_their_bases(genome):
    copies: dict[str, list[bytes]] = {}
    for feature in of_kind(genome, "dispersed_repeat"):
        copies.setdefault(feature.name, []).append(bases(genome, feature))
    assert set(copies) == {"family1", "family2"}
    for family in copies.values():
        assert len(family) >= 5
        rows = np.array([list(copy) for copy in family])
        difference = np.mean([(a != b).mean() for i, a in enumerate(rows) for b in rows[:i]])
        assert 0.07 < difference < 0.12  # two copies, each 5% from the family


def test_exactly_the_repeats_are_soft_masked(genome):
    for record in genome.records:
        expected = np.zeros(len(record.sequence), bool)
        for feature in genome.features:
            if feature.contig == record.name and feature.kind not in ("gene", "CDS", "gap"):
                expected[feature.start : feature.end] = True
        assert np.array_equal(soft_mask(record.sequence), expected)
        assert 0.03 < expected.mean() < 0.3


def test_each_contig_has_one_run_of_n(genome):
    gaps = of_kind(genome, "gap")
    assert [gap.contig for gap in gaps] == ["sim_chr1", "sim_plasmid"]
    for gap, record in zip(gaps, genome.records, strict=True):
        assert gap.end - gap.start > 50
        assert set(bases(genome, gap)) == {ord("N")}
        assert record.sequence.count(b"N") == gap.end - gap.start


def test_the_written_files_are_read_back_as_they_are(tmp_path, genome):
    fasta, gff = genome.write_genome(tmp_path / "demo")
    assert list(read_records(fasta)) == genome.records
    assert read_gff(gff) == genome.features
    with pytest.raises(OutputExistsError):
        genome.write_genome(tmp_path / "demo")
    genome.write_genome(tmp_path / "demo", overwrite=True)
    with pytest.raises(SystemProblem, match="cannot write"):
        genome.write_genome(fasta / "below")


def test_random_sequences_are_seeded_and_even():
    sequence = generate_random_genomic_sequence(40_000, seed=3)
    assert sequence == generate_random_genomic_sequence(40_000, seed=3)
    assert sequence != generate_random_genomic_sequence(40_000, seed=4)
    counts = Counter(sequence)
    assert set(counts) == set("ACGT")
    assert max(counts.values()) - min(counts.values()) < 800  # over five standard deviations
    assert sequence[:12] == "AATGACCAGACG"
    assert generate_random_genomic_sequence(0, seed=1) == ""


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="length >= 4,000"):
        simulate_genome(length=100)
    with pytest.raises(ConfigError, match="seed >= 0"):
        simulate_genome(seed=-1)
    with pytest.raises(ConfigError, match="length >= 0"):
        generate_random_genomic_sequence(-1, 0)
