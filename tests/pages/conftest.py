"""Pages without Airflow: people and their rights stand in a header, and an orchestrator that writes down what it was asked."""

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from steward.errors import OrchestratorRefused
from steward.io.workspace import Workspace
from steward.pages.access import Person as SignedIn
from steward.pages.access import SignedOut
from steward.pages.app import create_app
from steward.pages.orchestration import Question

HERE = {"sec-fetch-site": "same-origin"}


class HeaderGate:
    """Ana may act on every model, Vic may look at them, Eve has no right at all."""

    def __init__(self, *models: str) -> None:
        self.models = frozenset(models)
        self.editors = {"ana"}
        self.fault: Exception | None = None

    async def person(self, request):
        name = request.headers.get("x-person")
        if name is None:
            raise SignedOut
        return SignedIn(name)

    def readable(self, person):
        if self.fault:
            raise self.fault
        return frozenset() if person.name == "eve" else self.models

    def editable(self, person):
        return self.models if person.name in self.editors else frozenset()

    def login(self, back):
        return f"/login?next={back}"


@dataclass
class Notebook:
    """Runs and answers that were asked for; `waiting` are the questions that it has."""

    started: list[tuple[Any, ...]] = field(default_factory=list)
    answered: list[tuple[Any, ...]] = field(default_factory=list)
    waiting: list[Question] = field(default_factory=list)
    refusal: OrchestratorRefused | None = None

    def start(self, request, model, kind, run_id, reason):
        self._refuse()
        self.started.append((model, kind, run_id, reason))

    def questions(self, request, model):
        self._refuse()
        return self.waiting

    def answer(self, request, model, run_id, *, approve, why):
        self._refuse()
        self.answered.append((model, run_id, approve, why))

    def run_page(self, model, kind, run_id):
        return f"/dags/{model}.{kind}/runs/{run_id}"

    def _refuse(self):
        if self.refusal:
            raise self.refusal


class Pages:
    """The pages of a workspace, mounted as Airflow mounts them."""

    def __init__(self, workspace: Workspace, *models: str) -> None:
        self.workspace, self.gate, self.notebook = workspace, HeaderGate(*models), Notebook()
        self.app = FastAPI()
        self.app.mount("/steward", create_app(self.gate, self.notebook, workspace, b"secret"))

    def browser(self, person: str | None = "ana") -> TestClient:
        headers = {"accept": "text/html", **HERE} | ({"x-person": person} if person else {})
        return TestClient(self.app, headers=headers, follow_redirects=False)

    def person(self, name: str = "ana") -> "Person":
        return Person(self.browser(name))


@pytest.fixture(scope="session")
def shared(champion) -> Pages:
    return Pages(champion[0].workspace, "risk")


@pytest.fixture
def pages(request, shared) -> Pages:
    """Those of an installation with one champion, the model `risk`; of a test's own one if it asks for `trained`."""
    if "trained" in request.fixturenames:
        return Pages(request.getfixturevalue("trained").workspace, "risk")
    shared.gate.__init__("risk")
    shared.notebook.__init__()
    return shared


@pytest.fixture(scope="session")
def pages_of() -> type[Pages]:
    """Makes the pages of a workspace for models of these names."""
    return Pages


@pytest.fixture
def unasked(described) -> Pages:
    """Those of an installation in which nothing happened yet."""
    return Pages(described.workspace, "risk")


@pytest.fixture(scope="session")
def renewed(champion, tmp_path_factory) -> Any:
    """An installation whose model has a second version, which is not better than the first. Take a `copy`."""
    installation = champion[0].copy(tmp_path_factory.mktemp("renewed"))
    installation.write_rows(1200)
    assert installation.ask("train", "risk")["champion"] == 1
    return installation


@dataclass
class Person:
    """Fills in forms as a browser does: with the token that the page gave."""

    client: TestClient

    def fill(self, page: str, path: str, **fields: Any) -> Any:
        shown = self.client.get(f"/steward{page}")
        assert shown.status_code == 200, shown.text
        form = shown.text.split(f'action="/steward{path}"')[1].split("</form>")[0]
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
        return self.client.post(f"/steward{path}", data={**hidden, **fields})
