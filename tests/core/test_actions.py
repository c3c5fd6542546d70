"""The first action whose condition holds is recommended, for one row and for many alike."""

import math
import timeit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward.config import Action, ModelFile
from steward.core.actions import Policy
from steward.errors import ModelFileError

EXAMPLE = (
    Action(when="prediction == 'High' and confidence >= 0.6", do="require_approval", say="Ask a senior engineer"),
    Action(when="prediction == 'High' or confidence < 0.5", do="notify"),
    Action(otherwise="proceed"),
)
RISKS = {"Low": 0.1, "Medium": 0.2, "High": 0.7}


@pytest.mark.parametrize(
    ("prediction", "confidence", "action"),
    [
        ("High", 0.7, ("require_approval", "Ask a senior engineer")),
        ("High", 0.6, ("require_approval", "Ask a senior engineer")),
        ("High", 0.55, ("notify", "")),
        ("Low", 0.45, ("notify", "")),
        ("Low", 0.5, ("proceed", "")),
    ],
)
def test_the_first_that_holds(prediction, confidence, action):
    assert Policy(EXAMPLE).recommend(prediction, confidence, RISKS, {}) == action


@pytest.mark.parametrize(
    ("actions", "row", "action"),
    [
        ([], {}, "proceed"),
        ([Action(when="hour < 6", do="wait")], {"hour": 7.0}, "proceed"),
        ([Action(when="hour < 6", do="wait")], {"hour": None}, "proceed"),
        ([Action(when="hour < 6", do="wait")], {}, "proceed"),
        ([Action(when="not hour < 6", do="wait")], {}, "wait"),
        ([Action(when="team == 'ops'", do="wait")], {"team": "ops"}, "wait"),
        ([Action(otherwise="stop", say="no"), Action(when="hour < 6", do="never reached")], {"hour": 1.0}, "stop"),
        ([Action(when="probabilities['High'] > 0.6", do="wait")], {}, "wait"),
    ],
)
def test_a_record_decides_too(actions, row, action):
    policy = Policy(actions)
    assert policy.recommend("Low", 0.1, RISKS, row).action == action
    columns = {
        name: np.array([value], dtype=object if isinstance(value, str) else float) for name, value in row.items()
    }
    risks = {name: np.array([value]) for name, value in RISKS.items()}
    many, _ = policy.recommend_many(np.array(["Low"], dtype=object), np.array([0.1]), risks, columns)
    assert many.tolist() == [action]


def test_a_regression_has_no_confidence():
    policy = Policy([Action(when="confidence < 2", do="never"), Action(when="prediction > 10 * hour", do="look")])
    assert policy.recommend(11.0, None, None, {"hour": 1.0}).action == "look"
    actions, _ = policy.recommend_many(np.array([11.0, 9.0]), None, None, {"hour": np.array([1.0, np.nan])})
    assert actions.tolist() == ["look", "proceed"]


MODEL = """
{name: m, task: classification, source: {table: t.csv, key: id}, label: {column: risk, classes: [Low, High]},
 columns: {hour: {type: integer}, team: {type: category, open: true}}, serve: {actions: [{when: "WHEN", do: x}]}}
"""


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("team < 5", "mixes texts and numbers"),
        ("hour > 'ops'", "mixes texts and numbers"),
        ("team * 3 == 'x'", "mixes texts and numbers"),
        ("prediction > 1", "mixes texts and numbers"),
        ("probabilities > 0.3", "mixes texts and numbers"),
        ("probabilities['Hihg'] > 0.3", "asks for a class 'Hihg' that label.classes lacks"),
        ("weekday == 3", r"reads \['weekday'\]"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused_with_its_model_file(when, why):
    with pytest.raises(ModelFileError, match=why):
        ModelFile.parse(MODEL.replace("WHEN", when))


NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 6.0, 23.0]), st.floats(allow_infinity=False))
RECORDS = st.fixed_dictionaries({"hour": NUMBERS, "team": st.sampled_from([None, "ops", "web", "new"])})
ANSWERS = st.tuples(st.sampled_from(["Low", "Medium", "High"]), st.floats(0, 1), RECORDS)
CONDITIONS = [
    "prediction == 'High' and confidence >= 0.6",
    "prediction in ['High', 'Medium'] or hour < 6",
    "team not in ['ops', 'web']",
    "not hour >= 22",
    "probabilities['High'] / (hour - 6) > 0.1",
    "(0.9 if team == 'ops' else 0.5) < confidence <= 1",
    "team",
    "hour % 6 == 0 and prediction != 'Low'",
]
POLICIES = st.lists(
    st.one_of(
        st.sampled_from(CONDITIONS).map(lambda when: Action(when=when, do=f"do {when}", say=when[:3])),
        st.just(Action(otherwise="stop")),
    )
)


@given(POLICIES, st.lists(ANSWERS))
def test_one_row_and_many_are_told_the_same(actions, answers):
    policy = Policy(actions)
    alone = [policy.recommend(p, c, {"High": c}, row) for p, c, row in answers]
    hours = np.array([math.nan if row["hour"] is None else row["hour"] for _, _, row in answers])
    columns = {"hour": hours, "team": np.array([row["team"] for _, _, row in answers], dtype=object)}
    confidences = np.array([c for _, c, _ in answers], dtype=float)
    predictions = np.array([p for p, _, _ in answers], dtype=object)
    actions, messages = policy.recommend_many(predictions, confidences, {"High": confidences}, columns)
    assert list(zip(actions, messages, strict=True)) == alone


def test_the_example_takes_microseconds():
    policy, row = Policy(EXAMPLE), {"hour": 3.0}
    took = min(timeit.repeat(lambda: policy.recommend("Low", 0.7, RISKS, row), number=2_000, repeat=20)) / 2_000
    assert took < 20e-6  # 1.6 µs on a quiet machine
