"""A small company with a champion, whose days can be served and whose table can be changed."""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steward import pipeline
from steward.config import ModelFile
from steward.io.predictions import Logged, new_id
from steward.io.workspace import Workspace
from steward.prediction import Model
from tests.conftest import plain_workspace_in

TRAINED = datetime(2026, 1, 1, tzinfo=UTC)
"""When the past ends and the champion is made."""
MODEL = """
name: risk
task: classification
source: {table: ROWS, key: id, time: asked}
label: {column: outcome, classes: [Low, High]}
columns:
  files: {type: number, min: 0, max: 1000}
  size: {type: number, nullable: true}
  stage: {type: category, values: [dev, prod]}
  team: {type: category, open: true, nullable: true}
  night: {type: boolean, nullable: true}
features:
  many_in_prod: {expression: "files > 700 and stage == 'prod'"}
candidates: [decision_tree]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.3}
rows: {max_rejected: 0.5}
"""


def rows_of(count: int, until: datetime, days: float = 1.0, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Rows whose outcome is High if, and only if, there are more than 500 files; spread over the days before `until`."""
    rng = np.random.default_rng([seed, int(until.timestamp())])
    asked = until - pd.to_timedelta(np.sort(rng.uniform(0, days * 86_400, count))[::-1], unit="s")
    frame = pd.DataFrame(
        {
            "id": [f"{int(until.timestamp())}-{seed}-{number}" for number in range(count)],
            "asked": asked,
            "files": rng.integers(0, 1000, count).astype(float),
            "size": rng.lognormal(3, 1, count),
            "stage": rng.choice(["dev", "prod"], count),
            "team": rng.choice(["web", "data", "mobile"], count, p=[0.5, 0.3, 0.2]),
            "night": rng.random(count) < 0.2,
        }
    )
    frame["outcome"] = np.where(frame["files"] > 500, "High", "Low")
    return frame.assign(**columns)


@dataclass
class Company:
    """A workspace, its model file, and the table that both read."""

    home: Path
    make: Any

    @property
    def table(self) -> Path:
        return self.home / "rows.parquet"

    def rows(self, count: int, until: datetime, days: float = 1.0, **columns: Any) -> pd.DataFrame:
        """Rows like those of the past, from the days before a moment; see `rows_of`."""
        return rows_of(count, until, days, **columns)

    @property
    def workspace(self) -> Workspace:
        return self.make(self.home)

    @property
    def model(self) -> ModelFile:
        return ModelFile.parse(MODEL.replace("ROWS", str(self.table)))

    def write(self, *frames: pd.DataFrame) -> None:
        """These rows are the source from now on."""
        pd.concat(frames, ignore_index=True).to_parquet(self.table, index=False)

    def add(self, *frames: pd.DataFrame) -> None:
        """These rows come to the source."""
        self.write(pd.read_parquet(self.table), *frames)

    def serve(self, frame: pd.DataFrame, version: int | None = 1) -> None:
        """The champion answers these rows, on record, each at its time."""
        workspace = self.workspace
        answers = Model(self.model, workspace=workspace).predict(frame)
        columns = list(self.model.columns)
        records = json.loads(frame[columns].astype({"night": float}).to_json(orient="records"))
        rows = []
        for record, answer, key, asked in zip(records, answers.itertuples(), frame["id"], frame["asked"], strict=True):
            at = asked.timestamp()
            told = answer.prediction, answer.confidence
            text = json.dumps(record)
            rows.append(Logged(new_id(at), "risk", at, version, key, text, "{}", *told, "proceed", False, None))
        workspace.predictions.prepare()
        writer = workspace.predictions.writer(durable=False, patience=5)
        writer.write(rows)
        writer.close()


@pytest.fixture(scope="session")
def trained_company(tmp_path_factory) -> Company:
    """Made once; take a copy."""
    home = tmp_path_factory.mktemp("company") / "home"
    home.mkdir()
    company = Company(home, partial(plain_workspace_in, explains=True))
    company.write(rows_of(1_500, TRAINED, days=30))
    made = pipeline.train(
        plain_workspace_in(home), company.model, at=TRAINED, reason="first version", by="test", run_id="first"
    )
    assert made.promotion is not None
    assert made.promotion.champion == 1
    return company


@pytest.fixture
def company(trained_company, tmp_path) -> Company:
    """A champion that learned from 30 days of 50 rows, to do with as one likes."""
    home = tmp_path / "home"
    shutil.copytree(trained_company.home, home)
    return Company(home, trained_company.make)
