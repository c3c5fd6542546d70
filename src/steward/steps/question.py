"""The direct question: would newer rows teach a better model than the champion?

At look after look the champion's own kind of model is trained with all that is labelled by then, and answers the rows that come
next beside the champion (prequential, Dawid 1984). What adds up is evidence on rows that neither had learned from, and far more
of them than are sealed. No sealed row is looked at.
"""

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward import inference
from steward.config import ModelFile
from steward.core import estimators, splitting, tuning, verification
from steward.errors import ArtifactDamaged, CandidateFailed
from steward.io.workspace import Workspace
from steward.records import DirectQuestion, Roles
from steward.steps.labelled import Champion, Found, Judged
from steward.steps.looks import FEWEST_ROWS, keep_units, unread
from steward.steps.rows import learning_rows

WORTH_ASKING = 0.01
"""New rows, as a share of those that the champion had: with fewer a question costs a training and says little."""

Mask = NDArray[np.bool_]


def ask(
    workspace: Workspace,
    model: ModelFile,
    champion: Champion,
    found: Found,
    before: DirectQuestion | None,
    *,
    anew: bool,
    at: datetime,
) -> DirectQuestion | None:
    """Ask again if there are rows enough that were not asked.

    Parameters
    ----------
    before : what was answered at earlier looks at this version.
    anew : has an alarm just begun? Then what was answered before it counts no more, and the older half of the rows teaches,
        so that an answer is here at once.

    Returns
    -------
    What is known now; `before` if nothing new was asked.
    """
    rows = found.rows
    asked = _newer_half(rows) if anew else unread(workspace, rows, before.until, before.units) if before else _all(rows)
    had = sum(workspace.load(Roles, champion.predictor.made.roles).rows.values())
    if asked.sum() < max(FEWEST_ROWS, 0 if anew else WORTH_ASKING * had):
        return before
    try:
        answers = _taught(workspace, model, champion, found, asked)
    except (CandidateFailed, ArtifactDamaged):
        return before
    both = rows.truth[asked], answers, rows.answers[asked], model.classes
    gain = verification.skill(model.metric, *both, seed=0)
    skill = verification.skill(verification.SKILLS[model.task], *both, seed=0)
    count = int(asked.sum())
    if before and not anew:
        gain, skill = verification.pooled(before.gain, gain), verification.pooled(before.skill, skill)
        count += before.rows
    return DirectQuestion(
        asked_at=at,
        winner=champion.predictor.made.name,
        rows=count,
        gain=gain,
        skill=skill,
        until=dict(found.ripe_until),
        units=keep_units(workspace, rows),
    )


def _all(rows: Judged) -> Mask:
    return np.ones(len(rows), dtype=bool)


def _newer_half(rows: Judged) -> Mask:
    newer = np.zeros(len(rows), dtype=bool)
    newer[np.argsort(rows.times, kind="stable")[len(rows) // 2 :]] = True
    return newer


def _taught(
    workspace: Workspace, model: ModelFile, champion: Champion, found: Found, asked: Mask
) -> NDArray[np.float64]:
    """Answers to the asked rows of the champion's family and parameters, trained on its rows and on newer ones.

    These are rows that the next training would have: older than all that are asked, and of none of their units.
    """
    made, trained, rows = champion.predictor.made, champion.predictor.model, found.rows[asked]
    oldest = np.nanmin(rows.times) if not np.isnan(rows.times).all() else np.inf
    theirs = np.isin(splitting.numbers_of(found.lessons.units), splitting.numbers_of(rows.units))
    new = found.lessons[~theirs & ~(found.lessons.times >= oldest)]
    known = learning_rows(workspace, trained, made.roles, splitting.ROLES)
    columns = list(trained.columns)
    learned = pd.concat([known.frame, new.frame.reindex(columns=columns)], ignore_index=True)
    truth = np.concatenate([known.truth, new.truth])
    times = None if known.times is None else np.concatenate([known.times, np.nan_to_num(new.times, nan=-np.inf)])
    how: dict[str, Any] = {"times": times, "seed": made.seed, "threads": workspace.settings.threads}
    pipeline = tuning.refit(trained, made.name, made.params, learned, truth, **how)
    kinds = dict(made.inputs)
    frame = rows.frame.reindex(columns=columns)
    answers = inference.pipeline_engine(pipeline, kinds)({name: frame[name].to_numpy() for name in kinds})
    return estimators.align(answers, pipeline.classes_, model.classes) if model.classes else answers
