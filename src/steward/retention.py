"""Deletes old predictions and outcomes, but none that anything still needs; on record before it happens."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from steward.config import ModelFile, format_duration
from steward.core import contracts
from steward.errors import SourceUnreadable
from steward.io.predictions import Pruned
from steward.io.workspace import Workspace
from steward.steps import served

ONLY_COPY = "the only copy of a training row: source.outcomes is true, and the source does not have its key"


@dataclass(frozen=True)
class Pruning:
    """What was deleted, or would be, and what stayed although it is as old as was asked for."""

    model: str
    before: datetime
    """What is older than this moment is deleted."""
    deleted: Pruned
    kept: dict[str, int]
    """Predictions that stay, by reason."""
    dry_run: bool

    def as_json(self) -> dict[str, Any]:
        deleted = {"predictions": self.deleted.predictions, "outcomes": self.deleted.outcomes}
        return {
            "model": self.model,
            "before": self.before.isoformat(),
            "deleted": deleted,
            "kept": self.kept,
            "dry_run": self.dry_run,
        }


def prune(
    workspace: Workspace, model: ModelFile, older_than: timedelta, *, by: str, at: datetime, dry_run: bool = False
) -> Pruning:
    """Delete a model's predictions and outcomes of more than an age.

    Those stay that are younger than `label.mature_after` or `monitor.window`, and those that are the only copy of a row that
    the next snapshot is made of. Snapshots and what was opened are files of their own and need no predictions.

    Parameters
    ----------
    at : the moment that ages are counted from; time-zone aware.

    Raises
    ------
    SourceMissing, SourceUnreadable, SourceUnavailable : with `source.outcomes`, nothing is deleted without the source.
    """
    asked = at - older_than
    age, reason = max(
        (older_than, ""),
        (model.label.mature_after, "label.mature_after"),
        (model.monitor.window, "monitor.window"),
    )
    before = at - age
    store = workspace.predictions
    only_copies = _only_copies(workspace, model, before, at)
    deleted = store.prune(model.name, before.timestamp(), only_copies, dry_run=True)
    young = store.count(model.name, before.timestamp(), asked.timestamp()) if before < asked else 0
    kept = {f"younger than {reason}, {format_duration(age)}": young, ONLY_COPY: len(only_copies)}
    kept = {why: count for why, count in kept.items() if count}
    pruning = Pruning(model.name, before.astimezone(UTC), deleted, kept, dry_run)
    if dry_run or not (deleted.predictions or deleted.outcomes):
        return pruning
    body = {**pruning.as_json(), "by": by, "older_than": format_duration(older_than)}
    workspace.ledger.append(model.name, "prune", at.isoformat(), body, at)
    store.prune(model.name, before.timestamp(), only_copies)
    workspace.latencies.prune(model.name, before.timestamp())
    return pruning


def _only_copies(workspace: Workspace, model: ModelFile, before: datetime, at: datetime) -> set[str]:
    """Ids of predictions that are training rows and whose key the source does not have."""
    if not model.source.outcomes or not workspace.predictions.has_outcomes(model.name):
        return set()
    contract = contracts.Contract.of(model, at)
    with workspace.tables.session() as session:
        source = session.source(model.source)
        if lacking := contract.missing(source.columns):
            raise SourceUnreadable(
                "the source lacks columns of the contract",
                got=", ".join(lacking),
                do=f"Run `steward check {model.name}`",
            )
        rows = contracts.flagged(source, contract, session.stage)
        found = served.missing(workspace, session, rows, contract, before)
        return set() if found is None else set(session.arrow(found.select(served.ID))[served.ID].to_pylist())
