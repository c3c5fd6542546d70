"""The same rows get the same answers over HTTP, in a batch, from Python and from the pipeline that was trained."""

import asyncio
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steward import Model, steps
from steward.config import FAMILIES, REGRESSION_FAMILIES, ModelFile
from steward.core import estimators
from steward.io.workspace import Workspace
from steward.records import Challenger, Estimate, Promotion, Reference, Test, Verdict
from steward.serving.versions import Versions
from tests.conftest import plain_workspace_in

AT = datetime(2026, 2, 1, tzinfo=UTC)
ANY = Estimate(value=0.9, low=0.88, high=0.92)
OWN = "{estimator: sklearn.ensemble.ExtraTreesCLASSIFIER, params: {n_estimators: 8}, name: extra_trees}"
MODEL = """
name: NAME
task: TASK
source: {table: ROWS, key: id}
label: LABEL
columns:
  files: {type: integer, min: 0, max: 1000}
  size: {type: number, nullable: true}
  team: {type: category, open: true, nullable: true}
  stage: {type: category, values: [dev, prod], aliases: {production: prod}, nullable: true}
  urgent: {type: boolean, nullable: true}
rows: {min: 10}
features: {odd: {expression: "files % 7 / size > 1 or stage == 'prod' and not urgent"}}
candidates: [FAMILY]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.5}
serve:
  out_of_range: flag
  actions:
    - {when: "team == 'web' and files > 500", do: look, say: "Look twice"}
    - {when: "prediction != 'Low' and confidence >= 0.6 or size > 5", do: notify}
"""
ODD_ROWS = [
    {"files": 7, "size": None, "team": None, "stage": None, "urgent": None},
    {"files": 0, "size": 0.0, "team": "brand new", "stage": "production", "urgent": True},
    {"files": 1000, "size": -1e300, "team": " web ", "stage": "dev", "urgent": False},
    {"files": 5000, "size": 1e-300, "team": "", "stage": "prod", "urgent": None},
    {"files": 501, "size": 5.000000000000001, "team": "ops", "stage": "dev", "urgent": True},
]


def rows_of(count: int) -> pd.DataFrame:
    drawn = np.random.default_rng(3)
    files, size = drawn.integers(0, 1000, count), drawn.normal(3, 4, count).round(3)
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(count)], "files": files, "size": size})
    frame["team"] = np.array(["web", "ops", "data", None], dtype=object)[drawn.integers(0, 4, count)]
    frame["stage"] = np.array(["dev", "prod"], dtype=object)[drawn.integers(0, 2, count)]
    frame["urgent"] = drawn.integers(0, 2, count).astype(bool)
    frame["number"] = files / 100 + size + 3 * (frame["stage"] == "prod")
    frame["risk"] = np.where(frame["number"] > 9, "High", "Low")
    frame.loc[frame.index % 11 == 0, "size"] = None
    return frame


def model_file(folder: Path, task: str, family: str) -> ModelFile:
    label = "{column: number}" if task == "regression" else "{column: risk, classes: [Low, Never, High]}"
    own = OWN.replace("CLASSIFIER", "Regressor" if task == "regression" else "Classifier")
    words = {"NAME": f"{task}_{family}", "TASK": task, "ROWS": str(folder / "rows.parquet"), "LABEL": label}
    text = MODEL
    for word, meaning in {**words, "FAMILY": own if family == "extra_trees" else family}.items():
        text = text.replace(word, meaning)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / f"{task}_{family}.yaml").write_text(text)
    return ModelFile.parse(text)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("identical")
    rows_of(300).to_parquet(folder / "rows.parquet")
    made = plain_workspace_in(folder / "home")
    return type(made)(replace(made.settings, models=folder / "models"))


def crown(workspace: Workspace, model: ModelFile, challenger: Reference) -> Challenger:
    """Version 1 and champion in the ledger, which is all that anybody asks who answers."""
    test = Test(
        rows=5, metric="m", value=1, low=1, high=1, constant=1, champion=None, difference=ANY, discordance=0, overlap={}
    )
    made = Verdict(
        model=model.name, challenger=challenger, digest="d", verdict="promote", reasons=(), gates=(), slices=(),
        test=test, opening=1, at=AT,
    )  # fmt: skip
    verdict = workspace.remember(Verdict, [model.name], lambda: made)
    promotion = Promotion(
        model=model.name, verdict=verdict, version=1, alias="champion", champion=1, previous=None, reasons=(), at=AT
    )
    workspace.ledger.append(model.name, "promotion", verdict.digest, promotion.as_json(), AT)
    return workspace.load(Challenger, challenger)


def learned(workspace: Workspace, model: ModelFile) -> Challenger:
    roles = steps.split(workspace, model, steps.accept(workspace, model, at=AT))
    [name] = model.candidate_names
    selection = steps.select(workspace, model, roles, [steps.train_candidate(workspace, model, roles, name)])
    return crown(workspace, model, steps.refit(workspace, model, selection))


def admitted_frame(model: ModelFile, rows: list[dict]) -> pd.DataFrame:
    """Rows as training sees them after the contract has cleaned them."""
    frame = pd.DataFrame(rows)[list(model.columns)]
    texts = frame[["team", "stage"]].map(lambda text: text.strip() or None if isinstance(text, str) else None)
    frame[["team", "stage"]] = texts.replace({"production": "prod"}).astype(object).where(texts.notna(), None)
    return frame.astype({"files": float, "size": float, "urgent": float})


def over_http(workspace: Workspace, model: ModelFile, records: list[dict]) -> list[dict]:
    versions = Versions(workspace.settings)
    versions.refresh()
    lineup = versions.lineups[model.name]
    answered = [asyncio.run(lineup.answer(json.loads(json.dumps(record)))) for record in records]
    versions.stop()
    assert {each.fallback for each in answered} == {None}
    return [{**each.answer._asdict(), "flags": list(each.admitted.flags)} for each in answered]


CASES = [("classification", family) for family in (*FAMILIES, "extra_trees")]
CASES += [("regression", family) for family in (*REGRESSION_FAMILIES, "extra_trees")]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "family"), CASES)
def test_every_door_gives_the_same_answers(workspace, task, family, tmp_path):
    model = model_file(workspace.settings.models.parent, task, family)
    made = learned(workspace, model)
    drawn = rows_of(60).drop(columns=["id", "number", "risk"]).astype(object)
    records = [*ODD_ROWS, *drawn.where(drawn.notna(), None).to_dict("records")]
    python = Model(model.name, workspace=workspace)

    alone = [python.predict(record) for record in records]
    table = python.predict(pd.DataFrame(records))
    pd.DataFrame(records).astype({"size": float}).to_parquet(tmp_path / "in.parquet")
    steps.score(workspace, model, str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), at=AT)
    batch = pd.read_parquet(tmp_path / "out.parquet")
    truth = estimators.predictions(workspace.artifacts.load_skops(made.skops), admitted_frame(model, records), model)

    pd.testing.assert_frame_equal(batch, table, check_dtype=False, check_exact=True)
    web = over_http(workspace, model, records)
    assert web == [
        {name: value for name, value in one.items() if name not in ("model", "model_version")} for one in alone
    ]
    for one, row, true in zip(alone, batch.to_dict("records"), truth, strict=True):
        assert [one["action"], one["message"]] == [row["action"], row["message"]]
        assert [",".join(one["unseen"]), ",".join(one["flags"])] == [row["unseen"], row["flags"]]
        _same(one, row, true, model)
    assert batch["unseen"][1] == "team"
    assert batch["flags"][3] == "out_of_range:files"


def _same(one: dict, row: dict, true: np.ndarray, model: ModelFile) -> None:
    """Sums over a row are added in another order when it is alone: the last bits may differ, the decision does not."""
    if model.task == "regression":
        assert math.isclose(one["prediction"], row["prediction"], rel_tol=1e-9)
        assert math.isclose(one["prediction"], float(true), rel_tol=1e-9)
        assert math.isclose(one["interval"]["low"], row["low"], rel_tol=1e-9)
        return
    assert one["prediction"] == row["prediction"] == model.classes[int(np.argmax(true))]
    alone, many = list(one["probabilities"].values()), [row[f"probability_{name}"] for name in model.classes]
    np.testing.assert_allclose(alone, many, rtol=0, atol=1e-9)
    np.testing.assert_allclose(alone, true, rtol=0, atol=1e-9)
