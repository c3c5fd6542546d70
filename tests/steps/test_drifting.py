"""From the prediction log to the finding: what moved is found, what is calm is not."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from steward import pipeline, steps
from steward.config import ModelFile
from steward.core import drift, profiles
from steward.errors import StoreUnavailable
from steward.prediction import trained
from steward.records import Drift
from steward.steps import baseline, drifting, observation
from tests.conftest import plain_workspace_in

DAY = timedelta(days=1)
FIRST = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def looked(company):
    """Serves a day's rows and looks at them."""

    def ask(at, **columns):
        company.serve(company.rows(300, at, **columns))
        workspace = company.workspace
        reference = steps.detect_drift(workspace, company.model, steps.observe(workspace, company.model, at=at))
        return workspace.load(Drift, reference)

    return ask


def alarms(found):
    return {one.column for one in found.findings if one.alarm}


def test_calm_days_raise_no_alarm(looked):
    found = [looked(FIRST + day * DAY) for day in range(4)]
    assert [alarms(one) for one in found] == [set()] * 4
    assert [one.triggers for one in found] == [()] * 4
    assert [one.windows for one in found] == [1, 2, 3, 4]
    assert found[-1].separation.auc.low < 0.5


@pytest.mark.parametrize(
    ("columns", "column", "question"),
    [
        ({"size": np.random.default_rng(1).lognormal(4, 1, 300)}, "size", "location"),
        ({"team": ["web"] * 60 + ["mobile"] * 240}, "team", "shape"),
        ({"team": ["web"] * 160 + ["data"] * 120 + ["legal"] * 20}, "team", "unseen"),
        ({"size": [*np.full(100, np.nan), *np.random.default_rng(1).lognormal(3, 1, 200)]}, "size", "missing"),
        ({"night": [True] * 200 + [False] * 100}, "night", "shape"),
        ({"files": [900.0] * 150 + [100.0] * 150}, "files", "shape"),
        ({"team": None}, "team", "missing"),
    ],
    ids=["larger", "other teams", "new team", "missing", "more nights", "two values", "all missing"],
)
def test_a_column_that_moved_is_found_in_its_first_window(looked, columns, column, question):
    found = looked(FIRST, **columns)
    assert column in alarms(found)
    assert question in {one.question for one in found.findings if one.column == column}
    assert column in found.separation.columns
    (trigger,) = found.triggers
    assert trigger["kind"] == "data_drift"
    assert column in trigger["evidence"]["columns"]
    assert json.loads(json.dumps(trigger)) == trigger


def test_an_alarm_is_one_cause_as_long_as_it_lasts(company, looked):
    looked(FIRST)
    found = [looked(FIRST + day * DAY, team="web") for day in (1, 2, 3)]
    assert len({one.triggers[0]["cause"] for one in found}) == 1
    assert {one.since["team"] for one in found} == {FIRST}
    kept = company.workspace.ledger.entries("risk", "drift")
    assert [entry.body["alarms"] for entry in kept] == [["team"]] * 3


def test_what_is_expected_to_be_lost_is_said(looked):
    found = looked(FIRST, team="web")
    assert found.expected_loss.low < found.expected_loss.value < found.expected_loss.high
    assert found.triggers[0]["loss_low"] == found.expected_loss.low
    assert "cannot see concept drift" in found.says[-1]


def test_an_empty_window_and_one_row(company):
    company.write(company.rows(10, FIRST - 100 * DAY))
    workspace = company.workspace
    empty = workspace.load(
        Drift, steps.detect_drift(workspace, company.model, steps.observe(workspace, company.model, at=FIRST))
    )
    assert (empty.findings, empty.says, empty.windows) == ((), (), 0)
    company.serve(company.rows(1, FIRST + DAY))
    one = steps.detect_drift(workspace, company.model, steps.observe(workspace, company.model, at=FIRST + DAY))
    assert workspace.load(Drift, one).triggers == ()


def test_killed_and_repeated_it_raises_one_alarm(company, monkeypatch):
    company.serve(company.rows(300, FIRST, team="web"))
    workspace, ledger = company.workspace, company.workspace.ledger
    seen = steps.observe(workspace, company.model, at=FIRST)

    def killed(*_):
        raise StoreUnavailable("killed")

    for place, name in ((drifting, "_drift"), (type(ledger), "append")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, killed)
            with pytest.raises(StoreUnavailable, match="killed"):
                steps.detect_drift(workspace, company.model, seen)
    first, second = (steps.detect_drift(workspace, company.model, seen) for _ in range(2))
    assert first == second
    assert len(ledger.entries("risk", "drift")) == 1


def test_rows_of_the_source_are_watched_where_nothing_is_served(company):
    company.write(company.rows(600, FIRST, team="web"))
    workspace = company.workspace
    found = workspace.load(
        Drift, steps.detect_drift(workspace, company.model, steps.observe(workspace, company.model, at=FIRST))
    )
    assert "team" in alarms(found)
    assert "team" in found.separation.columns


def test_a_drift_that_costs_nothing_is_reported_and_starts_no_training(company):
    """Outcomes depend on `files` alone; teams and sizes may change as they like."""
    sizes = np.random.default_rng(3)
    for day in range(3):
        at = FIRST + day * DAY
        company.serve(company.rows(300, at, team="web", size=sizes.lognormal(4, 1, 300)))
        look = pipeline.monitor(company.workspace, company.model, at=at)
        assert alarms(look.records["detect_drift"]) >= {"team", "size"}
        decision = look.records["decide_retraining"]
        assert not decision.train
        assert {one["rule"] for one in decision.refusals if one["kind"] == "data_drift"} == {"expected loss"}
    assert company.workspace.ledger.entries("risk", "trigger")[1:] == []


PRICES = """
name: risk
task: regression
source: {table: TABLE, key: id, time: asked}
label: {column: price}
columns:
  size: {type: number, min: 0}
  stage: {type: category, values: [dev, prod]}
candidates: [decision_tree]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.3}
"""


def prices(rng, until, count, days, low=0.0):
    """What is large is hard to tell the price of."""
    size = rng.uniform(low, 1000, count)
    asked = until - pd.to_timedelta(rng.uniform(0, days * 86_400, count), unit="s")
    name = f"{until:%j}-"
    return pd.DataFrame(
        {
            "id": [f"{name}{place}" for place in range(count)],
            "asked": asked,
            "size": size,
            "stage": rng.choice(["dev", "prod"], count),
            "price": size + rng.normal(0, 1, count) * size / 5,
        }
    )


@pytest.mark.parametrize(("low", "costs"), [(0.0, False), (700.0, True)])
def test_a_drift_of_a_regression_has_an_expected_loss(tmp_path, low, costs):
    rng, table = np.random.default_rng(5), tmp_path / "rows.parquet"
    workspace = plain_workspace_in(tmp_path / "home")
    model = ModelFile.parse(PRICES.replace("TABLE", str(table)))
    past = prices(rng, FIRST - DAY, 3_000, 30)
    past.to_parquet(table)
    pipeline.train(workspace, model, at=FIRST - DAY, reason="first", by="test", run_id="first")
    pd.concat([past, prices(rng, FIRST, 500, 1, low).assign(price=None)]).to_parquet(table)
    look = pipeline.monitor(workspace, model, at=FIRST)
    found = look.records["detect_drift"]
    assert ("size" in alarms(found)) == costs
    assert (found.expected_loss.low > 0) == costs
    if costs:
        new = (
            500 / look.records["observe"].rows
        )  # the rest of the first look is like the past; a large size costs 2.19 as much
        assert found.expected_loss.value == pytest.approx(1 - np.sqrt(1 / (1 + 1.19 * new)), abs=0.07)
        assert "% of its error" in found.says[-1]
        assert found.triggers[0]["loss_low"] == found.expected_loss.low


def test_weekdays_are_compared_with_their_like(company, tmp_path):
    """Five weeks with large files on Saturdays and Sundays only: the next Saturday is no news, a Monday like it is."""

    def days(first, count, seed):
        frames = []
        for day in range(count):
            at = first + (day + 1) * DAY
            weekend = (first + day * DAY).weekday() >= 5
            size = np.random.default_rng([seed, day]).lognormal(4.5 if weekend else 3, 1, 60)
            frames.append(company.rows(60, at, size=size))
        return pd.concat(frames)

    past = datetime(2026, 1, 1, tzinfo=UTC) - 35 * DAY
    (tmp_path / "new").mkdir()
    company = type(company)(tmp_path / "new", company.make)
    company.write(days(past, 35, 1))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    workspace = company.workspace
    pipeline.train(workspace, company.model, at=at, reason="weeks", by="test", run_id="weeks")
    made = trained(workspace, "risk", None)[1]
    known = baseline.known(workspace, made).baseline
    saturday, monday = datetime(2026, 1, 3, tzinfo=UTC), datetime(2026, 1, 5, tzinfo=UTC)
    large = company.rows(300, saturday + DAY, size=np.random.default_rng(4).lognormal(4.5, 1, 300))
    with workspace.tables.session() as session:
        rows = session.load(pa.Table.from_pandas(large[list(company.model.columns)]))
        names = list(company.model.columns)
        rows = rows.select(**profiles.values_of(rows, company.model)).select(*names)
        found = observation.profile_of(session, rows, known, names).windows[0]
    reference = {"size": known.series["size"]}
    for begin, expected in ((saturday, False), (monday, True)):
        span = (begin.timestamp(), (begin + DAY).timestamp())
        report = drift.Detector(reference).examine({"size": known.series_of("size", [found], [span])}, level=1e-4)
        assert bool(report.alarms) == expected
