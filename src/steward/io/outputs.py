"""Where the answers of a batch go: a Parquet or CSV file, or a SQL table; all of them at once, or none.

Rows that were set aside go beside them: `answers.parquet` → `answers.rejected.parquet`, `scores` → `scores_rejected`.
"""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steward.errors import OutputRefused, StewardError, StoreUnavailable
from steward.io.store import remove_abandoned

ALLOWED = "a .parquet or .csv file, or postgresql://…::table, sqlite:///file.db::table, duckdb:///file.db::table"
OURS = frozenset({"prediction", "model_version"})
"""Columns by which a table of answers is known: anything else is not overwritten."""
ROWS = 20_000


@dataclass(frozen=True)
class Output:
    """One place for answers.

    Attributes
    ----------
    place : path, or database and table.
    shown : the place as the user wrote it, with `${NAME}` or `…` for what is secret.
    rejected : the same for rows that were set aside.

    Examples
    --------
    >>> Output.at("scores/today.parquet").rejected
    'scores/today.rejected.parquet'
    >>> Output.at("sqlite:///risks.db::scores").rejected
    'sqlite:///risks.db::scores_rejected'
    >>> Output.at("scores.xlsx")
    Traceback (most recent call last):
    steward.errors.OutputRefused: answers cannot be written there: got 'scores.xlsx'; allowed: a .parquet or .csv ...
    """

    place: str
    shown: str
    rejected: str

    @classmethod
    def at(cls, place: str, shown: str | None = None) -> "Output":
        """Raises OutputRefused for a place that cannot be written."""
        shown = re.sub(r"(://[^/@:]*):[^/@$]*@", r"\1:…@", shown or place)
        if re.match(r"(postgresql|sqlite|duckdb)(\+\w+)?://.*::[\w.]+$", place):
            return cls(place, shown, f"{shown}_rejected")
        path = Path(place)
        if "://" not in place and path.suffix in (".parquet", ".csv"):
            return cls(place, shown, str(path.with_suffix(f".rejected{path.suffix}")))
        raise OutputRefused("answers cannot be written there", got=shown, allowed=ALLOWED)

    def check(self, source: str) -> None:
        """Raises OutputRefused if the place holds something that is no batch's answers, or what is to be scored."""
        if self.shown == source:
            raise OutputRefused("a batch does not overwrite what it scores", got=source, do="Name another output")
        with self._explained():
            columns = self._columns()
        if columns is not None and not set(columns) >= OURS:
            raise OutputRefused(
                "something else is there already", got=self.shown, do="Name another output, or remove it by hand"
            )

    def publish(self, answers: Path, rejected: Path | None) -> None:
        """Put Parquet files in their place, replacing what an earlier batch left there.

        Raises
        ------
        StoreUnavailable : disk full, database away, no permission; nothing has changed then.
        """
        with self._explained():
            if self._is_sql:
                self._publish_tables(answers, rejected)
            else:
                self._publish_files(answers, rejected)

    @property
    def _is_sql(self) -> bool:
        return "::" in self.place

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import duckdb
        import sqlalchemy

        try:
            yield
        except StewardError:
            raise
        except (OSError, duckdb.Error, sqlalchemy.exc.SQLAlchemyError) as problem:
            what = type(problem).__name__ if self._is_sql else str(problem)  # a driver's text may hold the password
            do = "Check place and permission, then run again: nothing half-written is left"
            raise StoreUnavailable(f"{self.shown} cannot be used now", got=what, do=do) from None

    def _columns(self) -> Sequence[str] | None:
        """Columns of the table that is there, None if there is none; an unreadable file has no columns."""
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        if self._is_sql:
            database, table = self._database()
            return database.columns(table)
        path = Path(self.place)
        if not path.exists():
            return None
        try:
            if path.suffix == ".parquet":
                return list(pa.parquet.read_schema(path).names)
            return list(pa.csv.open_csv(path).schema.names)
        except pa.ArrowException:
            return []

    def _publish_files(self, answers: Path, rejected: Path | None) -> None:
        """The rejected rows first: where new answers are, what stands beside them belongs to them."""
        target = Path(self.place)
        beside = target.with_suffix(f".rejected{target.suffix}")
        if rejected is None:
            beside.unlink(missing_ok=True)
        else:
            _place(rejected, beside)
        _place(answers, target)

    def _publish_tables(self, answers: Path, rejected: Path | None) -> None:
        database, table = self._database()
        with database.transaction() as write:
            write(table, answers)
            write(f"{table}_rejected", rejected)

    def _database(self) -> "tuple[_DuckDatabase | _SqlDatabase, str]":
        url, _, table = self.place.rpartition("::")
        if url.startswith("duckdb"):
            return _DuckDatabase(Path(re.sub(r"^duckdb:///", "", url)).expanduser()), table
        return _SqlDatabase(re.sub(r"^postgresql://", "postgresql+psycopg://", url)), table


def _place(made: Path, target: Path) -> None:
    """Written beside the target, on the disk, and then renamed: a reader sees the old file or the whole new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # says to the next run that somebody is writing
            if target.suffix == ".csv":
                _write_csv(made, stream)
            else:
                with made.open("rb") as content:
                    shutil.copyfileobj(content, stream, 1 << 20)
            stream.flush()
            os.fsync(stream.fileno())
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _write_csv(made: Path, stream: Any) -> None:
    import pyarrow.csv

    batches = _batches(made)
    first = next(batches)
    with pyarrow.csv.CSVWriter(stream, first.schema) as writer:
        writer.write(first)
        for batch in batches:
            writer.write(batch)


def _batches(made: Path) -> Iterator[Any]:
    """Arrow tables of a Parquet file, texts as plain texts; at least one, which may be empty."""
    import pyarrow as pa
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(made) as file:
        plain = pa.schema([(f.name, getattr(f.type, "value_type", f.type)) for f in file.schema_arrow])
        yield plain.empty_table()
        for batch in file.iter_batches(ROWS):
            yield pa.table(batch).cast(plain)


Write = Callable[[str, Path | None], None]
"""Replaces a table by what a Parquet file holds, or removes it."""


@dataclass(frozen=True)
class _DuckDatabase:
    path: Path

    def columns(self, table: str) -> list[str] | None:
        import duckdb

        if not self.path.exists():
            return None
        schema, _, name = table.rpartition(".")
        with duckdb.connect(str(self.path), read_only=True) as connection:
            found = connection.execute(
                "SELECT column_name FROM duckdb_columns() WHERE table_name = ? AND schema_name = ?",
                [name, schema or "main"],
            ).fetchall()
        return [column for (column,) in found] or None

    @contextmanager
    def transaction(self) -> Iterator[Write]:
        import duckdb

        def write(table: str, made: Path | None) -> None:
            quoted = ".".join(f'"{part}"' for part in table.split("."))
            connection.execute(f"DROP TABLE IF EXISTS {quoted}")
            if made is not None:
                connection.execute(f"CREATE TABLE {quoted} AS FROM read_parquet(?)", [str(made)])

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.begin()
            yield write
            connection.commit()


@dataclass(frozen=True)
class _SqlDatabase:
    url: str

    def columns(self, table: str) -> list[str] | None:
        import sqlalchemy

        schema, _, name = table.rpartition(".")
        with self._engine() as engine:
            inspector = sqlalchemy.inspect(engine)
            with suppress(sqlalchemy.exc.NoSuchTableError):
                return [column["name"] for column in inspector.get_columns(name, schema or None)]
        return None

    @contextmanager
    def transaction(self) -> Iterator[Write]:
        import sqlalchemy

        def write(table: str, made: Path | None) -> None:
            schema, _, name = table.rpartition(".")
            old = sqlalchemy.Table(name, sqlalchemy.MetaData(), schema=schema or None)
            if made is None:
                old.drop(connection, checkfirst=True)
                return
            batches = _batches(made)
            new = _table(f"{name}__new", schema or None, next(batches).schema)
            new.drop(connection, checkfirst=True)
            new.create(connection)
            for batch in batches:
                connection.execute(new.insert(), batch.to_pylist())
            old.drop(connection, checkfirst=True)
            quote = connection.dialect.identifier_preparer
            connection.exec_driver_sql(f"ALTER TABLE {quote.format_table(new)} RENAME TO {quote.quote(name)}")

        with self._engine() as engine, engine.begin() as connection:
            yield write

    @contextmanager
    def _engine(self) -> Iterator[Any]:
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.url)
        if engine.dialect.name == "sqlite":  # Python's driver begins no transaction before a CREATE or DROP
            sqlalchemy.event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
            sqlalchemy.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        try:
            yield engine
        finally:
            engine.dispose()


def _table(name: str, schema: str | None, columns: Any) -> Any:
    import pyarrow.types as kinds
    import sqlalchemy

    def kind(field: Any) -> Any:
        if kinds.is_boolean(field.type):
            return sqlalchemy.Boolean()
        if kinds.is_integer(field.type):
            return sqlalchemy.BigInteger()
        if kinds.is_floating(field.type):
            return sqlalchemy.Double()
        if kinds.is_timestamp(field.type):
            return sqlalchemy.DateTime(timezone=field.type.tz is not None)
        return sqlalchemy.Text()

    made = [sqlalchemy.Column(field.name, kind(field)) for field in columns]
    return sqlalchemy.Table(name, sqlalchemy.MetaData(), *made, schema=schema)
