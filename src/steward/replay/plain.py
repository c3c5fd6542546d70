"""What people have without Steward: a job that trains on every labelled row and installs what comes out.

It trains the kind of model that the first version is, with the setting that was found then. There is no sealed test: what a
row has taught it is nobody's concern, and nothing stops a version that is worse. A version depends on the rows alone, so that
all policies share it, and those of different windows are trained side by side.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward.config import ModelFile, Settings
from steward.core import estimators, metrics, tuning
from steward.errors import CandidateFailed
from steward.inference import pipeline_engine
from steward.prediction import Model
from steward.records import digest_of
from steward.replay.governed import FIRST
from steward.replay.past import Past, Window, columns_of
from steward.replay.policies import Policy
from steward.replay.stage import Place, write

FEWEST_ROWS = 30
"""Labelled rows that a floor is held against; fewer decide nothing."""


@dataclass(frozen=True)
class Trainings:
    """The plain trainings of a replay: at the end of any window, on what was known then."""

    place: Place
    model: ModelFile
    windows: Sequence[Window]

    def train(self, number: int) -> dict[str, Any]:
        """Train at the end of a window, once; what came of it."""
        path = self._file(number)
        if not path.exists():
            made = self._first() if number == 0 else self._trained(number)
            write(path, made)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def answers(self, number: int) -> NDArray[np.float64] | None:
        """What the version of a window's end answers to every later row; None if the training failed."""
        if self.train(number)["error"]:
            return None
        found: NDArray[np.float64] = np.load(self._file(number).with_suffix(".npy"), mmap_mode="r")
        return found

    def _file(self, number: int) -> Path:
        return self.place.folder / "plain" / f"{number}.json"

    def _first(self) -> dict[str, Any]:
        """The first version is Steward's own."""
        begun, past = perf_counter(), past_of(self.place.past, self.model)
        begin = self.windows[0].start
        champion = Model(self.model, workspace=self.place.workspace(FIRST, begin))
        self._keep(0, champion.predictor.answer(columns_of(past, slice(_later(past, begin), len(past)))))
        return {"rows": champion.predictor.made.trained_rows, "error": None, "fits": 0.0, "all": perf_counter() - begun}

    def _trained(self, number: int) -> dict[str, Any]:
        begun, past, window = perf_counter(), past_of(self.place.past, self.model), self.windows[number - 1]
        start = self.windows[0].start
        made = Model(self.model, workspace=self.place.workspace(FIRST, start)).predictor.made
        model = past.model_at(window.end, start)
        known = past.known(window.end)
        error, fits = None, 0.0
        try:
            fitting = perf_counter()
            pipeline = tuning.refit(
                model,
                made.name,
                made.params,
                past.frame.iloc[known],
                past.truth[known],
                times=past.times[known] if self.model.train.looks_at_times else None,
                seed=_seed(self.model, number),
                threads=self.place.settings.threads,
            )
            fits = perf_counter() - fitting
            columns = columns_of(past, slice(_later(past, window.end), len(past)))
            inputs = {name: column.type for name, column in model.columns.items()}
            raw = pipeline_engine(pipeline, inputs)(columns)
            self._keep(
                number, estimators.align(raw, pipeline.classes_, self.model.classes) if self.model.classes else raw
            )
        except CandidateFailed as problem:
            error = str(problem)
        return {"rows": len(known), "error": error, "fits": fits, "all": perf_counter() - begun}

    def _keep(self, number: int, answers: NDArray[np.float64]) -> None:
        path = self._file(number).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, answers)
        part.replace(path)


def _seed(model: ModelFile, number: int) -> int:
    return int(digest_of("plain", number, model.model_dump(mode="json"))[:8], 16)


def _later(past: Past, at: datetime) -> int:
    return int(np.searchsorted(past.times, at.timestamp()))


def past_of(folder: Path, model: ModelFile) -> Past:
    """The past, read once per process."""
    return _read_once(folder, model.model_dump_json(by_alias=True))


@lru_cache(maxsize=1)
def _read_once(folder: Path, model: str) -> Past:
    return Past(folder, ModelFile.model_validate_json(model))


@dataclass(frozen=True)
class Served:
    """What a plain policy answered in one window.

    Attributes
    ----------
    version : the number of the training that served: that of the window at whose end it was made.
    rival : what the version before would have answered, in the first window of a new one.
    trained : whether there was a training at the window's end.
    """

    window: Window
    version: int
    raw: NDArray[np.float64]
    rival: NDArray[np.float64] | None
    trained: bool
    reason: str | None
    error: str | None


def play(trainings: Trainings, policy: Policy) -> list[Served]:
    """A plain policy through the past."""
    past = past_of(trainings.place.past, trainings.model)
    course: list[Served] = []
    serving, before = 0, None
    for window in trainings.windows:
        raw = _in_window(trainings, past, serving, window)
        rival = None if before is None else _in_window(trainings, past, before, window)
        last = window is trainings.windows[-1]
        reason = None if last else _reason(trainings.model, past, policy, window, [*course, raw])
        error = trainings.train(window.number)["error"] if reason else None
        course.append(Served(window, serving, raw, rival, bool(reason) and not error, reason, error))
        before = serving if course[-1].trained else None
        serving = window.number if course[-1].trained else serving
    return course


def _in_window(trainings: Trainings, past: Past, number: int, window: Window) -> NDArray[np.float64]:
    rows, answers = past.asked(window), trainings.answers(number)
    made_at = trainings.windows[number - 1].end if number else trainings.windows[0].start
    first = _later(past, made_at)
    return np.asarray(answers[rows.start - first : rows.stop - first]) if answers is not None else np.zeros(0)


def _reason(model: ModelFile, past: Past, policy: Policy, window: Window, course: Sequence[Any]) -> str | None:
    if policy.kind == "every":
        return f"every {policy.every} windows" if policy.asks(window.number) else None
    if policy.kind != "floor" or policy.floor is None:
        return None
    value = _live(model, past, window, course)
    larger = metrics.larger_is_better(model.metric)
    if value is None or (value >= policy.floor if larger else value <= policy.floor):
        return None
    return f"{model.metric} {value:.4f} of the newest labels, the floor is {policy.floor:g}"


def _live(model: ModelFile, past: Past, window: Window, course: Sequence[Any]) -> float | None:
    """The metric on the rows whose labels arrived in the window, by the answers that were given."""
    *before, raw = course
    begin = before[0].window.start if before else window.start
    answers = np.concatenate([*(one.raw for one in before), raw])
    rows = past.arrived(window.start, window.end, since=begin)
    if len(rows) < FEWEST_ROWS:
        return None
    return metrics.score(model.metric, past.truth[rows], answers[rows - _later(past, begin)], model.classes)


def train_there(settings: Settings, folder: Path, model: ModelFile, windows: Sequence[Window], number: int) -> int:
    """One plain training in another process."""
    Trainings(Place(folder, settings), model, windows).train(number)
    return number
