"""What a replay found, with hindsight: labels that no policy could know are used here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from steward.config import ModelFile
from steward.core import metrics
from steward.records import Estimate
from steward.replay.past import Past, Window
from steward.replay.policies import Policy, settings_of

ENOUGH = 0.9
"""Of the best gain: who keeps so much of it is good enough, and the cheapest of these is recommended."""
FEWEST_ROWS = 50
"""Labelled rows without which nobody says whether an alarm was right."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Alarm:
    """Something that a look raised, once per cause."""

    window: int
    kind: str
    reason: str
    right: bool | None
    """Was the version surely less good then than when it was verified? None where too few rows have a label."""


@dataclass(frozen=True)
class Played:
    """One window of one policy."""

    number: int
    start: datetime
    end: datetime
    rows: int
    labelled: int
    """Rows whose label is known by now."""
    value: float | None
    """The metric on these; None where there are none, or where they are of one class and the metric needs two."""
    version: int
    """What served: the number of a version, or of plain trainings the window at whose end it was trained."""
    reason: str | None
    """Why there was a training at the end of the window; None if there was none."""
    verdict: str | None
    """promote, hold or reject; None without a verdict."""
    promoted: bool
    refused: str | None
    """Why the training that was asked for made no version."""
    change: Estimate | None
    """In the first window of a new version: by how much it was better than the one before; positive is better."""
    look: Mapping[str, Any] | None


@dataclass(frozen=True)
class Course:
    """What a policy led to.

    Attributes
    ----------
    mean : the metric's mean over the windows, weighted by labelled rows.
    gain : how much better than never training again, paired on every labelled row.
    retrainings : trainings that made a version; `refused` made none.
    openings : sets of sealed rows that were used up.
    wrong : promotions after which the new version was less good than the old one in the following window; of these
        `surely_wrong` at 95 % confidence.
    settings : what to write into the model file to live by it.
    """

    name: str
    governed: bool
    mean: float | None
    gain: Estimate | None
    retrainings: int
    refused: int
    openings: int
    promotions: int
    rollbacks: int
    wrong: int
    surely_wrong: int
    alarms: tuple[Alarm, ...]
    windows: tuple[Played, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Recommendation:
    policy: str
    says: str
    yaml: str


@dataclass(frozen=True)
class Replay:
    """A past, played under several policies.

    Attributes
    ----------
    model, metric, larger_is_better : what was replayed, and what `value`, `mean` and `gain` are of.
    says : what a person should know of the past and of how it was replayed.
    seconds : by policy, and of `first` and `plain` trainings, what it took: `all` and, of that, `fits`. Not part of the JSON,
        which is the same for the same replay.
    folder : where everything is; the same replay again goes on there.
    """

    model: str
    metric: str
    larger_is_better: bool
    start: datetime
    end: datetime
    rows: int
    before: int
    label_delay: str
    seed: int
    policies: tuple[Course, ...]
    recommendation: Recommendation
    says: tuple[str, ...]
    seconds: Mapping[str, Mapping[str, float]]
    folder: str

    def as_json(self) -> dict[str, Any]:
        """The answer of `steward replay --json`: byte for byte the same for the same replay."""
        kept = {name: value for name, value in vars(self).items() if name not in ("seconds", "folder")}
        return {name: _plain(value) for name, value in kept.items()}

    def course(self, name: str) -> Course:
        """One policy's; raises KeyError."""
        return {one.name: one for one in self.policies}[name]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Estimate):
        return value.as_json()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return {name: _plain(one) for name, one in vars(value).items()} if hasattr(value, "__dataclass_fields__") else value


@dataclass(frozen=True)
class Facts:
    """What a policy left behind about one window."""

    window: Window
    version: int
    raw: NDArray[np.float64]
    rival: NDArray[np.float64] | None
    reason: str | None = None
    training: Mapping[str, Any] | None = None
    refused: str | None = None
    look: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Judge:
    """Holds what was answered against the truth."""

    model: ModelFile
    past: Past

    def value(self, rows: slice, raw: NDArray[np.float64]) -> float | None:
        """The metric on labelled rows; None where it cannot be said."""
        known = self.past.labelled[rows]
        if not known.any():
            return None
        truth = self.past.truth[rows][known]
        if self.model.metric == "roc_auc" and len(set(truth)) < 2:  # noqa: PLR2004
            return None
        return metrics.score(self.model.metric, truth, raw[known], self.model.classes)

    def paired(self, rows: slice, a: NDArray[np.float64], b: NDArray[np.float64]) -> Estimate | None:
        """By how much `a` is better than `b` on labelled rows."""
        known = self.past.labelled[rows]
        truth = self.past.truth[rows][known]
        if not len(truth) or (self.model.metric == "roc_auc" and len(set(truth)) < 2):  # noqa: PLR2004
            return None
        return metrics.paired(
            self.model.metric, truth, a[known], b[known], self.model.classes, confidence=CONFIDENCE, seed=0
        )

    def below(self, facts: Sequence[Facts], verified: float) -> bool | None:
        """Was a version surely less good in these windows than it was verified to be?"""
        rows = slice(self.past.asked(facts[0].window).start, self.past.asked(facts[-1].window).stop)
        known = self.past.labelled[rows]
        truth, raw = self.past.truth[rows][known], np.concatenate([one.raw for one in facts])[known]
        if len(truth) < FEWEST_ROWS:
            return None
        found = metrics.interval(self.model.metric, truth, raw, self.model.classes, confidence=CONFIDENCE, seed=0)
        return found.high < verified if metrics.larger_is_better(self.model.metric) else found.low > verified


def course_of(
    judge: Judge, policy: Policy, facts: Sequence[Facts], never: NDArray[np.float64], tests: Mapping[int, float]
) -> Course:
    """What a policy led to.

    Parameters
    ----------
    never : what the first version answers to every row since the start.
    tests : the metric of each version's opening, by its number.
    """
    played = tuple(_played(judge, one) for one in facts)
    rows = slice(judge.past.asked(facts[0].window).start, judge.past.asked(facts[-1].window).stop)
    trained = [one for one in facts if one.training]
    changes = [one.change for one in played if one.change]
    weights = [one.labelled for one in played if one.value is not None]
    values = [one.value for one in played if one.value is not None]
    days = (facts[-1].window.end - facts[0].window.start).total_seconds() / 86_400 / len(facts)
    return Course(
        name=policy.name,
        governed=policy.governed,
        mean=float(np.average(values, weights=weights)) if values else None,
        gain=judge.paired(rows, np.concatenate([one.raw for one in facts]), never),
        retrainings=len(trained),
        refused=sum(one.refused is not None for one in facts),
        openings=sum(1 for one in trained if one.training and one.training.get("verdict")),
        promotions=sum(one.promoted for one in played),
        rollbacks=sum(bool(one.look and one.look.get("rolled_back")) for one in facts),
        wrong=sum(change.value < 0 for change in changes),
        surely_wrong=sum(change.high < 0 for change in changes),
        alarms=tuple(_alarms(judge, facts, tests)),
        windows=played,
        settings=settings_of(policy, days, judge.model),
    )


def _played(judge: Judge, one: Facts) -> Played:
    rows = judge.past.asked(one.window)
    change = judge.paired(rows, one.raw, one.rival) if one.rival is not None else None
    training = one.training or {}
    return Played(
        number=one.window.number,
        start=one.window.start,
        end=one.window.end,
        rows=rows.stop - rows.start,
        labelled=int(judge.past.labelled[rows].sum()),
        value=judge.value(rows, one.raw),
        version=one.version,
        reason=one.reason,
        verdict=training.get("verdict"),
        promoted=bool(training.get("promoted")),
        refused=one.refused,
        change=change,
        look=one.look,
    )


def _alarms(judge: Judge, facts: Sequence[Facts], tests: Mapping[int, float]) -> list[Alarm]:
    """Each cause once, held against what the version was worth in that window and, if it still served, the next one."""
    found, known = [], set()
    for place, one in enumerate(facts):
        for alarm in (one.look or {}).get("alarms", ()):
            if alarm["cause"] in known:
                continue
            known.add(alarm["cause"])
            held = [each for each in facts[place : place + 2] if each.version == one.version]
            verified = tests.get(one.version)
            right = None if verified is None else judge.below(held, verified)
            found.append(Alarm(one.window.number, alarm["kind"], alarm["reason"], right))
    return found


def recommend(courses: Sequence[Course], metric: str) -> Recommendation:
    """The policy with the fewest trainings among those that keep most of the best gain."""
    judged = [one for one in courses if one.gain is not None and one.settings]
    best = max(judged, key=lambda one: one.gain.value if one.gain else 0.0, default=None)
    if best is None or best.gain is None:
        return Recommendation("never", "No label is known after the start: nothing can be recommended.", "")
    if best.gain.low <= 0:
        says = (
            f"Do not train again: no policy was surely better than never doing so; the best, {best.name}, gained "
            f"{_points(best.gain, metric)} with {best.retrainings} retrainings."
        )
        return Recommendation("never", says, _snippet({"retrain": {"schedule": None, "new_rows": None, "on": []}}))
    enough = [one for one in judged if one.gain and one.gain.value >= ENOUGH * best.gain.value]
    chosen = min(
        enough, key=lambda one: (one.retrainings + one.refused, not one.governed, -(one.gain.value if one.gain else 0))
    )
    says = f"Use {chosen.name}: it gained {_points(chosen.gain, metric)} over never training again, with {chosen.retrainings} retrainings"
    if chosen.gain != best.gain:
        says += f"; the most, {_points(best.gain, metric)}, took {best.retrainings} ({best.name})"
    if not chosen.governed:
        says += ". It was replayed without a sealed test; Steward will verify every version all the same"
    return Recommendation(chosen.name, f"{says}.", _snippet(chosen.settings))


def _points(gain: Estimate | None, metric: str) -> str:
    if gain is None:
        return "nothing"
    return f"{gain.value:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) {metric}"


def _snippet(settings: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(settings), sort_keys=False, default_flow_style=None) if settings else ""


def seconds_of(parts: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """The sum of what was measured, by policy."""
    return {
        name: {what: float(sum(one[what] for one in measured)) for what in ("all", "fits")}
        for name, measured in parts.items()
    }
