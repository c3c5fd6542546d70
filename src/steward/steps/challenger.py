"""The refit step: the winner, trained again and exported."""

import json
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from steward import inference
from steward.config import ModelFile
from steward.core import compilation, estimators, metrics, parity, tuning
from steward.core.history import Lesson
from steward.core.leaf_tables import LeafTables
from steward.core.preparation import Plan
from steward.io import environment
from steward.io.artifacts import OnnxModel
from steward.io.workspace import Workspace
from steward.records import Challenger, Engine, File, Parity, Reference, Roles, Selection, canonical_json
from steward.steps.candidate import winner_predictions
from steward.steps.rows import LearningRows, learning_rows
from steward.steps.training import training_facts, training_seed, write_skops

SINGLE_ROWS = 30
LATENCY_CALLS = 20
FILES = {"plan": "plan.json", "tables": "tables.npz", "onnx": "model.onnx"}


def refit(workspace: Workspace, model: ModelFile, selection: Reference) -> Reference:
    """Train the winner on train and validation rows, write its files, and find the engine that serves it.

    Returns
    -------
    Reference to a `Challenger`.
    """
    inputs = [selection.digest, model.model_dump(mode="json"), workspace.settings.threads]
    return workspace.remember(Challenger, inputs, lambda: _challenger(workspace, model, selection))


def _challenger(workspace: Workspace, model: ModelFile, reference: Reference) -> Challenger:
    selection = workspace.load(Selection, reference)
    roles = workspace.load(Roles, selection.roles)
    run_id = workspace.registry.training_run(model.name, selection.roles, training_facts(workspace, roles))
    seed, threads = training_seed(model, roles.fingerprint), workspace.settings.threads
    rows = learning_rows(workspace, model, selection.roles, ("train", "validation"))
    started = perf_counter()
    pipeline = tuning.refit(
        model, selection.winner, selection.params, rows.frame, rows.truth, times=rows.times, seed=seed, threads=threads
    )
    fit_seconds = perf_counter() - started
    validation = rows.frame[rows.roles == "validation"]
    with workspace.store.scratch() as folder:
        skops = write_skops(workspace, pipeline, folder)
        serving = _fastest_engine(workspace, _Proving.of(model, pipeline, validation, seed), folder)
        units = _put_units(workspace, rows.units, folder)
    made = Challenger(
        model=model.name,
        digest=skops.sha256,
        name=selection.winner,
        params=selection.params,
        selection=reference,
        roles=selection.roles,
        snapshot=roles.snapshot,
        fingerprint=roles.fingerprint,
        trained_rows=_learned(selection, rows),
        trained_units=units,
        skops=skops,
        plan=serving.plan,
        tables=serving.tables,
        onnx=serving.onnx,
        engine=serving.chosen.name,
        parity=serving.chosen.parity,
        engines=serving.engines,
        half_width=_half_width(workspace, model, selection, rows),
        seed=seed,
        threads=threads,
        fit_seconds=fit_seconds,
        latency_us=0,
        classes=model.classes,
        known_classes=tuple(map(str, pipeline.classes_)) if model.classes else (),
        inputs={name: column.type for name, column in model.columns.items()},
        example=_example(model, validation),
        metric=selection.metric,
        validation=selection.validation,
        model_file=model.model_dump(mode="json", by_alias=True),
        commit=workspace.commit,
        code=workspace.code,
        packages=environment.packages(),
        machine=environment.machine(),
        run_id=run_id,
    )
    return made.model_copy(update={"latency_us": _measured_latency(workspace, made)})


@dataclass(frozen=True)
class _Proving:
    """What every engine has to answer, and what the pipeline answers to it."""

    pipeline: Any
    rows: dict[str, npt.NDArray[Any]]
    """Columns of validation rows and of edge rows."""
    expected: npt.NDArray[np.float64]
    model: ModelFile
    seed: int

    @classmethod
    def of(cls, model: ModelFile, pipeline: Any, validation: pd.DataFrame, seed: int) -> "_Proving":
        kinds = {name: column.type for name, column in model.columns.items()}
        frame = pd.concat([validation, parity.edge_rows(validation, kinds, seed)], ignore_index=True)
        rows = {name: frame[name].to_numpy() for name in kinds}
        return cls(pipeline, rows, inference.pipeline_engine(pipeline, kinds)(rows), model, seed)

    def judge(self, engine: inference.Engine) -> Parity:
        """All rows at once, and some one by one: an engine may take another way then."""
        single = np.random.default_rng(self.seed).choice(len(self.expected), SINGLE_ROWS)
        actual = [engine({name: values[[place]] for name, values in self.rows.items()}) for place in single]
        return parity.compare(
            np.concatenate([self.expected, self.expected[single]]), np.concatenate([engine(self.rows), *actual])
        )

    def judge_thresholds(self, plan: Plan, model: OnnxModel | LeafTables) -> Parity:
        """Rows beside the thresholds of trees, where the smallest rounding leads to another leaf."""
        estimator = self.pipeline[-1]
        rows = parity.threshold_rows(estimator, plan.matrix(self.rows), self.seed)
        if not len(rows):
            return parity.same(0)
        with estimators.steady(1):
            expected = compilation.answer_prepared(estimator, rows)
        return parity.compare(expected, model.answer(rows))


@dataclass(frozen=True)
class _Serving:
    """The engine that serves, its files, and every engine that was tried."""

    engines: tuple[Engine, ...]
    plan: File | None = None
    tables: File | None = None
    onnx: File | None = None

    @property
    def chosen(self) -> Engine:
        return next(engine for engine in self.engines if engine.parity.passed)


def _fastest_engine(workspace: Workspace, proving: _Proving, folder: Path) -> _Serving:
    """The fastest engine that provably answers as the pipeline does; the proof decides.

    Where tables serve there is an ONNX file too if it passes: others can use it, if there are any.
    """
    tried: list[Engine] = []
    files = {name: folder / file for name, file in FILES.items()}
    passed: set[str] = set()
    for name, prove in _provers(proving).items():
        if passed and (name == "estimator" or not workspace.explains):
            break
        try:
            proof = prove(workspace, proving, files["plan"], files.get(name, folder))
        except Exception as problem:  # noqa: BLE001 - whatever a converter or an engine raises means: not this one
            proof = parity.refused(problem)
        tried.append(Engine.model_validate({"name": name, "parity": proof}))
        passed |= {name} if proof.passed else set()
    if not passed:
        tried.append(Engine(name="pipeline", parity=parity.same(len(proving.expected))))
        return _Serving(tuple(tried))
    kept = {name: workspace.store.put(files[name], FILES[name]) for name in passed & {"tables", "onnx"}}
    return _Serving(tuple(tried), plan=workspace.store.put(files["plan"], FILES["plan"]), **kept)


def _provers(proving: _Proving) -> dict[str, Callable[[Workspace, _Proving, Path, Path], Parity]]:
    """The engines that may come into question, the fastest first."""
    boosted = {"tables": _prove_tables} if compilation.is_boosted(proving.pipeline[-1]) else {}
    return {**boosted, "onnx": _prove_onnx, "estimator": _prove_estimator}


def _prove_tables(workspace: Workspace, proving: _Proving, plan_path: Path, path: Path) -> Parity:
    workspace.artifacts.write_arrays(compilation.compile_tables(proving.pipeline).arrays(), path)
    plan = _written(compilation.compile_plan(proving.pipeline), plan_path)
    with np.load(path) as arrays:
        tables = LeafTables.read(dict(arrays))
    return parity.both(proving.judge(inference.tables_engine(plan, tables)), proving.judge_thresholds(plan, tables))


def _prove_onnx(workspace: Workspace, proving: _Proving, plan_path: Path, path: Path) -> Parity:
    _write_onnx(workspace, proving.pipeline, path)
    plan, model = _written(compilation.compile_plan(proving.pipeline), plan_path), OnnxModel(path)
    return parity.both(proving.judge(inference.onnx_engine(plan, model)), proving.judge_thresholds(plan, model))


def _prove_estimator(_workspace: Workspace, proving: _Proving, plan_path: Path, _path: Path) -> Parity:
    plan = _written(compilation.compile_plan(proving.pipeline, members=False), plan_path)
    return proving.judge(inference.estimator_engine(plan, proving.pipeline[-1]))


def _write_onnx(workspace: Workspace, pipeline: Any, path: Path) -> None:
    """Steward's own graph where it knows the estimator, else what sklearn-onnx makes of it."""
    try:
        workspace.artifacts.write_graph(compilation.compile_estimator(pipeline), path)
    except TypeError:
        if isinstance(pipeline[-1], estimators.WeightedEnsemble):
            raise
        workspace.artifacts.write_converted(pipeline[-1], compilation.input_width(pipeline[-1]), path)


def _written(plan: Plan, path: Path) -> Plan:
    """The plan as it is read back from its file: what serves is what has to be proved."""
    path.write_text(canonical_json(plan.as_json()), encoding="utf-8")
    return Plan.from_json(json.loads(path.read_bytes()))


def _learned(selection: Selection, rows: LearningRows) -> int:
    """How many of the rows the winner learned from: all of them unless a shorter past won."""
    count = len(rows.frame)
    return count if rows.times is None else Lesson.of(selection.params, rows.times).count(count)


def _half_width(workspace: Workspace, model: ModelFile, selection: Selection, rows: LearningRows) -> float | None:
    """Of the intervals of a regression, from the winner's answers to the rows that chose it."""
    if model.classes:
        return None
    found = winner_predictions(workspace, model, selection)
    if found is None:
        return None
    predictions, folded = found
    chosen = rows.choosing(model, folded=folded)
    return metrics.conformal_half_width(rows.truth[chosen], predictions, model.verify.confidence)


def _measured_latency(workspace: Workspace, made: Challenger) -> float:
    """Microseconds of one answer by what serves it: the fastest of some calls, as `timeit` advises.

    On a busy machine a median would measure the neighbours.
    """
    predictor = inference.Predictor.load(workspace, made)
    record = {name: [made.example[name]] for name in made.inputs}
    return min(timeit.repeat(lambda: predictor.answer(record), number=1, repeat=LATENCY_CALLS)) * 1e6


def _put_units(workspace: Workspace, units: npt.NDArray[Any], folder: Path) -> File:
    path = folder / "units.parquet"
    pd.DataFrame({"unit": sorted(set(units))}).to_parquet(path, index=False)
    return workspace.store.put(path, path.name)


def _example(model: ModelFile, frame: pd.DataFrame) -> dict[str, Any]:
    """The first row, preferably one without missing values, as a record that may be sent for prediction."""
    whole = frame.dropna()
    row = (whole if len(whole) else frame).iloc[0]
    return {name: _plain(row[name], column.type) for name, column in model.columns.items()}


def _plain(value: Any, kind: str) -> Any:
    if pd.isna(value):
        return None
    return {"integer": int, "boolean": bool, "number": float, "category": str}[kind](value)
