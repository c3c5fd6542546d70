"""What Steward adds to the fits themselves: the whole training of 10,000 deployments against the same fits made by hand.

Steward trains with one process and one thread, from the source table to a promoted version and its report. Its records
say which settings were tried and how many rounds, epochs or trees of each were trained before it was given up. Then a
script like one that a person would write makes exactly these fits again with scikit-learn and Optuna: prepares the rows
once, trains each setting that far, answers the validation rows, and trains the best setting of each candidate and the
winner again. The two run in turn, each in a process of its own; imports are counted apart, and so is what an installation
does once: creating the tables of its databases.

    python benchmarks/training.py --rounds 3
"""

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROWS = 10_000
SEED = 20_240_229
TARGET = 1.3
MODEL_FILE = Path(__file__).parent.parent / "models" / "deployment_risk.yaml"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "STEWARD_JOBS"), "1")
INSTALLATION = "databases of a new installation"
IMPORTS = {
    "steward": (
        *("steward.pipeline", "optuna", "skops.io", "matplotlib.pyplot", "matplotlib.backends.backend_agg"),
        *("mlflow", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "alembic", "great_expectations"),
        *("mlflow.store.model_registry.sqlalchemy_store", "mlflow.tracing.processor.base_mlflow"),
        *("ibis", "ibis.backends.sql.compilers", "duckdb", "skl2onnx", "onnxruntime"),
    ),
    "direct": ("steward.core.estimators", "optuna", "pyarrow.parquet"),
}


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in used)


class Laps:
    """CPU and wall seconds by what they were spent on."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = defaultdict(float)
        self.wall: dict[str, float] = defaultdict(float)
        self.last = cpu_seconds(), time.perf_counter()

    def end(self, name: str) -> None:
        now = cpu_seconds(), time.perf_counter()
        self.cpu[name] += now[0] - self.last[0]
        self.wall[name] += now[1] - self.last[1]
        self.last = now


def train_with_steward(folder: Path) -> Laps:
    """The whole train DAG in this process, in a new installation; leaves what was tried in `fits.json`."""
    from steward import pipeline
    from steward.config import Settings
    from steward.io.workspace import Workspace

    os.chdir(folder)
    environment = {"STEWARD_HOME": str(folder / "home"), "STEWARD_MODELS": str(MODEL_FILE.parent), "STEWARD_JOBS": "1"}
    laps = Laps()
    workspace = Workspace(Settings.from_environment(environment))
    workspace.ledger.entries()
    workspace.registry.aliases(MODEL_FILE.stem)
    laps.end(INSTALLATION)

    def on_event(event: pipeline.Event) -> None:
        if event.state == "trial":
            laps.end("searches")
        elif event.state == "finished":
            laps.end("train_candidate: refit, plots, MLflow" if event.candidate else event.stage)
        else:
            laps.end("between steps")

    outcome = pipeline.train(
        workspace,
        workspace.model(MODEL_FILE.stem),
        at=datetime(2026, 6, 1, tzinfo=UTC),
        reason="benchmark",
        by="benchmark",
        run_id="benchmark",
        on_event=on_event,
    )
    laps.end("between steps")
    tried = {one.name: [trial.as_json() for trial in one.trials] for one in outcome.candidates}
    best = {one.name: one.params for one in outcome.candidates}
    fits = {"tried": tried, "best": best, "winner": outcome.selection.winner}
    (folder / "fits.json").write_text(json.dumps(fits))
    return laps


def train_directly(folder: Path) -> Laps:
    """The same fits as a person's script: read, split, try every setting of every family, train the best again."""
    import optuna

    from steward.config import ModelFile
    from steward.core import estimators

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    laps = Laps()
    fits = json.loads((folder / "fits.json").read_text())
    model = ModelFile.load(MODEL_FILE)
    frame, truth = read(model, folder)
    order = np.random.default_rng(SEED).permutation(len(frame))
    train, validation = order[: int(len(frame) * 0.70)], order[int(len(frame) * 0.70) : int(len(frame) * 0.85)]
    parts = frame.iloc[train], truth[train], frame.iloc[validation], truth[validation]
    laps.end("reading")
    with warnings.catch_warnings(action="ignore"):
        for candidate, tried in fits["tried"].items():
            Replay(model, candidate, tried, *parts).run()
            laps.end("searches")
            pipeline = estimators.build(model, candidate, fits["best"][candidate], seed=SEED, threads=1)
            pipeline.fit(frame.iloc[train], truth[train])
            laps.end("training again")
        both, winner = order[: int(len(frame) * 0.85)], fits["winner"]
        pipeline = estimators.build(model, winner, fits["best"][winner], seed=SEED, threads=1)
        pipeline.fit(frame.iloc[both], truth[both])
        laps.end("training again")
    return laps


def read(model: Any, folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    rows = pd.concat(pd.read_parquet(path) for path in sorted((folder / "data" / "deployments").glob("*.parquet")))
    truth = rows.pop(model.label.column).to_numpy(dtype=object).astype(str)
    kinds = {name: object if column.type == "category" else float for name, column in model.columns.items()}
    return pd.DataFrame({name: rows[name].astype(kind) for name, kind in kinds.items()}), truth


class Replay:
    """An Optuna study of settings that are known, each trained exactly as far as it was; only constructors are Steward's."""

    def __init__(
        self,
        model: Any,
        candidate: str,
        tried: list[dict[str, Any]],
        train: pd.DataFrame,
        train_truth: np.ndarray,
        validation: pd.DataFrame,
        validation_truth: np.ndarray,
    ) -> None:
        from steward.core import estimators

        self.model, self.candidate, self.tried = model, candidate, tried
        self.family = estimators.family(model, candidate)
        self.train, self.train_truth = train, train_truth
        self.validation, self.validation_truth = validation, validation_truth
        self.prepared: dict[Any, tuple[np.ndarray, np.ndarray]] = {}

    def run(self) -> None:
        import optuna

        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=SEED))
        for trial in self.tried:
            study.enqueue_trial(trial["params"])
        study.optimize(self.objective, n_trials=len(self.tried))

    def objective(self, trial: Any) -> float:
        from steward.core import estimators

        space = self.family.space(len(self.train))
        params = {name: suggest(trial, name, values) for name, values in space.items()}
        pipeline = estimators.build(self.model, self.candidate, params, seed=SEED, threads=1)
        learn, choose = self.matrices(pipeline, tuple(params.get(name) for name in self.family.prepared_by))
        (stages,) = self.tried[trial.number]["stages"]
        return self.loss(pipeline[-1], learn, choose, stages)

    def matrices(self, pipeline: Any, key: Any) -> tuple[np.ndarray, np.ndarray]:
        if key not in self.prepared:
            fitted = pipeline[:-1].fit(self.train, self.train_truth)
            self.prepared[key] = fitted.transform(self.train), fitted.transform(self.validation)
        return self.prepared[key]

    def loss(self, estimator: Any, learn: np.ndarray, choose: np.ndarray, stages: int) -> float:
        match self.family.stages:
            case "rounds":
                estimator.set_params(early_stopping=True, max_iter=stages, n_iter_no_change=stages)
                estimator.fit(learn, self.train_truth, X_val=choose, y_val=self.validation_truth)
            case "epochs":
                learn, choose = learn.astype(np.float32), choose.astype(np.float32)
                classes = np.unique(self.train_truth)
                losses = []
                for _ in range(stages):
                    estimator.partial_fit(learn, self.train_truth, classes=classes)
                    losses.append(self.log_loss(estimator, choose))
                return min(losses)
            case "trees":
                estimator.set_params(n_estimators=stages).fit(learn, self.train_truth)
            case _:
                estimator.fit(learn, self.train_truth)
        return self.log_loss(estimator, choose)

    def log_loss(self, estimator: Any, choose: np.ndarray) -> float:
        from sklearn.metrics import log_loss

        return float(log_loss(self.validation_truth, estimator.predict_proba(choose), labels=estimator.classes_))


def suggest(trial: Any, name: str, values: Any) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    kind = trial.suggest_int if values.get("integer") else trial.suggest_float
    return kind(name, values["low"], values["high"], log=values.get("log", False))


RUNS = {"steward": train_with_steward, "direct": train_directly}


def run_here(who: str, folder: Path) -> None:
    """The body of a process: imports, then the work; prints wall and CPU seconds as JSON."""
    for module in IMPORTS[who]:
        importlib.import_module(module)
    imports = cpu_seconds()
    laps = RUNS[who](folder)
    once = laps.cpu.pop(INSTALLATION, 0.0), laps.wall.pop(INSTALLATION, 0.0)
    figures = {"imports": imports, "once": once[0], "cpu": sum(laps.cpu.values()), "wall": sum(laps.wall.values())}
    figures |= {"laps": {name: (laps.cpu[name], laps.wall[name]) for name in laps.cpu}}
    (folder / f"{who}.json").write_text(json.dumps(figures))


def run_there(who: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--run", who, "--folder", str(folder)]
    subprocess.run(command, check=True, env=os.environ | ONE_THREAD, stdout=subprocess.DEVNULL)
    figures: dict[str, Any] = json.loads((folder / f"{who}.json").read_text())
    print(
        f"{who:<8} {figures['cpu']:6.1f} CPU s, {figures['wall']:6.1f} s of wall; "
        f"imports {figures['imports']:.1f}, databases {figures['once']:.1f} CPU s",
        flush=True,
    )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each runs, in turn")
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_here(options.run, options.folder)
        return
    rounds = [one_round() for _ in range(options.rounds)]
    for who in RUNS:
        print(f"\n{who + ', median seconds':<42}    CPU   wall")
        for name in rounds[0][who]["laps"]:
            cpu, wall = (statistics.median(one[who]["laps"][name][i] for one in rounds) for i in (0, 1))
            print(f"  {name:<40}{cpu:>7.2f}{wall:>7.2f}")
    for figure in ("cpu", "wall"):
        ratio = statistics.median(one["steward"][figure] / one["direct"][figure] for one in rounds)
        print(f"median ratio of {figure} seconds: {ratio:.2f} (target {TARGET})")


def one_round() -> dict[str, dict[str, Any]]:
    from steward.examples import deployments

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deployments.write(folder / "data" / "deployments", deployments.simulate(ROWS))
        return {who: run_there(who, folder) for who in RUNS}


if __name__ == "__main__":
    main()
