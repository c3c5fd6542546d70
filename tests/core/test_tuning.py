"""The search: repeatable, on the right rows, and not stopped by settings that fail."""

import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from steward.config import ModelFile
from steward.core import estimators, tuning
from steward.errors import CandidateFailed

TRAIN, VALIDATION = 120, 60


class Temperamental(DummyClassifier):
    """Fails for some settings."""

    def __init__(self, mood=1, random_state=None):
        super().__init__(strategy="prior", random_state=random_state)
        self.mood = mood

    def fit(self, *args, **kwargs):
        if self.mood != 1:
            raise RuntimeError(f"mood {self.mood} is too much")
        return super().fit(*args, **kwargs)


def model_file(task="classification", **sections):
    label = {"column": "label"} | ({"classes": ["low", "medium", "high"]} if task == "classification" else {})
    return ModelFile.model_validate(
        {
            "name": "example",
            "task": task,
            "source": {"table": "rows.csv", "key": "id", "time": "at"},
            "label": label,
            "columns": {
                "amount": {"type": "number", "nullable": True},
                "empty": {"type": "number", "nullable": True},
                "team": {"type": "category", "open": True},
            },
            "search": {"trials": 2, "cross_validate_below": 0},
        }
        | sections
    )


def cross_validating(task="classification", **sections):
    return model_file(task, search={"trials": 2, "folds": 2}, **sections)


def rows(task="classification", count=TRAIN + VALIDATION, seed=1):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "amount": np.where(generator.random(count) < 0.1, np.nan, generator.normal(size=count)),
            "empty": np.nan,
            "team": pd.Series(generator.choice(["web", "ops", "data"], count), dtype=object),
        }
    )
    signal = np.nan_to_num(frame["amount"].to_numpy()) + (frame["team"] == "ops").to_numpy() * 2.0
    if task == "regression":
        return frame, signal * 10
    return frame, np.array(["low", "medium", "high"], dtype=object)[np.digitize(signal, [0.5, 2.0])]


def search(model, candidate, frame, truth, *, train=TRAIN, seed=5, **options):
    return tuning.search(
        model,
        candidate,
        frame.iloc[:train],
        truth[:train],
        frame.iloc[train:],
        truth[train:],
        seed=seed,
        threads=1,
        **options,
    )


@cache
def searched(candidate, task="classification", make=model_file):
    """A search that several tests ask for, and the trials that were told on the way."""
    seen = []
    return search(make(task), candidate, *rows(task), on_trial=seen.append), seen


def fingerprint():
    """Every bit of a search of every family, in a way that another process can print."""
    model = model_file()
    digest = hashlib.sha256()
    for candidate in model.candidate_names:
        result, _ = searched(candidate)
        digest.update(repr((result.params, result.loss, [trial.params for trial in result.trials])).encode())
        digest.update(result.predictions.tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("make", [model_file, cross_validating], ids=["validation", "cross_validation"])
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("position", range(5))
class TestEveryFamily:
    def test_finds_a_setting_that_can_be_refitted(self, make, task, position):
        model = make(task)
        candidate = model.families[position]
        frame, truth = rows(task)
        result, seen = searched(candidate, task, make)

        assert tuple(seen) == result.trials
        assert [trial.number for trial in result.trials] == [0, 1]
        assert result.loss == min(trial.loss for trial in result.trials if trial.loss is not None)
        choosing = truth if result.chosen_on == "cross_validation" else truth[TRAIN:]
        assert result.predictions.shape == ((len(choosing), 3) if model.classes else (len(choosing),))
        assert tuning.loss_of(result.predictions, choosing, model.classes) == pytest.approx(result.loss)
        constant = np.log(3) if model.classes else truth.std()
        assert result.loss < constant

        pipeline = tuning.refit(model, candidate, result.params, frame, truth, seed=5, threads=1)
        assert np.isfinite(estimators.predictions(pipeline, frame, model)).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_a_fresh_process():
    script = "import test_tuning; print(test_tuning.fingerprint())"
    other = subprocess.check_output([sys.executable, "-c", script], cwd=Path(__file__).parent, text=True).strip()
    assert other == fingerprint()


def test_another_seed_searches_elsewhere():
    model = model_file(search={"trials": 5, "cross_validate_below": 0})
    tried = [search(model, "decision_tree", *rows(), seed=seed).trials for seed in (1, 2)]
    assert tried[0][0].params == tried[1][0].params, "known good settings come first"
    assert tried[0][4].params != tried[1][4].params


def test_predictions_on_validation_rows_are_those_of_the_chosen_rounds():
    frame, truth = rows(count=600)
    model = model_file()
    result = search(model, "gradient_boosting", frame, truth, train=400)
    one = result.params | {"copies": 1}
    pipeline = tuning.refit(model, "gradient_boosting", one, frame[:400], truth[:400], seed=5, threads=1)
    np.testing.assert_allclose(estimators.predictions(pipeline, frame[400:], model), result.predictions, atol=1e-9)


@pytest.mark.parametrize("candidate", ["gradient_boosting", "neural_network"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_copies_of_different_seeds_answer_with_their_mean(task, candidate):
    frame, truth = rows(task)
    model = model_file(task)
    params = searched(candidate, task)[0].params | {"copies": 2, "max_iter": 20}
    copies = [
        tuning.refit(model, candidate, params | {"copies": 1}, frame, truth, seed=5 + i, threads=1)
        for i in range(params["copies"])
    ]
    together = tuning.refit(model, candidate, params, frame, truth, seed=5, threads=1)
    apart = [estimators.predictions(one, frame, model) for one in copies]
    assert not np.allclose(apart[0], apart[1])
    np.testing.assert_allclose(estimators.predictions(together, frame, model), np.mean(apart, axis=0), atol=1e-9)


def test_searches_of_several_candidates_share_their_rows():
    frame, truth = rows()
    model = model_file()
    shared = tuning.Rows(model, frame, truth, tuning.folds(model, truth, TRAIN, seed=5))
    for candidate in model.candidate_names:
        one = tuning.Search(candidate, shared, seed=5, threads=1)
        one.try_next(), one.try_next()
        assert one.result().predictions.tobytes() == searched(candidate)[0].predictions.tobytes()


class TestFolds:
    def test_validation_rows_choose_where_there_are_enough(self):
        _, truth = rows()
        model = model_file(search={"cross_validate_below": 180})
        ((fit, choose),) = tuning.folds(model, truth, TRAIN, seed=1)
        assert (fit.tolist(), choose.tolist()) == (list(range(TRAIN)), list(range(TRAIN, TRAIN + VALIDATION)))

    def test_every_row_chooses_once_and_classes_are_spread(self):
        _, truth = rows()
        splits = tuning.folds(cross_validating(), truth, TRAIN, seed=1)
        assert sorted(np.concatenate([choose for _, choose in splits])) == list(range(len(truth)))
        shares = [np.mean(truth[choose] == "high") for _, choose in splits]
        assert max(shares) - min(shares) < 0.05

    def test_a_group_stays_in_one_fold(self):
        _, truth = rows()
        groups = np.arange(len(truth)) // 9
        for task, labels in (("classification", truth), ("regression", rows("regression")[1])):
            for fit, choose in tuning.folds(cross_validating(task), labels, TRAIN, groups=groups, seed=1):
                assert not set(groups[fit]) & set(groups[choose])

    def test_rows_split_by_time_are_not_folded(self):
        _, truth = rows()
        assert len(tuning.folds(cross_validating(split={"by": "time"}), truth, TRAIN, seed=1)) == 1

    @pytest.mark.parametrize(
        ("truth", "groups", "count"),
        [
            (["low", "low", "medium", "high"], None, 2),
            (["low", "high"], None, 2),
            (["low"] * 4, ["one"] * 4, 1),
            (["low", "low", "high", "high"], ["a", "a", "b", "b"], 2),
        ],
        ids=["classes of one row", "fewer rows than folds", "one group", "two groups"],
    )
    def test_hardly_any_rows(self, truth, groups, count):
        found = tuning.folds(
            cross_validating(), np.array(truth, dtype=object), 1, groups=groups and np.array(groups), seed=1
        )
        assert len(found) == count


@pytest.mark.parametrize("candidate", model_file().families)
def test_a_class_of_one_row(candidate):
    frame, truth = rows()
    truth = np.where(truth == "high", "medium", truth)
    truth[0] = "high"
    result = search(cross_validating(), candidate, frame, truth)
    assert np.isfinite(result.loss)
    assert result.predictions.shape == (len(truth), 3)


def own(search_space):
    name = f"{Temperamental.__module__}.Temperamental"
    return [{"estimator": name, "name": "moody", "search": search_space}]


def test_a_failing_setting_is_recorded_and_the_others_go_on(monkeypatch):
    monkeypatch.setitem(sys.modules, Temperamental.__module__, sys.modules[__name__])
    model = model_file(candidates=own({"mood": [2, 1]}), search={"trials": 8, "cross_validate_below": 0})
    result = search(model, "moody", *rows())
    assert result.trials[0].params == {}, "the estimator's own defaults come first"
    assert {trial.state for trial in result.trials if trial.params.get("mood") == 2} == {"failed"}
    assert {trial.state for trial in result.trials if trial.params.get("mood") == 1} == {"complete"}
    assert result.params.get("mood", 1) == 1


def test_every_setting_failing_is_the_candidates_failure(monkeypatch):
    monkeypatch.setitem(sys.modules, Temperamental.__module__, sys.modules[__name__])
    candidates = [own({})[0] | {"params": {"mood": 2}}]
    with pytest.raises(CandidateFailed, match="every setting of moody failed: got 'RuntimeError: mood 2 is too much'"):
        search(model_file(candidates=candidates), "moody", *rows())


def test_training_rows_of_one_class_fail_by_name():
    frame, truth = rows()
    with pytest.raises(CandidateFailed, match=r"logistic_regression cannot be trained.*at least 2 classes"):
        tuning.refit(
            model_file(), "logistic_regression", {"C": 1.0}, frame, np.full_like(truth, "low"), seed=1, threads=1
        )


def test_a_setting_behind_the_best_on_the_first_folds_is_spared_the_others():
    frame, truth = rows("regression")
    model = model_file("regression", search={"trials": 12, "folds": 4})
    trials = search(model, "decision_tree", frame, truth).trials
    assert {len(trial.stages) for trial in trials if trial.state == "complete"} == {4}
    assert min(len(trial.stages) for trial in trials if trial.state == "pruned") < 4
    assert {trial.loss for trial in trials if trial.state == "pruned"} == {None}


@pytest.mark.parametrize(("candidate", "most"), [("random_forest", 100), ("neural_network", 60), ("decision_tree", 1)])
def test_a_trial_says_how_far_it_was_trained(candidate, most):
    trials = searched(candidate)[0].trials
    assert all(0 < stages <= most for trial in trials for stages in trial.stages)


def test_going_setting_by_setting_finds_the_same():
    frame, truth = rows()
    model = model_file(search={"trials": 3, "cross_validate_below": 0})
    prepared = tuning.Rows(model, frame, truth, tuning.folds(model, truth, TRAIN, seed=5))
    stepwise = tuning.Search("decision_tree", prepared, seed=5, threads=1)
    assert not stepwise.found
    tried = [stepwise.try_next() for _ in range(3)]
    at_once = search(model, "decision_tree", frame, truth)
    assert [trial.params for trial in tried] == [trial.params for trial in at_once.trials]
    assert stepwise.result().loss == at_once.loss


class TestEnsemble:
    def test_weights_add_up_and_beat_the_best(self):
        generator = np.random.default_rng(1)
        truth = generator.normal(size=400)
        noisy = {f"m{i}": truth + generator.normal(size=400) for i in range(4)}
        weights = tuning.greedy_weights(noisy, truth)
        mean = sum(weight * noisy[name] for name, weight in weights.items())
        assert sum(weights.values()) == pytest.approx(1)
        assert tuning.loss_of(mean, truth) < 0.7 * min(tuning.loss_of(values, truth) for values in noisy.values())

    def test_a_perfect_member_stands_alone(self):
        truth = np.array(["a", "b", "a"], dtype=object)
        right = np.where(truth[:, None] == np.array(["a", "b"]), 0.99, 0.01)
        assert tuning.greedy_weights({"good": right, "bad": 1 - right}, truth, ("a", "b")) == {"good": 1.0}

    def test_at_most_so_many_members(self):
        generator = np.random.default_rng(1)
        truth = generator.normal(size=50)
        many = {f"m{i:02}": truth + generator.normal(size=50) for i in range(60)}
        assert len(tuning.greedy_weights(many, truth, limit=3)) <= 3


def test_more_threads_than_one_still_repeat():
    frame, truth = rows()
    parts = (frame[:TRAIN], truth[:TRAIN], frame[TRAIN:], truth[TRAIN:])
    first, second = (tuning.search(model_file(), "random_forest", *parts, seed=1, threads=2) for _ in range(2))
    assert first.predictions.tobytes() == second.predictions.tobytes()
