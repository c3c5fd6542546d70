"""Drafts of small tables, each with one thing that a person would want to be told; and of real tables."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steward import initialisation, steps
from steward.config import ModelFile
from steward.core.drafting import Draft
from steward.errors import ModelFileError, SourceMissing
from steward.records import Snapshot

ROWS = 400
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def plain_table() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    files = draws.integers(1, 200, ROWS)
    return pd.DataFrame(
        {
            "ref": [f"r{number}" for number in range(ROWS)],
            "files": files,
            "share": draws.random(ROWS).round(3),
            "team": draws.choice(["web", "ops", "data"], ROWS),
            "risk": np.where(files + draws.normal(0, 60, ROWS) > 100, "High", "Low"),
        }
    )


def drafted(workspace, folder: Path, frame: pd.DataFrame, **options) -> tuple[ModelFile, Draft]:
    path = folder / "table.csv"
    frame.to_csv(path, index=False, sep=options.pop("sep", ","))
    draft = initialisation.draft(workspace, "risk", str(path), **{"label": "risk", **options})
    return ModelFile.parse(draft.model_file_text), draft


def kinds(draft: Draft, column: str | None) -> set[str]:
    return {finding.kind for finding in draft.findings if finding.column == column}


def test_a_plain_table_needs_no_remark(workspace, tmp_path):
    model, draft = drafted(workspace, tmp_path, plain_table())
    assert draft.findings == ()
    assert model.source.key == "ref"
    assert model.classes == ("Low", "High")
    assert (model.columns["files"].min, model.columns["files"].max) == (0, 500)
    assert (model.columns["share"].min, model.columns["share"].max) == (0, 1)
    assert model.columns["team"].values == ("data", "ops", "web")  # noqa: PD011
    assert model.verify.detect > 0.1
    snapshot = workspace.load(Snapshot, steps.accept(workspace, model, at=LATER))
    assert (snapshot.accepted, snapshot.rejected) == (ROWS, 0)


LEFT_OUT = [
    ("leak", lambda t: t["risk"].map({"High": "7", "Low": "3"})),
    ("leak", lambda t: np.where(t["risk"] == "High", np.arange(ROWS) % 50, np.nan)),
    ("id", lambda t: np.arange(ROWS) + 1_000),
    ("id", lambda t: [f"x{number:04}" for number in range(ROWS)]),
    ("constant", lambda t: "same"),
    ("empty", lambda t: None),
    ("duplicate", lambda t: t["files"]),
    ("duplicate", lambda t: t["team"].map({"web": "W", "ops": "O", "data": "D"})),
    ("free_text", lambda t: [f"a note about change {number % 200} today" for number in range(ROWS)]),
    ("date", lambda t: pd.date_range("2024-01-01", periods=ROWS // 2).astype(str).tolist() * 2),
]


@pytest.mark.parametrize(("kind", "values"), LEFT_OUT, ids=[f"{kind}{n}" for n, (kind, _) in enumerate(LEFT_OUT)])
def test_suspicious_columns_are_left_out_and_named(workspace, tmp_path, kind, values):
    table = plain_table()
    model, draft = drafted(workspace, tmp_path, table.assign(extra=values(table)), time=None)
    if kind == "date":  # the only moment of a table is its time
        assert model.source.time == "extra"
        return
    assert kind in kinds(draft, "extra")
    assert "extra" not in model.columns
    assert "# extra:" in draft.model_file_text


KEPT = [
    ("afterwards", "closed_reason", lambda t: t["team"].sample(frac=1, random_state=1).tolist()),
    ("sentinel", "waited", lambda t: np.where(np.arange(ROWS) % 7 == 0, 999, np.arange(ROWS) % 50)),
    ("nearly_constant", "flag", lambda t: np.where(np.arange(ROWS) < 1, "b", "a")),
    ("spelling", "place", lambda t: np.where(np.arange(ROWS) % 9 == 0, "Prod", "prod").astype(object) + np.where(np.arange(ROWS) % 2, "", "2")),
    ("code", "zip", lambda t: [f"0{number % 20:02}" for number in range(ROWS)]),
    ("decimal_comma", "price", lambda t: [f"{number % 13},5" for number in range(ROWS)]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "values"), KEPT, ids=[kind for kind, *_ in KEPT])
def test_remarkable_columns_stay_with_a_remark(workspace, tmp_path, kind, name, values):
    table = plain_table()
    model, draft = drafted(workspace, tmp_path, table.assign(**{name: values(table)}))
    assert kind in kinds(draft, name)
    assert name in model.columns


def test_missing_tokens_blanks_and_separators(workspace, tmp_path):
    table = plain_table().astype({"files": str})
    table.loc[::10, "files"] = "?"
    table.loc[::11, "team"] = " web "
    table.loc[::13, "share"] = np.nan
    model, draft = drafted(workspace, tmp_path, table, sep=";")
    assert model.source.missing == ("", "?")
    assert model.columns["files"].type == "integer"
    assert model.columns["files"].nullable
    assert model.columns["share"].nullable
    assert model.columns["team"].values == ("data", "ops", "web")  # noqa: PD011
    assert {"separator", "blanks", "missing"} <= kinds(draft, None)


def test_labels_in_other_spellings_and_rare_classes(workspace, tmp_path):
    table = plain_table()
    table.loc[::5, "risk"] += "."
    table.loc[:2, "risk"] = "Critical"
    model, draft = drafted(workspace, tmp_path, table)
    assert model.classes == ("Low", "High", "Critical")
    assert model.label.aliases == {"High.": "High", "Low.": "Low"}
    assert {"label", "rare_class"} <= kinds(draft, "risk")


def test_a_table_without_an_id_is_keyed_by_its_content(workspace, tmp_path):
    table = plain_table().drop(columns="ref")
    table = pd.concat([table, table.head(3)])
    model, draft = drafted(workspace, tmp_path, table)
    assert len(model.source.keys) > 1
    assert "risk" not in model.source.keys
    assert "3 rows repeat another" in next(f.message for f in draft.findings if f.kind == "key")
    snapshot = workspace.load(Snapshot, steps.accept(workspace, model, at=LATER))
    assert snapshot.accepted == ROWS


def test_a_number_is_a_regression(workspace, tmp_path):
    model, _ = drafted(workspace, tmp_path, plain_table(), label="files")
    assert model.task == "regression"
    assert model.metric == "rmse"


REFUSED = [
    ({"label": "nothing"}, "no such column"),
    ({"key": ["nothing"]}, "no such column"),
    ({"time": "nothing"}, "no such column"),
    ({"label": "ref"}, "too many different values"),
    ({"label": "team", "task": "regression"}, "needs numbers"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_drafted_is_refused(workspace, tmp_path, options, message):
    with pytest.raises(ModelFileError, match=message):
        drafted(workspace, tmp_path, plain_table(), **options)


def test_one_class_and_no_key_are_refused(workspace, tmp_path):
    with pytest.raises(ModelFileError, match="fewer than two"):
        drafted(workspace, tmp_path, plain_table().assign(risk="Low"))
    with pytest.raises(ModelFileError, match="tells the rows apart"):
        drafted(workspace, tmp_path, plain_table()[["team", "risk"]])


def test_a_missing_file_and_a_bad_name_are_refused(workspace, tmp_path):
    with pytest.raises(SourceMissing, match="no file matches"):
        initialisation.draft(workspace, "risk", str(tmp_path / "none.csv"), label="risk")
    with pytest.raises(ModelFileError, match="not a name"):
        initialisation.draft(workspace, "My Model", str(tmp_path), label="risk")


REAL = [
    ("penguins/penguins.csv.gz", "species", set()),
    ("horse_colic/horse-colic.csv.gz", "surgical_lesion", {"hospital_number"}),
    ("german_credit/german.csv.gz", "class", set()),
    ("telco_churn/Telco-Customer-Churn.csv.gz", "Churn", set()),
    ("jit_issta21/jdt_k_feature.csv.gz", "bug", {"column00", "__"}),
]


@pytest.mark.parametrize(("path", "label", "left_out"), REAL, ids=[path.split("/")[0] for path, *_ in REAL])
def test_real_tables_are_accepted_with_their_draft(workspace, shared_data, path, label, left_out):
    draft = initialisation.draft(workspace, "real", str(shared_data / path), label=label)
    model = ModelFile.parse(draft.model_file_text)
    assert left_out.isdisjoint(model.columns)
    snapshot = workspace.load(Snapshot, steps.accept(workspace, model, at=LATER))
    assert snapshot.rejected <= model.rows.max_rejected * snapshot.rows
