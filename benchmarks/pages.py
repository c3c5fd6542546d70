"""How long Steward's pages take on a ledger of years, and how much memory: seconds of the server, SQLite.

A small training and a look are made for real. What they left in the ledger is then repeated, with other names and dates,
for every model and every day: one observation and one decision per day, and every month a training with its trigger,
snapshot, opening, result, verdict and promotion. Each page is asked for in a fresh process, through the application and
as a browser gets it, by somebody who may see every model. `first` is its first answer in that process, after what a server
does before anybody asks (`prepare`, the first line of the table); `again` the median of the next five. Seconds of CPU are
those that other work on the machine does not change much; `peak` is the most memory that the process ever had, that of
Python, SQLAlchemy and matplotlib included.

    python benchmarks/pages.py --models 300 --days 730
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import insert

from steward import pipeline
from steward.config import ModelFile, Settings
from steward.examples import deployments
from steward.io.ledger import GENESIS, digest_of_entry, entries
from steward.io.predictions import Logged, new_id
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.records import canonical_json

NAME = "deployment_risk"
MODEL = """
name: deployment_risk
description: Risk of a software deployment, judged before it runs.
task: classification
source: {table: ROWS, key: deployment_id, time: requested_at}
label: {column: risk_level, classes: [Low, Medium, High], mature_after: 7d}
columns:
  files_changed: {type: integer, min: 0, max: 100000}
  environment: {type: category, values: [dev, staging, prod]}
  team: {type: category, open: true}
  hour: {type: integer, min: 0, max: 23}
  previous_failures: {type: integer, min: 0, nullable: true}
features:
  night: {expression: "hour < 6 or hour >= 22"}
candidates: [decision_tree]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.1, slices: [environment, team], max_latency_ms: 20}
monitor: {accuracy: {floor: 0.85}}
"""
BEGINS = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAILY = ("observation", "decision")
MONTHLY = ("trigger", "snapshot", "opening", "opening_result", "verdict", "promotion")
BATCH = 5_000
SERVED = 100
"""Predictions of each model in the log."""
TIMES = 5


def workspace_in(home: Path) -> Workspace:
    here = {"STEWARD_HOME": str(home), "STEWARD_MODELS": str(home / "models"), "STEWARD_JOBS": "1"}
    return Workspace(Settings.from_environment(here))


def small_story(home: Path) -> ModelFile:
    """One training and one look, for real."""
    workspace, asked = workspace_in(home), ModelFile.parse(MODEL.replace("ROWS", f"{home}/data/*.parquet"))
    first = deployments.PAST - 4_000
    deployments.write(home / "data", deployments.simulate(4_000, first=first))
    at = deployments.UNTIL + timedelta(days=7)
    pipeline.train(workspace, asked, at=at, reason="the first version", by="ada", run_id="first")
    frame = deployments.simulate(560, first=deployments.PAST + 560, world=deployments.MONTH_TWO)
    serve(workspace, asked.name, frame, Model(asked, workspace=workspace))
    pipeline.monitor(workspace, asked, at=at + timedelta(days=7))
    return asked


def serve(workspace: Workspace, name: str, frame: Any, champion: Model) -> None:
    rows = []
    for record in json.loads(frame.to_json(orient="records", date_format="epoch", date_unit="ms")):
        at = record["requested_at"] / 1_000
        asked = {column: record[column] for column in champion.predictor.model.columns}
        told = champion.predict(asked)
        answer = json.dumps({field: told[field] for field in ("prediction", "confidence", "probabilities")})
        rows.append(
            Logged(new_id(at), name, at, 1, None, json.dumps(asked), answer, told["prediction"], told["confidence"], "proceed", False, None)
        )  # fmt: skip
    write(workspace, rows)


def write(workspace: Workspace, rows: list[Logged]) -> None:
    workspace.predictions.prepare()
    writer = workspace.predictions.writer(durable=False, patience=5)
    writer.write(rows)
    writer.close()


class Past:
    """Entries of many models and days, after the pattern of those that are there."""

    def __init__(self, workspace: Workspace, days: int) -> None:
        self.patterns = {entry.kind: entry.body for entry in workspace.ledger.entries(NAME)}
        self.days = days

    def of(self, number: int) -> Iterator[tuple[datetime, str, str, dict[str, Any]]]:
        """Moment, kind, subject and body of each entry of one model, in order of time."""
        version = 0
        for day in range(self.days):
            end = BEGINS + (day + 1) * DAY
            if day % 30 == 0:
                version += 1
                for kind in MONTHLY:
                    yield end - DAY / 2, kind, self.subject(kind, version), self.monthly(kind, version)
            for kind in DAILY:
                subject = (end - DAY).isoformat() if kind == "observation" and day else "first"
                named = subject if kind == "observation" else end.isoformat()
                yield end, kind, named, self.daily(kind, version, end, number)

    @staticmethod
    def subject(kind: str, version: int) -> str:
        return str(version) if kind.startswith("opening") else f"{kind} {version}"

    def monthly(self, kind: str, version: int) -> dict[str, Any]:
        body = dict(self.patterns[kind])
        if kind in ("opening", "verdict"):
            body["digest"] = f"verdict {version}"
        if kind == "promotion":
            body |= {"version": version, "champion": version, "previous": version - 1 or None}
        return body

    def daily(self, kind: str, version: int, end: datetime, number: int) -> dict[str, Any]:
        span = {"start": (end - DAY).isoformat(), "end": end.isoformat(), "version": version}
        if kind == "observation":
            return {**self.patterns[kind], **span}
        body = self.patterns[kind]
        calm = number % 3 or end < BEGINS + (self.days - 20) * DAY
        figures = {
            **body["figures"],
            **span,
            **({"since": {}, "fallen_since": None, "alarm_since": None} if calm else {}),
        }
        return {**body, "figures": figures}


def fill(workspace: Workspace, names: list[str], days: int) -> int:
    """Write the past of every model, in the order of time, with its chain."""
    past = Past(workspace, days)
    streams = {name: past.of(number) for number, name in enumerate(names)}
    sequence, previous = workspace.ledger.size()
    batch: list[dict[str, Any]] = []
    while streams:
        for name, stream in list(streams.items()):
            found = next(stream, None)
            if found is None:
                del streams[name]
                continue
            sequence, previous = sequence + 1, add(batch, sequence + 1, previous, name, found)
        if len(batch) >= BATCH or not streams:
            with workspace.ledger.connected(write=True) as connection:
                connection.execute(insert(entries), batch)
            batch.clear()
    return sequence


def add(batch: list[dict[str, Any]], sequence: int, previous: str, name: str, found: tuple[Any, ...]) -> str:
    at, kind, subject, body = found
    text = canonical_json({**body, "model": name} if "model" in body else body)
    moment = at.isoformat(timespec="microseconds")
    digest = digest_of_entry(previous or GENESIS, sequence, moment, name, kind, subject, text)
    values = (sequence, moment, name, kind, subject, text, previous, digest)
    batch.append(dict(zip(entries.c.keys(), values, strict=True)))
    return digest


def log_all(workspace: Workspace, names: list[str], until: datetime) -> None:
    """A few predictions of every model, after the pattern of those that are there."""
    pattern = next(workspace.predictions.blocks(NAME))[0]
    for name in names:
        times = [until.timestamp() - 600 * number for number in range(SERVED)]
        write(workspace, [pattern._replace(prediction_id=new_id(at), model=name, at=at) for at in times])


class Idle:
    """Has no question."""

    def questions(self, *_: Any) -> list[Any]:
        return []


class Everybody:
    """Lets everybody see everything."""

    def __init__(self, names: list[str]) -> None:
        self.names = frozenset(names)

    async def person(self, _: Any) -> Any:
        from steward.pages.access import Person

        return Person("ada")

    def readable(self, _: Any) -> frozenset[str]:
        return self.names

    def editable(self, _: Any) -> frozenset[str]:
        return self.names


def pages(names: list[str], at: datetime, days: int) -> dict[str, str]:
    """The address of every page: the worst case of each."""
    one, newest = names[len(names) // 2], -(-days // 30)
    return {
        "overview": "/",
        "overview, search": "/?q=falling",
        "model": f"/models/{one}",
        "model, 90 days": f"/models/{one}?since={at - 90 * DAY:%Y-%m-%dT%H:%M:%SZ}",
        "distributions": f"/models/{one}/drift/files_changed?end={at:%Y-%m-%dT%H:%M:%SZ}",
        "version": f"/models/{one}/versions/{newest}",
        "two versions": f"/models/{one}/compare?left={newest - 1}&right={newest}",
        "test rows": f"/models/{one}/test-rows",
        "act": f"/models/{one}/act",
        "decisions": "/decisions",
        "decisions of a model": f"/decisions?model={one}",
        "decisions, kind and time": f"/decisions?kind=promotion&since={BEGINS + DAY:%Y-%m-%d}&until={BEGINS + 60 * DAY:%Y-%m-%d}",
        "decisions, a text that is nowhere": "/decisions?text=nobody+wrote+this",
        "all decisions as CSV (streamed)": "/decisions.csv",
        "chain, all of it (a button)": "/chain",
    }


SLOW = ("all decisions as CSV (streamed)", "chain, all of it (a button)")
"""Asked for once: nobody waits for them while a page loads."""
NOBODY = "before anybody asks"


def measured(page: str, address: str, home: Path, names: list[str], answers: Any) -> None:
    """In a process of its own: seconds and CPU seconds of the first answer and of the next ones, and the peak of its memory."""
    began, worked = time.perf_counter(), time.process_time()
    from steward.pages.app import create_app, prepare

    app = create_app(Everybody(names), Idle(), workspace_in(home), b"benchmark")  # type: ignore[arg-type]
    prepare(app)
    taken, used = [time.perf_counter() - began], [time.process_time() - worked]
    if page != NOBODY:
        taken, used = asyncio.run(asked(app, address, 1 if page in SLOW else 1 + TIMES))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    times = [one for found in (taken, used) for one in (found[0], statistics.median(found[1:] or found))]
    answers.put((*times, peak))


async def asked(app: Any, address: str, times: int) -> tuple[list[float], list[float]]:
    """Seconds, and CPU seconds, of each answer."""
    form, cookie = await filled_in(app) if address == "/chain" else (b"", b"")
    taken, used = [], []
    for _ in range(times):
        began, worked = time.perf_counter(), time.process_time()
        status, _, _ = await answer(app, address, form, cookie)
        taken.append(time.perf_counter() - began)
        used.append(time.process_time() - worked)
        if status not in (200, 303):
            raise SystemExit(f"{address}: {status}")
    return taken, used


async def answer(
    app: Any, address: str, form: bytes = b"", cookie: bytes = b""
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and the first piece of the body; whatever follows is thrown away, as it comes."""
    path, _, query = address.partition("?")
    headers = [
        (b"accept", b"text/html"),
        (b"host", b"steward"),
        (b"sec-fetch-site", b"same-origin"),
        (b"cookie", cookie),
    ]
    headers.append((b"content-type", b"application/x-www-form-urlencoded"))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST" if form else "GET",
        "scheme": "http", "server": ("steward", 80), "client": ("127.0.0.1", 1), "root_path": "", "headers": headers,
        "path": path, "raw_path": path.encode(), "query_string": query.replace("+", "%20").encode(),
    }  # fmt: skip
    parts: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": form, "more_body": False}

    async def send(part: dict[str, Any]) -> None:
        if len(parts) < 2:
            parts.append(part)

    await app(scope, receive, send)
    return parts[0]["status"], dict(parts[0]["headers"]), parts[1]["body"]


async def filled_in(app: Any) -> tuple[bytes, bytes]:
    """What the form of the decisions sends, and the cookie that belongs to it."""
    _, headers, html = await answer(app, "/decisions")
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', html.decode()))
    return urlencode(fields).encode(), headers[b"set-cookie"].partition(b";")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument(
        "--home", type=Path, help="made there, or found there from an earlier run; a temporary one without it"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(options.home or Path(folder) / "home", options.models, options.days)


def run(home: Path, count: int, days: int) -> None:
    names = [f"model_{number:03d}" for number in range(count)]
    at = BEGINS + days * DAY
    workspace = workspace_in(home)
    if not (home / "ledger.db").exists():
        small_story(home)
        began = time.perf_counter()
        fill(workspace, names, days)
        log_all(workspace, names, at)
        (home / "models").mkdir()
        for name in names:
            text = MODEL.replace("ROWS", f"{home}/data/*.parquet").replace(f"name: {NAME}", f"name: {name}")
            (home / "models" / f"{name}.yaml").write_text(text)
        print(f"written in {time.perf_counter() - began:.0f} s")
    total, _ = workspace.ledger.size()
    size = (home / "ledger.db").stat().st_size / 1e9
    print(f"\n{count} models, {days} days, {total:,} entries, {size:.2f} GB\n")
    print("| page | first s | again s | first CPU s | again CPU s | peak MiB |\n|---|---|---|---|---|---|", flush=True)
    context = multiprocessing.get_context("spawn")
    for page, address in {NOBODY: "", **pages(names, at, days)}.items():
        answers = context.Queue()
        process = context.Process(target=measured, args=(page, address, home, names, answers))
        process.start()
        process.join()
        first, again, first_used, used, peak = answers.get(timeout=1)
        print(f"| {page} | {first:.2f} | {again:.2f} | {first_used:.2f} | {used:.2f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
