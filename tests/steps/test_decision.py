"""One decision per look and one training per cause, whoever decides, dies or repeats."""

import os
import random
from datetime import UTC, datetime, timedelta

import pytest

from steward import operations, steps
from steward.config import ModelFile
from steward.core.retraining import Trigger
from steward.errors import LedgerConflict, NotEnoughSealedRows
from steward.io.ledger import Ledger
from steward.records import Decision
from steward.steps import decision as deciding

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MODEL = ModelFile.parse(
    """
name: risk
task: classification
source: {table: rows.csv, key: id}
label: {column: outcome, classes: [Low, High]}
columns: {files: {type: integer}}
"""
)


def asked(cause="accuracy:v1:2026-03-01", kind="accuracy", **more):
    return Trigger(kind, cause, "accuracy has fallen", AT, evidence={"rows": 500}, **more)


@pytest.fixture
def decide(workspace):
    def ask(at=AT, *events):
        reference = steps.decide_retraining(workspace, MODEL, [], at=at, events=events)
        return workspace.load(Decision, reference)

    return ask


def entries(workspace, kind):
    return workspace.ledger.entries(MODEL.name, kind)


def begin(workspace, cause, at, run_id="run"):
    return operations.trigger(workspace, MODEL, "accuracy", "it fell", by="monitor", at=at, run_id=run_id, cause=cause)


def test_a_decision_to_train_is_on_record_with_its_trigger(workspace, decide):
    made = decide(AT, asked(loss=0.07, loss_low=0.03))
    assert (made.train, made.cause, made.detect) == (True, "accuracy:v1:2026-03-01", 0.07)
    assert made.says == ("Train now: accuracy has fallen.",)
    (decided,), (trigger,) = entries(workspace, "decision"), entries(workspace, "trigger")
    assert operations.describe(decided) == "train now: accuracy has fallen"
    assert operations.describe(trigger) == "monitor asked for a training (accuracy): accuracy has fallen"
    assert (trigger.subject, trigger.body["decision"]) == (made.cause, decided.subject)
    assert decide(AT, asked(loss=0.07, loss_low=0.03)) == made
    assert workspace.ledger.verify().problems == ()


def test_nothing_to_do_is_a_decision_too(workspace, decide):
    made = decide(AT)
    assert (made.train, made.reason, made.cause) == (False, "wait: nothing asks for a training", None)
    assert decide(AT, asked()) == made, "a look decides once"
    assert entries(workspace, "trigger") == []


def test_a_loss_that_is_only_expected_does_not_plan_the_test(decide):
    assert decide(AT, asked(kind="data_drift", loss=0.2, loss_low=0.1)).detect is None


def test_one_training_per_cause(workspace, decide):
    decide(AT, asked())
    begin(workspace, asked().cause, AT)
    workspace.ledger.append(MODEL.name, "verdict", "v", {"verdict": "promote"}, AT + HOUR)
    later = decide(AT + 9 * DAY, asked())
    assert (later.train, later.refusals[0]["rule"]) == (False, "one run per cause")
    assert decide(AT + 10 * DAY, asked("accuracy:v1:2026-03-11")).train


@pytest.mark.parametrize("ends", ["failure", "hold", "reject"])
def test_what_was_in_vain_is_tried_again_twice_and_then_a_person_is_asked(workspace, decide, ends):
    cause = asked().cause
    for number in range(3):
        at, run = AT + number * 2 * DAY, f"run {number}"
        made = decide(at, asked())
        assert (made.train, made.cause) == (True, cause if number == 0 else f"{cause}, attempt {number + 1}")
        begin(workspace, made.cause, at, run)
        assert not decide(at + HOUR, asked()).train, "while it runs"
        if ends == "failure":
            operations.failed(workspace, MODEL, run, NotEnoughSealedRows("too few"), at=at + 2 * HOUR)
        else:
            workspace.ledger.append(MODEL.name, "verdict", run, {"verdict": ends}, at + 2 * HOUR)
        soon = decide(at + 3 * HOUR, asked())
        assert (soon.train, soon.refusals[0]["rule"]) == (False, "cooldown" if number < 2 else "attempts")
    at_last = decide(AT + 30 * DAY, asked())
    assert (at_last.train, at_last.refusals[0]["rule"], at_last.ask_a_person) == (False, "attempts", True)
    how = "failed (NotEnoughSealedRows)" if ends == "failure" else f"ended in {ends}"
    assert f"3 trainings for this were in vain, the last one {how}" in at_last.reason
    assert decide(AT + 31 * DAY, asked("accuracy:v1:2026-04-01")).train == (ends != "reject")


@pytest.mark.parametrize(
    ("low", "days"),
    [
        pytest.param(0.001, [3, 7, 11], id="a quarter of the looks, however sure it is"),
        pytest.param(-0.001, [], id="not where nobody is sure that it helps"),
        pytest.param(None, [], id="new rows alone are no reason"),
    ],
)
def test_new_rows_alone_train_at_a_quarter_of_the_looks_at_most(workspace, decide, low, days):
    trained = []
    for day in range(12):
        made = decide(AT + day * DAY, asked(f"new_rows:{day}", "new_rows", loss_low=low))
        if made.train:
            trained.append(day)
            assert made.detect == 0.3
            begin(workspace, made.cause, AT + day * DAY, f"run {day}")
            workspace.ledger.append(MODEL.name, "verdict", made.cause, {"verdict": "hold"}, AT + day * DAY + HOUR)
        else:
            assert made.refusals[0]["rule"] in ("rest", "expected loss")
    assert trained == days


def test_the_schedule_may_come_again(decide):
    assert decide(AT, asked("weekly", "schedule")).cause == f"weekly {AT.isoformat()}"
    assert decide(AT + 7 * DAY, asked("weekly", "schedule")).train


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        ([("manual", -1 * HOUR, None)], "one at a time"),
        ([("manual", -4 * HOUR, None)], None),
        ([("manual", -1 * HOUR, "failure")], None),
        ([("manual", -1 * HOUR, "promote")], None),
        ([("accuracy", -20 * HOUR, "promote")], "cooldown"),
        ([("accuracy", -n * 2 * DAY, "hold") for n in (3, 2, 1)], "budget"),
        ([("accuracy", -n * 9 * DAY, "reject") for n in (3, 2, 1)], "circuit breaker"),
        ([*(("accuracy", -n * 9 * DAY, "reject") for n in (3, 2, 1)), ("manual", -8 * DAY, "reject")], None),
    ],
)
def test_the_situation_is_read_from_the_ledger(workspace, decide, history, rule):
    for number, (kind, before, outcome) in enumerate(history):
        run, at = f"run-{number}", AT + before
        operations.trigger(workspace, MODEL, kind, "why", by="ada", at=at, run_id=run)
        if outcome == "failure":
            operations.failed(workspace, MODEL, run, NotEnoughSealedRows("too few"), at=at)
        elif outcome:
            workspace.ledger.append(MODEL.name, "verdict", run, {"verdict": outcome, "reasons": []}, at)
    made = decide(AT, asked())
    assert made.train == (rule is None)
    assert [refusal["rule"] for refusal in made.refusals] == ([rule] if rule else [])
    assert made.ask_a_person == (rule == "circuit breaker")


def test_a_training_that_nobody_began_is_asked_for_again_until_somebody_does(workspace, decide):
    first = decide(AT, asked(loss=0.07))
    waits = decide(AT + 5 * MINUTE)
    assert (waits.train, waits.reason) == (False, "wait: nothing asks for a training")
    again = decide(AT + 20 * MINUTE)
    assert (again.train, again.cause, again.detect) == (True, first.cause, 0.07)
    assert "not begun since" in again.reason
    assert not decide(AT + 25 * MINUTE).train
    begin(workspace, first.cause, AT + 26 * MINUTE)
    assert not decide(AT + 2 * DAY).train
    assert len(entries(workspace, "trigger")) == 2, "the monitor's and the run's"


def test_a_training_by_hand_takes_the_place_of_one_that_was_not_begun(workspace, decide):
    decide(AT, asked())
    operations.trigger(workspace, MODEL, "manual", "now", by="ada", at=AT + MINUTE, run_id="by hand")
    workspace.ledger.append(MODEL.name, "verdict", "v", {"verdict": "promote"}, AT + HOUR)
    assert not decide(AT + DAY).train


def test_of_two_runs_for_one_cause_the_second_is_refused(workspace, decide):
    cause = decide(AT, asked()).cause
    assert begin(workspace, cause, AT) == begin(workspace, cause, AT), "a repeated run goes on"
    assert operations.started_for(workspace, MODEL, cause, but="another") == "run"
    assert operations.started_for(workspace, MODEL, cause, but="run") is None
    with pytest.raises(LedgerConflict, match="another training of risk"):
        begin(workspace, cause, AT, "another")
    assert [entry.subject for entry in entries(workspace, "trigger")] == [cause, "run"]


def in_processes(count, work):
    """Runs `work(number)` in so many processes at once; their exit codes."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            try:
                work(number)
            except BaseException:  # noqa: BLE001 - a child must not go on with the tests
                os._exit(1)
            os._exit(0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("apart", [0, 1], ids=["the same look", "looks a second apart"])
def test_many_monitors_at_once_start_one_training(workspace, decide, apart):
    workspace.ledger.entries()

    def work(number):
        made = decide(AT + number * apart * timedelta(seconds=1), asked(), asked("new_rows:1", "new_rows"))
        assert made.cause in (None, asked().cause)

    assert in_processes(6, work) == [0] * 6
    assert [entry.subject for entry in entries(workspace, "trigger")] == [asked().cause]
    decided = entries(workspace, "decision")
    assert len(decided) == (6 if apart else 1)
    assert sum(entry.body["train"] for entry in decided) == 1
    assert workspace.ledger.verify().problems == ()


@pytest.mark.parametrize("same_look", [True, False])
def test_a_monitor_that_is_killed_anywhere_and_repeated_loses_and_doubles_nothing(
    workspace, decide, monkeypatch, same_look
):
    """Killed before and after every transaction of the ledger, then repeated at the same moment or at a later one."""
    workspace.ledger.entries()
    append_all, find, read = Ledger.append_all, Ledger.find, Ledger.entries
    drawn = random.Random(1)
    for round_ in range(12):
        cause, at = f"accuracy:v{round_}", AT + round_ * 30 * DAY
        deadly = drawn.randrange(6)

        def counted(method, calls=[0], deadly=deadly):  # noqa: B006 - shared by the three on purpose
            def call(*arguments, **options):
                if calls[0] == deadly:
                    os._exit(9)
                calls[0] += 1
                found = method(*arguments, **options)
                if calls[0] == deadly:
                    os._exit(9)
                calls[0] += 1
                return found

            return call

        def work(_, at=at, cause=cause, counted=counted):
            for name, method in (("append_all", append_all), ("find", find), ("entries", read)):
                monkeypatch.setattr(Ledger, name, counted(method))
            decide(at, asked(cause))

        in_processes(1, work)
        made = decide(at if same_look else at + HOUR, asked(cause))
        assert (made.train, made.cause) == (True, cause)
        begin(workspace, cause, at + HOUR, f"run {cause}")
        workspace.ledger.append(MODEL.name, "verdict", cause, {"verdict": "promote"}, at + 2 * HOUR)
    by_monitor = [entry.subject for entry in entries(workspace, "trigger") if "decision" in entry.body]
    assert by_monitor == [f"accuracy:v{round_}" for round_ in range(12)]
    assert len(entries(workspace, "training")) == 12


def test_a_large_measured_loss_needs_fewer_sealed_rows(workspace):
    missing = deciding._missing_rows(workspace, MODEL, 100)
    assert missing(None) > missing(0.1) > missing(0.3) == 0
    assert deciding._missing_rows(workspace, MODEL, None)(None) == 0


def test_a_trigger_is_read_back_from_its_record():
    assert steps.read_trigger(asked().as_json()) == asked()
