"""A running service, started once for all tests that do not change it, and what tests of a service need."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from steward.io.workspace import Workspace
from steward.records import Challenger, Promotion, Reference, Verdict, digest_of

WIDE = """
name: wide
description: every kind of column, and nothing trained
task: classification
source: {table: none.csv, key: [org, id], time: at, missing: ["", "?"]}
label: {column: outcome, classes: [Low, High, "3"], aliases: {lo: Low}}
columns:
  count: {type: integer, min: 0, max: 1000}
  size: {type: integer, nullable: true}
  ratio: {type: number, min: -0.5, max: 2.5, nullable: true}
  level: {type: number}
  stage: {type: category, values: [dev, prod, "5"], aliases: {production: prod}}
  kind: {type: category, values: [a, b], nullable: true}
  team: {type: category, open: true}
  note: {type: category, open: true, nullable: true}
  urgent: {type: boolean}
  weekend: {type: boolean, nullable: true}
serve: {fallback: {prediction: Low}, control: 0.5, actions: [{when: "count > 500", do: ask}, {otherwise: go}]}
"""
PRICE = """
name: price
task: regression
source: {table: none.csv, key: id}
label: {column: price, min: 0, max: 100}
columns:
  area: {type: number, min: 0, max: 10}
serve: {fallback: {prediction: 50}, out_of_range: flag, unknown_fields: ignore}
"""
WIDE_RECORD = {"count": 1, "level": 0.5, "stage": "dev", "team": "web", "urgent": True}


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """`steward serve` in a process of its own."""

    def __init__(self, environment: dict[str, str], folder: Path, *options: str) -> None:
        self.environment = {**os.environ, **environment}
        self.errors = folder / "service.log"
        self.options = options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def start(self, *, wait: float = 60) -> None:
        command = [sys.executable, "-m", "steward", "serve", "--port", str(self.port), *self.options]
        with self.errors.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.ask("GET", "/healthz").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"the service did not start: {self.errors.read_text()[-2000:]}")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        connection = self.connection()
        try:
            return exchange(connection, method, path, body, **headers)
        finally:
            connection.close()

    def predict(self, record: Any, model: str = "risk", **headers: str) -> Answered:
        return self.ask("POST", f"/v1/models/{model}/predict", record, **headers)


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str
) -> Answered:
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if sent is not None else {}
    connection.request(method, path, sent, {**given, **{name.replace("_", "-"): v for name, v in headers.items()}})
    answer = connection.getresponse()
    return Answered(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Until it holds; so many seconds mean that it never will."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def promotions(workspace: Workspace, model: str = "risk") -> list[dict[str, Any]]:
    return [entry.body for entry in workspace.ledger.entries(model, "promotion")]


def crown(workspace: Workspace, champion: int | None, previous: int | None, number: int = 0) -> None:
    """A promotion by hand as the ledger has it; MLflow is not asked, because the service does not ask it either."""
    body = promotions(workspace)[0]
    at = datetime.now(UTC) + timedelta(microseconds=number)
    body |= {"champion": champion, "previous": previous, "act": "promote", "by": "test", "at": at.isoformat()}
    body["version"] = champion if champion is not None else body["version"]
    workspace.ledger.append("risk", "promotion", f"promote {at.isoformat()} {number}", body, at)


def add_opposite_version(workspace: Workspace, number: int = 2) -> None:
    """A version made of the first one's files that answers the other class: whose answer it is shows in the answer."""
    first = Promotion.model_validate(promotions(workspace)[0])
    verdict = workspace.load(Verdict, first.verdict)
    made = workspace.load(Challenger, verdict.challenger)
    known = made.known_classes or made.classes
    turned = made.model_copy(
        update={"classes": made.classes[::-1], "known_classes": known[::-1], "digest": digest_of("opposite", number)}
    )
    challenger = keep(workspace, turned, number)
    opened = keep(workspace, verdict.model_copy(update={"challenger": challenger}), number)
    promotion = first.model_copy(update={"verdict": opened, "version": number, "alias": "challenger", "champion": 1})
    workspace.ledger.append("risk", "promotion", f"opposite {number}", promotion.as_json(), datetime.now(UTC))


def keep(workspace: Workspace, record: Any, number: int) -> Reference:
    address = digest_of(record.kind, "opposite", number)
    workspace.store.write_record(record.kind, address, record.as_json())
    return Reference(kind=record.kind, uri=workspace.store.record_uri(record.kind, address), digest=address)


@pytest.fixture(scope="session")
def served(champion, tmp_path_factory) -> Iterator[Running]:
    """A service with a champion, a model of every kind of column, and a regression; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("served")
    installation = champion[0].copy(folder)
    (installation.models / "wide.yaml").write_text(WIDE)
    (installation.models / "price.yaml").write_text(PRICE)
    running = Running(installation.environment, folder)
    running.installation = installation
    yield running
    assert running.stop() == 0, running.errors.read_text()[-2000:]


@pytest.fixture
def two_versions(trained) -> Any:
    """An installation whose champion is version 1, and whose version 2 answers the other class."""
    add_opposite_version(trained.workspace)
    return trained


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts services that end with the test."""
    running: list[Running] = []

    def go(installation: Any, *options: str) -> Running:
        running.append(Running(installation.environment, tmp_path, *options))
        return running[-1]

    yield go
    for each in running:
        each.kill()
