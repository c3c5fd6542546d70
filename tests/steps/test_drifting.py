"""From the prediction log to the finding: what moved is found, what is calm is not."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from steward import steps
from steward.errors import StoreUnavailable
from steward.records import Drift
from steward.steps import drifting

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
