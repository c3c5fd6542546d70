"""What every training has: a seed, facts on record, an artifact, and a measured latency."""

import pickle
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd

from steward.config import ModelFile
from steward.core import estimators
from steward.io import environment
from steward.io.workspace import Workspace
from steward.records import File, Roles, digest_of

FEWEST_CALLS, MOST_CALLS, ENOUGH_SECONDS = 3, 10, 0.03
"""Calls of one latency: whoever takes long is called less often, and noise counts less there."""


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


def size_bytes(workspace: Workspace, model: ModelFile, candidate: str, pipeline: Any) -> int:
    """Bytes of a fitted pipeline, which nobody keeps: pickled, because skops takes a hundred times as long.

    A user's own estimator is written as skops all the same: one that cannot be kept fails here, not after it has won.
    """
    if model.own_estimator(candidate) is None:
        return len(pickle.dumps(pipeline, protocol=5))
    with workspace.store.scratch() as folder:
        workspace.artifacts.write_skops(pipeline, folder / "candidate.skops")
        return (folder / "candidate.skops").stat().st_size


def latency_us(pipeline: Any, row: pd.DataFrame) -> float:
    """Microseconds of one prediction through a pipeline: the fastest of some calls, as `timeit` advises.

    On a busy machine a median would measure the neighbours. One thread, because OpenMP loses time on one row.
    """
    seconds: list[float] = []
    with estimators.steady(1):
        while len(seconds) < FEWEST_CALLS or (len(seconds) < MOST_CALLS and sum(seconds) < ENOUGH_SECONDS):
            started = perf_counter()
            pipeline.predict(row)
            seconds.append(perf_counter() - started)
    return min(seconds) * 1e6
