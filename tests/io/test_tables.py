import gzip
import sqlite3
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy

from steward.config import Source
from steward.errors import SettingsError, SourceMissing, SourceUnavailable, SourceUnreadable
from steward.io.tables import Tables, filled

ROWS = pd.DataFrame({"id": ["a", "b", "c"], "x": [1, 2, 3]})


@pytest.fixture
def session(tmp_path):
    with Tables(2, tmp_path / "work").session() as session:
        yield session


def source(table, key="id"):
    return Source(table=str(table), key=key)


def read(session, table):
    found = session.source(source(table)).to_pyarrow().to_pandas()
    return [(str(row.id), int(row.x)) for row in found.itertuples()]


def write(path: Path, kind: str):
    match kind:
        case "parquet":
            ROWS.to_parquet(path)
        case "csv.gz":
            path.write_bytes(gzip.compress(ROWS.to_csv(index=False).encode()))
        case "semicolon":
            ROWS.to_csv(path, index=False, sep=";")
        case "tab":
            ROWS.to_csv(path, index=False, sep="\t")
        case _:
            ROWS.to_csv(path, index=False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("t.parquet", "parquet"),
        ("t.csv", "csv"),
        ("t.csv.gz", "csv.gz"),
        ("t.csv", "semicolon"),
        ("t.tsv", "tab"),
        ("a b's.csv", "csv"),
    ],
)
def test_files_are_read(session, tmp_path, name, kind):
    write(tmp_path / name, kind)
    assert read(session, tmp_path / name) == [("a", 1), ("b", 2), ("c", 3)]


def test_a_glob_is_read_in_order_and_columns_match_by_name(session, tmp_path):
    ROWS[["x", "id"]].iloc[2:].to_parquet(tmp_path / "part-2.parquet")
    ROWS.iloc[:2].to_parquet(tmp_path / "part-1.parquet")
    assert read(session, tmp_path / "part-*.parquet") == [("a", 1), ("b", 2), ("c", 3)]


def test_a_relative_path_starts_in_the_current_folder(session, tmp_path, monkeypatch):
    write(tmp_path / "t.csv", "csv")
    monkeypatch.chdir(tmp_path)
    assert len(read(session, "t.csv")) == 3


def test_a_url_is_copied_first(session, tmp_path):
    write(tmp_path / "t.csv", "csv")
    assert len(read(session, f"file://{tmp_path}/t.csv")) == 3


def test_texts_in_a_csv_stay_texts(session, tmp_path):
    (tmp_path / "t.csv").write_text("id,x\n007,1\n1e5,2\n")
    assert session.source(source(tmp_path / "t.csv")).to_pyarrow()["id"].to_pylist() == ["007", "1e5"]


def test_duckdb_is_read_only(session, tmp_path):
    with duckdb.connect(tmp_path / "t.db") as database:
        database.execute("CREATE SCHEMA s; CREATE TABLE s.rows AS FROM (VALUES ('a', 1), ('b', 2)) AS t(id, x)")
    assert read(session, f"duckdb:///{tmp_path}/t.db::s.rows") == [("a", 1), ("b", 2)]
    with pytest.raises(SourceMissing, match=r"no such table: got 'other'; allowed: s.rows"):
        session.source(source(f"duckdb:///{tmp_path}/t.db::other"))


def test_sqlite_is_read_in_the_order_of_the_key(session, tmp_path):
    with sqlite3.connect(tmp_path / "t.sqlite") as database:
        database.execute("CREATE TABLE t (id TEXT, x REAL, n)")
        database.executemany("INSERT INTO t VALUES (?, ?, ?)", [("b", 2, b"raw"), ("a", 1, None)])
    assert read(session, f"sqlite:///{tmp_path}/t.sqlite::t") == [("a", 1), ("b", 2)]
    with pytest.raises(SourceMissing, match=r"no such table: got 'rows'; allowed: t"):
        session.source(source(f"sqlite:///{tmp_path}/t.sqlite::rows"))


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        pytest.param("no.csv", None, SourceMissing, "no file matches the source: got .*near.csv", id="missing"),
        pytest.param("t.csv", b"", SourceUnreadable, "a source file is empty", id="empty csv"),
        pytest.param("t.parquet", b"", SourceUnreadable, "a source file is empty", id="empty parquet"),
        pytest.param(
            "t.parquet", b"PAR1 and then nothing", SourceUnreadable, "t.parquet cannot be read", id="damaged parquet"
        ),
        pytest.param(
            "t.parquet", b"id,x\n1,2\n", SourceUnreadable, "t.parquet cannot be read", id="csv called parquet"
        ),
        pytest.param("t.csv", b"\x89PNG\0\0\0", SourceUnreadable, "zero bytes is no CSV", id="picture called csv"),
        pytest.param("t.csv.gz", b"not gzip", SourceUnreadable, "t.csv.gz cannot be read", id="damaged gzip"),
        pytest.param(
            "t.csv",
            b"id,x\n" + b"1,2\n" * 30_000 + b"1,2,3,4\n",
            SourceUnreadable,
            "t.csv cannot be read",
            id="ragged csv",
        ),
        pytest.param("t.xlsx", b"PK", SourceUnreadable, "not a table .* allowed: .parquet", id="other format"),
        pytest.param("t.csv", b"id,x\n\xff\xfe,2\n", SourceUnreadable, "t.csv cannot be read", id="not UTF-8"),
    ],
)
def test_what_is_no_table_has_a_named_error(session, tmp_path, name, content, error, match):
    (tmp_path / "near.csv").write_text("id,x\n1,2\n")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=f"(?s){match}"):
        session.source(source(tmp_path / name))


def test_a_missing_folder_names_what_is_there(session, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(SourceMissing, match=r"data/"):
        session.source(source(tmp_path / "date" / "*.parquet"))


def test_names_are_filled_from_the_environment():
    assert filled("a/${X}/${Y}", {"X": "1", "Y": "2"}) == "a/1/2"
    with pytest.raises(SettingsError, match=r"not set: got 'NOPE'. Set NOPE"):
        filled("${NOPE}", {})


def test_a_database_that_is_away_can_be_tried_again_and_keeps_its_secret(session, monkeypatch):
    monkeypatch.setenv("WAREHOUSE", "someone:hunter2@127.0.0.1:1/warehouse")
    with pytest.raises(SourceUnavailable, match="cannot be reached") as caught:
        session.source(source("postgresql://${WAREHOUSE}::public.rows"))
    assert caught.value.retryable
    assert not any(secret in str(caught.value.as_json()) for secret in ("hunter2", "someone", "127.0.0.1"))


def test_the_same_rows_make_the_same_bytes_whatever_the_threads(tmp_path):
    table = pa.table({"id": [str(i) for i in range(300_000)], "x": [i * 0.1 for i in range(300_000)]})
    written = set()
    for threads in (1, 2, 4):
        with Tables(threads, tmp_path / "work").session() as session:
            session.write(session.load(table), path := tmp_path / f"{threads}.parquet")
            written.add(path.read_bytes())
    assert len(written) == 1
    assert not list((tmp_path / "work").iterdir())


def test_nothing_is_downloaded(session):
    settings = dict(session.connection.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert settings["autoinstall_known_extensions"] in ("false", False)
    assert settings["TimeZone"] == "UTC"


def test_a_postgresql_table_is_read_as_text_in_the_order_of_its_key(session, server, monkeypatch):
    with sqlalchemy.create_engine(server.replace("postgresql://", "postgresql+psycopg://") + "postgres").begin() as on:
        on.execute(sqlalchemy.text("CREATE SCHEMA shop"))
        on.execute(
            sqlalchemy.text("CREATE TABLE shop.sales (id int, price numeric(6, 2), paid boolean, at timestamptz)")
        )
        on.execute(
            sqlalchemy.text("INSERT INTO shop.sales VALUES (2, 1.50, true, '2026-01-01+00'), (1, NULL, false, NULL)")
        )
    monkeypatch.setenv("WAREHOUSE", server.removeprefix("postgresql://") + "postgres")
    found = session.rows(session.source(source("postgresql://${WAREHOUSE}::shop.sales")))
    assert [(row["id"], row["price"], row["paid"]) for row in found] == [("1", None, "false"), ("2", "1.50", "true")]
    assert found[1]["at"].startswith("2026-01-01")
    with pytest.raises(SourceMissing, match=r"no such table: got 'nothing'; allowed: sales"):
        session.source(source("postgresql://${WAREHOUSE}::shop.nothing"))


def test_sessions_share_how_a_query_is_written_and_nothing_else(tmp_path):
    tables, found = Tables(1, tmp_path / "work"), []
    for name, values in (("one.parquet", [1, 2]), ("other.parquet", [3]), ("texts.parquet", ["4"])):
        pd.DataFrame({"x": values}).to_parquet(tmp_path / name)
        with tables.session() as session:
            rows = session.stage(session.parquet(tmp_path / name))
            found.append(session.rows(rows.aggregate(most=rows.x.max(), rows=rows.count())))
    assert found == [[{"most": 2, "rows": 2}], [{"most": 3, "rows": 1}], [{"most": "4", "rows": 1}]]
