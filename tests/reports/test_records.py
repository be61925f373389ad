from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, PatchingError
from hyena_glt.reports import Budget, ContigTrack, Embeddings, ReportData, ambiguous_runs

GOOD = {
    "name": "chr1",
    "length": 10,
    "patch_lengths": np.array([4, 6]),
    "patch_scores": np.array([1.0, 1.2], np.float32),
}


@given(st.lists(st.booleans()), st.integers(0, 2**40))
def test_ambiguous_runs_cover_exactly_what_is_marked(mask, offset):
    marked = {offset + i for i, value in enumerate(mask) if value}
    runs = ambiguous_runs(np.array(mask, bool), offset)
    assert {place for start, end in runs.tolist() for place in range(start, end)} == marked
    assert (runs[1:, 0] > runs[:-1, 1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_lengths": np.array([4, 5])}, "sum of 10 bases, got 9"),
        ({"patch_lengths": np.array([4, 6, 0]), "patch_scores": np.ones(3)}, "at least 1 each, got 0"),
        ({"patch_lengths": np.array([[4, 6]])}, r"expected integers \(num_patches,\)"),
        ({"patch_lengths": np.array([4.0, 6.0])}, "expected integers"),
        ({"patch_scores": np.ones(3)}, r"patch_scores of 'chr1': expected numbers \(2,\)"),
        ({"patch_scores": np.array(["a", "b"])}, "expected numbers"),
        ({"entropies": np.ones(9, np.float32)}, r"entropies of 'chr1': expected numbers \(10,\)"),
        ({"ambiguous": np.array([[8, 11]])}, r"sorted runs within \[0, 10\)"),
        ({"ambiguous": np.array([[5, 6], [2, 3]])}, "sorted runs"),
        ({"ambiguous": np.array([[5, 5]])}, "sorted runs"),
        ({"ambiguous": np.array([5, 6])}, "ambiguous of 'chr1': expected numbers"),
    ],
)
def test_a_track_that_does_not_fit_is_refused(change, message):
    with pytest.raises(PatchingError, match=message):
        ContigTrack(**{**GOOD, **change})


def test_ambiguous_runs_count_from_the_start_of_the_contig():
    assert ContigTrack(**GOOD, offset=100, ambiguous=np.array([[100, 110]])).offset == 100
    with pytest.raises(PatchingError, match=r"within \[100, 110\)"):
        ContigTrack(**GOOD, offset=100, ambiguous=np.array([[0, 10]]))


def test_embeddings_must_agree_in_number_and_be_finite():
    points = np.zeros((2, 2))
    assert Embeddings(labels=["a", "b"], points=points).groups is None
    with pytest.raises(ConfigError, match="points"):
        Embeddings(labels=["a"], points=points)
    with pytest.raises(ConfigError, match="points"):
        Embeddings(labels=["a", "b"], points=points + np.nan)
    with pytest.raises(ConfigError, match="groups: expected 2"):
        Embeddings(labels=["a", "b"], points=points, groups=["x"])


def test_unknown_totals_and_thresholds_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigError, match="got 'reads'"):
        ReportData(title="x", contigs=[], totals={"reads": 3})
    with pytest.raises(ConfigError, match="score_name"):
        ReportData(title="x", contigs=[], score_name="")
    with pytest.raises(ConfigError, match="threshold"):
        ReportData(title="x", contigs=[], threshold=float("nan"))


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"budget\.patches: expected at least 1, got 0"):
        replace(Budget(), patches=0)
