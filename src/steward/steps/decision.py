"""The decision step: evidence → train now, or wait; on record, and one training per cause whoever decides at the same time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import ceil
from typing import Any, Literal, cast

from steward.config import ModelFile
from steward.core import retraining, verification
from steward.core.retraining import Situation, Training, Trigger
from steward.errors import LedgerConflict
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.records import (
    Accuracy,
    Decision,
    Drift,
    NewFeatures,
    Observation,
    Quality,
    Record,
    Reference,
)
from steward.steps.figures import figures
from steward.steps.roles import needed_rows

PARTS: dict[str, type[Record]] = {
    record.kind: record for record in (Observation, Quality, Drift, Accuracy, NewFeatures)
}
MEASURED = ("accuracy", "concept_drift")
"""Triggers whose loss was measured on labels; what is only expected does not plan a test."""
READ = ("trigger", "decision", "training", "failure", "verdict")
"""Kinds of entries that a decision is based upon."""


def decide_retraining(
    workspace: Workspace, model: ModelFile, parts: Sequence[Reference], *, at: datetime, events: Sequence[Trigger] = ()
) -> Reference:
    """Collect what asks for a training, and decide. The same look decides once; of two at once the second finds the first.

    Entry `decision` and, to train, entry `trigger` with the cause as its subject are written together or not at all. Whoever
    trains says so with `operations.trigger(..., cause=...)`; if nobody does, the next look starts that training again.

    Parameters
    ----------
    parts : what a look found: an `Observation` or records of one, all of the same.
    events : triggers from outside.

    Returns
    -------
    Reference to a `Decision`.
    """
    parts = _with_look(workspace, parts)
    found = [workspace.load(PARTS[part.kind], part) for part in parts]
    asked = [*(read_trigger(one) for record in found for one in getattr(record, "triggers", ())), *events]
    subject = next((record.end for record in found if isinstance(record, Observation)), at).isoformat()
    accuracy = next((record for record in found if isinstance(record, Accuracy)), None)
    needed = {"needed": needed_rows(workspace, model, {}, model.verify.detect)} if accuracy else {}
    seen = {"parts": {part.kind: part.as_json() for part in parts}, "figures": figures(found) | needed}
    while True:
        entry = workspace.ledger.find(model.name, Decision.kind, subject)
        entry = entry or _decided(workspace, model, subject, asked, seen, accuracy, at)
        if entry is not None:
            return _remembered(workspace, model, entry)


def read_trigger(document: Mapping[str, Any]) -> Trigger:
    """A trigger from its `as_json`."""
    return Trigger(**{**document, "at": datetime.fromisoformat(document["at"])})


def _remembered(workspace: Workspace, model: ModelFile, entry: Entry) -> Reference:
    made = {**entry.body, "model": model.name, "subject": entry.subject, "at": entry.at}
    return workspace.remember(Decision, [entry.digest], lambda: Decision.model_validate(made))


def _with_look(workspace: Workspace, parts: Sequence[Reference]) -> list[Reference]:
    """The parts, and before them the look that they are of."""
    if not parts or any(part.kind == Observation.kind for part in parts):
        return list(parts)
    look: Reference = getattr(workspace.load(PARTS[parts[0].kind], parts[0]), Observation.kind)
    return [look, *parts]


def _decided(
    workspace: Workspace,
    model: ModelFile,
    subject: str,
    asked: Sequence[Trigger],
    seen: Mapping[str, Any],
    accuracy: Accuracy | None,
    at: datetime,
) -> Entry | None:
    """The entry of a new decision; None if somebody decided, began or ended something in between.

    Parameters
    ----------
    seen : `parts` and `figures` of the decision.
    """
    entries = [entry for entry in workspace.ledger.entries(model.name) if entry.kind in READ]
    begun = trainings(entries)
    lost = _lost(entries, begun, at)
    if lost:
        body = {**lost, **seen}
    else:
        situation = _situation(workspace, model, entries, begun, asked, accuracy, at)
        body = _body(retraining.decide(model.retrain, asked, situation, at=at), asked, seen, subject, begun)
    news: list[tuple[str, str, Any]] = [(Decision.kind, subject, body)]
    if body["train"] and not lost:
        news.append(("trigger", body["cause"], _trigger_body(body, subject)))
    read = entries[-1].sequence if entries else 0
    try:
        first, *_ = workspace.ledger.append_all(model.name, news, at, guard=(READ, read))
    except LedgerConflict:
        return None
    return first


def _cause(trigger: Trigger, subject: str, begun: Mapping[str, Training]) -> str:
    """The identity of a training: what happened; the schedule comes again and again, and what was in vain may be tried again."""
    if trigger.kind == "schedule":
        return f"{trigger.cause} {subject}"
    attempts = sum(one.cause == trigger.cause for one in begun.values())
    return f"{trigger.cause}, attempt {attempts + 1}" if attempts else trigger.cause


def _body(
    decision: retraining.Decision,
    asked: Sequence[Trigger],
    seen: Mapping[str, Any],
    subject: str,
    begun: Mapping[str, Training],
) -> dict[str, Any]:
    trigger = decision.trigger
    return {
        **decision.as_json(),
        "cause": _cause(trigger, subject, begun) if trigger else None,
        "detect": _detect(trigger) if trigger else None,
        **seen,
        "triggers": [one.as_json() for one in asked],
        "says": [decision.reason[0].upper() + decision.reason[1:] + "."],
    }


def _detect(trigger: Trigger) -> float | None:
    """The difference that the training's sealed rows have to find; None where that is `verify.detect`."""
    if trigger.kind == "new_rows":
        return retraining.HARMLESS
    return min(0.99, trigger.loss) if trigger.loss and trigger.kind in MEASURED else None


def _trigger_body(body: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """What `operations.describe` and the situation of later decisions read."""
    trigger = body["trigger"]
    return {
        "trigger": trigger["kind"],
        "reason": trigger["reason"],
        "by": "monitor",
        "cause": body["cause"],
        "asked": trigger["cause"],
        "decision": subject,
        "detect": body["detect"],
        "evidence": trigger["evidence"],
    }


def _situation(
    workspace: Workspace,
    model: ModelFile,
    entries: Sequence[Entry],
    begun: Mapping[str, Training],
    asked: Sequence[Trigger],
    accuracy: Accuracy | None,
    at: datetime,
) -> Situation:
    missing = _missing_rows(workspace, model, accuracy.sealed if accuracy else None)
    return Situation(
        trainings=tuple(begun.values()),
        missing_rows=missing(None),
        missing_for={one.cause: missing(detect) for one in asked if (detect := _detect(one))},
        running=_running(entries, begun, at),
        saved=retraining.saved(_happened(entries, begun)),
        helps=_helps(model, accuracy),
    )


def _helps(model: ModelFile, accuracy: Accuracy | None) -> bool | None:
    """Whether looks are sure that newer rows teach a better model; None where nobody has asked."""
    question = accuracy and accuracy.question
    return verification.of_looks(question.skill, model.verify.confidence).low > 0 if question else None


def _happened(entries: Sequence[Entry], begun: Mapping[str, Training]) -> Iterator[Literal["look", "training"]]:
    """Looks and trainings in their order, the look that decides now at the end."""
    looks: list[tuple[datetime, Literal["look", "training"]]] = [
        (entry.at, "look") for entry in entries if entry.kind == Decision.kind
    ]
    yield from (what for _, what in sorted([*looks, *((one.at, "training") for one in begun.values())]))
    yield "look"


def _missing_rows(workspace: Workspace, model: ModelFile, sealed: int | None) -> Callable[[float | None], int]:
    """How many labelled rows must still arrive before a difference of so much can be found."""

    def missing(loss: float | None) -> int:
        if sealed is None:
            return 0
        needed = needed_rows(workspace, model, {}, max(model.verify.detect, min(0.99, loss or 0.0)))
        return ceil(max(0, needed - sealed) / model.split.test)

    return missing


def trainings(entries: Sequence[Entry]) -> dict[str, Training]:
    """What was started so far, by cause, in order of time.

    A training that the monitor asked for has an entry `trigger` by the monitor, whose subject is its cause, and one by its run,
    which names the cause; one that a person or the schedule asked for has the latter, whose run is its cause. Later attempts
    have causes of their own and are trainings for the same one. A verdict belongs to the training that began last, a failure
    to that of its run.
    """
    found: dict[str, Training] = {}
    runs: dict[str, str] = {}
    last = ""
    for entry in entries:
        if entry.kind == "trigger":
            last = entry.body.get("cause") or entry.subject
            runs[entry.subject] = last
            kind = entry.body["trigger"]
            known = kind if kind in retraining.STRENGTH else "event"
            found.setdefault(last, Training(entry.at, cast(retraining.Kind, known), entry.body.get("asked", last)))
        elif entry.kind == "verdict" and last:
            found[last] = replace(found[last], verdict=entry.body["verdict"])
        elif entry.kind == "failure" and entry.subject in runs:
            failed = runs[entry.subject]
            found[failed] = replace(found[failed], failure=entry.body["error"])
    return found


def _begun_causes(entries: Sequence[Entry]) -> set[str]:
    return {entry.subject for entry in entries if entry.kind == "training"}


def _lost(entries: Sequence[Entry], begun: Mapping[str, Training], at: datetime) -> dict[str, Any] | None:
    """The newest decision to train if its training has not begun, although it had the time; without its parts."""
    decided = [entry for entry in entries if entry.kind == Decision.kind and entry.body["train"]]
    if not decided:
        return None
    newest = decided[-1]
    cause = newest.body["cause"]
    started = cause in _begun_causes(entries) or list(begun)[-1] != cause
    if started or at - newest.at < retraining.TO_BEGIN:
        return None
    again = f"{newest.body['trigger']['reason']} (decided on {newest.at:%Y-%m-%d %H:%M}, and not begun since)"
    says = [f"Train now: {again}."]
    return {**newest.body, "reason": f"train now: {again}", "refusals": [], "says": says}


def _running(entries: Sequence[Entry], begun: Mapping[str, Training], at: datetime) -> bool:
    """Whether the last training may still be running: it has no verdict, has not failed, and began not long ago."""
    if not begun:
        return False
    cause, last = list(begun.items())[-1]
    mine = [entry for entry in entries if entry.kind == "trigger" and cause in (entry.subject, entry.body.get("cause"))]
    failed = {entry.subject for entry in entries if entry.kind == "failure"}
    if last.verdict is not None or any(entry.subject in failed for entry in mine):
        return False
    by_monitor = "decision" in mine[0].body and cause not in _begun_causes(entries)
    return at - mine[-1].at < (retraining.TO_BEGIN if by_monitor else retraining.TO_END)
