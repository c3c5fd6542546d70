"""Model quality on real tables: Steward against FLAML, AutoGluon and an untuned gradient boosting.

Every contender gets the same train + validation rows, one thread and the same CPU seconds to learn in, imports not
counted, and is scored once on test rows that nothing has looked at: log loss, or root mean squared error. FLAML and
AutoGluon keep to a budget by looking at the clock: theirs is the CPU time of their process, so that neighbours on the
machine cost them nothing. They live in environments of their own, which this program makes. What has answered on a table
is kept in the work folder and not run again.

    python benchmarks/quality.py --seconds 20 --tables german_credit abalone

The tables are not part of this repository: --data or STEWARD_BENCHMARK_DATA names their folder.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SEED = 20_240_229
SMALLEST_PROBABILITY = 1e-7
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MOST_TRIALS = 200
RESAMPLES = 2_000
DEFAULT = "steward_default"
"""Whose wins and losses are counted."""
SHARES = {
    "logistic_regression": 0.1,
    "linear_regression": 0.1,
    "decision_tree": 0.025,
    "gradient_boosting": 0.5,
    "neural_network": 0.125,
    "random_forest": 0.25,
}
"""Of the CPU seconds, in the order in which families have their first turn."""
FIRST_ROUND = list(SHARES)
HOPELESS_ERRORS = 3.0
"""A family this many standard errors behind the best after its first setting gets no more seconds."""
MORE_ROWS = 1.2
"""The refit learns from train and validation rows."""
COST_MARGIN = 1.5
"""The next setting may take so much longer than those before."""


@dataclass(frozen=True)
class Environment:
    """What a program needs installed, and what it imports before its clock starts."""

    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ("steward.core.tuning", "optuna")


ENVIRONMENTS = {
    "steward": Environment(),
    "flaml": Environment(("flaml[automl]", "pandas<3"), ("flaml", "lightgbm", "xgboost")),
    "autogluon": Environment(
        ("autogluon.tabular[lightgbm,catboost,xgboost,fastai]",),
        ("autogluon.tabular", "lightgbm", "catboost", "xgboost", "torch", "fastai.tabular.all"),
    ),
}
CPU_CLOCK = ("flaml", "autogluon")

Answers = Any


@dataclass(frozen=True)
class Table:
    """A file of the data folder; `drop` are identities, which no contender gets."""

    path: str
    target: str
    regression: bool = False
    separator: str = ","
    drop: tuple[str, ...] = ()


TABLES = {
    "openstack": Table("jit_issta21/openstack_k_feature.csv.gz", "bug", drop=("Unnamed: 0", "_id", "__")),
    "rails": Table("ci_travis_a/rails.csv.gz", "build_failed"),
    "bank_marketing": Table("bank_marketing/bank-additional-full.csv.gz", "y", separator=";"),
    "adult": Table("adult/adult_train.csv.gz", "income"),
    "german_credit": Table("german_credit/german.csv.gz", "class"),
    "hypothyroid": Table("hypothyroid/hypothyroid.csv.gz", "Class"),
    "telco_churn": Table("telco_churn/Telco-Customer-Churn.csv.gz", "Churn", drop=("customerID",)),
    "wine_quality": Table("wine_quality/winequality-white.csv.gz", "quality", regression=True),
    "ames_housing": Table("ames_housing/AmesHousing.csv.gz", "SalePrice", regression=True, drop=("Order", "PID")),
    "abalone": Table("abalone/abalone.csv.gz", "rings", regression=True),
    "beijing_pm25": Table("beijing_pm25/pollution.csv.gz", "pm2.5", regression=True, drop=("No",)),
}


def read(table: Table, data: Path) -> pd.DataFrame:
    """Rows with a known target, shuffled; columns are float64, or object with None; the target is called `target`."""
    missing = {"na_values": ["?", " ?", "NA", " "], "skipinitialspace": True}
    raw = pd.read_csv(data / table.path, sep=table.separator, **missing)
    raw = raw.drop(columns=list(table.drop)).dropna(subset=[table.target])
    target = raw.pop(table.target)
    frame = pd.DataFrame(index=raw.index)
    for position, name in enumerate(raw.columns):
        numeric = pd.api.types.is_numeric_dtype(raw[name])
        texts = raw[name].astype(object).where(raw[name].notna(), None)
        frame[f"c{position}"] = raw[name].astype(float) if numeric else texts
    frame["target"] = target.astype(float) if table.regression else target.astype(str).astype(object)
    return frame.sample(frac=1, random_state=SEED).reset_index(drop=True)


def shares(rows: int) -> tuple[int, int]:
    """Where train rows end and where validation rows end: 70 / 15 / 15."""
    return int(rows * 0.70), int(rows * 0.85)


def model_of(frame: pd.DataFrame) -> Any:
    """A model file for the table, as `steward init` would write it."""
    from steward.config import ModelFile

    features = frame.columns.drop("target")
    regression = frame["target"].dtype != object
    label = {"column": "target"} | ({} if regression else {"classes": sorted(frame["target"].unique())})
    columns = {
        name: {"type": "category", "open": True, "nullable": True}
        if frame[name].dtype == object
        else {"type": "number", "nullable": True}
        for name in features
    }
    return ModelFile.model_validate(
        {
            "name": "benchmark",
            "task": "regression" if regression else "classification",
            "source": {"table": "benchmark", "key": "row"},
            "label": label,
            "columns": columns,
            "search": {"trials": MOST_TRIALS},
            "select": {"metric": "rmse" if regression else "log_loss"},
        }
    )


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in used)


class Steward:
    """Every family searched in turn until the seconds are used up, with enough left to train the best again."""

    def __init__(self, frame: pd.DataFrame, test: pd.DataFrame, seconds: float) -> None:
        from steward.core import tuning

        self.started = cpu_seconds()
        self.seconds = seconds
        self.model = model_of(frame)
        self.frame, self.truth, self.test = frame.drop(columns="target"), frame["target"].to_numpy(), test
        cut = int(len(frame) * 0.70 / 0.85)
        splits = tuning.folds(self.model, self.truth, cut, seed=SEED)
        rows = tuning.Rows(self.model, self.frame, self.truth, splits)
        self.chosen_on = self.truth if len(splits) > 1 else self.truth[cut:]
        names = sorted(self.model.candidate_names, key=FIRST_ROUND.index)
        self.searches = {name: tuning.Search(name, rows, seed=SEED, threads=1) for name in names}
        self.refits: dict[str, float] = {}
        self.costs: dict[str, list[float]] = {name: [] for name in names}
        self.search()
        self.found = {name: search.result() for name, search in self.searches.items() if search.found}
        self.searched = cpu_seconds() - self.started

    def search(self) -> None:
        while (name := self.next()) is not None:
            before, best = cpu_seconds(), self.searches[name].best
            trial = self.searches[name].try_next()
            self.costs[name].append(cpu_seconds() - before)
            if self.searches[name].best is not best:
                params = self.searches[name].result().params
                stages = params.get("max_iter", np.mean(trial.stages)) * params.get("copies", 1)
                self.refits[name] = self.costs[name][-1] * stages / sum(trial.stages) * MORE_ROWS

    def next(self) -> str | None:
        """Each family once; then, of those not hopeless, the one furthest behind its share; None if time is up."""
        left = self.seconds - (cpu_seconds() - self.started) - self.refits.get(self.best() or "", 0.0)
        expected = {name: np.mean(costs[-3:] or [SHARES[name] * self.seconds]) for name, costs in self.costs.items()}
        tried = [name for name, cost in expected.items() if COST_MARGIN * cost < left]
        waiting = [name for name in tried if not self.costs[name]]
        if left <= 0 or not tried:
            return None
        hopeful = waiting[:1] or [name for name in tried if not self.hopeless(name)]
        return min(hopeful, key=lambda name: sum(self.costs[name]) / SHARES[name], default=None)

    def best(self) -> str | None:
        """The family of the best setting so far."""
        found = [name for name, search in self.searches.items() if search.found]
        return min(found, key=lambda name: self.searches[name].best.loss, default=None)

    def hopeless(self, name: str) -> bool:
        """Is it clearly worse than the best on the same rows? Boosting, which gains most by searching, never is."""
        best, own = self.searches[self.best() or name].best.losses, self.searches[name].best.losses
        if name == "gradient_boosting" or not self.searches[name].found:
            return False
        behind = (own - best)[~np.isnan(best)]
        return bool(behind.mean() > HOPELESS_ERRORS * behind.std() / np.sqrt(len(behind)))

    def answers(self) -> dict[str, tuple[Answers, float]]:
        """Per way of choosing: answers for the test rows, and CPU seconds of search and refit."""
        best = min(self.found, key=lambda name: self.found[name].loss)
        weights = self.ensemble()
        members = {name: {"weight": weight, "params": self.found[name].params} for name, weight in weights.items()}
        ways = {
            DEFAULT: (self.default(), {}),
            "steward_best": (best, {}),
            "steward_ensemble": ("ensemble", {"members": members}) if len(members) > 1 else (best, {}),
        }
        return {way: self.refitted(name, params or self.found[name].params) for way, (name, params) in ways.items()}

    def refitted(self, name: str, params: dict[str, Any]) -> tuple[Answers, float]:
        from steward.core import estimators, tuning

        before = cpu_seconds()
        pipeline = tuning.refit(self.model, name, params, self.frame, self.truth, seed=SEED, threads=1)
        return estimators.predictions(pipeline, self.test, self.model), self.searched + cpu_seconds() - before

    def ensemble(self) -> dict[str, float]:
        from steward.core import tuning

        answers = {name: result.predictions for name, result in self.found.items()}
        return tuning.greedy_weights(answers, self.chosen_on, self.model.classes)

    def default(self) -> str:
        """As the select step chooses: the cheapest within noise, by the loss that all are compared by here.

        What is hopeless is no choice, and its costs are not measured.
        """
        from steward.core import selection

        choice = selection.choose(
            [self.candidate(name) for name in self.found if not self.hopeless(name)],
            {name: result.predictions for name, result in self.found.items()},
            self.chosen_on,
            self.model.classes,
            metric=self.model.metric,
            prefer=self.model.select.prefer,
            confidence=self.model.verify.confidence,
            seed=SEED,
        )
        return choice.winner

    def candidate(self, name: str) -> Any:
        """What the train step would record, with the costs that decide: latency and size of the artifact."""
        import skops.io

        from steward.core import estimators, tuning
        from steward.records import Candidate, Reference

        found = self.found[name]
        pipeline = tuning.refit(self.model, name, found.params, self.frame, self.truth, seed=SEED, threads=1)
        laps = []
        for _ in range(25):
            before = time.perf_counter()
            estimators.predictions(pipeline, self.test[:1], self.model)
            laps.append(time.perf_counter() - before)
        return Candidate(
            name=name,
            model=self.model.name,
            roles=Reference(kind="roles", uri="", digest=""),
            metric=self.model.metric,
            latency_us=min(laps) * 1e6,
            bytes=len(skops.io.dumps(pipeline)),
            fit_seconds=found.fit_seconds,
            interpretability=estimators.interpretability(self.model, name),
        )


def untuned_boosting(frame: pd.DataFrame, test: pd.DataFrame, seconds: float) -> Answers:  # noqa: ARG001
    from steward.core import estimators

    model = model_of(frame)
    defaults = {"learning_rate": 0.1, "max_iter": 100}
    pipeline = estimators.build(model, "gradient_boosting", defaults, seed=SEED, threads=1)
    estimators.fit(pipeline, frame.drop(columns="target"), frame["target"].to_numpy(), threads=1)
    return estimators.predictions(pipeline, test, model)


def flaml(frame: pd.DataFrame, test: pd.DataFrame, seconds: float) -> Answers:
    from flaml import AutoML

    classes = sorted(frame["target"].unique()) if frame["target"].dtype == object else None
    frame, test = _with_categories(frame, test)
    learner = AutoML()
    learner.fit(
        dataframe=frame,
        label="target",
        task="classification" if classes else "regression",
        metric="log_loss" if classes else "rmse",
        time_budget=seconds,
        n_jobs=1,
        seed=SEED,
        verbose=0,
    )
    if not classes:
        return learner.predict(test)
    known = [str(name) for name in learner.classes_]
    return learner.predict_proba(test)[:, [known.index(name) for name in classes]]


def autogluon(frame: pd.DataFrame, test: pd.DataFrame, seconds: float, *, presets: str) -> Answers:
    from autogluon.tabular import TabularPredictor

    classes = sorted(frame["target"].unique()) if frame["target"].dtype == object else None
    kind = ("binary" if len(classes) == 2 else "multiclass") if classes else "regression"
    metric = "log_loss" if classes else "root_mean_squared_error"
    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor("target", problem_type=kind, eval_metric=metric, path=folder, verbosity=0)
        predictor.fit(frame, time_limit=seconds, presets=presets, num_cpus=1, num_gpus=0)
        if not classes:
            return predictor.predict(test).to_numpy()
        answers = predictor.predict_proba(test)
        answers.columns = answers.columns.astype(str)
        return answers.reindex(columns=classes, fill_value=0.0).to_numpy()


def _with_categories(frame: pd.DataFrame, test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    names = [name for name in test.columns if frame[name].dtype == object]
    kinds = {name: pd.CategoricalDtype(sorted(frame[name].dropna().unique())) for name in names}
    return frame.astype(kinds), test.astype(kinds)


def alone(contender: str, run: Callable[..., Answers]) -> Callable[..., dict[str, tuple[Answers, float]]]:
    def runs(*given: Any) -> dict[str, tuple[Answers, float]]:
        before = cpu_seconds()
        return {contender: (run(*given), cpu_seconds() - before)}

    return runs


@dataclass(frozen=True)
class Program:
    """Runs once on a table, in a process of its own, and answers for one or more contenders."""

    environment: str
    run: Callable[..., dict[str, tuple[Answers, float]]]
    contenders: tuple[str, ...]


def program(environment: str, contender: str, run: Callable[..., Answers]) -> Program:
    return Program(environment, alone(contender, run), (contender,))


PROGRAMS = {
    "steward": Program(
        "steward", lambda *given: Steward(*given).answers(), (DEFAULT, "steward_best", "steward_ensemble")
    ),
    "untuned_boosting": program("steward", "untuned_boosting", untuned_boosting),
    "flaml": program("flaml", "flaml", flaml),
    "autogluon_medium": program(
        "autogluon", "autogluon_medium", lambda *given: autogluon(*given, presets="medium_quality")
    ),
    "autogluon_best": program("autogluon", "autogluon_best", lambda *given: autogluon(*given, presets="best_quality")),
}


def run_here(name: str, folder: Path, seconds: float) -> None:
    """The body of a program's own process: rows in; answers for the test rows and CPU seconds out."""
    kinds = json.loads((folder / "kinds.json").read_text())
    frame, test = (_read_rows(folder / file, kinds) for file in ("learn.csv", "test.csv"))
    chosen = PROGRAMS[name]
    for module in ENVIRONMENTS[chosen.environment].modules:
        importlib.import_module(module)
    if chosen.environment in CPU_CLOCK:
        tick_with_cpu()
    for contender, (answers, cpu) in chosen.run(frame, test, seconds).items():
        np.save(folder / f"{contender}.npy", np.asarray(answers, dtype=float))
        (folder / f"{contender}.json").write_text(json.dumps({"cpu_seconds": cpu}))


def tick_with_cpu() -> None:
    """From now on this process's clock shows its CPU time, so that a budget of seconds is one of CPU seconds."""
    now, started = time.time(), cpu_seconds()
    time.time = lambda: now + cpu_seconds() - started


def _read_rows(path: Path, kinds: dict[str, str]) -> pd.DataFrame:
    texts = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame = pd.DataFrame(index=texts.index)
    for name in texts.columns:
        values = texts[name].astype(object)
        frame[name] = values.where(values != "", None) if kinds[name] == "text" else pd.to_numeric(texts[name])
    return frame


def prepare(name: str, data: Path, folder: Path) -> np.ndarray:
    """Write the rows that contenders learn from and the test rows without their target; answers the test rows' truth."""
    frame = read(TABLES[name], data)
    _, learned = shares(len(frame))
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {column: "text" if frame[column].dtype == object else "number" for column in frame}
    (folder / "kinds.json").write_text(json.dumps(kinds))
    frame[:learned].to_csv(folder / "learn.csv", index=False)
    frame[learned:].drop(columns="target").to_csv(folder / "test.csv", index=False)
    truth = frame["target"].to_numpy()[learned:]
    classes = sorted(frame["target"][:learned].unique()) if kinds["target"] == "text" else None
    return truth if classes is None else np.array([classes.index(name) if name in classes else -1 for name in truth])


def row_losses(truth: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Per row: negative log probability of the truth, or squared error."""
    if answers.ndim == 1:
        return (answers - truth) ** 2
    right = np.where(truth >= 0, answers[np.arange(len(truth)), truth], 0.0)
    return -np.log(np.clip(right, SMALLEST_PROBABILITY, 1))


def score(losses: np.ndarray, *, squared: bool) -> float:
    return float(np.sqrt(losses.mean())) if squared else float(losses.mean())


def differs(ours: np.ndarray, theirs: np.ndarray) -> int:
    """1 if ours is lower beyond the noise of a paired bootstrap (95 %), -1 if theirs is, 0 if neither."""
    difference = theirs - ours
    generator = np.random.default_rng(SEED)
    means = [generator.choice(difference, len(difference)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return int(low > 0) - int(high < 0)


def python_of(name: str, folder: Path) -> str:
    """The interpreter of an environment, which is made on first use."""
    packages = ENVIRONMENTS[name].packages
    if not packages:
        return sys.executable
    python = folder / name / "bin" / "python"
    if not (folder / name / "ready").exists():
        venv.create(folder / name, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / name / "ready").touch()
    return str(python)


def run_there(table: str, name: str, folder: Path, seconds: float, environments: Path) -> None:
    """Run a program on a table, unless it has answered there before."""
    chosen = PROGRAMS[name]
    if all((folder / f"{contender}.json").exists() for contender in chosen.contenders):
        return
    python = python_of(chosen.environment, environments)
    command = [python, __file__, "--here", str(folder), "--seconds", str(seconds), "--programs", name]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{table}: {name} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("STEWARD_BENCHMARK_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the tables")
    parser.add_argument("--seconds", type=float, default=20, help="CPU seconds of each program on each table")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    cache = Path.home() / ".cache" / "steward" / "quality"
    parser.add_argument("--work", type=Path, default=cache, help="keeps environments and answers between runs")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        run_here(options.programs[0], options.here, options.seconds)
    else:
        compete(options)


def compete(options: argparse.Namespace) -> None:
    lines = []
    for table in options.tables:
        folder = (options.work / f"{options.seconds:g}" / table).absolute()
        truth = prepare(table, options.data, folder)
        for name in options.programs:
            run_there(table, name, folder, options.seconds, (options.work / "environments").absolute())
        lines += results(table, truth, folder, [one for name in options.programs for one in PROGRAMS[name].contenders])
    summarise(pd.DataFrame(lines))


def results(table: str, truth: np.ndarray, folder: Path, contenders: list[str]) -> list[dict[str, Any]]:
    """A line per contender that answered: its score, CPU seconds, and whether the default differs from it."""
    done = [contender for contender in contenders if (folder / f"{contender}.json").exists()]
    losses = {contender: row_losses(truth, np.load(folder / f"{contender}.npy")) for contender in done}
    ours = losses.get(DEFAULT)
    lines = []
    for contender, lost in losses.items():
        cpu = json.loads((folder / f"{contender}.json").read_text())["cpu_seconds"]
        value = score(lost, squared=TABLES[table].regression)
        won = 0 if ours is None else differs(ours, lost)
        lines.append({"table": table, "contender": contender, "score": value, "cpu": cpu, "won": won})
    print(
        table, *(f"{one['contender']} {one['score']:.4g} ({one['cpu']:.0f} s)" for one in lines), sep="  ", flush=True
    )
    return lines


def rank_of(line: pd.Series, rivals: pd.DataFrame) -> float:
    ours = PROGRAMS["steward"].contenders
    way = line["contender"] if line["contender"] in ours else DEFAULT
    rivals = rivals[~rivals["contender"].isin(ours) | (rivals["contender"] == way)]
    return float(rivals["score"].rank()[line.name])


def summarise(lines: pd.DataFrame) -> None:
    """Mean rank (1 is best) and CPU seconds; on how many tables the default wins and loses beyond bootstrap noise.

    Steward's own ways are no rivals of each other, since they come from one search: each is ranked among the peers, and
    the peers are ranked with the default.
    """
    lines["rank"] = [rank_of(line, lines[lines["table"] == line["table"]]) for _, line in lines.iterrows()]
    print(f"\n{'contender':<20}{'mean rank':>10}{'CPU s':>8}{'default wins':>14}{'loses':>7}{'tables':>8}")
    for contender, own in sorted(lines.groupby("contender"), key=lambda item: item[1]["rank"].mean()):
        wins, losses = int((own["won"] > 0).sum()), int((own["won"] < 0).sum())
        print(f"{contender:<20}{own['rank'].mean():>10.2f}{own['cpu'].mean():>8.1f}{wins:>14}{losses:>7}{len(own):>8}")


if __name__ == "__main__":
    main()
