"""The safe expression language answers as pandas would, and refuses whatever could do something."""

from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward.expressions import MAX_LENGTH, Expression

COLUMNS = {"hour": np.array([3.0, 12.0, np.nan]), "team": np.array(["ops", None, "web"], dtype=object)}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("hour < 6 or hour >= 22", [True, False, False]),
        ("not hour < 6", [False, True, True]),
        ("team == 'ops'", [True, False, False]),
        ("team != 'ops'", [False, True, True]),
        ("team in ['ops', 'web']", [True, False, True]),
        ("team not in ('ops',)", [False, True, True]),
        ("0 <= hour < 6", [True, False, False]),
        ("hour * 2 + 1 > 7 and team == 'ops'", [False, False, False]),
        ("1 if hour > 6 else 0", [0, 1, 0]),
        ("-hour // 2 % 3 == 1", [True, False, False]),
    ],
)
def test_answers(text, answer):
    assert Expression.parse(text).evaluate(COLUMNS).tolist() == answer


def test_one_record_is_answered_as_a_table_is():
    night = Expression.parse("hour < 6 or hour >= 22")
    assert bool(night.evaluate({"hour": 3})) is True
    assert bool(night.evaluate({"hour": float("nan")})) is False


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("f(hour)", "calls"),
        ("hour.real", "attribute"),
        ("hour[0]", "subscript"),
        ("lambda: 1", "lambda"),
        ("[x for x in hour]", "listcomp"),
        ("hour ** 9 ** 9", "operator Pow"),
        ("(x := 1)", "namedexpr"),
        ("hour is None", "comparison Is"),
        ("f'{hour}'", "joinedstr"),
        ("hour in team", "list of constants"),
        ("hour <", "not an expression"),
        ("b'x' == team", "constant"),
        ("1 + " * MAX_LENGTH + "1", "longer than"),
    ],
)
def test_what_is_not_a_plain_expression_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        Expression.parse(text)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_parse_or_be_refused(text):
    with suppress(ValueError):
        Expression.parse(text)


@given(st.lists(st.floats(allow_infinity=False, width=32), min_size=1, max_size=20), st.floats(-5, 5))
def test_numbers_compare_as_in_pandas(values, limit):
    array = np.array(values, dtype=float)
    answer = Expression.parse(f"x >= {limit!r}").evaluate({"x": array})
    assert answer.tolist() == (pd.Series(array) >= limit).tolist()
