"""The ledger: what was decided, in one append-only, hash-chained SQL table (SQLite, or PostgreSQL by URL).

Every entry carries the digest of the one before it, so that whoever changes, removes, inserts or moves an entry behind
Steward's back is found by `Ledger.verify`. Two things no chain can see by itself: that its newest entries were cut off,
and that somebody wrote all of it anew from some entry on. Both show when the digest of the newest entry was kept in
another place (a mail, a ticket, a commit): `ChainReport.head` is that digest, and `verify(anchor=...)` looks for it.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from sqlite3 import OperationalError as SqliteProblem
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    and_,
    cast,
    create_engine,
    event,
    func,
    insert,
    inspect,
    make_url,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from steward.errors import LedgerConflict, LedgerUnavailable, SettingsError
from steward.records import canonical_json

GENESIS = "0" * 64
REVISIONS = ("0001", "0002", "0003", "0004")
"""Every schema version that this code knows, oldest first; the last is current."""

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_SECONDS = 30.0
"""How long a lock or a connection is waited for, unless said otherwise."""

LOCK = 0x53746577617264
"""PostgreSQL's advisory lock that makes writers take turns; the bytes spell "Steward"."""

SEARCHED = 20_000
"""Entries in which a text is looked for at a time."""
STREAMED = 1_000
"""Entries that are in memory at a time while all of them are read."""
NEAR = 100
"""How many places away the origin of a moved entry is looked for."""

DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "sqlite": "sqlite"}

entries = Table(
    "entries",
    MetaData(),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", Text, nullable=False, unique=True),
    Column("digest", Text, nullable=False, unique=True),
)


@dataclass(frozen=True)
class Entry:
    """One fact: at a moment, about a model, of a kind, about a subject."""

    sequence: int
    at: datetime
    model: str
    kind: str
    subject: str
    body: dict[str, Any]
    previous: str
    digest: str

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "at": self.at.isoformat()}


@dataclass(frozen=True)
class Problem:
    """Something that the chain shows was done to the ledger; `sequences` are the entries it concerns."""

    finding: Literal["changed", "removed", "inserted", "moved", "guard missing", "anchor missing"]
    sequences: tuple[int, ...]
    detail: str


@dataclass(frozen=True)
class ChainReport:
    """What `Ledger.verify` found."""

    entries: int
    head: str
    """Digest of the newest entry: kept in another place, it shows later whether entries after it were cut off."""
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        problems = [{**vars(problem), "sequences": list(problem.sequences)} for problem in self.problems]
        return {"ok": self.ok, "entries": self.entries, "head": self.head, "problems": problems}


@dataclass(frozen=True)
class Wanted:
    """Which entries; what is None or empty excludes none."""

    models: Collection[str] | None = None
    kinds: Collection[str] | None = None
    text: str = ""
    """In subject or body, in upper or lower case."""
    since: datetime | None = None
    until: datetime | None = None
    """`at` from `since` (included) to `until` (not included)."""


@dataclass(frozen=True)
class Found:
    """Entries, newest first. `before` : where the search goes on; None if nothing older fits."""

    entries: tuple[Entry, ...]
    before: int | None


def digest_of_entry(previous: str, sequence: int, at: str, model: str, kind: str, subject: str, body: str) -> str:
    """SHA-256 (hex) over the previous digest and the canonical JSON of an entry; `at` and `body` as they are stored.

    >>> digest_of_entry(GENESIS, 1, "2026-01-01T00:00:00.000000+00:00", "m", "trigger", "run", "{}")[:16]
    '00be3e9325f7444c'
    """
    content = {"at": at, "body": body, "kind": kind, "model": model, "sequence": sequence, "subject": subject}
    return hashlib.sha256((previous + canonical_json(content)).encode()).hexdigest()


class Ledger:
    """The entries behind a SQLAlchemy URL; the schema is created or upgraded on first use.

    Parameters
    ----------
    url : `sqlite:///path` or `postgresql://user:password@host/database`.
    timeout : seconds to wait for a lock or a connection; LOCK_SECONDS if None.

    Raises
    ------
    SettingsError : the URL is none, or of another kind of database.

    Every method raises LedgerUnavailable if the database is locked, away, damaged or newer than this code.
    """

    def __init__(self, url: str, timeout: float | None = None) -> None:
        self.url = _parse(url)
        self.timeout = LOCK_SECONDS if timeout is None else timeout

    @property
    def shown_url(self) -> str:
        """The URL without anything secret."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    def append(self, model: str, kind: str, subject: str, body: dict[str, Any], at: datetime) -> Entry:
        """Add an entry and answer it; the same body under the same subject again answers the entry that is there.

        Parameters
        ----------
        body : plain JSON without NaN.
        at : the moment of the fact; time-zone aware.

        Raises
        ------
        LedgerConflict : another body stands under this model, kind and subject.
        """
        if at.tzinfo is None:
            raise ValueError(f"a moment needs a time zone: {at}")
        content = canonical_json(body)
        with self.connected(write=True) as connection:
            return self._add(connection, model, kind, subject, content, at)

    def append_all(
        self, model: str, news: Sequence[tuple[str, str, Any]], at: datetime, *, guard: tuple[Sequence[str], int]
    ) -> list[Entry]:
        """Add several entries, all or none: each is a kind, a subject and a body.

        Parameters
        ----------
        guard : kinds, and the sequence number up to which they were read: what was decided upon them holds only if
            nobody has added one since.

        Raises
        ------
        LedgerConflict : somebody has, or one of the subjects is taken by another body.
        """
        kinds, read = guard
        with self.connected(write=True) as connection:
            newer = select(entries).where(entries.c.model == model, entries.c.kind.in_(kinds))
            if (found := connection.execute(newer.where(entries.c.sequence > read).limit(1)).one_or_none()) is not None:
                raise _conflict(found)
            return [
                self._add(connection, model, kind, subject, canonical_json(body), at) for kind, subject, body in news
            ]

    @staticmethod
    def _add(connection: Connection, model: str, kind: str, subject: str, body: str, at: datetime) -> Entry:
        found = connection.execute(_one(model, kind, subject)).one_or_none()
        if found is not None and found.body != body:
            raise _conflict(found)
        return _entry(found or _append(connection, model, kind, subject, body, at))

    def find(self, model: str, kind: str, subject: str) -> Entry | None:
        """The entry under a subject, None if there is none."""
        with self.connected() as connection:
            row = connection.execute(_one(model, kind, subject)).one_or_none()
        return None if row is None else _entry(row)

    def entries(
        self,
        model: str | None = None,
        kind: str | Collection[str] | None = None,
        *,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[Entry]:
        """Entries in the order in which they were added, all of them unless a model, a kind or some kinds are named."""
        query = select(entries).order_by(entries.c.sequence.desc() if newest_first else entries.c.sequence).limit(limit)
        if model is not None:
            query = query.where(entries.c.model == model)
        if kind is not None:
            query = query.where(entries.c.kind.in_([kind] if isinstance(kind, str) else kind))
        with self.connected() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def newest(
        self, models: Collection[str], kinds: Collection[str], count: int = 1
    ) -> dict[tuple[str, str], list[Entry]]:
        """The newest entries of each model and kind, oldest first; one query, however many models there are."""
        found: dict[tuple[str, str], list[Entry]] = {}
        with self.connected() as connection:
            for row in connection.execute(_newest(connection, models, kinds, count, *entries.c)):
                found.setdefault((row.model, row.kind), []).append(_entry(row))
        return found

    def series(
        self, models: Collection[str], kind: str, place: Sequence[str], count: int
    ) -> dict[str, list[tuple[datetime, Any]]]:
        """What stands at a place of the bodies of each model's newest entries, and when, oldest first; None where nothing does.

        The database looks into the bodies, so that long ones cost nothing here.
        """
        found: dict[str, list[tuple[datetime, Any]]] = {}
        with self.connected() as connection:
            columns = entries.c.model, entries.c.at, _at(connection, place)
            for model, at, value in connection.execute(_newest(connection, models, [kind], count, *columns)):
                told = None if value is None else msgspec.json.decode(value)
                found.setdefault(model, []).append((datetime.fromisoformat(at), told))
        return found

    def search(self, wanted: Wanted, *, before: int | None = None, limit: int) -> Found:
        """Entries that fit, newest first; a text is looked for in the next `SEARCHED` entries that fit otherwise.

        Parameters
        ----------
        before : only entries with a smaller sequence number.
        """
        fitting = _fitting(wanted, before)
        with self.connected() as connection:
            rows = connection.execute(_matching(fitting, wanted.text, limit + 1)).all()
            last = connection.execute(fitting.offset(SEARCHED - 1).limit(1)).scalar() if wanted.text else None
        if len(rows) > limit:
            last = rows[limit - 1].sequence
        return Found(tuple(_entry(row) for row in rows[:limit]), last)

    def size(self) -> tuple[int, str]:
        """The sequence number and the digest of the newest entry; 0 and GENESIS where there is none."""
        query = select(entries.c.sequence, entries.c.digest).order_by(entries.c.sequence.desc()).limit(1)
        with self.connected() as connection:
            sequence, digest = connection.execute(query).one_or_none() or (0, GENESIS)
        return sequence, digest

    def at(self, sequence: int) -> datetime | None:
        """When an entry says that it was written."""
        with self.connected() as connection:
            moment = connection.execute(select(entries.c.at).where(entries.c.sequence == sequence)).scalar()
        return None if moment is None else datetime.fromisoformat(moment)

    def holds(self, digest: str) -> bool:
        """Whether an entry has this digest."""
        with self.connected() as connection:
            found = connection.execute(select(entries.c.sequence).where(entries.c.digest == digest)).first()
        return found is not None

    def verify(self, anchor: str | None = None, *, after: int = 0) -> ChainReport:
        """Walk the chain and name every entry that was changed, removed, inserted or moved.

        Parameters
        ----------
        anchor : the `head` of an earlier report; a ledger that lost it was cut off or written anew.
        after : only the entries after this sequence number are looked at, and whether they follow that one.
        """
        query = select(entries).where(entries.c.sequence >= after).order_by(entries.c.sequence)
        with self.connected() as connection:
            walk = _Walk(anchor, sequence=max(0, after - 1))
            for row in connection.execute(query, execution_options={"yield_per": STREAMED}):
                walk.step(row, known=row.sequence == after)
            guards = _missing_guards(connection)
        problems = [*guards, *walk.problems]
        if not walk.anchored:
            problems.append(Problem("anchor missing", (), f"no entry has the digest {anchor}: entries were cut off"))
        return ChainReport(walk.entries, walk.digest, tuple(problems))

    @cached_property
    def _engine(self) -> Engine:
        """An engine on a current schema. It keeps no connection, so that it survives a fork."""
        if self.url.get_backend_name() == "sqlite":
            Path(self.url.database or "").parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(self.url, poolclass=NullPool, connect_args={"timeout": self.timeout})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            options = {"connect_timeout": max(2, int(self.timeout))}
            engine = create_engine(self.url, poolclass=NullPool, connect_args=options)
        if _revision(engine) != REVISIONS[-1]:
            _upgrade(engine, self.timeout)
        return engine

    @contextmanager
    def connected(self, *, write: bool = False) -> Iterator[Connection]:
        """A transaction; writers take turns."""
        try:
            engine = self._engine
            with _writing(engine, self.timeout) if write else engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as problem:
            raise LedgerUnavailable(
                "the ledger's database cannot be used now",
                got=f"{' '.join(str(getattr(problem, 'orig', None) or problem).split())} ({self.shown_url})",
                do="Check that it runs, is not locked, has free space, and that STEWARD_LEDGER_URL is right; then run again",
            ) from problem


def _parse(url: str) -> URL:
    """Raises SettingsError; never with the URL in it, which may hold a password."""
    allowed = "sqlite:///path or postgresql://user:password@host/database"
    try:
        parsed = make_url(url)
        driver = DRIVERS.get(parsed.drivername, parsed.drivername)
        parsed = parsed.set(drivername=driver)
        backend = parsed.get_dialect().name
    except (ArgumentError, NoSuchModuleError, ValueError, ImportError):
        backend = "a URL that names no database"
    if backend not in ("sqlite", "postgresql"):
        raise SettingsError("STEWARD_LEDGER_URL cannot be used", got=backend, allowed=allowed)
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SettingsError("a ledger in memory would forget everything", got="sqlite without a path", allowed=allowed)
    return parsed


def _one(model: str, kind: str, subject: str) -> Any:
    return select(entries).where(entries.c.model == model, entries.c.kind == kind, entries.c.subject == subject)


def _at(connection: Connection, place: Sequence[str]) -> Any:
    """What stands at a place of the body: a list or an object, as text."""
    if connection.dialect.name == "sqlite":
        return func.json_extract(entries.c.body, "$." + ".".join(place))
    return func.json_extract_path_text(cast(entries.c.body, JSON), *place)


def _newest(
    connection: Connection, models: Collection[str], kinds: Collection[str], count: int, *columns: Any
) -> Select[Any]:
    """Of each pair of model and kind: found through the index, from the entry that is so many places from its end."""
    names, sorts = (_listed(connection, asked) for asked in (models, kinds))
    every = select(names.c.value.label("model"), sorts.c.value.label("kind")).join_from(names, sorts, true())
    pairs = every.cte().prefix_with("MATERIALIZED")  # or SQLite looks through all entries of a model for its kinds
    older = entries.alias()
    place = select(older.c.sequence).where(older.c.model == pairs.c.model, older.c.kind == pairs.c.kind)
    first = place.order_by(older.c.sequence.desc()).offset(count - 1).limit(1).scalar_subquery()
    mine = and_(
        entries.c.model == pairs.c.model, entries.c.kind == pairs.c.kind, entries.c.sequence >= func.coalesce(first, 0)
    )
    return select(*columns).join_from(pairs, entries, mine).order_by(entries.c.sequence)


def _listed(connection: Connection, texts: Collection[str]) -> Any:
    """A table of these texts in the column `value`, which travel as one parameter: hundreds take longer than the query."""
    if connection.dialect.name == "sqlite":
        return func.json_each(msgspec.json.encode(list(texts)).decode()).table_valued("value").alias()
    return func.json_array_elements_text(cast(list(texts), JSON)).table_valued("value").render_derived()


def _fitting(wanted: Wanted, before: int | None) -> Select[Any]:
    """Sequence numbers of entries that fit but for the text, newest first: all of it stands in one index."""
    query = select(entries.c.sequence).order_by(entries.c.sequence.desc())
    if wanted.models is not None:
        query = query.where(entries.c.model.in_(wanted.models))
    if wanted.kinds:
        query = query.where(entries.c.kind.in_(wanted.kinds))
    if wanted.since:
        query = query.where(entries.c.at >= _moment(wanted.since))
    if wanted.until:
        query = query.where(entries.c.at < _moment(wanted.until))
    return query if before is None else query.where(entries.c.sequence < before)


def _matching(fitting: Select[Any], text: str, limit: int) -> Select[Any]:
    """The entries behind sequence numbers that hold a text."""
    places = fitting.limit(SEARCHED if text else limit).subquery()
    query = select(entries).join_from(places, entries, entries.c.sequence == places.c.sequence)
    if text:
        inside = (entries.c.body.icontains(text, autoescape=True), entries.c.subject.icontains(text, autoescape=True))
        query = query.where(or_(*inside))
    return query.order_by(places.c.sequence.desc()).limit(limit)


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _append(connection: Connection, model: str, kind: str, subject: str, body: str, at: datetime) -> Row[Any]:
    last = connection.execute(select(entries).order_by(entries.c.sequence.desc()).limit(1)).one_or_none()
    sequence, previous = (last.sequence + 1, last.digest) if last else (1, GENESIS)
    moment = _moment(at)
    digest = digest_of_entry(previous, sequence, moment, model, kind, subject, body)
    values = (sequence, moment, model, kind, subject, body, previous, digest)
    return connection.execute(insert(entries).values(values).returning(entries)).one()


def _entry(row: Row[Any]) -> Entry:
    sequence, at, model, kind, subject, body, previous, digest = tuple(row)
    return Entry(
        sequence, datetime.fromisoformat(at), model, kind, subject, msgspec.json.decode(body), previous, digest
    )


def _conflict(found: Row[Any]) -> LedgerConflict:
    return LedgerConflict(
        f"the ledger already holds another {found.kind} of {found.model} under this subject",
        got=found.subject,
        do=f"`steward history {found.model}` shows entry {found.sequence}; what stands there stays",
        sequence=found.sequence,
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Transactions begin where SQLAlchemy says so, and readers do not block the writer."""
    connection.isolation_level = None
    with suppress(SqliteProblem):  # another process is switching at this moment; the mode is the file's, not ours
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', '')}")


@contextmanager
def _writing(engine: Engine, timeout: float) -> Iterator[Connection]:
    """A transaction that no other writer is in: SQLite's write lock, or an advisory lock of PostgreSQL."""
    with engine.execution_options(begin="IMMEDIATE").begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = {int(timeout * 1_000)}"))
            connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
        yield connection


def _revision(engine: Engine) -> str | None:
    """The schema's version, None for a new database. Raises LedgerUnavailable for one that this code does not know."""
    with engine.begin() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if revision is not None and revision not in REVISIONS:
        raise LedgerUnavailable(
            "a newer Steward has written this ledger",
            got=f"schema {revision}",
            allowed=f"up to {REVISIONS[-1]}",
            do="Install the newer Steward here too",
        )
    return revision


def _upgrade(engine: Engine, timeout: float) -> None:
    """Run the migrations that are missing; a second process waits and then finds nothing to do."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _writing(engine, timeout) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _missing_guards(connection: Connection) -> list[Problem]:
    """Triggers that are gone: somebody wanted to change or remove entries."""
    query = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'entries'",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE tgrelid = 'entries'::regclass AND tgenabled IN ('O', 'A')",
    }[connection.dialect.name]
    found = set(connection.execute(text(query)).scalars())
    expected = {"entries_no_update", "entries_no_delete"}
    return [Problem("guard missing", (), f"the trigger {name} is gone") for name in sorted(expected - found)]


@dataclass
class _Walk:
    """A way along the chain, one row after the other in the order of their sequence numbers."""

    anchor: str | None = None
    problems: list[Problem] = field(default_factory=list)
    entries: int = 0
    sequence: int = 0
    digest: str = GENESIS
    intact: bool = True
    anchored: bool = False

    def __post_init__(self) -> None:
        self.anchored = not self.anchor or self.anchor == GENESIS

    def step(self, row: Row[Any], *, known: bool = False) -> None:
        """Go to a row; a known one is where the way begins."""
        if not known:
            self._judge(row)
            self.entries += 1
        self.sequence, self.digest = row.sequence, row.digest
        self.anchored = self.anchored or row.digest == self.anchor

    def _judge(self, row: Row[Any]) -> None:
        gap = row.sequence > self.sequence + 1
        if gap:
            self.problems.append(_removed(self.sequence + 1, row.sequence - 1))
        follows = row.previous == self.digest or gap or not self.intact
        self.intact = _digest(row, row.sequence) == row.digest
        if not self.intact:
            self.problems.append(_moved_or_changed(row))
        elif not follows:
            detail = f"entry {row.sequence} does not follow the one before it: one of them was made up later"
            self.problems.append(Problem("inserted", (row.sequence,), detail))


def _digest(row: Row[Any], sequence: int) -> str:
    return digest_of_entry(row.previous, sequence, row.at, row.model, row.kind, row.subject, row.body)


def _removed(first: int, last: int) -> Problem:
    named = f"entry {first} is" if first == last else f"entries {first} to {last} are"
    return Problem("removed", tuple(range(first, last + 1)), f"{named} gone")


def _moved_or_changed(row: Row[Any]) -> Problem:
    """An entry whose digest fits another place was moved from there; one that fits nowhere was changed or made up."""
    for place in range(max(1, row.sequence - NEAR), row.sequence + NEAR + 1):
        if _digest(row, place) == row.digest:
            return Problem("moved", (row.sequence,), f"entry {row.sequence} was written as entry {place}")
    return Problem("changed", (row.sequence,), f"entry {row.sequence} is not what its digest says was written")
