"""Every score once, with its interval.

Shapes: `truth` is an object array (n,) of class names, or a float array (n,); `predictions` is a float array (n, k) of
probabilities whose columns stand in the order of `classes`, or a float array (n,). A regression has no classes: `()`.

Scores are always finite, also where the textbook leaves them open: macro averages run over the classes that occur in
`truth`; an area under the curve that does not exist (a sample of one class) is 0.5, a share of variance of a constant
truth 0; a probability of 0 counts as 2.2e-16 in the log loss, as in scikit-learn.

Each score is a smooth function of means over rows, so that its sampling error is that of the mean of its influence
values (Hampel 1974; for the area under the curve these are the components of DeLong, DeLong & Clarke-Pearson 1988).
Intervals are studentised bootstraps of these values (Efron & Tibshirani 1993, section 12.5), never narrower than
Student's interval with Satterthwaite-like degrees of freedom, n / kurtosis: where a handful of rows makes the whole
difference, a bootstrap alone is too sure. Accuracy has exact and score intervals instead.
"""

from collections.abc import Callable, Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, norm, rankdata, t

from steward.config import ERRORS
from steward.records import Estimate

Array = NDArray[Any]

BOUNDED = frozenset({"accuracy", "balanced_accuracy", "f1_macro", "roc_auc"})
REGRESSION = frozenset({"rmse", "mae", "r2"})

RESAMPLES = 2_000
RESAMPLE_BELOW = 20_000
"""With more rows Student's interval and the bootstrap agree to the last digit shown."""
BLOCK = 2_000_000
"""Values that one block of resamples may hold in memory."""


def larger_is_better(metric: str) -> bool:
    """Whether a higher value of this metric is the better one.

    >>> larger_is_better("accuracy"), larger_is_better("rmse")
    (True, False)
    """
    return metric not in ERRORS


def labels(predictions: Array, classes: Sequence[str]) -> Array:
    """The most probable class of each row, (n,) object array; of equals the first.

    >>> labels(np.array([[0.2, 0.8], [0.5, 0.5]]), ["no", "yes"]).tolist()
    ['yes', 'no']
    """
    named: Array = np.asarray(classes, dtype=object)[np.argmax(predictions, axis=1)]
    return named


def score(metric: str, truth: Array, predictions: Array, classes: Sequence[str]) -> float:
    """The metric's value on these rows.

    >>> truth = np.array(["no", "yes", "yes"], dtype=object)
    >>> predictions = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> round(score("accuracy", truth, predictions, ["no", "yes"]), 3)
    0.667
    >>> score("roc_auc", truth, predictions, ["no", "yes"])
    1.0
    >>> score("mae", np.array([1.0, 2.0]), np.array([1.0, 4.0]), ())
    1.0
    """
    return _influence(metric, truth, predictions, classes)[0]


def interval(
    metric: str, truth: Array, predictions: Array, classes: Sequence[str], *, confidence: float, seed: int
) -> Estimate:
    """The metric's value with its confidence interval.

    Accuracy gets Wilson's interval (Wilson 1927; recommended by Brown, Cai & DasGupta 2001).

    >>> truth = np.array(["no", "yes"] * 50, dtype=object)
    >>> sure = np.where(truth[:, None] == np.array(["no", "yes"]), 1.0, 0.0)
    >>> interval("accuracy", truth, sure, ["no", "yes"], confidence=0.95, seed=1)
    Estimate(value=1.0, low=0.963..., high=1.0)
    """
    if metric == "accuracy":
        return wilson(int(np.sum(_right(truth, predictions, classes))), len(truth), confidence)
    value, influence = _influence(metric, truth, predictions, classes)
    low, high = _studentised(influence, confidence, seed)
    floor, ceiling = (0.0 if metric in BOUNDED | ERRORS else -np.inf), (np.inf if metric in ERRORS else 1.0)
    return Estimate(value=value, low=max(value + low, floor), high=min(value + high, ceiling))


def paired(
    metric: str, truth: Array, a: Array, b: Array, classes: Sequence[str], *, confidence: float, seed: int
) -> Estimate:
    """How much better `a` is than `b` on the same rows; positive is better, whatever the metric's direction.

    A classification's difference is in the metric's own unit. A regression's is the share of b's error (1 - r2 for r2)
    that a saves; if b makes no error at all it is 0 or -1.

    For accuracy see `accuracy_difference`.

    >>> truth = np.zeros(4)
    >>> estimate = paired("mae", truth, np.full(4, 1.0), np.full(4, 2.0), (), confidence=0.95, seed=1)
    >>> estimate.value
    0.5
    """
    if metric == "accuracy":
        right_a, right_b = _right(truth, a, classes), _right(truth, b, classes)
        only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
        return accuracy_difference(only_a, only_b, len(truth), confidence)
    relative = metric in REGRESSION
    value, influence = (_relative if relative else _absolute)(
        metric, _influence(metric, truth, a, classes), _influence(metric, truth, b, classes)
    )
    low, high = _studentised(influence, confidence, seed)
    return Estimate(value=value, low=value + low, high=min(value + high, 1.0) if relative else value + high)


def discordance(truth: Array, a: Array, b: Array, classes: Sequence[str]) -> float:
    """Share of rows on which exactly one of two classifications is right; 0 for a regression."""
    return float(np.mean(_right(truth, a, classes) != _right(truth, b, classes))) if classes else 0.0


def confusion(truth: Array, predictions: Array, classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Rows by true class (lines) and predicted class (columns).

    >>> answers = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    >>> confusion(np.array(["no", "yes", "yes"], dtype=object), answers, ["no", "yes"])
    ((1, 0), (1, 1))
    """
    predicted = labels(predictions, classes)
    return tuple(tuple(int(np.sum((truth == a) & (predicted == b))) for b in classes) for a in classes)


def constant(metric: str, truth: Array, classes: Sequence[str], n: int) -> Array:
    """The best constant prediction that `truth` teaches, for n rows.

    A classification answers the class shares (their largest is the majority class), a regression the mean, or the
    median for `mae`.

    >>> constant("accuracy", np.array(["no", "yes", "yes", "yes"], dtype=object), ["no", "yes"], 2).tolist()
    [[0.25, 0.75], [0.25, 0.75]]
    >>> constant("mae", np.array([1.0, 2.0, 9.0]), (), 2).tolist()
    [2.0, 2.0]
    """
    if classes:
        return np.tile(_truth_matrix(truth, classes).mean(axis=0), (n, 1))
    return np.full(n, np.median(truth) if metric == "mae" else np.mean(truth))


def conformal_half_width(truth: Array, predictions: Array, confidence: float) -> float | None:
    """The half-width that holds this share of new rows' distances between prediction and truth.

    Split conformal prediction (Lei et al. 2018): the k-th smallest of n distances on rows that were not learned from,
    k = ⌈(n + 1) confidence⌉; None if there are too few rows.

    >>> conformal_half_width(np.arange(9.0), np.zeros(9), 0.8), conformal_half_width(np.arange(3.0), np.zeros(3), 0.8)
    (7.0, None)
    """
    distances = np.sort(np.abs(truth - predictions))
    rank = ceil((len(distances) + 1) * confidence)
    return float(distances[rank - 1]) if rank <= len(distances) else None


def wilson(successes: int, n: int, confidence: float) -> Estimate:
    """Wilson's score interval of a share.

    >>> wilson(0, 10, 0.95)
    Estimate(value=0.0, low=0.0, high=0.277...)
    """
    share, z2 = successes / n, float(norm.ppf((1 + confidence) / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    return Estimate(value=share, low=min(max(centre - half, 0.0), share), high=max(min(centre + half, 1.0), share))


def accuracy_difference(only_a: int, only_b: int, n: int, confidence: float) -> Estimate:
    """Interval of the difference of two accuracies measured on the same n rows.

    The hull of Tango's score interval (Tango 1998, Statistics in Medicine 17:891) and the exact conditional interval
    (Clopper & Pearson 1934 on the rows where exactly one is right, McNemar 1947). The second makes the promise: if
    both are equally good, `low > 0` happens in at most (1 - confidence) / 2 of all comparisons, at any n.

    Parameters
    ----------
    only_a, only_b : rows on which only a, or only b, is right.

    >>> accuracy_difference(60, 30, 1500, 0.95)
    Estimate(value=0.02, low=0.007..., high=0.032...)
    >>> accuracy_difference(5, 0, 100, 0.95).low > 0
    False
    """
    share = (only_a + only_b) / n
    tail = (1 - confidence) / 2
    low = 2 * float(beta.ppf(tail, only_a, only_b + 1)) - 1 if only_a else -1.0
    high = 2 * float(beta.isf(tail, only_a + 1, only_b)) - 1 if only_b else 1.0
    return Estimate(
        value=(only_a - only_b) / n,
        low=min(low * share, _tango(only_a, only_b, n, confidence)),
        high=max(high * share, -_tango(only_b, only_a, n, confidence)),
    )


def _tango(only_a: int, only_b: int, n: int, confidence: float) -> float:
    """Lower end of Tango's interval: the difference at which his score statistic is the normal quantile."""
    z = float(norm.ppf((1 + confidence) / 2))

    def excess(difference: float) -> float:
        linear = (2 * n - only_a + only_b) * difference - only_a - only_b
        root = sqrt(max(linear**2 + 8 * n * only_b * difference * (1 - difference), 0.0))
        variance = n * (2 * (root - linear) / (4 * n) + difference * (1 - difference))
        return only_a - only_b - n * difference - z * sqrt(max(variance, 0.0))

    value = (only_a - only_b) / n
    edge, just_below = -1 + 1e-9, value - 1e-9
    return float(brentq(excess, edge, just_below)) if just_below > edge and excess(just_below) < 0 else value


def _right(truth: Array, predictions: Array, classes: Sequence[str]) -> NDArray[np.bool_]:
    return np.asarray(truth == labels(predictions, classes), dtype=bool)


def _truth_matrix(truth: Array, classes: Sequence[str]) -> Array:
    """One column per class: 1 where the row is of that class."""
    return np.asarray(truth[:, None] == np.asarray(classes, dtype=object), dtype=float)


def _studentised(influence: Array, confidence: float, seed: int) -> tuple[float, float]:
    """Ends of the interval relative to the estimate; (0, 0) if every row says the same."""
    n = len(influence)
    squares = influence**2
    variance = float(squares.mean())
    if variance == 0 or n < 2:  # noqa: PLR2004
        return 0.0, 0.0
    error = sqrt(variance / (n - 1))
    tail = (1 - confidence) / 2
    freedom = max(n * variance**2 / float((squares**2).mean()) - 1, 1.0)
    half = float(t.isf(tail, freedom))
    if n > RESAMPLE_BELOW:
        return -half * error, half * error
    lower, upper = np.quantile(_resampled(influence, seed), (tail, 1 - tail))
    return -max(half, float(upper)) * error, max(half, -float(lower)) * error


def _resampled(influence: Array, seed: int) -> Array:
    """Student's statistic of resampled means; 0 where all resampled values are the same."""
    n = len(influence)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // n)
    statistics = []
    for first in range(0, RESAMPLES, block):
        drawn = influence[generator.integers(0, n, (min(block, RESAMPLES - first), n))]
        spread = drawn.std(axis=1)
        varied = spread > 1e-12 * np.abs(influence).max()
        ratio = np.divide(drawn.mean(axis=1), spread, out=np.zeros(len(drawn)), where=varied)
        statistics.append(ratio * sqrt(n - 1))
    return np.concatenate(statistics)


def _absolute(metric: str, a: tuple[float, Array], b: tuple[float, Array]) -> tuple[float, Array]:
    sign = 1 if larger_is_better(metric) else -1
    return sign * (a[0] - b[0]), sign * (a[1] - b[1])


def _relative(metric: str, a: tuple[float, Array], b: tuple[float, Array]) -> tuple[float, Array]:
    """Share of b's error that a saves, with its influence values by the delta method."""
    (error_a, values_a), (error_b, values_b) = (_as_error(metric, *one) for one in (a, b))
    if error_b == 0:
        return (0.0 if error_a == 0 else -1.0), np.zeros_like(values_a)
    ratio = error_a / error_b
    return 1 - ratio, (ratio * values_b - values_a) / error_b


def _as_error(metric: str, value: float, influence: Array) -> tuple[float, Array]:
    return (1 - value, -influence) if larger_is_better(metric) else (value, influence)


def _influence(metric: str, truth: Array, predictions: Array, classes: Sequence[str]) -> tuple[float, Array]:
    """Value of the metric and the influence (n,) of each row on it; the influences' mean is 0."""
    if metric in REGRESSION:
        return REGRESSIONS[metric](np.asarray(truth, dtype=float), np.asarray(predictions, dtype=float))
    return CLASSIFICATIONS[metric](_truth_matrix(truth, classes), np.asarray(predictions, dtype=float))


def _mean(values: Array) -> tuple[float, Array]:
    mean = float(values.mean())
    return mean, values - mean


def _hard(predictions: Array) -> Array:
    """One column per class: 1 where it is the most probable one."""
    return np.asarray(np.argmax(predictions, axis=1)[:, None] == np.arange(predictions.shape[1]), dtype=float)


def _accuracy(truth: Array, predictions: Array) -> tuple[float, Array]:
    return _mean((truth * _hard(predictions)).sum(axis=1))


def _balanced_accuracy(truth: Array, predictions: Array) -> tuple[float, Array]:
    return _macro_ratio(truth * _hard(predictions), truth, truth)


def _f1_macro(truth: Array, predictions: Array) -> tuple[float, Array]:
    hard = _hard(predictions)
    return _macro_ratio(2 * truth * hard, truth + hard, truth)


def _macro_ratio(numerator: Array, denominator: Array, truth: Array) -> tuple[float, Array]:
    """Mean over the classes that occur of sum(numerator) / sum(denominator), and its influences."""
    occurs = truth.any(axis=0)
    below = denominator[:, occurs].mean(axis=0)
    ratios = numerator[:, occurs].mean(axis=0) / below
    influence = (numerator[:, occurs] - ratios * denominator[:, occurs]) / below
    return float(ratios.mean()), influence.mean(axis=1)


def _roc_auc(truth: Array, predictions: Array) -> tuple[float, Array]:
    """One class against the rest, averaged over the classes that occur and are not all."""
    shares = truth.mean(axis=0)
    areas = [_area(truth[:, k], predictions[:, k]) for k in np.flatnonzero((shares > 0) & (shares < 1))]
    if not areas:
        return 0.5, np.zeros(len(truth))
    return float(np.mean([value for value, _ in areas])), np.mean([influence for _, influence in areas], axis=0)


def _area(positive: Array, scores: Array) -> tuple[float, Array]:
    """Area under the curve with DeLong's components, from ranks (Sun & Xu 2014)."""
    is_positive = positive == 1
    n, positives = len(scores), int(is_positive.sum())
    negatives = n - positives
    within = np.empty(n)
    within[is_positive] = rankdata(scores[is_positive])
    within[~is_positive] = rankdata(scores[~is_positive])
    beaten = rankdata(scores) - within
    share = np.where(is_positive, beaten / negatives, 1 - beaten / positives)
    value = float(share[is_positive].mean())
    return value, (share - value) * np.where(is_positive, n / positives, n / negatives)


def _log_loss(truth: Array, predictions: Array) -> tuple[float, Array]:
    total = predictions.sum(axis=1)
    given = (truth * predictions).sum(axis=1) / np.where(total > 0, total, 1)
    return _mean(-np.log(np.clip(given, np.finfo(float).eps, 1)))


def _brier(truth: Array, predictions: Array) -> tuple[float, Array]:
    """Squared distance summed over the classes (Brier 1950): 0 to 2, twice the binary form."""
    return _mean(((predictions - truth) ** 2).sum(axis=1))


def _rmse(truth: Array, predictions: Array) -> tuple[float, Array]:
    mean, influence = _mean((predictions - truth) ** 2)
    return sqrt(mean), influence / (2 * sqrt(mean)) if mean else influence


def _mae(truth: Array, predictions: Array) -> tuple[float, Array]:
    return _mean(np.abs(predictions - truth))


def _r2(truth: Array, predictions: Array) -> tuple[float, Array]:
    error, of_error = _mean((predictions - truth) ** 2)
    spread, of_spread = _mean((truth - truth.mean()) ** 2)
    if spread == 0:
        return 0.0, np.zeros(len(truth))
    return 1 - error / spread, (error / spread * of_spread - of_error) / spread


Scorer = Callable[[Array, Array], tuple[float, Array]]
CLASSIFICATIONS: dict[str, Scorer] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
    "roc_auc": _roc_auc,
    "log_loss": _log_loss,
    "brier": _brier,
}
REGRESSIONS: dict[str, Scorer] = {"rmse": _rmse, "mae": _mae, "r2": _r2}
