"""Every word and its sentence, on entries as the steps write them; hostile text stays text."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from steward.config import ModelFile
from steward.io.predictions import Logged, new_id
from steward.views import decisions, states
from steward.views.overview import overview

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EVIL = "<img src=x onerror=alert(1)> \u202e{{7*7}}"
MODEL = """
name: risk
description: who knows
task: classification
source: {table: rows.csv, key: id}
label: {column: outcome, classes: [Low, High]}
columns: {files: {type: integer}}
approve: APPROVE
"""


def model_file(name="risk", approve="automatic"):
    return ModelFile.parse(MODEL.replace("risk", name).replace("APPROVE", approve))


class Told:
    """Entries of one model, an hour after each other, as the steps write them."""

    def __init__(self, workspace, model):
        self.workspace, self.model, self.at = workspace, model, AT - 3 * DAY

    def add(self, kind, subject, **body):
        self.at += HOUR
        self.workspace.ledger.append(self.model.name, kind, subject, body, self.at)

    def trained(self, number=1, champion=1, previous=None, alias="champion", verdict="promote", trigger="manual"):
        self.add("trigger", f"run-{number}", trigger=trigger, reason=f"because {EVIL}", by="ada")
        self.add("verdict", f"v-{number}", verdict=verdict, reasons=[f"accuracy {EVIL}."])
        body = {"version": number, "alias": alias, "champion": champion, "previous": previous}
        self.add("promotion", f"v-{number}", **body, reasons=[f"accuracy {EVIL}.", "It is not better."])

    def looked(self, version=1, end=None, **figures):
        end = end or AT - HOUR
        span = {"start": (end - DAY).isoformat(), "end": end.isoformat(), "version": version}
        known = {**span, "origin": "predictions", "rows": 240, "metric": "accuracy", "labelled": 500, "sealed": 90}
        rest = {
            name: figures.pop(name, value)
            for name, value in {"train": False, "refusals": [], "ask_a_person": False}.items()
        }
        reason = figures.pop("reason", "wait: nothing asks for a training")
        self.add(
            "decision",
            end.isoformat(),
            **rest,
            reason=reason,
            triggers=[],
            parts={},
            says=["x"],
            figures=known | figures,
        )

    def answered(self, version, fallback):
        at = (AT - HOUR).timestamp()
        self.workspace.predictions.prepare()
        writer = self.workspace.predictions.writer(durable=False, patience=5)
        writer.write(
            [Logged(new_id(at), self.model.name, at, version, None, "{}", "{}", "Low", 1.0, "proceed", False, fallback)]
        )
        writer.close()


def fallen(told):
    told.trained()
    told.looked(live=[0.8, 0.78, 0.82], verified=[0.9, 0.88, 0.92], fallen_since="2026-03-01T00:00:00+00:00")


def drifted(told):
    told.trained()
    told.looked(
        live=None,
        since={"files": "2026-02-28T00:00:00+00:00", EVIL: "2026-02-27T00:00:00+00:00"},
        expected_loss=[0.02, 0.01, 0.03],
    )


def fell_back(told):
    told.trained()
    told.looked()
    told.answered(None, "constant")


def was_not_better(told):
    told.trained()
    told.trained(2, alias="challenger", verdict="hold")
    told.looked()


def was_not_better_on_schedule(told):
    told.trained()
    told.trained(2, alias="challenger", verdict="hold", trigger="schedule")
    told.looked(live=[0.9, 0.88, 0.92])


def waits(told):
    told.trained()
    refusal = {"kind": "accuracy", "cause": "c", "rule": "cooldown", "why": "the cooldown is 24 h", "until": None}
    told.looked(refusals=[refusal], reason="wait: the cooldown is 24 h")


def breaks(told):
    told.trained()
    told.looked(ask_a_person=True, reason="wait: the last 3 challengers were rejected")


def failed(told):
    told.trained()
    told.add("trigger", "run-2", trigger="schedule", reason="Monday", by="schedule")
    told.add("failure", "run-2", error="NotEnoughSealedRows", what="too few sealed rows")
    told.looked()


def trains(told):
    fallen(told)
    told.at = AT - 2 * HOUR
    told.add("trigger", "run-2", trigger="accuracy", reason="it fell", by="monitor", cause="accuracy:v1")


def stopped_training(told):
    told.trained()
    told.at = AT - 5 * HOUR
    told.add("trigger", "run-2", trigger="manual", reason="why not", by="ada")
    told.looked(live=[0.9, 0.88, 0.92])


def new_champion(told):
    fallen(told)
    told.trained(2, champion=2, previous=1)


@pytest.mark.parametrize(
    ("happened", "state", "says"),
    [
        (lambda told: None, "never trained", "No version serves: `steward train risk` trains the first one."),
        (lambda told: told.add("failure", "run", error="E", what=EVIL), "never trained", f"ended without a verdict ({EVIL})"),
        (lambda told: told.trained(alias=None, champion=None), "never trained", "version 1 was not promoted (It is not better)"),
        (trains, "retraining", "Training since 2026-03-02 05:00 UTC: it fell."),
        (fell_back, "serving fallback", "The last prediction, at 2026-03-02 05:00 UTC, was answered by the constant of serve.fallback"),
        (fallen, "falling", "Live accuracy 0.8000 (0.7800 to 0.8200) on 500 labelled rows, worse since 2026-03-01; verified 0.9000."),
        (drifted, "drifting", f"{EVIL}, files have moved, since 2026-02-27; it is thought to cost 0.0200 (0.0100 to 0.0300)."),
        (was_not_better, "held", f"The last challenger was not promoted: accuracy {EVIL}."),
        (waits, "held", "A retraining is asked for and held back: the cooldown is 24 h."),
        (breaks, "held", "wait: the last 3 challengers were rejected. Somebody has to look."),
        (failed, "held", "The last training ended without a verdict: too few sealed rows."),
        (was_not_better_on_schedule, "healthy", "Live accuracy 0.9000 (0.8800 to 0.9200) on 500 labelled rows: as verified."),
        (stopped_training, "healthy", "as verified."),
        (new_champion, "healthy", "Version 2 serves; how right it is live is not known yet. Nobody has looked at this version yet: `steward monitor risk` does."),
        (lambda told: (told.trained(), told.looked()), "healthy", "Outcomes of its predictions are waited for."),
    ],
)  # fmt: skip
def test_each_state_has_its_sentence(workspace, happened, state, says):
    told = Told(workspace, model_file())
    happened(told)
    [row] = overview(workspace, [told.model], AT).rows
    assert row.standing.state == state
    assert says in row.standing.says


def test_a_person_is_waited_for(workspace):
    told = Told(workspace, model_file(approve="person"))
    told.trained(alias="challenger", champion=None)
    told.trained(2, alias="champion", champion=2)
    told.trained(3, alias="challenger", champion=2)
    [row] = overview(workspace, [told.model], AT).rows
    assert (row.standing.state, row.champion, row.challenger) == ("waiting for approval", 2, 3)
    told.add("approval", "v-3", decision="refused", by="bob", why=EVIL)
    [row] = overview(workspace, [told.model], AT).rows
    assert (row.standing.state, row.last_decision) == ("held", f"refused by bob: {EVIL}")


def test_looks_that_stop_are_told(workspace):
    told = Told(workspace, model_file())
    told.trained()
    told.looked(
        end=AT - 9 * DAY, live=[0.9, 0.88, 0.92], estimate=[0.7, 0.68, 0.72], estimate_metric="accuracy", floor=0.85
    )
    [row] = overview(workspace, [told.model], AT).rows
    assert row.standing.state == "healthy"
    late, low = row.standing.warnings
    assert late == "No look at the model since 2026-02-21 06:00 UTC, although monitor.schedule is @daily."
    assert low == "Before labels, accuracy 0.7000 (0.6800 to 0.7200) is expected, under the floor of 0.85."


def test_those_that_need_attention_come_first(workspace):
    stories = {
        "fine": lambda told: (told.trained(), told.looked()),
        "new": lambda told: None,
        "fallen": fallen,
        "late": lambda told: told.trained(),
        "moved": drifted,
    }
    models = [model_file(name) for name in stories]
    for model in models:
        stories[model.name](Told(workspace, model))
    found = overview(workspace, models, AT)
    assert [row.name for row in found.rows] == ["fallen", "moved", "late", "new", "fine"]
    assert found.says == "5 models: 1 falling, 1 drifting, 1 never trained, 2 healthy."
    searched = overview(workspace, models, AT, "WHO falling")
    assert [row.name for row in searched.rows] == ["fallen"]
    assert searched.says.startswith("5 models: 1 of them match 'WHO falling'; ")
    assert overview(workspace, [], AT).says == "No model file yet; `steward init` writes one."


def test_the_number_of_queries_does_not_grow_with_the_models(workspace):
    from sqlalchemy import event

    models = [model_file(f"model_{number}") for number in range(20)]
    for model in models:
        Told(workspace, model).trained()
    asked = []
    event.listen(workspace.ledger._engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    overview(workspace, models[:2], AT)
    assert len(overview(workspace, models, AT).rows) == 20
    queries = [statement for statement in asked if not statement.startswith("BEGIN")]
    assert len(queries) == 2 * 5


def test_entries_of_another_version_of_steward_are_shown(workspace):
    told = Told(workspace, model_file())
    told.add("promotion", "strange", version=1, alias="champion", champion=1, previous=None, reasons=[])
    told.add(
        "decision",
        "2026-01-01",
        train=False,
        reason="wait",
        refusals=[],
        triggers=[],
        ask_a_person=False,
        parts={},
        says=["Wait."],
    )
    told.add("verdict", "unknown", verdict="promote")
    told.add("whatever", EVIL, body=EVIL)
    told.add("trigger", "half")
    [row] = overview(workspace, [told.model], AT).rows
    assert (row.champion, row.live, row.sparkline) == (1, None, ())
    lines = decisions.decisions(workspace, decisions.Filter(kinds=("trigger", "whatever"))).lines
    assert [line.says for line in lines] == ["trigger half", f"whatever {EVIL}"]
    assert lines[1].evidence == {"body": EVIL}


def test_a_long_past_is_thinned_and_keeps_what_changed(workspace):
    from steward.views.timeline import thinned, windows_of

    told = Told(workspace, model_file())
    told.trained()
    for day in range(100):
        alarm = {"since": {"files": "2025-12-01T00:00:00+00:00"}} if day >= 33 else {}
        told.looked(version=1 if day < 66 else 2, end=AT + day * DAY, **alarm)
    windows = windows_of(workspace.ledger.entries("risk", "decision"))
    kept, every = thinned(windows, 10)
    days = [(window.end - AT).days for window in kept]
    assert (len(windows), every) == (100, 10)
    assert days == [9, 19, 29, 33, 39, 49, 59, 66, 69, 79, 89, 99]
    assert thinned(windows, 100) == (tuple(windows), 1)
    assert thinned([], 10) == ((), 1)


def test_no_page_waits_for_a_heavy_library():
    code = (
        "import sys, steward.views.model, steward.views.version, steward.views.decisions, steward.views.sealed\n"
        "print([name for name in ('mlflow', 'sklearn', 'scipy', 'pandas', 'optuna', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_known_is_for_every_model_in_its_order(workspace):
    models = [model_file(name) for name in ("b", "a")]
    assert [one.model.name for one in states.known(workspace, models, AT)] == ["b", "a"]
