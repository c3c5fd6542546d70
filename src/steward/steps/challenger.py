"""The refit step: the winner, trained again and exported."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from steward.config import ModelFile
from steward.core import parity, tuning
from steward.io import environment
from steward.io.artifacts import OnnxModel
from steward.io.workspace import Workspace
from steward.records import Challenger, File, Parity, Reference, Roles, Selection
from steward.steps.rows import learning_rows
from steward.steps.training import latency_us, training_facts, training_seed, write_skops


def refit(workspace: Workspace, model: ModelFile, selection: Reference) -> Reference:
    """Train the winner on train and validation rows, write skops and ONNX, prove that they agree.

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
        model, selection.winner, selection.params, rows.frame, rows.truth, seed=seed, threads=threads
    )
    fit_seconds = perf_counter() - started
    validation = rows.frame[rows.roles == "validation"]
    with workspace.store.scratch() as folder:
        skops = write_skops(workspace, pipeline, folder)
        onnx, proof = _proven_onnx(workspace, model, pipeline, validation, folder, seed)
        units = _put_units(workspace, rows.units, folder)
    return Challenger(
        model=model.name,
        digest=skops.sha256,
        name=selection.winner,
        params=selection.params,
        selection=reference,
        roles=selection.roles,
        snapshot=roles.snapshot,
        fingerprint=roles.fingerprint,
        trained_rows=len(rows.frame),
        trained_units=units,
        skops=skops,
        onnx=onnx,
        engine="onnx" if onnx else "skops",
        parity=proof,
        seed=seed,
        threads=threads,
        fit_seconds=fit_seconds,
        latency_us=latency_us(workspace, pipeline, validation.iloc[[0]], onnx),
        classes=model.classes,
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


def _proven_onnx(
    workspace: Workspace, model: ModelFile, pipeline: Any, validation: pd.DataFrame, folder: Path, seed: int
) -> tuple[File | None, Parity]:
    """The last estimator as ONNX, if it provably answers as the pipeline does; the proof decides."""
    columns = {name: column.type for name, column in model.columns.items()}
    rows = pd.concat([validation, parity.edge_rows(validation, columns, seed)], ignore_index=True)
    features = np.asarray(pipeline[:-1].transform(rows), dtype=np.float64)
    features = np.vstack([features, parity.threshold_rows(pipeline[-1], features, seed)])
    expected = pipeline[-1].predict_proba(features) if model.classes else pipeline[-1].predict(features)
    path = folder / "model.onnx"
    try:
        workspace.artifacts.write_onnx(pipeline[-1], features.shape[1], path)
        proof = parity.compare(expected, OnnxModel(path, workspace.settings.threads).answer(features))
    except Exception as problem:  # noqa: BLE001 - whatever a converter raises means: serve from skops
        return None, parity.not_converted(problem)
    return (workspace.store.put(path, path.name) if proof.passed else None), proof


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
