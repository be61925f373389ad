"""How far genomes are from each other, without alignment, and the trees that follow.

genome.py                 a genome: contigs, codes, a hash
relative_cost.py          letters of one genome that the other does not explain: metric `compression`
relative_cost_kernels.py  the loop beneath it
kmers.py                  shared canonical words: metric `kmer`
net_profiles.py           patch states and patch lengths of a net: `representation`, `wasserstein`, `combined`
comparison.py             genomes -> rows of block sums -> distances, resampled or not
matrix.py                 a square of distances under names, checked
matrix_files.py           PHYLIP and TSV, in and out
trees.py                  distances -> neighbour joining or UPGMA, rooting, Newick
bootstrap.py              blocks drawn with replacement -> support of the inner branches
figures.py                heat map and tree
analyzer.py               `EvolutionaryAnalyzer`

genomes -> block sums -> distances -> tree with support -> Newick, PHYLIP, figures
"""

from hyena_glt._lazy import lazy_exports

_MODULES = {
    "Comparison": ".comparison",
    "DistanceMatrix": ".matrix",
    "EvolutionaryAnalyzer": ".analyzer",
    "Genome": ".genome",
    "Phylogeny": ".trees",
    "bootstrap_support": ".bootstrap",
    "build_tree": ".trees",
    "compare_genomes": ".comparison",
    "compare_with_net": ".net_profiles",
    "draw_heat_map": ".figures",
    "draw_tree": ".figures",
    "genome_distances": ".comparison",
    "read_distances": ".matrix_files",
    "to_newick": ".trees",
    "write_figure": ".figures",
    "write_phylip": ".matrix_files",
    "write_tsv": ".matrix_files",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
