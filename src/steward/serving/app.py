"""The service as an ASGI application.

Written against ASGI itself: a prediction costs less than a framework's routing and validation would, and every
request, good or bad, passes the same few lines. FastAPI describes the service (`openapi.py`); it does not run it.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, count
from typing import Any, NamedTuple

from steward.core.requests import AdmittedRecords, Reader
from steward.errors import StewardError, UnknownModel
from steward.io.latencies import LatencyStore
from steward.io.predictions import PredictionStore
from steward.serving import pages
from steward.serving.access import Access, Key
from steward.serving.access_log import AccessLog
from steward.serving.bodies import Bodies, ClientGone, Limits, Receive, Record, record_in, records_in
from steward.serving.latency_log import LatencyLog
from steward.serving.lineup import INLINE_ROWS, Lineup, off_loop
from steward.serving.metrics import CONTENT_TYPE, Metrics
from steward.serving.prediction_log import PredictionLog
from steward.serving.problems import body_of, refusal, status_of
from steward.serving.replies import Given, reply_to_many, reply_to_one
from steward.serving.schemas import encode
from steward.serving.versions import Versions

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
JSON = b"application/json"
LARGE = 16 * 1024
"""Bodies above this are read in a thread, so that they hold up nobody else."""
BATCHES = 4
"""Batches that are worked on at the same time."""
CLIENT_GONE = 499
REFRESH_SECONDS = 1.0
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
SECURITY: list[tuple[bytes, bytes]] = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

journal = logging.getLogger("steward.serving")


class Reply(NamedTuple):
    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ((b"cache-control", b"no-store"),)


@dataclass(slots=True)
class Request:
    """One request on its way through the service."""

    scope: Scope
    receive: Receive
    id: str
    headers: dict[bytes, bytes]
    endpoint: str = "other"
    model: str = ""
    """Empty unless there is such a model, so that nobody can make up metrics."""
    key: Key | None = None
    received: int = 0


@dataclass
class Service:
    """Everything that answers; one per process.

    Parameters
    ----------
    versions, log, store, access : who answers, where it is put on record, who may ask.
    """

    versions: Versions
    log: PredictionLog
    store: PredictionStore
    access: Access
    limits: Limits = field(default_factory=Limits)
    access_log: AccessLog = field(default_factory=lambda: AccessLog(None))

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.limits)
        self.metrics = Metrics(
            self.versions.numbers,
            {
                ("steward_log_queue_rows", "Predictions that wait for a commit"): lambda: self.log.depth,
                ("steward_log_spool_rows", "Predictions that wait for the database"): lambda: self.log.spooled,
                ("steward_bodies_bytes", "Bytes of request bodies under way"): lambda: self.bodies.under_way,
            },
        )
        self.latency_log = LatencyLog(self.metrics.latency, LatencyStore(self.store.database))
        self._batches = asyncio.Semaphore(BATCHES)
        self._ids = count()
        self._prefix = secrets.token_hex(4)
        self._documents = pages.Documents(self.versions)
        self._posts = {"predict": self._predict, "predict/batch": self._batch, "outcomes": self._outcomes}
        self._gets: dict[str, Callable[[Request], Awaitable[Reply]]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/openapi.json": self._openapi,
            "/v1/models": self._models,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        """From the server's start to its end, as ASGI tells it."""
        await receive()
        try:
            await self.log.start()
            tasks = [asyncio.create_task(work) for work in (self._refresh(), self.latency_log.run())]
        except StewardError as problem:
            await send({"type": "lifespan.startup.failed", "message": str(problem)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
        self.versions.stop()
        await self.log.close()
        await self.latency_log.write(time.time())
        self.access_log.flush()
        await send({"type": "lifespan.shutdown.complete"})

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            self.access.refresh()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = dict(scope["headers"])
        request = Request(scope, receive, self._request_id(headers), headers)
        try:
            reply = await self._route(request)
        except StewardError as problem:
            reply = _refused(problem, request.id)
        except ClientGone:
            reply = Reply(b"", CLIENT_GONE)
        except Exception:  # noqa: BLE001 - the last line of defence
            journal.exception("request %s failed unexpectedly", request.id)
            reply = _refused(refusal(500, "the service failed unexpectedly", do="Report the request id"), request.id)
        if reply.status != CLIENT_GONE:
            await _send(reply, request.id, send)
        seconds = time.perf_counter() - started
        self.metrics.observe(request.endpoint, request.model, reply.status, seconds)
        client, key, path = scope.get("client"), request.key, scope["path"][:200]
        self.access_log.write(
            request.id, client[0] if client else None, key.name if key else None, scope["method"], path, reply.status,
            seconds, request.received, len(reply.body),
        )  # fmt: skip

    def _request_id(self, headers: Mapping[bytes, bytes]) -> str:
        given = headers.get(b"x-request-id")
        if given and REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._prefix}-{next(self._ids):x}"

    async def _route(self, request: Request) -> Reply:
        path, method = request.scope["path"], request.scope["method"]
        if path.startswith("/v1/models/"):
            name, _, rest = path[11:].partition("/")
            if rest in self._posts:
                request.endpoint = rest
                _demand(method, "POST")
                return await self._posts[rest](request, self._lineup(request, name, right=_right(rest)))
            if not rest:
                request.endpoint = "model"
                _demand(method, "GET", "HEAD")
                return self._model(self._lineup(request, name, right=None))
        elif path in self._gets:
            request.endpoint = path.strip("/").rpartition("/")[2]
            _demand(method, "GET", "HEAD")
            return await self._gets[path](request)
        elif path in pages.FILES:
            request.endpoint = "docs"
            _demand(method, "GET", "HEAD")
            self._open_to_hosts(request)
            return Reply(*pages.page(path))
        raise refusal(404, "there is no such page", got=path[:200], do="/docs lists everything")

    def _lineup(self, request: Request, name: str, right: str | None) -> Lineup:
        request.key = self.access.admit(request.headers, right, name)
        lineup = self.versions.lineups.get(name)
        if lineup is None or (request.key and right is None and not request.key.knows(name)):
            raise UnknownModel("no model of this name is served", got=name[:100], do="GET /v1/models lists them")
        request.model = name
        return lineup

    def _open_to_hosts(self, request: Request) -> None:
        """Pages that anybody who reaches the service may read; without keys that is this machine."""
        if not self.access.required:
            self.access.admit(request.headers, None, "")

    async def _predict(self, request: Request, lineup: Lineup) -> Reply:
        body = await self._read(request, self.limits.record_bytes)
        try:
            record = record_in(body, self.limits)
            answered = await lineup.answer(record)
            given = reply_to_one(lineup, record, answered, time.time())
            logged = await self._put_on_record(lineup, given)
            return Reply(given.body(logged))
        finally:
            self.bodies.release(body)

    async def _batch(self, request: Request, lineup: Lineup) -> Reply:
        body = await self._read(request, self.limits.batch_bytes)
        try:
            async with self._batches:
                records, admitted = await off_loop(len(body) > LARGE, _admitted_in, body, self.limits, lineup.reader)
                answered = await lineup.answer_many(records, admitted)
                large = len(records) > INLINE_ROWS
                given = await off_loop(large, reply_to_many, lineup, records, answered, time.time())
                logged = await self._put_on_record(lineup, given)
                return Reply(await off_loop(large, given.body, logged))
        finally:
            self.bodies.release(body)

    async def _outcomes(self, request: Request, lineup: Lineup) -> Reply:
        body = await self._read(request, self.limits.batch_bytes)
        try:
            async with self._batches:
                items = await off_loop(len(body) > LARGE, records_in, body, self.limits, "outcomes")
                at = datetime.now(UTC)
                report = await asyncio.to_thread(self.store.add_outcomes, lineup.model, items, at)
                return Reply(encode(report.as_json()))
        finally:
            self.bodies.release(body)

    async def _read(self, request: Request, most: int) -> bytes:
        body = await self.bodies.read(request.headers, request.receive, most)
        request.received = len(body)
        return body

    async def _put_on_record(self, lineup: Lineup, given: Given) -> bool:
        """Before the answers are given; whether they are in the database."""
        logged = await self.log.write(given.rows, lineup.model.serve.log, lineup.model.serve.log_away)
        metrics, first, number = self.metrics, given.rows[0], len(given.rows)
        model = first.model
        metrics.predictions[model, str(first.version or "constant")] += number
        if first.fallback:
            metrics.fallbacks[model, first.fallback] += number
        if not logged:
            metrics.unlogged[(model,)] += number
        for column, values in given.unseen.items():
            metrics.unseen[model, column] += values
        for flag in chain.from_iterable(given.flags):
            metrics.flags[model, flag.partition(":")[0]] += 1
        return logged

    async def _healthz(self, _request: Request) -> Reply:
        return Reply(encode({"ok": True}))

    async def _readyz(self, _request: Request) -> Reply:
        """Ready means that every model can be answered somehow; what is missing is said either way."""
        missing = self.versions.missing()
        if self.access.problem:
            missing.setdefault("", []).append(self.access.problem)
        silent = [name for name, each in self.versions.lineups.items() if not each.can_answer]
        ready = self.versions.is_complete and not silent
        document = {"ready": ready, "models": sorted(self.versions.lineups), "missing": missing}
        return Reply(encode(document), 200 if ready else 503)

    async def _metrics(self, request: Request) -> Reply:
        request.key = self.access.admit(request.headers, None, "")
        return Reply(self.metrics.text(), kind=CONTENT_TYPE.encode())

    async def _openapi(self, request: Request) -> Reply:
        self._open_to_hosts(request)
        return Reply(await asyncio.to_thread(self._documents.openapi, self.limits.batch_records))

    async def _models(self, request: Request) -> Reply:
        key = request.key = self.access.admit(request.headers, None, "")
        lineups = [each for name, each in self.versions.lineups.items() if key is None or key.knows(name)]
        return Reply(encode({"models": [pages.summary(each) for each in lineups]}))

    def _model(self, lineup: Lineup) -> Reply:
        return Reply(encode(pages.description(lineup)))


def _admitted_in(body: bytes, limits: Limits, reader: Reader) -> tuple[list[Record], AdmittedRecords]:
    records = records_in(body, limits)
    return records, reader.read_many(records)


def _right(rest: str) -> str:
    return "outcomes" if rest == "outcomes" else "predict"


def _demand(method: str, *allowed: str) -> None:
    if method not in allowed:
        names = ", ".join(allowed)
        raise refusal(405, "this page does not take this method", got=method, allowed=names, allow=names)


def _refused(problem: StewardError, request_id: str) -> Reply:
    headers: list[tuple[bytes, bytes]] = [(b"cache-control", b"no-store")]
    facts = problem.facts
    if "allow" in facts:
        headers.append((b"allow", facts["allow"].encode()))
    if problem.retryable or "retry_after" in facts:
        headers.append((b"retry-after", str(facts.get("retry_after", 1)).encode()))
    if "bearer" in facts:
        headers.append((b"www-authenticate", b"Bearer"))
    if "close" in facts:
        headers.append((b"connection", b"close"))
    return Reply(body_of(problem, request_id), status_of(problem), headers=tuple(headers))


async def _send(reply: Reply, request_id: str, send: Send) -> None:
    own = {name for name, _ in reply.headers}
    security = SECURITY if b"content-security-policy" not in own else SECURITY[1:]
    headers = [
        (b"content-type", reply.kind),
        (b"content-length", str(len(reply.body)).encode()),
        (b"x-request-id", request_id.encode()),
        *reply.headers,
        *security,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
