import json
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, inspect, make_url, text

from steward.config import ModelFile
from steward.errors import LogUnavailable, RecordInvalid
from steward.io.ledger import Ledger
from steward.io.predictions import (
    Answered,
    Last,
    Logged,
    OutcomeReport,
    PredictionStore,
    Pruned,
    joined_key,
    key_of,
    key_parts,
    new_id,
    new_ids,
)

AT = datetime(2026, 3, 1, tzinfo=UTC)
DAY = 86_400.0
CLASSES = """
name: risk
task: classification
source: {table: rows.csv, key: id, missing: ["", "NA"]}
label: {column: outcome, classes: [Low, High, "1", "true"], aliases: {bad: High}}
columns: {files: {type: integer}}
"""
NUMBERS = """
name: price
task: regression
source: {table: rows.csv, key: [shop, day]}
label: {column: price, min: 0, max: 100}
columns: {files: {type: integer}}
"""
RISK, PRICE = ModelFile.parse(CLASSES), ModelFile.parse(NUMBERS)


@pytest.fixture(scope="module")
def shared(server: str) -> PredictionStore:
    """A database on PostgreSQL, which takes longer to make than most tests run."""
    engine = create_engine(make_url(f"{server}postgres").set(drivername="postgresql+psycopg"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE predictions"))
    engine.dispose()
    return PredictionStore(Ledger(f"{server}predictions"))


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PredictionStore:
    """An empty store."""
    if request.param == "sqlite":
        made = PredictionStore(Ledger(f"sqlite:///{tmp_path / 'home' / 'led ger.db'}"))
    else:
        made = request.getfixturevalue("shared")
    with made.database.connected(write=True) as connection:
        connection.execute(text("DELETE FROM predictions"))
        connection.execute(text("DELETE FROM outcomes"))
    return made


def row(key: str | None = None, at: float = 0.0, model: str = "risk") -> Logged:
    record = json.dumps({"files": 1.0, "owner": 'a "quoted" \\ ü \x00'})
    return Logged(new_id(at), model, at, 3, key, record, '{"prediction": "Low"}', "Low", 0.75, "proceed", False, None)


def labelled(store: PredictionStore, **which: Any) -> list[tuple[Logged, str]]:
    """Whole predictions, each with its current label."""
    blocks = store.labelled("risk", Logged._fields, **which)
    found = chain.from_iterable(zip(*block.values(), strict=True) for block in blocks)
    return [(Logged(*values), label) for *values, label in found]


def write(store: PredictionStore, *rows: Logged, durable: bool = False) -> None:
    writer = store.writer(durable=durable, patience=1)
    writer.write(rows)
    writer.close()


@pytest.mark.parametrize("durable", [False, True])
def test_a_prediction_is_found_as_it_was_written(store, durable):
    plain = row("7", 1_772_000_000.123456)
    constant = plain._replace(
        prediction_id=new_id(2.0), at=2.0, version=None, key=None, confidence=None, control=True, fallback="constant"
    )
    write(store, plain, durable=durable)
    write(store, constant, durable=durable)
    assert store.get(plain.prediction_id) == plain
    assert store.get(constant.prediction_id) == constant
    assert store.get("0" * 32) is None


def test_a_row_that_is_written_again_stands_there_once_as_it_was(store):
    first, second = row("a", 1), row("b", 2)
    write(store, first)
    write(store, first._replace(key="changed"), second, second)
    assert [store.get(first.prediction_id), store.get(second.prediction_id)] == [first, second]
    assert store.count() == 2


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257, 1_000])
def test_blocks_of_every_size(store, count):
    rows = [row(None, number) for number in range(count)]
    write(store, *rows)
    assert store.count("risk") == count
    found = list(store.blocks("risk", rows=256))
    assert [item for block in found for item in block] == rows
    assert all(len(block) <= 256 for block in found)


def test_rows_by_model_key_and_time(store):
    rows = [row("a", 1), row("b", 2), row("a", 3), row(None, 3), row("a", 4, model="other")]
    write(store, *rows)
    assert store.with_key("risk", "a") == [rows[2], rows[0]]
    assert [store.count(), store.count("risk"), store.count("risk", 2), store.count("risk", 1, 3)] == [5, 4, 3, 2]
    same_moment = sorted(rows[2:4])
    assert list(store.blocks("risk", since=2, rows=1)) == [[rows[1]], [same_moment[0]], [same_moment[1]]]
    told = [{"record": (one.record,), "at": (one.at,)} for one in (rows[1], *same_moment)]
    assert list(store.columns("risk", ("record", "at"), since=2, rows=1)) == told


def test_what_answered_last_and_lately(store):
    first, last = row(at=10.0, model="last"), row(at=20.0, model="last")._replace(version=None, fallback="constant")
    write(store, last, first, row(at=30.0, model="control")._replace(control=True))
    assert store.newest(["last", "nobody"]) == {"last": Last(20.0, None, "constant")}
    assert store.newest([]) == {}
    assert store.answered("last", 5.0, 10) == [
        Answered(None, "constant", False, 1),
        Answered(first.version, None, False, 1),
    ]
    assert store.answered("last", 15.0, 10) == [Answered(None, "constant", False, 1)]
    assert [one.rows for one in store.answered("last", 5.0, 1)] == [1]
    assert store.answered("control", 5.0, 10)[0].control


def test_the_outcome_of_a_prediction_by_id_and_by_key(store):
    rows = [row("a", 1), row("b", 2), row(None, 3), row("a", 4)]
    write(store, *rows)
    report = store.add_outcomes(
        RISK, [{"key": "a", "label": "High"}, {"prediction_id": rows[2].prediction_id, "label": "Low"}], AT
    )
    assert report == OutcomeReport(accepted=2, repeated=0, corrected=0, unknown=())
    assert labelled(store) == [(rows[0], "High"), (rows[2], "Low"), (rows[3], "High")]
    assert labelled(store, since=2, until=4) == [(rows[2], "Low")]
    assert labelled(store, received_by=AT.timestamp() - 1) == []
    assert [block["key"] for block in store.labelled("risk", ["key"], rows=2)] == [["a"], [None, "a"]]
    assert [block["at"] for block in store.labelled("risk", ["at"], rows=1)] == [[1], [3], [4]]
    assert list(store.labelled("price", ["key"])) == []


def test_pages_of_predictions_made_at_one_moment(store):
    rows = sorted(row(str(number), 1) for number in range(5))
    write(store, *rows)
    store.add_outcomes(RISK, [{"key": str(number), "label": "Low"} for number in range(5)], AT)
    assert [logged for logged, _ in labelled(store, rows=2)] == rows
    found = [logged for block in store.blocks("risk", rows=2) for logged in block]
    assert (found, {type(logged.control) for logged in found}) == (rows, {bool})


def test_when_outcomes_arrived_first(store):
    by_id, by_key, waiting = row("a", DAY), row("b", 2 * DAY), row("c", 3 * DAY)
    write(store, by_id, by_key, waiting)
    for days, item in (
        (4, {"prediction_id": by_id.prediction_id, "label": "Low"}),
        (5, {"key": "b", "label": "Low"}),
        (6, {"key": "b", "label": "High"}),
        (7, {"key": "a", "label": "Low"}),
        (8, {"key": "c", "label": "Low"}),
    ):
        store.add_outcomes(RISK, [item], datetime.fromtimestamp(days * DAY, UTC))
    found = sorted(store.arrivals("risk", 0, 10 * DAY, 7.5 * DAY))
    assert found == [(DAY, 4 * DAY), (2 * DAY, 5 * DAY), (3 * DAY, None)]
    assert store.arrivals("risk", 3 * DAY, 10 * DAY, 9 * DAY) == [(3 * DAY, 8 * DAY)]


def test_a_sample_of_many_arrivals(store):
    write(store, *(row(None, float(second)) for second in range(2_000)))
    assert 60 < len(store.arrivals("risk", 0, DAY, DAY, most=200)) < 200


def test_repeated_and_corrected_outcomes(store):
    write(store, row("a", 1))
    steps = [
        ({"label": "Low", "observed_at": "2026-02-01"}, (1, 0, 0)),
        ({"label": "Low", "observed_at": "2026-02-01T00:00:00Z"}, (0, 1, 0)),
        ({"label": "Low"}, (0, 1, 0)),
        ({"label": "bad", "observed_at": "2026-02-03"}, (0, 0, 1)),
        ({"label": "Low", "observed_at": "2026-02-01"}, (0, 1, 0)),  # a late repetition of what was corrected
        ({"label": "Low", "observed_at": "2026-02-04"}, (0, 0, 1)),
    ]
    for item, expected in steps:
        report = store.add_outcomes(RISK, [{"key": "a", **item}], AT)
        assert (report.accepted, report.repeated, report.corrected) == expected, item
    assert [outcome.label for outcome in store.outcomes_of("risk", "key", "a")] == ["Low", "High", "Low"]
    assert labelled(store) == [(store.with_key("risk", "a")[0], "Low")]


def test_within_one_call_too(store):
    write(store, row("a", 1))
    items = [{"key": "a", "label": label} for label in ("Low", "Low", "High")]
    assert store.add_outcomes(RISK, items, AT) == OutcomeReport(1, 1, 1, ())


def test_of_an_outcome_by_key_and_one_by_id_the_later_counts(store):
    rows = [row("a", 1), row("a", 2)]
    write(store, *rows)
    store.add_outcomes(RISK, [{"prediction_id": rows[0].prediction_id, "label": "Low"}], AT)
    store.add_outcomes(RISK, [{"key": "a", "label": "High"}], AT)
    store.add_outcomes(RISK, [{"prediction_id": rows[1].prediction_id, "label": "Low"}], AT)
    assert [label for _, label in labelled(store)] == ["High", "Low"]


def test_an_unknown_outcome_waits_for_its_prediction(store):
    late = row("a", 1)
    items = [{"prediction_id": late.prediction_id, "label": "Low"}, {"key": "b", "label": "High"}]
    assert store.add_outcomes(RISK, items, AT) == OutcomeReport(2, 0, 0, (late.prediction_id, "b"))
    write(store, late, row("b", 2, model="other"))
    assert store.add_outcomes(RISK, items, AT) == OutcomeReport(0, 2, 0, ("b",))
    assert labelled(store) == [(late, "Low")]


@pytest.mark.parametrize(
    ("label", "stored"), [("High", "High"), (" bad ", "High"), (1, "1"), (1.0, "1"), (True, "true")]
)
def test_labels_are_classes_or_what_stands_for_them(store, label, stored):
    store.add_outcomes(RISK, [{"key": "a", "label": label}], AT)
    assert store.outcomes_of("risk", "key", "a")[0].label == stored


@pytest.mark.parametrize(("label", "stored"), [(3, "3.0"), (0.1, "0.1"), (100, "100.0")])
def test_labels_of_a_regression_are_numbers(store, label, stored):
    store.add_outcomes(PRICE, [{"key": ["x|y", 3], "label": label}], AT)
    assert store.outcomes_of("price", "key", r"x\|y|3")[0].label == stored


@pytest.mark.parametrize(
    ("model", "item", "message"),
    [
        (RISK, {"key": "a", "label": "Medium"}, r"outcome 1: label is no class: got 'Medium'; allowed: Low, High"),
        (RISK, {"key": "a"}, "outcome 1: label is no class"),
        (RISK, {"key": "a", "label": ["Low"]}, "outcome 1: label is no class"),
        (RISK, {"label": "Low"}, "outcome 1 needs either prediction_id or key: got 'neither'"),
        (RISK, {"key": "a", "prediction_id": "b", "label": "Low"}, "outcome 1 needs either .* got 'both'"),
        (RISK, {"key": "", "label": "Low"}, "outcome 1: key names nothing"),
        (RISK, {"key": "a\x00", "label": "Low"}, "outcome 1: key names nothing"),
        (RISK, {"key": "\ud800", "label": "Low"}, "outcome 1: key names nothing"),
        (RISK, {"key": {}, "label": "Low"}, "outcome 1: key names nothing"),
        (RISK, {"prediction_id": 7, "label": "Low"}, "outcome 1: prediction_id names nothing"),
        (RISK, {"key": "a", "label": "Low", "when": 1}, "outcome 1 has an unknown field: got 'when'"),
        (RISK, {"key": "a", "label": "Low", "observed_at": "soon"}, "observed_at is no time: got 'soon'"),
        (RISK, {"key": "a", "label": "Low", "observed_at": float("inf")}, "observed_at is no time"),
        (PRICE, {"key": ["a"], "label": 1}, r"key names nothing: got \['a'\]; allowed: the value of shop, day"),
        (PRICE, {"key": "a|b", "label": -1}, "label is out of range: got -1; allowed: a number from 0 to 100"),
        (PRICE, {"key": "a|b", "label": "5"}, "label is out of range: got .5."),
        (PRICE, {"key": "a|b", "label": True}, "label is out of range: got True"),
    ],
)
def test_a_wrong_outcome_is_named_and_none_is_stored(store, model, item, message):
    right = {"prediction_id": "x", "label": "Low" if model is RISK else 1}
    with pytest.raises(RecordInvalid, match=message) as refused:
        store.add_outcomes(model, [right, item], AT)
    assert refused.value.facts["item"] == 1
    assert not store.has_outcomes(model.name)


def test_times_of_outcomes(store):
    zone = timezone(timedelta(hours=2))
    times = ["2026-02-01T02:00:00+02:00", "2026-02-01", datetime(2026, 2, 1, 2, tzinfo=zone), 1_769_904_000]
    for number, moment in enumerate(times):
        store.add_outcomes(RISK, [{"key": str(number), "label": "Low", "observed_at": moment}], AT)
        assert store.outcomes_of("risk", "key", str(number))[0].observed_at == 1_769_904_000


def test_ten_thousand_outcomes_take_no_more_statements_than_ten(store):
    write(store, *(row(str(number), number) for number in range(1_000)))
    statements: list[str] = []
    event.listen(store.database._engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    counts = []
    for first, last in ((0, 10), (10, 10_010)):
        statements.clear()
        report = store.add_outcomes(RISK, [{"key": str(n), "label": "Low"} for n in range(first, last)], AT)
        counts.append(len(statements))
    assert counts[0] == counts[1] > 0
    assert (report.accepted, len(report.unknown)) == (10_000, 9_010)


def test_prune_by_age(store):
    rows = [row("old", 1), row("kept", 2), row(None, 3), row("new", 10 * DAY), row("old", 1, model="other")]
    write(store, *rows)
    old = datetime.fromtimestamp(5, UTC)
    store.add_outcomes(RISK, [{"key": key, "label": "Low"} for key in ("old", "kept", "new", "nobody")], old)
    store.add_outcomes(RISK, [{"prediction_id": rows[2].prediction_id, "label": "Low"}], old)
    store.add_outcomes(RISK, [{"key": "waiting", "label": "Low"}], AT)
    keep = {rows[1].prediction_id}
    expected = Pruned(predictions=2, outcomes=3)
    assert store.prune("risk", DAY, keep, dry_run=True) == expected
    assert store.count() == 5
    assert store.prune("risk", DAY, keep) == expected
    assert list(store.blocks("risk")) == [[rows[1], rows[3]]]
    assert store.prune("risk", DAY, keep) == Pruned(0, 0)
    left = [store.outcomes_of("risk", "key", key) for key in ("old", "kept", "new", "nobody", "waiting")]
    assert [len(found) for found in left] == [0, 1, 1, 0, 1]
    assert store.count("other") == 1


def test_many_are_pruned_in_short_transactions(store):
    rows = [row(str(number), number) for number in range(4_500)]
    write(store, *rows)
    store.add_outcomes(RISK, [{"key": r.key, "label": "Low"} for r in rows], datetime.fromtimestamp(9, UTC))
    assert store.prune("risk", 4_400) == Pruned(4_400, 4_400)
    assert store.count() == 100


@pytest.mark.parametrize("table", ["predictions", "outcomes"])
def test_the_tables_have_their_indexes(store, table):
    with store.database.connected() as connection:
        names = {index["name"] for index in inspect(connection).get_indexes(table)}
    assert names == {"predictions": {"predictions_time", "predictions_key"}, "outcomes": {"outcomes_target"}}[table]


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ({"id": "a"}, "a"),
        ({"id": " 007 "}, "007"),
        ({"id": 7}, "7"),
        ({"id": 7.0}, "7"),
        ({"id": 0.5}, "0.5"),
        ({"id": True}, "true"),
        ({"id": "NA"}, None),
        ({"id": None}, None),
        ({"id": float("nan")}, None),
        ({}, None),
    ],
)
def test_the_key_of_a_record(record, key):
    assert key_of(RISK, record) == key


def test_keys_of_several_parts():
    assert key_of(PRICE, {"shop": "a|b", "day": 3}) == r"a\|b|3"
    assert key_of(PRICE, {"shop": "a"}) is None
    for parts in (["a", "b"], ["a|", "|b"], ["\\", "|"], ["\\|", "\\\\"], ["", "b"]):
        assert key_parts(joined_key(parts), 2) == parts


@pytest.mark.parametrize("key", ["a\x00", "\ud800", ["a"], {"a": 1}, float("inf")])
def test_what_is_no_key(key):
    with pytest.raises(RecordInvalid, match="id is no key"):
        key_of(RISK, {"id": key})


def test_ids_are_in_the_order_of_time_and_of_version_7():
    made = [new_id(at) for at in (1.0, 2.0, 1_772_000_000.5, 1_772_000_000.502)]
    assert made == sorted(made)
    assert len({new_id(1.0) for _ in range(1_000)}) == 1_000
    together = new_ids(2.5, 1_000)
    assert made[1] < together[0] < together[-1] < made[2]
    assert together == sorted(set(together))
    assert all(len(found) == 32 and found[12] == "7" and found[16] in "89ab" for found in [*made, *together])


def test_a_locked_database_is_away_and_comes_back(tmp_path):
    store = PredictionStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    store.prepare()
    writer = store.writer(durable=False, patience=0.01)
    first = row("a", 1)
    writer.write([first])
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for rows in ([row("b", 2)], [row("b", 2), row("c", 3)]):
        with pytest.raises(LogUnavailable, match="database is locked"):
            writer.write(rows)
    other.execute("ROLLBACK")
    writer.write([first, row("b", 2)])
    assert store.count() == 2


def test_a_database_that_is_gone_is_not_made_anew(tmp_path):
    store = PredictionStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    with pytest.raises(LogUnavailable, match="unable to open database file"):
        store.writer(durable=True, patience=0.01).write([row()])


def test_checkpoints_empty_the_log(tmp_path):
    store = PredictionStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    store.prepare()
    writer = store.writer(durable=False, patience=1)
    for number in range(200):
        writer.write([row(str(number), number)])
    size = (tmp_path / "ledger.db-wal").stat().st_size
    store.writer(durable=True, patience=1).checkpoint(restart_at=10)
    writer.write([row("last", 200)])
    assert (tmp_path / "ledger.db-wal").stat().st_size == size  # begun anew, not made longer
    assert store.count() == 201
