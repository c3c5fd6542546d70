"""What people do besides running the pipeline: ask for a training, look, move a champion by hand, predict once."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from steward import steps
from steward.config import ModelFile
from steward.errors import NoChampion, VersionUnknown
from steward.io.ledger import Entry
from steward.io.registry import Version
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.records import Challenger, Promotion, Reference

NOT_MONITORED = "nothing watches served predictions yet"
DAY = 86_400
FIGURES = ("rows", "metric", "value", "low", "high", "champion", "difference", "overlap")
RECENT = 5
"""How many decisions `status` shows."""


def trigger(
    workspace: Workspace, model: ModelFile, trigger: str, reason: str, *, by: str, at: datetime, run_id: str
) -> Entry:
    """Put on record why a training starts; the same run again answers the entry that is there.

    Parameters
    ----------
    trigger : `manual`, `schedule`, or what monitoring found.
    run_id : the run's identity, the entry's subject.
    """
    asked = {"trigger": trigger, "reason": reason, "by": by}
    return workspace.ledger.append(model.name, "trigger", run_id, asked, at)


def history(
    workspace: Workspace, model: ModelFile, *, kind: str | None = None, limit: int | None = None
) -> list[Entry]:
    """The newest entries of a model's ledger, oldest first."""
    return workspace.ledger.entries(model.name, kind, newest_first=True, limit=limit)[::-1]


def describe(entry: Entry) -> str:
    """What an entry says, in one line for people."""
    body = entry.body
    reasons = _briefly(body.get("reasons", ())) or body.get("why", "")
    match entry.kind:
        case "trigger":
            return f"{body['by']} asked for a training ({body['trigger']}): {body['reason']}"
        case "snapshot":
            return f"snapshot {entry.subject[:12]}: {body['rows']:,} rows accepted"
        case "opening":
            return f"opening {entry.subject}: {body.get('rows', 0):,} sealed rows for challenger {body['digest'][:12]}"
        case "opening_result":
            return (
                f"opening {entry.subject}: {body.get('metric')} {body.get('value', 0):.4f} on {body.get('rows')} rows"
            )
        case "verdict":
            return f"verdict {body.get('verdict')}: {reasons}"
        case "approval":
            return f"{body['decision'].replace('_', ' ')} by {body['by']}: {reasons}"
        case "promotion":
            return f"version {body['version']} {_became(body)}: {reasons}"
        case "prune":
            counts = body["deleted"]
            return f"{counts['predictions']:,} predictions and {counts['outcomes']:,} outcomes older than {body['older_than']} deleted by {body['by']}"
    return f"{entry.kind} {entry.subject}"


def _briefly(reasons: Sequence[str]) -> str:
    """The reason that people ask for first, and how many more there are."""
    more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
    return f"{reasons[0]}{more}" if reasons else ""


def _became(body: Mapping[str, Any]) -> str:
    if "act" in body:
        return f"made champion by {body['by']} ({body['act']})"
    return "became champion" if body["alias"] == "champion" else "did not become champion"


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
        "live_accuracy": {"value": None, "why": NOT_MONITORED},
        "drift": {"value": None, "why": NOT_MONITORED},
        "retrain_schedule": model.retrain.schedule,
        "last_trigger": _last(entries, "trigger"),
        "last_decisions": [_shown(entry) for entry in entries if entry.kind in ("verdict", "approval", "promotion")][
            -RECENT:
        ],
    }


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
    registered = _registration(workspace, model, number)
    load_version(workspace, workspace.registry.version(model.name, number))
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
    """The entry that the pipeline made about a version; one made by hand has an `act`."""
    entries = workspace.ledger.entries(model.name, "promotion")
    made = {entry.body["version"]: entry for entry in entries if "act" not in entry.body}
    if version not in made:
        known = ", ".join(map(str, made)) or "none yet"
        raise VersionUnknown(
            f"{model.name} has no such version",
            got=version,
            allowed=known,
            do=f"`steward history {model.name}` lists them",
        )
    return made[version]


def load_version(workspace: Workspace, version: Version) -> tuple[Challenger, Any]:
    """What a version was trained as, and its fitted pipeline; raises ArtifactDamaged or ArtifactUntrusted."""
    challenger = workspace.load(Challenger, version.challenger)
    return challenger, workspace.artifacts.load_skops(challenger.skops)


def predict(workspace: Workspace, model: ModelFile, record: Mapping[str, Any]) -> dict[str, Any]:
    """The champion's answer to one record, as plain JSON. The contract is the one that the champion was trained with.

    Raises
    ------
    NoChampion : no version was promoted yet.
    RecordInvalid : the record breaks the contract.
    """
    return Model(model, workspace=workspace).predict(record)
