"""The governor: triggers and policy → train now, or wait; always with the reason.

What the champion sees may change without making it wrong, and a training costs sealed rows that cannot be had twice. So
a drift of the inputs proposes and an expected loss decides; a cause starts one training and no second one; and after
three challengers in a row that were no better, a person is asked instead.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Literal

from steward.config import Retrain

Kind = Literal["schedule", "data_drift", "concept_drift", "accuracy", "new_rows", "new_feature", "event", "manual"]
UNCONDITIONAL: tuple[Kind, ...] = ("manual", "schedule")
"""Somebody, or the model file, has decided already."""
STRENGTH: tuple[Kind, ...] = (
    "manual", "accuracy", "concept_drift", "event", "new_rows", "new_feature", "data_drift", "schedule",
)  # fmt: skip
REJECTED_IN_A_ROW = 3
ATTEMPTS = 3
"""So often a cause may start a training that ends without a promotion; then a person is asked."""
FOR_A_PERSON = ("circuit breaker", "attempts", "second attempt")
"""Rules that wait for somebody to look."""
LOOKS = 4
"""New rows alone train at a quarter of the looks at most: every look saves so much of a training."""
SAVED = 3.0
"""Trainings that can be saved up, and that other triggers can spend before they are."""
NOTHING_EXPECTED: Mapping[Kind, str] = {
    "data_drift": "it is not expected to cost anything",
    "new_rows": "it is not sure that training with them helps",
}
"""What only proposes a training, and why there is none where that is not expected to be worth one."""
HARMLESS = 0.3
"""Whether newer rows teach a better model is known from the looks before. The sealed rows of a training for new rows alone
have to show that it does no harm: as many as find a difference of so much."""
WEEK = timedelta(days=7)
TO_BEGIN = timedelta(minutes=15)
"""A training that was decided and has not begun by then is lost; the next look starts it again."""
TO_END = timedelta(hours=3)
"""A training without a verdict is thought to run so long."""


@dataclass(frozen=True)
class Trigger:
    """One reason to train.

    Attributes
    ----------
    cause : identity of what happened, such as `accuracy since 2026-03-01`; it stays the same while it goes on.
    loss : how much of the metric the cause is thought to cost, positive; None if unknown.
    loss_low : its lower confidence limit; a data drift needs it above 0, and so do new rows that are not counted: theirs is
        what the champion loses by not having learned from rows as new, by squared errors.
    """

    kind: Kind
    cause: str
    reason: str
    at: datetime
    evidence: dict[str, Any] = field(default_factory=dict)
    loss: float | None = None
    loss_low: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "at": self.at.isoformat()}


@dataclass(frozen=True)
class Training:
    """A training that was started before."""

    at: datetime
    kind: Kind
    cause: str
    verdict: Literal["promote", "hold", "reject"] | None = None
    """None while it runs, and if it ended without one."""
    failure: str | None = None
    """The error that ended it without a verdict."""

    @property
    def in_vain(self) -> str | None:
        """How it ended, if that was not a promotion; None while it runs.

        >>> Training(datetime.min, "event", "this", failure="ContractRefused").in_vain
        'failed (ContractRefused)'
        """
        if self.verdict in ("hold", "reject"):
            return f"ended in {self.verdict}"
        return f"failed ({self.failure})" if self.failure and self.verdict is None else None


@dataclass(frozen=True)
class Situation:
    """What the governor has to know beside the triggers.

    Attributes
    ----------
    trainings : started so far, in order of time.
    saved : trainings that looks have saved up for new rows, this one included; see `saved`.
    helps : whether looks are as sure as a verdict has to be that newer rows teach a better model; None if they could not tell.
    missing_rows : for a difference worth finding, how many labelled rows must still arrive before a verdict is possible.
    """

    trainings: tuple[Training, ...] = ()
    missing_rows: int = 0
    running: bool = False
    saved: float = SAVED
    helps: bool | None = None
    missing_for: Mapping[str, int] = field(default_factory=dict)
    """By cause, the same where a trigger has measured a loss: a large one takes fewer rows to verify."""


@dataclass(frozen=True)
class Refusal:
    """Why one trigger starts nothing now, and until when that is so if that is known."""

    trigger: Trigger
    rule: str
    why: str
    until: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        until = self.until.isoformat() if self.until else None
        return {
            "kind": self.trigger.kind,
            "cause": self.trigger.cause,
            "rule": self.rule,
            "why": self.why,
            "until": until,
        }


@dataclass(frozen=True)
class Decision:
    """Train now, for `trigger`; or wait, each trigger for its own reason.

    Attributes
    ----------
    ask_a_person : a rule of `FOR_A_PERSON` holds: training alone does not help any more.
    """

    train: bool
    trigger: Trigger | None
    refusals: tuple[Refusal, ...]
    ask_a_person: bool = False

    @property
    def reason(self) -> str:
        if self.trigger:
            return f"train now: {self.trigger.reason}"
        if not self.refusals:
            return "wait: nothing asks for a training"
        return f"wait: {self.refusals[0].why}"

    def as_json(self) -> dict[str, Any]:
        return {
            "train": self.train,
            "reason": self.reason,
            "trigger": self.trigger.as_json() if self.trigger else None,
            "refusals": [one.as_json() for one in self.refusals],
            "ask_a_person": self.ask_a_person,
        }


def decide(policy: Retrain, triggers: Sequence[Trigger], situation: Situation, *, at: datetime) -> Decision:
    """Train for the strongest trigger that no rule holds back, or wait.

    Examples
    --------
    >>> from datetime import UTC
    >>> now = datetime(2026, 3, 2, tzinfo=UTC)
    >>> fallen = Trigger("accuracy", "accuracy since March", "accuracy 0.82 is under the floor of 0.85", now, loss=0.07)
    >>> decide(Retrain(), [fallen], Situation(), at=now).reason
    'train now: accuracy 0.82 is under the floor of 0.85'
    >>> before = Training(now - timedelta(hours=3), "accuracy", "accuracy since February", "promote")
    >>> decide(Retrain(), [fallen], Situation((before,)), at=now).reason
    'wait: the last training that a trigger asked for was 3 h ago; the cooldown is 24 h'
    """
    refusals: list[Refusal] = []
    for trigger in sorted(triggers, key=lambda one: (STRENGTH.index(one.kind), one.at, one.cause)):
        refusal = next(_rules(policy, trigger, situation, at), None)
        if refusal is None:
            return Decision(True, trigger, tuple(refusals))
        refusals.append(refusal)
    asked = any(refusal.rule in FOR_A_PERSON for refusal in refusals)
    return Decision(False, None, tuple(refusals), ask_a_person=asked)


def _rules(policy: Retrain, trigger: Trigger, situation: Situation, at: datetime) -> Iterator[Refusal]:
    """Every rule that holds this trigger back, the most telling first."""
    trainings = situation.trainings
    if situation.running:
        yield Refusal(trigger, "one at a time", "a training is running")
    if trigger.kind != "schedule":
        yield from _had(trigger, [one for one in trainings if one.cause == trigger.cause], situation.helps)
    if trigger.kind in UNCONDITIONAL:
        return
    if trigger.kind != "new_rows" and trigger.kind not in policy.on:
        yield Refusal(trigger, "retrain.on", f"{trigger.kind} is not among retrain.on of the model file")
    if not (trigger.kind == "new_rows" and policy.continuous):
        yield from _expected(trigger, situation.saved)
    if _rejected_in_a_row(trainings) >= REJECTED_IN_A_ROW:
        why = f"the last {REJECTED_IN_A_ROW} challengers were rejected; somebody has to look, then train by hand"
        yield Refusal(trigger, "circuit breaker", why)
    yield from _too_soon(policy, trigger, trainings, at)
    missing = situation.missing_for.get(trigger.cause, situation.missing_rows)
    if missing > 0:
        why = f"{missing:,} more labelled rows are needed before a verdict is possible"
        yield Refusal(trigger, "sealed rows", why)


def saved(happened: Iterable[Literal["look", "training"]]) -> float:
    """Trainings for new rows that are saved up after all that happened, in its order; below 0 where other triggers have spent more.

    >>> saved(["look"] * 4), saved(["look"] * 100), saved(["look"] * 8 + ["training", "look"]), saved(["training"])
    (1.0, 3.0, 1.25, -1.0)
    """
    left = 0.0
    for one in happened:
        left = min(SAVED, left + 1 / LOOKS) if one == "look" else max(-SAVED, left - 1)
    return left


def _expected(trigger: Trigger, left: float) -> Iterator[Refusal]:
    """What only proposes has to be expected to be worth a training; new rows need one that looks have saved, too."""
    if trigger.kind in NOTHING_EXPECTED and not (trigger.loss_low or 0) > 0:
        yield Refusal(trigger, "expected loss", f"{trigger.reason}; {NOTHING_EXPECTED[trigger.kind]}")
    if trigger.kind == "new_rows" and left < 1:
        looks = ceil((1 - left) * LOOKS)
        why = f"new rows alone train at a quarter of the looks at most; {looks} more must pass"
        yield Refusal(trigger, "rest", why)


def _had(trigger: Trigger, before: Sequence[Training], helps: bool | None) -> Iterator[Refusal]:
    """A cause is trained for once; again if that was in vain, after the cooldown and with sealed rows for another verdict.

    Where a verdict was not in favour, looks have to be sure by now that it will be.
    """
    if not before:
        return
    last = before[-1]
    if trigger.kind == "manual" or last.in_vain is None:
        yield Refusal(trigger, "one run per cause", f"a training was started for this on {last.at:%Y-%m-%d %H:%M}")
    elif len(before) >= ATTEMPTS:
        why = f"{len(before)} trainings for this were in vain, the last one {last.in_vain}; somebody has to look"
        yield Refusal(trigger, "attempts", why)
    elif last.verdict and helps is False:
        why = f"the last training for this {last.in_vain}, and looks are not sure that newer rows teach a better model"
        yield Refusal(trigger, "second attempt", why)


def _rejected_in_a_row(trainings: Sequence[Training]) -> int:
    """Challengers rejected since the last one that was not; a training by hand starts the count anew."""
    count = 0
    for training in reversed(trainings):
        if training.verdict is None:
            continue
        if training.verdict != "reject" or training.kind == "manual":
            break
        count += 1
    return count


def _too_soon(policy: Retrain, trigger: Trigger, trainings: Sequence[Training], at: datetime) -> Iterator[Refusal]:
    asked = [one.at for one in trainings if one.kind not in UNCONDITIONAL and one.at <= at]
    if asked and at - asked[-1] < policy.cooldown:
        ago, cooldown = _hours(at - asked[-1]), _hours(policy.cooldown)
        why = f"the last training that a trigger asked for was {ago} ago; the cooldown is {cooldown}"
        yield Refusal(trigger, "cooldown", why, asked[-1] + policy.cooldown)
    recent = [one for one in asked if at - one < WEEK]
    if len(recent) >= policy.max_per_week:
        why = f"triggers have asked for {len(recent)} trainings within seven days; {policy.max_per_week} are allowed"
        yield Refusal(trigger, "budget", why, recent[0] + WEEK if recent else None)


def _hours(duration: timedelta) -> str:
    return f"{duration.total_seconds() / 3600:.3g} h"
