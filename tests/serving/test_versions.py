"""The service follows the ledger, and goes on when something is missing."""

import asyncio
import random
import sqlite3
import threading

import numpy as np
import pytest

from steward.config import ModelFile
from steward.core.actions import Policy
from steward.core.answers import Answering
from steward.core.requests import Reader
from steward.errors import NoChampion
from steward.records import digest_of
from steward.serving.lineup import PATIENCE, Contender, Engine, Lineup
from steward.serving.versions import Versions
from tests.serving.conftest import WIDE, crown, exchange, wait_for

RECORD = {"files": 700, "stage": "prod"}
OTHER = {1: "High", 2: "Low"}
"""What each version says about RECORD."""


def be_patient(installation):
    """On a busy machine a second passes without anybody being too slow."""
    path = installation.models / "risk.yaml"
    path.write_text(path.read_text() + "serve: {deadline_ms: 60000}\n")


def version_of(running):
    return running.predict(RECORD).json["model_version"]


def test_a_promotion_and_a_rollback_reach_a_running_service(two_versions, start):
    running = start(two_versions)
    assert version_of(running) == 1
    crown(two_versions.workspace, 2, 1)
    wait_for(lambda: version_of(running) == 2)
    crown(two_versions.workspace, 1, 2)
    wait_for(lambda: version_of(running) == 1)


def test_two_hundred_promotions_under_load_fail_nothing_and_mix_nothing(two_versions):
    """Every answer is of one version as a whole, batches too; checked in the process that swaps."""
    be_patient(two_versions)
    versions = Versions(two_versions.workspace.settings)
    versions.refresh()
    seen: set[int] = set()
    wrong: list[object] = []
    stop = threading.Event()

    async def ask() -> None:
        drawn = random.Random(1)
        while not stop.is_set():
            lineup, number = versions.lineups["risk"], drawn.choice([1, 1, 1, 20, 100])
            if number == 1:
                answered = await lineup.answer(RECORD)
                answers = [answered.answer]
            else:
                records = [RECORD] * number
                answered = await lineup.answer_many(records, lineup.reader.read_many(records))
                answers = list(answered.answer)
            seen.add(answered.version)
            wrong.extend(a for a in answers if a.prediction != OTHER[answered.version] or answered.fallback)
            await asyncio.sleep(0)

    async def load() -> None:
        await asyncio.gather(*(ask() for _ in range(8)))

    client = threading.Thread(target=lambda: asyncio.run(load()))
    client.start()
    try:
        for number in range(200):
            crown(two_versions.workspace, number % 2 + 1, 2 - number % 2, number)
            versions.refresh()
    finally:
        stop.set()
        client.join()
    assert seen == {1, 2}
    assert wrong == []
    versions.stop()


def test_promotions_under_http_load_fail_no_request(two_versions, start):
    be_patient(two_versions)
    running = start(two_versions)
    stop = threading.Event()
    answers: list[tuple[int, dict]] = []

    def load() -> None:
        connection = running.connection()
        while not stop.is_set():
            answer = exchange(connection, "POST", "/v1/models/risk/predict", RECORD)
            answers.append((answer.status, answer.json))

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    for number in range(6):
        promoted = (number + 1) % 2 + 1
        crown(two_versions.workspace, promoted, number % 2 + 1, number)
        wait_for(lambda number=promoted: answers[-1:] and answers[-1][1]["model_version"] == number)
    stop.set()
    for client in clients:
        client.join()
    assert {status for status, _ in answers} == {200}
    assert {body["model_version"] for _, body in answers} == {1, 2}
    assert all(body["prediction"] == OTHER[body["model_version"]] and body["fallback"] is None for _, body in answers)


def test_a_damaged_champion_is_replaced_by_the_previous_version(two_versions, start):
    crown(two_versions.workspace, 2, 1)
    (damaged,) = two_versions.home.rglob(f"*{digest_of('challenger', 'opposite', 2)}*")
    damaged.write_text(damaged.read_text().replace("Low", "low"))
    running = start(two_versions)
    answer = running.predict(RECORD).json
    assert (answer["model_version"], answer["fallback"], answer["prediction"]) == (1, "previous", "High")
    ready = running.ask("GET", "/readyz")
    assert ready.status == 200
    assert "version 2: ArtifactDamaged" in ready.json["missing"]["risk"]
    assert 'steward_fallbacks_total{by="previous",model="risk"} 1' in running.ask("GET", "/metrics").body.decode()


def test_without_champion_and_constant_the_service_says_so(described, start):
    running = start(described)
    assert running.predict(RECORD).status == 503
    assert running.predict({"files": -1}).status == 422
    ready = running.ask("GET", "/readyz")
    assert (ready.status, ready.json["missing"]) == (503, {"risk": ["no champion yet"]})


def test_a_new_and_a_broken_model_file_are_noticed(trained, start):
    running = start(trained)
    (trained.models / "wide.yaml").write_text(WIDE)
    wait_for(lambda: running.ask("GET", "/v1/models/wide").status == 200)
    whole = (trained.models / "risk.yaml").read_text()
    (trained.models / "risk.yaml").write_text(whole + "nonsense: true\n")
    wait_for(lambda: "risk" in running.ask("GET", "/readyz").json["missing"])
    assert version_of(running) == 1
    (trained.models / "risk.yaml").write_text(whole + "serve: {actions: [{otherwise: look}]}\n")
    wait_for(lambda: running.predict(RECORD).json["action"] == "look")
    (trained.models / "wide.yaml").unlink()
    wait_for(lambda: running.ask("GET", "/v1/models/wide").status == 404)


def test_the_service_goes_on_while_the_ledger_is_away(trained, start):
    running = start(trained)
    connection = sqlite3.connect(trained.home / "ledger.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    answers = [running.predict(RECORD) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert answers[-1].json["logged"] is False
    connection.execute("ROLLBACK")
    wait_for(lambda: running.predict(RECORD).json["logged"])
    store = trained.workspace.predictions
    wait_for(lambda: all(store.get(answer.json["prediction_id"]) for answer in answers))


class Slow:
    """Stands for a version: answers when it is let go, or not at all."""

    engine = "pipeline"
    half_width = None

    def __init__(self, model, *, held=False, problem=None):
        self.model, self.problem = model, problem
        self.calls = []
        self.begun, self.go = threading.Event(), threading.Event()
        if not held:
            self.go.set()

    def answer(self, columns):
        count = len(columns["files"])
        self.calls.append(count)
        self.begun.set()
        self.go.wait(60)
        if self.problem:
            raise self.problem
        return np.tile([0.2, 0.8], (count, 1))

    def unseen(self, columns):
        return {}


MODEL = """
{name: m, task: classification, source: {table: t.csv, key: id}, label: {column: y, classes: [Low, High]},
 columns: {files: {type: integer, min: 0}}, serve: {deadline_ms: 60000}}
"""


def lineup_of(*predictors, deadline_ms=60_000, serve=""):
    model = ModelFile.parse(MODEL.replace("deadline_ms: 60000", f"deadline_ms: {deadline_ms}{serve}"))
    contenders = tuple(
        Contender(
            Engine(number, predictor),
            Reader(model, model.serve),
            Answering(model.classes, Policy([])),
            "previous" if number > 1 else None,
        )
        for number, predictor in enumerate(predictors, start=1)
    )
    return Lineup(model, contenders, 1, 2)


@pytest.fixture
def model():
    return ModelFile.parse(MODEL)


@pytest.mark.parametrize("trouble", [{"held": True}, {"problem": RuntimeError("broken")}])
def test_a_version_that_fails_or_is_too_slow_rests(model, trouble):
    broken, good = Slow(model, **trouble), Slow(model)
    lineup = lineup_of(broken, good, deadline_ms=1_000)

    async def ask():
        return [await lineup.answer({"files": 1}) for _ in range(5)]

    answers = asyncio.run(ask())
    broken.go.set()
    assert [(a.version, a.fallback) for a in answers] == [(2, "previous")] * 5
    assert len(broken.calls) <= PATIENCE
    assert lineup.contenders[0].engine.problem
    assert not lineup.contenders[0].engine.is_available


def test_the_constant_is_the_last_resort(model):
    broken = Slow(model, problem=RuntimeError())
    answered = asyncio.run(lineup_of(broken, serve=", fallback: {prediction: High}").answer({"files": 1}))
    assert (answered.fallback, answered.version, answered.answer.prediction) == ("constant", None, "High")
    with pytest.raises(NoChampion, match="no version that can answer"):
        asyncio.run(lineup_of(broken).answer({"files": 1}))


def test_what_waits_for_a_slow_engine_is_computed_in_one_call(model):
    slow = Slow(model)
    lineup = lineup_of(slow)

    async def ask():
        return await asyncio.gather(*(lineup.answer({"files": n}) for n in range(40)))

    assert len(asyncio.run(ask())) == 40
    assert len(slow.calls) <= 2


def test_who_has_gone_leaves_those_behind_waiting_for_nothing(model):
    slow = Slow(model, held=True)
    lineup = lineup_of(slow)

    async def ask():
        first = asyncio.create_task(lineup.answer({"files": 1}))
        await asyncio.to_thread(slow.begun.wait, 60)
        gone = asyncio.create_task(lineup.answer({"files": 2}))
        await asyncio.sleep(0)
        gone.cancel()
        slow.go.set()
        await first
        return await lineup.answer({"files": 3})

    assert asyncio.run(asyncio.wait_for(ask(), 30)).version == 1
    assert slow.calls == [1, 1]


def test_a_slow_version_holds_up_nobody_else(model):
    slow = Slow(model, held=True)
    behind, quick = lineup_of(slow), lineup_of(Slow(model))

    async def ask():
        waiting = asyncio.create_task(behind.answer({"files": 1}))
        await asyncio.to_thread(slow.begun.wait, 60)
        first = await quick.answer({"files": 1})
        assert not waiting.done()
        slow.go.set()
        return first, await waiting

    assert [answered.version for answered in asyncio.run(ask())] == [1, 1]
