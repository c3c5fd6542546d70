"""What a look found, in small figures: they stand in the ledger's entry, so that a page about years opens no file."""

from collections.abc import Callable, Sequence
from typing import Any

from steward.records import Accuracy, Drift, DriftFinding, Estimate, Observation, Quality, Record

DIGITS = 6
"""Significant ones: a picture shows no more."""


def figures(found: Sequence[Record]) -> dict[str, Any]:
    """Figures of the records of one look, as plain JSON; what was not looked at is not there.

    `live`, `verified`, `estimate` and `expected_loss` are [value, low, high]; `drift` is by column [question, effect, p, alarm,
    matters, touched, windows].
    """
    kept: dict[str, Any] = {}
    for record in found:
        told = TOLD.get(type(record))
        kept |= told(record) if told else {}
    return kept


def _observed(seen: Observation) -> dict[str, Any]:
    return {
        "start": seen.start.isoformat(),
        "end": seen.end.isoformat(),
        "version": seen.version,
        "origin": seen.origin,
        "rows": seen.rows,
    }


def _measured(made: Accuracy) -> dict[str, Any]:
    moments = {"fallen_since": made.fallen_since, "alarm_since": made.alarm_since}
    return {
        "metric": made.metric,
        "live": _three(made.live),
        "labelled": made.rows,
        "floor": made.floor,
        "verified": _three(made.verified),
        "estimate": _three(made.estimate),
        "estimate_metric": made.estimate_metric,
        "waiting": made.waiting,
        "sealed": made.sealed,
        "new_rows": made.new_rows,
        **{name: moment and moment.isoformat() for name, moment in moments.items()},
    }


def _moved(made: Drift) -> dict[str, Any]:
    """Of each column the strongest finding."""
    strongest = {one.column: one for one in reversed(made.findings)}
    return {
        "level": _short(made.level),
        "drift": {name: _cell(one) for name, one in strongest.items()},
        "since": {name: moment.isoformat() for name, moment in made.since.items()},
        "expected_loss": _three(made.expected_loss),
    }


def _cell(one: DriftFinding) -> list[Any]:
    effect, p, touched = _short(one.effect), _short(one.p), _short(one.touched)
    return [one.question, effect, p, one.alarm, one.matters, touched, one.windows]


def _wrong(made: Quality) -> dict[str, Any]:
    return {"quality": len(made.findings)}


TOLD: dict[type[Record], Callable[[Any], dict[str, Any]]] = {
    Observation: _observed,
    Accuracy: _measured,
    Drift: _moved,
    Quality: _wrong,
}


def _three(found: Estimate | None) -> list[float] | None:
    return None if found is None else [_short(found.value), _short(found.low), _short(found.high)]


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
