"""What a version computes becomes the same answer, one by one and many at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from steward.config import Action
from steward.core.actions import Policy
from steward.core.answers import Answering, Coded
from steward.errors import AnswerInvalid

CLASSES = ("Low", "Medium", "High")
POLICY = Policy([Action(when="confidence < 0.6 or team == 'new'", do="notify", say="look"), Action(otherwise="go")])
RAW = arrays(np.float64, st.tuples(st.integers(0, 5), st.just(3)), elements=st.floats(0, 1))


@given(RAW, st.sampled_from(["web", "new", None]))
def test_one_by_one_and_many_are_the_same(raw, team):
    answering = Answering(CLASSES, POLICY)
    columns = {"team": [team] * len(raw)}
    unseen = {"team": [team == "new"] * len(raw), "stage": [False] * len(raw)}
    alone = [
        answering.one(raw[[i]], {name: flags[i : i + 1] for name, flags in unseen.items()}, {"team": team})
        for i in range(len(raw))
    ]
    assert list(answering.many(raw, unseen, columns)) == alone


@given(arrays(np.float64, st.integers(0, 5), elements=st.floats(-1e6, 1e6)), st.sampled_from([None, 2.5]))
def test_numbers_are_the_same_too(raw, half_width):
    answering = Answering((), Policy([Action(when="prediction > 0", do="look")]), half_width)
    alone = [answering.one(raw[[i]], {}, {}) for i in range(len(raw))]
    assert list(answering.many(raw, {}, {})) == alone
    assert all(answer.confidence is None and answer.probabilities is None for answer in alone)
    assert all((answer.interval is None) == (half_width is None) for answer in alone)


def test_of_equal_probabilities_the_first_class_wins():
    answering = Answering(CLASSES, POLICY)
    raw = np.array([[0.2, 0.4, 0.4]])
    assert answering.one(raw, {}, {}).prediction == "Medium"
    assert [answer.prediction for answer in answering.many(raw, {}, {})] == ["Medium"]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("classes", [("Low", "High"), ()], ids=["classes", "numbers"])
def test_what_is_not_finite_is_no_answer(classes, wrong):
    raw = np.array([[0.5, wrong]]) if classes else np.array([wrong])
    answering = Answering(classes, POLICY)
    with pytest.raises(AnswerInvalid, match="no finite number"):
        answering.one(raw, {}, {})
    with pytest.raises(AnswerInvalid, match="no finite number"):
        answering.many(raw, {}, {})


def test_a_table_of_answers():
    answers = Answering(("Low", "High"), POLICY).many(
        np.array([[0.7, 0.3], [0.5, 0.5]]),
        {"team": [True, False], "stage": [True, False], "never": [False, False]},
        {"team": ["new", "web"]},
    )
    columns = answers.as_columns({"out_of_range:hour": np.array([False, True])})
    spread = {name: (c.spread() if isinstance(c, Coded) else c).tolist() for name, c in columns.items()}
    assert spread == {
        "prediction": ["Low", "Low"],
        "confidence": [0.7, 0.5],
        "probability_Low": [0.7, 0.5],
        "probability_High": [0.3, 0.5],
        "action": ["notify", "notify"],
        "message": ["look", "look"],
        "unseen": ["team,stage", ""],
        "flags": ["", "out_of_range:hour"],
    }


def test_a_table_of_numbers_has_an_interval():
    columns = Answering((), Policy([]), 1.0).many(np.array([5.0]), {}, {}).as_columns({})
    assert {name: columns[name][0] for name in list(columns)[:3]} == {"prediction": 5.0, "low": 4.0, "high": 6.0}
