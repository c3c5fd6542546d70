"""What was answered is on record, exactly once, whatever happens to the service and to its database."""

import asyncio
import fcntl
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from steward.errors import LogUnavailable
from steward.io.ledger import Ledger
from steward.io.predictions import Logged, PredictionStore, new_id
from steward.serving import prediction_log
from steward.serving.prediction_log import PredictionLog
from steward.serving.spool import Spool

LEVELS = ("durable", "crash_safe", "relaxed")
SERVICE = """
import asyncio, os, sys, time
from pathlib import Path
from steward.io.ledger import Ledger
from steward.io.predictions import Logged, PredictionStore, new_id
from steward.serving.prediction_log import PredictionLog

url, spool, answers, level, connections = sys.argv[1:]

async def main():
    log = PredictionLog(PredictionStore(Ledger(url)), Path(spool), patience=0.1)
    await log.start()
    answered = os.open(answers, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def connection():
        while True:
            at = time.time()
            row = Logged(new_id(at), "risk", at, 1, "key", "{}", "{}", "Low", 0.5, "proceed", False, None)
            await log.write([row], level, "spool")
            os.write(answered, row.prediction_id.encode() + b"\\n")

    await asyncio.gather(*(connection() for _ in range(int(connections))))

asyncio.run(main())
"""


def row(number: int = 0, model: str = "risk") -> Logged:
    at = time.time()
    return Logged(new_id(at), model, at, 1, f"key-{number}", "{}", "{}", "Low", 0.5, "proceed", False, None)


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    made = PredictionStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    made.prepare()
    return made


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def running(store: PredictionStore, spool: Path, body: Callable[[PredictionLog], Awaitable[None]], **options) -> None:
    """Run `body` with a log that is started before and closed after it."""

    async def main() -> None:
        log = PredictionLog(store, spool, **options)
        await log.start()
        try:
            await body(log)
        finally:
            await log.close()

    asyncio.run(main())


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


@contextmanager
def locked(store: PredictionStore) -> Iterator[None]:
    """Another process writes to the database, and takes its time."""
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def stored(store: PredictionStore, model: str = "risk") -> list[str]:
    """Ids in the order in which they were written."""
    with closing(sqlite3.connect(store.path)) as connection:
        query = "SELECT prediction_id FROM predictions WHERE model = ? ORDER BY rowid"
        return [found for (found,) in connection.execute(query, [model])]


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_answered_is_on_record(store, spool, level):
    rows = [row(number) for number in range(300)]

    async def body(log: PredictionLog) -> None:
        answers = await asyncio.gather(*(log.write([item], level, "refuse") for item in rows))
        assert answers == [True] * 300
        if level != "relaxed":
            assert stored(store) == [item.prediction_id for item in rows]
            assert log.depth == 0

    running(store, spool, body)
    assert stored(store) == [item.prediction_id for item in rows]
    assert not spool.exists()


def test_one_commit_holds_models_and_levels(store, spool):
    rows = [row(number, model) for number in range(20) for model in ("risk", "other")]

    async def body(log: PredictionLog) -> None:
        levels = [random.Random(number).choice(LEVELS) for number in range(len(rows))]
        await asyncio.gather(*(log.write([item], level, "spool") for item, level in zip(rows, levels, strict=True)))
        await log.write([row(1, "many"), row(2, "many")], "durable", "spool")

    running(store, spool, body)
    assert stored(store) == [item.prediction_id for item in rows if item.model == "risk"]
    assert (store.count("other"), store.count("many")) == (20, 2)


def test_relaxed_rows_are_written_within_moments(store, spool):
    async def body(log: PredictionLog) -> None:
        assert await log.write([row()], "relaxed", "refuse")
        assert log.depth == 1
        await until(lambda: store.count() == 1, 2)

    running(store, spool, body)


@pytest.mark.parametrize("level", LEVELS)
def test_a_full_queue_makes_writers_wait(store, spool, level):
    async def body(log: PredictionLog) -> None:
        seen = []

        async def write(number: int) -> None:
            await log.write([row(number) for _ in range(10)], level, "spool")
            seen.append(log.depth)

        await asyncio.gather(*(write(number) for number in range(50)))
        assert max(seen) <= 40 + 10

    running(store, spool, body, limit=40)
    assert store.count() == 500


def test_whoever_has_gone_does_not_stop_the_others(store, spool):
    async def body(log: PredictionLog) -> None:
        tasks = [asyncio.create_task(log.write([row(number)], "durable", "spool")) for number in range(10)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [answer for answer in found if answer is True] == [True] * 5

    running(store, spool, body)
    assert store.count() == 10


def test_a_row_that_the_database_does_not_take_is_an_error_of_its_caller(store, spool):
    async def body(log: PredictionLog) -> None:
        with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
            await log.write([row()._replace(action=None)], "crash_safe", "spool")
        assert await log.write([row()], "crash_safe", "spool")

    running(store, spool, body)
    assert store.count() == 1


@pytest.mark.parametrize("level", ["durable", "crash_safe"])
def test_while_the_database_is_locked_rows_are_spooled_in_order(store, spool, level):
    rows = [row(number) for number in range(400)]
    answers = []

    async def body(log: PredictionLog) -> None:
        waiting = iter(rows)

        async def write(count: int) -> None:
            answers.extend([await log.write([next(waiting)], level, "spool") for _ in range(count)])

        await write(100)
        with locked(store):
            await write(150)  # each returns while the database is locked
            assert log.away
            assert log.spooled == 150
            await asyncio.sleep(5 * prediction_log.RETRY)  # it is looked at in vain
            await write(50)
        await until(lambda: not log.away)
        assert log.spooled == 0
        await write(100)

    running(store, spool, body, patience=0.1)
    assert answers == [True] * 100 + [False] * 200 + [True] * 100
    assert stored(store) == [item.prediction_id for item in rows]
    assert list(spool.iterdir()) == []


def test_a_locked_database_does_not_stop_the_event_loop(store, spool):
    async def body(log: PredictionLog) -> None:
        with locked(store):
            writing = asyncio.gather(*(log.write([row(number)], "crash_safe", "spool") for number in range(50)))
            for _ in range(1_000):  # a loop that waits for the lock itself turns once, and has no patience left
                await asyncio.sleep(0)
            assert not writing.done()
        assert await writing == [True] * 50

    running(store, spool, body, patience=10)


@pytest.mark.parametrize("level", ["durable", "crash_safe"])
def test_refusing_while_the_database_is_away(store, spool, level):
    refused = [row(number) for number in range(5)]

    async def body(log: PredictionLog) -> None:
        with locked(store):
            for item in refused:
                with pytest.raises(LogUnavailable, match="cannot be put on record now"):
                    await log.write([item], level, "refuse")
            assert log.spooled == 0
            spooling = log.write([row(6, "other")], level, "spool")
            refusing = log.write([row(7)], level, "refuse")
            found = await asyncio.gather(spooling, refusing, return_exceptions=True)
            assert found[0] is False
            assert isinstance(found[1], LogUnavailable)
        await until(lambda: not log.away)
        assert await log.write([row(8)], level, "refuse")

    running(store, spool, body, patience=0.05)
    assert (store.count("risk"), store.count("other")) == (1, 1)


def test_a_service_starts_without_its_database(store, spool):
    first = row(1)

    async def without(log: PredictionLog) -> None:
        assert log.away
        assert await log.write([first], "durable", "spool") is False
        assert await log.write([row(2)], "relaxed", "spool") is False

    async def again(log: PredictionLog) -> None:
        assert log.spooled == 2
        await until(lambda: not log.away)
        assert await log.write([row(3)], "durable", "refuse")

    with locked(store):
        running(store, spool, without, patience=0.05)
    assert store.count() == 0
    running(store, spool, again)
    assert store.count() == 3
    assert stored(store)[0] == first.prediction_id


def spooled_by_a_dead_service(folder: Path, rows: list[Logged], tail: bytes = b"") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{new_id(time.time())}.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in rows) + tail)
    return path


@pytest.mark.parametrize("torn", [0, 1, 20, 60])
def test_a_torn_last_line_was_never_answered(store, spool, torn):
    rows = [row(number) for number in range(10)]
    spooled_by_a_dead_service(spool, rows, msgspec.json.encode(row(11))[:torn])
    store_first = store.writer(durable=True, patience=1)
    store_first.write(rows[:4])  # the dead service was killed while it replayed

    async def body(log: PredictionLog) -> None:
        await until(lambda: not log.away)

    running(store, spool, body)
    assert stored(store) == [item.prediction_id for item in rows]
    assert list(spool.iterdir()) == []


def test_a_line_that_nobody_can_read_does_not_stop_the_others(store, spool):
    rows = [row(1), row(2)._replace(action=None), row(3)]
    spooled_by_a_dead_service(spool, rows, b"not a row\n" + msgspec.json.encode(row(4)) + b"\n")

    async def body(log: PredictionLog) -> None:
        await until(lambda: not log.away)

    running(store, spool, body)
    assert store.count() == 3
    aside = (spool / "damaged").read_bytes().splitlines()
    assert len(aside) == 2
    assert b"not a row" in aside


def test_files_of_living_services_are_left_alone(store, spool):
    path = spooled_by_a_dead_service(spool, [row(1)])
    mine = spooled_by_a_dead_service(spool, [row(2)])
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        async def body(log: PredictionLog) -> None:
            await until(lambda: not log.away)

        running(store, spool, body)
        assert (store.count(), path.exists(), mine.exists()) == (1, True, False)


def test_a_long_spool_is_replayed_in_parts_while_rows_come_in(store, spool, monkeypatch):
    monkeypatch.setattr(prediction_log, "REPLAYED", 100)
    rows = [row(number) for number in range(5_000)]
    spooled_by_a_dead_service(spool, rows[:4_000])
    spooled_by_a_dead_service(spool, rows[4_000:])

    async def body(log: PredictionLog) -> None:
        late = []
        while log.away:
            late.append(row())
            await log.write([late[-1]], "crash_safe", "spool")
        rows.extend(late)

    running(store, spool, body)
    assert stored(store) == [item.prediction_id for item in rows]


def test_a_spool_that_cannot_be_written_refuses(store, tmp_path):
    blocked = tmp_path / "spool"
    blocked.write_text("a file, not a folder")

    async def body(log: PredictionLog) -> None:
        with locked(store), pytest.raises(LogUnavailable, match="File exists"):
            await log.write([row()], "crash_safe", "spool")
        await until(lambda: not log.away)
        assert await log.write([row()], "crash_safe", "spool")

    running(store, blocked, body, patience=0.05)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def test_a_full_disk(tiny_disk, tmp_path):
    store = PredictionStore(Ledger(f"sqlite:///{tiny_disk / 'ledger.db'}"))
    store.prepare()
    ballast = tiny_disk / "ballast"
    answers, rows = [], [row(number) for number in range(100)]

    async def body(log: PredictionLog) -> None:
        with pytest.raises(OSError, match="No space"):
            fill(ballast)
        answers.extend([await log.write([item], "durable", "spool") for item in rows])
        assert log.away
        ballast.unlink()
        await until(lambda: not log.away)

    running(store, tmp_path / "spool", body)
    assert False in answers
    assert stored(store) == [item.prediction_id for item in rows]


def test_a_spool_on_a_full_disk_keeps_whole_lines_only(tiny_disk):
    spool = Spool(tiny_disk / "spool")
    kept = []

    def append_forever() -> None:
        while True:
            rows = [row(number) for number in range(50)]
            spool.append(rows, durable=False)
            kept.extend(rows)

    with pytest.raises(OSError, match="No space"):
        append_forever()
    assert spool.first(10_000) == kept
    spool.close()


class Service:
    """A process that predicts and answers as fast as it can, until it is killed."""

    def __init__(self, folder: Path, url: str, level: str, connections: int) -> None:
        self.spool = folder / "spool"
        self.answers = folder / "answers"
        arguments = [sys.executable, "-c", SERVICE, url, self.spool, self.answers, level, str(connections)]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE)

    def answered(self) -> list[str]:
        """Ids of answered predictions; a line that was torn by the kill is none."""
        text = self.answers.read_bytes() if self.answers.exists() else b""
        return [line.decode() for line in text.splitlines() if len(line) == 32]

    def wait_for_answers(self, more: int = 20) -> None:
        before, end = len(self.answered()), time.monotonic() + 60
        while len(self.answered()) < before + more:
            assert self.process.poll() is None, self.process.stderr.read().decode()
            assert time.monotonic() < end
            time.sleep(0.005)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()


def replay(store: PredictionStore, spool: Path) -> None:
    async def body(log: PredictionLog) -> None:
        await until(lambda: not log.away)

    running(store, spool, body)


@pytest.mark.parametrize("level", LEVELS)
def test_a_service_that_is_killed_again_and_again(store, tmp_path, level):
    drawn = random.Random(level)
    for round_ in range(3 if level != "relaxed" else 1):
        service = Service(tmp_path, str(store.database.url), level, drawn.choice([1, 8, 32]))
        service.wait_for_answers()
        if round_ % 2:
            with locked(store):
                time.sleep(drawn.uniform(0.2, 0.6))  # some are killed with a spool, some while they replay it
                if drawn.random() < 0.5:
                    service.kill()
        time.sleep(drawn.uniform(0, 0.2))
        service.kill()
    replay(store, service.spool)
    answered, found = service.answered(), stored(store)
    assert len(answered) == len(set(answered)) >= 20
    assert len(found) == len(set(found))
    if level != "relaxed":
        assert set(answered) <= set(found)


class Postgres:
    """A PostgreSQL server of one's own that can be stopped and started."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder, self.binaries = folder, binaries
        self.owner = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self.owner:
            shutil.chown(folder, "postgres")
        self.data = folder / "data"
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "steward", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def store(self, database: str) -> PredictionStore:
        """A store in a new database."""
        server = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "steward"]
        self.run("createdb", *server, database)
        made = PredictionStore(Ledger(f"postgresql://steward@127.0.0.1:{self.port}/{database}"))
        made.prepare()
        return made

    def run(self, *command: object) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        subprocess.run([self.binaries / command[0], *command[1:]], check=True, **quiet, **self.owner)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self.run("pg_ctl", "-D", self.data, "-o", options, "-w", "start")

    def stop(self, mode: str) -> None:
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL in /usr/lib/postgresql; `apt-get install postgresql` runs these tests too")
    folder = Path(tempfile.mkdtemp(prefix="steward-pg-", dir="/tmp"))
    made = Postgres(folder, found[-1].parent)
    yield made
    made.stop("immediate")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("level", "mode"), [("durable", "immediate"), ("crash_safe", "fast")])
def test_postgresql_is_stopped_and_started_under_load(postgres, tmp_path, level, mode):
    store = postgres.store(f"stopped_{level}")
    answers: dict[str, bool] = {}

    async def body(log: PredictionLog) -> None:
        going = True

        async def connection() -> None:
            while going:
                item = row()
                answers[item.prediction_id] = await log.write([item], level, "spool")
                await asyncio.sleep(0.001)

        connections = [asyncio.create_task(connection()) for _ in range(8)]
        loop = asyncio.get_running_loop()
        for _ in range(2):
            await asyncio.sleep(0.3)
            await loop.run_in_executor(None, postgres.stop, mode)
            await until(lambda: log.away and log.spooled > 20)
            await loop.run_in_executor(None, postgres.start)
            await until(lambda: not log.away)
        await asyncio.sleep(0.2)
        going = False
        await asyncio.gather(*connections)

    running(store, tmp_path / "spool", body)
    found = [item.prediction_id for block in store.blocks("risk") for item in block]
    assert len(found) == len(set(found))
    assert set(answers) == set(found)
    assert {True, False} == set(answers.values())


def test_a_killed_service_on_postgresql(postgres, tmp_path):
    store = postgres.store("killed")
    url = store.database.url.render_as_string(hide_password=False)
    service = Service(tmp_path, url, "crash_safe", 8)
    service.wait_for_answers()
    service.kill()
    found = {item.prediction_id for block in store.blocks("risk") for item in block}
    assert set(service.answered()) <= found
