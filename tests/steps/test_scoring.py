"""A batch: every row is scored or set aside, and what is in its place is whole."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import sqlalchemy

from steward import Model, steps
from steward.errors import ContractRefused, NoChampion, OutputRefused, ScoringStopped, StoreUnavailable

AT = datetime(2026, 3, 1, tzinfo=UTC)
ANSWERS = ["prediction", "confidence", "probability_Low", "probability_High", "action", "message", "unseen", "flags"]


def rows_of(count=200, **columns):
    drawn = np.random.default_rng(7)
    frame = pd.DataFrame({"id": range(count), "files": drawn.integers(0, 1000, count), "stage": "prod"})
    return frame.assign(**columns)


@pytest.fixture
def score(trained, tmp_path, monkeypatch):
    """Scores a frame, from and to files of these names, with changes of the model file."""
    monkeypatch.chdir(tmp_path)

    def ask(frame, source="in.parquet", output="out.parquet", **changes):
        if frame is not None:
            frame.to_csv(source, index=False) if source.endswith(".csv") else frame.to_parquet(source, index=False)
        workspace = trained.workspace
        model = workspace.model("risk").model_dump(mode="json")
        for section, values in changes.items():
            model[section] |= values
        return steps.score(workspace, type(workspace.model("risk")).model_validate(model), source, output, at=AT)

    return ask


def test_every_row_is_answered_in_order(score, trained):
    frame = rows_of()
    scored = score(frame)
    found = pd.read_parquet("out.parquet")
    assert list(found.columns) == ["id", *ANSWERS, "model_version"]
    assert found["id"].tolist() == frame["id"].tolist()
    assert set(found["model_version"]) == {1}
    assert (found["prediction"] == "High").tolist() == (frame["files"] > 500).tolist()
    assert (scored.rows, scored.scored, scored.rejected, scored.rejected_output) == (200, 200, 0, None)
    assert scored.predictions == found["prediction"].value_counts().to_dict()
    assert scored.actions == {"proceed": 200}
    assert not list(Path().glob("*.part"))
    expected = Model("risk", workspace=trained.workspace).predict(frame)
    pd.testing.assert_frame_equal(found.drop(columns="id"), expected, check_dtype=False)


DIRTY = {"files": [5, -1, 7, None, 9], "stage": ["dev", "prod", "moon", "prod", "Prod "]}


def test_rows_that_break_the_contract_are_set_aside_with_reasons(score):
    frame = pd.DataFrame({"id": list("abcde"), **DIRTY})
    scored = score(frame, score={"contract": "warn"})
    assert (scored.rows, scored.scored, scored.rejected) == (5, 1, 4)
    assert scored.rejections == {"between:files": 1, "not_null:files": 1, "in_set:stage": 2}
    assert pd.read_parquet("out.parquet")["id"].tolist() == ["a"]
    aside = pd.read_parquet(scored.rejected_output)
    assert aside[["key", "rule", "column", "value"]].fillna("").to_numpy().tolist() == [
        ["b", "between", "files", "-1.0"],
        ["c", "in_set", "stage", "moon"],
        ["d", "not_null", "files", ""],
        ["e", "in_set", "stage", "Prod "],
    ]
    assert scored.notes == ("4 rows (80.0%) break the contract",)


def test_too_many_of_them_stop_the_batch_and_leave_what_was_there(score):
    score(rows_of(10))
    before = Path("out.parquet").read_bytes()
    with pytest.raises(ScoringStopped, match="too many rows break the contract: got '4 of the first 5 rows'"):
        score(pd.DataFrame({"id": list("abcde"), **DIRTY}))
    assert Path("out.parquet").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir() if path.is_file() and path.suffix == ".parquet") == [
        "in.parquet",
        "out.parquet",
    ]


def test_a_clean_run_removes_what_an_earlier_one_set_aside(score):
    score(pd.DataFrame({"id": list("abcde"), **DIRTY}), score={"contract": "warn"})
    assert Path("out.rejected.parquet").exists()
    score(rows_of(10))
    assert not Path("out.rejected.parquet").exists()


def test_out_of_range_is_flagged_where_the_model_file_says_so(score):
    scored = score(rows_of(3, files=[5, -1, 2000]), serve={"out_of_range": "flag"})
    assert scored.rejected == 0
    assert pd.read_parquet("out.parquet")["flags"].tolist() == ["", "out_of_range:files", "out_of_range:files"]


@pytest.mark.parametrize("source", ["in.parquet", "in.csv"])
@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(score, source, rows):
    assert score(rows_of(rows), source).scored == rows
    assert len(pd.read_parquet("out.parquet")) == rows


def test_many_blocks_keep_their_order(score, monkeypatch):
    monkeypatch.setattr("steward.steps.scoring.BLOCK", 64)
    frame = rows_of(1_000)
    frame.loc[frame.index % 97 == 5, "files"] = -1
    scored = score(frame, score={"contract": "warn"})
    kept = frame[frame["files"] >= 0]
    assert scored.scored == len(kept)
    assert pd.read_parquet("out.parquet")["id"].tolist() == kept["id"].tolist()
    assert (
        sorted(pd.read_parquet("out.rejected.parquet")["key"].astype(int)) == frame.index[frame["files"] < 0].tolist()
    )


def test_a_table_without_key_is_scored(score):
    score(rows_of(5).drop(columns="id"))
    assert list(pd.read_parquet("out.parquet").columns)[:2] == ["prediction", "confidence"]


def test_a_key_may_stand_twice_and_be_missing(score):
    assert score(rows_of(4, id=[1, 1, None, 2])).scored == 4


def test_a_missing_column_is_named(score):
    with pytest.raises(ContractRefused, match=r"lacks columns.*allowed: stage"):
        score(rows_of(5).drop(columns="stage"))


def test_csv_to_csv(score):
    frame = rows_of(50)
    frame.loc[3, "stage"] = "moon"
    scored = score(frame, "in.csv", "sub/out.csv", score={"contract": "warn"})
    found = pd.read_csv("sub/out.csv", keep_default_na=False)
    assert (len(found), scored.rejected_output) == (49, "sub/out.rejected.csv")
    assert pd.read_csv("sub/out.rejected.csv")["value"].tolist() == ["moon"]
    assert found["id"].tolist() == [number for number in range(50) if number != 3]


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_table_to_table_replaces_what_an_earlier_batch_left(score, kind):
    frame = rows_of(30)
    with sqlite3.connect("in.db") as connection:
        frame.to_sql("waiting", connection, index=False)
    place = f"{kind}:///{Path.cwd()}/out.db::scores"
    broken = frame.assign(stage=["moon"] * 2 + ["dev"] * 28)
    assert score(broken, output=place, score={"contract": "warn"}).rejected_output == f"{place}_rejected"
    assert score(None, f"sqlite:///{Path.cwd()}/in.db::waiting", place).scored == 30
    tables, found = _read(kind, "out.db")
    assert tables == ["scores"]
    assert [row[1] for row in found] == ["High" if files > 500 else "Low" for files in frame["files"]]


def _read(kind, path):
    if kind == "duckdb":
        with duckdb.connect(path) as connection:
            tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            return [name for (name,) in tables], connection.execute("FROM scores").fetchall()
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        return [name for (name,) in tables], connection.execute("SELECT * FROM scores").fetchall()


def test_postgresql(score, server):
    place = f"{server}postgres::scores"
    assert score(rows_of(30, stage=["moon"] + ["dev"] * 29), output=place, score={"contract": "warn"}).scored == 29
    assert score(rows_of(30), output=place).scored == 30
    engine = sqlalchemy.create_engine(place.replace("postgresql://", "postgresql+psycopg://").removesuffix("::scores"))
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT id, prediction, confidence FROM scores ORDER BY id")).all()
        assert len(found) == 30
        assert not sqlalchemy.inspect(engine).has_table("scores_rejected")
    engine.dispose()


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("out.xlsx", OutputRefused, "cannot be written there"),
        ("in.parquet", OutputRefused, "does not overwrite what it scores"),
        ("other.parquet", OutputRefused, "something else is there"),
        ("other.csv", OutputRefused, "something else is there"),
        ("sqlite:///other.db::mine", OutputRefused, "something else is there"),
        ("/proc/nothing/out.parquet", StoreUnavailable, "cannot be used now"),
        ("postgresql://nobody:geheim@127.0.0.1:1/x::scores", StoreUnavailable, "cannot be used now"),
    ],
)
def test_a_place_that_cannot_be_used(score, output, error, message):
    rows_of(1).to_parquet("other.parquet")
    Path("other.csv").write_text("a,b\n1,2\n")
    with sqlite3.connect("other.db") as connection:
        connection.execute("CREATE TABLE mine (a int)")
    with pytest.raises(error, match=message) as problem:
        score(rows_of(3), output=output)
    assert "geheim" not in str(problem.value)


def test_a_password_from_the_environment_stays_there(score, monkeypatch):
    monkeypatch.setenv("SCORES", "nobody:geheim@127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match=r"\$\{SCORES\}") as problem:
        score(rows_of(3), output="postgresql://${SCORES}/x::scores")
    assert "geheim" not in str(problem.value)


def test_without_a_champion_nothing_is_scored(described, tmp_path):
    rows_of(3).to_parquet(tmp_path / "in.parquet")
    with pytest.raises(NoChampion, match="steward train risk"):
        steps.score(
            described.workspace, described.workspace.model("risk"), f"{tmp_path}/in.parquet", f"{tmp_path}/o.csv", at=AT
        )


def test_the_same_rows_make_the_same_file(score):
    score(rows_of(), output="first.parquet")
    score(None, output="second.parquet")
    assert Path("first.parquet").read_bytes() == Path("second.parquet").read_bytes()


def test_the_command_answers_in_json_and_for_people(trained, tmp_path):
    output = str(tmp_path / "answers.csv")
    assert trained.ask("score", "risk", str(trained.rows), output)["scored"] == 600
    said = trained.run("score", "risk", str(trained.rows), output).stdout
    assert "600 of 600 rows scored by version 1" in said
    assert trained.ask("score", "risk", "nothing.csv", output, code=1)["error"] == "SourceMissing"


KILLED = """
import os, sys
from datetime import UTC, datetime
from steward import steps
from steward.config import Settings
from steward.io.workspace import Workspace
from steward.steps import scoring
scoring.BLOCK = 500
workspace = Workspace(Settings.from_environment())
steps.score(workspace, workspace.model("risk"), "in.parquet", sys.argv[1], at=datetime(2026, 3, 1, tzinfo=UTC),
            on_progress=lambda done, total: print(done, flush=True))
print("published", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "delay"), [("parquet", 0.0), ("csv", 0.05), ("sqlite", 0.1)])
def test_killed_at_any_moment_it_leaves_nothing_or_everything(score, trained, kind, delay):
    place = f"sqlite:///{Path.cwd()}/out.db::scores" if kind == "sqlite" else f"out.{kind}"
    frame = rows_of(20_000)
    frame.loc[7, "stage"] = "moon"
    frame.to_parquet("in.parquet")
    environment = {**os.environ, **{k: v for k, v in trained.environment.items() if v}}
    command = [sys.executable, "-c", KILLED, place]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as batch:
        batch.stdout.readline()
        time.sleep(delay)
        batch.send_signal(signal.SIGKILL)
    assert _rows_at(kind) in (None, 19_999)
    assert score(None, output=place).rejected == 1
    assert _rows_at(kind) == 19_999
    assert not list(Path().glob("*.part"))


def _rows_at(kind):
    if kind == "sqlite":
        if not Path("out.db").exists():
            return None
        with sqlite3.connect("out.db") as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'scores'").fetchall()
            return connection.execute("SELECT count(*) FROM scores").fetchone()[0] if found else None
    path = Path(f"out.{kind}")
    if not path.exists():
        return None
    return len(pd.read_parquet(path) if kind == "parquet" else pd.read_csv(path))
