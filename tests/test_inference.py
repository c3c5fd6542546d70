"""Versions of every kind, loaded as the service loads them."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steward.config import ModelFile
from steward.core import estimators, parity
from steward.errors import ArtifactDamaged
from steward.inference import Predictor
from steward.io.workspace import Workspace
from steward.records import Challenger, Estimate, Reference
from steward.steps import challenger as refit
from steward.steps.training import write_skops

ROWS = 500
BOOSTING = {"max_iter": 25}
NETWORK = {"width": 16, "layers": 2, "alpha": 0.01, "learning_rate": 2e-3, "max_iter": 2}
SPLINE, NORMAL = ({"C": 1.0, "numbers": numbers} for numbers in ("spline", "normal"))
FOREST, EXTRA = ({"kind": kind, "n_estimators": 8} for kind in ("random_forest", "extra_trees"))
NEIGHBORS = {"name": "neighbors", "estimator": "sklearn.neighbors.KNeighborsClassifier"}
BAYES = {"name": "bayes", "estimator": "sklearn.naive_bayes.GaussianNB"}
OWN_FOREST = {
    "name": "own_forest",
    "estimator": "sklearn.ensemble.RandomForestClassifier",
    "params": {"n_estimators": 8},
}
CALIBRATED = {"name": "calibrated", "estimator": "sklearn.calibration.CalibratedClassifierCV"}
PROCESS = {"name": "process", "estimator": "sklearn.gaussian_process.GaussianProcessRegressor"}


def model_of(
    task: str, own: dict[str, Any] | None = None, classes: tuple[str, ...] = ("Low", "Medium", "High")
) -> ModelFile:
    label = {"column": "risk", "classes": list(classes)} if task == "classification" else {"column": "cost"}
    return ModelFile.model_validate(
        {
            "name": "example",
            "task": task,
            "source": {"table": "rows.csv", "key": "id"},
            "label": label,
            "columns": {
                "files": {"type": "integer", "nullable": True},
                "size": {"type": "number"},
                "night": {"type": "boolean", "nullable": True},
                "stage": {"type": "category", "values": ["dev", "test", "prod"], "nullable": True},
                "team": {"type": "category", "open": True, "nullable": True},
            },
            "features": {"per_file": {"expression": "size / files"}},
            **({"candidates": [own]} if own else {}),
        }
    )


def rows_of(task: str) -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "files": np.where(random.random(ROWS) < 0.1, np.nan, random.integers(0, 50, ROWS)),
            "size": random.lognormal(3, 1, ROWS),
            "night": np.where(random.random(ROWS) < 0.05, np.nan, random.integers(0, 2, ROWS)),
            "stage": pd.Series(random.choice(np.array(["dev", "test", "prod", None]), ROWS), dtype=object),
            "team": pd.Series([f"team {n}" for n in random.zipf(1.6, ROWS) % 30], dtype=object),
        }
    )
    signal = frame["files"].fillna(30) + 20 * (frame["stage"] == "prod") - 9 * (frame["team"] == "team 1")
    signal = signal.to_numpy(float) + random.normal(size=ROWS)
    if task == "regression":
        return frame, 100 * signal
    return frame, np.array(["Low", "Medium", "High"], dtype=object)[np.digitize(signal, [18, 40])]


def version(workspace: Workspace, model: ModelFile, candidate: str, params: dict[str, Any]) -> tuple[Challenger, Any]:
    """A version as `refit` makes it, without the steps before, and its pipeline."""
    frame, truth = rows_of(model.task)
    pipeline = estimators.fit(estimators.build(model, candidate, params, seed=1, threads=1), frame, truth, threads=1)
    with workspace.store.scratch() as folder:
        skops = write_skops(workspace, pipeline, folder)
        serving = refit._fastest_engine(workspace, refit._Proving.of(model, pipeline, frame, 1), folder)
    reference = Reference(kind="any", uri="any", digest="0" * 64)
    made = Challenger(
        model=model.name, digest=skops.sha256, name=candidate, params={}, selection=reference, roles=reference,
        snapshot=reference, fingerprint="f" * 64, trained_rows=ROWS, trained_units=skops, skops=skops, plan=serving.plan,
        tables=serving.tables, onnx=serving.onnx, engine=serving.chosen.name, parity=serving.chosen.parity,
        engines=serving.engines,
        seed=1, threads=1, fit_seconds=1, latency_us=1, classes=model.classes,
        known_classes=tuple(map(str, pipeline.classes_)) if model.classes else (),
        inputs={name: column.type for name, column in model.columns.items()},
        example={"files": 3, "size": 2.5, "night": True, "stage": "prod", "team": None}, metric=model.metric,
        validation=Estimate(value=0.9, low=0.8, high=1), model_file=model.model_dump(mode="json", by_alias=True),
        commit=None, code="c", packages={}, machine={},
    )  # fmt: skip
    return made, pipeline


def columns_of(frame: pd.DataFrame) -> dict[str, Any]:
    return {name: frame[name].to_numpy() for name in frame}


def hostile_rows(task: str) -> pd.DataFrame:
    frame, _ = rows_of(task)
    kinds = {name: column.type for name, column in model_of(task).columns.items()}
    return pd.concat([frame, parity.edge_rows(frame, kinds, seed=7)], ignore_index=True)


MEMBERS = {"gradient_boosting": BOOSTING, "random_forest": FOREST, "neural_network": NETWORK}
CLASSIFIERS = [
    ("logistic_regression", SPLINE),
    ("logistic_regression", NORMAL),
    ("decision_tree", {}),
    ("random_forest", FOREST),
    ("random_forest", EXTRA),
    ("gradient_boosting", BOOSTING),
    ("gradient_boosting", {**BOOSTING, "copies": 2}),
    ("neural_network", NETWORK),
    ("neural_network", {**NETWORK, "copies": 3}),
    ("ensemble", {"members": {name: {"weight": 1 / 3, "params": params} for name, params in MEMBERS.items()}}),
]


def test_where_nobody_looks_there_is_no_onnx_file_beside_the_tables(workspace: Workspace) -> None:
    workspace.explains = False
    made, _ = version(workspace, model_of("classification"), "gradient_boosting", BOOSTING)
    assert ([one.name for one in made.engines], made.onnx) == (["tables"], None)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(
    ("candidate", "params"), CLASSIFIERS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_candidate_is_served_exactly_without_scikit_learn(
    workspace: Workspace, task: str, candidate: str, params: dict[str, Any]
) -> None:
    model = model_of(task)
    made, pipeline = version(
        workspace, model, candidate.replace("logistic", "linear" if task == "regression" else "logistic"), params
    )
    tables = candidate == "gradient_boosting"
    assert (made.engine, made.parity.passed) == ("tables" if tables else "onnx", True), made.engines
    assert made.onnx is not None
    assert all(one.parity.passed for one in made.engines)
    rows = hostile_rows(task)
    expected, actual = (
        estimators.predictions(pipeline, rows, model),
        Predictor.load(workspace, made).answer(columns_of(rows)),
    )
    scale = 1.0 if task == "classification" else float(expected.std())
    assert np.abs(actual - expected).max() / scale <= 1e-9
    if task == "classification":
        assert np.array_equal(actual.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize(
    ("own", "task", "allowed"),
    [
        (NEIGHBORS, "classification", {"onnx", "estimator"}),
        (BAYES, "classification", {"onnx", "estimator"}),
        (OWN_FOREST, "classification", {"onnx"}),
        (CALIBRATED, "classification", {"onnx", "estimator"}),
        (PROCESS, "regression", {"onnx", "estimator"}),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_own_estimators_are_served_by_what_passes(
    workspace: Workspace, own: dict[str, Any], task: str, allowed: set[str]
) -> None:
    model = model_of(task, own)
    made, pipeline = version(workspace, model, own["name"], {})
    assert made.engine in allowed, made.engines
    assert [one.parity.passed for one in made.engines] == [False] * (len(made.engines) - 1) + [True]
    rows = hostile_rows(task)
    expected = estimators.predictions(pipeline, rows, model)
    assert parity.compare(expected, Predictor.load(workspace, made).answer(columns_of(rows))).passed


def test_pipeline_serves_where_nothing_else_can(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steward.core.compilation.compile_plan", lambda *_, **__: 1 / 0)
    model = model_of("classification")
    made, pipeline = version(workspace, model, "decision_tree", {})
    assert [(one.name, one.parity.reason) for one in made.engines[:2]] == [
        ("onnx", "ZeroDivisionError: division by zero"),
        ("estimator", "ZeroDivisionError: division by zero"),
    ]
    assert (made.engine, made.plan, made.onnx) == ("pipeline", None, None)
    rows = hostile_rows("classification")
    answers = Predictor.load(workspace, made).answer(columns_of(rows))
    assert np.array_equal(answers, estimators.predictions(pipeline, rows, model))


def test_classes_that_training_did_not_know_get_nothing(workspace: Workspace) -> None:
    model = model_of("classification", classes=("High", "Never", "Low", "Medium"))
    made, pipeline = version(workspace, model, "gradient_boosting", BOOSTING)
    columns = columns_of(hostile_rows("classification"))
    answers = Predictor.load(workspace, made).answer(columns)
    assert made.known_classes == ("High", "Low", "Medium")
    assert not answers[:, 1].any()
    np.testing.assert_allclose(answers[:, [0, 2, 3]], pipeline.predict_proba(pd.DataFrame(columns)), atol=1e-9)


@pytest.fixture
def served(workspace: Workspace) -> tuple[Workspace, Challenger]:
    return workspace, version(workspace, model_of("classification"), "gradient_boosting", BOOSTING)[0]


def test_unseen_values_are_told(served: tuple[Workspace, Challenger]) -> None:
    found = Predictor.load(*served).unseen({"stage": ["prod", "moon", None], "team": ["team 1", None, "nobody"]})
    assert found == {"stage": [False, True, False], "team": [False, False, True]}


@pytest.mark.parametrize("engine", ["tables", "onnx", "estimator", "pipeline"])
def test_threads_share_a_predictor(served: tuple[Workspace, Challenger], engine: str) -> None:
    workspace, made = served
    predictor = Predictor.load(workspace, made.model_copy(update={"engine": engine}))
    rows = columns_of(hostile_rows("classification"))
    expected = predictor.answer(rows)
    parts = [np.arange(start, len(expected), 7) for start in range(7)] * 4
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda part: predictor.answer({k: v[part] for k, v in rows.items()}), parts))
    for part, answer in zip(parts, answers, strict=True):
        np.testing.assert_allclose(answer, expected[part], atol=1e-12)


@pytest.mark.parametrize(
    ("engine", "name"),
    [("tables", "plan"), ("tables", "tables"), ("onnx", "onnx"), ("estimator", "skops"), ("pipeline", "skops")],
)
def test_one_changed_byte_is_refused(served: tuple[Workspace, Challenger], engine: str, name: str) -> None:
    workspace, made = served
    path = Path(getattr(made, name).uri)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactDamaged, match="changed since it was recorded"):
        Predictor.load(workspace, made.model_copy(update={"engine": engine}))


def test_record_without_the_file_of_its_engine_is_refused(served: tuple[Workspace, Challenger]) -> None:
    workspace, made = served
    with pytest.raises(ArtifactDamaged, match="names no file"):
        Predictor.load(workspace, made.model_copy(update={"tables": None}))


@pytest.mark.parametrize("engine", ["tables", "onnx", "estimator", "pipeline"])
def test_clean_process_answers(served: tuple[Workspace, Challenger], engine: str) -> None:
    workspace, made = served
    assert workspace.artifacts.answers_in_clean_process(made.model_copy(update={"engine": engine})) is None


def test_clean_process_says_what_is_wrong(served: tuple[Workspace, Challenger]) -> None:
    workspace, made = served
    Path(made.plan.uri).write_bytes(b"something else")  # type: ignore[union-attr]
    assert "ArtifactDamaged" in (workspace.artifacts.answers_in_clean_process(made) or "")


SERVING = """
import json, sys
from pathlib import Path
from steward.config import Settings
from steward.inference import Predictor
from steward.io.workspace import Workspace
from steward.records import Challenger
home, *records = json.load(sys.stdin)
workspace = Workspace(Settings.from_environment({"STEWARD_HOME": home}))
for record in records:
    predictor = Predictor.load(workspace, Challenger.model_validate(record))
    predictor.answer({name: [value] for name, value in predictor.made.example.items()})
print(sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_process_that_serves_onnx_imports_nothing_heavy(
    tmp_path: Path, new_workspace: Callable[[Path], Workspace]
) -> None:
    workspace, model = new_workspace(tmp_path / "home"), model_of("classification")
    made = [version(workspace, model, *candidate)[0] for candidate in (CLASSIFIERS[1], CLASSIFIERS[-1])]
    request = json.dumps([str(tmp_path / "home"), *(one.as_json() for one in made)])
    done = subprocess.run([sys.executable, "-c", SERVING], input=request, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    assert "onnxruntime" in loaded
    heavy = {
        "sklearn",
        "pandas",
        "scipy",
        "mlflow",
        "skops",
        "onnx",
        "skl2onnx",
        "pyarrow",
        "duckdb",
        "matplotlib",
        "airflow",
    }
    assert not loaded & heavy
