"""How good predictions are: classes and numbers against labels, with intervals.

Every measure takes weights `(resamples, rows)` float64, how often each row counts: ones for the value itself, counts
drawn with replacement for the bootstrap. So a thousand resamples are one vectorised pass, without sorting anew. A
measure is NaN where it is not defined (one class only, labels that are all equal); estimates give None for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from hyena_glt.errors import ConfigError, DataError

Reals = NDArray[np.float64]
Whole = NDArray[np.int64]
Compute = Callable[[Reals], Mapping[str, Reals]]

CELLS = 1 << 22  # weights that are held at a time
LEAST_PROBABILITY = 1e-12  # in the loss, so that one sure mistake is no infinity
LOWER_IS_BETTER = ("loss", "mse")
CLASS_METRICS = ("loss", "accuracy", "balanced_accuracy", "mcc", "f1", "auroc", "auprc")
VALUE_METRICS = ("mse", "r2", "pearson", "spearman")


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A measure with its interval; None where it is not defined or was not asked for."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def classification_estimates(
    labels: Whole,
    probabilities: Reals,
    *,
    groups: Whole | None = None,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """`CLASS_METRICS` of predicted probabilities.

    AUROC and AUPRC are of the second of two classes, else the mean over classes, each against the rest. The predicted
    class is the most probable one, the first of several. The interval of the accuracy is Wilson's; the others, and
    all where rows are grouped, come from the bootstrap.

    Args:
        labels: `(rows,)` int64 in [0, classes), -1 for rows that are left out.
        probabilities: `(rows, classes)` float64.
        groups: `(rows,)` int64 from 0: rows that are drawn together, as the bases of a sequence; None: each by itself.
        resamples: 0: no intervals.
        seed: Of the draws.
        confidence: In (0, 1).

    Raises:
        DataError: Shapes that do not fit, no labelled row, a probability that is not finite.
        ConfigError: A number out of range.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise DataError(f"probabilities: expected ({len(labels)}, classes), got {probabilities.shape}")
    kept = labels >= 0
    labels, probabilities = labels[kept], probabilities[kept].astype(np.float64)
    _check(labels, probabilities)
    num_classes = probabilities.shape[1]
    if int(labels.max()) >= num_classes:
        raise DataError(f"labels: expected 0 to {num_classes - 1}, got {int(labels.max())}")
    group = np.arange(len(labels)) if groups is None else np.unique(groups[kept], return_inverse=True)[1]
    num_groups = int(group.max()) + 1
    predicted = probabilities.argmax(1)
    ones = np.ones(len(labels))
    cells = sparse.csr_matrix(
        (ones, (group, labels * num_classes + predicted)), shape=(num_groups, num_classes * num_classes)
    )
    losses = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], LEAST_PROBABILITY))
    grouped_losses = np.bincount(group, losses, num_groups)
    tested = [1] if num_classes == 2 else range(num_classes)
    orders = {each: Order.of(probabilities[:, each]) for each in tested}

    def compute(weights: Reals) -> dict[str, Reals]:
        matrix = (cells.T @ weights.T).T.reshape(-1, num_classes, num_classes)
        rows = weights if groups is None else weights[:, group]
        areas = [auroc(orders[each], labels == each, rows) for each in tested]
        precisions = [auprc(orders[each], labels == each, rows) for each in tested]
        return {
            "loss": weights @ grouped_losses / matrix.sum((1, 2)),
            "accuracy": accuracy(matrix),
            "balanced_accuracy": balanced_accuracy(matrix),
            "mcc": matthews(matrix),
            "f1": macro_f1(matrix),
            "auroc": _mean_defined(areas),
            "auprc": _mean_defined(precisions),
        }

    found = estimate(compute, num_groups, len(labels), resamples=resamples, seed=seed, confidence=confidence)
    if groups is None and resamples:
        low, high = wilson_interval(int((predicted == labels).sum()), len(labels), confidence)
        found["accuracy"] = Estimate(value=found["accuracy"].value, low=low, high=high)
    return found


def regression_estimates(
    labels: Reals, values: Reals, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Estimate]:
    """`VALUE_METRICS` of predicted numbers, with bootstrap intervals.

    Args:
        labels: `(rows,)` finite.
        values: `(rows,)` predictions.
        resamples, seed, confidence: As in `classification_estimates`.

    Raises:
        DataError: Shapes that do not fit, no row, a number that is not finite.
        ConfigError: A number out of range.
    """
    if labels.ndim != 1 or labels.shape != values.shape:
        raise DataError(f"values: expected {labels.shape}, got {values.shape}")
    _check(labels, values)
    label_order, value_order = Order.of(labels), Order.of(values)

    def compute(weights: Reals) -> dict[str, Reals]:
        return {
            "mse": weighted_mean((values - labels) ** 2, weights),
            "r2": r_squared(labels, values, weights),
            "pearson": pearson(labels, values, weights),
            "spearman": pearson(mid_ranks(label_order, weights), mid_ranks(value_order, weights), weights),
        }

    return estimate(compute, len(labels), len(labels), resamples=resamples, seed=seed, confidence=confidence)


def estimate(
    compute: Compute, num_groups: int, num_rows: int, *, resamples: int, seed: int, confidence: float
) -> dict[str, Estimate]:
    """Values with percentile intervals of the bootstrap.

    Args:
        compute: Weights `(resamples, groups)` -> each measure `(resamples,)`.
        num_groups: What is drawn, with replacement, as many as there are.
        num_rows: What a measure holds in memory for each resample.
        resamples: 0: no intervals; resamples where a measure is not defined are left out of its interval.
        seed: Of the draws.
        confidence: In (0, 1).

    Raises:
        ConfigError: A number out of range.
    """
    if resamples < 0 or not 0 < confidence < 1:
        raise ConfigError(f"resamples, confidence: expected >= 0 and (0, 1), got {resamples} and {confidence}")
    values = {name: float(value[0]) for name, value in compute(np.ones((1, num_groups))).items()}
    drawn: dict[str, list[Reals]] = {name: [] for name in values}
    generator = np.random.default_rng(seed)
    at_a_time = max(CELLS // max(num_rows, num_groups), 1)
    shares = np.full(num_groups, 1 / num_groups)
    for first in range(0, resamples, at_a_time):
        counts = generator.multinomial(num_groups, shares, size=min(at_a_time, resamples - first))
        for name, found in compute(counts.astype(np.float64)).items():
            drawn[name].append(found)
    tail = (1 - confidence) / 2
    return {name: _estimate(values[name], drawn[name], tail) for name in values}


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Raises:
        ConfigError: Not 0 <= successes <= trials with at least one trial.

    Example:
        >>> [round(end, 4) for end in wilson_interval(8, 10)]
        [0.4902, 0.9433]
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ConfigError(f"successes, trials: expected 0 <= successes <= trials >= 1, got {successes}, {trials}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return (0.0 if not successes else centre - half), (1.0 if successes == trials else centre + half)


def accuracy(matrix: Reals) -> Reals:
    """Share of rows that are right: `(...)` from confusion matrices `(..., label, predicted)`."""
    return _ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1)))


def balanced_accuracy(matrix: Reals) -> Reals:
    """Mean over the classes that occur of the share that is right."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _nan_mean(_ratio(right, matrix.sum(-1)))


def macro_f1(matrix: Reals) -> Reals:
    """Mean over the classes that occur as label or prediction of 2 TP / (2 TP + FP + FN)."""
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _nan_mean(_ratio(2 * right, matrix.sum(-1) + matrix.sum(-2)))


def matthews(matrix: Reals) -> Reals:
    """Matthews correlation, of any number of classes (Gorodkin 2004); 0 where one side has a single class."""
    total = matrix.sum((-2, -1))
    right = np.trace(matrix, axis1=-2, axis2=-1)
    labels, predicted = matrix.sum(-1), matrix.sum(-2)
    top = right * total - (labels * predicted).sum(-1)
    bottom = np.sqrt((total**2 - (labels**2).sum(-1)) * (total**2 - (predicted**2).sum(-1)))
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Scores put in ascending order, once for all resamples."""

    rows: Whole  # (rows,) which row comes at each place
    starts: Whole  # (different scores,) first place of each score
    sizes: Whole  # (different scores,) rows with that score

    @classmethod
    def of(cls, scores: Reals) -> Order:
        """The order of `(rows,)` scores."""
        rows = np.argsort(scores, kind="stable")
        ordered = scores[rows]
        starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
        return cls(rows, starts, np.diff(np.append(starts, len(rows))))

    def sums(self, weights: Reals) -> Reals:
        """Weight of each different score, ascending: `(resamples, different scores)` from `(resamples, rows)`."""
        return np.add.reduceat(weights[:, self.rows], self.starts, axis=1)


def auroc(order: Order, is_positive: NDArray[np.bool_], weights: Reals) -> Reals:
    """Probability that a positive row scores above a negative one, ties half: `(resamples,)`; NaN without both."""
    positive, negative = order.sums(weights * is_positive), order.sums(weights * ~is_positive)
    below = negative.cumsum(1) - negative
    return _ratio((positive * (below + negative / 2)).sum(1), positive.sum(1) * negative.sum(1))


def auprc(order: Order, is_positive: NDArray[np.bool_], weights: Reals) -> Reals:
    """Average precision, rows of one score taken together: `(resamples,)`; NaN without positive rows."""
    positive = order.sums(weights * is_positive)[:, ::-1]
    every = order.sums(weights)[:, ::-1]
    above, taken = positive.cumsum(1), every.cumsum(1)
    precision = above / np.where(taken > 0, taken, 1)
    return _ratio((positive * precision).sum(1), positive.sum(1))


def mid_ranks(order: Order, weights: Reals) -> Reals:
    """Rank of each row in its resample, from 1, ties their mean: `(resamples, rows)`."""
    counts = order.sums(weights)
    ranks = counts.cumsum(1) - counts + (counts + 1) / 2
    spread = np.empty_like(weights)
    spread[:, order.rows] = np.repeat(ranks, order.sizes, axis=1)
    return spread


def weighted_mean(values: Reals, weights: Reals) -> Reals:
    """`(resamples,)` from values `(rows,)` or `(resamples, rows)`."""
    return (weights * values).sum(1) / weights.sum(1)


def pearson(x: Reals, y: Reals, weights: Reals) -> Reals:
    """Correlation of values `(rows,)` or `(resamples, rows)`; NaN where one of them does not vary."""
    x, y = x - weighted_mean(x, weights)[:, None], y - weighted_mean(y, weights)[:, None]
    bottom = np.sqrt(weighted_mean(x * x, weights)) * np.sqrt(weighted_mean(y * y, weights))
    return np.clip(_ratio(weighted_mean(x * y, weights), bottom), -1.0, 1.0)


def r_squared(labels: Reals, values: Reals, weights: Reals) -> Reals:
    """1 - squared errors / squared deviations of the labels; NaN where the labels do not vary."""
    deviations = weighted_mean((labels - weighted_mean(labels, weights)[:, None]) ** 2, weights)
    return 1 - _ratio(weighted_mean((labels - values) ** 2, weights), deviations)


def is_better(metric: str, new: float | None, old: float | None) -> bool:
    """Whether a value of a metric beats another one; any beats None."""
    if new is None or old is None:
        return new is not None
    return new < old if metric in LOWER_IS_BETTER else new > old


def _check(labels: NDArray[Any], predictions: Reals) -> None:
    if not len(labels):
        raise DataError("no labelled row to compare with predictions")
    if not np.isfinite(predictions).all() or not np.isfinite(labels).all():
        raise DataError("expected finite labels and predictions, got NaN or infinity; the weights may be damaged")


def _ratio(top: Reals, bottom: Reals) -> Reals:
    """NaN where the divisor is 0."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), np.nan)


def _nan_mean(values: Reals) -> Reals:
    """Mean of the last axis over what is defined."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1).astype(np.float64))


def _mean_defined(values: list[Reals]) -> Reals:
    return _nan_mean(np.stack(values, axis=-1))


def _estimate(value: float, drawn: list[Reals], tail: float) -> Estimate:
    if math.isnan(value):
        return Estimate(value=None)
    kept = np.concatenate(drawn) if drawn else np.empty(0)
    kept = kept[~np.isnan(kept)]
    if not kept.size:
        return Estimate(value=value)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Estimate(value=value, low=float(low), high=float(high))
