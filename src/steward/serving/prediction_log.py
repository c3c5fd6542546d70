"""Puts predictions on record before they are answered: one commit for all that arrive while the one before it is made.

Two ways lead to the database. Where a commit does not wait for the disk (SQLite, `crash_safe`), what arrived in one turn
of the event loop is committed at its end: faster than any hand-over to a thread. Everything else goes through one
thread, and whatever arrives while it works is its next commit. No answer waits for a timer.

While the database is away, rows go to a file (`Spool`), and so do the ones after them, until the file has been replayed:
the order stays, and a row's id lets it stand in the database once, however often it is written.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from steward.errors import LedgerUnavailable, LogUnavailable
from steward.io.predictions import Logged, PredictionStore, SqliteWriter
from steward.serving.spool import Spool

logger = logging.getLogger(__name__)

Level = Literal["durable", "crash_safe", "relaxed"]
Away = Literal["spool", "refuse"]

LIMIT = 10_000
"""Rows that may wait for a commit."""
INLINE_ROWS = 64
"""The most rows that are committed in the event loop: more would keep other requests waiting for a millisecond."""
INLINE_PATIENCE = 0.002
"""Seconds that the event loop waits for a lock."""
PATIENCE = 0.5
"""Seconds that the thread waits for a lock before the database counts as away."""
PROBE_PATIENCE = 0.05
RELAXED_DELAY = 0.02
"""Seconds until rows that nobody waits for are written."""
RETRY = 0.1
"""Seconds between two looks whether the database is back."""
CHECKPOINT = 0.5
"""Seconds between two checkpoints while there are commits."""
RESTART_PAGES = 16_384
"""Length of SQLite's log at which writers are made to begin it anew: 64 MB."""
REPLAYED = 2_048
"""Rows of one commit of a replay."""


@dataclass
class _Batch:
    """Rows of one commit in order of arrival, and who waits for it."""

    rows: list[Logged] = field(default_factory=list)
    refusable: set[str] = field(default_factory=set)
    """Ids of rows that are refused rather than spooled."""
    durable: bool = False
    waiters: list[tuple[asyncio.Future[bool], Away]] = field(default_factory=list)

    def settle(self, result: bool | Exception) -> None:
        """Tell everybody who waits; False is for those who have chosen the spool."""
        for waiter, away in self.waiters:
            if waiter.done():  # whoever waited has gone
                continue
            if isinstance(result, Exception):
                waiter.set_exception(result)
            elif result or away == "spool":
                waiter.set_result(result)
            else:
                waiter.set_exception(_away())


class PredictionLog:
    """The prediction log of a service; belongs to one event loop.

    Parameters
    ----------
    store : where predictions are kept.
    spool : folder of the files that hold rows while the database is away; those that dead services left are replayed.
    limit : rows that may wait for a commit; who comes then waits before it is taken in.
    patience : seconds that a commit waits for a lock before the database counts as away.

    Attributes
    ----------
    depth : rows that wait for a commit.
    away : whether the database is away, or has spooled rows to catch up on.
    """

    def __init__(self, store: PredictionStore, spool: Path, *, limit: int = LIMIT, patience: float = PATIENCE) -> None:
        self.store = store
        self.limit = limit
        self.depth = 0
        self.away = True
        self._spool = Spool(spool)
        self._writers = {durable: store.writer(durable=durable, patience=patience) for durable in (False, True)}
        self._inline = self._checkpointer = None
        if store.path is not None:
            self._inline = SqliteWriter(store.path, durable=False, patience=INLINE_PATIENCE)
            self._checkpointer = SqliteWriter(store.path, durable=True, patience=PROBE_PATIENCE)
        self._probe = store.writer(durable=False, patience=PROBE_PATIENCE)
        self._batch = _Batch()
        self._room = asyncio.Event()
        self._busy = self._closing = self._turn_is_near = False
        self._commits = 0
        self._flush: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = ThreadPoolExecutor(1, "prediction-log")
        self._background = ThreadPoolExecutor(1, "prediction-log-background")

    @property
    def spooled(self) -> int:
        """Rows that wait in the spool for the database."""
        return self._spool.rows

    async def start(self) -> None:
        """Open the database and the spool; what earlier services have spooled is replayed from now on.

        A database that is away keeps no service from starting.
        """
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self._thread, self._spool.open)
        if not self.spooled:
            await self._come_back()
        self._tasks = [asyncio.create_task(self._watch())]
        if self._checkpointer:
            self._tasks.append(asyncio.create_task(self._checkpoints(self._checkpointer)))

    async def close(self) -> None:
        """Write what waits, then let go of the database and the spool."""
        self._closing = True
        while self.depth:
            self._turn()
            await asyncio.sleep(0.001)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._background.shutdown()
        await self._loop.run_in_executor(self._thread, self._let_go)
        self._thread.shutdown()

    async def write(self, rows: Sequence[Logged], level: Level, away: Away) -> bool:
        """Put rows on record, as safely as `level` says by the time this returns.

        Returns
        -------
        True: in the database; False: in the spool, and in the database once that is back. `relaxed` returns before either.

        Raises
        ------
        LogUnavailable : the database is away and `away` is "refuse", or the spool cannot be written either.
        """
        while self.depth >= self.limit:
            self._room.clear()
            await self._room.wait()
        if self._closing or (self.away and away == "refuse"):
            raise _away()
        self.depth += len(rows)
        batch = self._batch
        batch.rows.extend(rows)
        if level == "relaxed":
            self._flush_soon()
            return not self.away
        if away == "refuse":
            batch.refusable.update(row.prediction_id for row in rows)
        batch.durable |= level == "durable"
        waiter: asyncio.Future[bool] = self._loop.create_future()
        batch.waiters.append((waiter, away))
        if not self._turn_is_near and not self._busy:
            self._turn_is_near = True
            self._loop.call_soon(self._turn)
        return await waiter

    def _flush_soon(self) -> None:
        if self._flush is None and not self._busy:
            self._flush = self._loop.call_later(RELAXED_DELAY, self._turn)

    def _turn(self) -> None:
        """Commit what has gathered; while the thread is busy it goes on gathering."""
        self._turn_is_near = False
        if self._flush:
            self._flush.cancel()
            self._flush = None
        if self._busy or not self._batch.rows:
            return
        batch, self._batch = self._batch, _Batch()
        if not self._committed_inline(batch):
            self._busy = True
            committing = self._loop.run_in_executor(self._thread, self._commit, batch)
            committing.add_done_callback(partial(self._after_commit, batch))

    def _committed_inline(self, batch: _Batch) -> bool:
        if self._inline is None or self.away or batch.durable or len(batch.rows) > INLINE_ROWS:
            return False
        try:
            self._inline.write(batch.rows)
        except LogUnavailable:  # the thread has more patience
            return False
        except Exception as problem:  # noqa: BLE001 - whoever waits is told
            self._settle(batch, problem)
        else:
            self._settle(batch, result=True)
        return True

    def _after_commit(self, batch: _Batch, committing: "asyncio.Future[bool]") -> None:
        self._busy = False
        problem = committing.exception()
        self._settle(batch, problem if isinstance(problem, Exception) else committing.result())
        if self._batch.waiters:
            self._turn()
        elif self._batch.rows:
            self._flush_soon()

    def _settle(self, batch: _Batch, result: bool | Exception) -> None:
        if isinstance(result, Exception):
            logger.error("%d predictions are not on record: %s", len(batch.rows), result)
        self._commits += 1
        self.depth -= len(batch.rows)
        self._room.set()
        batch.settle(result)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(RETRY)
            try:
                if self.away:
                    await self._come_back()
            except Exception:
                logger.exception("the spool is not replayed")

    async def _come_back(self) -> None:
        """Look whether the database is there; replay the spool if so."""
        if await self._loop.run_in_executor(self._background, self._is_back):
            while not await self._loop.run_in_executor(self._thread, self._replay):
                pass

    async def _checkpoints(self, checkpointer: SqliteWriter) -> None:
        seen = 0
        while True:
            await asyncio.sleep(CHECKPOINT)
            if self._commits != seen and not self.away:
                seen = self._commits
                await self._loop.run_in_executor(self._background, checkpointer.checkpoint, RESTART_PAGES)

    def _is_back(self) -> bool:
        """Runs beside the thread: to find out that a server does not answer may take seconds."""
        try:
            self.store.prepare()
            self._probe.write([])
        except (LedgerUnavailable, LogUnavailable):
            return False
        return True

    # What follows runs in the thread, where nothing else touches the spool.

    def _commit(self, batch: _Batch) -> bool:
        """Whether the rows are in the database; otherwise those that may be are in the spool. Raises LogUnavailable."""
        if not self.away:
            try:
                self._writers[batch.durable].write(batch.rows)
            except LogUnavailable:
                self.away = True
            else:
                return True
        rows = [row for row in batch.rows if row.prediction_id not in batch.refusable]
        try:
            if rows:
                self._spool.append(rows, durable=batch.durable)
        except OSError as problem:
            raise _away(str(problem)) from problem
        return False

    def _replay(self) -> bool:
        """Write the oldest spooled rows to the database; whether there is nothing more to be done now."""
        try:
            if rows := self._spool.first(REPLAYED):
                self._write_replayed(rows)
                self._spool.replayed()
            self.away = bool(self._spool.first(1))
        except LogUnavailable:
            return True
        except OSError:
            logger.exception("the spool cannot be read")
            return True
        return not self.away

    def _write_replayed(self, rows: list[Logged]) -> None:
        try:
            self._writers[True].write(rows)
        except LogUnavailable:
            raise
        except Exception:  # noqa: BLE001 - the database will never take one of them; the others must not wait for it
            for row in rows:
                self._write_or_set_aside(row)

    def _write_or_set_aside(self, row: Logged) -> None:
        try:
            self._writers[True].write([row])
        except LogUnavailable:
            raise
        except Exception:
            logger.exception("prediction %s is set aside beside the spool", row.prediction_id)
            self._spool.set_aside(msgspec.json.encode(row) + b"\n")

    def _let_go(self) -> None:
        for writer in (*self._writers.values(), self._probe, self._inline, self._checkpointer):
            if writer:
                writer.close()
        self._spool.close()


def _away(reason: str = "the database is away") -> LogUnavailable:
    return LogUnavailable(
        "the prediction cannot be put on record now", got=reason, do="Ask again; `/readyz` says when the log is back"
    )
