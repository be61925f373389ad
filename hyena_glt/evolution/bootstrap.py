"""Support of a tree's inner branches: blocks of the genomes drawn with replacement, a tree of each draw.

Without an alignment there are no columns to draw. Each genome is cut into the same number of equal blocks, and one
draw says how often block b counts in *every* genome: where genomes are collinear this is the bootstrap of alignment
columns, in blocks; where they are not, blocks of one number lie in different places, and distances vary more. What a
block costs, or shares, is measured against the whole other genome, once: a draw weighs these sums anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from hyena_glt.errors import ConfigError
from hyena_glt.evolution.comparison import Comparison
from hyena_glt.evolution.trees import Phylogeny, build_tree, inner_splits, leaf_splits

BLOCKS = 100  # stretches of each genome


def bootstrap_support(
    phylogeny: Phylogeny,
    comparison: Comparison,
    replicates: int = 100,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Put `support`, the share of drawn trees that have the same split, on the tree's inner nodes.

    Args:
        phylogeny: Of the comparison's own distances.
        comparison: In blocks; a single block cannot be drawn from.
        replicates: Draws.
        seed: Of the draws.
        advance: Told of each draw.

    Raises:
        ConfigError: No draws, or a comparison in one block.
    """
    if replicates < 1:
        raise ConfigError(f"replicates: expected 1 or more, got {replicates}")
    if comparison.blocks < 2:
        raise ConfigError("blocks: expected 2 or more to draw from, got 1; compare with blocks=100")
    generator = np.random.default_rng(seed)
    blocks, names = comparison.blocks, phylogeny.names
    seen: Counter[int] = Counter()
    for _ in range(replicates):
        weights = generator.multinomial(blocks, np.full(blocks, 1 / blocks))
        drawn = build_tree(comparison.distances(weights), phylogeny.method)
        seen.update(inner_splits(drawn.tree, names))
        advance(1)
    splits = leaf_splits(phylogeny.tree, names)
    for node in phylogeny.tree.non_tips(include_self=False):
        split = splits[id(node)]
        if 2 <= split.bit_count() <= len(names) - 2:
            node.support = seen[split] / replicates
