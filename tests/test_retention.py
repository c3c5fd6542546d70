import json
from datetime import UTC, datetime, timedelta

import pytest

from steward import retention
from steward.config import ModelFile
from steward.errors import SourceMissing, SourceUnreadable
from steward.io.latencies import HOUR, Latency
from steward.io.predictions import Logged, new_id

AT = datetime(2026, 3, 1, tzinfo=UTC)
MODEL = """
name: risk
task: classification
source: {table: ROWS, key: id, time: asked, outcomes: true}
label: {column: outcome, classes: [Low, High], mature_after: 14d}
columns: {files: {type: integer, min: 0, max: 1000}}
monitor: {window: 7d}
"""


@pytest.fixture
def model(tmp_path):
    (tmp_path / "rows.csv").write_text("id,files,outcome,asked\n1,3,Low,2026-01-01T00:00:00\n")
    return ModelFile.parse(MODEL.replace("ROWS", str(tmp_path / "rows.csv")))


def changed(model, section, **fields):
    return ModelFile.model_validate(model.model_dump() | {section: getattr(model, section).model_dump() | fields})


def log(workspace, key, days):
    at = (AT - timedelta(days=days)).timestamp()
    record = json.dumps({"files": 7})
    row = Logged(new_id(at), "risk", at, 1, key, record, "{}", "Low", 0.9, "proceed", False, None)
    workspace.predictions.prepare()
    writer = workspace.predictions.writer(durable=False, patience=1)
    writer.write([row])
    writer.close()
    return row.prediction_id


@pytest.fixture
def predicted(workspace, model):
    """Predictions of several ages; which of them are needed says their name."""
    days = {"1": 100, "silent": 100, "copied": 90, "copied again": 80, "young": 10, "youngest": 1}
    ids = {key: log(workspace, "copied" if key == "copied again" else key, age) for key, age in days.items()}
    items = [{"key": key, "label": "Low"} for key in ("1", "copied", "young")]
    workspace.predictions.add_outcomes(model, items, AT - timedelta(days=60))
    return ids


def left(workspace, ids):
    return {key for key, prediction_id in ids.items() if workspace.predictions.get(prediction_id)}


def prune(workspace, model, days=30, **options):
    return retention.prune(workspace, model, timedelta(days=days), by="ops", at=AT, **options)


def test_what_a_training_still_needs_stays(workspace, model, predicted):
    pruned = prune(workspace, model)
    assert left(workspace, predicted) == {"copied again", "young", "youngest"}
    assert (pruned.deleted.predictions, pruned.deleted.outcomes) == (3, 1)
    assert pruned.kept == {retention.ONLY_COPY: 1}
    assert [len(workspace.predictions.outcomes_of("risk", "key", key)) for key in ("1", "copied", "young")] == [0, 1, 1]
    assert prune(workspace, model).deleted.predictions == 0


def test_without_outcomes_as_rows_nothing_is_the_only_copy(workspace, model, predicted):
    prune(workspace, changed(model, "source", outcomes=False))
    assert left(workspace, predicted) == {"young", "youngest"}


@pytest.mark.parametrize(("window", "reason"), [("7d", "label.mature_after, 2w"), ("21d", "monitor.window, 3w")])
def test_what_is_not_mature_or_still_watched_stays(workspace, model, predicted, window, reason):
    pruned = prune(workspace, changed(model, "monitor", window=window), days=5)
    assert left(workspace, predicted) == {"copied again", "young", "youngest"}
    assert pruned.kept == {retention.ONLY_COPY: 1, f"younger than {reason}": 1}


def test_a_dry_run_says_the_same_and_deletes_nothing(workspace, model, predicted):
    said = prune(workspace, model, dry_run=True).as_json()
    assert left(workspace, predicted) == set(predicted)
    assert workspace.ledger.entries("risk", "prune") == []
    assert prune(workspace, model).as_json() == said | {"dry_run": False}


def test_it_is_on_record_with_numbers_and_reasons(workspace, model, predicted):
    prune(workspace, model)
    (entry,) = workspace.ledger.entries("risk", "prune")
    assert entry.body == {
        "model": "risk",
        "before": "2026-01-30T00:00:00+00:00",
        "older_than": "30d",
        "deleted": {"predictions": 3, "outcomes": 1},
        "kept": {retention.ONLY_COPY: 1},
        "dry_run": False,
        "by": "ops",
    }


def test_without_the_source_nothing_is_deleted(workspace, model, predicted, tmp_path):
    (tmp_path / "rows.csv").write_text("id,files\n1,2\n")
    with pytest.raises(SourceUnreadable, match="lacks columns of the contract: got 'asked, outcome'"):
        prune(workspace, model)
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(SourceMissing):
        prune(workspace, model)
    assert left(workspace, predicted) == set(predicted)


def test_the_command(described):
    described.change_model("key: id}", "key: id, outcomes: true}")
    workspace = described.workspace
    log(workspace, "old", 10_000)
    answer = described.ask("prune", "risk", "--older-than", "180d", "--dry-run")
    assert answer["deleted"] == {"predictions": 1, "outcomes": 0}
    assert "predictions" in described.run("prune", "risk", "--older-than", "180d").stdout
    assert workspace.predictions.count() == 0
    says = described.ask("history", "risk", "--kind", "prune")["entries"][0]["says"]
    assert says.startswith("1 predictions and 0 outcomes older than 180d deleted by")
    assert described.run("prune", "risk", "--older-than", "soon").exit_code == 2


def test_latencies_of_that_age_go_too(workspace, model, predicted):
    old, young = (int((AT - timedelta(days=days)).timestamp()) // HOUR * HOUR for days in (60, 1))
    workspace.latencies.write("a", {("risk", hour): Latency() for hour in (old, young)})
    prune(workspace, model)
    assert list(workspace.latencies.hours("risk", 0)) == [young]
