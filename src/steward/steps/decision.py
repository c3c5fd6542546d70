"""The decision step: evidence → train now, or wait; on record, and one training per cause whoever decides at the same time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any, cast

from steward.config import ModelFile
from steward.core import retraining
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
from steward.steps.roles import needed_rows

PARTS: dict[str, type[Record]] = {
    record.kind: record for record in (Observation, Quality, Drift, Accuracy, NewFeatures)
}
MEASURED = ("accuracy", "concept_drift")
"""Triggers whose loss was measured on labels; what is only expected does not plan a test."""
TO_BEGIN = timedelta(minutes=15)
"""A training that was decided and has not begun by then is lost; the next look starts it again."""
TO_END = timedelta(hours=3)
"""A training without a verdict is thought to run so long."""
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
    found = [workspace.load(PARTS[part.kind], part) for part in parts]
    asked = [*(read_trigger(one) for record in found for one in getattr(record, "triggers", ())), *events]
    subject = _subject(workspace, found, at)
    named = {part.kind: part.as_json() for part in parts}
    sealed = next((record.sealed for record in found if isinstance(record, Accuracy)), None)
    while True:
        entry = workspace.ledger.find(model.name, Decision.kind, subject)
        entry = entry or _decided(workspace, model, subject, asked, named, sealed, at)
        if entry is not None:
            return _remembered(workspace, model, entry)


def read_trigger(document: Mapping[str, Any]) -> Trigger:
    """A trigger from its `as_json`."""
    return Trigger(**{**document, "at": datetime.fromisoformat(document["at"])})


def _remembered(workspace: Workspace, model: ModelFile, entry: Entry) -> Reference:
    made = {**entry.body, "model": model.name, "subject": entry.subject, "at": entry.at}
    return workspace.remember(Decision, [entry.digest], lambda: Decision.model_validate(made))


def _subject(workspace: Workspace, found: Sequence[Record], at: datetime) -> str:
    """The end of the look that the parts are of."""
    for record in found:
        if isinstance(record, Observation):
            return record.end.isoformat()
        if isinstance(of := getattr(record, "observation", None), Reference):
            return workspace.load(Observation, of).end.isoformat()
    return at.isoformat()


def _decided(
    workspace: Workspace,
    model: ModelFile,
    subject: str,
    asked: Sequence[Trigger],
    parts: Mapping[str, Any],
    sealed: int | None,
    at: datetime,
) -> Entry | None:
    """The entry of a new decision; None if somebody decided, began or ended something in between."""
    entries = [entry for entry in workspace.ledger.entries(model.name) if entry.kind in READ]
    begun = trainings(entries)
    lost = _lost(entries, begun, at)
    if lost:
        body = {**lost, "parts": dict(parts)}
    else:
        situation = _situation(workspace, model, entries, begun, asked, sealed, at)
        body = _body(retraining.decide(model.retrain, asked, situation, at=at), asked, parts, subject)
    news: list[tuple[str, str, Any]] = [(Decision.kind, subject, body)]
    if body["train"] and not lost:
        news.append(("trigger", body["cause"], _trigger_body(body, subject)))
    read = entries[-1].sequence if entries else 0
    try:
        first, *_ = workspace.ledger.append_all(model.name, news, at, guard=(READ, read))
    except LedgerConflict:
        return None
    return first


def _cause(trigger: Trigger, subject: str) -> str:
    """What happened, once; the schedule comes again and again."""
    return f"{trigger.cause} {subject}" if trigger.kind == "schedule" else trigger.cause


def _body(
    decision: retraining.Decision, asked: Sequence[Trigger], parts: Mapping[str, Any], subject: str
) -> dict[str, Any]:
    trigger = decision.trigger
    measured = trigger is not None and trigger.kind in MEASURED and trigger.loss is not None
    return {
        **decision.as_json(),
        "cause": _cause(trigger, subject) if trigger else None,
        "detect": min(0.99, trigger.loss) if trigger and trigger.loss and measured else None,
        "parts": dict(parts),
        "triggers": [one.as_json() for one in asked],
        "says": [decision.reason[0].upper() + decision.reason[1:] + "."],
    }


def _trigger_body(body: Mapping[str, Any], subject: str) -> dict[str, Any]:
    """What `operations.describe` and the situation of later decisions read."""
    trigger = body["trigger"]
    return {
        "trigger": trigger["kind"],
        "reason": trigger["reason"],
        "by": "monitor",
        "cause": body["cause"],
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
    sealed: int | None,
    at: datetime,
) -> Situation:
    missing = _missing_rows(workspace, model, sealed)
    return Situation(
        trainings=tuple(begun.values()),
        missing_rows=missing(None),
        missing_for={one.cause: missing(one.loss) for one in asked if one.kind in MEASURED},
        running=_running(entries, begun, at),
    )


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
    which names the cause; one that a person or the schedule asked for has the latter, whose run is its cause. A verdict
    belongs to the training that began last.
    """
    found: dict[str, Training] = {}
    last = ""
    for entry in entries:
        if entry.kind == "trigger":
            last = entry.body.get("cause") or entry.subject
            kind = entry.body["trigger"]
            known = kind if kind in retraining.STRENGTH else "event"
            found.setdefault(last, Training(entry.at, cast(retraining.Kind, known), last))
        elif entry.kind == "verdict" and last:
            found[last] = replace(found[last], verdict=entry.body["verdict"])
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
    if started or at - newest.at < TO_BEGIN:
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
    return at - mine[-1].at < (TO_BEGIN if by_monitor else TO_END)
