"""The train_candidate step with cross-validation, from a table to stored predictions."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steward import steps
from steward.config import ModelFile
from steward.core import tuning
from steward.io.workspace import Workspace
from steward.records import Candidate
from steward.steps.candidate import read_predictions
from steward.steps.rows import learning_rows

AT = datetime(2026, 2, 1, tzinfo=UTC)
ROWS = 300
LABELS = {"regression": {"column": "label"}, "classification": {"column": "label", "classes": ["low", "high"]}}


def model_file(table: Path, task: str) -> ModelFile:
    return ModelFile.model_validate(
        {
            "name": "folded",
            "task": task,
            "source": {"table": str(table), "key": "id"},
            "label": LABELS[task],
            "columns": {"amount": {"type": "number"}},
            "rows": {"min": 10},
            "candidates": ["decision_tree"],
            "search": {"trials": 2, "folds": 3},
            "verify": {"detect": 0.5},
        }
    )


def write_rows(path: Path, task: str) -> None:
    amount = np.random.default_rng(1).random(ROWS)
    label = 10 * amount if task == "regression" else np.where(amount > 0.5, "high", "low")
    pd.DataFrame({"id": np.arange(ROWS), "amount": amount, "label": label}).to_parquet(path)


@pytest.mark.parametrize("task", list(LABELS))
def test_out_of_fold_predictions_stand_in_the_order_of_the_roles(
    task: str, tmp_path: Path, new_workspace: Callable[[Path], Workspace]
) -> None:
    write_rows(tmp_path / "rows.parquet", task)
    model, workspace = model_file(tmp_path / "rows.parquet", task), new_workspace(tmp_path / "home")
    roles = steps.split(workspace, model, steps.accept(workspace, model, at=AT))
    candidate = workspace.load(Candidate, steps.train_candidate(workspace, model, roles, "decision_tree"))
    rows = learning_rows(workspace, model, roles, ("train", "validation"))
    assert candidate.predictions is not None, candidate.error
    answers = read_predictions(workspace, model, candidate.predictions)

    assert candidate.chosen_on == "cross_validation"
    assert candidate.loss is not None
    assert tuning.loss_of(answers, rows.truth, model.classes) == pytest.approx(candidate.loss)
    in_search_order = np.argsort(rows.roles == "validation", kind="stable")
    assert (in_search_order != np.arange(len(rows.truth))).any(), "the roles are mixed, so that order matters"
    assert tuning.loss_of(answers[in_search_order], rows.truth, model.classes) > 2 * candidate.loss
    assert {len(trial.stages) for trial in candidate.trials if trial.state == "complete"} == {3}


@pytest.mark.parametrize(
    ("explains", "candidates", "measured"),
    [
        pytest.param(True, ["decision_tree"], True, id="people look"),
        pytest.param(False, ["decision_tree", "linear_regression"], True, id="it may decide the choice"),
        pytest.param(False, [{"name": "own", "estimator": "sklearn.dummy.DummyRegressor"}], True, id="a user's own"),
        pytest.param(False, ["decision_tree"], False, id="the only one, in a replay"),
    ],
)
def test_what_a_candidate_costs_is_measured_where_it_matters(
    explains: bool, candidates: list[object], measured: bool, tmp_path: Path, new_workspace: Callable[[Path], Workspace]
) -> None:
    write_rows(tmp_path / "rows.parquet", "regression")
    document = model_file(tmp_path / "rows.parquet", "regression").model_dump(mode="json", by_alias=True)
    model, workspace = ModelFile.model_validate(document | {"candidates": candidates}), new_workspace(tmp_path / "home")
    workspace.explains = explains
    roles = steps.split(workspace, model, steps.accept(workspace, model, at=AT))
    made = workspace.load(Candidate, steps.train_candidate(workspace, model, roles, model.candidate_names[0]))
    assert made.error is None
    assert [made.fit_seconds > 0, made.latency_us > 0, made.bytes > 0] == [measured] * 3
