"""Who may see what, who may do what, and which forms count."""

import re

import pytest
from fastapi.routing import APIRoute

PLACES = {
    "name": "risk",
    "number": "1",
    "column": "files",
    "dag_id": "risk.train",
    "run_id": "r",
    "kind_of_file": "csv",
    "path": "x",
}
READ = [
    "/models/risk",
    "/models/risk/test-rows",
    "/models/risk/versions/1",
    "/models/risk/versions/1/card",
    "/models/risk/compare?left=1&right=1",
    "/decisions?model=risk",
    "/decisions.csv?model=risk",
]
ACT = ["/models/risk/act", "/models/risk/promote?version=1", "/models/risk/rollback?version=1"]
FORMS = {
    "/models/risk/train": {"once": "20260101T000000-00000000", "reason": "because"},
    "/models/risk/monitor": {"once": "20260101T000000-00000000"},
    "/models/risk/answer": {"run": "manual__1", "decision": "approve", "why": "because"},
    "/models/risk/promote": {"version": "1", "champion": "1", "why": "because"},
    "/models/risk/rollback": {"version": "1", "champion": "1", "why": "because"},
}


def routes(pages):
    """Every route that there is, with something in each of its places."""
    mounted = next(route.app for route in pages.app.routes if getattr(route, "path", "") == "/steward")
    for route in mounted.routes:
        assert isinstance(route, APIRoute), "a route that asks nobody"
        path = re.sub(r"{name}(?=$)", "pages.css", route.path) if "static" in route.path else route.path
        yield from ((method, re.sub(r"{(\w+)(:path)?}", lambda m: PLACES[m[1]], path)) for method in route.methods)


def test_every_route_asks_who_is_there(pages):
    client = pages.browser(None)
    for method, path in routes(pages):
        answer = client.request(method, f"/steward{path}")
        assert answer.status_code == (303 if method == "GET" else 401), (method, path)
        if method == "GET":
            assert answer.headers["location"] == f"/login?next=/steward{path}"
        assert "risk" not in answer.text


def test_programs_are_told_to_sign_in(pages):
    answer = pages.browser(None).get("/steward/decisions.json", headers={"accept": "application/json"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", READ)
def test_who_may_read_reads(pages, path):
    assert pages.browser("ana").get(f"/steward{path}").status_code == 200
    assert pages.browser("vic").get(f"/steward{path}").status_code == 200
    refused = pages.browser("eve").get(f"/steward{path}")
    assert refused.status_code == 403
    assert "eve may not read it" in refused.text


@pytest.mark.parametrize("path", ACT)
def test_only_who_may_act_sees_the_forms(pages, path):
    assert pages.browser("ana").get(f"/steward{path}").status_code == 200
    for name in ("vic", "eve"):
        assert pages.browser(name).get(f"/steward{path}").status_code == 403
    assert "/act" in pages.browser("ana").get("/steward/decisions?model=risk").text
    assert "/act" not in pages.browser("vic").get("/steward/decisions?model=risk").text


@pytest.mark.parametrize(("path", "fields"), FORMS.items())
def test_only_who_may_act_acts(pages, path, fields):
    client = pages.browser("vic")
    token = re.search(r'name="token" value="(\w+)"', client.get("/steward/decisions").text)
    assert token is None, "a form on a page of somebody who may do nothing"
    before = len(pages.workspace.ledger.entries())
    answer = client.post(f"/steward{path}", data={**fields, "token": "0" * 64})
    assert answer.status_code == 403
    assert "vic may read risk and not act on it" in answer.text
    assert pages.notebook.started == pages.notebook.answered == []
    assert len(pages.workspace.ledger.entries()) == before


def test_the_overview_and_the_ledger_hold_only_what_one_may_read(pages):
    assert "/models/risk" in pages.browser("vic").get("/steward/").text
    assert "No model yet" in pages.browser("eve").get("/steward/").text
    assert pages.browser("eve").get("/steward/decisions.json").json() == []
    assert "Nothing was decided yet" in pages.browser("eve").get("/steward/decisions").text


def test_a_model_without_a_dag_is_shown_to_nobody(pages):
    pages.gate.models = frozenset({"other"})
    answer = pages.browser("ana").get("/steward/models/risk")
    assert answer.status_code == 403
    assert "Airflow has no DAG risk.train" in answer.text


def token_of(client):
    return re.search(r'name="token" value="(\w+)"', client.get("/steward/models/risk/act").text)[1]


ELSEWHERE = {
    "another site": {"sec-fetch-site": "cross-site"},
    "another host of this site": {"sec-fetch-site": "same-site"},
    "an old browser on another site": {"sec-fetch-site": None, "origin": "http://evil.example"},
    "a sandboxed page": {"sec-fetch-site": None, "origin": "null"},
    "nothing says from where": {"sec-fetch-site": None},
}


@pytest.mark.parametrize("headers", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize(("path", "fields"), FORMS.items())
def test_a_form_from_elsewhere_does_nothing(pages, path, fields, headers):
    client = pages.browser("ana")
    token = token_of(client)
    for name, value in headers.items():
        client.headers.pop(name, None)
        client.headers.update({name: value} if value else {})
    answer = client.post(f"/steward{path}", data={**fields, "token": token})
    assert answer.status_code == 403
    assert "Nothing was done" in answer.text
    assert pages.notebook.started == pages.notebook.answered == []


def test_an_old_browser_on_our_own_page_is_believed(pages):
    client = pages.browser("ana")
    token = token_of(client)
    client.headers.pop("sec-fetch-site")
    fields = {**FORMS["/models/risk/train"], "token": token}
    answer = client.post("/steward/models/risk/train", data=fields, headers={"origin": "http://testserver"})
    assert answer.status_code == 303


def test_a_token_is_of_one_person_in_one_browser(pages):
    ana, other = pages.browser("ana"), pages.browser("ana")
    fields = {**FORMS["/models/risk/train"], "token": token_of(ana)}
    assert other.post("/steward/models/risk/train", data=fields).status_code == 403, "another browser"
    assert ana.post("/steward/models/risk/train", data={**fields, "token": "0" * 64}).status_code == 403, "a guess"
    pages.gate.editors.add("vic")
    switched = ana.post("/steward/models/risk/train", data=fields, headers={"x-person": "vic"})
    assert switched.status_code == 403, "another person in this browser"
    assert pages.notebook.started == []
    assert ana.post("/steward/models/risk/train", data=fields).status_code == 303


def test_the_cookie_of_the_forms_stays_in_the_browser(pages):
    cookie = pages.browser("ana").get("/steward/models/risk/act").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/steward" in cookie
