"""What people do from the pages, and what goes on record about it."""

import re
import sqlite3

import pytest

from steward.errors import OrchestratorRefused
from steward.pages.orchestration import Question


def test_a_training_is_started_once_with_its_reason(pages):
    ana = pages.person()
    answer = ana.fill("/models/risk/act", "/models/risk/train", reason=" it is Monday ")
    [(model, kind, run_id, reason)] = pages.notebook.started
    assert (model, kind, reason) == ("risk", "train", "it is Monday")
    assert re.fullmatch(r"pages__\d{8}T\d{6}-[0-9a-f]{8}", run_id)
    shown = ana.client.get(answer.headers["location"])
    assert "The training was started" in shown.text
    assert f"/dags/risk.train/runs/{run_id}" in shown.text


def test_a_form_that_is_sent_twice_names_the_same_run(pages):
    client = pages.browser()
    form = client.get("/steward/models/risk/act").text.split('action="/steward/models/risk/train"')[1]
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form.split("</form>")[0]))
    for _ in range(2):
        assert client.post("/steward/models/risk/train", data={**fields, "reason": "x"}).status_code == 303
    first, second = pages.notebook.started
    assert first[2] == second[2]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501], ids=["none", "blank", "endless"])
def test_a_training_needs_a_reason(pages, reason):
    answer = pages.person().fill("/models/risk/act", "/models/risk/train", reason=reason)
    assert answer.status_code == 422
    assert pages.notebook.started == []


def test_a_look_is_started(pages):
    assert pages.person().fill("/models/risk/act", "/models/risk/monitor").status_code == 303
    assert pages.notebook.started[0][:2] == ("risk", "monitor")


@pytest.mark.parametrize(("decision", "approve"), [("approve", True), ("refuse", False)])
def test_a_question_is_answered(pages, decision, approve):
    pages.notebook.waiting = [Question("manual__1", "Promote?", "promote: better")]
    ana = pages.person()
    answer = ana.fill("/models/risk/act", "/models/risk/answer", decision=decision, why="the card")
    assert pages.notebook.answered == [("risk", "manual__1", approve, "the card")]
    assert answer.headers["location"].startswith(f"/steward/models/risk/act?done={decision}")


def test_what_airflow_refuses_is_said(pages):
    pages.notebook.refusal = OrchestratorRefused("Airflow did not do that", got="403: Forbidden", do="Ask", status=403)
    answer = pages.browser().get("/steward/models/risk/act")
    assert answer.status_code == 403
    assert "Airflow did not do that" in answer.text
    assert "403: Forbidden" in answer.text


def test_a_promotion_and_a_rollback_say_what_changes_and_are_on_record(renewed, pages_of, tmp_path):
    installation = renewed.copy(tmp_path)
    pages = pages_of(installation.workspace, "risk")
    ana, ledger = pages.person(), installation.workspace.ledger
    confirm = ana.client.get("/steward/models/risk/promote?version=2").text
    assert "Promote version 2?" in confirm
    assert re.search(r'now">version 1.*then"><strong>version 2', confirm, re.DOTALL)

    answer = ana.fill("/models/risk/promote?version=2", "/models/risk/promote", why="we need the new team")
    assert answer.status_code == 303
    entry = ledger.entries("risk", "promotion")[-1]
    body = entry.body
    assert (body["act"], body["version"], body["previous"], body["by"]) == ("promote", 2, 1, "ana")
    assert body["reasons"] == ["we need the new team"]
    shown = ana.client.get(answer.headers["location"]).text
    assert f"entry {entry.sequence}" in shown
    assert installation.ask("status", "risk")["champion"]["version"] == 2

    assert "Roll back to version 1?" in ana.client.get("/steward/models/risk/rollback").text
    answer = ana.fill("/models/risk/rollback", "/models/risk/rollback", why="complaints")
    assert answer.status_code == 303
    body = ledger.entries("risk", "promotion")[-1].body
    assert (body["act"], body["version"], body["by"]) == ("rollback", 1, "ana")
    assert installation.ask("status", "risk")["champion"]["version"] == 1
    assert ledger.verify().ok


def test_what_was_confirmed_must_still_be_so(renewed, pages_of, tmp_path):
    installation = renewed.copy(tmp_path)
    pages = pages_of(installation.workspace, "risk")
    ana, before = pages.person(), len(installation.workspace.ledger.entries())
    path = "/models/risk/promote"
    answer = ana.fill(f"{path}?version=2", path, champion="7", why="it was 7 when I looked")
    assert answer.status_code == 409
    assert "Meanwhile version 1 has become the champion" in answer.text
    assert len(installation.workspace.ledger.entries()) == before


@pytest.mark.parametrize("path", ["/models/risk/rollback", "/models/risk/promote?version=99"])
def test_there_must_be_a_version_to_go_to(pages, path):
    answer = pages.browser().get(f"/steward{path}")
    assert answer.status_code == 404
    assert "Choose a version" in answer.text


def test_the_chain_is_walked_and_a_break_is_shown(trained, pages):
    ana = pages.person()
    assert ana.fill("/decisions", "/chain").status_code == 303
    assert "Chain unbroken" in ana.client.get("/steward/decisions").text
    with sqlite3.connect(trained.home / "ledger.db") as database:
        for (name,) in database.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            database.execute(f"drop trigger {name}")
        database.execute("update entries set body = replace(body, 'first version', 'nothing') where kind = 'trigger'")
    assert ana.fill("/decisions", "/chain").status_code == 303
    assert "Chain broken" in ana.client.get("/steward/decisions").text
