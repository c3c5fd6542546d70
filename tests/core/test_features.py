import json

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone

from steward.config import ModelFile
from steward.core.features import MAX_LEVELS, Encoder, column_positions
from steward.errors import ModelFileError


def model_file(columns, features=None):
    return ModelFile.model_validate(
        {
            "name": "example",
            "task": "classification",
            "source": {"table": "rows.csv", "key": "id"},
            "label": {"column": "label", "classes": ["no", "yes"]},
            "columns": columns,
            "features": {name: {"expression": text} for name, text in (features or {}).items()},
        }
    )


def texts(*values):
    return pd.Series(values, dtype=object)


@pytest.fixture
def rows():
    return pd.DataFrame(
        {
            "amount": [1.5, np.nan, 3.0, 4.0],
            "urgent": [1.0, 0.0, np.nan, 1.0],
            "size": texts("large", None, "small", "small"),
            "team": texts("web", "ops", "web", "ops"),
        }
    )


@pytest.fixture
def encoder():
    kinds = {"amount": "number", "urgent": "boolean", "size": "category", "team": "category"}
    return Encoder(kinds, {"size": ["small", "medium", "large"]}, {"big": "amount >= 3"}, min_rows=1)


def test_a_frame_becomes_numbers_in_the_model_files_order(encoder, rows):
    expected = [[1.5, 1, 2, 1, 0], [np.nan, 0, np.nan, 0, 0], [3, np.nan, 0, 1, 1], [4, 1, 0, 0, 1]]
    np.testing.assert_array_equal(encoder.fit_transform(rows), expected)
    assert list(encoder.get_feature_names_out()) == ["amount", "urgent", "size", "team", "big"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"amount": 3, "urgent": True, "size": "medium", "team": "ops"}, [3, 1, 1, 0, 1]),
        ({"amount": None, "urgent": None, "size": None, "team": None}, [np.nan, np.nan, np.nan, np.nan, 0]),
        ({"amount": 1, "urgent": 0, "size": "huge", "team": "new"}, [1, 0, 3, 2, 0]),
        ({"amount": float("inf"), "urgent": 0, "size": "small", "team": "ops"}, [np.nan, 0, 0, 0, 1]),
        ({"amount": 1e300, "urgent": 0, "size": "small", "team": "ops"}, [np.finfo("f4").max, 0, 0, 0, 1]),
    ],
    ids=["declared but untrained", "missing", "unseen", "infinite", "beyond float32"],
)
def test_one_record_without_pandas(encoder, rows, record, expected):
    columns = {name: [value] for name, value in record.items()}
    np.testing.assert_array_equal(encoder.fit(rows).encode_columns(columns), [expected])


def test_unseen_is_new_text_only(encoder, rows):
    columns = {"amount": [1, 1], "urgent": [0, 0], "size": ["huge", None], "team": ["web", "new"]}
    assert encoder.fit(rows).unseen(columns) == {"size": [True, False], "team": [False, True]}


def test_rare_levels_are_pooled_and_unseen_joins_them():
    rows = pd.DataFrame({"team": texts(*["web"] * 5, *["ops"] * 5, "rare", "once")})
    encoder = Encoder({"team": "category"}).fit(rows)
    assert encoder.encode_columns({"team": ["ops", "web", "rare", "once", "new"]}).ravel().tolist() == [0, 1, 2, 2, 2]


def test_a_thousand_categories_stay_below_what_boosting_takes():
    levels = [f"level{number:04}" for number in range(1_000) for _ in range(5 + number % 7)]
    encoder = Encoder({"team": "category"}).fit(pd.DataFrame({"team": texts(*levels)}))
    assert encoder.encode_columns({"team": levels}).max() == MAX_LEVELS


def test_a_wholly_missing_column_says_nothing_ever():
    rows = pd.DataFrame({"amount": [np.nan] * 3, "team": texts(None, None, None)})
    encoder = Encoder({"amount": "number", "team": "category"}).fit(rows)
    assert encoder.encode_columns({"amount": [7.0, None], "team": ["ops", None]}).tolist() == [[0, 0], [0, 0]]


def test_division_by_zero_is_missing(rows):
    encoder = Encoder({"amount": "number", "urgent": "boolean"}, expressions={"rate": "amount / urgent"}).fit(rows)
    assert np.isnan(encoder.encode_columns({"amount": [1.0], "urgent": [0.0]})[0, 2])


def test_a_feature_that_is_a_text_is_refused(rows):
    encoder = Encoder({"amount": "number"}, expressions={"word": "'a' if amount > 1 else 'b'"})
    with pytest.raises(ModelFileError, match=r"features\.word cannot be computed.*a number or a boolean"):
        encoder.fit(rows)


def test_survives_cloning_and_skops(encoder, rows):
    fitted = encoder.fit(rows)
    content = skops.io.dumps(fitted)
    unknown = skops.io.get_untrusted_types(data=content)
    assert unknown == ["steward.core.features.Encoder"]
    loaded = skops.io.loads(content, trusted=unknown)
    np.testing.assert_array_equal(loaded.transform(rows), fitted.transform(rows))
    assert clone(encoder).get_params() == encoder.get_params()
    assert json.loads(json.dumps(loaded.codes_)) == fitted.codes_


def test_of_a_model_file_with_positions():
    model = model_file(
        {"team": {"type": "category", "open": True}, "hour": {"type": "integer"}, "on": {"type": "boolean"}},
        {"night": "hour < 6"},
    )
    assert list(Encoder.of(model).get_feature_names_out()) == ["team", "hour", "on", "night"]
    assert column_positions(model) == ([1, 2, 3], [0])
