"""Proof that two engines give the same answers, on real rows and on the rows where they would part first.

Whatever makes an engine can succeed and be silently wrong: it may drop the categories of a split, the direction of a
missing value or a link function. So the proof decides, not the converter.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward.core.compilation import boosting_columns, input_width
from steward.core.estimators import WeightedEnsemble
from steward.records import Parity

TOLERANCE = 1e-4
"""Largest allowed difference of a probability, or of a prediction in standard deviations of the predictions."""

TIE = 1e-6
"""Classes whose probabilities are closer than this are a tie, and which of them wins is an accident of rounding."""

SAMPLED_ROWS = 50
SAMPLED_VALUES = 5
MOST_THRESHOLDS = 1_000
LARGEST = float(np.finfo(np.float32).max)
UNSEEN = "a value that nobody has seen"

Matrix = NDArray[np.float64]


def edge_rows(frame: pd.DataFrame, columns: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """Real rows with one value moved to where answers may change.

    Per column: missing; for a category one that is unseen; for a number the extremes, values far beyond them, and
    sampled values one unit in the last place up and down.

    Parameters
    ----------
    frame : learning frame with at least one row.
    columns : contract type by column name.

    Examples
    --------
    >>> frame = pd.DataFrame({"hour": [3.0, 22.0], "team": pd.Series(["web", "ops"], dtype=object)})
    >>> edges = edge_rows(frame, {"hour": "integer", "team": "category"})
    >>> len(edges), float(edges["hour"].min()), float(edges["hour"].max())
    (12, -1e+30, 1e+30)
    >>> edges["team"].iloc[-2:].tolist()
    [None, 'a value that nobody has seen']
    """
    sample = frame.sample(min(SAMPLED_ROWS, len(frame)), random_state=seed)
    return pd.concat([_with_edges(sample, name, kind) for name, kind in columns.items()], ignore_index=True)


def threshold_rows(estimator: Any, features: Matrix, seed: int = 0) -> Matrix:
    """Prepared rows with one feature each put on, just below and just above a threshold of a tree.

    Just below and above as float64 and as float32: scikit-learn's classic trees round to float32 first.

    Parameters
    ----------
    estimator : last estimator of a pipeline. Where no thresholds can be read from it there are no rows.
    features : prepared rows of shape (n, m) to start from; for a weighted ensemble its members' rows side by side.

    Returns
    -------
    Array of shape (6 per threshold, m); at most 1,000 thresholds, drawn by `seed`.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeRegressor
    >>> tree = DecisionTreeRegressor().fit([[1.0], [2.0]], [0.0, 1.0])
    >>> threshold_rows(tree, np.array([[1.0]])).round(3).tolist()
    [[1.5], [1.5], [1.5], [1.5], [1.5], [1.5]]
    """
    splits = np.array(sorted(set(_splits(estimator))), dtype=np.float64).reshape(-1, 2)
    splits = splits[np.isfinite(splits).all(axis=1) & (np.abs(splits[:, 1]) < LARGEST)]
    random = np.random.default_rng(seed)
    if len(splits) > MOST_THRESHOLDS:
        splits = splits[random.choice(len(splits), MOST_THRESHOLDS, replace=False)]
    values = np.concatenate([_around(splits[:, 1]), _around(splits[:, 1].astype(np.float32)).astype(np.float64)])
    rows = features[random.integers(len(features), size=len(values))].copy()
    rows[np.arange(len(values)), np.tile(splits[:, 0].astype(int), 6)] = values
    return rows


def compare(expected: Matrix, actual: Matrix) -> Parity:
    """Hold the second engine's answers against the first's.

    Parameters
    ----------
    expected, actual : probabilities of shape (n, k) in the same order of classes, or predictions of shape (n,).

    Examples
    --------
    >>> compare(np.array([[0.9, 0.1]]), np.array([[0.90001, 0.09999]])).passed
    True
    >>> print(compare(np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])).reason)
    1 of 1 rows get another class, the largest difference is 0.7
    """
    if expected.shape != actual.shape:
        return _failed(len(expected), f"answers of shape {actual.shape} instead of {expected.shape}")
    if not np.isfinite(actual).all():
        return _failed(len(expected), "some answers are not finite numbers")
    difference = float(np.max(np.abs(actual - expected) / _scale(expected), initial=0.0))
    labels = _label_differences(expected, actual)
    found = f"the largest difference is {difference:.1g}"
    if labels:
        found = f"{labels} of {len(expected)} rows get another class, {found}"
    return Parity(
        passed=labels == 0 and difference <= TOLERANCE,
        rows=len(expected),
        label_differences=labels,
        largest_difference=difference,
        reason=found,
    )


def both(first: Parity, second: Parity) -> Parity:
    """One proof of two: it passed if both did, and says what the worse one found."""
    worse = max(first, second, key=lambda proof: (not proof.passed, proof.label_differences, proof.largest_difference))
    return worse.model_copy(update={"rows": first.rows + second.rows})


def same(rows: int) -> Parity:
    """The proof of the pipeline itself."""
    return Parity(passed=True, rows=rows, label_differences=0, largest_difference=0.0, reason="it is the pipeline")


def refused(problem: Exception) -> Parity:
    """The proof where an engine could not be made, or did not answer."""
    return _failed(0, f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}")


def _failed(rows: int, reason: str) -> Parity:
    return Parity(passed=False, rows=rows, label_differences=0, largest_difference=0.0, reason=reason)


def _scale(expected: Matrix) -> float:
    """Probabilities are compared as they are, predictions in units of their own spread."""
    return 1.0 if expected.ndim > 1 else float(np.std(expected)) or float(np.max(np.abs(expected), initial=0)) or 1.0


def _label_differences(expected: Matrix, actual: Matrix) -> int:
    if expected.ndim == 1:
        return 0
    chosen = np.take_along_axis(expected, actual.argmax(axis=1)[:, None], axis=1)[:, 0]
    return int(np.sum(chosen < expected.max(axis=1) - TIE))


def _with_edges(sample: pd.DataFrame, name: str, kind: str) -> pd.DataFrame:
    values = _edges(sample[name], kind)
    rows = sample.iloc[np.arange(len(values)) % len(sample)].copy()
    rows[name] = pd.Series(values, index=rows.index, dtype=sample[name].dtype)
    return rows


def _edges(column: "pd.Series[Any]", kind: str) -> list[Any]:
    if kind == "category":
        return [None, UNSEEN]
    if kind == "boolean":
        return [np.nan, 0.0, 1.0]
    seen = column.dropna().to_numpy(dtype=np.float64)
    extremes = [np.nan, 0.0, -1e30, 1e30, *([seen.min(), seen.max()] if len(seen) else [])]
    sampled = seen[:SAMPLED_VALUES]
    return [*extremes, *np.nextafter(sampled, -np.inf), *np.nextafter(sampled, np.inf)]


def _around(values: NDArray[Any]) -> NDArray[Any]:
    """The values, and those just below and just above in their own precision."""
    infinity = values.dtype.type(np.inf)
    return np.concatenate([values, np.nextafter(values, -infinity), np.nextafter(values, infinity)])


def _splits(estimator: Any) -> Iterator[tuple[int, float]]:
    """(feature, threshold) of every numeric split of scikit-learn's trees, however deep they are wrapped."""
    if isinstance(estimator, WeightedEnsemble):
        yield from _splits_of_members(estimator)
    if hasattr(estimator, "tree_"):
        tree = estimator.tree_
        inner = tree.feature >= 0
        yield from zip(tree.feature[inner].tolist(), tree.threshold[inner].tolist(), strict=True)
    members = getattr(estimator, "estimators_", [])
    for member in members.ravel() if isinstance(members, np.ndarray) else members:
        yield from _splits(member)
    if hasattr(estimator, "regressor_"):
        yield from _splits(estimator.regressor_)
    columns = boosting_columns(estimator) if hasattr(estimator, "_predictors") else ()
    for predictor in (one for stage in getattr(estimator, "_predictors", []) for one in stage):
        nodes = predictor.nodes[(predictor.nodes["is_leaf"] == 0) & (predictor.nodes["is_categorical"] == 0)]
        features = columns[nodes["feature_idx"]]
        yield from zip(features.tolist(), nodes["num_threshold"].tolist(), strict=True)


def _splits_of_members(ensemble: WeightedEnsemble) -> Iterator[tuple[int, float]]:
    start = 0
    for member in ensemble.members_.values():
        yield from ((start + feature, threshold) for feature, threshold in _splits(member[-1]))
        start += input_width(member[-1])
