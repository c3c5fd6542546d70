"""Sources and snapshots as Ibis tables; DuckDB does the work, inside this process and without a network.

A source is read where it is: Parquet is scanned in place; text files and SQL tables are copied once, every value as
text, into a table of the session, because they are expensive to read and their order is not promised.
"""

import difflib
import glob
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from steward.config import Source
from steward.errors import SettingsError, SourceMissing, SourceUnavailable, SourceUnreadable, StewardError
from steward.io.store import scratch_folder

PARQUET = (".parquet", ".pq")
TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".csv.zst")
SQL = ("postgresql", "sqlite", "duckdb")
FORMATS = f"{', '.join((*PARQUET, *TEXT))}, or {', '.join(f'{name}://…::table' for name in SQL)}"
BATCH = 20_000
NEARBY = 8

SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET enable_progress_bar = false",
    "SET disabled_optimizers = 'filter_pushdown'",
    "SET perfect_ht_threshold = 18",
)
"""Filters stay where they are: a contract's are many, and a Parquet scan works them out one by one, in twice the time.
Whole numbers of up to 18 bits are grouped by position instead of by hash, which profiles of very many rows do most: in 0.6 times the time."""
COMPILED = 200
"""Queries whose SQL a process remembers: those of a few looks."""
BLOCK = 131_072
"""Rows of a block, and of a row group of a stored table."""
STORED = {"compression": "lz4", "store_schema": False, "write_statistics": False}
"""How PyArrow writes what only Steward reads, and whole: nobody skips row groups by their statistics."""


class Session:
    """One in-memory DuckDB: opened for a step, gone with it.

    Parameters
    ----------
    threads : threads of a query; results do not depend on it.
    folder : where queries that outgrow memory spill, and where remote files are copied to; exists.
    memory : DuckDB's limit, such as `4GB`; 60 % of the machine's memory if None.
    """

    def __init__(self, threads: int, folder: Path, memory: str | None = None) -> None:
        import ibis

        warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning, "ibis")  # Ibis 12 on DuckDB 2
        self.folder = folder
        self.numbers = itertools.count()
        self.backend = ibis.duckdb.connect(
            threads=threads,
            autoinstall_known_extensions=False,
            preserve_insertion_order=True,
            **({"memory_limit": memory} if memory else {"memory_limit": f"{_memory_bytes() * 6 // 10}B"}),
        )
        self.connection = self.backend.con
        for statement in (*SETTINGS, f"SET temp_directory = {_quoted(folder)}"):
            self.connection.execute(statement)

    def source(self, source: Source) -> Any:
        """The table behind `source.table` as an Ibis table.

        Raises SourceMissing, SourceUnreadable, SourceUnavailable, SettingsError (a `${NAME}` that is not set).
        """
        place = filled(source.table, os.environ)
        with _readable(source.table, place):
            if "::" in place and place.split("://")[0].split("+")[0] in SQL:
                return self._database(source, place)
            return self._files(source.table, place)

    def parquet(self, *paths: Path, numbered: bool = False) -> Any:
        """Parquet files as one Ibis table, columns matched by name; `numbered` adds `file_row_number`."""
        options = {"file_row_number": True} if numbered else {}
        names = [str(path) for path in paths]
        return self.backend.read_parquet(
            names, table_name=self._name("parquet"), union_by_name=len(paths) > 1, **options
        )

    def row(self, table: Any) -> dict[str, Any]:
        """The only row of an Ibis table, as Python values."""
        return self.rows(table)[0]

    def rows(self, table: Any) -> list[dict[str, Any]]:
        """All rows of a small Ibis table, as Python values."""
        found: list[dict[str, Any]] = self.arrow(table).to_pylist()
        return found

    def arrow(self, table: Any) -> Any:
        """An Ibis table as an Arrow table; Ibis's own way to it warns of what DuckDB 2 has renamed."""
        found = self.connection.sql(self._compiled(table)).to_arrow_table()
        return found.cast(table.schema().to_pyarrow())

    def blocks(self, table: Any, dictionaries: Sequence[str] = (), rows: int = BLOCK) -> Iterator[Any]:
        """The rows of an Ibis table in its own order as Arrow tables of one chunk: all of `rows` rows, but the last.

        Only a few blocks are in memory at a time, and each is made while the one before is used; where one begins
        depends on nothing but the rows.

        Parameters
        ----------
        dictionaries : text columns whose different texts are stored once per block.
        """
        return _ahead(self._blocks(table, dictionaries, rows))

    def _blocks(self, table: Any, dictionaries: Sequence[str], rows: int) -> Iterator[Any]:
        import pyarrow as pa

        schema = table.schema().to_pyarrow()
        reader = self.connection.sql(self._compiled(table)).to_arrow_reader(rows)
        waiting: list[Any] = []
        for batch in reader:
            waiting.append(pa.Table.from_batches([batch]))
            while sum(part.num_rows for part in waiting) >= rows:
                joined = pa.concat_tables(waiting)
                yield _block(joined.slice(0, rows).cast(schema), dictionaries)
                waiting = [joined.slice(rows)]
        rest = pa.concat_tables(waiting) if waiting else reader.schema.empty_table()
        if rest.num_rows or not waiting:
            yield _block(rest.cast(schema), dictionaries)

    def stage(self, table: Any) -> Any:
        """The same table under a name of its own, not yet computed: what builds on it compiles in a fraction of the time."""
        return self._made("VIEW", self._name("stage"), table)

    def _name(self, what: str) -> str:
        """Of a table: the same ones in every session that asks for the same, so that its queries are compiled once."""
        return f"{what}_{next(self.numbers)}"

    def _compiled(self, table: Any) -> str:
        return _compiled(self.backend, table.op())

    def _made(self, what: str, name: str, table: Any) -> Any:
        self.connection.execute(f"CREATE TEMP {what} {name} AS {self._compiled(table)}")
        return self._named(name, table.schema())

    def _named(self, name: str, columns: Mapping[str, Any]) -> Any:
        """A table whose columns are known: to ask the engine for them costs as much as to compile the query."""
        import ibis.expr.operations as ops

        schema = {column: _stored_as(kind) for column, kind in columns.items()}
        return ops.DatabaseTable(name, schema=schema, source=self.backend).to_expr()

    def load(self, arrow: Any) -> Any:
        """An Arrow table, or reader of batches, as an Ibis table of the session."""
        import ibis

        name = self._name("loaded")
        self.connection.register("arriving", arrow)
        try:
            self.connection.execute(f"CREATE TEMP TABLE {name} AS FROM arriving")
        finally:
            self.connection.unregister("arriving")
        return self._named(name, ibis.Schema.from_pyarrow(arrow.schema))

    def keep(self, table: Any) -> Any:
        """The same table, computed once and kept for the session."""
        return self._made("TABLE", self._name("kept"), table)

    def write(self, table: Any, path: Path) -> None:
        """Write an Ibis table as Parquet, in its own order: the same rows make the same bytes, whatever the threads."""
        self.connection.execute(
            f"COPY ({self._compiled(table)}) TO {_quoted(path)} (FORMAT parquet, COMPRESSION lz4, ROW_GROUP_SIZE 122880)"
        )

    def close(self) -> None:
        self.backend.disconnect()

    def _files(self, shown: str, place: str) -> Any:
        paths = self._local(shown, place)
        if suspicious := [path for path in paths if path.stat().st_size == 0]:
            raise SourceUnreadable("a source file is empty", got=str(suspicious[0]), do="Remove or fill it")
        kinds = {_kind(path) for path in paths}
        if kinds == {"parquet"}:
            return self.parquet(*paths)
        if kinds == {"text"}:
            return self._text(paths)
        raise SourceUnreadable("not a table that can be read", got=shown, allowed=FORMATS, do="Convert it to Parquet")

    def _text(self, paths: Sequence[Path]) -> Any:
        for path in paths:
            with path.open("rb") as stream:
                start = b"" if path.suffix in (".gz", ".zst") else stream.read(1 << 16)
            if b"\0" in start:
                raise SourceUnreadable(
                    "a text file with zero bytes is no CSV", got=str(path), allowed=FORMATS, do="Convert it to Parquet"
                )
        table = self.backend.read_csv(
            [str(path) for path in paths],
            table_name=self._name("text"),
            header=True,
            all_varchar=True,
            union_by_name=len(paths) > 1,
        )
        return self.keep(table)

    def _local(self, shown: str, place: str) -> list[Path]:
        """Local paths of a path, glob or URL, sorted; remote files are copied into the session's folder."""
        if "://" not in place:
            found = [Path(name) for name in sorted(glob.glob(str(Path(place).expanduser()), recursive=True))]  # noqa: PTH207
            found = [path for path in found if path.is_file()]
            if not found:
                raise _nothing_there(shown, Path(place).expanduser())
            return found
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(place)
        names = sorted(filesystem.glob(path)) if re.search(r"[*?\[]", path) else [path]
        if not names:
            raise SourceMissing("no file matches the source", got=shown, do="Check source.table")
        copies = []
        for number, name in enumerate(names):
            copy = self.folder / f"source-{number:06d}-{Path(str(name)).name}"
            filesystem.get_file(name, str(copy))
            copies.append(copy)
        return copies

    def _database(self, source: Source, place: str) -> Any:
        url, _, name = place.rpartition("::")
        if url.startswith("duckdb"):
            return self._duckdb(source.table, Path(re.sub(r"^duckdb:///", "", url)).expanduser(), name)
        return self._sql(source, url, name)

    def _duckdb(self, shown: str, path: Path, name: str) -> Any:
        if not path.is_file():
            raise _nothing_there(shown, path)
        catalog = f"source_{next(self.numbers)}"
        self.backend.attach(path, name=catalog, read_only=True)
        schema, _, table = name.rpartition(".")
        known = self.connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = ? UNION ALL "
            "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE database_name = ? AND NOT internal",
            [catalog, catalog],
        ).fetchall()
        if (f"{schema or 'main'}.{table}",) not in known:
            raise SourceMissing(
                f"{path} has no such table",
                got=name,
                allowed=", ".join(row[0] for row in known),
                do="Check source.table",
            )
        return self.backend.table(table, database=(catalog, schema or "main"))

    def _sql(self, source: Source, url: str, name: str) -> Any:
        """Copy a SQL table, ordered by its key, every value as text.

        DuckDB could scan these databases itself, with extensions that it would have to download.
        """
        import sqlalchemy

        path = sqlalchemy.make_url(url).database
        if url.startswith("sqlite") and not (path and Path(path).is_file()):
            raise _nothing_there(source.table, Path(path or ""))
        engine = sqlalchemy.create_engine(re.sub(r"^postgresql://", "postgresql+psycopg://", url))
        schema, _, table_name = name.rpartition(".")
        try:
            with engine.connect() as connection:
                return self._copied(connection, source, schema or None, table_name)
        finally:
            engine.dispose()

    def _copied(self, connection: Any, source: Source, schema: str | None, name: str) -> Any:
        import pyarrow as pa
        import sqlalchemy

        try:
            table = sqlalchemy.Table(name, sqlalchemy.MetaData(), schema=schema, autoload_with=connection)
        except sqlalchemy.exc.NoSuchTableError as problem:
            known = [*(names := sqlalchemy.inspect(connection)).get_table_names(schema), *names.get_view_names(schema)]
            raise SourceMissing(
                "the database has no such table", got=name, allowed=", ".join(known), do="Check source.table"
            ) from problem
        order = [table.c[key] for key in source.keys if key in table.c]
        result = connection.execution_options(yield_per=BATCH).execute(sqlalchemy.select(table).order_by(*order))
        columns = list(table.c.keys())
        columns_of_text = pa.schema([(column, pa.string()) for column in columns])
        batches = (
            pa.record_batch(
                [pa.array(map(_as_text, cells), pa.string()) for cells in zip(*rows, strict=True)], columns_of_text
            )
            for rows in result.partitions(BATCH)
        )
        reader = pa.RecordBatchReader.from_batches(columns_of_text, batches)
        return self.load(reader)


class Tables:
    """Opens sessions, and reads stored Parquet without one.

    Parameters
    ----------
    threads : threads of a query.
    folder : where queries spill; made on first use.
    """

    def __init__(self, threads: int, folder: Path) -> None:
        self.threads = threads
        self.folder = folder

    @contextmanager
    def session(self, memory: str | None = None) -> Iterator[Session]:
        """A session that ends with the block; what is more than `memory` (such as `1GB`) spills to the disk."""
        with scratch_folder(self.folder) as folder:
            session = self.opened(folder, memory)
            try:
                yield session
            finally:
                session.close()

    def opened(self, folder: Path, memory: str | None) -> Session:
        """A session that is not closed by anybody yet."""
        return Session(self.threads, folder, memory)

    def stored(self, path: Path, columns: Sequence[str] | None = None) -> Any:
        """A Parquet file of the store as an Arrow table, in its own order."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path, columns=list(columns) if columns else None)


@lru_cache(COMPILED)
def _compiled(backend: Any, operation: Any) -> str:
    """Ibis takes longer to compile a query of a look than DuckDB to answer it; backends of the same settings are equal."""
    query: str = backend.compile(operation.to_expr())
    return query


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _stored_as(kind: Any) -> Any:
    """An Ibis type as DuckDB tells it of a table: anything may be null, and moments are in microseconds."""
    known = {"scale": 6} if kind.is_timestamp() and kind.scale is None else {}
    return kind.copy(nullable=True, **known)


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as background:
        coming = background.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = background.submit(next, items, None)
            yield item


def _block(table: Any, dictionaries: Sequence[str]) -> Any:
    import pyarrow as pa

    columns = [
        column.combine_chunks().dictionary_encode() if name in dictionaries else column.combine_chunks()
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


@contextmanager
def writing(path: Path, dictionaries: Sequence[str]) -> Iterator[Callable[[Any], None]]:
    """Writes blocks of rows as Parquet, each while the next one is made: the same blocks make the same bytes.

    Parameters
    ----------
    dictionaries : columns whose values are many times the same.
    """
    import pyarrow.parquet

    writer: Any = None
    ahead: list[Future[None]] = []

    def write(block: Any) -> None:
        nonlocal writer
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(path, block.schema, use_dictionary=list(dictionaries), **STORED)
        while len(ahead) > 1:
            ahead.pop(0).result()
        ahead.append(background.submit(writer.write_table, block, BLOCK))

    with ThreadPoolExecutor(1) as background:
        try:
            yield write
            for written in ahead:
                written.result()
        finally:
            background.shutdown()
            if writer is not None:
                writer.close()


def filled(text: str, environment: Mapping[str, str]) -> str:
    """`text` with every `${NAME}` replaced; raises SettingsError for a name that is not set.

    >>> filled("postgresql://${HOST}/db::rows", {"HOST": "db.example"})
    'postgresql://db.example/db::rows'
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise SettingsError(
                "source.table uses an environment variable that is not set", got=match[1], do=f"Set {match[1]}"
            )
        return environment[match[1]]

    return re.sub(r"\$\{(\w+)\}", value, text)


def _as_text(value: object) -> str | None:
    """A database value as a text file would hold it.

    >>> [_as_text(value) for value in (None, 1.0, 0.1, True, "a")]
    [None, '1', '0.1', 'true', 'a']
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    with path.open("rb") as stream:
        if stream.read(4) == b"PAR1" or name.endswith(PARQUET):
            return "parquet"
    return "text" if name.endswith(TEXT) else None


def _nothing_there(shown: str, path: Path) -> SourceMissing:
    folder = path.parent
    while "*" in str(folder) or not folder.is_dir():
        if folder == folder.parent:
            break
        folder = folder.parent
    names = sorted(item.name + ("/" if item.is_dir() else "") for item in folder.iterdir()) if folder.is_dir() else []
    nearest = difflib.get_close_matches(path.name, names, n=NEARBY, cutoff=0.3) or names[:NEARBY]
    return SourceMissing(
        "no file matches the source",
        got=shown,
        allowed=f"in {folder.absolute()}: {', '.join(nearest) or 'nothing'}",
        do="Check source.table and the folder that Steward runs in",
    )


@contextmanager
def _readable(shown: str, place: str) -> Iterator[None]:
    """Errors of readers and drivers by name, without what `${NAME}` stood for."""
    import duckdb
    import sqlalchemy

    try:
        yield
    except StewardError:
        raise
    except (sqlalchemy.exc.OperationalError, ConnectionError, TimeoutError) as problem:
        raise SourceUnavailable(
            "the source cannot be reached now", got=_redacted(problem, shown, place), do="Try again later"
        ) from None
    except FileNotFoundError as problem:
        raise SourceMissing("no file matches the source", got=shown, do="Check source.table") from problem
    except (duckdb.Error, sqlalchemy.exc.SQLAlchemyError, OSError, ValueError, ImportError) as problem:
        raise SourceUnreadable(
            f"{shown} cannot be read",
            got=_redacted(problem, shown, place),
            allowed=FORMATS,
            do="Check the file or table",
        ) from None


def _redacted(problem: Exception, shown: str, place: str) -> str:
    """The first lines of a message, with the values of `${NAME}` taken out."""
    text = "\n".join(str(problem).splitlines()[:3])
    if shown == place:
        return text
    parts = re.split(r"[:/@?&=\s]+", place)
    secrets = [part for part in parts if part and part not in shown]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
