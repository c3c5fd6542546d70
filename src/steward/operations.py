"""What people do besides running the pipeline: ask for a training, look, move a champion by hand, predict once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from steward import inference, steps
from steward.config import ModelFile
from steward.errors import ArtifactDamaged, LedgerConflict, NoChampion, StewardError, VersionUnknown
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.records import Accuracy, Challenger, Decision, Drift, Promotion, Record, Reference

NOT_MONITORED = "nobody has looked at it yet; `steward monitor` does"
DAY = 86_400
FIGURES = ("rows", "metric", "value", "low", "high", "champion", "difference", "overlap")
RECENT = 5
"""How many decisions `status` shows."""


def trigger(
    workspace: Workspace,
    model: ModelFile,
    trigger: str,
    reason: str,
    *,
    by: str,
    at: datetime,
    run_id: str,
    cause: str | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Entry:
    """Put on record why a training starts; the same run again answers the entry that is there.

    Parameters
    ----------
    trigger : `manual`, `schedule`, or what monitoring found.
    run_id : the run's identity, the entry's subject.
    cause : `Decision.cause` of the decision that this training follows.
    evidence : figures behind the reason, as plain JSON.

    Raises
    ------
    LedgerConflict : another run trains for this cause already.
    """
    asked = {"trigger": trigger, "reason": reason, "by": by, **({"evidence": dict(evidence)} if evidence else {})}
    if cause is None:
        return workspace.ledger.append(model.name, "trigger", run_id, asked, at)
    begins = ("training", cause, {"run_id": run_id})
    started = ("trigger", run_id, {**asked, "cause": cause})
    return workspace.ledger.append_all(model.name, [begins, started], at, guard=((), 0))[1]


def too_early(workspace: Workspace, model: ModelFile, *, at: datetime) -> str | None:
    """Why a training that only the schedule asks for is not worth it now: `retrain.new_rows` says how many rows are."""
    wanted = model.retrain.new_rows
    found = steps.count_new_rows(workspace, model, at=at) if wanted else None
    if wanted is None or found is None or found >= wanted:
        return None
    return f"{found:,} labelled rows since the last training; retrain.new_rows asks for {wanted:,}"


def started_for(workspace: Workspace, model: ModelFile, cause: str, *, but: str) -> str | None:
    """The run, another one than `but`, that trains or has trained for this cause."""
    entry = workspace.ledger.find(model.name, "training", cause)
    return None if entry is None or entry.body["run_id"] == but else str(entry.body["run_id"])


def failed(workspace: Workspace, model: ModelFile, run_id: str, problem: StewardError, *, at: datetime) -> None:
    """Put on record that a training ended without a verdict; what was said first stays."""
    with suppress(LedgerConflict):
        workspace.ledger.append(model.name, "failure", run_id, {"error": problem.name, "what": problem.what}, at)


def history(
    workspace: Workspace, model: ModelFile, *, kind: str | None = None, limit: int | None = None
) -> list[Entry]:
    """The newest entries of a model's ledger, oldest first."""
    return workspace.ledger.entries(model.name, kind, newest_first=True, limit=limit)[::-1]


def describe(entry: Entry) -> str:
    """What an entry says, in one line for people."""
    told = SAID.get(entry.kind)
    return told(entry.subject, entry.body) if told else f"{entry.kind} {entry.subject}"


def _reasons(body: Mapping[str, Any]) -> str:
    return _briefly(body.get("reasons", ())) or str(body.get("why", ""))


def _briefly(reasons: Sequence[str]) -> str:
    """The reason that people ask for first, and how many more there are."""
    more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
    return f"{reasons[0]}{more}" if reasons else ""


def _became(body: Mapping[str, Any]) -> str:
    if "act" in body:
        return f"made champion by {body['by']} ({body['act']})"
    return "became champion" if body["alias"] == "champion" else "did not become champion"


def _pruned(body: Mapping[str, Any]) -> str:
    counts = body["deleted"]
    what = f"{counts['predictions']:,} predictions and {counts['outcomes']:,} outcomes"
    return f"{what} older than {body['older_than']} deleted by {body['by']}"


def _observed(body: Mapping[str, Any]) -> str:
    seen = "nothing came in" if body["origin"] == "nothing" else f"{body['rows']:,} rows ({body['origin']})"
    return f"looked at version {body['version']} up to {body['end'][:16]}: {seen}"


SAID: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "trigger": lambda _, body: f"{body['by']} asked for a training ({body['trigger']}): {body['reason']}",
    "training": lambda cause, body: f"training for {cause} began: run {body['run_id']}",
    "failure": lambda run, body: f"run {run} ended without a verdict: {body['what']} ({body['error']})",
    "snapshot": lambda fingerprint, body: f"snapshot {fingerprint[:12]}: {body['rows']:,} rows accepted",
    "boundaries": lambda number, body: (
        f"round {number}: rows from {body['validation'][:16]} to {body['test'][:16]} are sealed"
    ),
    "opening": lambda number, body: (
        f"opening {number}: {body.get('rows', 0):,} sealed rows for challenger {body['digest'][:12]}"
    ),
    "opening_result": lambda number, body: (
        f"opening {number}: {body.get('metric')} {body.get('value', 0):.4f} on {body.get('rows')} rows"
    ),
    "verdict": lambda _, body: f"verdict {body.get('verdict')}: {_reasons(body)}",
    "approval": lambda _, body: f"{body['decision'].replace('_', ' ')} by {body['by']}: {_reasons(body)}",
    "promotion": lambda _, body: f"version {body['version']} {_became(body)}: {_reasons(body)}",
    "prune": lambda _, body: _pruned(body),
    "observation": lambda _, body: _observed(body),
    "drift": lambda _, body: f"drift in {', '.join(body['alarms'])}: {_briefly(body['says'])}",
    "decision": lambda _, body: f"{body['reason']}{'; a person is asked' if body['ask_a_person'] else ''}",
    "notification": lambda _, body: f"told: {body['title']}",
}
"""What an entry of a kind says: takes its subject and its body."""


def status(workspace: Workspace, model: ModelFile, *, at: datetime) -> dict[str, Any]:
    """How a model stands, as plain JSON. What nothing measures yet is `{"value": null, "why": ...}`.

    Parameters
    ----------
    at : the moment that ages are counted to.
    """
    aliases = workspace.registry.aliases(model.name)
    entries = workspace.ledger.entries(model.name)
    return {
        "model": model.name,
        "description": model.description,
        "task": model.task,
        **{
            alias: _standing(workspace, model, aliases.get(alias), entries, at)
            for alias in ("champion", "challenger", "previous")
        },
        "last_verdict": _last_verdict(entries),
        "sealed_rows": _sealed_rows(entries),
        **_watched(workspace, entries),
        "next_look": _next_look(model, at),
        "retrain_schedule": model.retrain.schedule,
        "last_trigger": _last(entries, "trigger"),
        "last_decisions": [_shown(entry) for entry in entries if entry.kind in ("verdict", "approval", "promotion")][
            -RECENT:
        ],
    }


def _watched(workspace: Workspace, entries: list[Entry]) -> dict[str, Any]:
    """What the newest look that led to a decision found."""
    decided = [entry for entry in entries if entry.kind == Decision.kind]
    if not decided:
        unknown = {"value": None, "why": NOT_MONITORED}
        return {"live_accuracy": unknown, "estimated_accuracy": unknown, "drift": unknown, "last_decision": None}
    newest = decided[-1]
    parts = {kind: Reference.model_validate(part) for kind, part in newest.body["parts"].items()}
    accuracy = _part(workspace, Accuracy, parts)
    drift = _part(workspace, Drift, parts)
    kept = ("train", "reason", "cause", "ask_a_person", "refusals")
    return {
        "live_accuracy": _live(accuracy),
        "estimated_accuracy": _estimate(accuracy),
        "drift": _drift(drift),
        "last_decision": {**_shown(newest), **{name: newest.body[name] for name in kept}},
    }


R = TypeVar("R", bound=Record)


def _part(workspace: Workspace, record: type[R], parts: Mapping[str, Reference]) -> R | None:
    """A record that is gone is as if it had not been made: a status is always given."""
    with suppress(ArtifactDamaged):
        return workspace.load(record, parts[record.kind]) if record.kind in parts else None
    return None


def _live(found: Accuracy | None) -> dict[str, Any]:
    if found is None or found.live is None:
        return {"value": None, "why": "no labelled row whose time has come" if found else NOT_MONITORED}
    begins = found.fallen_since or found.alarm_since
    state = f"worse since {begins:%Y-%m-%d}" if begins else "as verified"
    window = {"start": found.start and found.start.isoformat(), "end": found.end and found.end.isoformat()}
    why = f"{found.metric} on {found.rows:,} labelled rows of version {found.version}: {state}"
    return {**found.live.as_json(), "why": why, "metric": found.metric, "rows": found.rows, **window}


def _estimate(found: Accuracy | None) -> dict[str, Any]:
    if found is None or found.estimate is None:
        return {"value": None, "why": "nothing came in to estimate it from" if found else NOT_MONITORED}
    why = f"{found.estimate_metric}, estimated from the champion's own answers before labels arrive"
    return {**found.estimate.as_json(), "why": why, "metric": found.estimate_metric}


def _drift(found: Drift | None) -> dict[str, Any]:
    if found is None:
        return {"value": None, "why": NOT_MONITORED}
    since = {name: moment.isoformat() for name, moment in found.since.items()}
    why = "; ".join(found.says) or "nothing moved"
    return {"value": len(since), "why": why, "columns": since}


def _next_look(model: ModelFile, at: datetime) -> dict[str, Any]:
    moment = model.monitor.next_look(at)
    if moment is None:
        return {"value": None, "why": "no monitor.schedule: `steward monitor` looks when it is told to"}
    return {"value": moment.isoformat(), "why": f"monitor.schedule {model.monitor.schedule}"}


def _standing(
    workspace: Workspace, model: ModelFile, number: int | None, entries: list[Entry], at: datetime
) -> dict[str, Any] | None:
    """A version behind an alias, and since when it has been there."""
    if number is None:
        return None
    version = workspace.registry.version(model.name, number)
    crowned = [
        entry.at
        for entry in entries
        if entry.kind == "promotion" and (entry.body["version"], entry.body["alias"]) == (number, "champion")
    ]
    since = max(crowned) if crowned else None
    return {
        "version": number,
        "registered_at": version.at.isoformat(),
        "age_days": round((at - version.at).total_seconds() / DAY, 2),
        "champion_since": since.isoformat() if since else None,
        "verdict": version.verdict,
        "reason": version.reason,
    }


def _shown(entry: Entry) -> dict[str, Any]:
    return {"sequence": entry.sequence, "at": entry.at.isoformat(), "kind": entry.kind, "says": describe(entry)}


def _last(entries: list[Entry], kind: str) -> dict[str, Any] | None:
    found = [entry for entry in entries if entry.kind == kind]
    return {**_shown(found[-1]), **found[-1].body} if found else None


def _last_verdict(entries: list[Entry]) -> dict[str, Any] | None:
    """The newest verdict with the figures of its opening."""
    found = _last(entries, "verdict")
    if found is None:
        return None
    kept = ("sequence", "at", "says", "verdict", "reasons", "opening")
    return {**{name: found[name] for name in kept}, "test": {name: found["test"][name] for name in FIGURES}}


def _sealed_rows(entries: list[Entry]) -> dict[str, Any]:
    """Rows of the newest snapshot that no model has been scored on, where that is known without counting them."""
    snapshots = [entry for entry in entries if entry.kind == "snapshot"]
    openings = [entry for entry in entries if entry.kind == "opening"]
    if not snapshots:
        return {"value": None, "why": "no snapshot was taken yet; `steward train` takes one"}
    if not openings or openings[-1].sequence < snapshots[-1].sequence:
        return {
            "value": None,
            "why": "the newest snapshot was not opened; `steward train --dry-run` counts its sealed rows",
        }
    return {"value": 0, "why": f"opening {openings[-1].subject} used all of them; new labelled rows bring new ones"}


def promote_by_hand(
    workspace: Workspace, model: ModelFile, version: int, *, why: str, by: str, at: datetime
) -> dict[str, Any]:
    """Make a version the champion because a person says so. The reason goes on record before the alias moves.

    Raises
    ------
    VersionUnknown : the registry has no such version.
    ArtifactDamaged, ArtifactUntrusted : it could not answer.
    """
    return _enthrone(workspace, model, version, act="promote", why=why, by=by, at=at)


def rollback(
    workspace: Workspace, model: ModelFile, version: int | None = None, *, why: str, by: str, at: datetime
) -> dict[str, Any]:
    """Go back to a version, the previous champion unless one is named.

    Raises
    ------
    VersionUnknown : there is no previous champion, or no such version.
    """
    aliases = workspace.registry.aliases(model.name)
    target = version if version is not None else aliases.get("previous")
    if target is None or (version is None and target == aliases.get("champion")):
        known = ", ".join(str(found.number) for found in workspace.registry.versions(model.name)) or "none yet"
        raise VersionUnknown(
            f"{model.name} has no previous champion", allowed=known, do="Name the version to go back to"
        )
    return _enthrone(workspace, model, target, act="rollback", why=why, by=by, at=at)


def _enthrone(
    workspace: Workspace, model: ModelFile, number: int, *, act: str, why: str, by: str, at: datetime
) -> dict[str, Any]:
    registered, made = _registration(workspace, model, number), _trained_as(workspace, model, number)
    workspace.artifacts.load_skops(made.skops)
    inference.Predictor.load(workspace, made)
    entry = steps.enthrone(workspace, registered, act=act, why=why, by=by, at=at)
    body = entry.body
    shown = {name: body[name] for name in ("model", "act", "version", "champion", "previous", "by")}
    return {**shown, "why": why, "at": entry.at.isoformat(), "sequence": entry.sequence}


def promotion_of(workspace: Workspace, model: ModelFile, version: int | None = None) -> Reference:
    """What the pipeline decided about a version when it was registered; the champion, or else the newest, unless named.

    Raises
    ------
    VersionUnknown, NoChampion
    """
    if version is None:
        champion = workspace.registry.aliases(model.name).get("champion")
        version = champion or next((found.number for found in workspace.registry.versions(model.name)), None)
    if version is None:
        raise NoChampion(f"{model.name} has no version yet", do=f"`steward train {model.name}` trains one")
    decided = _registration(workspace, model, version)
    subject = _entry_of(workspace, model, version).subject
    inputs = [decided.verdict.digest, None if subject == decided.verdict.digest else subject]
    return workspace.remember(Promotion, inputs, lambda: decided)


def _registration(workspace: Workspace, model: ModelFile, version: int) -> Promotion:
    return Promotion.model_validate(_entry_of(workspace, model, version).body)


def _entry_of(workspace: Workspace, model: ModelFile, version: int) -> Entry:
    return inference.registration(workspace.ledger.entries(model.name, Promotion.kind), model.name, version)


def _trained_as(workspace: Workspace, model: ModelFile, version: int) -> Challenger:
    return workspace.load(Challenger, workspace.registry.version(model.name, version).challenger)


def predict(workspace: Workspace, model: ModelFile, record: Mapping[str, Any]) -> dict[str, Any]:
    """The champion's answer to one record, as plain JSON. The contract is the one that the champion was trained with.

    Raises
    ------
    NoChampion : no version was promoted yet.
    RecordInvalid : the record breaks the contract.
    """
    return Model(model, workspace=workspace).predict(record)
