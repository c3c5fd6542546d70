"""The select step: one winner among the candidates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from steward.config import ModelFile
from steward.core import estimators, selection, tuning
from steward.io.workspace import Workspace
from steward.records import Candidate, Reference, Roles, Selection
from steward.steps.candidate import read_predictions
from steward.steps.rows import learning_rows
from steward.steps.training import training_seed


def select(workspace: Workspace, model: ModelFile, roles: Reference, candidates: Sequence[Reference]) -> Reference:
    """Choose on the rows that choose: the cheapest candidate within noise of the best.

    Returns
    -------
    Reference to a `Selection`.

    Raises
    ------
    NoCandidate : every candidate failed.
    """
    inputs = [roles.digest, [reference.digest for reference in candidates], model.model_dump(mode="json")]
    return workspace.remember(Selection, inputs, lambda: _selection(workspace, model, roles, candidates))


def _selection(workspace: Workspace, model: ModelFile, roles: Reference, references: Sequence[Reference]) -> Selection:
    trained = [workspace.load(Candidate, reference) for reference in references]
    out_of_fold = any(one.chosen_on == "cross_validation" for one in trained if one.error is None)
    given = workspace.load(Roles, roles)
    rows = learning_rows(workspace, model, roles, ("train", "validation"))
    truth = rows.truth[rows.choosing(model, folded=out_of_fold)]
    answers = {one.name: read_predictions(workspace, model, one.predictions) for one in trained if one.predictions}
    if "ensemble" in model.candidate_names and len(answers) > 1:
        ensemble, mean = _ensemble(model, roles, trained, answers, truth)
        trained, answers = [*trained, ensemble], {**answers, ensemble.name: mean}
    choice = selection.choose(
        trained,
        answers,
        truth,
        model.classes,
        metric=model.metric,
        prefer=model.select.prefer,
        confidence=model.verify.confidence,
        seed=training_seed(model, given.fingerprint),
    )
    return Selection(
        model=model.name,
        roles=roles,
        winner=choice.winner,
        params=next(one.params for one in trained if one.name == choice.winner),
        metric=model.metric,
        validation=choice.validation,
        reason=choice.reason,
        table=choice.table,
        candidates=tuple(references),
    )


def _ensemble(
    model: ModelFile,
    roles: Reference,
    trained: Sequence[Candidate],
    answers: Mapping[str, npt.NDArray[np.float64]],
    truth: npt.NDArray[Any],
) -> tuple[Candidate, npt.NDArray[np.float64]]:
    """A weighted mean of the others as one more candidate; it costs what its members cost together."""
    weights = tuning.greedy_weights(answers, truth, model.classes)
    members = [one for one in trained if one.name in weights]
    mean = np.sum([weights[name] * answers[name] for name in weights], axis=0)
    ensemble = Candidate(
        name="ensemble",
        model=model.name,
        roles=roles,
        params={"members": {one.name: {"weight": weights[one.name], "params": one.params} for one in members}},
        metric=model.metric,
        loss=tuning.loss_of(mean, truth, model.classes),
        chosen_on=members[0].chosen_on,
        fit_seconds=sum(one.fit_seconds for one in members),
        latency_us=sum(one.latency_us for one in members),
        bytes=sum(one.bytes for one in members),
        interpretability=estimators.interpretability(model, "ensemble"),
        error=None if len(members) > 1 else f"no mean of several candidates is better than {members[0].name} alone",
    )
    return ensemble, mean
