"""The sensors and event triggers: real triggers in a real event loop, on real tables, files and connections."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from steward import airflow_tasks
from steward.standalone import free_port

PLUGINS = Path(__file__).parents[1] / "plugins"
sys.path.append(str(PLUGINS))  # as Airflow does

from steward_sensors import NewLabelledRows, NewLabelledRowsTrigger, PlatformEvent, PlatformEventTrigger  # noqa: E402

QUICK = 0.02


class Memory:
    """The triggerer's place for a watcher's state."""

    def __init__(self):
        self.kept = {}

    async def aget(self, key, default=None):
        return json.loads(self.kept[key]) if key in self.kept else default

    async def aset(self, key, value):
        self.kept[key] = json.dumps(value)


def heard(trigger, *, act=lambda: None, seconds=0.3):
    """The payloads that a trigger fires with: something happens once it has looked, and it is left after a while."""

    async def listen():
        found = []

        async def collect():
            async for event in trigger.run():
                found.append(event.payload)  # noqa: PERF401 - it is left while it listens

        task = asyncio.create_task(collect())
        await asyncio.sleep(seconds)
        await asyncio.to_thread(act)
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            task.cancel()
        elif task.exception():
            raise task.exception()
        return found

    return asyncio.run(listen())


@pytest.fixture
def table(tmp_path):
    with sqlite3.connect(tmp_path / "events.db") as connection:
        connection.execute("CREATE TABLE reorganisations (id INTEGER PRIMARY KEY, team TEXT)")
        connection.execute("INSERT INTO reorganisations VALUES (1, 'web')")
    return {"table": f"sqlite:///{tmp_path}/events.db::reorganisations", "order": "id", "path": tmp_path / "events.db"}


def insert(table, number):
    with sqlite3.connect(table["path"]) as connection:
        connection.execute("INSERT INTO reorganisations VALUES (?, 'mobile')", [number])


def rows_trigger(table, **options):
    return PlatformEventTrigger(table=table["table"], order=table["order"], poll=QUICK, **options)


def test_a_watcher_hears_of_new_rows_only(table):
    [event] = heard(rows_trigger(table), act=lambda: insert(table, 7))
    assert event == {
        "id": "row reorganisations 7",
        "reason": "a new row in reorganisations",
        "told": {"id": 7, "team": "mobile"},
    }


def test_a_watcher_goes_on_where_it_was(table):
    memory = Memory()
    for after, expected in ((2, 0), (None, 2), (None, 0)):
        trigger = rows_trigger(table)
        trigger.asset_state_store = memory
        assert len(heard(trigger)) == expected
        if after:
            insert(table, after)
            insert(table, after + 10)


def test_a_sensor_is_content_with_the_row_that_is_there(table):
    assert [event["id"] for event in heard(rows_trigger(table, once=True))] == ["row reorganisations 1"]


def test_a_table_that_is_away_is_asked_again(table):
    path = table["path"]
    path.rename(path.with_suffix(".away"))
    assert heard(rows_trigger(table, once=True), act=lambda: path.with_suffix(".away").replace(path))


def test_a_file_that_appears_and_one_that_is_written_again(tmp_path):
    flag = tmp_path / "done.flag"
    flag.write_text("")
    trigger = PlatformEventTrigger(file=f"{tmp_path}/*.flag", poll=QUICK)

    def act():
        (tmp_path / "other.flag").write_text("")
        flag.write_text("again")

    assert sorted(event["reason"] for event in heard(trigger, act=act)) == [
        "the file done.flag has appeared",
        "the file other.flag has appeared",
    ]
    assert len(heard(PlatformEventTrigger(file=str(flag), poll=QUICK, once=True))) == 1


def call(port, body, key="right", method="POST"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", data=body, method=method, headers={"X-API-Key": key})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as problem:
        return problem.code


def test_a_webhook_hears_who_has_the_key(monkeypatch):
    monkeypatch.setenv("HOOK_KEY", "right")
    port, statuses = free_port(18_200), []
    told = json.dumps({"id": 5, "reason": "the platform was upgraded"}).encode()

    def act():
        calls = [
            (told, "wrong", "POST"),
            (told, "", "POST"),
            (told, "right", "PUT"),
            (b"no json", "right", "POST"),
            (b"[1]", "right", "POST"),
            (b" " * 70_000, "right", "POST"),
            (told, "right", "POST"),
        ]
        statuses.extend(call(port, *one) for one in calls)

    events = heard(PlatformEventTrigger(port=port, key="HOOK_KEY"), act=act)
    assert statuses == [401, 401, 405, 400, 422, 413, 202]
    assert [(event["id"], event["reason"]) for event in events] == [("call 5", "the platform was upgraded")]


def test_a_webhook_without_a_key_does_not_open(monkeypatch):
    monkeypatch.delenv("HOOK_KEY", raising=False)
    with pytest.raises(ValueError, match="the environment has no HOOK_KEY"):
        heard(PlatformEventTrigger(port=free_port(18_300), key="HOOK_KEY"))


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({}, "exactly one of table, file and port"),
        ({"file": "a", "port": 1, "key": "K"}, "exactly one of table, file and port"),
        ({"table": "sqlite:///a.db::t"}, "a table needs `order`"),
        ({"port": 1}, "a webhook needs `key`"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(asked, match):
    with pytest.raises(ValueError, match=match):
        PlatformEventTrigger(**asked)


def test_new_labelled_rows_fire_once_per_training(trained, monkeypatch):
    for name, value in trained.environment.items():
        monkeypatch.setenv(name, value)
    assert heard(NewLabelledRowsTrigger(model="risk", rows=1, poll=QUICK, once=True), seconds=3) == []
    monkeypatch.setattr("steward.steps.labelled.count_new_rows", lambda *_, at: 1_200)
    memory = Memory()
    for expected in (1, 0):
        trigger = NewLabelledRowsTrigger(model="risk", rows=1_000, poll=QUICK)
        trigger.asset_state_store = memory
        memory.kept.setdefault(trigger._place, '""')
        events = heard(trigger, seconds=1)
        assert [event["reason"] for event in events] == [
            "1,200 labelled rows are new since the last training"
        ] * expected


@pytest.mark.parametrize(
    "sensor",
    [
        lambda: NewLabelledRows(task_id="wait", model="risk", rows=500),
        lambda: PlatformEvent(task_id="wait", file="/tmp/*.flag"),
        lambda: PlatformEvent(task_id="wait", port=8765, key="HOOK_KEY"),
    ],
)
def test_a_sensor_waits_in_the_triggerer_and_answers_the_event(sensor):
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("waiting", schedule=None) as dag:
        task = sensor()
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({})
    path, asked = deferred.value.trigger.serialize()
    assert path.startswith("steward_sensors.")
    assert asked["once"] is True
    assert json.loads(json.dumps(asked)) == asked
    assert type(deferred.value.trigger)(**asked).serialize() == (path, asked)
    assert task.complete({}, {"id": "x"}) == {"id": "x"}
    assert DagSerialization.to_dict(dag)


def test_an_event_dag_hands_events_on_to_the_monitor():
    dag = airflow_tasks.event_dag("risk", "reorganised", PlatformEventTrigger(file="/tmp/*.flag"))
    [heard_of] = dag.timetable.asset_condition.objects
    assert [watcher.name for watcher in heard_of.watchers] == ["risk.reorganised"]
    assert [asset.uri for asset in dag.get_task("tell").outlets] == ["steward://risk/event"]


LIGHT = """
import sys
import steward_sensors
print([name for name in ("pandas", "sklearn", "mlflow", "sqlalchemy.dialects", "duckdb") if name in sys.modules and
       name not in before])
"""


def test_importing_the_plugin_is_light():
    code = f"import sys; sys.path.append({str(PLUGINS)!r}); import airflow.sdk, airflow.triggers.base\nbefore = set(sys.modules)\n{LIGHT}"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
