"""Graphs of fitted estimators, run by ONNX Runtime, against the estimators themselves."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from steward.core.compilation import answer_prepared, compile_estimator, threshold_for_float64
from steward.core.estimators import BoundedRegressor, WeightedEnsemble
from steward.core.parity import threshold_rows
from steward.core.preparation import Encoding
from steward.io.artifacts import Artifacts, OnnxModel

random = np.random.default_rng(0)
ROWS, LEVELS = 600, 70
NUMBERS = random.normal(size=(ROWS, 3)) * [1, 100, 1e-3]
CODES = np.column_stack([random.integers(0, 5, ROWS), random.integers(0, LEVELS - 10, ROWS)]).astype(float)
MATRIX = np.column_stack([CODES[:, :1], NUMBERS, CODES[:, 1:]])
HOLES = np.where(random.random(MATRIX.shape) < 0.1, np.nan, MATRIX)
SIGNAL = NUMBERS[:, 0] + np.sin(CODES[:, 1]) + (CODES[:, 0] == 2) + random.normal(size=ROWS) / 4
THREE = np.array(["High", "Low", "Medium"])[np.digitize(SIGNAL, [-0.5, 0.7])]
TWO = np.array(["no", "yes"])[(SIGNAL > 0).astype(int)]
NATIVE = {"categorical_features": [0, 4], "max_iter": 20}
TREES = {"n_estimators": 8, "random_state": 0}


class Coded:
    """Stands for an encoder whose columns 0 and 4 are codes below LEVELS."""

    encoding = Encoding({"a": "category"}, {"a": {}}, {"a": LEVELS - 1.0})


def pipeline_of(estimator: object) -> Pipeline:
    return Pipeline([("encode", Coded()), ("prepare", "passthrough"), ("estimate", estimator)])


def largest_difference(estimator: object, rows: np.ndarray, folder: Path) -> float:
    """Between estimator and ONNX, on the rows at once and some of them one by one."""
    Artifacts(None).write_graph(compile_estimator(pipeline_of(estimator)), folder / "x.onnx")  # type: ignore[arg-type]
    model = OnnxModel(folder / "x.onnx")
    expected, actual = answer_prepared(estimator, rows), model.answer(rows)
    assert expected.shape == actual.shape
    singles = np.concatenate([model.answer(row[None]) for row in rows[:50]])
    return max(np.abs(actual - expected).max(), np.abs(singles - expected[:50]).max())


def hostile(estimator: object, *, missing: bool) -> np.ndarray:
    """Real rows, unseen codes, extremes, missing values, and rows beside every threshold."""
    rows = np.concatenate([HOLES if missing else MATRIX, MATRIX])
    rows[:LEVELS, 4] = np.arange(LEVELS)
    rows[:20, 0] = np.arange(20)
    rows[100:104, 1] = [1e30, -1e30, 5e-324, np.finfo("f4").max]
    return np.concatenate([rows, threshold_rows(estimator, rows)])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("estimator", "truth"),
    [
        (HistGradientBoostingClassifier(**NATIVE), THREE),
        (HistGradientBoostingClassifier(**NATIVE), TWO),
        (HistGradientBoostingClassifier(max_iter=20), THREE),
        (HistGradientBoostingRegressor(**NATIVE), SIGNAL),
        (HistGradientBoostingRegressor(**NATIVE, loss="poisson"), np.exp(SIGNAL)),
        (HistGradientBoostingRegressor(**NATIVE, loss="gamma"), np.exp(SIGNAL)),
        (HistGradientBoostingRegressor(**NATIVE, loss="quantile", quantile=0.9), SIGNAL),
        (DecisionTreeClassifier(random_state=0), THREE),
        (DecisionTreeRegressor(random_state=0), SIGNAL),
        (ExtraTreeClassifier(random_state=0), TWO),
        (RandomForestClassifier(**TREES), THREE),
        (RandomForestRegressor(**TREES), SIGNAL),
        (ExtraTreesClassifier(**TREES), TWO),
        (ExtraTreesRegressor(**TREES), SIGNAL),
        (VotingClassifier([("a", HistGradientBoostingClassifier(**NATIVE)), ("b", HistGradientBoostingClassifier(max_iter=5, categorical_features=[0, 4]))], voting="soft"), THREE),
        (VotingRegressor([("a", HistGradientBoostingRegressor(**NATIVE)), ("b", HistGradientBoostingRegressor(max_iter=5, categorical_features=[0, 4]))]), SIGNAL),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else str(value.dtype),
)  # fmt: skip
@pytest.mark.parametrize("holes", [True, False], ids=["missing in training", "whole"])
def test_trees_with_missing_values(estimator: object, truth: np.ndarray, holes: bool, tmp_path: Path) -> None:
    """Values that were never missing in training may be missing later."""
    fitted = estimator.fit(HOLES if holes else MATRIX, truth)  # type: ignore[attr-defined]
    assert largest_difference(fitted, hostile(fitted, missing=True), tmp_path) <= 1e-12


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("estimator", "truth"),
    [
        (GradientBoostingClassifier(**TREES), THREE),
        (GradientBoostingClassifier(**TREES), TWO),
        (GradientBoostingClassifier(**TREES, loss="exponential"), TWO),
        (GradientBoostingClassifier(**TREES, init="zero"), THREE),
        (GradientBoostingRegressor(**TREES, loss="huber"), SIGNAL),
        (DecisionTreeClassifier(max_depth=1, min_samples_leaf=500), TWO),  # a single leaf
        (LogisticRegression(), THREE),
        (LogisticRegression(), TWO),
        (BoundedRegressor(Ridge()), SIGNAL),
        (ElasticNet(), SIGNAL),
        (LinearRegression(fit_intercept=False), SIGNAL),
        (MLPClassifier((8, 4), max_iter=3), THREE),
        (MLPClassifier((8,), max_iter=3, activation="tanh"), TWO),
        (BoundedRegressor(MLPRegressor(hidden_layer_sizes=(8,), max_iter=3, activation="logistic")), SIGNAL),
        (VotingClassifier([("a", MLPClassifier((4,), max_iter=3)), ("b", MLPClassifier((4,), max_iter=3))], voting="soft"), TWO),
        (BoundedRegressor(VotingRegressor([("a", MLPRegressor(hidden_layer_sizes=(4,), max_iter=3)), ("b", MLPRegressor(hidden_layer_sizes=(4,), max_iter=3))])), SIGNAL),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else str(value.dtype),
)  # fmt: skip
def test_whole_rows(estimator: object, truth: np.ndarray, tmp_path: Path) -> None:
    scaled = MATRIX / [1, 1, 100, 1e-3, 10]
    fitted = estimator.fit(scaled, truth)  # type: ignore[attr-defined]
    rows = np.concatenate([scaled, scaled * 50, threshold_rows(fitted, scaled)])
    assert largest_difference(fitted, rows, tmp_path) <= 1e-9


def test_members_of_an_ensemble_have_rows_of_their_own(tmp_path: Path) -> None:
    members = {
        "line": LogisticRegression(),
        "boosting": HistGradientBoostingClassifier(**NATIVE),
        "tree": DecisionTreeClassifier(),
    }
    pipelines = {name: Pipeline([("prepare", "passthrough"), ("estimate", one)]) for name, one in members.items()}
    fitted = WeightedEnsemble(pipelines, {"line": 0.2, "boosting": 0.5, "tree": 0.3}).fit(MATRIX, THREE)
    rows = np.hstack([MATRIX[::-1], HOLES, MATRIX[50:].repeat(2, axis=0)[:ROWS]])
    assert largest_difference(fitted, rows, tmp_path) <= 1e-12


@pytest.mark.parametrize(
    "estimator",
    [
        KNeighborsClassifier(),
        GradientBoostingClassifier(n_estimators=2, init=LogisticRegression()),
        VotingClassifier([("a", DecisionTreeClassifier())], voting="hard"),
        VotingClassifier([("a", DecisionTreeClassifier())], voting="soft", weights=[2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unknown_estimators_are_refused(estimator: object) -> None:
    with pytest.raises(TypeError):
        compile_estimator(pipeline_of(estimator.fit(MATRIX[:, :2], TWO)))  # type: ignore[attr-defined]


@given(st.floats(-(2.0**120), 2.0**120, width=32), st.floats(-2, 2), st.floats(-2, 2))
def test_thresholds_decide_as_after_rounding(near: float, of_threshold: float, of_value: float) -> None:
    """Within two float32 steps of a number, where rounding decides."""
    step = float(np.spacing(np.float32(abs(near))))
    threshold, value = near + of_threshold * step, near + of_value * step
    decided = value <= threshold_for_float64(np.array([threshold]))[0]
    assert decided == (float(np.float32(value)) <= threshold)
