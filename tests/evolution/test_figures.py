"""Figures: drawn for few and many names, the same bytes again, hostile names harmless."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hyena_glt.errors import ConfigError
from hyena_glt.evolution.figures import draw_heat_map, draw_tree, write_figure
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.evolution.trees import build_tree

pytest.importorskip("matplotlib")
pytest.importorskip("skbio")


def matrix_of(count, prefix="name"):
    points = np.random.default_rng(0).random((count, 3))
    values = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    return DistanceMatrix.of([f"{prefix}{i}" for i in range(count)], (values + values.T) / 2 * (1 - np.eye(count)))


@pytest.mark.parametrize("count", [2, 7, 86])
def test_every_name_is_drawn_and_none_overlap(count):
    matrix = matrix_of(count)
    heat, tree = draw_heat_map(matrix, "t"), draw_tree(build_tree(matrix), "t")
    labels = [label.get_text() for label in heat.axes[0].get_yticklabels()]
    assert sorted(labels) == sorted(matrix.names)
    drawn = [text for text in tree.axes[0].texts if text.get_text() in matrix.names]
    assert len(drawn) == count
    tree.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in drawn), key=lambda box: box.y0)
    assert all(low.y0 + 0.8 * low.height <= high.y0 for low, high in pairwise(boxes))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_bytes_again(tmp_path, suffix):
    for number in range(2):
        write_figure(tmp_path / f"heat{number}.{suffix}", matrix_of(4), "t")
        write_figure(tmp_path / f"tree{number}.{suffix}", build_tree(matrix_of(4)), "t")
    for kind in ("heat", "tree"):
        assert (tmp_path / f"{kind}0.{suffix}").read_bytes() == (tmp_path / f"{kind}1.{suffix}").read_bytes()


def test_hostile_names_are_text(tmp_path):
    names = ["$\\frac{1}{0}$", "<script>alert(1)</script>", "日本", "x" * 300, "a\tb"]
    values = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
    matrix = DistanceMatrix.of(names, values)
    write_figure(tmp_path / "h.svg", matrix, "$t$")
    write_figure(tmp_path / "t.svg", build_tree(matrix), "$t$")
    assert b"<script" not in (tmp_path / "h.svg").read_bytes()


def test_another_suffix():
    with pytest.raises(ConfigError, match=r"\.png"):
        write_figure("x.gif", matrix_of(3), "t")
