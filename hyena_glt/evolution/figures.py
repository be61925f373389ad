"""Distances as a heat map, and a tree drawn from left to right; matplotlib (extra `plot`) is loaded when asked for."""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.evolution.trees import Phylogeny, leaf_splits, linkage, rooted_at_midpoint
from hyena_glt.sequences.figure_files import write_figure_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 44  # characters shown
STYLE = {"font.size": 9, "font.family": "DejaVu Sans"}
LINE, SUPPORT_COLOUR, GUIDE = "#22313f", "#0b5394", "#c9ced6"
LOW_SUPPORT = 0.5  # a support below it is not written


def write_figure(
    path: str | os.PathLike[str], what: DistanceMatrix | Phylogeny, title: str, *, overwrite: bool = False
) -> None:
    """Draw distances or a tree into a file, in the format that its suffix names; the same input gives the same bytes.

    Raises:
        ConfigError: Another suffix than .png, .svg or .pdf.
        MissingExtraError: matplotlib is not installed.
        OutputExistsError: The file exists.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        draw = partial(draw_heat_map, what) if isinstance(what, DistanceMatrix) else partial(draw_tree, what)
        write_figure_file(path, partial(draw, title), STYLE, overwrite=overwrite)


def draw_heat_map(matrix: DistanceMatrix, title: str) -> Figure:
    """Distances as colours, near names side by side; numbers in the cells of up to 12 names."""
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import leaves_list

    order = leaves_list(linkage(matrix))
    values = matrix.values[np.ix_(order, order)]
    names = [_shown(matrix.names[i]) for i in order]
    count = len(names)
    size, letters = _sizes(count)
    margin = 0.075 * letters / 8 * max(map(len, names)) + 0.25  # inches that the longest name takes
    side = max(size, 2.4)
    figure = Figure(figsize=(margin + side + 1.3, side + margin + 0.7))
    width, height = figure.get_size_inches()
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    image = axes.imshow(values, cmap="viridis", vmin=0.0, vmax=values.max() or 1.0, interpolation="nearest")
    axes.set_xticks(range(count), names, rotation=90, fontsize=letters, parse_math=False)
    axes.set_yticks(range(count), names, fontsize=letters, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if count <= 12:
        _write_cells(axes, values)
    bar_axes = figure.add_axes(((margin + side + 0.2) / width, margin / height, 0.18 / width, side / height))
    bar = figure.colorbar(image, cax=bar_axes)
    bar.outline.set_visible(False)
    bar.set_label("distance")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    return figure


def draw_tree(phylogeny: Phylogeny, title: str) -> Figure:
    """A tree from left to right, branch lengths to scale, larger groups below; supports of 50% and more are written.

    A tree without a root is drawn from its midpoint, and the title says so.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    tree = phylogeny.tree.copy()
    if not phylogeny.is_rooted:
        tree, title = rooted_at_midpoint(tree), f"{title} (no root; drawn from the midpoint)"
    _keep_supports(phylogeny.tree, tree, phylogeny.names)
    places, lines = _layout(tree)
    tips = list(tree.tips())
    deepest = max(places[id(node)][0] for node in tips) or 1.0
    size, letters = _sizes(len(tips))
    names = {id(node): _shown(node.name) for node in tips}
    margin = 0.075 * letters / 8 * max(map(len, names.values())) + 0.3
    height = max(0.9 * size, 1.2) + 1.0
    figure = Figure(figsize=(5.2 + margin, height))
    width = figure.get_size_inches()[0]
    axes = figure.add_axes((0.25 / width, 0.55 / height, 4.95 / width, 1 - 1.0 / height))
    guides = [[places[id(node)], (deepest * 1.01, places[id(node)][1])] for node in tips]
    axes.add_collection(LineCollection(guides, colors=GUIDE, linewidths=0.5, linestyles="dotted"))
    axes.add_collection(LineCollection(lines, colors=LINE, linewidths=1.1, capstyle="projecting", clip_on=False))
    for node in tips:
        axes.text(deepest * 1.02, places[id(node)][1], names[id(node)], va="center", fontsize=letters, parse_math=False)
    _write_supports(axes, tree, places, letters)
    axes.set_xlim(0, deepest)
    axes.set_ylim(len(tips) - 0.3, -0.7)
    axes.get_yaxis().set_visible(False)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel("distance")
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    return figure


def _sizes(count: int) -> tuple[float, float]:
    """Inches for so many rows, and points of their letters; below 60 points to the inch letters would touch."""
    letters = 9.0 if count <= 20 else 7.5 if count <= 60 else 6.0 if count <= 150 else 4.5
    return count * letters * 1.35 / 72 * (2.0 if count <= 12 else 1.0), letters


def _write_cells(axes: Axes, values: Any) -> None:
    half = values.max() / 2
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if value < half else "black"
        axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=6.5, color=colour)


def _keep_supports(old: Any, new: Any, names: tuple[str, ...]) -> None:
    """Put the supports on the same splits of a copy, whose root may lie elsewhere."""
    known = leaf_splits(old, names)
    supports = {known[id(node)]: node.support for node in old.non_tips() if hasattr(node, "support")}
    splits = leaf_splits(new, names)
    for node in new.non_tips():
        if splits[id(node)] in supports:
            node.support = supports[splits[id(node)]]


def _layout(tree: Any) -> tuple[dict[int, tuple[float, float]], list[list[tuple[float, float]]]]:
    """Place of each node, `(distance from the root, row)`, and the strokes that join them."""
    sizes: dict[int, int] = {}
    for node in tree.postorder():
        sizes[id(node)] = 1 if node.is_tip() else sum(sizes[id(child)] for child in node.children)
        node.children.sort(key=lambda child: sizes[id(child)])
    depth: dict[int, float] = {}
    for node in tree.preorder():
        depth[id(node)] = 0.0 if node.parent is None else depth[id(node.parent)] + (node.length or 0.0)
    rows = {id(node): float(row) for row, node in enumerate(tree.tips())}
    lines = []
    for node in tree.postorder():
        if not node.is_tip():
            ends = [rows[id(child)] for child in node.children]
            rows[id(node)] = (ends[0] + ends[-1]) / 2
            x = depth[id(node)]
            lines.append([(x, ends[0]), (x, ends[-1])])
            lines += [[(x, rows[id(child)]), (depth[id(child)], rows[id(child)])] for child in node.children]
    return {key: (depth[key], row) for key, row in rows.items()}, lines


def _write_supports(axes: Axes, tree: Any, places: dict[int, tuple[float, float]], letters: float) -> None:
    for node in tree.non_tips():
        support = getattr(node, "support", None)
        if support is None or support < LOW_SUPPORT:
            continue
        x, y = places[id(node)]
        text = axes.annotate(
            f"{100 * support:.0f}", (x, y), (-2, 1), textcoords="offset points", ha="right", va="bottom"
        )
        text.set(fontsize=max(letters - 2, 4), color=SUPPORT_COLOUR)


def _shown(name: str) -> str:
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return clean if len(clean) <= LONGEST_NAME else clean[: LONGEST_NAME - 1] + "…"
