"""The direct question: would newer rows teach a better model than the champion?

At look after look the champion's own kind of model is trained with all that is labelled by then, and answers the rows that come
next beside the champion (prequential, Dawid 1984). What adds up is evidence on rows that neither had learned from, and far more
of them than are sealed. No sealed row is looked at.
"""

from datetime import datetime
from time import perf_counter
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
from steward.steps.labelled import Champion, Found, Judged, Lessons
from steward.steps.looks import FEWEST_ROWS, keep_units, unread
from steward.steps.rows import learning_rows

WORTH_ASKING = 0.02
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
    """Ask again if there are rows enough that were not asked, and others to learn from.

    Parameters
    ----------
    before : what was answered at earlier looks at this version. For the first time the older half of the rows teaches.
    anew : has an alarm just begun? Then what was answered before it counts no more, and the older half teaches again, so that
        an answer is here at once.

    Returns
    -------
    What is known now; `before` if nothing new was asked.
    """
    rows, known = found.rows, None if anew else before
    asked = unread(workspace, rows, known.until, known.units) if known else _newer_half(rows)
    if model.split.by == "group":  # rows of a group are alike: half of the groups only teach
        asked &= splitting.numbers_of(rows.units) % 2 == 0
    had = sum(workspace.load(Roles, champion.predictor.made.roles).rows.values())
    if asked.sum() < max(FEWEST_ROWS, 0 if anew else WORTH_ASKING * had):
        return before
    lessons = _older(found.lessons, rows[asked])
    if not len(lessons):
        return before
    began = perf_counter()
    try:
        answers = _taught(workspace, champion, lessons, rows[asked].columns.frame(), model.classes)
    except (CandidateFailed, ArtifactDamaged):
        return before
    fit_seconds = perf_counter() - began
    both = rows.truth[asked], answers, rows.answers[asked], model.classes
    gain = verification.skill(model.metric, *both, seed=0)
    skill = verification.skill(verification.SKILLS[model.task], *both, seed=0)
    count = int(asked.sum())
    if known:
        gain, skill = verification.pooled(known.gain, gain), verification.pooled(known.skill, skill)
        count += known.rows
    return DirectQuestion(
        asked_at=at,
        winner=champion.predictor.made.name,
        rows=count,
        gain=gain,
        skill=skill,
        fit_seconds=fit_seconds,
        until=dict(found.ripe_until),
        units=keep_units(workspace, rows),
    )


def _newer_half(rows: Judged) -> Mask:
    newer = np.zeros(len(rows), dtype=bool)
    newer[np.argsort(rows.times, kind="stable")[len(rows) // 2 :]] = True
    return newer


def _older(lessons: Lessons, asked: Judged) -> Lessons:
    """Those that are older than all rows that are asked, and of none of their units."""
    oldest = np.nanmin(asked.times, initial=np.inf)
    theirs = np.isin(splitting.numbers_of(lessons.units), splitting.numbers_of(asked.units))
    return lessons[~theirs & ~(lessons.times >= oldest)]


def _taught(
    workspace: Workspace, champion: Champion, new: Lessons, asked: pd.DataFrame, classes: tuple[str, ...]
) -> NDArray[np.float64]:
    """Answers of the champion's family and parameters, trained on its rows and the new ones."""
    made, trained = champion.predictor.made, champion.predictor.model
    known = learning_rows(workspace, trained, made.roles, splitting.ROLES)
    columns = list(trained.columns)
    learned = pd.concat([known.frame, new.columns.frame().reindex(columns=columns)], ignore_index=True)
    truth = np.concatenate([known.truth, new.truth])
    times = None if known.times is None else np.concatenate([known.times, np.nan_to_num(new.times, nan=-np.inf)])
    how: dict[str, Any] = {"times": times, "seed": made.seed, "threads": workspace.settings.threads}
    pipeline = tuning.refit(trained, made.name, made.params, learned, truth, **how)
    kinds = dict(made.inputs)
    frame = asked.reindex(columns=columns)
    answers = inference.pipeline_engine(pipeline, kinds)({name: frame[name].to_numpy() for name in kinds})
    return estimators.align(answers, pipeline.classes_, classes) if classes else answers
