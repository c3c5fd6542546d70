"""What people do besides running the pipeline: ask for a training, look, move a champion by hand, predict once."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from steward import inference, steps
from steward.config import ModelFile
from steward.errors import ArtifactDamaged, LedgerConflict, NoChampion, StewardError, VersionUnknown
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.records import Accuracy, Challenger, Drift, Promotion, Reference
from steward.views import states
from steward.views.entries import describe as describe  # noqa: PLC0414 - what people call it by
from steward.views.model import crownings
from steward.views.overview import Row, Sealed, overview, sealed_rows

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
    wanted = model.retrain.continuous
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


def status(workspace: Workspace, model: ModelFile, *, at: datetime) -> dict[str, Any]:
    """How a model stands, as plain JSON. What nothing measures yet is `{"value": null, "why": ...}`.

    Parameters
    ----------
    at : the moment that ages are counted to.
    """
    aliases = workspace.registry.aliases(model.name)
    entries = workspace.ledger.entries(model.name)
    [found] = states.known(workspace, [model], at)
    return {
        "model": model.name,
        "description": model.description,
        "task": model.task,
        **_state(states.standing(found)),
        **{
            alias: _standing(workspace, model, aliases.get(alias), entries, at)
            for alias in ("champion", "challenger", "previous")
        },
        "last_verdict": _last_verdict(entries),
        "sealed_rows": _counted(sealed_rows(found)),
        **_watched(workspace, found),
        "next_look": _next_look(model, at),
        "retrain_schedule": model.retrain.schedule,
        "last_trigger": _last(entries, "trigger"),
        "last_decisions": [_shown(entry) for entry in entries if entry.kind in ("verdict", "approval", "promotion")][
            -RECENT:
        ],
    }


def standings(workspace: Workspace, models: Sequence[ModelFile], *, at: datetime) -> list[dict[str, Any]]:
    """How each model stands, as plain JSON, by how much attention it needs: the lines of the overview."""
    return [_standing_of(row) for row in overview(workspace, models, at).rows]


def _standing_of(row: Row) -> dict[str, Any]:
    since = row.champion_since.isoformat() if row.champion_since else None
    live = row.live.as_json() if row.live else {"value": None}
    return {
        "model": row.name,
        "description": row.description,
        **_state(row.standing),
        "champion": None if row.champion is None else {"version": row.champion, "champion_since": since},
        "challenger": row.challenger,
        "live_accuracy": {**live, "why": row.live_why, "metric": row.metric},
        "predictions_per_day": {"value": row.per_day, "why": row.per_day_why},
        "sealed_rows": _counted(row.sealed),
        "last_decision": row.last_decision,
        "next_look": row.next_look.isoformat() if row.next_look else None,
    }


def _counted(sealed: Sealed) -> dict[str, Any]:
    return {"value": sealed.value, "why": sealed.why}


def _state(standing: states.Standing) -> dict[str, Any]:
    return {"state": standing.state, "says": standing.says, "warnings": list(standing.warnings)}


def _watched(workspace: Workspace, found: states.Known) -> dict[str, Any]:
    """What the newest look found, if it led to a decision and was at the version that serves."""
    newest = found.look
    if newest is None:
        unknown = {"value": None, "why": NOT_MONITORED}
        return {"live_accuracy": unknown, "estimated_accuracy": unknown, "drift": unknown, "last_decision": None}
    parts = {kind: Reference.model_validate(part) for kind, part in newest.body["parts"].items()}
    accuracy, drift = _part(workspace, Accuracy, parts, found.champion), _part(workspace, Drift, parts, found.champion)
    kept = ("train", "reason", "cause", "ask_a_person", "refusals")
    return {
        "live_accuracy": _live(accuracy),
        "estimated_accuracy": _estimate(accuracy),
        "drift": _drift(drift),
        "last_decision": {**_shown(newest), **{name: newest.body[name] for name in kept}},
    }


Seen = TypeVar("Seen", Accuracy, Drift)


def _part(
    workspace: Workspace, record: type[Seen], parts: Mapping[str, Reference], champion: int | None
) -> Seen | None:
    """A record that is gone, or of another version, is as if it had not been made: a status is always given."""
    with suppress(ArtifactDamaged):
        found = workspace.load(record, parts[record.kind]) if record.kind in parts else None
        return found if found and found.version == champion else None
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
    since = max((entry.at for entry in crownings(entries, number)), default=None)
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
