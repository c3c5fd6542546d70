"""What an answer costs through each engine, and how far apart their answers are.

Per family: the pipeline on a pandas frame, scikit-learn's estimator on rows prepared without pandas, and ONNX Runtime in
float64, interleaved in one run, one thread each. Times are CPU time, the median over rounds; ratios are to the pipeline.

    python benchmarks/engines.py
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from steward import inference
from steward.config import ModelFile
from steward.core import compilation, estimators, parity
from steward.core.preparation import Plan
from steward.io.artifacts import Artifacts, OnnxModel
from steward.io.store import Store

ROWS, MANY, ROUNDS, SINGLES = 4_000, 1_000, 5, 60
MODEL = {
    "name": "example",
    "task": "classification",
    "source": {"table": "rows.csv", "key": "id"},
    "label": {"column": "risk", "classes": ["Low", "Medium", "High"]},
    "columns": {
        "files": {"type": "integer", "nullable": True},
        "lines": {"type": "number", "nullable": True},
        "hour": {"type": "integer"},
        "stage": {"type": "category", "values": ["dev", "test", "prod"], "nullable": True},
        "team": {"type": "category", "open": True, "nullable": True},
    },
}
BOOSTING = {"max_iter": 100, "max_leaf_nodes": 31, "learning_rate": 0.1}
FOREST = {"kind": "random_forest", "max_features": 0.5, "min_samples_leaf": 5}
NETWORK = {"width": 64, "layers": 2, "alpha": 0.01, "learning_rate": 2e-3, "max_iter": 5}
SPLINE = {"C": 0.1, "numbers": "spline"}
MEMBERS = {"gradient_boosting": BOOSTING, "random_forest": FOREST, "logistic_regression": SPLINE}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic regression, spline": ("logistic_regression", SPLINE),
    "logistic regression, normal": ("logistic_regression", {"C": 1.0, "numbers": "normal"}),
    "decision tree": ("decision_tree", {"max_depth": 6, "min_samples_leaf": 20}),
    "random forest, 100 trees": ("random_forest", FOREST),
    "gradient boosting, 300 trees": ("gradient_boosting", BOOSTING),
    "gradient boosting, 3 copies": ("gradient_boosting", {**BOOSTING, "max_features": 0.5, "copies": 3}),
    "neural network": ("neural_network", NETWORK),
    "neural network, 8 copies": ("neural_network", {**NETWORK, "copies": 8}),
    "ensemble of three": ("ensemble", {"members": {k: {"weight": 1 / 3, "params": v} for k, v in MEMBERS.items()}}),
}


def table() -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "files": np.where(random.random(ROWS) < 0.05, np.nan, random.poisson(12, ROWS)),
            "lines": np.where(random.random(ROWS) < 0.05, np.nan, random.lognormal(4, 1.5, ROWS)),
            "hour": random.integers(0, 24, ROWS).astype(float),
            "stage": pd.Series(random.choice(np.array(["dev", "test", "prod", None]), ROWS), dtype=object),
            "team": pd.Series([f"team {n}" for n in random.zipf(1.5, ROWS) % 40], dtype=object),
        }
    )
    signal = frame["files"].fillna(20) / 8 + np.log1p(frame["lines"].fillna(100)) / 2 + np.sin(frame["hour"] / 4)
    signal += (frame["stage"] == "prod") + (frame["team"] == "team 1") + random.normal(size=ROWS) / 2
    return frame, np.array(["Low", "Medium", "High"], dtype=object)[np.digitize(signal, signal.quantile([0.5, 0.85]))]


def engines(pipeline: Any, model: ModelFile, folder: Path) -> dict[str, inference.Engine]:
    """Through files, as they are served."""
    artifacts = Artifacts(Store(str(folder / "store"), folder / "cache"))
    artifacts.write_graph(compilation.compile_estimator(pipeline), folder / "model.onnx")
    tables = compilation.compile_tables(pipeline) if compilation.is_boosted(pipeline[-1]) else None
    plans = [compilation.compile_plan(pipeline, members=members) for members in (True, False)]
    prepared, encoded = (Plan.from_json(json.loads(json.dumps(plan.as_json()))) for plan in plans)
    kinds = {name: column.type for name, column in model.columns.items()}
    return {
        "pipeline": inference.pipeline_engine(pipeline, kinds),
        "estimator": inference.estimator_engine(encoded, pipeline[-1]),
        "onnx": inference.onnx_engine(prepared, OnnxModel(folder / "model.onnx")),
        **({"tables": inference.tables_engine(prepared, tables)} if tables else {}),
    }


def cpu_seconds(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def measure(name: str, frame: pd.DataFrame, truth: np.ndarray) -> None:
    model = ModelFile.model_validate(MODEL)
    candidate, params = FAMILIES[name]
    pipeline = estimators.fit(estimators.build(model, candidate, params, seed=1, threads=1), frame, truth, threads=1)
    kinds = {name: column.type for name, column in model.columns.items()}
    rows = pd.concat([frame, parity.edge_rows(frame, kinds)], ignore_index=True)
    columns = {column: rows[column].to_numpy() for column in rows}
    many = {column: values[:MANY] for column, values in columns.items()}
    singles = [{c: [v] for c, v in row.items()} for row in rows.sample(SINGLES, random_state=0).to_dict("records")]
    with tempfile.TemporaryDirectory() as folder:
        made = engines(pipeline, model, Path(folder))
        expected = made["pipeline"](columns)
        one: dict[str, list[float]] = {engine: [] for engine in made}
        thousand: dict[str, list[float]] = {engine: [] for engine in made}
        for _ in range(ROUNDS):
            for engine, answer in made.items():
                some = singles if engine in ("onnx", "tables") else singles[:10]
                one[engine].append(cpu_seconds(lambda: [answer(row) for row in some]) / len(some))  # noqa: B023
                thousand[engine].append(cpu_seconds(lambda: answer(many)))  # noqa: B023
        for engine, answer in made.items():
            proof = parity.compare(expected, answer(columns))
            single, batch = median(one[engine]), median(thousand[engine])
            ratios = f"{median(one['pipeline']) / single:.0f} | {median(thousand['pipeline']) / batch:.1f}"
            print(
                f"| {name} | {engine} | {single * 1e6:.0f} | {batch * 1e3:.2f} | {ratios} |"
                f" {proof.largest_difference:.0e} | {proof.label_differences} |"
            )


def main() -> None:
    print(
        "| family | engine | 1 row, µs | 1,000 rows, ms | 1 row: times faster | 1,000 rows: times faster | difference | labels |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    frame, truth = table()
    for name in FAMILIES:
        measure(name, frame, truth)


if __name__ == "__main__":
    main()
