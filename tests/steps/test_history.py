"""How much of the past a candidate learns from, from the model file to the rebuilt version."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steward import pipeline, reproduction, steps
from steward.config import ModelFile
from steward.core import estimators, tuning
from steward.core.history import FEWEST_JUDGES, Lesson
from steward.errors import CandidateFailed, ModelFileError
from steward.io.workspace import Workspace
from steward.records import Candidate, Challenger
from tests.conftest import plain_workspace_in

AT = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, PER_DAY = 200, 10
CHANGED = 110
"""The day on which the world turned over, unless it did not."""


def rows_of(*, turned: bool, classify: bool = True) -> pd.DataFrame:
    """Ten rows a day; a large amount is risky, and before the change a small one was."""
    generator = np.random.default_rng(7)
    day = np.repeat(np.arange(DAYS), PER_DAY)
    amount = generator.random(len(day))
    effect = np.where(turned & (day < CHANGED), 1 - amount, amount)
    noise = generator.normal(scale=0.1, size=len(day))
    risk = np.where(effect + noise > 0.5, "high", "low") if classify else 100 * (effect + noise)
    at = AT - timedelta(days=DAYS) + pd.to_timedelta(day * 86_400 + np.arange(len(day)) % PER_DAY, unit="s")
    return pd.DataFrame({"id": np.arange(len(day)), "at": at, "amount": amount, "risk": risk})


def model_file(table: Path, train: dict[str, Any], *, classify: bool = True, **sections: Any) -> ModelFile:
    return ModelFile.model_validate(
        {
            "name": "turning",
            "task": "classification" if classify else "regression",
            "source": {"table": str(table), "key": "id", "time": "at"},
            "label": {"column": "risk"} | ({"classes": ["low", "high"]} if classify else {}),
            "columns": {"amount": {"type": "number"}},
            "split": {"by": "time"},
            "candidates": ["decision_tree"],
            "train": train,
            "search": {"trials": 3},
            "verify": {"detect": 0.3},
        }
        | sections
    )


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., tuple[Workspace, ModelFile, dict[str, Candidate]]]:
    def train(frame: pd.DataFrame, train: dict[str, Any], **sections: Any) -> Any:
        frame.to_parquet(tmp_path / "rows.parquet")
        workspace = plain_workspace_in(tmp_path / "home")
        model = model_file(tmp_path / "rows.parquet", train, **sections)
        roles = steps.split(workspace, model, steps.accept(workspace, model, at=AT))
        made = {
            name: workspace.load(Candidate, steps.train_candidate(workspace, model, roles, name))
            for name in model.candidate_names
        }
        return workspace, model, made

    return train


@pytest.mark.parametrize(
    ("turned", "train", "expected", "split"),
    [
        (True, {"history": ["all", "60d"]}, {"history": "60d"}, "time"),
        (True, {"history": ["all", "60d"]}, {"history": "60d"}, "key"),
        (True, {"history": ["all", 500]}, {"history": 500}, "time"),
        (True, {"recency": ["none", "10d"]}, {"recency": "10d"}, "time"),
        (False, {"history": ["all", "2d"]}, {"history": "all"}, "time"),
        (False, {"history": ["all", "2d"]}, {"history": "all"}, "key"),
        (False, {"history": ["2d"]}, {"history": "2d"}, "time"),
    ],
)
def test_the_past_that_answers_the_newest_rows_wins(trained, turned, train, expected, split):
    _, _, made = trained(rows_of(turned=turned), train, split={"by": split})
    candidate = made["decision_tree"]
    assert candidate.error is None
    assert {name: candidate.params[name] for name in expected} == expected
    assert {"history", "recency"} & set(candidate.params) == set(expected), "only what there is to choose"


def test_without_a_choice_nothing_is_said_and_every_validation_row_chooses(trained):
    workspace, model, made = trained(rows_of(turned=True), {})
    assert set(made["decision_tree"].params) == {"max_depth", "min_samples_leaf"}
    rows = steps.learning_rows(workspace, model, made["decision_tree"].roles, ("train", "validation"))
    assert rows.times is None
    assert len(rows.choosing(model, folded=False)) == (rows.roles == "validation").sum()


def test_with_a_choice_only_the_newest_rows_choose(trained):
    """Under a split by key validation rows are as old as any: more than half of them are from before the change."""
    train = {"history": ["all", 200]}
    split = {"by": "key", "train": 0.3, "validation": 0.55, "test": 0.15}
    workspace, model, made = trained(
        rows_of(turned=True), train, split=split, search={"trials": 3, "cross_validate_below": 0}
    )
    rows = steps.learning_rows(workspace, model, made["decision_tree"].roles, ("train", "validation"))
    chosen = rows.choosing(model, folded=False)
    candidates = rows.times[rows.roles == "validation"]
    assert len(chosen) == FEWEST_JUDGES < len(candidates) / 2
    assert np.array_equal(np.sort(rows.times[chosen]), np.sort(candidates)[-FEWEST_JUDGES:])
    assert made["decision_tree"].validation.value > 0.8


FAMILIES = ["logistic_regression", "random_forest", "gradient_boosting", "neural_network", "ensemble"]


@pytest.mark.parametrize("classify", [True, False])
def test_every_family_and_their_mean_learn_from_their_part_of_the_past(trained, classify):
    names = FAMILIES if classify else ["linear_regression", *FAMILIES[1:]]
    of = model_file(Path("x"), {}, classify=classify, candidates=names)
    frame = rows_of(turned=True, classify=classify)[-1_000:]
    times = frame["at"].astype("int64").to_numpy() / 1e6
    truth = frame["risk"].to_numpy(object if classify else float)
    chosen = {"history": "60d", "recency": "20d"}
    params = {name: {**estimators.family(of, name).first[0], **chosen} for name in names[:-1]}
    params["random_forest"] |= {"n_estimators": 5}
    params["gradient_boosting"] |= {"max_iter": 5, "copies": 2}
    params["neural_network"] |= {"max_iter": 2, "copies": 2}
    params["ensemble"] = {"members": {name: {"weight": 0.25, "params": params[name]} for name in names[:-1]}}
    new = np.flatnonzero(times > times.max() - 60 * 86_400)
    for name in names:
        assert Lesson.of(params[name], times).count(len(times)) == len(new) == 600
        if name != "ensemble":
            assert estimators.takes_weights(of, name)
        how = {"seed": 1, "threads": 1}
        short = tuning.refit(of, name, params[name], frame[["amount"]], truth, times=times, **how)
        answers = estimators.predictions(short, frame[["amount"]].iloc[new], of)
        alone = tuning.refit(of, name, params[name], frame[["amount"]].iloc[new], truth[new], times=times[new], **how)
        assert np.array_equal(answers, estimators.predictions(alone, frame[["amount"]].iloc[new], of)), name
        with pytest.raises(CandidateFailed, match="these rows have no times"):
            tuning.refit(of, name, params[name], frame[["amount"]], truth, **how)


@pytest.mark.parametrize(("before", "past"), [("60d", "60d"), ("30d", "all"), (None, "all")])
def test_the_champions_setting_is_tried_first_and_then_every_past(before, past):
    """A past that the model file does not offer any more is replaced by the first that it does."""
    of = model_file(Path("x"), {"history": ["all", "60d"]})
    frame = rows_of(turned=True)
    times, truth = frame["at"].astype("int64").to_numpy() / 1e6, frame["risk"].to_numpy(object)
    rows = tuning.Rows(of, frame[["amount"]], truth, tuning.folds(of, truth, 1_500, times=times, seed=1), times)
    known = {"max_depth": 3, "min_samples_leaf": 9} | ({"history": before} if before else {})
    search = tuning.Search("decision_tree", rows, seed=1, threads=1, known=known)
    usual = {"max_depth": 6, "min_samples_leaf": 20}
    expected = [known | {"history": past}, usual | {"history": "all"}, usual | {"history": "60d"}]
    assert list(search.first) == expected
    assert [search.try_next().params for _ in expected] == expected


def test_an_estimator_without_sample_weights_has_no_recency_to_choose(trained):
    neighbours = {"estimator": "sklearn.neighbors.KNeighborsClassifier", "search": {"n_neighbors": [5, 25]}}
    _, _, made = trained(
        rows_of(turned=True), {"history": ["all", "60d"], "recency": ["none", "10d"]}, candidates=[neighbours]
    )
    (candidate,) = made.values()
    assert candidate.error is None
    assert set(candidate.params) <= {"n_neighbors", "history"}
    assert candidate.params["history"] == "60d"
    assert candidate.trials[0].params == {"history": "all"}, "its own defaults come first"


def test_a_version_of_a_short_past_is_rebuilt_byte_for_byte(tmp_path):
    rows_of(turned=True).to_parquet(tmp_path / "rows.parquet")
    workspace = plain_workspace_in(tmp_path / "home")
    model = model_file(tmp_path / "rows.parquet", {"history": ["all", "60d"]}, name="turning")
    outcome = pipeline.train(workspace, model, at=AT, reason="test", by="test", run_id="1").as_json()
    version = outcome["version"]
    made = workspace.load(Challenger, workspace.registry.version("turning", version).challenger)
    assert made.params["history"] == "60d"
    assert made.trained_rows == 600, "what it learned from, not what it might have"
    assert outcome["test"]["value"] > 0.8
    assert reproduction.reproduce(workspace, "turning", version).identical


@pytest.mark.parametrize(
    ("train", "match"),
    [
        ("{history: [all, 90]}\n", None),
        ("{history: [all, soon]}\n", "train.history.1: a duration is a number and one of"),
        ("{history: [0]}\n", "train.history.0: a history must hold something"),
        ("{history: [all, 0d]}\n", "must hold something"),
        ("{history: [true]}\n", "a history is `all`, a duration such as 90d, or a number of rows"),
        ("{history: []}\n", "at least 1 item"),
        ("{history: [all, all]}\n", "history holds a choice twice"),
        ("{recency: [none, 30]}\n", "a recency is `none`, or the duration"),
        ("{recency: [none, none]}\n", "recency holds a choice twice"),
    ],
)
def test_choices_in_the_model_file(train, match):
    text = (Path(__file__).parents[2] / "models" / "deployment_risk.yaml").read_text(encoding="utf-8")
    if match is None:
        assert ModelFile.parse(f"{text}\ntrain: {train}").train.history == ("all", 90)
        return
    with pytest.raises(ModelFileError, match=match):
        ModelFile.parse(f"{text}\ntrain: {train}")


@pytest.mark.parametrize("train", ["{history: [10]}", "{recency: [1d]}"])
def test_how_old_a_row_is_needs_a_time(train):
    text = """
name: timeless
task: regression
source: {table: rows.csv, key: id}
label: {column: y}
columns: {x: {type: number}}
"""
    with pytest.raises(ModelFileError, match=r"train.history: needs source.time, as train.recency does"):
        ModelFile.parse(f"{text}train: {train}")
