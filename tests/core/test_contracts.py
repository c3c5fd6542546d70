"""The contract: cleaning, rules, counts; and proof that Great Expectations' own engine counts the same."""

# ruff: noqa: DTZ001 - times are compared without a zone

import math
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pytest

from steward.config import ModelFile
from steward.core import contracts, expectations
from steward.core.contracts import KEY, LABEL, TIME, Contract
from steward.io.tables import Session

NOW = datetime(2026, 1, 10, tzinfo=UTC)
LOW = {"column": "y", "classes": ["Low", "High"], "aliases": {"lo": "Low"}}


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = Session(1, tmp_path_factory.mktemp("tables"))
    yield session
    session.close()


def model(columns=None, *, key="id", label=LOW, task="classification", time=None, missing=("", "?"), **more):
    source = {"table": "t.parquet", "key": key, "time": time, "missing": list(missing)}
    columns = columns or {"x": {"type": "number", "nullable": True}}
    return ModelFile.model_validate(
        {"name": "m", "task": task, "source": source, "label": label, "columns": columns, "rows": {"max_rejected": 1.0}}
        | more
    )


def counted(session, rows, contract):
    kept = contracts.AcceptedRows(contract)
    for block in session.blocks(contracts.accepted(rows, contract)):
        kept.add(block)
    aside = contracts.set_aside(rows)
    return kept.joined(session.row(aside.aggregate(**contracts.aside(aside, contract))))


def scanned(session, table, of, at=NOW):
    contract = Contract.of(of, at)
    rows = contracts.flagged(session.load(table), contract, session.stage)
    doubles = session.keep(contracts.duplicated_keys(rows))
    if session.rows(doubles):
        rows = contracts.with_duplicates(rows, doubles, contract, session.stage)
    return contract, rows, counted(session, rows, contract)


def one_column(session, values, column, name="x"):
    """Legal values of one column by position, and the rule of each rejected one."""
    values = values if isinstance(values, pa.Array) else pa.array(values)
    table = pa.table({"id": list(range(len(values))), name: values, "y": ["Low"] * len(values)})
    contract, rows, _ = scanned(session, table, model({name: column}))
    legal = {row[KEY]: row[name] for row in session.rows(contracts.accepted(rows, contract))}
    broken = {row["key"]: row["rule"] for row in session.rows(contracts.rejected(rows, contract))}
    return [broken[str(i)] if str(i) in broken else legal[str(i)] for i in range(len(values))]


def test_cleaned_rows_have_the_values_of_the_rows_that_are_judged(session):
    columns = {
        "team": {"type": "category", "values": ["web", "data"], "aliases": {"Web": "web"}},
        "files": {"type": "integer", "min": 0, "max": 10},
        "night": {"type": "boolean"},
    }
    table = pa.table(
        {
            "repo": [" a", "b", None],
            "id": ["1", "?", "3"],
            "seen": ["2026-01-02", "1767225600", "soon"],
            "y": ["Low", "High", "?"],
            "team": ["Web", " data ", "nobody"],
            "files": ["3", "11", "x"],
            "night": ["yes", "0", "perhaps"],
        }
    )
    contract = Contract.of(model(columns, key=["repo", "id"], time="seen"), NOW)
    source = session.load(table)
    judged = contracts.flagged(source, contract, session.stage).select(*contract.columns)
    assert session.rows(contracts.cleaned(source, contract, session.stage).select(*contract.columns)) == session.rows(
        judged
    )


@pytest.mark.parametrize(
    ("column", "values", "becomes"),
    [
        pytest.param({"type": "number"}, [" 1.5 ", "-2", "1e3", "x", "?", "", "inf", "nan"],
                     [1.5, -2.0, 1000.0, "type", "not_null", "not_null", "finite", "type"], id="numbers in text"),
        pytest.param({"type": "number"}, [1.5, math.inf, -math.inf, math.nan, None],
                     [1.5, "finite", "finite", "not_null", "not_null"], id="infinity is no number, NaN is missing"),
        pytest.param({"type": "number", "nullable": True}, [math.nan, None, 0.0], [None, None, 0.0], id="missing numbers"),
        pytest.param({"type": "number"}, [True, False], [1.0, 0.0], id="booleans are numbers"),
        pytest.param({"type": "number", "min": 0, "max": 9}, [0, 9, -1, 10], [0.0, 9.0, "between", "between"], id="range"),
        pytest.param({"type": "integer"}, ["1", "1.0", "1.5", "1e2", "9e99", " 7"], [1, 1, "type", 100, "type", 7], id="whole"),
        pytest.param({"type": "integer"}, [1.0, 1.5, math.inf], [1, "type", "type"], id="whole numbers in floats"),
        pytest.param({"type": "integer"}, [2**62, -5], [2**62, -5], id="large integers stay exact"),
        pytest.param({"type": "boolean"}, ["yes", "NO", "1", "0.0", "True", "f", "maybe", "?"],
                     [True, False, True, False, True, False, "type", "not_null"], id="spellings of booleans"),
        pytest.param({"type": "boolean"}, [1, 0, 2], [True, False, "type"], id="numbers as booleans"),
        pytest.param({"type": "category", "values": ["a", "b"], "aliases": {"A": "a"}}, [" a", "A", "b ", "c", None],
                     ["a", "a", "b", "in_set", "not_null"], id="closed categories"),
        pytest.param({"type": "category", "open": True, "aliases": {"A": "a"}}, ["new", "A", "x\0y", "ü🙂"],
                     ["new", "a", "x\0y", "ü🙂"], id="open categories"),
        pytest.param({"type": "category", "values": ["0", "1"]}, [0.0, 1.0, 1.5], ["0", "1", "in_set"], id="numbers as categories"),
        pytest.param({"type": "category", "values": ["true"]}, [True, False], ["true", "in_set"], id="booleans as categories"),
        pytest.param({"type": "category", "open": True}, [date(2026, 1, 2)], ["2026-01-02"], id="dates as categories"),
        pytest.param({"type": "number"}, [date(2026, 1, 2)], ["type"], id="a date is no number"),
        pytest.param({"type": "number"}, pa.array([[1], [2]]), ["type", "type"], id="a list is no number"),
        pytest.param({"type": "number", "nullable": True}, pa.nulls(2), [None, None], id="a column without a type"),
        pytest.param({"type": "category", "values": [str(i) for i in range(1000)]}, ["0", "999", "1000"],
                     ["0", "999", "in_set"], id="a thousand categories"),
    ],
)  # fmt: skip
def test_values_are_cleaned_and_checked(session, column, values, becomes):
    assert one_column(session, values, column) == becomes


@pytest.mark.parametrize("name", ['a "b" c', "a.b", "select", "x y", "ö", "a'b", "%s", "{x}", "rows", "count", "key"])
def test_any_column_name_will_do(session, name):
    assert one_column(session, [1, None], {"type": "number"}, name) == [1.0, "not_null"]


@pytest.mark.parametrize(
    ("values", "becomes"),
    [
        (["2026-01-02", "2026-01-02T03:04:05Z", "2026-01-02 01:00:00+01:00", "1767312000", "x", None],
         [datetime(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2), datetime(2026, 1, 2), "type", "not_null"]),
        ([1767312000, 10**18], [datetime(2026, 1, 2), "type"]),
        ([1767312000.5], [datetime(2026, 1, 2, 0, 0, 0, 500_000)]),
        ([datetime(2026, 1, 2)], [datetime(2026, 1, 2)]),
        ([date(2026, 1, 2)], [datetime(2026, 1, 2)]),
        ([True], ["type"]),
    ],
)  # fmt: skip
def test_times_are_read(session, values, becomes):
    table = pa.table({"id": list(range(len(values))), "x": [1] * len(values), "at": values, "y": ["Low"] * len(values)})
    of = model(time="at", label=LOW | {"mature_after": "1d"})
    contract, rows, _ = scanned(session, table, of)
    legal = (
        session.arrow(contracts.accepted(rows, contract))
        .drop_columns([contracts.DIGEST])
        .cast(pa.schema([(KEY, pa.string()), (TIME, pa.timestamp("us")), (LABEL, pa.string()), ("x", pa.float64())]))
    )
    times = {row[KEY]: row[TIME] for row in legal.to_pylist()}
    broken = {row["key"]: row["rule"] for row in session.rows(contracts.rejected(rows, contract))}
    assert [broken.get(str(i), times.get(str(i))) for i in range(len(values))] == becomes


@pytest.mark.parametrize(
    ("values", "classes", "becomes"),
    [
        ([True, False, None], ["true", "false"], {"true": 1, "false": 1}),
        ([0.0, 1.0, 2.0], ["0", "1"], {"0": 1, "1": 1}),
        ([0, 1, 1], ["0", "1"], {"0": 1, "1": 2}),
        ([" Low", "High ", "low"], ["Low", "High"], {"Low": 1, "High": 1}),
    ],
)
def test_labels_are_classes(session, values, classes, becomes):
    table = pa.table({"id": list(range(len(values))), "x": [1] * len(values), "y": values})
    contract, _, found = scanned(session, table, model(label={"column": "y", "classes": classes}))
    assert contracts.labels(contract, found) == becomes


def keyed(*rows):
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(("id", "x", "y"))})


def test_copies_and_conflicts_of_a_key(session):
    table = keyed(("a", 1, "Low"), ("b", 1, "Low"), (" b", 1, "lo"), ("c", 1, "Low"), ("c", 2, "Low"), ("c", 2, "Low"))
    contract, rows, found = scanned(session, table, model())
    assert [row[KEY] for row in session.rows(contracts.accepted(rows, contract))] == ["a", "b"]
    assert contracts.rejections(contract, found) == {"unique:id": 2, "repeated:id": 2}
    assert found["rows"] == found["accepted"] + found["rejected"]
    assert contracts.share_rejected(found) == 0.5


def test_keys_of_several_columns_do_not_run_together(session):
    table = pa.table({"a": ["1", "11", "1"], "b": ["12", "2", "12"], "x": [1, 1, 2], "y": ["Low"] * 3})
    contract, _, found = scanned(session, table, model(key=["a", "b"]))
    assert contracts.rejections(contract, found) == {"unique:a,b": 2}


def test_young_rows_break_no_rule(session):
    days = [NOW - timedelta(days=day) for day in (8, 7, 6)]
    table = pa.table({"id": [1, 2, 3], "x": [1, 1, None], "at": days, "y": ["Low", "High", None]})
    of = model({"x": {"type": "number"}}, time="at", label=LOW | {"mature_after": "7d"})
    contract, _, found = scanned(session, table, of)
    assert contracts.rejections(contract, found) == {"label_immature:at": 1}
    assert (found["immature"], contracts.share_rejected(found)) == (1, 0.0)


def test_a_rejected_row_is_kept_whole(session):
    table = pa.table({"id": ["a"], "x": ["nine"], "y": ["Low"], "other": ['"quoted"\0']})
    contract, rows, _ = scanned(session, table, model({"x": {"type": "number"}}))
    assert session.rows(contracts.rejected(rows, contract)) == [
        {"key": "a", "rule": "type", "column": "x", "value": "nine",
         "row": r'{"id":"a","x":"nine","y":"Low","other":"\"quoted\"\u0000"}'}
    ]  # fmt: skip
    assert contract.unknown(table.column_names) == ("other",)


def test_every_broken_rule_of_a_row_has_a_line(session):
    of = model({"x": {"type": "number"}, "z": {"type": "integer", "min": 0}})
    table = pa.table({"id": ["a"], "x": ["nine"], "z": [-1], "y": ["Medium"]})
    contract, rows, found = scanned(session, table, of)
    assert [(row["rule"], row["column"]) for row in session.rows(contracts.rejected(rows, contract))] == [
        ("in_set", "y"), ("type", "x"), ("between", "z"),
    ]  # fmt: skip
    assert found["rejected"] == 1


HOSTILE = {
    "number": [1.5, "x", None, 99.0, math.inf, -5.0, 0.0, "", 7.0, 1e300],
    "integer": [1, "1.5", None, 99, "x", -5, 0, 8, 7, 3],
    "category": ["a", "b", None, "c", "A", "", "a", "a", "B", "b"],
    "boolean": [True, False, None, "maybe", True, True, False, "", True, False],
}
CONTRACT = {
    "number": {"type": "number", "min": 0, "max": 50},
    "integer": {"type": "integer", "min": 0, "max": 50, "nullable": True},
    "category": {"type": "category", "values": ["a", "b"]},
    "boolean": {"type": "boolean"},
}


def engines_frame(rule):
    """The hostile table as Great Expectations' pandas engine gets it: read where it can be, and what this rule looks at."""
    readable = {"number": float, "integer": int, "category": str, "boolean": bool}

    def cell(value, kind):
        if value is None or value == "":
            return None
        if rule in ("not_null", "type") or isinstance(value, readable[kind]):
            return None if rule == "between" and value == math.inf else value
        return None

    frame = {kind: pd.Series([cell(value, kind) for value in values], dtype=object) for kind, values in HOSTILE.items()}
    return pd.DataFrame(frame)


@pytest.mark.parametrize("allowed", [0.0, 0.25, 0.5, 1.0])
def test_great_expectations_own_engine_counts_the_same(session, allowed):
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.validator.validator import Validator

    texts = {kind: [None if value is None else str(value) for value in values] for kind, values in HOSTILE.items()}
    table = pa.table({"id": list(range(10)), **texts, "y": ["Low"] * 9 + ["High"]})
    contract, _, found = scanned(session, table, model(CONTRACT, rows={"max_rejected": allowed}))
    ours = {
        (e.name, e.column, e.allowed): e for e in expectations.judge(contract, table.column_names, found).expectations
    }
    for i, field in enumerate(contract.fields):
        for rule in field.rules if field.column in CONTRACT else ():
            engine = PandasExecutionEngine(batch_data_dict={"batch": engines_frame(rule)})
            expectation = expectations.value_expectation(field, rule, round(1 - allowed, 12))
            (theirs,) = Validator(execution_engine=engine).graph_validate(configurations=[expectation.configuration])
            mine = [
                e
                for (name, column, _), e in ours.items()
                if (name, column) == (expectation.expectation_type, field.column)
            ]
            mine = mine[0] if len(mine) == 1 or rule == "finite" else mine[1]
            assert (mine.success, mine.unexpected) == (theirs.success, theirs.result["unexpected_count"]), (field, rule)
            assert found[f"{rule}:{i}"] == mine.unexpected


def test_the_page_is_great_expectations_own(session):
    table = pa.table({"id": [1, 2, 3], "x": ["1", "2", "three"], "y": ["Low", "High", "Low"]})
    contract, rows, found = scanned(session, table, model({"x": {"type": "number"}}, rows={"max_rejected": 0.1}))
    unexpected = session.row(contracts.examples(rows, contract, found))
    judgement = expectations.judge(contract, table.column_names, found, unexpected)
    assert [(e.name, e.column) for e in judgement.failed] == [
        ("expect_column_values_to_be_of_type", "x"), ("expect_column_values_to_be_in_set", None),
    ]  # fmt: skip
    assert judgement.failed[0].observed == "1 of 3 rows, such as 'three'"
    assert "three" in judgement.page
    assert "float" in judgement.page
    assert judgement.result["statistics"]["unsuccessful_expectations"] == 2


@pytest.mark.parametrize(
    ("rows", "failed"),
    [
        pytest.param(
            [(1, 1, "Low"), (2, 1, "Low")], ["expect_column_unique_value_count_to_be_between"], id="one class"
        ),
        pytest.param(
            [], ["expect_table_row_count_to_be_between", "expect_column_unique_value_count_to_be_between"], id="no rows"
        ),
    ],
)
def test_tables_without_use_are_refused(session, rows, failed):
    table = keyed(*rows).cast(pa.schema([("id", pa.int64()), ("x", pa.float64()), ("y", pa.string())]))
    contract, _, found = scanned(session, table, model())
    assert [e.name for e in expectations.judge(contract, table.column_names, found).failed] == failed


def test_missing_columns_name_the_nearest(session):
    contract = Contract.of(model({"files_changed": {"type": "integer"}}), NOW)
    columns = ("id", "Files_changed", "y")
    judgement = expectations.judge(contract, columns)
    problem = expectations.refusal(contract, judgement, columns, "page.html")
    assert problem.facts["failed"] == ["expect_column_to_exist:files_changed"]
    assert "no column files_changed (nearest is 'Files_changed')" in str(problem)
