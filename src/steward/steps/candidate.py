"""The train_candidate step: one candidate, searched and measured."""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from steward.config import ModelFile
from steward.core import estimators, metrics, tuning
from steward.errors import CandidateFailed, StewardError
from steward.io.workspace import Workspace
from steward.records import Candidate, Challenger, File, Reference, Roles, Selection, Trial
from steward.reports import plots
from steward.stages import searched
from steward.steps.rows import LearningRows, learning_rows
from steward.steps.training import latency_us, size_bytes, training_facts, training_seed


def train_candidate(
    workspace: Workspace,
    model: ModelFile,
    roles: Reference,
    candidate: str,
    *,
    on_trial: Callable[[Trial], None] | None = None,
) -> Reference:
    """Search one candidate's best setting. A crash of the candidate is a result: its record carries the error.

    Parameters
    ----------
    on_trial : called after each setting, for progress.

    Returns
    -------
    Reference to a `Candidate`.
    """
    origin = estimators.origin(model, candidate)
    inputs: list[Any] = [roles.digest, candidate, origin, model.model_dump(mode="json"), workspace.settings.threads]
    known = _known_setting(workspace, model, candidate)
    return workspace.remember(
        Candidate,
        [*inputs, known] if known else inputs,
        lambda: _logged_candidate(workspace, model, roles, candidate, known, on_trial),
    )


def _known_setting(workspace: Workspace, model: ModelFile, name: str) -> dict[str, Any] | None:
    """Continuous learning starts where the champion's training ended: with the best setting of this candidate then."""
    champion = workspace.registry.champion(model.name) if model.retrain.continuous else None
    if champion is None:
        return None
    selection = workspace.load(Selection, workspace.load(Challenger, champion.challenger).selection)
    before = (workspace.load(Candidate, reference) for reference in selection.candidates)
    return next((one.params for one in before if one.name == name and one.error is None), None)


def _logged_candidate(
    workspace: Workspace,
    model: ModelFile,
    reference: Reference,
    name: str,
    known: dict[str, Any] | None,
    on_trial: Callable[[Trial], None] | None,
) -> Candidate:
    roles = workspace.load(Roles, reference)
    candidate = Candidate(name=name, model=model.name, roles=reference, metric=model.metric)
    candidate = _or_failed(candidate, lambda: _searched(workspace, model, roles, candidate, known, on_trial))
    facts = training_facts(workspace, roles)
    run_id = workspace.registry.log_candidate(
        model.name, reference, candidate, lambda: _candidate_plots(workspace, model, candidate), facts
    )
    return candidate.model_copy(update={"run_id": run_id})


def _candidate_plots(workspace: Workspace, model: ModelFile, candidate: Candidate) -> dict[str, bytes]:
    if candidate.predictions is None:
        return {}
    rows = learning_rows(workspace, model, candidate.roles, ("train", "validation"))
    truth = rows.truth[rows.choosing(model, folded=candidate.chosen_on == "cross_validation")]
    return plots.of_candidate(
        candidate, truth, read_predictions(workspace, model, candidate.predictions), model.classes
    )


def _or_failed(candidate: Candidate, search: Callable[[], Candidate]) -> Candidate:
    try:
        return search()
    except CandidateFailed as problem:
        return candidate.model_copy(update={"error": str(problem)})
    except StewardError:
        raise
    except Exception as problem:  # noqa: BLE001 - whatever an estimator raises is this candidate's result
        return candidate.model_copy(update={"error": f"{type(problem).__name__}: {problem}"})


def _searched(
    workspace: Workspace,
    model: ModelFile,
    roles: Roles,
    candidate: Candidate,
    known: dict[str, Any] | None,
    on_trial: Callable[[Trial], None] | None,
) -> Candidate:
    """The candidate with its best setting and what it costs."""
    rows = learning_rows(workspace, model, candidate.roles, ("train", "validation"))
    train, validation = np.flatnonzero(rows.roles == "train"), np.flatnonzero(rows.roles == "validation")
    order = np.concatenate([train, validation])
    seed, threads = training_seed(model, roles.fingerprint), workspace.settings.threads
    found = tuning.search(
        model,
        candidate.name,
        rows.frame.iloc[train],
        rows.truth[train],
        rows.frame.iloc[validation],
        rows.truth[validation],
        groups=rows.units[order] if model.split.by == "group" else None,
        times=None if rows.times is None else rows.times[order],
        seed=seed,
        threads=threads,
        known=known,
        on_trial=on_trial,
    )
    costs = _costs(workspace, model, candidate.name, found.params, rows, seed)
    chosen = order[found.rows]
    place = np.argsort(chosen)
    chosen, predictions = chosen[place], found.predictions[place]
    confidence = model.verify.confidence
    with workspace.store.scratch() as folder, estimators.steady(1):
        return candidate.model_copy(
            update={
                "params": found.params,
                "validation": metrics.interval(
                    model.metric, rows.truth[chosen], predictions, model.classes, confidence=confidence, seed=seed
                ),
                "loss": found.loss,
                "predictions": _put_predictions(workspace, model, predictions, folder),
                "chosen_on": found.chosen_on,
                "trials": found.trials,
                "search_seconds": found.search_seconds,
                "interpretability": estimators.interpretability(model, candidate.name),
                **costs,
            }
        )


def _costs(
    workspace: Workspace, model: ModelFile, name: str, params: Mapping[str, Any], rows: LearningRows, seed: int
) -> dict[str, Any]:
    """Seconds of a training on the train rows, microseconds of an answer, and bytes; it is trained again to measure them.

    Nothing where they decide nothing and nobody looks. A user's own estimator shows here whether it can be kept.
    """
    if not workspace.explains and len(searched(model)) == 1 and model.own_estimator(name) is None:
        return {}
    train = rows.roles == "train"
    frame, times = rows.frame[train], None if rows.times is None else rows.times[train]
    how: dict[str, Any] = {"times": times, "seed": seed, "threads": workspace.settings.threads}
    started = perf_counter()
    pipeline = tuning.refit(model, name, params, frame, rows.truth[train], **how)
    fit_seconds = perf_counter() - started
    return {
        "fit_seconds": fit_seconds,
        "latency_us": latency_us(pipeline, frame.iloc[[0]]),
        "bytes": size_bytes(workspace, model, name, pipeline),
    }


def _put_predictions(workspace: Workspace, model: ModelFile, predictions: npt.NDArray[Any], folder: Path) -> File:
    path = folder / "predictions.parquet"
    pd.DataFrame(predictions, columns=list(model.classes or ["prediction"])).to_parquet(path, index=False)
    return workspace.store.put(path, path.name)


def read_predictions(workspace: Workspace, model: ModelFile, file: File) -> npt.NDArray[np.float64]:
    frame = pd.read_parquet(workspace.store.fetch(file))
    return frame[list(model.classes)].to_numpy(float) if model.classes else frame["prediction"].to_numpy(float)


def winner_predictions(
    workspace: Workspace, model: ModelFile, selection: Selection
) -> tuple[npt.NDArray[np.float64], bool] | None:
    """The winner's answers to the rows that chose it, and whether train rows are among these; see `LearningRows.choosing`.

    None if a candidate kept none.
    """
    candidates = {one.name: one for one in (workspace.load(Candidate, reference) for reference in selection.candidates)}
    members = (
        selection.params.get("members", {}) if selection.winner == "ensemble" else {selection.winner: {"weight": 1}}
    )
    answers = np.zeros(())
    for name, member in members.items():
        file = candidates[name].predictions
        if file is None:
            return None
        answers = answers + member["weight"] * read_predictions(workspace, model, file)
    return answers, any(candidates[name].chosen_on == "cross_validation" for name in members)
