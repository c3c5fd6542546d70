"""Messages to people: sent through real Apprise URLs to a real server, once per cause, and never at a run's cost."""

import json
import logging
import re
import threading
from datetime import UTC, datetime
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from steward import notices
from steward.config import ModelFile, Settings
from steward.errors import ContractRefused, LedgerUnavailable
from steward.io.ledger import Ledger
from steward.io.notifications import KIND, Notice, tell
from steward.io.workspace import Workspace
from steward.records import Promotion, Reference

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
SECRET = "s3cret-token"
FALLEN = Notice("accuracy:1:2026-03", "risk: accuracy has fallen", "0.82 after 0.91", "warning")
ROOT = Path(__file__).parents[1]
MODEL = ModelFile.load(ROOT / "models" / "deployment_risk.yaml")
REFERENCE = Reference(kind="verdict", uri="u", digest="d" * 64)


@pytest.fixture
def server():
    """An HTTP server that takes JSON; `.heard` is what came, `.status` what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.heard.append(json.loads(body))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.heard, server.status = [], 200
        server.url = f"json://user:{SECRET}@127.0.0.1:{server.server_port}/hook"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def ledger(tmp_path):
    return Ledger(f"sqlite:///{tmp_path}/ledger.db")


def send(ledger, *urls, notice=FALLEN):
    return tell(ledger, "risk", urls, [notice], link="http://127.0.0.1:8080/run", at=AT)


def test_a_cause_is_told_once_with_figures_and_a_link(server, ledger):
    assert [send(ledger, server.url), send(ledger, server.url)] == [1, 0]
    [heard] = server.heard
    assert (heard["title"], heard["message"], heard["type"]) == (
        "risk: accuracy has fallen",
        "0.82 after 0.91\nhttp://127.0.0.1:8080/run",
        "warning",
    )
    [entry] = ledger.entries("risk", KIND)
    assert (entry.subject, entry.at, entry.body["accepted"]) == (FALLEN.cause, AT, 1)


def test_another_cause_is_another_message(server, ledger):
    send(ledger, server.url)
    send(ledger, server.url, notice=Notice("verdict x", "risk: verdict promote", "better"))
    assert [heard["title"] for heard in server.heard] == ["risk: accuracy has fallen", "risk: verdict promote"]


def test_a_message_that_nobody_accepted_is_tried_again(server, ledger):
    server.status = 500
    assert send(ledger, server.url) == 0
    server.status = 200
    assert send(ledger, server.url) == 1


@pytest.mark.parametrize(
    "url",
    [
        f"json://user:{SECRET}@127.0.0.1:1/hook",
        f"nonsense://{SECRET}@somewhere",
        f"json://:{SECRET}@:nowhere:",
        "${NOT_SET_ANYWHERE}",
        "",
    ],
    ids=["nobody listens", "unknown kind", "no URL", "variable not set", "empty"],
)
def test_a_service_that_fails_costs_neither_the_run_nor_the_secret(server, ledger, url, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    assert send(ledger, url, server.url) == 1
    [entry] = ledger.entries("risk", KIND)
    assert entry.body["accepted"] == 1
    assert entry.body["refused"][0].startswith("notify[0]")
    assert "did not accept the message" in caplog.text
    said = caplog.text + json.dumps(entry.as_json()) + "".join(capfd.readouterr())
    assert SECRET not in said


def test_no_secret_gets_out_when_all_goes_well(server, ledger, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    assert send(ledger, server.url) == 1
    assert SECRET not in caplog.text + json.dumps(ledger.entries()[0].as_json()) + "".join(capfd.readouterr())


@pytest.mark.parametrize("format", ["html", "text", "markdown"])
def test_hostile_text_is_text_to_every_kind_of_service(server, ledger, format):  # noqa: A002
    hostile = "<script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7 * 7 }}"
    notice = Notice("x", "risk: drift", f"team has the unknown value {hostile}", "warning")
    assert send(ledger, f"{server.url}?format={format}", notice=notice) == 1
    [heard] = server.heard
    body = heard["message"]
    if format == "html":
        assert not re.search("<(script|img)", body)
        body = unescape(body).replace("\xa0", " ")
    if format == "markdown":
        assert not re.search(r"<[^>]*[^\\]>", body)
        body = re.sub(r"\\(.)", r"\1", body)
    assert hostile in body
    [entry] = ledger.entries("risk", KIND)
    assert hostile in entry.body["text"]


def test_a_url_may_stand_in_the_environment(server, ledger, monkeypatch):
    monkeypatch.setenv("TEAM_CHANNEL", server.url)
    assert send(ledger, "${TEAM_CHANNEL}") == 1


def test_without_urls_the_ledger_is_not_even_opened():
    assert tell(None, "risk", (), [FALLEN], link=None, at=AT) == 0


def record(kind, **fields):
    """A record of a look, as plain as this module needs it."""
    return SimpleNamespace(kind=kind, as_json=lambda: fields)


def trigger(kind, cause, reason):
    return {"kind": kind, "cause": cause, "reason": reason}


SHADOW = {
    "version": 1,
    "rows": 400,
    "difference": {"value": -0.05, "low": -0.08, "high": -0.02},
    "rolled_back": True,
}
MOVED = {"act": "rollback", "version": 1, "previous": 2, "by": "ana", "why": "complaints", "at": AT.isoformat()}
BREAKER = {"rule": "circuit breaker", "cause": "accuracy:1", "why": "the last 3 challengers were rejected"}


@pytest.mark.parametrize(
    ("made", "titles", "text"),
    [
        (
            record("drift", says=("files_changed moved by 1.2 sd.",), triggers=[trigger("data_drift", "c", "moved")]),
            ["m: drift"],
            "files_changed moved by 1.2 sd.",
        ),
        (
            record("accuracy", says=("Accuracy 0.82 after 0.91.",), triggers=[trigger("accuracy", "c", "it fell")]),
            ["m: accuracy has fallen"],
            "it fell\nAccuracy 0.82 after 0.91.",
        ),
        (record("accuracy", says=(), triggers=[trigger("new_rows", "c", "1,000 new rows")]), [], ""),
        (
            record("accuracy", version=2, at=AT.isoformat(), triggers=[], shadow=SHADOW),
            ["m: rolled back to version 1"],
            "version 2 was worse on the same rows, -0.0500 (-0.0800 to -0.0200) on 400 rows",
        ),
        (record("accuracy", triggers=[], shadow=SHADOW | {"rolled_back": False}), [], ""),
        (record("decision", ask_a_person=True, refusals=[BREAKER]), ["m: somebody has to look"], "were rejected"),
        (record("decision", ask_a_person=False, refusals=[BREAKER]), [], ""),
        (
            record("decision", ask_a_person=True, refusals=[BREAKER | {"rule": "attempts", "why": "3 were in vain"}]),
            ["m: somebody has to look"],
            "in vain",
        ),
        (record("snapshot"), [], ""),
        (
            Promotion(
                model="m",
                verdict=REFERENCE,
                version=3,
                alias="champion",
                champion=3,
                previous=2,
                reasons=("Better by 2 points.",),
                at=AT,
            ),
            ["m: version 3 promoted"],
            "Version 3 serves now after version 2. Better by 2 points.",
        ),
    ],
)
def test_what_people_hear_of_a_record(made, titles, text):
    found = list(notices.notices_of("m", made))
    assert [notice.title for notice in found] == titles
    assert all(text in notice.text for notice in found)


def test_a_champion_moved_by_hand_is_told(server, tmp_path):
    model = MODEL.model_copy(update={"notify": (server.url,)})
    settings = Settings.from_environment({"STEWARD_HOME": str(tmp_path)})
    assert notices.tell_of_move(Workspace(settings), model, MOVED, at=AT) == 1
    [heard] = server.heard
    assert heard["message"] == "Version 1 serves now after version 2, by ana: complaints"


def test_a_refused_table_is_one_cause_and_another_failure_one_per_run():
    refused = ContractRefused("the table breaks its contract", failed=["between:files_changed"])
    assert notices.failure("m", "run 1", refused).cause == notices.failure("m", "run 2", refused).cause
    first, second = (notices.failure("m", run, LedgerUnavailable("locked")) for run in ("run 1", "run 2"))
    assert first.cause != second.cause
    assert "locked" in first.text
    assert SECRET not in notices.failure("m", "run 1", ValueError(SECRET)).text


def test_whatever_is_wrong_with_a_message_the_run_goes_on(tmp_path, caplog):
    settings = Settings.from_environment({"STEWARD_HOME": str(tmp_path), "STEWARD_LEDGER_URL": "sqlite:////dev/null/x"})
    model = MODEL.model_copy(update={"notify": ("json://127.0.0.1:1",)})
    failed = LedgerUnavailable("locked")
    assert notices.tell_of_failure(Workspace(settings), model, "run 1", failed, at=AT) == 0
    broken = SimpleNamespace(kind="drift", as_json=lambda: {"triggers": [{}]})
    assert notices.tell_of(Workspace(settings), model, broken, at=AT) == 0
    assert "a message could not be made: KeyError" in caplog.text
