"""What the pages show, whatever stands behind them."""

import csv
import io
import json
import re
import sqlite3
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from steward.pages.app import create_app, prepare

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"
AT = datetime(2026, 1, 1, tzinfo=UTC)
SHOWN = [
    "/",
    "/decisions",
    "/decisions?model=risk",
    "/models/risk",
    "/models/risk/versions/1",
    "/models/risk/compare?left=1&right=1",
    "/models/risk/test-rows",
    "/models/risk/act",
    "/models/risk/promote?version=1",
]


@pytest.mark.parametrize(
    "path", [*SHOWN, "/nowhere", "/models/other", "/models/risk/versions/99", "/decisions?since=x"]
)
def test_nothing_but_our_own_files_can_run_or_be_loaded(pages, path):
    answer = pages.browser().get(f"/steward{path}")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy
    html = answer.text
    assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:", html)
    for address in re.findall(r'(?:src|<link[^>]* href)="([^"]*)"', html):
        assert address.startswith("/steward/static/"), address


@pytest.mark.parametrize("path", SHOWN)
def test_a_page_is_complete(pages, path):
    html = pages.browser().get(f"/steward{path}").text
    assert html.count("<h1") == 1
    assert '<html lang="en">' in html
    assert len(re.findall(r"<title>[^<]+</title>", html)) == 1
    assert html.count("<main") == html.count("</main>") == 1
    for time in re.findall(r"<time[^>]*>", html):
        assert re.search(r'datetime="[^"]+Z" title="[^"]+ UTC"', time), time
    named = set(re.findall(r'<label for="([^"]+)"', html))
    fields = re.findall(r'<(?:input|select|textarea)(?![^>]*type="hidden")[^>]* id="([^"]+)"', html)
    assert set(fields) <= named


def test_static_files_are_kept_and_change_their_address_with_their_content(pages):
    client = pages.browser()
    addresses = re.findall(r'"(/steward/static/[^"]+)"', client.get("/steward/").text)
    assert {re.sub(r"\?.*", "", one).rsplit("/", 1)[1] for one in addresses} >= {"pages.js", "pages.css", "steward.css"}
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert client.get("/steward/static/..%2Fapp.py").status_code == 404


def test_hostile_text_is_text(trained, pages):
    trained.change_model("name: risk", f"name: risk\ndescription: {json.dumps(HOSTILE)}")
    ledger = trained.workspace.ledger
    body = {"trigger": "manual", "reason": HOSTILE, "by": HOSTILE, "evidence": {HOSTILE: [HOSTILE]}}
    ledger.append("risk", "trigger", HOSTILE, body, AT)
    ledger.append("risk", "failure", "run", {"error": HOSTILE, "what": HOSTILE}, AT)
    client = pages.browser()
    for path in [*SHOWN, f"/?q={HOSTILE}", f"/decisions?text={HOSTILE}", f"/models/{HOSTILE}", f"/{HOSTILE}"]:
        html = client.get(f"/steward{path}").text
        assert "<script>alert" not in html, path
        assert "<img" not in html, path
        assert "49" not in re.findall(r"alert\(2\)&gt;(\S+)", html), path
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in client.get("/steward/decisions").text


def test_hostile_names_of_people_and_questions_are_text(pages):
    from steward.pages.orchestration import Question

    pages.notebook.waiting = [Question(HOSTILE, HOSTILE, HOSTILE)]
    pages.gate.editors.add(HOSTILE)
    html = pages.browser(HOSTILE).get("/steward/models/risk/act").text
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 4


def test_an_empty_installation_says_what_to_do_next(unasked, described):
    client = unasked.browser()
    overview = client.get("/steward/").text
    assert "never trained" in overview
    assert "steward train" in overview
    assert "Nothing was decided yet" in client.get("/steward/decisions").text
    assert "Nothing was opened yet" in client.get("/steward/models/risk/test-rows").text
    act = client.get("/steward/models/risk/act").text
    assert "There is no version yet" in act
    assert re.search(r"<button disabled>Monitor now", act)
    assert client.get("/steward/models/risk").status_code == 200


def test_the_overview_finds_models(pages):
    client = pages.browser()
    assert "/models/risk" in client.get("/steward/?q=RISK").text
    missed = client.get("/steward/?q=weather").text
    assert "No model fits “weather”" in missed
    assert "/models/risk" not in missed


def test_a_broken_model_file_is_named_and_hides_no_other(trained, pages):
    (trained.models / "broken.yaml").write_text("name: broken\ntask: [", encoding="utf-8")
    pages.gate.models |= {"broken"}
    client = pages.browser()
    overview = client.get("/steward/").text
    assert "A model file cannot be read" in overview
    assert "broken.yaml" in overview
    assert "/models/risk" in overview
    assert client.get("/steward/models/broken").status_code == 409


def test_what_is_done_before_anybody_asks_minds_no_broken_file(trained, pages):
    (trained.models / "broken.yaml").write_text("name: broken\ntask: [", encoding="utf-8")
    app = create_app(pages.gate, pages.notebook, trained.workspace, b"secret")
    prepare(app)
    pages.gate.models |= {"broken"}
    overview = TestClient(app, headers={"x-person": "ana"}).get("/").text
    assert "broken.yaml" in overview
    assert "/models/risk" in overview


def test_a_changed_model_file_is_read_again(trained, pages):
    client = pages.browser()
    assert "a new description" not in client.get("/steward/models/risk").text
    trained.change_model("name: risk", "name: risk\ndescription: a new description")
    assert "a new description" in client.get("/steward/models/risk").text
    (trained.models / "risk.yaml").unlink()
    assert client.get("/steward/models/risk").status_code == 404


def test_a_ledger_that_is_away_is_a_page_that_says_so(trained, pages):
    (trained.home / "ledger.db").unlink()
    (trained.home / "ledger.db").mkdir()
    for path in ("/", "/decisions", "/decisions.csv", "/models/risk", "/models/risk/act"):
        answer = pages.browser().get(f"/steward{path}")
        assert answer.status_code == 503, path
        assert "The ledger cannot be read now" in answer.text
        assert "STEWARD_LEDGER_URL" in answer.text
        assert "Traceback" not in answer.text


def test_a_ledger_of_a_newer_steward_is_a_page_that_says_so(trained, pages):
    with sqlite3.connect(trained.home / "ledger.db") as database:
        [(table,)] = database.execute("select name from sqlite_master where name like '%alembic_version'").fetchall()
        database.execute(f"update {table} set version_num = '9999'")
    answer = pages.browser().get("/steward/")
    assert answer.status_code == 503
    assert "a newer Steward has written this ledger" in answer.text
    assert "Install the newer Steward here too" in answer.text


def test_a_fault_is_a_page_without_a_stack_trace(pages):
    pages.gate.fault = RuntimeError("geheim")
    answer = pages.browser().get("/steward/")
    assert answer.status_code == 500
    assert "This page could not be made" in answer.text
    assert "geheim" not in answer.text
    assert "content-security-policy" in answer.headers


def test_what_cannot_be_read_is_said(pages):
    answer = pages.browser().get("/steward/decisions?since=yesterday")
    assert answer.status_code == 422
    assert "since" in answer.text


def test_decisions_are_filtered_and_paged(trained, pages):
    ledger = trained.workspace.ledger
    for number in range(120):
        ledger.append("risk", "failure", f"run {number}", {"error": "SourceMissing", "what": f"no file {number}"}, AT)
    client = pages.browser()
    first = client.get("/steward/decisions?kind=failure").text
    entries = [int(one) for one in re.findall(r'id="entry-(\d+)"', first)]
    older = re.search(r'rel="next" href="([^"]+)"', first)[1].replace("&amp;", "&")
    second = client.get(older).text
    assert entries == sorted(entries, reverse=True)
    assert max(int(one) for one in re.findall(r'id="entry-(\d+)"', second)) == min(entries) - 1
    found = client.get("/steward/decisions?text=no+file+77").text
    assert len(re.findall(r'id="entry-', found)) == 1
    assert "No entry fits" in client.get("/steward/decisions?text=nowhere").text
    assert "No entry fits" in client.get("/steward/decisions?until=2020-01-01").text
    chosen = client.get(f"/steward/decisions?at={entries[3]}").text
    assert f'id="entry-{entries[3]}" class="chosen"' in chosen


def test_downloads_hold_every_decision(trained, pages):
    client, ledger = pages.browser(), trained.workspace.ledger
    known = {entry.sequence: entry for entry in ledger.entries() if entry.kind != "observation"}
    answer = client.get("/steward/decisions.json")
    rows = answer.json()
    assert {row["sequence"] for row in rows} == set(known)
    assert all(row["body"] == known[row["sequence"]].body for row in rows)
    assert re.fullmatch(r'attachment; filename="decisions-[\d-]+\.json"', answer.headers["content-disposition"])
    lines = list(csv.DictReader(io.StringIO(client.get("/steward/decisions.csv").text)))
    assert {int(line["sequence"]) for line in lines} == set(known)
    only = client.get("/steward/decisions.json?kind=verdict").json()
    assert {row["kind"] for row in only} == {"verdict"}


def test_links_from_airflow_lead_to_the_same_thing(trained, pages):
    client, ledger = pages.browser(), trained.workspace.ledger
    [run_id] = [entry.subject for entry in ledger.entries("risk", "trigger")]
    ledger.append("risk", "trigger", "later", {"trigger": "manual", "reason": "", "by": "ana"}, AT)
    leads = {
        "/dags/risk.train": "/models/risk",
        "/dags/risk.monitor/runs/x": "/models/risk",
        f"/dags/risk.train/runs/{run_id}": "/models/risk/versions/1",
        "/dags/risk.train/runs/later": "/models/risk",
        "/dags/risk.train/runs/unknown": "/models/risk",
    }
    for path, page in leads.items():
        assert client.get(f"/steward{path}").headers["location"] == f"/steward{page}", path
    foreign = client.get("/steward/dags/somebody.elses")
    assert foreign.status_code == 404
    assert "none of Steward&#39;s DAGs" in foreign.text


def test_a_card_cannot_run_anything(pages):
    answer = pages.browser().get("/steward/models/risk/versions/1/card")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert "<h1>" in answer.text
