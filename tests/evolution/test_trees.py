"""Trees of distances whose tree is known, and the text they become."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError, OutputExistsError, SystemProblem
from hyena_glt.evolution.matrix import DistanceMatrix
from hyena_glt.evolution.trees import build_tree, inner_splits, linkage, write_newick

skbio = pytest.importorskip("skbio")

# ((a:1, b:2):1, (c:1, d:3)): additive, no clock
ADDITIVE = DistanceMatrix.of(list("abcd"), [[0, 3, 3, 5], [3, 0, 4, 6], [3, 4, 0, 4], [5, 6, 4, 0]])
AB_CD = {0b1100}


def read(newick):
    return skbio.TreeNode.read([newick])


def test_neighbour_joining_finds_an_additive_tree():
    found = build_tree(ADDITIVE)
    assert inner_splits(found.tree, found.names) == AB_CD
    assert not found.is_rooted
    back = read(found.newick).cophenet()
    assert np.allclose(back.filter(ADDITIVE.names).data, ADDITIVE.values)


def test_upgma_assumes_a_clock_and_neighbour_joining_does_not():
    # DESIGN.md 12, "UPGMA sold as phylogeny": b changed fast, so the nearest pair are no sisters
    fast = DistanceMatrix.of(list("abcd"), [[0, 11, 3, 4], [11, 0, 12, 13], [3, 12, 0, 3], [4, 13, 3, 0]])
    assert inner_splits(build_tree(fast).tree, fast.names) == AB_CD
    clock = build_tree(fast, "upgma")
    assert clock.is_rooted
    assert max(clock.tree.children, key=lambda child: child.is_tip()).name == "b"


def test_midpoint():
    rooted = build_tree(ADDITIVE, root="midpoint")
    depths = {tip.name: tip.distance(rooted.tree) for tip in rooted.tree.tips()}
    assert rooted.is_rooted
    assert (depths["b"], depths["d"]) == pytest.approx((3, 3))


def test_equal_genomes_and_pairs():
    zero = DistanceMatrix.of(list("abcd"), np.zeros((4, 4)))
    assert all(not node.length for node in build_tree(zero, root="midpoint").tree.traverse())
    for method in ("nj", "upgma"):
        assert build_tree(DistanceMatrix.of(["a", "b"], [[0, 3], [3, 0]]), method).newick == "(a:1.5,b:1.5);"


def test_negative_lengths_are_counted_and_set_to_0():
    square = [[0, 1, 1, 9], [1, 0, 9, 1], [1, 9, 0, 9], [9, 1, 9, 0]]
    found = build_tree(DistanceMatrix.of(list("abcd"), square))
    assert found.num_negative > 0
    assert min(node.length for node in found.tree.traverse(include_self=False)) == 0.0


HOSTILE = [
    "it's", "a_b", "a b", "(x", "x)", "a,b", "a:b", "a;b", "[note]", "{x}", "='1'", '"q"', "<script>", "../../x",
    "日本",
]  # fmt: skip


def test_hostile_names_stay_themselves(tmp_path):
    square = np.abs(np.subtract.outer(np.arange(len(HOSTILE)), np.arange(len(HOSTILE)))).astype(float)
    found = build_tree(DistanceMatrix.of(HOSTILE, square))
    write_newick(tmp_path / "t.nwk", found)
    back = skbio.TreeNode.read(str(tmp_path / "t.nwk"))
    assert {tip.name for tip in back.tips()} == set(HOSTILE)
    assert (tmp_path / "t.nwk").read_text().count("\n") == 1
    with pytest.raises(OutputExistsError):
        write_newick(tmp_path / "t.nwk", found)
    with pytest.raises(DataError, match="control characters"):
        _ = build_tree(DistanceMatrix.of(["a\nb", "c"], [[0, 1], [1, 0]])).newick


@given(st.permutations(range(4)))
def test_the_order_of_the_names_changes_nothing(order):
    names = [ADDITIVE.names[i] for i in order]
    found = build_tree(DistanceMatrix.of(names, ADDITIVE.values[np.ix_(order, order)]))
    assert read(found.newick).compare_rfd(read("((a,b),(c,d));")) == 0


def test_unknown_methods_and_roots():
    for options in ({"method": "ml"}, {"root": "top"}, {"method": "upgma", "root": "midpoint"}):
        with pytest.raises(ConfigError):
            build_tree(ADDITIVE, **options)


def test_a_missing_scikit_bio_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skbio", None)
    with pytest.raises(SystemProblem, match=r"hyena-glt\[tree\]"):
        build_tree(ADDITIVE)


def test_linkage_is_average_linkage():
    assert linkage(ADDITIVE)[:, 2].tolist() == [3.0, 3.5, 5.0]


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (["a"], [[0]], "two names"),
        (["a", "b"], [[0, 1]], "expected 2 x 2"),
        (["a", "a"], [[0, 1], [1, 0]], "there twice"),
        (["a", "b"], [[0, np.inf], [np.inf, 0]], "finite"),
    ],
)
def test_what_is_no_matrix_of_distances(names, values, message):
    with pytest.raises(DataError, match=message):
        DistanceMatrix.of(names, values)
