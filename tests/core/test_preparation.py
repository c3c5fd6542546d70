"""A plan computes what scikit-learn's transformers compute, one row or many."""

import json
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, QuantileTransformer, SplineTransformer, StandardScaler

from steward.core.compilation import compile_plan
from steward.core.features import Encoder
from steward.core.preparation import BOUND, Encoding, Plan, normal_quantile

random = np.random.default_rng(0)
ROWS = 400
FRAME = pd.DataFrame(
    {
        "amount": np.where(random.random(ROWS) < 0.1, np.nan, random.lognormal(3, 2, ROWS)),
        "hour": random.integers(0, 24, ROWS).astype(float),
        "mostly_zero": np.where(random.random(ROWS) < 0.9, 0.0, random.normal(size=ROWS)),
        "constant": np.full(ROWS, 7.0),
        "lost": np.full(ROWS, np.nan),
        "team": pd.Series(random.choice(np.array(["ops", "web", "data", None]), ROWS, p=[0.5, 0.4, 0.09, 0.01]), dtype=object),
        "site": pd.Series([f"s{n}" for n in random.zipf(1.8, ROWS) % 60], dtype=object),
    }
)  # fmt: skip
KINDS = {name: "category" if name in ("team", "site") else "number" for name in FRAME}
NUMBERS, CATEGORIES = [0, 1, 2, 3, 4, 7], [5, 6]
IMPUTE = SimpleImputer(strategy="median", keep_empty_features=True)
HOSTILE = [None, np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 5e-324, 1e-7, 23.0, np.nextafter(23.0, 99)]


def edges() -> pd.DataFrame:
    """Rows with the extremes of every column, and new values."""
    low, high = FRAME[["amount", "hour", "mostly_zero"]].min(), FRAME[["amount", "hour", "mostly_zero"]].max()
    rows = pd.concat([FRAME.head(60)] * 3, ignore_index=True)
    rows.loc[60:119, "team"], rows.loc[100:150, "site"] = "nobody", None
    for name in low.index:
        inside = [low[name], high[name], np.nextafter(low[name], -np.inf), np.nextafter(high[name], np.inf)]
        values = [*inside, *(np.nan if value is None else value for value in HOSTILE)]
        rows[name] = np.resize(np.array(values), len(rows))
    return rows


def fitted(numbers: object) -> Pipeline:
    prepare = ColumnTransformer(
        [
            ("numbers", numbers, NUMBERS),
            ("missing", MissingIndicator(error_on_new=False), NUMBERS),
            ("one_hot", OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist", sparse_output=False), [5]),
            ("strict", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [6]),
            ("codes", SimpleImputer(strategy="constant", fill_value=-1), CATEGORIES),
            ("none", StandardScaler(), []),
        ]
    )
    encoder = Encoder(KINDS, {"team": ["ops", "web", "never"]}, {"night": "hour < 6 or amount > 40"})
    return Pipeline([("encode", encoder), ("prepare", prepare), ("estimate", "passthrough")]).fit(FRAME)


@pytest.mark.parametrize(
    "numbers",
    [
        make_pipeline(IMPUTE, StandardScaler()),
        make_pipeline(IMPUTE, SplineTransformer(n_knots=6, knots="quantile", include_bias=False)),
        make_pipeline(IMPUTE, SplineTransformer(n_knots=4, degree=1)),
        make_pipeline(IMPUTE, QuantileTransformer(output_distribution="normal", n_quantiles=100), StandardScaler()),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
    ],
    ids=["standard", "spline", "degree 1", "normal", "indicator"],
)
def test_plan_computes_what_scikit_learn_computes(numbers: object) -> None:
    pipeline = fitted(numbers)
    plan = Plan.from_json(json.loads(json.dumps(compile_plan(pipeline).as_json(), allow_nan=False)))
    for frame in (FRAME, edges()):
        columns = {name: frame[name].to_numpy() for name in frame}
        expected = pipeline[:-1].transform(frame)
        np.testing.assert_allclose(plan.matrix(columns), expected, rtol=1e-9, atol=1e-9)
        singles = [plan.matrix({name: [value] for name, value in row.items()}) for row in frame.to_dict("records")[:80]]
        np.testing.assert_allclose(np.concatenate(singles), expected[:80], rtol=1e-9, atol=1e-9)


def test_plan_knows_what_training_did_not() -> None:
    plan = compile_plan(fitted(IMPUTE))
    assert plan.unseen({"team": ["web", "never", "nobody", None], "site": ["s1", "s1", None, "?"]}) == {
        "team": [False, False, True, False],
        "site": [False, False, False, True],
    }


def test_other_transformers_have_no_plan() -> None:
    with pytest.raises(TypeError, match="no plan for MinMaxScaler"):
        compile_plan(fitted(make_pipeline(IMPUTE, MinMaxScaler())))


@pytest.mark.parametrize(
    ("values", "expected"), [(HOSTILE[:4], [np.nan] * 4), ([True, 1e300], [1, np.finfo("f4").max])]
)
def test_numbers_that_are_none(values: list[float], expected: list[float]) -> None:
    np.testing.assert_array_equal(Encoding({"x": "number"}).matrix({"x": values})[:, 0], expected)


@given(st.floats(BOUND / 2, 1 - BOUND / 2))
def test_normal_quantile(share: float) -> None:
    assert normal_quantile(np.array([share]))[0] == pytest.approx(NormalDist().inv_cdf(share), rel=1e-14, abs=1e-15)
