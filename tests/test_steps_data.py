"""The steps accept and split, with a real store and a real ledger."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from steward import steps
from steward.config import ModelFile
from steward.core import splitting
from steward.errors import ArtifactDamaged, ContractRefused, NotEnoughSealedRows, RolesFixed, SourceMissing
from steward.records import Roles, Snapshot

AT = datetime(2026, 1, 1, tzinfo=UTC)
START = pd.Timestamp("2025-01-01")


def rows(n=600, start=0, seed=0):
    random = np.random.default_rng([seed, start])
    return pd.DataFrame(
        {
            "id": [f"d{i}" for i in range(start, start + n)],
            "at": START + pd.to_timedelta(np.arange(start, start + n), unit="h"),
            "files": random.integers(0, 100, n),
            "team": random.choice(["ops", "web"], n),
            "size": random.normal(size=n),
            "risky": random.random(n) < 0.5,
            "risk": random.choice(["Low", "High"], n),
            "ignored": 1,
        }
    )


def model(folder: Path, **more):
    text = {
        "name": "risk",
        "task": "classification",
        "source": {"table": f"{folder}/*.parquet", "key": "id", "time": "at"},
        "label": {"column": "risk", "classes": ["Low", "High"]},
        "columns": {
            "files": {"type": "integer", "min": 0, "max": 100},
            "team": {"type": "category", "open": True, "nullable": True},
            "size": {"type": "number", "nullable": True},
            "risky": {"type": "boolean"},
        },
        "verify": {"detect": 0.3},
    }
    return ModelFile.model_validate(text | more)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows().to_parquet(folder / "1.parquet")
    return folder


def accept(workspace, of, at=AT):
    reference = steps.accept(workspace, of, at=at)
    return reference, workspace.load(Snapshot, reference)


def split(workspace, of, at=AT):
    reference, snapshot = accept(workspace, of, at)
    given = steps.split(workspace, of, reference)
    roles = workspace.load(Roles, given)
    stored = workspace.tables.stored(workspace.store.fetch(roles.file))
    keys = workspace.tables.stored(workspace.store.fetch(snapshot.data))["@key"].to_pylist()
    return given, roles, dict(zip(keys, stored["role"].to_pylist(), strict=True))


def test_accept_keeps_every_row_somewhere(workspace, data):
    dirty = rows(20, start=600)
    dirty.loc[0, "files"] = -1
    dirty.loc[1, "risk"] = "Medium"
    dirty.loc[2, "id"] = None
    dirty.loc[3, "id"] = "d604"
    dirty.to_parquet(data / "2.parquet")
    _, snapshot = accept(workspace, model(data))
    assert (snapshot.rows, snapshot.accepted, snapshot.rejected) == (620, 615, 5)
    assert snapshot.rejections == {"between:files": 1, "in_set:risk": 1, "not_null:id": 1, "unique:id": 2}
    assert snapshot.unknown_columns == ("ignored",)
    assert sum(snapshot.labels.values()) == 615
    kept = pd.read_parquet(workspace.store.fetch(snapshot.rejected_rows))
    assert len(kept) == 5
    assert kept[kept.rule == "between"].iloc[0][["column", "value"]].tolist() == ["files", "-1"]
    assert Path(snapshot.data_docs).read_text().count("expect") >= 1 or Path(snapshot.data_docs).stat().st_size > 10_000


def test_rejected_rows_come_back_when_the_rule_is_fixed(workspace, data):
    of = model(data, label={"column": "risk", "classes": ["Low", "Hi"]}, rows={"max_rejected": 0.9})
    with pytest.raises(ContractRefused, match="expect_column_unique_value_count"):
        steps.accept(workspace, of, at=AT)
    fixed = model(data, label={"column": "risk", "classes": ["Low", "Hi"], "aliases": {"High": "Hi"}})
    assert accept(workspace, fixed)[1].accepted == 600


def test_the_same_table_gives_the_same_reference_and_bytes(workspace, data):
    first, snapshot = accept(workspace, model(data))
    again, _ = accept(workspace, model(data))
    assert first == again
    shuffled = rows().sample(frac=1, random_state=1)
    shuffled.to_parquet(data / "1.parquet")
    _, other = accept(workspace, model(data))
    assert other.fingerprint == snapshot.fingerprint
    assert [entry.kind for entry in workspace.ledger.entries("risk")] == ["snapshot"]


def test_another_cell_is_another_snapshot(workspace, data):
    _, before = accept(workspace, model(data))
    changed = rows()
    changed.loc[599, "size"] += 1e-9
    changed.to_parquet(data / "1.parquet")
    _, after = accept(workspace, model(data))
    assert after.fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("change", "more", "failed"),
    [
        (lambda t: t.drop(columns="id"), {}, "expect_column_to_exist:id"),
        (lambda t: t.drop(columns="risk"), {}, "expect_column_to_exist:risk"),
        (lambda t: t.drop(columns="at"), {}, "expect_column_to_exist:at"),
        (lambda t: t.rename(columns={"files": "Files"}), {}, "expect_column_to_exist:files"),
        (lambda t: t.assign(risk="Low"), {}, "expect_column_unique_value_count_to_be_between:risk"),
        (lambda t: t.assign(files=-1), {}, "expect_column_values_to_be_between:files"),
        (lambda t: t.assign(id="same"), {}, "expect_column_values_to_be_unique:id"),
        (lambda t: t.assign(risk=None), {}, "expect_column_values_to_not_be_null:risk"),
        (lambda t: t.assign(size=np.inf), {}, "expect_column_values_to_be_between:size"),
        (lambda t: t.assign(files="many"), {}, "expect_column_values_to_be_of_type:files"),
        (lambda t: t.head(10), {"rows": {"min": 100}}, "expect_table_row_count_to_be_between:table"),
        (lambda t: t.head(0), {}, "expect_table_row_count_to_be_between:table"),
    ],
)
def test_a_broken_table_is_refused_by_name(workspace, data, change, more, failed):
    change(rows()).to_parquet(data / "1.parquet")
    with pytest.raises(ContractRefused, match="the table breaks the contract of risk") as caught:
        steps.accept(workspace, model(data, **more), at=AT)
    assert failed in caught.value.facts["failed"]
    assert Path(caught.value.facts["data_docs"]).exists()
    assert not workspace.ledger.entries("risk")
    assert not (Path(workspace.store.root) / "records").exists()


def test_no_source(workspace, tmp_path):
    with pytest.raises(SourceMissing, match="no file matches the source"):
        steps.accept(workspace, model(tmp_path / "nowhere"), at=AT)


def test_young_rows_wait(workspace, data):
    at = (START + timedelta(hours=599)).tz_localize("UTC").to_pydatetime()
    _, snapshot = accept(
        workspace, model(data, label={"column": "risk", "classes": ["Low", "High"], "mature_after": "10h"}), at
    )
    assert (snapshot.accepted, snapshot.immature, snapshot.rejected) == (590, 10, 10)


def test_roles_are_for_life(workspace, data):
    _, _, before = split(workspace, model(data))
    rows(400, start=600).to_parquet(data / "0.parquet")
    _, roles, after = split(workspace, model(data))
    assert {key: after[key] for key in before} == before
    assert after == {key: splitting.role_of(splitting.unit_of(key), model(data).split) for key in after}
    assert sum(roles.rows.values()) == 1_000


def test_split_is_repeatable(workspace, data):
    assert split(workspace, model(data)) == split(workspace, model(data))


def open_sealed(workspace, given, number=1):
    workspace.ledger.append("risk", "opening", str(number), {"digest": "x", "roles": given.as_json()}, AT)


@pytest.mark.parametrize("by", [{"by": "key"}, {"by": "time"}, {"by": "group", "group": "files"}])
def test_opened_rows_are_train(workspace, data, by):
    rows(2_000).to_parquet(data / "1.parquet")
    of = model(data, split=by, verify={"detect": 0.25})
    given, _, before = split(workspace, of)
    open_sealed(workspace, given)
    rows(1_500, start=2_000).to_parquet(data / "2.parquet")
    if by["by"] == "group":
        late = rows(1_500, start=2_000)
        late.assign(files=late["files"] + 1_000).to_parquet(data / "2.parquet")
        of = model(data, split=by, verify={"detect": 0.25}, columns={"files": {"type": "integer"}})
    _, roles, after = split(workspace, of)
    assert roles.opening == 2
    assert {after[key] for key, role in before.items() if role == "test"} == {"train"}
    assert {key: after[key] for key, role in before.items() if role != "test"} == {
        key: role for key, role in before.items() if role != "test"
    }
    assert roles.rows["test"] > 0


def test_a_group_never_spans_two_roles(workspace, data):
    rows(2_000).to_parquet(data / "1.parquet")
    of = model(data, split={"by": "group", "group": "files"})
    reference, _ = accept(workspace, of)
    roles = workspace.load(Roles, steps.split(workspace, of, reference))
    frame, _, _ = steps.rows_of(workspace, of, roles, "train", "validation", "test")
    given = workspace.tables.stored(workspace.store.fetch(roles.file))["role"].to_pandas()
    assert set(given.groupby(frame["files"]).nunique()) == {1}


def test_time_rounds_are_remembered_and_late_rows_join_them(workspace, data):
    of = model(data, split={"by": "time"})
    _, _, before = split(workspace, of)
    assert list(before.values()) == ["train"] * 420 + ["validation"] * 90 + ["test"] * 90
    late = rows(600, start=600)
    late.loc[0, "at"] = START + timedelta(minutes=30)
    late.loc[1, "at"] = START + timedelta(hours=550, minutes=30)
    late.to_parquet(data / "2.parquet")
    _, _, after = split(workspace, of)
    assert {key: after[key] for key in before} == before
    assert (after["d600"], after["d601"]) == ("train", "test")
    assert [entry.subject for entry in workspace.ledger.entries("risk", "boundaries")] == ["1", "2"]


def test_a_refused_time_split_commits_nothing(workspace, data):
    of = model(data, split={"by": "time"}, verify={"detect": 0.01})
    reference, _ = accept(workspace, of)
    with pytest.raises(NotEnoughSealedRows, match="90 sealed test rows are too few"):
        steps.split(workspace, of, reference)
    assert not workspace.ledger.entries("risk", "boundaries")


def test_unchanged_data_after_an_opening_is_refused_with_what_is_missing(workspace, data):
    given, roles, _ = split(workspace, model(data))
    open_sealed(workspace, given)
    reference, _ = accept(workspace, model(data))
    with pytest.raises(NotEnoughSealedRows, match="0 sealed test rows are too few") as caught:
        steps.split(workspace, model(data), reference)
    assert caught.value.facts["missing"] == -(-roles.needed * 100 // 15)


@pytest.mark.parametrize("share", [None, 0.15])
def test_a_regression_counts_its_sealed_rows_too(workspace, data, share):
    of = model(data, task="regression", label={"column": "size"}, columns={"files": {"type": "integer"}})
    _, roles, _ = split(workspace, of)
    assert roles.classes == {}
    assert sum(roles.rows.values()) == 600
    refused = model(
        data,
        task="regression",
        label={"column": "size"},
        columns={"files": {"type": "integer"}},
        verify={"detect": share or 0.01},
    )
    reference, _ = accept(workspace, refused)
    with pytest.raises(NotEnoughSealedRows, match=r"\d+ are needed"):
        steps.split(workspace, refused, reference)


def test_rows_come_as_agreed(workspace, data):
    table = rows()
    table.loc[0, ["size", "team"]] = [np.nan, None]
    table.to_parquet(data / "1.parquet")
    reference, _ = accept(workspace, model(data))
    roles = workspace.load(Roles, steps.split(workspace, model(data), reference))
    frame, truth, units = steps.rows_of(workspace, model(data), roles, *splitting.ROLES)
    assert list(frame.columns) == ["files", "team", "size", "risky"]
    assert [str(kind) for kind in frame.dtypes] == ["float64", "object", "float64", "float64"]
    assert np.isnan(frame["size"][0])
    assert frame["team"][0] is None
    assert (truth.dtype, truth.tolist()) == (object, table["risk"].tolist())
    assert units.tolist() == [splitting.unit_of(key) for key in table["id"]]
    only, _, _ = steps.rows_of(workspace, model(data), roles, "validation")
    assert len(only) == roles.rows["validation"]


def test_a_changed_snapshot_is_noticed(workspace, data):
    reference, snapshot = accept(workspace, model(data))
    roles = workspace.load(Roles, steps.split(workspace, model(data), reference))
    path = workspace.store.fetch(snapshot.data)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactDamaged, match="has changed"):
        steps.rows_of(workspace, model(data), roles, "train")


KILLED = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from steward import steps
from steward.config import ModelFile, Settings
from steward.io.workspace import Workspace
of = ModelFile.model_validate_json(Path(sys.argv[1]).read_text())
workspace = Workspace(Settings.from_environment({"STEWARD_HOME": sys.argv[2]}))
print("ready", flush=True)
snapshot = steps.accept(workspace, of, at=datetime(2026, 1, 1, tzinfo=UTC))
print(steps.split(workspace, of, snapshot).digest, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_killed_and_repeated_is_the_same(workspace, data, tmp_path, seconds):
    of = model(data, split={"by": "time"})
    (tmp_path / "model.json").write_text(of.model_dump_json(exclude_none=True))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "model.json"), str(workspace.settings.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
    given, roles, _ = split(workspace, of)
    assert split(workspace, of)[0] == given
    assert roles.rows == {"train": 420, "validation": 90, "test": 90}
    assert len(workspace.ledger.entries("risk", "boundaries")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "label"), [("adult/adult_train.csv.gz", "income"), ("hypothyroid/hypothyroid.csv.gz", "Class")]
)
def test_real_tables_are_accepted(workspace, shared_data, table, label):
    frame = pd.read_csv(shared_data / table, dtype=str, keep_default_na=False)
    columns = {name: {"type": "category", "open": True, "nullable": True} for name in frame.columns[:2]}
    of = ModelFile.model_validate(
        {
            "name": "real", "task": "classification", "rows": {"max_rejected": 1.0},
            "source": {"table": str(shared_data / table), "key": list(frame.columns[2:-1]), "missing": []},
            "label": {"column": label, "classes": sorted(set(frame[label].str.strip()))}, "columns": columns,
        }
    )  # fmt: skip
    _, snapshot = accept(workspace, of)
    stripped = frame.apply(lambda column: column.str.strip())
    single = stripped.drop_duplicates()
    conflicts = single.duplicated(list(frame.columns[2:-1]), keep=False)
    assert (snapshot.rows, snapshot.accepted) == (len(frame), int((~conflicts).sum()))
    assert pyarrow.parquet.read_metadata(workspace.store.fetch(snapshot.data)).num_rows == snapshot.accepted


def test_a_measured_loss_needs_fewer_rows(workspace, data):
    of = model(data, verify={"detect": 0.05})
    reference, _ = accept(workspace, of)
    with pytest.raises(NotEnoughSealedRows, match=r"difference of 0\.05"):
        steps.split(workspace, of, reference, detect=0.01)
    roles = workspace.load(Roles, steps.split(workspace, of, reference, detect=0.3))
    assert roles.detect == 0.3
    assert roles.needed <= roles.rows["test"]


def test_no_row_becomes_a_test_row_later(workspace, data):
    rows(2_000).to_parquet(data / "1.parquet")
    given, _, _ = split(workspace, model(data))
    larger = model(data, split={"train": 0.5, "validation": 0.2, "test": 0.3})
    split(workspace, larger)
    open_sealed(workspace, given)
    rows(2_000, start=2_000).to_parquet(data / "2.parquet")
    with pytest.raises(RolesFixed, match=r"got 0\.3; allowed: 0\.15\. Set split\.test back"):
        split(workspace, larger)


def test_rows_without_an_id_are_known_by_their_content(workspace, data):
    table = rows(600).drop(columns="id")
    table.loc[0, "team"] = None
    table.loc[1, ["team", "size"]] = None
    pd.concat([table, table.head(5)]).to_parquet(data / "1.parquet")
    of = model(data, source={"table": f"{data}/*.parquet", "key": ["size", "team"]})
    _, snapshot = accept(workspace, of)
    assert snapshot.rejections == {"repeated:size,team": 4, "not_null:size": 2}
    stored = workspace.tables.stored(workspace.store.fetch(snapshot.data))
    assert sum(key.endswith(",-,") for key in stored["@key"].to_pylist()) == 1
    strict = {"files": {"type": "integer"}, "team": {"type": "category", "open": True}}
    _, snapshot = accept(workspace, model(data, source=of.source.model_dump(), columns=strict))
    assert snapshot.rejections == {"repeated:size,team": 3, "not_null:size": 2, "not_null:team": 8}
