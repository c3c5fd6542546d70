import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeRegressor

from steward.core.estimators import BoundedRegressor, WeightedEnsemble
from steward.core.parity import UNSEEN, both, compare, edge_rows, refused, same, threshold_rows

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


def test_refused_engine_is_no_proof() -> None:
    proof = refused(RuntimeError("no shape\ncalculator"))
    assert (proof.passed, proof.reason) == (False, "RuntimeError: no shape calculator")


def test_two_proofs_are_as_good_as_the_worse_one() -> None:
    good, bad = same(5), compare(np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]]))
    for first, second in ((good, bad), (bad, good)):
        proof = both(first, second)
        assert (proof.passed, proof.rows, proof.reason) == (False, 6, bad.reason)
    assert both(good, good).passed


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
    moved = set(threshold_rows(fitted, FEATURES)[:, 0])
    assert any(around(threshold) <= moved for threshold in np.arange(6) + 0.5)
    assert np.array_equal(threshold_rows(fitted, FEATURES), threshold_rows(fitted, FEATURES))


def around(threshold: float) -> set[float]:
    """The threshold and its neighbours, as float64 and as float32."""
    single = np.float32(threshold)
    neighbours = [np.nextafter(threshold, 0), np.nextafter(threshold, 9)]
    return {
        float(value) for value in [threshold, *neighbours, np.nextafter(single, 0), np.nextafter(single, single + 1)]
    }


def test_thresholds_of_categorical_boosting_are_put_into_their_own_column() -> None:
    """scikit-learn moves categories to the front of what its trees see."""
    features = FEATURES[:, ::-1]
    fitted = HistGradientBoostingClassifier(max_iter=2, categorical_features=[1]).fit(features, CLASSES)
    moved = threshold_rows(fitted, np.zeros((1, 2)))
    assert np.count_nonzero(moved[:, 0]) > 0
    assert np.count_nonzero(moved[:, 1]) == 0


def test_thresholds_of_members_are_put_into_their_own_columns() -> None:
    tree = make_pipeline("passthrough", DecisionTreeRegressor(max_depth=2))
    line = make_pipeline("passthrough", BoundedRegressor(Ridge()))
    mean = WeightedEnsemble({"line": line, "tree": tree}, {"line": 0.5, "tree": 0.5}).fit(FEATURES, NUMBERS)
    moved = threshold_rows(mean, np.zeros((1, 4)))
    assert np.flatnonzero(moved.any(axis=0)).tolist() == [2]


def test_native_categories_are_no_thresholds() -> None:
    fitted = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]).fit(FEATURES[:, :1], CLASSES)
    assert len(threshold_rows(fitted, FEATURES[:, :1])) == 0


def test_no_trees_no_rows() -> None:
    assert threshold_rows(LogisticRegression().fit(FEATURES, CLASSES), FEATURES).shape == (0, 2)


def test_thresholds_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steward.core.parity.MOST_THRESHOLDS", 4)
    assert threshold_rows(RandomForestClassifier(5).fit(FEATURES, CLASSES), FEATURES).shape == (24, 2)
