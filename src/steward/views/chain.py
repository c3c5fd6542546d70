"""Whether the ledger's chain is unbroken: its newest entries at every view, all of it when somebody asks."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from steward.errors import ArtifactDamaged, StoreUnavailable
from steward.io.ledger import GENESIS
from steward.io.workspace import Workspace

CHECKED = 2_000
"""Newest entries that are checked at every view: about a twentieth of a second."""
KIND, NEWEST = "chain", "newest"
"""Where the store keeps what the last full walk found."""
MOST_PROBLEMS = 20


@dataclass(frozen=True)
class ChainState:
    """What is known of the chain.

    Attributes
    ----------
    ok : False if a problem was found, by the check of the newest entries now or by the last full one.
    entries : in the ledger now.
    head : digest of the newest entry.
    checked : newest entries that were checked now.
    verified_at, verified_entries, verified_by : the last time that all of it was walked; None if never.
    problems : a sentence each.
    """

    ok: bool
    entries: int
    head: str
    checked: int
    verified_at: datetime | None
    verified_entries: int | None
    verified_by: str | None
    problems: tuple[str, ...]
    says: str


def chain_state(workspace: Workspace) -> ChainState:
    """The chain without walking all of it."""
    entries, head = workspace.ledger.size()
    report = workspace.ledger.verify(after=max(0, entries - CHECKED))
    last, gone = _last(workspace)
    problems = [*(problem.detail for problem in report.problems), *(last or {}).get("problems", []), *gone]
    return ChainState(
        ok=not problems,
        entries=entries,
        head=head,
        checked=report.entries,
        verified_at=datetime.fromisoformat(last["at"]) if last else None,
        verified_entries=last["entries"] if last else None,
        verified_by=last["by"] if last else None,
        problems=tuple(problems),
        says=_says(len(problems), report.entries, last),
    )


def verify_chain(workspace: Workspace, *, by: str, at: datetime) -> ChainState:
    """Walk all of it, and keep what was found for `chain_state`. Takes seconds for a large ledger."""
    last, _ = _last(workspace)
    report = workspace.ledger.verify(last["head"] if last else None)
    found = {
        "at": at.isoformat(),
        "by": by,
        "entries": report.entries,
        "head": report.head if report.ok or not last else last["head"],
        "problems": [problem.detail for problem in report.problems[:MOST_PROBLEMS]],
    }
    workspace.store.write_record(KIND, NEWEST, found)
    return chain_state(workspace)


def _last(workspace: Workspace) -> tuple[dict[str, Any] | None, list[str]]:
    """What the last full walk found, and what speaks against it now: its newest entry has to be there still."""
    try:
        last = workspace.store.read_record(KIND, NEWEST)
    except ArtifactDamaged as problem:
        return None, [f"the record of the last verification is damaged ({problem.got})"]
    except StoreUnavailable:
        return None, []
    if last is None or last["head"] == GENESIS or workspace.ledger.holds(last["head"]):
        return last, []
    return last, [
        f"the entry that was the newest on {last['at'][:10]} is gone: entries were cut off, or all were written anew"
    ]


def _says(problems: int, checked: int, last: dict[str, Any] | None) -> str:
    if problems:
        return f"The chain is broken: {problems} {'problem' if problems == 1 else 'problems'}; restore the ledger from a backup."
    whole = (
        f"all {last['entries']:,} were on {last['at'][:10]}, by {last['by']}" if last else "the whole was never checked"
    )
    return f"Unbroken over the newest {checked:,} entries, just now; {whole}."
