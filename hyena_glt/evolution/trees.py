"""Distances -> a tree: neighbour joining, or UPGMA, which assumes that all lineages change at one rate.

scikit-bio does the joining; it takes seconds to import, so it is loaded when a tree is asked for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyena_glt.errors import ConfigError, DataError, SystemProblem
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.sequences.atomic import atomic_write
from hyena_glt.sequences.quoting import quoted

METHODS = ("nj", "upgma")
ROOTS = ("none", "midpoint")
SPECIAL = set("()[]{}:;,='\"_")  # an unquoted underscore means a blank


@dataclass(frozen=True, slots=True, eq=False)
class Phylogeny:
    """A tree and how it came about. Inner nodes may carry `support`, a share in [0, 1]."""

    tree: Any  # skbio.TreeNode, leaves named as in the matrix
    names: tuple[str, ...]
    method: str  # nj or upgma
    is_rooted: bool
    num_negative: int  # branches whose length came out negative and was set to 0

    @property
    def newick(self) -> str:
        """The tree as text."""
        return to_newick(self.tree)


def build_tree(matrix: DistanceMatrix, method: str = "nj", *, root: str = "none") -> Phylogeny:
    """Join the names of a matrix into a tree.

    Args:
        matrix: The distances.
        method: "nj", an unrooted tree whose branches may differ in rate, or "upgma", a rooted one that assumes a clock.
        root: "midpoint" puts the root of an nj tree halfway between its two leaves that are farthest apart.

    Raises:
        ConfigError: An unknown method or root, or a root for upgma, which has one.
        SystemProblem: scikit-bio is not installed.
    """
    if method not in METHODS:
        raise ConfigError(f"method: expected {' or '.join(METHODS)}, got {method!r}")
    if root not in ROOTS:
        raise ConfigError(f"root: expected {' or '.join(ROOTS)}, got {root!r}")
    if method == "upgma" and root != "none":
        raise ConfigError("root: upgma has a root already; leave it out, or take nj")
    tree, num_negative = _joined(matrix, method)
    is_rooted = method == "upgma"
    if root == "midpoint":
        tree, is_rooted = rooted_at_midpoint(tree), True
    return Phylogeny(tree, matrix.names, method, is_rooted, num_negative)


def linkage(matrix: DistanceMatrix) -> NDArray[np.float64]:
    """SciPy's average linkage of the distances, `(names - 1, 4)`: the UPGMA merges, from the nearest on."""
    from scipy.cluster.hierarchy import linkage as scipy_linkage

    return scipy_linkage(matrix.condensed(), method="average")


def leaf_splits(tree: Any, names: tuple[str, ...]) -> dict[int, int]:
    """Which leaves each branch parts from the rest.

    Returns:
        `id(node)` -> bits of the leaves on the side of the branch above `node` that lacks the first name; branches to
        single leaves and those above a root with two children are told by the same bits.
    """
    bit = {name: 1 << i for i, name in enumerate(names)}
    everything = (1 << len(names)) - 1
    below: dict[int, int] = {}
    for node in tree.postorder(include_self=True):
        below[id(node)] = bit[node.name] if node.is_tip() else sum(below[id(child)] for child in node.children)
    return {key: everything ^ leaves if leaves & 1 else leaves for key, leaves in below.items()}


def inner_splits(tree: Any, names: tuple[str, ...]) -> set[int]:
    """The splits with two leaves or more on either side, as bits; see `leaf_splits`."""
    num = len(names)
    return {split for split in leaf_splits(tree, names).values() if 2 <= split.bit_count() <= num - 2}


def rooted_at_midpoint(tree: Any) -> Any:
    """The tree with its root halfway between its farthest leaves; as it is with two leaves or no lengths."""
    if tree.count(tips=True) < 3 or not any(node.length for node in tree.traverse(include_self=False)):
        return tree
    return tree.root_at_midpoint()


def to_newick(tree: Any) -> str:
    """Newick text of a tree: lengths to 9 digits, supports in percent, names quoted wherever a reader could err.

    Raises:
        DataError: A name with control characters, which no Newick reader keeps.
    """
    text: dict[int, str] = {}
    for node in tree.postorder(include_self=True):
        if node.is_tip():
            own = _quoted_label(node.name)
        else:
            support = getattr(node, "support", None)
            children = ",".join(text.pop(id(child)) for child in node.children)
            own = f"({children}){'' if support is None else f'{100 * support:.0f}'}"
        if node.parent is not None and node.length is not None:
            own += f":{_length(node.length)}"
        text[id(node)] = own
    return text[id(tree)] + ";"


def write_newick(path: str | os.PathLike[str], phylogeny: Phylogeny, *, overwrite: bool = False) -> None:
    """Write a tree as one line of Newick, whole or not at all; `-` is standard output.

    Raises:
        OutputExistsError: The file exists.
    """
    with atomic_write(path, "w", overwrite=overwrite) as handle:
        handle.write(phylogeny.newick + "\n")


def _quoted_label(name: str) -> str:
    if not name.isprintable():
        raise DataError(f"the name {quoted(name)} holds control characters, which Newick cannot carry; rename it")
    if name and not any(c in SPECIAL or c.isspace() for c in name):
        return name
    return "'" + name.replace("'", "''") + "'"


def _length(value: float) -> str:
    return np.format_float_positional(float(f"{value:.9g}"), trim="0")


def _joined(matrix: DistanceMatrix, method: str) -> tuple[Any, int]:
    skbio, trees = _skbio()
    numbers = [str(i) for i in range(len(matrix))]
    if len(matrix) == 2:
        half = matrix.values[0, 1] / 2
        tree = skbio.TreeNode(children=[skbio.TreeNode("0", length=half), skbio.TreeNode("1", length=half)])
    elif method == "nj":
        tree = trees.nj(skbio.DistanceMatrix(matrix.values, numbers), neg_as_zero=False)
    else:
        tree = trees.upgma(skbio.DistanceMatrix(matrix.values, numbers))
    num_negative = 0
    for node in tree.traverse(include_self=True):
        node.name = matrix.names[int(node.name)] if node.is_tip() else None
        if node.length is not None and node.length < 0:
            num_negative += node.length < -1e-12  # what is nearer to 0 is rounding
            node.length = 0.0
    return tree, num_negative


def _skbio() -> tuple[Any, Any]:
    try:
        import skbio
        import skbio.tree
    except ImportError:
        raise SystemProblem("trees need scikit-bio; install it with: pip install 'hyena-glt[tree]'") from None
    return skbio, skbio.tree
