"""What is wrong with rows is named, with the figures, and with what may have been meant."""

from datetime import UTC, datetime, timedelta

import pytest

from steward.config import ModelFile
from steward.core.profiles import Baseline, Bins, ColumnProfile, Profile
from steward.core.quality import Facts, Incoming, judge, nearest

AT = datetime(2026, 3, 2, tzinfo=UTC)
MODEL = ModelFile.parse("""
name: people
task: classification
source: {table: people.parquet, key: id, time: seen}
label: {column: risk, classes: [Low, High], mature_after: 7d}
columns:
  age: {type: integer, min: 0, max: 120, nullable: true}
  sex: {type: category, values: [Male, Female]}
  team: {type: category, open: true}
""")
COLUMNS = {"id": "string", "seen": "timestamp", "risk": "string", "age": "int64", "sex": "string", "team": "string"}
BINS = {
    "age": Bins("number", 18, 1, (30, 50)),
    "sex": Bins("category", levels=("Male", "Female")),
    "team": Bins("category", levels=("web", "data"), rare=("mobile",)),
}
TRAINED = Profile(
    1_000,
    {
        "age": ColumnProfile((300, 400, 290), 10, 0, 18, 90, 45_000, 2e6),
        "sex": ColumnProfile((600, 400)),
        "team": ColumnProfile((600, 399, 1)),
    },
)
NORMAL = Profile(
    100,
    {
        "age": ColumnProfile((30, 40, 29), 1, 0, 19, 88, 4_500, 2e5),
        "sex": ColumnProfile((60, 40)),
        "team": ColumnProfile((60, 40, 0)),
    },
)


def found(facts=None, profile=NORMAL, unseen=None, origin="source", rows_per_day=100.0, model=MODEL):
    given = {"columns": COLUMNS, "before": COLUMNS, "rows": 5_000, "looked": 100, "newest": "2026-03-01T12:00:00"}
    seen = Facts(**{**given, **(facts or {})})
    baseline = Baseline(BINS, (TRAINED,), Profile(0, {}))
    start = AT - timedelta(days=1)
    incoming = Incoming(model, seen, origin, profile, unseen or {}, baseline, start, AT, rows_per_day)
    return [(one.kind, one.column, one.says) for one in judge(incoming)]


def changed(**columns):
    return Profile(NORMAL.rows, {**NORMAL.columns, **columns})


def test_nothing_is_wrong_with_normal_rows():
    assert found() == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"rows": 0, "looked": 0, "newest": None}, ("empty", None, "the source has no rows")),
        ({"problem": "away"}, ("source", None, "the source cannot be read: away")),
        (
            {"columns": {name: kind for name, kind in COLUMNS.items() if name != "age"}},
            ("schema", "age", "the source has no column age any more"),
        ),
        ({"columns": COLUMNS | {"age": "string"}}, ("schema", "age", "age was int64 and is string now")),
        ({"columns": COLUMNS | {"shoe": "int64"}}, ("schema", "shoe", "the source has a new column shoe")),
        (
            {"newest": "2026-01-03T00:00:00"},
            ("stale", None, "the newest row of the source is from 2026-01-03 00:00"),
        ),
        (
            {"newest": "2026-03-09T00:00:00"},
            ("stale", None, "the source has rows of the future: the newest is from 2026-03-09 00:00"),
        ),
        (
            {"broken": {"between:age": 7}},
            ("contract", "age", "age: 7 of 100 rows (7.0%) are out of range (0 to 120)"),
        ),
        ({"broken": {"type:age": 100}}, ("contract", "age", "age: 100 of 100 rows (100.0%) cannot be read")),
        (
            {"broken": {"in_set:sex": 5}, "values": {"sex": {"Mail": 3, "Girl": 2}}},
            (
                "category",
                "sex",
                "sex: 5 of 100 rows (5.0%) are no legal category: 'Mail' (3, perhaps 'Male'), 'Girl' (2)",
            ),
        ),
        ({"doubles": 4}, ("duplicates", None, "4 of 100 rows (4.0%) have a key that stands on another row too")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_the_source_shows(facts, expected):
    assert found(facts) == [expected]


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (
            changed(age=ColumnProfile((0, 0, 0), 100)),
            ("missing", "age", "age has no value in any row; in training 1.0%"),
        ),
        (
            changed(age=ColumnProfile((25, 30, 25), 20, 0, 19, 88)),
            ("missing", "age", "age has no value in 20 of 100 rows (20.0%); in training 1.0%"),
        ),
        (
            changed(age=ColumnProfile((30, 40, 29), 1, 0, 19, 900)),
            ("range", "age", "age reaches 900; training knew 18 to 90"),
        ),
        (
            changed(age=ColumnProfile((30, 40, 29), 1, 0, -99, 88)),
            ("range", "age", "age reaches -99; training knew 18 to 90"),
        ),
    ],
    ids=["all missing", "more missing", "too large", "too small"],
)
def test_what_the_values_show(profile, expected):
    assert found(profile=profile) == [expected]


def test_one_missing_value_of_one_row_is_no_finding():
    profile = Profile(
        1, {"age": ColumnProfile((0, 0, 0), 1), "sex": ColumnProfile((1, 0)), "team": ColumnProfile((1, 0, 0))}
    )
    assert found(profile=profile, rows_per_day=None) == []


@pytest.mark.parametrize(("origin", "told"), [("predictions", 0), ("source", 1)])
def test_a_source_need_not_grow_where_outcomes_of_predictions_become_rows(origin, told):
    model = MODEL.model_copy(update={"source": MODEL.source.model_copy(update={"outcomes": True})})
    old = {"newest": "2026-01-03T00:00:00"}
    assert [one[0] for one in found(old, origin=origin, model=model)] == ["stale"] * told


def test_unknown_values_of_an_open_category_have_suggestions():
    profile = changed(team=ColumnProfile((60, 37, 0), 0, 3))
    told = found(profile=profile, unseen={"team": {"Web ": 2, "legal": 1}})
    says = "team: 3 of 100 rows (3.0%) are unknown to training: 'Web ' (2, perhaps 'web'), 'legal' (1)"
    assert told == [("category", "team", says)]


@pytest.mark.parametrize(
    ("rows", "origin", "told"), [(0, "nothing", 1), (15, "source", 1), (60, "source", 0), (15, "predictions", 0)]
)
def test_hardly_any_rows_where_many_are_usual(rows, origin, told):
    profile = Profile(
        rows, {name: ColumnProfile((rows, *column.counts[1:])) for name, column in NORMAL.columns.items()}
    )
    stale = [one for one in found(profile=profile, origin=origin) if one[0] == "stale"]
    assert len(stale) == told


@pytest.mark.parametrize(
    ("value", "known", "expected"),
    [
        ("Mail", ["Male", "Female"], "Male"),
        ("Girl", ["Male", "Female"], None),
        ("femal", ["Male", "Female"], "Female"),
        (" MALE ", ["Male", "Female"], "Male"),
        ("produktion", ["production", "staging"], "production"),
        ("1113", ["1112", "1114"], None),
        ("weba", ["webb", "webc"], None),
        ("", ["web"], None),
        ("web", [], None),
    ],
)
def test_the_nearest_known_value(value, known, expected):
    assert nearest(value, known) == expected
