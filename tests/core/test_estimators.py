"""One matrix over every candidate and every task; then what only one of them does."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from steward.config import ModelFile
from steward.core import estimators
from steward.errors import CandidateFailed

ROWS = 90
COLUMNS = {
    "amount": {"type": "number", "nullable": True},
    "constant": {"type": "number"},
    "empty": {"type": "number", "nullable": True},
    "urgent": {"type": "boolean"},
    "size": {"type": "category", "values": ["small", "medium", "large"], "nullable": True},
    "team": {"type": "category", "open": True},
}
CLASSES = {"binary": ["no", "yes"], "three": ["low", "medium", "high"], "rare": ["low", "high", "single", "absent"]}
MEMBERS = {
    "linear": {"weight": 0.75, "params": {"C": 1.0}},
    "decision_tree": {"weight": 0.25, "params": {"max_depth": 3}},
}
EXTRA = {
    "random_forest": {"n_estimators": 5},
    "gradient_boosting": {"max_iter": 5},
    "neural_network": {"max_iter": 5},
}


def model_file(task, candidates=None):
    classes = CLASSES.get(task)
    document = {
        "name": "example",
        "task": "classification" if classes else "regression",
        "source": {"table": "rows.csv", "key": "id"},
        "label": {"column": "label", "classes": classes} if classes else {"column": "label"},
        "columns": COLUMNS,
        "features": {"large_amount": {"expression": "amount > 1 or size == 'large'"}},
    }
    return ModelFile.model_validate(document | ({"candidates": candidates} if candidates else {}))


def own(path, **fields):
    return {"estimator": path, **fields}


def table(task, rows=ROWS, seed=1):
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "amount": np.where(generator.random(rows) < 0.1, np.nan, generator.normal(size=rows)),
            "constant": 7.0,
            "empty": np.nan,
            "urgent": generator.integers(0, 2, rows).astype(float),
            "size": pd.Series(generator.choice(["small", "medium", "large", None], rows), dtype=object),
            "team": pd.Series(generator.choice(["web", "ops", "data"], rows), dtype=object),
        }
    )
    signal = np.nan_to_num(frame["amount"].to_numpy()) + (frame["team"] == "ops").to_numpy() * 2.0
    if task == "regression":
        return frame, 1_000 + 50 * signal
    known = [name for name in CLASSES[task] if name not in ("single", "absent")]
    truth = np.array(known, dtype=object)[np.digitize(signal, [1.0, 2.0][: len(known) - 1])]
    if task == "rare":
        truth[0] = "single"
    return frame, truth


def candidates(task):
    linear = "linear_regression" if task == "regression" else "logistic_regression"
    return [linear, "decision_tree", "random_forest", "gradient_boosting", "neural_network", "ensemble", "own"]


def params_of(model, candidate):
    if candidate == "ensemble":
        linear = model.families[0]
        return {"members": {linear if name == "linear" else name: member for name, member in MEMBERS.items()}}
    return dict(estimators.family(model, candidate).first[0]) | EXTRA.get(candidate, {})


@cache
def trained(task, candidate, attempt=1):
    suffix = "Regressor" if task == "regression" else "Classifier"
    model = model_file(task, [own(f"sklearn.neighbors.KNeighbors{suffix}", name="own")])
    frame, truth = table(task)
    pipeline = estimators.build(model, candidate, params_of(model, candidate), seed=3, threads=1)
    return model, frame, truth, estimators.fit(pipeline, frame, truth, threads=1)


MATRIX = [(task, name) for task in (*CLASSES, "regression") for name in candidates(task)]


@pytest.mark.parametrize(("task", "candidate"), MATRIX)
class TestEveryCandidate:
    def test_keeps_the_contract(self, task, candidate):
        model, frame, truth, pipeline = trained(task, candidate)
        answers = estimators.predictions(pipeline, frame, model)
        if model.classes:
            assert answers.shape == (ROWS, len(model.classes))
            np.testing.assert_allclose(answers.sum(axis=1), 1)
            assert set(pipeline.predict(frame)) <= set(truth)
            right = np.array(model.classes)[answers.argmax(axis=1)] == truth
            assert right.mean() > 0.5
        else:
            assert answers.shape == (ROWS,)
            assert np.corrcoef(answers, truth)[0, 1] > 0.3
        assert np.isfinite(answers).all()
        assert "absent" not in model.classes or (answers[:, model.classes.index("absent")] == 0).all()

    def test_answers_one_odd_row(self, task, candidate):
        model, _, _, pipeline = trained(task, candidate)
        odd = pd.DataFrame(
            {
                "amount": [np.nan],
                "constant": [np.nan],
                "empty": [3.0],
                "urgent": [np.nan],
                "size": pd.Series(["gigantic"], dtype=object),
                "team": pd.Series([None], dtype=object),
            }
        )
        assert np.isfinite(estimators.predictions(pipeline, odd, model)).all()

    def test_splits_into_preprocessing_and_estimator(self, task, candidate):
        model, frame, _, pipeline = trained(task, candidate)
        matrix = pipeline[:-1].transform(frame)
        assert matrix.dtype == np.float64
        verb = "predict_proba" if model.classes else "predict"
        np.testing.assert_array_equal(getattr(pipeline[-1], verb)(matrix), getattr(pipeline, verb)(frame))

    def test_survives_skops(self, task, candidate):
        model, frame, _, pipeline = trained(task, candidate)
        content = skops.io.dumps(pipeline)
        types = skops.io.get_untrusted_types(data=content)
        loaded = skops.io.loads(content, trusted=types)
        expected = estimators.predictions(pipeline, frame, model)
        np.testing.assert_array_equal(estimators.predictions(loaded, frame, model), expected)

    def test_same_seed_same_bits(self, task, candidate):
        model, frame, _, first = trained(task, candidate)
        second = trained(task, candidate, attempt=2)[-1]
        answers = [estimators.predictions(pipeline, frame, model) for pipeline in (first, second)]
        np.testing.assert_array_equal(*answers)

    def test_says_how_readable_it_is(self, task, candidate):
        suffix = "Regressor" if task == "regression" else "Classifier"
        model = model_file(task, [own(f"sklearn.neighbors.KNeighbors{suffix}", name="own")])
        assert 1 <= estimators.interpretability(model, candidate) <= 5


@pytest.mark.parametrize("candidate", ["linear_regression", "neural_network"])
def test_bounded_candidates_stay_in_the_training_range(candidate):
    model, frame, truth, pipeline = trained("regression", candidate)
    far = frame.assign(amount=1e9, constant=-1e9)
    answers = estimators.predictions(pipeline, far, model)
    assert truth.min() <= answers.min() <= answers.max() <= truth.max()


def test_trees_see_no_missing_values():
    for candidate in ("decision_tree", "random_forest"):
        _, frame, _, pipeline = trained("three", candidate)
        assert np.isfinite(pipeline[:-1].transform(frame)).all()


def test_boosting_splits_long_categories_natively():
    pipeline = trained("three", "gradient_boosting")[-1]
    assert pipeline[-1].is_categorical_.tolist() == [False, False, False, False, True, True, False]


def test_extra_trees_are_a_kind_of_forest():
    model = model_file("binary")
    params = {"kind": "extra_trees", "max_features": 1.0, "min_samples_leaf": 3}
    pipeline = estimators.build(model, "random_forest", params, seed=1, threads=2)
    assert type(pipeline[-1]).__name__ == "ExtraTreesClassifier"
    assert pipeline[-1].n_jobs == 2


def test_answers_are_given_by_one_thread():
    model = model_file("binary")
    members = {"random_forest": {"weight": 1.0, "params": params_of(model, "random_forest")}}
    pipeline = estimators.build(model, "ensemble", {"members": members}, seed=1, threads=2)
    estimators.fit(pipeline, *table("binary"), threads=2)
    assert pipeline[-1].members_["random_forest"][-1].n_jobs == 1


def test_the_ensemble_is_the_weighted_mean_of_its_members():
    _, frame, _, pipeline = trained("three", "ensemble")
    matrix = pipeline[0].transform(frame)
    linear, tree = (pipeline[-1].members_[name] for name in ("logistic_regression", "decision_tree"))
    mean = 0.75 * linear.predict_proba(matrix) + 0.25 * tree.predict_proba(matrix)
    np.testing.assert_allclose(pipeline.predict_proba(frame), mean)


def test_own_estimator_gets_its_parameters():
    path = "sklearn.linear_model.LogisticRegression"
    model = model_file("binary", [own(path, params={"max_iter": 7}, search={"C": [0.5, 2.0]})])
    pipeline = estimators.build(model, "logistic_regression", {"C": 2.0}, seed=9, threads=1)
    assert isinstance(pipeline[-1], LogisticRegression)
    assert (pipeline[-1].C, pipeline[-1].max_iter, pipeline[-1].random_state) == (2.0, 7, 9)


@pytest.mark.parametrize(
    ("path", "params", "message"),
    [
        ("no_such_package.Model", {}, "cannot be imported: got 'no_such_package.Model'"),
        ("sklearn.linear_model.NoSuch", {}, "cannot be imported: got 'sklearn.linear_model.NoSuch'"),
        (
            "sklearn.linear_model.Ridge",
            {},
            "not a scikit-learn estimator for this task: got 'sklearn.linear_model.Ridge'",
        ),
        ("pathlib.Path", {}, "not a scikit-learn estimator"),
        ("math.sqrt", {}, "not a scikit-learn estimator"),
        ("sklearn.linear_model.LogisticRegression", {"depth": 3}, "does not take these parameters.*depth"),
    ],
)
def test_an_own_estimator_that_is_none(path, params, message):
    model = model_file("binary", [own(path, name="mine", params=params)])
    with pytest.raises(CandidateFailed, match=message):
        estimators.build(model, "mine", {}, seed=1, threads=1)


def test_unknown_candidate():
    with pytest.raises(
        CandidateFailed, match="no such candidate: got 'gradient_bosting'; allowed: logistic_regression"
    ):
        estimators.build(model_file("binary"), "gradient_bosting", {}, seed=1, threads=1)
