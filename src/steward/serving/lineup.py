"""Who answers for a model: champion, or else previous version, or else the declared constant."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np

from steward.config import ModelFile
from steward.core.actions import Policy
from steward.core.answers import Answer, Answering, Answers, Raw
from steward.core.requests import Admitted, AdmittedRecords, Reader, Value
from steward.errors import NoChampion, RecordInvalid
from steward.inference import Predictor

PATIENCE = 3
"""A version that failed or was too slow so many times in a row is left alone."""
REST_SECONDS = 30.0
"""For how long."""
FAST_ENGINES = frozenset({"tables", "onnx"})
"""Engines that answer a few rows in microseconds, so that a thread would cost more than they do."""
INLINE_ROWS = 32
"""More rows than this are computed in a thread, whatever the engine."""
DEADLINE_ROWS = 1_000
"""`serve.deadline_ms` holds for a request with up to so many records."""

GROUP = 64
"""The most requests that are computed in one call."""

T = TypeVar("T")
A = TypeVar("A", Admitted, AdmittedRecords)
B = TypeVar("B", Answer, Answers)
Columns = Mapping[str, Sequence[Value]]
"""Admitted values by contract column."""
Fallback = Literal["previous", "constant"]


class Computed(NamedTuple):
    """What a version makes of rows: probabilities or predictions, and per category column what training did not know."""

    raw: Raw
    unseen: dict[str, list[bool]]

    def part(self, start: int, end: int) -> "Computed":
        return Computed(self.raw[start:end], {name: flags[start:end] for name, flags in self.unseen.items()})


class Engine:
    """One loaded version, and how it has been doing lately.

    A few rows go straight through a fast engine. Everything else is computed in a thread of the version's own, so that
    one that hangs holds up nobody else; what arrives while it computes is its next call, because a call of scikit-learn
    costs the same for one row as for many.

    Parameters
    ----------
    number : the version.
    """

    def __init__(self, number: int, predictor: Predictor) -> None:
        self.number = number
        self.predictor = predictor
        self.fast = predictor.engine in FAST_ENGINES
        self.problem: str | None = None
        self._failures = 0
        self._rests_until = 0.0
        self._thread = ThreadPoolExecutor(1, f"version-{number}")
        self._waiting: list[tuple[Columns, asyncio.Future[Computed]]] = []
        self._work: asyncio.Task[None] | None = None

    @property
    def is_available(self) -> bool:
        return self._rests_until == 0.0 or time.monotonic() >= self._rests_until

    def fail(self, problem: str) -> None:
        """One stall, or one record that a model cannot bear, takes no champion away; some in a row do."""
        self.problem = problem
        self._failures += 1
        if self._failures >= PATIENCE:
            self._rests_until = time.monotonic() + REST_SECONDS

    def recover(self) -> None:
        self.problem, self._failures, self._rests_until = None, 0, 0.0

    def close(self) -> None:
        self._thread.shutdown(wait=False)

    def is_inline(self, rows: int) -> bool:
        """Is computing so many faster than handing them to a thread?"""
        return self.fast and rows <= INLINE_ROWS

    def compute(self, columns: Columns) -> Computed:
        """What the version makes of admitted rows; raises whatever the model raises."""
        return Computed(self.predictor.answer(columns), self.predictor.unseen(columns))

    async def compute_in_thread(self, columns: Columns) -> Computed:
        """As `compute`, together with what else waits."""
        waiter: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._waiting.append((columns, waiter))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._work_off())
        return await waiter

    async def _work_off(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            if awaited := [each for each in group if not each[1].done()]:
                await self._compute_together(awaited)

    async def _compute_together(self, group: Sequence[tuple[Columns, asyncio.Future[Computed]]]) -> None:
        columns = _joined([some for some, _ in group])
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self.compute, columns)
        except Exception as problem:  # noqa: BLE001 - whatever a model raises belongs to the request that it is about
            for each in group if len(group) > 1 else ():
                await self._compute_together([each])
            if len(group) == 1 and not group[0][1].done():
                group[0][1].set_exception(problem)
            return
        start = 0
        for some, waiter in group:
            end = start + _length(some)
            if not waiter.done():
                waiter.set_result(found.part(start, end))
            start = end


class Contender(NamedTuple):
    """A version in its place: how it reads records and what is made of its answers."""

    engine: Engine
    reader: Reader
    answering: Answering
    fallback: Fallback | None
    """What an answer of it is called; None for the champion."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[A, B]):
    """What one version answers to a record, or to the records of one request."""

    admitted: A
    answer: B
    version: int | None
    fallback: Fallback | None


@dataclass(frozen=True)
class Lineup:
    """Everything that a request needs to know about a model; replaced as a whole, so that no request sees two states."""

    model: ModelFile
    """The model file as it is now; its `serve` section decides."""
    contenders: tuple[Contender, ...]
    """In the order in which they are asked."""
    champion: int | None
    previous: int | None
    sequence: int = 0
    """The ledger entry that this follows."""
    problems: tuple[str, ...] = ()
    reader: Reader = field(init=False)
    """Judges every request: by the contract of the first contender, or else of the model file."""

    def __post_init__(self) -> None:
        first = self.contenders[0].reader if self.contenders else Reader(self.model, self.model.serve)
        object.__setattr__(self, "reader", first)

    @property
    def contract(self) -> ModelFile:
        """The model file that `reader` follows."""
        return self.contenders[0].engine.predictor.model if self.contenders else self.model

    @property
    def can_answer(self) -> bool:
        """Is there anybody, or anything, to answer now?"""
        return self.model.serve.fallback is not None or any(each.engine.is_available for each in self.contenders)

    async def answer(self, record: Mapping[str, Any]) -> Answered[Admitted, Answer]:
        """The answer to a record.

        Raises
        ------
        RecordInvalid : it breaks the contract.
        NoChampion : nothing can answer.
        """
        admitted = self.reader.read(record)
        return await self._in_turn(admitted, lambda reader: reader.read(record), _answer, self._constant)

    async def answer_many(
        self, records: Sequence[Mapping[str, Any]], admitted: AdmittedRecords
    ) -> Answered[AdmittedRecords, Answers]:
        """What `answer` says of each record; `admitted` is what `reader` has made of them. Raises NoChampion."""
        return await self._in_turn(admitted, lambda reader: reader.read_many(records), _answer_many, self._constants)

    async def _in_turn(
        self,
        admitted: A,
        read: Callable[[Reader], A],
        answer: Callable[[Answering, Computed, A], B],
        constant: Callable[[A], B],
    ) -> Answered[A, B]:
        """The answer of the first contender that has one, or else the constant."""
        for contender in self.contenders:
            if not contender.engine.is_available:
                continue
            try:
                found = admitted if contender.reader is self.reader else read(contender.reader)
            except RecordInvalid:  # the previous version has another contract, which this record does not keep
                continue
            given = await self._ask(contender, found, answer)
            if given is not None:
                return Answered(found, given, contender.engine.number, contender.fallback)
        return Answered(admitted, constant(admitted), None, "constant")

    async def _ask(self, contender: Contender, admitted: A, answer: Callable[[Answering, Computed, A], B]) -> B | None:
        """The contender's answer; None if it fails or is too slow."""
        engine, columns = contender.engine, admitted.columns
        rows = _length(columns)
        deadline = self.model.serve.deadline_ms / 1_000 * max(1.0, rows / DEADLINE_ROWS)
        started = time.monotonic()
        try:
            if engine.is_inline(rows):
                computed = engine.compute(columns)
            else:
                async with asyncio.timeout(deadline):
                    computed = await engine.compute_in_thread(columns)
            given = await off_loop(rows > DEADLINE_ROWS, answer, contender.answering, computed, admitted)
        except TimeoutError:
            engine.fail(f"took longer than {deadline:g} s")
            return None
        except Exception as problem:  # noqa: BLE001 - whatever a model raises, the next one answers
            engine.fail(f"{type(problem).__name__} while it answered")
            return None
        if time.monotonic() - started > deadline:
            engine.fail(f"took longer than {deadline:g} s")
        elif engine.problem is not None:
            engine.recover()
        return given

    def _constant(self, admitted: Admitted) -> Answer:
        prediction = self._declared()
        action, message = Policy(self.model.serve.actions).recommend(prediction, None, None, admitted.row)
        return Answer(prediction, None, None, None, action, message, [])

    def _constants(self, admitted: AdmittedRecords) -> Answers:
        prediction = self._declared()
        predictions = np.full(len(admitted), prediction, dtype=object if isinstance(prediction, str) else float)
        policy = Policy(self.model.serve.actions)
        chosen = policy.choose(predictions, None, None, admitted.columns)
        return Answers(predictions, None, None, None, None, chosen, policy, {})

    def _declared(self) -> str | float:
        declared = self.model.serve.fallback
        if declared is None:
            raise NoChampion(f"{self.model.name} has no version that can answer now", do="/readyz says what is missing")
        return str(declared.prediction) if self.model.task == "classification" else float(declared.prediction)


async def off_loop(large: bool, work: Callable[..., T], *arguments: Any) -> T:
    """The result of some work, done in a thread if it is large, so that it holds up nobody else."""
    return await asyncio.to_thread(work, *arguments) if large else work(*arguments)


def _answer(answering: Answering, computed: Computed, admitted: Admitted) -> Answer:
    return answering.one(computed.raw, computed.unseen, admitted.row)


def _answer_many(answering: Answering, computed: Computed, admitted: AdmittedRecords) -> Answers:
    return answering.many(computed.raw, computed.unseen, admitted.columns)


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _joined(groups: Sequence[Columns]) -> Columns:
    """The rows of some groups, below each other."""
    if len(groups) == 1:
        return groups[0]
    return {name: [value for columns in groups for value in columns[name]] for name in groups[0]}
