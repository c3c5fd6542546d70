import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steward.config import ModelFile
from steward.core.requests import Reader, admit, columns_of, problems_of
from steward.errors import RecordInvalid

MODEL = """
name: m
task: classification
source: {table: t.csv, key: [org, id], time: at, missing: ["", "?"]}
label: {column: y, classes: [Low, High]}
columns:
  count: {type: integer, min: 0, max: 1000}
  size: {type: integer, nullable: true}
  ratio: {type: number, min: -0.5, max: 2.5, nullable: true}
  stage: {type: category, values: [dev, prod, "5"], aliases: {production: prod}}
  team: {type: category, open: true, nullable: true}
  urgent: {type: boolean}
"""
GOOD = {"count": 1, "ratio": 0.5, "stage": "dev", "urgent": True}


def model_with(serve=""):
    return ModelFile.parse(MODEL + (f"serve: {{{serve}}}\n" if serve else ""))


@pytest.mark.parametrize(
    ("field", "given", "read"),
    [
        ("count", 7, 7.0),
        ("count", 7.0, 7.0),
        ("size", None, None),
        ("size", " ? ", None),
        ("size", -(10**18), -1e18),
        ("ratio", math.nan, None),
        ("stage", " production ", "prod"),
        ("stage", 5, "5"),
        ("stage", 5.0, "5"),
        ("team", "", None),
        ("team", True, "true"),
        ("urgent", 0, 0.0),
        ("urgent", 1.0, 1.0),
    ],
)
def test_values_are_read_as_in_training(field, given, read):
    assert admit(model_with(), {**GOOD, field: given})[field] == read


@pytest.mark.parametrize(
    ("field", "given", "says"),
    [
        ("count", 7.5, "count is not a whole number: got 7.5; allowed: 0 to 1000"),
        ("count", True, "count is not a whole number"),
        ("count", "7", "count is not a whole number"),
        ("count", 1001, "count is out of range: got 1001; allowed: 0 to 1000"),
        ("count", 10**400, "count is not a whole number"),
        ("size", 10**19, "size is not a whole number"),
        ("ratio", math.inf, "ratio is not a number"),
        ("stage", "moon", "stage has no such category: got 'moon'; allowed: dev, prod, 5"),
        ("stage", None, "stage is missing; allowed: dev, prod, 5"),
        ("stage", ["dev"], "stage is not a text"),
        ("urgent", 2, "urgent is not true or false"),
        ("other", 1, "the model has no such field: got 'other'"),
    ],
)
def test_what_breaks_the_contract_is_named(field, given, says):
    with pytest.raises(RecordInvalid, match=says.replace("(", r"\(")):
        admit(model_with(), {**GOOD, field: given})


def test_every_problem_is_listed_and_shown():
    with pytest.raises(RecordInvalid, match="Also wrong: stage is missing") as refused:
        admit(model_with(), {"count": -1, "urgent": True})
    assert [problem["field"] for problem in problems_of(refused.value)] == ["count", "stage"]


def test_what_the_model_file_flags_is_accepted():
    model = model_with("out_of_range: flag, unknown_fields: ignore")
    read = Reader(model, model.serve).read({**GOOD, "count": 1001, "extra": [1]})
    assert read.row["count"] == 1001.0
    assert read.flags == ("out_of_range:count", "unknown_field:extra")


def test_fields_of_the_source_may_stand_in_the_record():
    assert admit(model_with(), {**GOOD, "id": 1, "org": {}, "at": [], "y": "Low"}) == admit(model_with(), GOOD)


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 1_005),
    st.floats(),
    st.integers(),
    st.sampled_from(["dev", "prod ", "5", "", "?", "x"]),
)
records = st.lists(
    st.fixed_dictionaries(
        {
            "count": st.integers(0, 1_010) | odd,
            "stage": st.sampled_from(["dev", "production"]) | odd,
            "urgent": st.booleans() | odd,
        },
        optional={"size": odd, "ratio": odd, "team": odd, "extra": odd, "id": odd},
    ),
    max_size=4,
)


def outcome(read):
    try:
        return read()
    except RecordInvalid as problem:
        return str(problem)


@settings(max_examples=300, deadline=None)
@given(records, st.sampled_from(["", "out_of_range: flag", "unknown_fields: ignore"]))
def test_many_records_are_read_as_each_of_them(sent, serve):
    model = model_with(serve)
    reader = Reader(model, model.serve)
    assert outcome(lambda: list(reader.read_many(sent))) == outcome(lambda: [reader.read(record) for record in sent])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1_000), st.sampled_from(["dev", "production", " 5"]), st.none() | st.floats(-0.5, 2.5)
        ),
        min_size=1,
    )
)
def test_ordinary_records_are_read_by_column(sent):
    reader = Reader(model_with())
    several = [{**GOOD, "count": count, "stage": stage, "ratio": ratio} for count, stage, ratio in sent]
    assert reader._ordinary_columns(several) == columns_of([reader.read(record).row for record in several])
