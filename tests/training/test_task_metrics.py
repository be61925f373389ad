"""Measures against hand-computed and SciPy values, and the bootstrap against resampling row by row."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from hyena_glt.errors import ConfigError, DataError
from hyena_glt.training.task_metrics import (
    Estimate,
    Order,
    accuracy,
    auprc,
    auroc,
    balanced_accuracy,
    classification_estimates,
    is_better,
    macro_f1,
    matthews,
    mid_ranks,
    pearson,
    r_squared,
    regression_estimates,
    wilson_interval,
)

scored = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({positive for _, positive in rows}) == 2
)


def split(rows) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in rows], float), np.array([positive for _, positive in rows])


def one(value: np.ndarray) -> float:
    assert value.shape == (1,)
    return float(value[0])


def test_hand_computed_confusions():
    matrix = np.array([[50.0, 10.0], [5.0, 35.0]])
    assert float(accuracy(matrix)) == 0.85
    assert float(balanced_accuracy(matrix)) == pytest.approx((50 / 60 + 35 / 40) / 2)
    assert float(macro_f1(matrix)) == pytest.approx((100 / 115 + 70 / 85) / 2)
    assert float(matthews(matrix)) == pytest.approx((50 * 35 - 10 * 5) / np.sqrt(60 * 40 * 55 * 45))
    three = np.array([[2.0, 0, 0], [0, 3, 1], [0, 0, 0]])  # the third class is predicted once and never right
    assert float(balanced_accuracy(three)) == pytest.approx((1 + 3 / 4) / 2)
    assert float(macro_f1(three)) == pytest.approx((1 + 6 / 7 + 0) / 3)
    assert float(matthews(np.array([[4.0, 0], [2, 0]]))) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_matthews_is_the_correlation_of_two_indicators(rows):
    labels, predicted = np.array(rows, float).T
    matrix = np.zeros((2, 2))
    np.add.at(matrix, (labels.astype(int), predicted.astype(int)), 1)
    expected = np.corrcoef(labels, predicted)[0, 1] if labels.std() and predicted.std() else 0.0
    assert float(matthews(matrix)) == pytest.approx(expected, abs=1e-12)


@given(scored)
def test_auroc_is_the_share_of_pairs_in_order(rows):
    scores, positive = split(rows)
    found = one(auroc(Order.of(scores), positive, np.ones((1, len(scores)))))
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    assert found == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert one(auroc(Order.of(-scores), positive, np.ones((1, len(scores))))) == pytest.approx(1 - found)


@given(scored)
def test_auprc_is_the_sum_over_thresholds(rows):
    scores, positive = split(rows)
    found = one(auprc(Order.of(scores), positive, np.ones((1, len(scores)))))
    expected, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        now = positive[taken].sum() / positive.sum()
        expected += (now - recall) * positive[taken].mean()
        recall = now
    assert found == pytest.approx(expected)


@given(scored, st.randoms(use_true_random=False))
def test_weights_mean_repeated_rows(rows, random):
    scores, positive = split(rows)
    counts = np.array([random.randint(0, 3) for _ in rows])
    again = np.repeat(np.arange(len(rows)), counts)
    weights, order = counts[None, :].astype(float), Order.of(scores)
    if not again.size:
        return
    ones = np.ones((1, len(again)))
    for measure in (auroc, auprc):
        whole = measure(Order.of(scores[again]), positive[again], ones)
        np.testing.assert_allclose(measure(order, positive, weights), whole, rtol=1e-12)
    ranks = mid_ranks(order, weights)[0][again]
    np.testing.assert_allclose(ranks, scipy.stats.rankdata(scores[again]))
    np.testing.assert_allclose(
        r_squared(scores, positive * 2.0, weights), r_squared(scores[again], positive[again] * 2.0, ones), rtol=1e-9
    )
    np.testing.assert_allclose(
        pearson(scores, positive * 1.0, weights), pearson(scores[again], positive[again] * 1.0, ones), atol=1e-9
    )


def test_correlations_are_scipys():
    rng = np.random.default_rng(0)
    labels = np.round(rng.normal(size=200), 1)  # with ties
    values = labels + rng.normal(size=200)
    found = regression_estimates(labels, values, resamples=0)
    assert found["pearson"].value == pytest.approx(scipy.stats.pearsonr(labels, values)[0])
    assert found["spearman"].value == pytest.approx(scipy.stats.spearmanr(labels, values)[0])
    assert found["mse"].value == pytest.approx(((labels - values) ** 2).mean())
    expected = 1 - ((labels - values) ** 2).sum() / ((labels - labels.mean()) ** 2).sum()
    assert found["r2"].value == pytest.approx(expected)
    assert found["r2"].low is None


def test_the_bootstrap_is_that_of_scipy():
    rng = np.random.default_rng(1)
    labels = rng.normal(size=300)
    values = labels + rng.normal(size=300)
    found = regression_estimates(labels, values, resamples=4000)["pearson"]
    other = scipy.stats.bootstrap(
        (labels, values), lambda x, y: np.corrcoef(x, y)[0, 1], paired=True, vectorized=False, n_resamples=2000,
        method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    # the spread of a quantile over 2000 resamples is below a tenth of the interval
    assert [found.low, found.high] == pytest.approx([other.low, other.high], abs=(other.high - other.low) / 10)


def test_wilson_is_scipys():
    for successes, trials in ((0, 5), (3, 7), (99, 100), (12, 12)):
        other = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
        assert wilson_interval(successes, trials) == pytest.approx((other.low, other.high), abs=1e-12)
    with pytest.raises(ConfigError):
        wilson_interval(2, 1)


def test_classes_of_bases_are_resampled_by_sequence():
    labels, groups = np.tile([0, 1], 200), np.repeat(np.arange(8), 50)
    right = np.where(groups < 4, 0.9, 0.2)  # all of a sequence is right, or all is wrong
    probabilities = np.stack([np.where(labels == 0, right, 1 - right), np.where(labels == 1, right, 1 - right)], axis=1)
    alone = classification_estimates(labels, probabilities)["accuracy"]
    together = classification_estimates(labels, probabilities, groups=groups)["accuracy"]
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 5 * (alone.high - alone.low)  # 50 bases count as one


def test_rows_without_a_label_are_left_out_and_what_is_undefined_is_none():
    labels = np.array([0, -1, 0])
    probabilities = np.array([[0.8, 0.2], [0.1, 0.9], [0.4, 0.6]])
    found = classification_estimates(labels, probabilities, resamples=50)
    assert found["accuracy"].value == 0.5
    assert found["loss"].value == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert found["auroc"] == Estimate(value=None)
    assert regression_estimates(np.ones(3), np.arange(3.0), resamples=5)["r2"].value is None


def test_the_mean_over_classes_is_taken_where_there_are_three():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 60)
    probabilities = rng.dirichlet([1, 1, 1], 60)
    found = classification_estimates(labels, probabilities, resamples=0)
    ones = np.ones((1, 60))
    areas = [one(auroc(Order.of(probabilities[:, each]), labels == each, ones)) for each in range(3)]
    assert found["auroc"].value == pytest.approx(np.mean(areas))


def test_the_seed_decides_the_interval():
    rng = np.random.default_rng(4)
    labels, share = rng.integers(0, 2, 50), rng.random(50)
    rows = np.stack([1 - share, share], axis=1)
    a, b, c = (classification_estimates(labels, rows, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert a == b != c


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="finite"):
        regression_estimates(np.zeros(2), np.array([0.0, np.nan]))
    with pytest.raises(DataError, match="probabilities"):
        classification_estimates(np.zeros(2, int), np.zeros((3, 2)))
    with pytest.raises(DataError, match="no labelled row"):
        classification_estimates(np.array([-1]), np.ones((1, 2)))
    with pytest.raises(DataError, match="labels: expected 0 to 1"):
        classification_estimates(np.array([2]), np.ones((1, 2)))
    with pytest.raises(ConfigError, match="resamples"):
        regression_estimates(np.zeros(2), np.zeros(2), resamples=-1)


def test_a_lower_loss_and_a_higher_accuracy_are_better():
    assert is_better("loss", 1.0, 2.0)
    assert is_better("accuracy", 0.9, 0.8)
    assert not is_better("accuracy", 0.8, 0.8)
    assert is_better("auroc", 0.1, None)
    assert not is_better("auroc", None, 0.1)
