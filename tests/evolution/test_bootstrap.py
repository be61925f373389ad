"""Support: high where the data speak, low where they do not, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from hyena_glt.errors import ConfigError
from hyena_glt.evolution.bootstrap import bootstrap_support
from hyena_glt.evolution.comparison import compare_genomes
from hyena_glt.evolution.genome import Genome
from hyena_glt.evolution.net_profiles import compare_with_net
from hyena_glt.evolution.trees import build_tree, leaf_splits

from .conftest import mutated, random_sequence

pytest.importorskip("skbio")


def supports(phylogeny):
    splits = leaf_splits(phylogeny.tree, phylogeny.names)
    inner = phylogeny.tree.non_tips()
    return {splits[id(node)]: node.support for node in inner if hasattr(node, "support")}


@pytest.mark.parametrize("metric", ["compression", "kmer"])
def test_true_splits_are_supported(family, metric):
    compared = compare_genomes(family, metric, blocks=50)
    found = build_tree(compared.distances())
    steps = []
    bootstrap_support(found, compared, 40, seed=1, advance=steps.append)
    assert len(steps) == 40
    assert set(supports(found)) == {0b11100, 0b01100}  # ab | cde, cd | abe
    assert min(supports(found).values()) >= 0.95
    assert ")100:" in found.newick


def test_a_star_is_not_supported():
    root = random_sequence(3000, 1)
    star = [Genome.of(str(i), mutated(root, 60, 10 + i)) for i in range(6)]
    compared = compare_genomes(star, "kmer", blocks=50)
    found = build_tree(compared.distances())
    bootstrap_support(found, compared, 60)
    assert np.mean(list(supports(found).values())) < 0.7


def test_the_seed_decides_and_a_root_does_not(family):
    compared = compare_genomes(family, "kmer", blocks=10)
    found = [build_tree(compared.distances(), root=root) for root in ("none", "none", "midpoint")]
    for phylogeny in found:
        bootstrap_support(phylogeny, compared, 10, seed=3)
    assert supports(found[0]) == supports(found[1])
    assert supports(found[0]).items() <= supports(found[2]).items()


def test_nets_have_blocks_too(family, net, patcher):
    compared = compare_with_net(family, net, patcher, blocks=20)
    found = build_tree(compared.distances())
    bootstrap_support(found, compared, 5)
    assert all(0 <= support <= 1 for support in supports(found).values())


def test_nothing_to_draw(family):
    compared = compare_genomes(family, "kmer")
    found = build_tree(compared.distances())
    with pytest.raises(ConfigError, match="blocks=100"):
        bootstrap_support(found, compared)
    with pytest.raises(ConfigError, match="replicates"):
        bootstrap_support(found, compared, 0)
