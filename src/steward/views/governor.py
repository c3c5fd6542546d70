"""What the governor of retrainings has seen, what it waits for, and how much it may still do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from steward.core.retraining import UNCONDITIONAL, WEEK
from steward.io.ledger import Entry
from steward.views.entries import describe
from steward.views.overview import sealed_rows
from steward.views.states import Known


@dataclass(frozen=True)
class Asked:
    """A trigger of the newest look, and why it starts nothing."""

    kind: str
    reason: str
    since: datetime | None
    loss: float | None
    """How much of the metric it is thought to cost."""
    rule: str | None
    """What holds it back; None where a training was started for it."""
    why: str | None
    until: datetime | None


@dataclass(frozen=True)
class Governor:
    """The governor at a moment.

    Attributes
    ----------
    says : the newest decision. `None` before the first look.
    cooldown_until : None if it is over.
    used, allowed : trainings that triggers have asked for within seven days.
    breaker : so many challengers were rejected in a row that a person has to look.
    sealed : rows that a verdict can be based upon, as counted at the newest look. `needed` : as many as one needs.
    missing : labelled rows that must still arrive before a verdict is possible; None if unknown.
    new_rows : labelled rows since the last training, `new_rows_wanted` of which are a reason to train.
    """

    says: str | None
    decided_at: datetime | None
    train: bool
    asked: tuple[Asked, ...]
    cooldown: timedelta
    cooldown_until: datetime | None
    used: int
    allowed: int
    breaker: bool
    sealed: int | None
    needed: int | None
    missing: int | None
    new_rows: int | None
    new_rows_wanted: int | None
    running_since: datetime | None
    last_training: datetime | None
    last_training_says: str | None
    schedule: str | None
    next_scheduled: datetime | None
    next_look: datetime | None


def governor(found: Known, entries: Sequence[Entry]) -> Governor:
    """The governor now.

    Parameters
    ----------
    entries : of the model; those of kind `trigger` and `verdict` are read.
    """
    model, at, look = found.model, found.at, found.look
    policy, figures = model.retrain, found.seen
    begun = [entry for entry in entries if entry.kind == "trigger" and entry.at <= at]
    asked = _asked_for(begun)
    free = asked[-1] + policy.cooldown if asked else at
    sealed, needed = sealed_rows(found).value, figures.get("needed")
    plan = (sealed, needed) if sealed is not None and needed else None
    last = begun[-1] if begun else None
    snapshot = found.newest.get("snapshot")
    return Governor(
        says=look.body["says"][0] if look else None,
        decided_at=look.at if look else None,
        train=bool(look and look.body["train"]),
        asked=_asked(look.body) if look else (),
        cooldown=policy.cooldown,
        cooldown_until=free if free > at else None,
        used=sum(at - moment < WEEK for moment in asked),
        allowed=policy.max_per_week,
        breaker=bool(look and look.body["ask_a_person"]),
        sealed=sealed,
        needed=needed,
        missing=ceil(max(0, plan[1] - plan[0]) / model.split.test) if plan else None,
        new_rows=figures.get("new_rows"),
        new_rows_wanted=policy.enough_rows(snapshot.body["rows"]) if snapshot else None,
        running_since=found.training.at if found.training else None,
        last_training=last.at if last else None,
        last_training_says=describe(last) if last else None,
        schedule=policy.schedule,
        next_scheduled=policy.next_training(at),
        next_look=model.monitor.next_look(at),
    )


def _asked_for(begun: Sequence[Entry]) -> list[datetime]:
    """When trainings were asked for by triggers, each cause once, oldest first."""
    first: dict[str, datetime] = {}
    for entry in begun:
        if entry.body["trigger"] not in UNCONDITIONAL:
            first.setdefault(entry.body.get("cause") or entry.subject, entry.at)
    return sorted(first.values())


def _asked(body: Mapping[str, Any]) -> tuple[Asked, ...]:
    """The triggers of a look, the one that is trained for first, then in the order in which they were refused."""
    triggers = {one["cause"]: one for one in body["triggers"]}
    refused = {one["cause"]: one for one in body["refusals"]}
    chosen = [one for one in triggers.values() if one["cause"] not in refused]
    return tuple(
        _one(one, refused.get(one["cause"], {}))
        for one in [*chosen, *(triggers[cause] for cause in refused if cause in triggers)]
    )


def _one(trigger: Mapping[str, Any], refusal: Mapping[str, Any]) -> Asked:
    since, until = trigger["evidence"].get("since"), refusal.get("until")
    return Asked(
        kind=trigger["kind"],
        reason=trigger["reason"],
        since=datetime.fromisoformat(since) if since else None,
        loss=trigger["loss"],
        rule=refusal.get("rule"),
        why=refusal.get("why"),
        until=datetime.fromisoformat(until) if until else None,
    )
