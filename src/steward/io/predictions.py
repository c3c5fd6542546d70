"""Predictions on record and what came of them: two tables beside the ledger's entries, in the same database.

A prediction is a row of `predictions`, named by its id; the database itself promises that it stands there once. An
outcome is a row of `outcomes`, aimed at one prediction by id, or at every prediction with a key. All that arrive are
kept; the last is the current one. An outcome whose prediction is not there yet waits for it: they meet when they are read.
"""

import math
import secrets
import sqlite3
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain, compress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import psycopg
from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    cast,
    delete,
    func,
    insert,
    select,
    tuple_,
)

from steward.config import ModelFile
from steward.errors import LogUnavailable, RecordInvalid

Target = Literal["prediction_id", "key"]
TARGETS: tuple[Target, ...] = ("prediction_id", "key")

BLOCK = 10_000
"""Rows that are in memory at a time."""
DELETED = 2_000
"""Rows of one transaction that deletes."""
LARGEST_KEY = 256
"""Bits of a whole number that is a key."""
STATEMENT_ROWS = 256
"""Rows of one INSERT; a power of two."""
VARIANTS = {f"{digit:x}": f"{8 | digit >> 2:x}" for digit in range(16)}
"""A random hexadecimal digit → one whose first two bits say that this is a UUID as RFC 9562 has it."""

metadata = MetaData()
predictions = Table(
    "predictions",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("version", Integer),
    Column("key", Text),
    Column("record", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("prediction", Text, nullable=False),
    Column("confidence", Double),
    Column("action", Text, nullable=False),
    Column("control", Boolean, nullable=False),
    Column("fallback", Text),
)
outcomes = Table(
    "outcomes",
    metadata,
    Column("sequence", BigInteger, primary_key=True),
    Column("model", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("observed_at", Double),
    Column("received_at", Double, nullable=False),
)


class Logged(NamedTuple):
    """One prediction as it stands on record."""

    prediction_id: str
    """32 hexadecimal characters that begin with the time: `new_id`."""
    model: str
    at: float
    """Seconds since 1970, UTC."""
    version: int | None
    """None where the constant of `serve.fallback` answered."""
    key: str | None
    """What the caller calls the thing: `key_of`."""
    record: str
    """JSON: the row that the model saw, by contract column."""
    answer: str
    """JSON: prediction, confidence, probabilities, interval, action, unseen, flags."""
    prediction: str
    """The class, or `repr` of the number."""
    confidence: float | None
    action: str
    control: bool
    fallback: str | None


class Outcome(NamedTuple):
    """What came of a prediction, as it arrived."""

    sequence: int
    model: str
    by: Target
    target: str
    label: str
    """The class as the model file writes it, or `repr` of the number."""
    observed_at: float | None
    received_at: float


class Last(NamedTuple):
    """What answered a prediction."""

    at: float
    version: int | None
    fallback: str | None


class Answered(NamedTuple):
    """Predictions that the same answered."""

    version: int | None
    fallback: str | None
    control: bool
    rows: int


@dataclass(frozen=True)
class OutcomeReport:
    """What became of outcomes that arrived; every item is accepted, repeated or corrected."""

    accepted: int
    """The first ones of their targets."""
    repeated: int
    """Said what was known already."""
    corrected: int
    """Differ from what was known; both are kept, the later one counts."""
    unknown: tuple[str, ...]
    """Targets without a prediction so far; their outcomes are kept and join it when it arrives."""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "unknown": list(self.unknown)}


@dataclass(frozen=True)
class Pruned:
    """How many rows were deleted, or would be."""

    predictions: int
    outcomes: int


def new_id(at: float) -> str:
    """A new prediction id: a UUID of version 7 in 32 hexadecimal characters, in the order of time.

    >>> new_id(1_767_225_600.5)[:13]
    '019b76daa9f47'
    """
    drawn = secrets.randbits(74)
    return f"{int(at * 1_000):012x}7{drawn >> 62:03x}{8 | (drawn >> 60) & 3:x}{drawn & (1 << 60) - 1:015x}"


def new_ids(at: float, count: int) -> list[str]:
    """New ids of predictions that were made together, rising: the database adds rows fastest at the end of an index."""
    time, drawn = f"{int(at * 1_000):012x}", secrets.token_hex(10 * count)
    tails = (drawn[start : start + 19] for start in range(0, 20 * count, 20))
    return sorted([f"{time}7{tail[:3]}{VARIANTS[tail[3]]}{tail[4:]}" for tail in tails])


def key_of(model: ModelFile, record: Mapping[str, Any]) -> str | None:
    """The source's key in a record, as it is put on record; None if it is not there, or a part of it is not.

    Several parts are joined by `|`; a `|` or a backslash inside a part is written with a backslash before it.

    Raises
    ------
    RecordInvalid : a part is neither a text nor a number, or a text that no database takes.
    """
    names = model.source.keys
    if record.keys().isdisjoint(names):
        return None
    parts = [_key_part(name, record.get(name)) for name in names]
    if any(part in (None, *model.source.missing) for part in parts):
        return None
    return joined_key([part or "" for part in parts])


def joined_key(parts: Sequence[str]) -> str:
    r"""The key made of these parts.

    >>> print(joined_key(["a|b"]), joined_key(["a|b", "c"]))
    a|b a\|b|c
    """
    if len(parts) == 1:
        return parts[0]
    return "|".join(part.replace("\\", "\\\\").replace("|", "\\|") for part in parts)


def key_parts(key: str, count: int) -> list[str] | None:
    r"""The parts of a key of so many columns; None if it has another number.

    >>> key_parts("a|b", 1), key_parts(joined_key(["a|b", "c"]), 2), key_parts("a", 2)
    (['a|b'], ['a|b', 'c'], None)
    """
    if count == 1:
        return [key]
    parts, escaped = [""], False
    for letter in key:
        if letter == "|" and not escaped:
            parts.append("")
        elif letter != "\\" or escaped:
            parts[-1] += letter
        escaped = letter == "\\" and not escaped
    return parts if len(parts) == count else None


def _key_part(name: str, value: Any) -> str | None:
    """As the accept step writes it: without blanks around it, whole numbers without a decimal point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() <= LARGEST_KEY:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, str) and "\0" not in value and not _has_surrogates(value):
        return value.strip()
    raise RecordInvalid(f"{name} is no key", got=value, allowed="a text or a number", field=name)


def _has_surrogates(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


class Database(Protocol):
    """What of the ledger is needed here."""

    @property
    def url(self) -> URL: ...

    def connected(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        """A transaction on a current schema; writers take turns. Raises LedgerUnavailable."""


class PredictionStore:
    """The tables of predictions and outcomes in the ledger's database.

    Every method raises LedgerUnavailable if the database is locked, away, damaged or newer than this code.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database, None for another."""
        url = self.database.url
        return Path(url.database or "") if url.get_backend_name() == "sqlite" else None

    def prepare(self) -> None:
        """Create or upgrade the schema if need be."""
        with self.database.connected():
            pass

    def writer(self, *, durable: bool, patience: float) -> "Writer":
        """A connection of its own that only adds predictions, fast; `prepare` comes first.

        Parameters
        ----------
        durable : whether a row survives power loss as soon as it is written, or only a killed process.
        patience : seconds to wait for a lock.
        """
        if self.path is not None:
            return SqliteWriter(self.path, durable=durable, patience=patience)
        url = self.database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return PostgresWriter(url, durable=durable, patience=patience)

    def get(self, prediction_id: str) -> Logged | None:
        """The prediction of this id."""
        with self.database.connected() as connection:
            query = select(predictions).where(predictions.c.prediction_id == prediction_id)
            row = connection.execute(query).one_or_none()
        return None if row is None else Logged(*row)

    def with_key(self, model: str, key: str) -> list[Logged]:
        """Every prediction with this key, newest first."""
        query = select(predictions).where(predictions.c.model == model, predictions.c.key == key)
        newest = query.order_by(predictions.c.at.desc(), predictions.c.prediction_id.desc())
        with self.database.connected() as connection:
            return [Logged(*row) for row in connection.execute(newest)]

    def newest(self, models: Collection[str]) -> dict[str, Last]:
        """What answered last, by model; one query, however many models there are."""
        columns = [predictions.c[name] for name in ("model", *Last._fields)]
        with self.database.connected() as connection:
            asked = _listed(connection, list(models))
            of_model = select(predictions.c.prediction_id).where(predictions.c.model == asked.c.value)
            newest = of_model.order_by(predictions.c.at.desc(), predictions.c.prediction_id.desc()).limit(1)
            query = select(*columns).join_from(
                asked, predictions, predictions.c.prediction_id == newest.correlate(asked).scalar_subquery()
            )
            return {model: Last(*fields) for model, *fields in connection.execute(query)}

    def answered(self, model: str, since: float, most: int) -> list[Answered]:
        """What answered a model's newest predictions since a moment, at most so many of them."""
        names = ("version", "fallback", "control")
        newest = select(*(predictions.c[name] for name in names))
        newest = newest.where(predictions.c.model == model, predictions.c.at >= since)
        counted = newest.order_by(predictions.c.at.desc()).limit(most).subquery()
        groups = [counted.c[name] for name in names]
        with self.database.connected() as connection:
            order = func.count().desc(), counted.c.version.nulls_first()
            found = connection.execute(select(*groups, func.count()).group_by(*groups).order_by(*order))
            return [Answered._make(row) for row in found]

    def count(self, model: str | None = None, since: float | None = None, until: float | None = None) -> int:
        """Predictions of a model, or of all, from `since` (included) to `until` (not included)."""
        query = _between(select(func.count()).select_from(predictions), model, since, until)
        with self.database.connected() as connection:
            return int(connection.execute(query).scalar_one())

    def blocks(
        self, model: str, since: float | None = None, until: float | None = None, rows: int = BLOCK
    ) -> Iterator[list[Logged]]:
        """Predictions in the order of their time, so many at a time; no transaction stays open in between."""
        for block in self.columns(model, Logged._fields, since, until, rows):
            yield [Logged(*row) for row in zip(*block.values(), strict=True)]

    def columns(
        self,
        model: str,
        names: Sequence[str],
        since: float | None = None,
        until: float | None = None,
        rows: int = BLOCK,
    ) -> Iterator[dict[str, Sequence[Any]]]:
        """As `blocks`, of some columns only, which takes half the time: each block as values by the names of `Logged`."""
        for block in self._paged(model, names, since, until, rows):
            yield {name: block[name] for name in names}

    def labelled(
        self,
        model: str,
        names: Sequence[str],
        since: float | None = None,
        until: float | None = None,
        received_by: float | None = None,
        rows: int = BLOCK,
    ) -> Iterator[dict[str, Sequence[Any]]]:
        """As `columns`, of predictions that have an outcome only, and with the current one's `label`; never an empty block.

        An outcome by key belongs to every prediction with that key; of one by key and one by id, the later one counts.

        Parameters
        ----------
        received_by : outcomes that arrived later are left out, as if they had not come yet.
        rows : predictions of a block, with an outcome or without: to leave those out in the database would cost a block its
            place in the index.
        """
        if not self.has_outcomes(model):
            return
        newest = [func.coalesce(_newest(model, by, received_by), 0) for by in TARGETS]
        later = func.greatest(*newest) if self.path is None else func.max(*newest)
        label = select(outcomes.c.label).where(outcomes.c.sequence == later).correlate(predictions).scalar_subquery()
        for block in self._paged(model, names, since, until, rows, label=label):
            known = [told is not None for told in block["label"]]
            if any(known):
                yield {name: list(compress(block[name], known)) for name in (*names, "label")}

    def arrivals(
        self, model: str, since: float, until: float, received_by: float, most: int = BLOCK
    ) -> list[tuple[float, float | None]]:
        """When predictions were made and when their first outcome arrived, None if it has not: a sample of at most about
        `most`, which their ids draw.
        """
        total = self.count(model, since, until)
        digits = max(0, math.ceil(math.log(max(total, 1) / most, 16)))
        first = [_newest(model, by, received_by, func.min(outcomes.c.received_at)) for by in TARGETS]
        query = select(predictions.c.at, *first).where(predictions.c.prediction_id.endswith("0" * digits))
        with self.database.connected() as connection:
            found = connection.execute(_between(query, model, since, until)).all()
        return [(row[0], min((one for one in row[1:] if one is not None), default=None)) for row in found]

    def _paged(
        self, model: str, names: Sequence[str], since: float | None, until: float | None, rows: int, **more: Any
    ) -> Iterator[dict[str, Sequence[Any]]]:
        """Predictions in the order of their time, so many at a time: columns, and `more` expressions by their names.

        Rows stay as the driver makes them: SQLAlchemy's are objects that Python's garbage collection has to walk.
        """
        asked = {name: predictions.c[name] for name in (*names, "at", "prediction_id")} | more
        place = (predictions.c.at, predictions.c.prediction_id)
        page = _between(select(*asked.values()), model, since, until).order_by(*place).limit(rows)
        following = page
        while True:
            with self.database.connected() as connection:
                result: Any = connection.execute(following)
                found = result.cursor.fetchall()
            if found:
                block = dict(zip(asked, zip(*found, strict=True), strict=True))
                at, prediction_id = block["at"][-1], block["prediction_id"][-1]
                if "control" in block:
                    block["control"] = tuple(map(bool, block["control"]))  # SQLite knows numbers only
                yield block
            if len(found) < rows:
                return
            # SQLite walks to a pair from where the time begins: without its own condition from the first row of all
            following = page.where(predictions.c.at >= at, tuple_(*place) > (at, prediction_id))

    def has_outcomes(self, model: str) -> bool:
        """Whether any outcome has arrived for this model."""
        with self.database.connected() as connection:
            query = select(outcomes.c.sequence).where(outcomes.c.model == model).limit(1)
            return connection.execute(query).first() is not None

    def outcomes_of(self, model: str, by: Target, target: str) -> list[Outcome]:
        """Every outcome that arrived for a prediction id or a key, oldest first; the last is the current one."""
        query = select(outcomes).where(outcomes.c.model == model, outcomes.c.by == by, outcomes.c.target == target)
        with self.database.connected() as connection:
            return [Outcome(*row) for row in connection.execute(query.order_by(outcomes.c.sequence))]

    def add_outcomes(
        self,
        model: ModelFile,
        items: Sequence[Mapping[str, Any]],
        at: datetime,
        received: Sequence[float] | None = None,
    ) -> OutcomeReport:
        """Put outcomes on record, all of them or none.

        The same outcome again, with the same `observed_at` or as the last one of its target, is a repetition and not
        stored; another one is a correction.

        Parameters
        ----------
        items : each with `label`, one of `prediction_id` and `key` (several parts as a list, or joined as by `key_of`), and
            perhaps `observed_at`: a time, ISO text, or seconds since 1970; in UTC where no zone is said.
        at : when they arrived; time-zone aware.
        received : of outcomes that arrived elsewhere before, when each did: seconds since 1970.

        Raises
        ------
        RecordInvalid : names the item and what is wrong with it.
        """
        times = received if received is not None else [at.timestamp()] * len(items)
        arrivals = [_arrival(model, number, item) for number, item in enumerate(items)]
        with self.database.connected(write=True) as connection:
            news = _News(_history(connection, model.name, arrivals))
            kept = [(arrival, time) for arrival, time in zip(arrivals, times, strict=True) if news.add(arrival)]
            if kept:
                rows = [{**arrival._asdict(), "model": model.name, "received_at": time} for arrival, time in kept]
                connection.execute(insert(outcomes), rows)
            unknown = _unknown(connection, model.name, arrivals)
        return OutcomeReport(news.accepted, news.repeated, news.corrected, unknown)

    def prune(self, model: str, before: float, keep: Container[str] = (), *, dry_run: bool = False) -> Pruned:
        """Delete what is older than a moment: predictions, then outcomes that no prediction is left for.

        Parameters
        ----------
        before : seconds since 1970.
        keep : ids of predictions that stay, whatever their age.
        dry_run : count only.
        """
        deleted = 0
        for block in self.blocks(model, until=before):
            old = [row.prediction_id for row in block if row.prediction_id not in keep]
            deleted += len(old)
            if not dry_run:
                self._delete(predictions.c.prediction_id, old)
        return Pruned(deleted, self._prune_outcomes(model, before, keep, dry_run=dry_run))

    def _prune_outcomes(self, model: str, before: float, keep: Container[str], *, dry_run: bool) -> int:
        deleted, last = 0, 0
        while True:
            query = select(outcomes).where(outcomes.c.model == model, outcomes.c.sequence > last)
            query = query.where(outcomes.c.received_at < before).order_by(outcomes.c.sequence).limit(BLOCK)
            with self.database.connected() as connection:
                block = [Outcome(*row) for row in connection.execute(query)]
                needed = {
                    by: _standing(connection, model, by, [row.target for row in block if row.by == by], before, keep)
                    for by in TARGETS
                }
            old = [row.sequence for row in block if row.target not in needed[row.by]]
            deleted += len(old)
            if not dry_run:
                self._delete(outcomes.c.sequence, old)
            if len(block) < BLOCK:
                return deleted
            last = block[-1].sequence

    def _delete(self, column: Column[Any], values: Sequence[Any]) -> None:
        """In short transactions, so that predictions can be written in between."""
        for start in range(0, len(values), DELETED):
            with self.database.connected(write=True) as connection:
                listed = _listed(connection, values[start : start + DELETED])
                connection.execute(delete(column.table).where(column.in_(select(cast(listed.c.value, column.type)))))


def _between(query: Select[Any], model: str | None, since: float | None, until: float | None) -> Select[Any]:
    query = query if model is None else query.where(predictions.c.model == model)
    query = query if since is None else query.where(predictions.c.at >= since)
    return query if until is None else query.where(predictions.c.at < until)


def _newest(model: str, by: Target, received_by: float | None, what: Any = None) -> Any:
    """The sequence number of a prediction's newest outcome among those aimed at it in one way; null if there is none."""
    query = select(func.max(outcomes.c.sequence) if what is None else what).correlate(predictions)
    query = query.where(outcomes.c.model == model, outcomes.c.by == by, outcomes.c.target == predictions.c[by])
    if received_by is not None:
        query = query.where(outcomes.c.received_at <= received_by)
    return query.scalar_subquery()


def _listed(connection: Connection, values: Sequence[Any]) -> Any:
    """A table of these values in the column `value`, which travel as one parameter however many they are."""
    if connection.dialect.name == "sqlite":
        return func.json_each(msgspec.json.encode(values).decode()).table_valued("value")
    return func.json_array_elements_text(cast(values, JSON)).table_valued("value").render_derived()


class _Arrival(NamedTuple):
    by: Target
    target: str
    label: str
    observed_at: float | None


class _News:
    """Tells what is new from what is known, in the order of arrival.

    Parameters
    ----------
    history : everything known of the targets, oldest first.
    """

    def __init__(self, history: Iterable[_Arrival]) -> None:
        self.accepted = self.repeated = self.corrected = 0
        self._current: dict[tuple[str, str], str] = {}
        self._dated: set[_Arrival] = set()
        for arrival in history:
            self._remember(arrival)

    def add(self, arrival: _Arrival) -> bool:
        """Count an outcome; whether it is to be kept."""
        current = self._current.get(arrival[:2])
        if current == arrival.label or arrival in self._dated:
            self.repeated += 1
            return False
        self._remember(arrival)
        if current is None:
            self.accepted += 1
        else:
            self.corrected += 1
        return True

    def _remember(self, arrival: _Arrival) -> None:
        self._current[arrival[:2]] = arrival.label
        if arrival.observed_at is not None:
            self._dated.add(arrival)


def _arrival(model: ModelFile, number: int, item: Mapping[str, Any]) -> _Arrival:
    """An outcome as it is stored. Raises RecordInvalid."""
    where = f"outcome {number}"
    if strange := sorted(set(item) - {"prediction_id", "key", "label", "observed_at"}):
        allowed = "prediction_id or key, label, observed_at"
        raise RecordInvalid(f"{where} has an unknown field", got=strange[0], allowed=allowed, item=number)
    by: Target = "prediction_id" if item.get("prediction_id") is not None else "key"
    target = item.get(by)
    if target is None or (by == "prediction_id" and item.get("key") is not None):
        both = "neither" if target is None else "both"
        raise RecordInvalid(f"{where} needs either prediction_id or key", got=both, item=number)
    return _Arrival(
        by, _target(model, by, target, number), _label(model, item.get("label"), number), _observed(item, number)
    )


def _target(model: ModelFile, by: Target, value: Any, number: int) -> str:
    parts = value if isinstance(value, list | tuple) and by == "key" else [value]
    expected = len(model.source.keys) if parts is value else 1
    try:
        texts = [_key_part(by, part) for part in parts]
    except RecordInvalid:
        texts = []
    if len(texts) != expected or not all(texts) or (by == "prediction_id" and not isinstance(value, str)):
        allowed = "a text" if by == "prediction_id" else f"the value of {', '.join(model.source.keys)}"
        raise RecordInvalid(f"outcome {number}: {by} names nothing", got=value, allowed=allowed, item=number, field=by)
    return joined_key([text or "" for text in texts])


def _label(model: ModelFile, value: Any, number: int) -> str:
    what = f"outcome {number}: label"
    if model.task == "classification":
        with suppress(RecordInvalid):
            text = _key_part("label", value) or ""
            if (text := model.label.aliases.get(text, text)) in model.classes:
                return text
        allowed = ", ".join(model.classes)
        raise RecordInvalid(f"{what} is no class", got=value, allowed=allowed, item=number, field="label")
    low, high = model.label.min, model.label.max
    try:
        number_found = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number_found = math.nan
    low_kept, high_kept = low is None or number_found >= low, high is None or number_found <= high
    if not math.isfinite(number_found) or not low_kept or not high_kept:
        allowed = f"a number from {'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"
        raise RecordInvalid(f"{what} is out of range", got=value, allowed=allowed, item=number, field="label")
    return repr(number_found)


def _observed(item: Mapping[str, Any], number: int) -> float | None:
    """Seconds since 1970; UTC where no zone is said."""
    value = item.get("observed_at")
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)):
            return None if value is None else float(value)
    except (ValueError, OverflowError):
        value = item["observed_at"]
    allowed = "ISO text, or seconds since 1970"
    what = f"outcome {number}: observed_at is no time"
    raise RecordInvalid(what, got=value, allowed=allowed, item=number, field="observed_at")


def _targets(arrivals: Iterable[_Arrival], by: Target) -> list[str]:
    return sorted({arrival.target for arrival in arrivals if arrival.by == by})


def _history(connection: Connection, model: str, arrivals: Sequence[_Arrival]) -> list[_Arrival]:
    """What is known of the targets, oldest first."""
    known: list[Any] = []
    for by in TARGETS:
        aimed = outcomes.c.target.in_(select(_listed(connection, _targets(arrivals, by)).c.value))
        known += connection.execute(select(outcomes).where(outcomes.c.model == model, outcomes.c.by == by, aimed))
    known.sort(key=lambda row: row.sequence)
    return [_Arrival(row.by, row.target, row.label, row.observed_at) for row in known]


def _unknown(connection: Connection, model: str, arrivals: Sequence[_Arrival]) -> tuple[str, ...]:
    """Targets without a prediction, in the order of arrival."""
    known = {by: _standing(connection, model, by, _targets(arrivals, by)) for by in TARGETS}
    return tuple(dict.fromkeys(arrival.target for arrival in arrivals if arrival.target not in known[arrival.by]))


def _standing(
    connection: Connection,
    model: str,
    by: Target,
    targets: Sequence[str],
    since: float = -math.inf,
    keep: Container[str] = (),
) -> set[str]:
    """Those of the targets that have a prediction since a moment, or one that is kept."""
    column = predictions.c[by]
    query = select(column, predictions.c.prediction_id, predictions.c.at)
    query = query.where(predictions.c.model == model, column.in_(select(_listed(connection, targets).c.value)))
    found = connection.execute(query)
    return {target for target, prediction_id, at in found if at >= since or prediction_id in keep}


class Writer(Protocol):
    """Adds predictions; what stands there already stays as it is."""

    def write(self, rows: Sequence[Logged]) -> None:
        """All of them in one commit. Raises LogUnavailable if the database is locked, away or full."""

    def close(self) -> None: ...


INSERT = f"INSERT INTO predictions ({', '.join(Logged._fields)}) "
ONCE = " ON CONFLICT (prediction_id) DO NOTHING"


class SqliteWriter:
    """Writes through a connection of its own. Checkpoints are left to `checkpoint`, outside of anybody's request.

    In WAL mode `synchronous = NORMAL` hands a commit to the operating system, which a killed process survives; `FULL`
    waits for the disk.
    """

    def __init__(self, path: Path, *, durable: bool, patience: float) -> None:
        self.path = path
        self.durable = durable
        self.patience = patience
        self._connection: sqlite3.Connection | None = None

    def write(self, rows: Sequence[Logged]) -> None:
        try:
            connection = self._connection or self._connect()
            if len(rows) == 1:
                connection.execute(_sqlite_insert(1), rows[0])
            else:
                self._write_many(connection, rows)
        except sqlite3.DatabaseError as problem:
            if not _is_busy(problem) or (self._connection and self._connection.in_transaction):
                self.close()
            if _is_away(problem):
                raise _away(problem) from problem
            raise

    def _write_many(self, connection: sqlite3.Connection, rows: Sequence[Logged]) -> None:
        """In statements of many rows: each is one step without Python's lock, for which another thread may be waiting."""
        connection.execute("BEGIN IMMEDIATE")
        start = 0
        while start < len(rows):
            size = min(STATEMENT_ROWS, 1 << ((len(rows) - start).bit_length() - 1))
            connection.execute(_sqlite_insert(size), tuple(chain.from_iterable(rows[start : start + size])))
            start += size
        connection.execute("COMMIT")

    def checkpoint(self, restart_at: int) -> None:
        """Move what the log holds into the database; beyond so many pages, make writers begin the log anew."""
        with suppress(sqlite3.DatabaseError):
            connection = self._connection or self._connect()
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages > restart_at:
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

    def close(self) -> None:
        """Roll back what is not committed and let go of the file; the next write opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self.patience,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection


def _sqlite_insert(rows: int) -> str:
    one = f"({', '.join('?' * len(Logged._fields))})"
    return f"{INSERT}VALUES {', '.join([one] * rows)}{ONCE}"


def _is_busy(problem: sqlite3.DatabaseError) -> bool:
    return getattr(problem, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _is_away(problem: sqlite3.DatabaseError) -> bool:
    """Locked, full, unreadable, damaged: nothing that is wrong with the rows."""
    return isinstance(problem, sqlite3.OperationalError) or type(problem) is sqlite3.DatabaseError


class PostgresWriter:
    """Writes through a connection of its own, in one statement per commit; makes a new one when it breaks.

    `synchronous_commit = off` answers before the server's disk has the commit: a killed service loses nothing, a server
    that crashes may lose the last moments.
    """

    STATEMENT = (
        f"{INSERT}SELECT * FROM json_to_recordset(%s) AS row (prediction_id text, model text, at float8, version int4, key text, "  # noqa: S608
        f"record text, answer text, prediction text, confidence float8, action text, control bool, fallback text){ONCE}"
    )
    """One value holds all rows: neither 12 values per row nor an array per column cost so little on this side."""

    def __init__(self, url: str, *, durable: bool, patience: float) -> None:
        self.url = url
        self.durable = durable
        self.patience = patience
        self._connection: psycopg.Connection[Any] | None = None

    def write(self, rows: Sequence[Logged]) -> None:
        reused = self._connection is not None
        try:
            self._write(rows)
        except (psycopg.OperationalError, psycopg.InternalError) as problem:
            broken = self._connection is None or self._connection.broken
            self.close()
            if not (reused and broken):
                raise _away(problem) from problem
            self.write(rows)  # the server was restarted in between; what it has got already, it keeps as it is

    def _write(self, rows: Sequence[Logged]) -> None:
        connection = self._connection or self._connect()
        document = msgspec.json.encode([row._asdict() for row in rows]).decode()
        connection.execute(self.STATEMENT, [document], prepare=True)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        wait = int(self.patience * 1_000)
        level = "on" if self.durable else "off"
        self._connection = psycopg.connect(
            self.url,
            autocommit=True,
            connect_timeout=2,
            tcp_user_timeout=max(wait, 1_000),
            options=f"-c synchronous_commit={level} -c lock_timeout={wait} -c statement_timeout={max(5 * wait, 5_000)}",
        )
        return self._connection


def _away(problem: Exception) -> LogUnavailable:
    return LogUnavailable(
        "predictions cannot be put on record now",
        got=" ".join(str(problem).split()),
        do="Check that the ledger's database runs, is not locked and has free space",
    )
