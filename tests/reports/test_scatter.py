from __future__ import annotations

import base64

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.reports import Embeddings
from hyena_glt.reports.scatter import COLOURED_GROUPS, scatter_payload, spaced


def points_of(payload):
    return np.frombuffer(base64.b64decode(payload["points"]), "<f4").reshape(-1, 2)


def test_points_come_back_with_their_labels():
    points = np.array([[0.5, -1.25], [3.0, 4.0]])
    payload = scatter_payload(Embeddings(labels=["a", "<b>"], points=points, explained=(0.4, 0.1)), 10)
    assert np.array_equal(points_of(payload), points)
    assert payload["labels"] == ["a", "<b>"]
    assert payload["explained"] == [0.4, 0.1]
    assert payload["group"] == [0, 0]


@given(st.integers(1, 300), st.integers(1, 50))
def test_thinning_keeps_the_ends_and_the_limit(total, limit):
    kept = spaced(total, limit)
    assert len(kept) == min(total, limit)
    assert kept[0] == 0
    assert limit == 1 or kept[-1] == total - 1


def test_beyond_the_limit_labels_and_points_stay_together():
    points = np.arange(2000.0).reshape(-1, 2)
    payload = scatter_payload(Embeddings(labels=[str(i) for i in range(1000)], points=points), 100)
    assert payload["total"] == 1000
    assert [int(label) * 2 for label in payload["labels"]] == points_of(payload)[:, 0].tolist()


def test_small_groups_share_the_last_colour():
    groups = [f"g{i}" for i in range(12) for _ in range(20 - i)]
    payload = scatter_payload(Embeddings(labels=groups, points=np.zeros((len(groups), 2)), groups=groups), 1000)
    assert payload["groups"] == [*(f"g{i}" for i in range(COLOURED_GROUPS)), "other"]
    assert payload["group"][0] == 0
    assert payload["group"][-1] == COLOURED_GROUPS


def test_eight_groups_have_a_colour_each():
    groups = [f"g{i}" for i in range(8)]
    payload = scatter_payload(Embeddings(labels=groups, points=np.zeros((8, 2)), groups=groups), 10)
    assert payload["groups"] == groups
    assert payload["group"] == list(range(8))


def test_shares_of_no_variance_are_unknown():
    equal = Embeddings(labels=["a"], points=np.zeros((1, 2)), explained=(float("nan"), float("nan")))
    assert scatter_payload(equal, 10)["explained"] is None


def test_no_point_no_plot():
    assert scatter_payload(None, 10) is None
    assert scatter_payload(Embeddings(labels=[], points=np.empty((0, 2))), 10) is None
