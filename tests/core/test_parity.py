import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression

from steward.core.parity import UNSEEN, compare, edge_rows, not_converted, threshold_rows

random = np.random.default_rng(0)
FEATURES = np.column_stack([random.integers(0, 6, 400), random.normal(size=400)]).astype(float)
CLASSES = np.array(["Low", "Medium", "High"])[FEATURES[:, 0].astype(int) // 2]
NUMBERS = FEATURES[:, 0] ** 2 + 1


@pytest.mark.parametrize(
    ("expected", "actual", "passed"),
    [
        ([[0.7, 0.3]], [[0.7, 0.3]], True),
        ([[0.7, 0.3]], [[0.70009, 0.29991]], True),
        ([[0.7, 0.3]], [[0.7002, 0.2998]], False),  # farther than 1e-4
        ([[0.5, 0.5]], [[0.49999999, 0.50000001]], True),  # a tie: no engine is more right
        ([[0.50001, 0.49999]], [[0.49999, 0.50001]], False),  # close, but another class
        ([[0.7, 0.3]], [[np.nan, 0.3]], False),
        ([[0.7, 0.3]], [[0.7]], False),
        ([[0.7, 0.3]], [0.7], False),
        ([100.0, 300.0], [100.0, 300.005], True),
        ([100.0, 300.0], [100.0, 300.05], False),
        ([5.0, 5.0], [5.0, 5.0], True),  # no spread
        ([0.0, 0.0], [0.0, 1.0], False),
    ],
)
def test_compare(expected: list[object], actual: list[object], passed: bool) -> None:
    assert compare(np.array(expected, dtype=float), np.array(actual, dtype=float)).passed is passed


def test_counts_rows_that_get_another_class() -> None:
    proof = compare(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.1, 0.9], [0.2, 0.8]]))
    assert (proof.rows, proof.label_differences, round(proof.largest_difference, 6)) == (2, 1, 0.8)


def test_refused_conversion_is_no_proof() -> None:
    proof = not_converted(RuntimeError("no shape\ncalculator"))
    assert (proof.passed, proof.reason) == (False, "not convertible: RuntimeError: no shape calculator")


def test_edges_reach_every_column() -> None:
    frame = pd.DataFrame(
        {
            "files": FEATURES[:, 0],
            "team": pd.Series(["ops"] * 400, dtype=object),
            "night": FEATURES[:, 0] > 3,
            "lost": np.full(400, np.nan),
        }
    ).astype({"night": float})
    edges = edge_rows(frame, {"files": "integer", "team": "category", "night": "boolean", "lost": "number"})
    assert edges.isna().any().all()
    assert UNSEEN in set(edges["team"])
    assert edges.dtypes.equals(frame.dtypes)
    assert ((edges["files"] % 1).between(1e-17, 1e-12)).any()


@pytest.mark.parametrize(
    ("estimator", "truth"),
    [
        (RandomForestClassifier(5, random_state=0), CLASSES),
        (GradientBoostingRegressor(n_estimators=5), NUMBERS),
        (HistGradientBoostingClassifier(max_iter=5), CLASSES),
        (HistGradientBoostingRegressor(max_iter=5), NUMBERS),
    ],
    ids=lambda value: type(value).__name__,
)
def test_thresholds_are_met_from_both_sides(estimator: object, truth: np.ndarray) -> None:
    fitted = estimator.fit(FEATURES, truth)
    rows = threshold_rows(fitted, FEATURES)
    moved, between = set(rows[:, 0]), np.arange(6, dtype=np.float32) + np.float32(0.5)
    below, above = np.nextafter(between, np.float32(0)), np.nextafter(between, np.float32(9))
    assert any({on, low, high} <= moved for on, low, high in zip(between, below, above, strict=True))
    assert np.array_equal(rows, threshold_rows(fitted, FEATURES))


def test_native_categories_are_no_thresholds() -> None:
    fitted = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]).fit(FEATURES[:, :1], CLASSES)
    assert len(threshold_rows(fitted, FEATURES[:, :1])) == 0


def test_no_trees_no_rows() -> None:
    assert threshold_rows(LogisticRegression().fit(FEATURES, CLASSES), FEATURES).shape == (0, 2)


def test_thresholds_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steward.core.parity.MOST_THRESHOLDS", 4)
    assert threshold_rows(RandomForestClassifier(5).fit(FEATURES, CLASSES), FEATURES).shape == (12, 2)
