"""When to train: the rules that a replay compares.

Two kinds. *Plain* rules are what people do without Steward: train the same kind of model on every labelled row and install
it, whatever it is worth. *Governed* ones go through Steward's steps, and nothing is promoted that its sealed test has not shown
to be better.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import yaml

from steward.config import ModelFile
from steward.errors import ReplayRefused
from steward.pipeline import Look
from steward.records import Accuracy, Drift

Kind = Literal["never", "every", "floor", "drift", "steward", "own"]
SHIPPED = ("never", "every:1", "every:5", "floor", "steward")
"""What is compared unless somebody says otherwise; `floor` only where the model file has one."""
FORMS = "never, every:N, floor:X, drift, steward, steward:FIELD=VALUE,…, module:function; every and floor also with :verified"
OWN = re.compile(r"^[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*$")


@dataclass(frozen=True)
class Seen:
    """What a rule of one's own is told at the end of a window; nothing of it is newer than `at`."""

    window: int
    at: datetime
    look: Look
    """What Steward's monitor found, record by record."""
    trained: int | None
    """The window at whose end the last training was; None if there was none since the start."""


Own = Callable[[Seen], str | bool | None]
"""The reason to train, or True; anything else waits."""


@dataclass(frozen=True)
class Policy:
    """One rule.

    Attributes
    ----------
    name : as it was written.
    every : windows between two trainings.
    floor : value of the model's metric.
    settings : fields of the model file, by dotted name, and their values.
    function : `module:function` of a rule of one's own.
    governed : do its trainings go through Steward's sealed test?
    """

    name: str
    kind: Kind
    every: int = 0
    floor: float | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    function: str = ""
    governed: bool = False

    @classmethod
    def parse(cls, text: str, model: ModelFile) -> "Policy":
        """Read one rule; raises ReplayRefused."""
        name = text.strip()
        head, _, rest = name.partition(":")
        governed = rest == "verified" or rest.endswith(":verified")
        figures = rest.removesuffix("verified").removesuffix(":")
        try:
            match head:
                case "never" | "drift" if not rest:
                    return cls(name, head, governed=head == "drift")
                case "every":
                    return cls(name, "every", every=_count(figures), governed=governed)
                case "floor":
                    return cls(name, "floor", floor=_floor(figures, model), governed=governed)
                case "steward":
                    policy = cls(name, "steward", settings=_settings(rest), governed=True)
                    policy.model_file(model)
                    return policy
            if OWN.match(name):
                _load(name)
                return cls(name, "own", function=name, governed=True)
        except (ValueError, ImportError, AttributeError) as problem:
            raise _unreadable(name, " ".join(str(problem).split())) from problem
        raise _unreadable(name, "no such rule")

    def model_file(self, model: ModelFile) -> ModelFile:
        """The model file that this rule looks with: its own settings; other rules than Steward's ask Steward for nothing.

        Raises ValueError.
        """
        changed = model.model_dump(mode="json", by_alias=True)
        if self.kind != "steward":
            changed["retrain"] |= {"on": [], "new_rows": None, "schedule": None}
        for name, value in self.settings:
            _set(changed, name, value)
        return ModelFile.model_validate(changed)

    def asks(self, number: int) -> bool:
        """Of a rule that only counts windows: is it time?"""
        return self.kind == "every" and number % self.every == 0

    def reason(self, seen: Seen) -> str | None:
        """Of a rule that looks: why to train, None to wait."""
        match self.kind:
            case "every":
                return f"every {self.every} windows" if self.asks(seen.window) else None
            case "floor":
                return self._under_floor(seen.look.records["measure_accuracy"])
            case "drift":
                return _in_alarm(seen.look.records["detect_drift"])
            case "own":
                found = _load(self.function)(seen)
                return found if isinstance(found, str) else self.function if found is True else None
        return None

    def _under_floor(self, found: Any) -> str | None:
        if not isinstance(found, Accuracy) or found.live is None or self.floor is None:
            return None
        return (
            f"{found.metric} {found.live.value:.4f}, the floor is {self.floor:g}"
            if found.live.value < self.floor
            else None
        )


def _in_alarm(found: Any) -> str | None:
    alarms = sorted({one.column for one in found.findings if one.alarm}) if isinstance(found, Drift) else []
    return f"drift in {', '.join(alarms)}" if alarms else None


def shipped(model: ModelFile) -> tuple[Policy, ...]:
    """The rules that are compared unless somebody says otherwise."""
    return tuple(Policy.parse(name, model) for name in SHIPPED if name != "floor" or _known_floor(model) is not None)


def _count(text: str) -> int:
    count = int(text or 1)
    if count < 1:
        raise ValueError("a number of windows is 1 or more")
    return count


def _known_floor(model: ModelFile) -> float | None:
    return (
        model.monitor.accuracy.floor
        if model.monitor.accuracy.floor is not None
        else model.verify.floor.get(model.metric)
    )


def _floor(text: str, model: ModelFile) -> float:
    floor = float(text) if text else _known_floor(model)
    if floor is None:
        raise ValueError(f"{model.name} has no monitor.accuracy.floor; write floor:0.8")
    return floor


def _settings(text: str) -> tuple[tuple[str, Any], ...]:
    """`cooldown=0h,monitor.window=14d`; a name without a dot is one of `retrain`."""
    found = []
    for part in re.split(r",(?![^\[]*\])", text) if text else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is no FIELD=VALUE")
        found.append((name.strip() if "." in name else f"retrain.{name.strip()}", yaml.safe_load(value)))
    return tuple(found)


def _set(document: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        document = document[part] if isinstance(document.get(part), dict) else {}
    if last not in document:
        raise ValueError(f"the model file has no field {name}")
    document[last] = value


def _load(function: str) -> Own:
    module, _, name = function.partition(":")
    found: Own = getattr(importlib.import_module(module), name)
    return found


def _unreadable(name: str, why: str) -> ReplayRefused:
    return ReplayRefused(f"a policy cannot be read: {why[:300]}", got=name, allowed=FORMS, do="Check --policies")


def settings_of(policy: Policy, days: float, model: ModelFile) -> Mapping[str, Any]:
    """What to write into the model file to live by a rule, as nested plain values.

    Parameters
    ----------
    days : length of a window.
    """
    match policy.kind:
        case "never":
            return {"retrain": {"schedule": None, "new_rows": None, "on": []}}
        case "every":
            return {"retrain": {"schedule": _schedule(days * policy.every), "new_rows": None, "on": []}}
        case "floor":
            return {"monitor": {"accuracy": {"floor": policy.floor}}, "retrain": {"schedule": None, "on": ["accuracy"]}}
        case "drift":
            return {"retrain": {"schedule": None, "on": ["data_drift"]}}
        case "own":
            return {}
    kept = policy.model_file(model).model_dump(mode="json", by_alias=True)
    wanted: dict[str, Any] = {
        "retrain": {name: kept["retrain"][name] for name in ("schedule", "new_rows", "on", "cooldown", "max_per_week")}
    }
    for name, _ in policy.settings:
        section, *_ = name.split(".")
        if section != "retrain":
            wanted[section] = kept[section]
    return wanted


def _schedule(days: float) -> str:
    """The nearest of the usual ones.

    >>> [_schedule(days) for days in (0.05, 1, 7, 30)]
    ['@hourly', '@daily', '@weekly', '@monthly']
    """
    usual = {"@hourly": 1 / 24, "@daily": 1.0, "@weekly": 7.0, "@monthly": 30.4}
    return min(usual, key=lambda name: abs(usual[name] - days) / usual[name])
