"""One policy through the past, by Steward's own steps: serve, log, let labels arrive, look, decide, train, verify, promote.

What came of each window is written when the window is over, and the ledger is set aside. A replay that was stopped goes on
with that ledger, so that a window is played as a whole or not at all; trainings that were made are found again.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from steward import operations, pipeline
from steward.config import ModelFile
from steward.errors import ClockWentBack, NotEnoughSealedRows, ReplayRefused, StewardError
from steward.io.ledger import Entry
from steward.io.predictions import Logged
from steward.io.workspace import Workspace
from steward.pipeline import Event, Look
from steward.prediction import Model
from steward.records import Accuracy, Candidate, Challenger, Decision, Promotion
from steward.replay.past import Past, Window, columns_of
from steward.replay.policies import Policy, Seen
from steward.replay.stage import Place, write

FIRST = "first"
"""Whose ledger holds the first version; every policy begins with a copy of it."""
BY = "replay"
LARGER = (1.0, 2.0, 4.0, 8.0)
"""Where too few rows were labelled before the start, the first version's test may miss a difference so many times larger."""
encode = msgspec.json.Encoder()


def first_version(place: Place, model: ModelFile, at: datetime) -> dict[str, Any]:
    """Train the version that every policy begins with; what became of it, and what a person should know.

    Raises
    ------
    ReplayRefused : the rows before the start do not make a version.
    """
    path = place.of(FIRST) / "0.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    place.forget(FIRST)
    workspace = place.workspace(FIRST, at, place.next_life(FIRST))
    clock = _Clock()
    try:
        outcome, says = _first_outcome(workspace, model, at, clock)
    except StewardError as problem:
        raise ReplayRefused(
            "no first version can be trained on what was known at the start",
            got=f"{problem.name}: {problem}",
            do="Choose a later --start, or a shorter --label-delay",
        ) from problem
    if outcome.promotion and outcome.promotion.alias != "champion":
        why = (
            f"The replay needs a version to begin with ({outcome.verdict.verdict if outcome.verdict else 'no verdict'})"
        )
        operations.promote_by_hand(workspace, model, outcome.promotion.version, why=why, by=BY, at=at)
        says.append(
            f"the first version did not earn its promotion and was promoted by hand: {' '.join(outcome.promotion.reasons)}"
        )
    made = {"training": _training(outcome), "says": says, "seconds": clock.seconds()}
    write(path, made)
    return made


def _first_outcome(
    workspace: Workspace, model: ModelFile, at: datetime, clock: "_Clock"
) -> tuple[pipeline.Outcome, list[str]]:
    """With as few sealed rows as there are: a first version has nobody to be compared with."""
    for factor in LARGER:
        detect = min(0.9, model.verify.detect * factor)
        try:
            outcome = _train(
                workspace, model, _decision(model, "the replay begins", at, detect), at, f"first {factor:g}", clock
            )
        except NotEnoughSealedRows:
            if factor == LARGER[-1]:
                raise
            continue
        says = [
            f"few rows were labelled before the start: the first version's test can find differences of {detect:g} only"
        ]
        return outcome, says if factor > 1 else []
    raise AssertionError


def _decision(
    model: ModelFile, reason: str, at: datetime, detect: float | None = None, kind: str = "manual"
) -> Decision:
    """To train, for a reason that is not the governor's."""
    return Decision(
        model=model.name,
        subject=at.isoformat(),
        at=at,
        train=True,
        reason=reason,
        trigger={"kind": kind},
        detect=detect,
    )


class _Clock:
    """Seconds of a window, and of the fits among them."""

    def __init__(self) -> None:
        self.began = perf_counter()
        self.fits = 0.0

    def hear(self, event: Event) -> None:
        if event.state != "finished":
            return
        if isinstance(event.record, Candidate):
            self.fits += event.record.search_seconds + event.record.fit_seconds
        elif isinstance(event.record, Challenger):
            self.fits += event.record.fit_seconds
        elif isinstance(event.record, Accuracy) and (question := event.record.question):
            self.fits += question.fit_seconds if question.asked_at == event.record.at else 0.0

    def seconds(self) -> dict[str, float]:
        return {"all": perf_counter() - self.began, "fits": self.fits}


def _train(
    workspace: Workspace, model: ModelFile, decision: Decision, at: datetime, run_id: str, clock: _Clock
) -> pipeline.Outcome:
    return pipeline.train(
        workspace, model, at=at, reason=decision.reason, by=BY, run_id=run_id, decision=decision, on_event=clock.hear
    )


def _training(outcome: pipeline.Outcome) -> dict[str, Any]:
    verdict, promotion = outcome.verdict, outcome.promotion
    return {
        "rows": outcome.snapshot.accepted,
        "winner": outcome.selection.winner,
        "verdict": verdict.verdict if verdict else None,
        "test": {
            "rows": verdict.test.rows,
            "value": verdict.test.value,
            "difference": verdict.test.difference.as_json(),
        }
        if verdict
        else None,
        "version": promotion.version if promotion else None,
        "promoted": bool(promotion and promotion.alias == "champion"),
    }


@dataclass(frozen=True)
class Course:
    """One governed policy and what it goes through."""

    place: Place
    policy: Policy
    slug: str
    past: Past
    windows: Sequence[Window]
    model: ModelFile

    def run(self, on_window: Callable[[int], None] = lambda _: None) -> None:
        """Every window that has not been played yet, in order."""
        done = self._done()
        if done == len(self.windows):
            return
        self.place.restore(self.slug, done, FIRST)
        life = self.place.next_life(self.slug)
        for window in self.windows[done:]:
            self._play(window, life)
            on_window(window.number)

    def _done(self) -> int:
        """How many windows were played, and the ledger is there as it was after them."""
        played = next(
            (place for place, one in enumerate(self.windows) if not self._file(one).exists()), len(self.windows)
        )
        kept = played == len(self.windows) or (self.place.of(self.slug) / f"after-{played}.db").exists()
        return played if kept else 0

    def _file(self, window: Window) -> Path:
        return self.place.of(self.slug) / f"{window.number}.json"

    def _play(self, window: Window, life: int) -> None:
        clock, workspace = _Clock(), self.place.workspace(self.slug, window.end, life)
        champion = self._serve(workspace, window)
        self._let_labels_arrive(workspace, window)
        found = self._decided(workspace, window, clock)
        self.place.keep(self.slug, window.number)
        write(self._file(window), {"window": window.number, "version": champion, **found, "seconds": clock.seconds()})

    def _serve(self, workspace: Workspace, window: Window) -> int:
        """Answer and log every row of the window; the number of the version that did."""
        rows = self.past.asked(window)
        champion = Model(self.model, workspace=workspace)
        columns, asked = columns_of(self.past, rows), rows.stop > rows.start
        raw = champion.predictor.answer(columns) if asked else np.zeros((0, *_width(self.model)))
        np.save(self.place.of(self.slug) / f"{window.number}.npy", raw)
        self._answer_as_the_one_before(workspace, window, champion.version, columns, len(raw))
        if asked:
            answers = champion.answering.many(raw, champion.predictor.unseen(columns), columns)
            workspace.predictions.prepare()
            writer = workspace.predictions.writer(durable=False, patience=30)
            writer.write(list(self._logged(champion, rows, answers.as_lists())))
            writer.close()
        return champion.version

    def _answer_as_the_one_before(
        self, workspace: Workspace, window: Window, version: int, columns: Any, rows: int
    ) -> None:
        """After a change of the champion: what the other one would have said, to be told apart with hindsight."""
        before = self._file(Window(window.number - 1, window.start, window.start))
        if not rows or not before.exists():
            return
        served = json.loads(before.read_text(encoding="utf-8"))["version"]
        if served != version:
            rival = Model(self.model, served, workspace=workspace).predictor.answer(columns)
            np.save(self.place.of(self.slug) / f"{window.number}.rival.npy", rival)

    def _logged(self, champion: Model, rows: slice, answers: Sequence[Any]) -> Iterator[Logged]:
        predictions, confidences, probabilities, intervals, actions, _, unseen = answers
        past = self.past
        for place, number in enumerate(range(rows.start, rows.stop)):
            prediction = predictions[place]
            kept = {
                "prediction": prediction,
                "confidence": confidences[place],
                "probabilities": probabilities[place],
                "interval": intervals[place],
                "action": actions[place],
                "unseen": unseen[place],
                "flags": [],
            }
            yield Logged(
                past.ids[number], self.model.name, float(past.times[number]), champion.version, past.keys[number],
                past.records[number], encode.encode(kept).decode(),
                prediction if isinstance(prediction, str) else repr(prediction), confidences[place], actions[place],
                False, None,
            )  # fmt: skip

    def _let_labels_arrive(self, workspace: Workspace, window: Window) -> None:
        """Labels of rows that were asked about, each at its own time."""
        begin = self.windows[0].start
        rows = self.past.arrived(window.start, window.end, since=begin)
        items = [{"prediction_id": self.past.ids[row], "label": self.past.truth[row]} for row in rows]
        times = self.past.arrives[rows].tolist()
        if items:
            workspace.predictions.add_outcomes(self.model, items, window.end, received=times)

    def _decided(self, workspace: Workspace, window: Window, clock: _Clock) -> dict[str, Any]:
        """What was seen and decided at the end of a window, and what came of it."""
        stands = self.past.model_at(window.end, self.windows[0].start)
        model = self.policy.model_file(stands)
        look, says = self._look(workspace, model, window, clock)
        decision = self._decision(workspace, model, look, window)
        training, refused = None, None
        if decision and window is not self.windows[-1]:
            try:
                training = _training(_train(workspace, stands, decision, window.end, f"window {window.number}", clock))
            except StewardError as problem:
                if problem.retryable:
                    raise
                refused = {"error": problem.name, "what": problem.what}
        return {
            "look": _seen(look) if look else None,
            "decision": {"reason": decision.reason, "trigger": (decision.trigger or {}).get("kind")}
            if decision
            else None,
            "training": training,
            "refused": refused,
            "champion": _champion(workspace, self.model),
            "says": says,
        }

    def _look(
        self, workspace: Workspace, model: ModelFile, window: Window, clock: _Clock
    ) -> tuple[Look | None, list[str]]:
        if self.policy.kind == "every":
            return None, []
        try:
            return pipeline.monitor(workspace, model, at=window.end, on_event=clock.hear), []
        except ClockWentBack:
            raise
        except StewardError as problem:
            if problem.retryable:
                raise
            return None, [f"the look failed: {problem.name}: {problem.what}"]

    def _decision(self, workspace: Workspace, model: ModelFile, look: Look | None, window: Window) -> Decision | None:
        if self.policy.kind != "steward":
            seen = Seen(
                window.number, window.end, look or Look(model.name, window.end, {}), self._trained_before(window)
            )
            reason = self.policy.reason(seen)
            return _decision(model, reason, window.end) if reason else None
        decided = look.records.get("decide_retraining") if look else None
        if isinstance(decided, Decision) and decided.train:
            return decided
        if _comes(model.retrain.schedule, window) and not operations.too_early(workspace, model, at=window.end):
            return _decision(model, f"the schedule {model.retrain.schedule}", window.end, kind="schedule")
        return None

    def _trained_before(self, window: Window) -> int | None:
        """The last window at whose end there was a training."""
        for number in range(window.number - 1, 0, -1):
            path = self.place.of(self.slug) / f"{number}.json"
            if path.exists() and json.loads(path.read_text(encoding="utf-8"))["training"]:
                return number
        return None


def _width(model: ModelFile) -> tuple[int, ...]:
    return (len(model.classes),) if model.classes else ()


def _champion(workspace: Workspace, model: ModelFile) -> dict[str, Any]:
    """Who serves now, and the newest entry that says so."""
    newest: Entry = workspace.ledger.entries(model.name, Promotion.kind, newest_first=True, limit=1)[0]
    return {"version": newest.body["champion"], "act": newest.body.get("act"), "at": newest.at.isoformat()}


def _comes(schedule: str | None, window: Window) -> bool:
    """Whether a schedule comes within a window."""
    if schedule is None:
        return False
    from croniter import croniter

    found: datetime = croniter(schedule, window.start.astimezone(UTC)).get_next(datetime)
    return found <= window.end


def _seen(look: Look) -> dict[str, Any]:
    """What a look found, as a replay keeps it."""
    accuracy, drift = look.records["measure_accuracy"], look.records["detect_drift"]
    decision = look.records["decide_retraining"]
    found: dict[str, Any] = {"alarms": _alarms(look)}
    if isinstance(accuracy, Accuracy):
        found |= {
            "live": accuracy.live.as_json() if accuracy.live else None,
            "estimate": accuracy.estimate.as_json() if accuracy.estimate else None,
            "labelled": accuracy.rows,
            "new_rows": accuracy.new_rows,
            "sealed": accuracy.sealed,
            "rolled_back": bool(accuracy.shadow and accuracy.shadow.rolled_back),
        }
    with suppress(AttributeError):
        found["columns"] = sorted({one.column for one in drift.findings if one.alarm})  # type: ignore[attr-defined]
    if isinstance(decision, Decision):
        found |= {
            "reason": decision.reason,
            "refusals": [one["rule"] for one in decision.refusals],
            "ask_a_person": decision.ask_a_person,
        }
    return found


def _alarms(look: Look) -> list[dict[str, Any]]:
    """What asks for a training because something is worse, by kind and cause."""
    return [
        {"kind": one["kind"], "cause": one["cause"], "reason": one["reason"]}
        for record in look.records.values()
        if not isinstance(record, Decision)
        for one in getattr(record, "triggers", ())
        if one["kind"] in ("data_drift", "concept_drift", "accuracy")
    ]


def raw_answers(place: Place, slug: str, window: int, *, rival: bool = False) -> NDArray[np.float64] | None:
    """What was answered in a window; with `rival`, what the version before would have answered, None if it is the same."""
    path = place.of(slug) / (f"{window}.rival.npy" if rival else f"{window}.npy")
    return np.load(path) if path.exists() else None
