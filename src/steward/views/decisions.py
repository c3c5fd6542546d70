"""The ledger as a list that people can read, filter and take away."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from steward.io.ledger import Entry, Wanted
from steward.io.workspace import Workspace
from steward.records import canonical_json
from steward.views.chain import ChainState, chain_state
from steward.views.entries import SAID, actor, describe, facts, version_of

PAGE = 50
"""Entries of a page."""
EXPORTED = 2_000
"""Entries that are in memory at a time while they are exported."""
KINDS = tuple(SAID)
QUIET = ("observation",)
"""Kinds that are only shown when they are asked for: they decide nothing."""
FORMULAS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Filter:
    """Which entries.

    Attributes
    ----------
    models : those that the viewer may see; None for all.
    kinds : none for every kind that decides something: all but `QUIET`.
    text : has to occur in subject or body, in upper or lower case.
    since, until : `at` from (included) to (not included).
    """

    models: Collection[str] | None = None
    kinds: tuple[str, ...] = ()
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Line:
    """An entry, with its evidence.

    Attributes
    ----------
    says : one sentence. `by` : a person or `monitor`, where one is named.
    version : the version that it concerns, for a link; None where it concerns none.
    evidence : the entry's body as facts by name: text, number or a list of texts; nested ones joined by dots.
    """

    sequence: int
    at: datetime
    model: str
    kind: str
    subject: str
    says: str
    by: str | None
    version: int | None
    evidence: dict[str, Any]
    previous: str
    digest: str


@dataclass(frozen=True)
class DecisionList:
    """A page of entries, newest first.

    Attributes
    ----------
    before : pass it as `before` for the next page of older entries; None on the last one.
    searched_to : a text or a time was looked for in a bounded part of the ledger: the moment of the oldest entry that was
        looked at, where `before` goes on; None if everything was looked at.
    kinds : every kind that there is, for the filter.
    """

    filter: Filter
    lines: tuple[Line, ...]
    before: int | None
    searched_to: datetime | None
    kinds: tuple[str, ...]
    chain: ChainState
    says: str


COLUMNS = ("sequence", "at", "model", "kind", "subject", "says", "by", "body", "previous", "digest")
"""Of an exported row."""


def decisions(workspace: Workspace, filter: Filter, before: int | None = None, size: int = PAGE) -> DecisionList:  # noqa: A002
    """A page of entries that fit, older than entry `before`.

    Raises
    ------
    LedgerUnavailable
    """
    found = workspace.ledger.search(_wanted(filter), before=before, limit=size)
    cut = found.before is not None and len(found.entries) < size
    searched_to = workspace.ledger.at(found.before) if cut and found.before is not None else None
    lines = tuple(_line(entry) for entry in found.entries)
    return DecisionList(
        filter=filter,
        lines=lines,
        before=found.before,
        searched_to=searched_to,
        kinds=KINDS,
        chain=chain_state(workspace),
        says=_says(filter, lines, before, searched_to, found.before),
    )


def _wanted(filter: Filter) -> Wanted:  # noqa: A002
    kinds = filter.kinds or tuple(kind for kind in KINDS if kind not in QUIET)
    return Wanted(filter.models, kinds, filter.text.strip(), filter.since, filter.until)


def _line(entry: Entry) -> Line:
    return Line(
        sequence=entry.sequence,
        at=entry.at,
        model=entry.model,
        kind=entry.kind,
        subject=entry.subject,
        says=describe(entry),
        by=actor(entry),
        version=version_of(entry),
        evidence=dict(facts(entry.body)),
        previous=entry.previous,
        digest=entry.digest,
    )


def _says(
    filter: Filter,  # noqa: A002
    lines: Sequence[Line],
    before: int | None,
    searched_to: datetime | None,
    follows: int | None,
) -> str:
    if searched_to:
        return f"{len(lines)} found back to {searched_to:%Y-%m-%d %H:%M} UTC; older entries were not searched yet."
    if lines:
        older = ", older ones follow" if follows is not None else ""
        return f"{len(lines)} {'entry' if len(lines) == 1 else 'entries'}, newest first{older}."
    if before is not None:
        return "No older entry fits."
    if filter == Filter(models=filter.models):
        return "Nothing was decided yet; `steward train` trains a first version."
    return "No entry fits; widen the filter."


def export(workspace: Workspace, filter: Filter) -> Iterator[dict[str, Any]]:  # noqa: A002
    """Every entry that fits, newest first, as `COLUMNS` → text or number; a few in memory at a time; `body` is JSON text."""
    wanted, before = _wanted(filter), None
    while True:
        found = workspace.ledger.search(wanted, before=before, limit=EXPORTED)
        for entry in found.entries:
            told = {"says": describe(entry), "by": actor(entry) or "", "body": canonical_json(entry.body)}
            row = {**entry.as_json(), **told}
            yield {name: row[name] for name in COLUMNS}
        before = found.before
        if before is None:
            return


def as_csv(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """CSV in pieces, the header first; a text that a spreadsheet would take for a formula is marked with `'`.

    >>> header, line = "".join(as_csv([dict.fromkeys(COLUMNS, "=1+1") | {"sequence": 1}])).splitlines()
    >>> line[:14]
    "1,'=1+1,'=1+1,"
    """
    lines = io.StringIO()
    writer = csv.DictWriter(lines, COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(value) for name, value in row.items()})
        yield lines.getvalue()
        lines.seek(0)
        lines.truncate()
    if lines.getvalue():
        yield lines.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value


def as_json(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Pieces of one JSON list; `body` is an object again."""
    yield "["
    for number, row in enumerate(rows):
        yield f"{',' if number else ''}\n{json.dumps({**row, 'body': json.loads(row['body'])}, ensure_ascii=False)}"
    yield "\n]\n"
