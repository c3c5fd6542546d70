"""`source.outcomes: true`: what the service was told becomes training rows."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from steward import steps
from steward.config import ModelFile
from steward.errors import ModelFileError
from steward.io.predictions import Logged, new_id
from steward.io.workspace import Workspace
from steward.records import Snapshot

AT = datetime(2026, 3, 1, tzinfo=UTC)
MODEL = """
name: risk
task: classification
source: {table: ROWS, key: KEY, time: asked, outcomes: true}
label: {column: outcome, classes: [Low, High], aliases: {bad: High}, mature_after: 7d}
columns:
  files: {type: integer, min: 0, max: 1000}
  stage: {type: category, values: [dev, prod]}
  night: {type: boolean, nullable: true}
rows: {max_rejected: 0.5}
"""
SOURCE = """id,files,stage,night,outcome,asked
1,3,dev,true,Low,2026-01-01T00:00:00
2,900,prod,,High,2026-01-02T00:00:00
"""


def model_in(folder: Path, key: str = "id", source: str = SOURCE) -> ModelFile:
    rows = folder / "rows.csv"
    rows.write_text(source)
    return ModelFile.parse(MODEL.replace("ROWS", str(rows)).replace("KEY", key))


def log(workspace: Workspace, key: str | None, days: float, files: float = 7, stage: str = "dev") -> str:
    """A prediction of so many days ago; its id."""
    at = (AT - timedelta(days=days)).timestamp()
    record = json.dumps({"files": files, "stage": stage, "night": None})
    row = Logged(new_id(at), "risk", at, 1, key, record, "{}", "Low", 0.9, "proceed", False, None)
    workspace.predictions.prepare()
    writer = workspace.predictions.writer(durable=False, patience=1)
    writer.write([row])
    writer.close()
    return row.prediction_id


def tell(workspace: Workspace, model: ModelFile, *items: dict[str, object], days: float = 1) -> None:
    workspace.predictions.add_outcomes(model, items, AT - timedelta(days=days))


def accepted(workspace: Workspace, model: ModelFile, at: datetime = AT) -> tuple[Snapshot, list[dict[str, object]]]:
    snapshot = workspace.load(Snapshot, steps.accept(workspace, model, at=at))
    assert snapshot.rows == snapshot.accepted + snapshot.rejected
    path = workspace.store.fetch(snapshot.data)
    rows = pq.read_table(path).drop_columns(["@digest"]).to_pylist()
    assert len(rows) == snapshot.accepted
    return snapshot, rows


def keys_of(rows: list[dict[str, object]]) -> list[object]:
    return [row["@key"] for row in rows]


def test_a_served_prediction_with_a_mature_outcome_is_a_row(workspace, tmp_path):
    model = model_in(tmp_path)
    log(workspace, "7", days=20, files=33, stage="prod")
    tell(workspace, model, {"key": 7, "label": "bad"})
    snapshot, rows = accepted(workspace, model)
    assert (snapshot.rows, keys_of(rows)) == (3, ["1", "2", "7"])
    asked = AT - timedelta(days=20)
    assert rows[2] == {"@key": "7", "@time": asked, "@label": "High", "files": 33, "stage": "prod", "night": None}


def test_without_a_key_the_id_is_the_key(workspace, tmp_path):
    model = model_in(tmp_path)
    named = log(workspace, None, days=20)
    tell(workspace, model, {"prediction_id": named, "label": "Low"})
    assert keys_of(accepted(workspace, model)[1]) == ["1", "2", named]


@pytest.mark.parametrize(
    ("key", "days", "told"),
    [
        ("2", 20, True),  # the source has it
        ("7", 20, False),  # nobody has said what came of it
        ("7", 6, True),  # too young to be final
    ],
)
def test_what_is_no_row(workspace, tmp_path, key, days, told):
    model = model_in(tmp_path)
    log(workspace, key, days=days)
    if told:
        tell(workspace, model, {"key": key, "label": "High"})
    snapshot, rows = accepted(workspace, model)
    assert (snapshot.rows, keys_of(rows)) == (2, ["1", "2"])


def test_of_several_predictions_the_newest_and_of_several_outcomes_the_last(workspace, tmp_path):
    model = model_in(tmp_path)
    log(workspace, "7", days=20, files=1)
    newest = log(workspace, "7", days=10, files=2)
    log(workspace, "7", days=3, files=3)  # not mature
    tell(workspace, model, {"key": "7", "label": "Low"})
    tell(workspace, model, {"prediction_id": newest, "label": "High"})
    (row,) = [row for row in accepted(workspace, model)[1] if row["@key"] == "7"]
    assert (row["files"], row["@label"]) == (2, "High")


def test_an_accept_that_is_repeated_finds_what_it_found(workspace, tmp_path):
    model = model_in(tmp_path)
    log(workspace, "7", days=20)
    log(workspace, "8", days=20)
    tell(workspace, model, {"key": "7", "label": "Low"})
    first, _ = accepted(workspace, model)
    tell(workspace, model, {"key": "7", "label": "High"}, {"key": "8", "label": "High"}, days=-1)
    assert accepted(workspace, model)[0] == first
    later, rows = accepted(workspace, model, AT + timedelta(days=2))
    assert later.fingerprint != first.fingerprint
    assert [(row["@key"], row["@label"]) for row in rows[2:]] == [("7", "High"), ("8", "High")]


def test_the_contract_applies_to_served_rows(workspace, tmp_path):
    model = model_in(tmp_path)
    log(workspace, "7", days=20, files=5_000)
    tell(workspace, model, {"key": "7", "label": "Low"})
    snapshot, rows = accepted(workspace, model)
    assert (snapshot.rows, snapshot.rejected, keys_of(rows)) == (3, 1, ["1", "2"])
    assert snapshot.rejections == {"between:files": 1}


def test_keys_of_several_columns(workspace, tmp_path):
    source = "id,files,stage,night,outcome,asked\na,3,dev,,Low,2026-01-01T00:00:00\n"
    model = model_in(tmp_path, "[id, stage]", source)
    log(workspace, "a|dev", days=20)
    log(workspace, r"b\|c|prod", days=20, stage="prod")
    tell(workspace, model, {"key": ["a", "dev"], "label": "High"}, {"key": ["b|c", "prod"], "label": "High"})
    assert keys_of(accepted(workspace, model)[1]) == ["1:a,3:dev,", "3:b|c,4:prod,"]


def test_without_outcomes_nothing_is_asked(workspace, tmp_path):
    model = model_in(tmp_path)
    log(workspace, "7", days=20)
    tell(workspace, model, {"key": "7", "label": "Low"})
    silent = ModelFile.model_validate(model.model_dump() | {"source": model.source.model_dump() | {"outcomes": False}})
    assert accepted(workspace, silent)[0].rows == 2


def test_a_parquet_source_with_its_own_types(workspace, tmp_path):
    import pyarrow as pa

    model = model_in(tmp_path)
    table = pa.table(
        {
            "id": [1, 2],
            "files": pa.array([3, 900], pa.int32()),
            "stage": ["dev", "prod"],
            "night": [True, None],
            "outcome": ["Low", "High"],
            "asked": pa.array([1_767_225_600 * 10**9, 1_767_312_000 * 10**9], pa.timestamp("ns")),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").unlink()
    source = model.source.model_dump() | {"table": str(tmp_path / "rows.parquet")}
    model = ModelFile.model_validate(model.model_dump() | {"source": source})
    for key in ("2", "7"):
        log(workspace, key, days=20)
        tell(workspace, model, {"key": key, "label": "Low"})
    assert keys_of(accepted(workspace, model)[1]) == ["1", "2", "7"]


def test_a_group_that_no_prediction_has_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"source\.outcomes: needs split\.group to be a column"):
        ModelFile.parse(MODEL.replace("ROWS", "x").replace("KEY", "id") + "split: {by: group, group: owner}\n")
