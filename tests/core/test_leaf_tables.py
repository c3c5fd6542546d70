"""Tables of boosted trees, against scikit-learn itself: bit for bit the same leaf, whatever the row."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from steward.core import leaf_tables
from steward.core.compilation import compile_tables, is_boosted
from steward.core.leaf_tables import LeafTables
from steward.core.parity import threshold_rows
from steward.core.preparation import Encoding

ROWS, LEVELS = 700, 40
random = np.random.default_rng(0)
NUMBERS = random.normal(size=(ROWS, 3)) * [1, 100, 1e-3]
CODES = np.column_stack([random.integers(0, 5, ROWS), random.integers(0, LEVELS - 8, ROWS)]).astype(float)
MATRIX = np.column_stack([CODES[:, :1], NUMBERS, CODES[:, 1:]])
HOLES = np.where(random.random(MATRIX.shape) < 0.1, np.nan, MATRIX)
SIGNAL = NUMBERS[:, 0] + np.sin(CODES[:, 1]) + (CODES[:, 0] == 2) + random.normal(size=ROWS) / 4
THREE = np.array(["High", "Low", "Medium"])[np.digitize(SIGNAL, [-0.5, 0.7])]
TWO = np.array(["no", "yes"])[(SIGNAL > 0).astype(int)]
NATIVE = {"categorical_features": [0, 4], "max_iter": 25, "min_samples_leaf": 2}


class Coded:
    """Stands for an encoder whose columns 0 and 4 are codes below LEVELS."""

    encoding = Encoding({"a": "category"}, {"a": {}}, {"a": LEVELS - 1.0})


def tables_of(estimator: object) -> LeafTables:
    pipeline = Pipeline([("encode", Coded()), ("prepare", "passthrough"), ("estimate", estimator)])
    return LeafTables.read(compile_tables(pipeline).arrays())


def hostile(estimator: object) -> np.ndarray:
    """Rows with holes, codes that training did not have, and every threshold with its two neighbours."""
    strange = HOLES[:60].copy()
    strange[:30, 4] = LEVELS - 1
    strange[30:, 0] = 4_000
    strange[40:, 1:4] = random.choice([-np.inf, np.inf, 0.0, -0.0], size=(20, 3))
    member = getattr(estimator, "estimators_", [estimator])[0]
    return np.concatenate([HOLES, strange, threshold_rows(member, HOLES)])


def copies(count: int, **options: object) -> VotingClassifier:
    members = [(str(seed), HistGradientBoostingClassifier(random_state=seed, **options)) for seed in range(count)]
    return VotingClassifier(members, voting="soft")


@pytest.mark.parametrize(
    ("estimator", "truth"),
    [
        (HistGradientBoostingClassifier(**NATIVE), THREE),
        (HistGradientBoostingClassifier(**NATIVE), TWO),
        (HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=3), THREE),
        (HistGradientBoostingClassifier(**NATIVE, max_leaf_nodes=100), THREE),
        (HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=ROWS), TWO),
        (HistGradientBoostingRegressor(**NATIVE, max_leaf_nodes=64), SIGNAL),
        (HistGradientBoostingRegressor(**NATIVE, loss="poisson", max_leaf_nodes=65), np.exp(SIGNAL)),
        (copies(3, **NATIVE, max_features=0.5), THREE),
        (copies(2, **NATIVE), TWO),
    ],
    ids=["three classes", "two", "stumps", "two words", "one leaf", "regression", "log link", "copies", "two copies"],
)
def test_tables_answer_as_the_trees_do(estimator, truth):
    estimator.fit(HOLES, truth)
    tables, rows = tables_of(estimator), hostile(estimator)
    expected = estimator.predict_proba(rows) if hasattr(estimator, "predict_proba") else estimator.predict(rows)
    together = tables.answer(rows)
    alone = np.concatenate([tables.answer(rows[place : place + 1]) for place in range(0, len(rows), 7)])
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(together - expected).max() / scale < 1e-13
    assert np.abs(alone - expected[::7]).max() / scale < 1e-13
    assert len(tables.answer(rows[:0])) == 0


def test_what_has_no_tables_says_so(monkeypatch):
    assert not is_boosted(LogisticRegression())
    with pytest.raises(TypeError, match="LogisticRegression has no tables"):
        tables_of(LogisticRegression())
    large = HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=None, min_samples_leaf=1).fit(NUMBERS, THREE)
    with pytest.raises(TypeError, match="tables hold 128"):
        tables_of(large)
    monkeypatch.setattr(leaf_tables, "MOST_BYTES", 1_000)
    with pytest.raises(TypeError, match="too large"):
        tables_of(HistGradientBoostingClassifier(max_iter=5).fit(HOLES, TWO))
