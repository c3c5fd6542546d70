"""What every training has: a seed, facts on record, an artifact, and a measured latency."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from steward.config import ModelFile
from steward.core import estimators
from steward.io import environment
from steward.io.workspace import Workspace
from steward.records import File, Roles, digest_of

LATENCY_CALLS = 10


def training_seed(model: ModelFile, fingerprint: str) -> int:
    """The seed of everything random in a training: follows from the snapshot and the model file."""
    return int(digest_of(fingerprint, model.model_dump(mode="json"))[:8], 16)


def training_facts(workspace: Workspace, roles: Roles) -> dict[str, str]:
    """What a training ran on and with, for MLflow."""
    versions = {f"package.{name}": version for name, version in environment.packages().items()}
    hardware = {f"machine.{name}": value for name, value in environment.machine().items()}
    return {"snapshot": roles.fingerprint, "commit": workspace.commit or "", **versions, **hardware}


def write_skops(workspace: Workspace, pipeline: Any, folder: Path) -> File:
    """Keep a fitted pipeline as skops; its SHA-256 is the identity of what was learned."""
    workspace.artifacts.write_skops(pipeline, folder / "model.skops")
    return workspace.store.put(folder / "model.skops", "model.skops")


def latency_us(workspace: Workspace, pipeline: Any, row: pd.DataFrame, onnx: File | None) -> float:
    """Microseconds of one prediction by the engine that serves it: the fastest of some calls, as `timeit` advises.

    On a busy machine a median would measure the neighbours. One thread, because OpenMP loses time on one row.
    """
    engine = workspace.artifacts.onnx_session(onnx) if onnx else None
    seconds = []
    with estimators.steady(1):
        for _ in range(LATENCY_CALLS):
            started = perf_counter()
            if engine:
                engine.answer(np.asarray(pipeline[:-1].transform(row)))
            else:
                pipeline.predict(row)
            seconds.append(perf_counter() - started)
    return min(seconds) * 1e6
