"""What an entry of the ledger says, to people."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from steward.io.ledger import Entry
from steward.records import figure


def describe(entry: Entry) -> str:
    """What an entry says, in one line for people; of one that another version of Steward wrote, what it is about."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        if entry.kind in SAID:
            return SAID[entry.kind](entry.subject, entry.body)
    return f"{entry.kind} {entry.subject}"


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
        f"opening {number}: {body.get('metric')} {figure(body.get('value', 0))} on {body.get('rows', 0):,} rows"
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


def actor(entry: Entry) -> str | None:
    """Who did it: a person, or `monitor`; None where the entry names nobody."""
    return entry.body.get("by") or ("monitor" if entry.kind in ("decision", "drift", "observation") else None)


def version_of(entry: Entry) -> int | None:
    """The version that an entry concerns, None where it names none."""
    version = entry.body.get("version")
    return version if isinstance(version, int) else None


def facts(body: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """A body as facts by name: nested ones joined by dots, lists of plain values as they are.

    >>> dict(facts({"rows": 3, "test": {"low": 0.8}, "gates": [{"name": "floor"}], "why": []}))
    {'rows': 3, 'test.low': 0.8, 'gates.1.name': 'floor'}
    """
    for name, value in body.items():
        place = f"{under}{name}"
        if isinstance(value, Mapping):
            yield from facts(value, f"{place}.")
        elif isinstance(value, list) and any(isinstance(one, Mapping | list) for one in value):
            yield from facts({str(number): one for number, one in enumerate(value, 1)}, f"{place}.")
        elif value not in (None, [], ""):
            yield place, value
