"""Trees without alignment of real genomes against trees that are known."""

from __future__ import annotations

import pytest

from hyena_glt.evolution import Genome, build_tree, genome_distances
from hyena_glt.sequences.fasta import read_records

SETS = [  # sequences, reference tree, its normalised Robinson-Foulds distance from k-mers of 11 by sourmash
    ("mammal_mtDNA_7.fasta.gz", "mammal_mtDNA_7.accepted.nwk", 0.0),
    ("h3n2_na_20.fasta", "h3n2_na_20.nwk", 0.1875),
    ("primate_brca1.fasta", "primate_brca1.tree", 0.25),
    ("zika.fasta.gz", "zika.nwk", 21 / 71),
]


@pytest.mark.parametrize(("fasta", "reference", "by_kmers"), SETS)
def test_relative_compression_is_as_near_to_the_reference_tree_as_kmers(data, fasta, reference, by_kmers):
    skbio = pytest.importorskip("skbio")
    records = read_records(data(f"phylo/{fasta}"), degap=True)
    genomes = [Genome.of(record.name, record.sequence) for record in records]
    tree = build_tree(genome_distances(genomes)).tree
    expected = skbio.TreeNode.read(str(data(f"phylo/{reference}")), convert_underscores=False)
    assert tree.compare_rfd(expected, proportion=True) <= by_kmers
