"""Deferrable sensors, and event triggers for asset watchers: new labelled rows, and events of other platforms.

While they wait, nothing runs but a coroutine in Airflow's triggerer. What it asks for is asked in a thread, and what is
heavy is imported there. An event may be told twice after a triggerer was killed, with the same `id`: Steward's governor
starts one training per cause, so that costs nothing.
"""

import asyncio
import hmac
import json
import os
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from glob import glob
from pathlib import Path
from typing import Any

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

POLL = 60.0
ROWS_PER_LOOK = 100
LARGEST_BODY, LARGEST_HEADER = 64 * 1024, 16 * 1024
PATIENCE = 10.0
"""Seconds that a caller of the webhook has for its request."""


class PollingTrigger(BaseEventTrigger):
    """Looks every `poll` seconds; fires for what is new.

    Parameters
    ----------
    once : for a sensor: what is there already counts, and the first event is the last. A watcher begins with what comes
        after its first look, and goes on where it was after a restart.
    """

    def __init__(self, *, poll: float = POLL, once: bool = False, **asked: Any) -> None:
        super().__init__()
        self.poll = poll
        self.once = once
        self.asked = asked

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__name__}", {"poll": self.poll, "once": self.once, **self.asked}

    def look(self, position: Any) -> tuple[list[dict[str, Any]], Any]:
        """Events after `position` (None: everything), and the position behind them."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        position = await self._remembered()
        fires = self.once or position is not None
        while True:
            found, position = await self._look(position)
            for event in found if fires else ():
                yield TriggerEvent(event)
                if self.once:
                    return
            if found or not fires:
                await self._remember(position)
            fires = True
            await asyncio.sleep(self.poll)

    async def _look(self, position: Any) -> tuple[list[dict[str, Any]], Any]:
        """A look that fails is tried again at the next one; only what it says of itself gets into the log."""
        from sqlalchemy.exc import DBAPIError

        from steward.errors import StewardError

        try:
            return await asyncio.to_thread(self.look, position)
        except (StewardError, OSError, DBAPIError) as problem:
            shown = getattr(problem, "orig", None) or problem
            self.log.warning("%s cannot look now: %s: %s", type(self).__name__, type(problem).__name__, shown)
            return [], position

    async def _remembered(self) -> Any:
        """Where a watcher was before a restart; only the triggerer gives it a place to remember that."""
        return None if self.asset_state_store is None else await self.asset_state_store.aget(self._place)

    async def _remember(self, position: Any) -> None:
        if self.asset_state_store is not None:
            await self.asset_state_store.aset(self._place, position)

    @property
    def _place(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.asked, sort_keys=True)}"[:500]


class NewLabelledRowsTrigger(PollingTrigger):
    """Fires when so many labelled rows are there that the last training did not know; once per training."""

    def __init__(self, *, model: str, rows: int, poll: float = POLL, once: bool = False) -> None:
        super().__init__(poll=poll, once=once, model=model, rows=rows)

    def look(self, position: Any) -> tuple[list[dict[str, Any]], Any]:
        from steward.config import Settings
        from steward.io.workspace import Workspace
        from steward.steps.labelled import count_new_rows

        workspace = Workspace(Settings.from_environment())
        model = workspace.model(self.asked["model"])
        since = f"training {len(workspace.ledger.entries(model.name, 'opening'))}"
        if position == since:
            return [], position
        new = count_new_rows(workspace, model, at=datetime.now(UTC))
        if new is None or new < self.asked["rows"]:
            return [], position or ""
        reason = f"{new:,} labelled rows are new since the last training"
        return [{"id": f"rows {model.name} {since}", "reason": reason, "model": model.name, "rows": new}], since


class PlatformEventTrigger(PollingTrigger):
    """Fires for a row in a table, a file that appears, or a call of a webhook: exactly one of `table`, `file`, `port`.

    Parameters
    ----------
    table : `sqlite:///path::table` or `postgresql://user:${PASSWORD}@host/database::schema.table`.
    order : its column that grows with every row, such as an id.
    file : path or glob; a file fires again when it was written again.
    port : the webhook listens there, in the triggerer, for `POST` with JSON such as `{"id": "…", "reason": "…"}`.
    host : interface of the webhook; loopback unless a proxy with TLS stands before it.
    key : name of the environment variable that holds the webhook's key, which callers send as `X-API-Key`.
    """

    def __init__(
        self,
        *,
        table: str | None = None,
        order: str | None = None,
        file: str | None = None,
        port: int | None = None,
        host: str = "127.0.0.1",
        key: str | None = None,
        poll: float = POLL,
        once: bool = False,
    ) -> None:
        if [table, file, port].count(None) != 2:  # noqa: PLR2004
            raise ValueError("a platform event is exactly one of table, file and port")
        if (table is None) != (order is None):
            raise ValueError("a table needs `order`, its column that grows with every row")
        if (port is None) != (key is None):
            raise ValueError("a webhook needs `key`, the environment variable that holds its key")
        super().__init__(poll=poll, once=once, table=table, order=order, file=file, port=port, host=host, key=key)

    def look(self, position: Any) -> tuple[list[dict[str, Any]], Any]:
        return self._rows(position) if self.asked["table"] else self._files(position)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        events = super().run() if self.asked["port"] is None else self._calls()
        async for event in events:
            yield event
            if self.once:
                return

    def _files(self, position: Any) -> tuple[list[dict[str, Any]], Any]:
        found = {path: Path(path).stat().st_mtime_ns for path in sorted(glob(self.asked["file"], recursive=True))}  # noqa: PTH207
        before: Mapping[str, int] = position or {}
        new = [path for path, written in found.items() if before.get(path) != written]
        return [_event(f"file {path} {found[path]}", f"the file {Path(path).name} has appeared") for path in new], found

    def _rows(self, position: Any) -> tuple[list[dict[str, Any]], Any]:
        from sqlalchemy import column, create_engine, literal_column, make_url, select, table
        from sqlalchemy.pool import NullPool

        from steward.io.tables import filled

        url, _, name = filled(self.asked["table"], os.environ).rpartition("::")
        schema, _, bare = name.rpartition(".")
        order = column(self.asked["order"])
        begins = position is None and not self.once
        query = select(literal_column("*")).select_from(table(bare, schema=schema or None))
        query = query.order_by(order.desc() if begins else order).limit(1 if begins else ROWS_PER_LOOK)
        if position not in (None, ""):
            query = query.where(order > position)
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        with create_engine(parsed, poolclass=NullPool).connect() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]  # noqa: SLF001
        places = [_plain(row[self.asked["order"]]) for row in rows]
        pairs = zip(places, rows, strict=True)
        events = [_event(f"row {name} {place}", f"a new row in {name}", _plain_row(row)) for place, row in pairs]
        return events, places[-1] if places else position if position is not None else ""

    async def _calls(self) -> AsyncIterator[TriggerEvent]:
        """What callers of the webhook have to say, once they have shown the key."""
        key = os.environ.get(self.asked["key"], "")
        if not key:
            raise ValueError(f"the webhook's key is not set: the environment has no {self.asked['key']}")
        waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1_000)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                status, event = await asyncio.wait_for(_request(reader, key), PATIENCE)
                if event is not None and waiting.full():
                    status, event = "503 Service Unavailable", None
                if event is not None:
                    waiting.put_nowait(event)
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
            except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(answer, self.asked["host"], self.asked["port"], limit=LARGEST_HEADER)
        async with server:
            while True:
                yield TriggerEvent(await waiting.get())


async def _request(reader: asyncio.StreamReader, key: str) -> tuple[str, dict[str, Any] | None]:
    """The answer to one HTTP request, and the event that it tells."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    length = headers.get("content-length", "")
    if not hmac.compare_digest(headers.get("x-api-key", "").encode(), key.encode()):
        return "401 Unauthorized", None
    if not head[0].startswith("POST "):
        return "405 Method Not Allowed", None
    if not (length.isascii() and length.isdigit()):
        return "411 Length Required", None
    if int(length) > LARGEST_BODY:
        return "413 Content Too Large", None
    try:
        told = json.loads(await reader.readexactly(int(length)))
    except ValueError:
        return "400 Bad Request", None
    if not isinstance(told, dict) or not isinstance(told.get("id"), str | int):
        return "422 Unprocessable Content", None
    return "202 Accepted", _event(f"call {told['id']}", str(told.get("reason") or "a platform has called"), told)


def _event(name: str, reason: str, told: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"id": name, "reason": reason, "told": dict(told or {})}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row.items()}


class EventSensor(BaseSensorOperator):  # type: ignore[misc]
    """Waits in the triggerer for one event of a trigger, and answers it."""

    def __init__(self, *, trigger: BaseEventTrigger, **options: Any) -> None:
        super().__init__(**options)
        self.trigger = trigger

    def execute(self, context: Any) -> None:  # noqa: ARG002 - Airflow's signature
        self.defer(trigger=self.trigger, method_name="complete", timeout=timedelta(seconds=self.timeout))

    def complete(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - Airflow's signature
        return event


class NewLabelledRows(EventSensor):
    """Waits until so many labelled rows are there that the model's last training did not know."""

    def __init__(self, *, model: str, rows: int, poll: float = POLL, **options: Any) -> None:
        super().__init__(trigger=NewLabelledRowsTrigger(model=model, rows=rows, poll=poll, once=True), **options)


class PlatformEvent(EventSensor):
    """Waits for a row in a table, a file, or a call of a webhook: `PlatformEventTrigger` says how they are named."""

    def __init__(
        self,
        *,
        table: str | None = None,
        order: str | None = None,
        file: str | None = None,
        port: int | None = None,
        host: str = "127.0.0.1",
        key: str | None = None,
        poll: float = POLL,
        **options: Any,
    ) -> None:
        trigger = PlatformEventTrigger(
            table=table, order=order, file=file, port=port, host=host, key=key, poll=poll, once=True
        )
        super().__init__(trigger=trigger, **options)
