"""Test rows: how many are sealed, who opened which, and how many verdicts the rest can carry."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import Any, ClassVar

from steward.config import ModelFile
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.records import Estimate
from steward.views.overview import Sealed, sealed_rows
from steward.views.states import known

KINDS = ("trigger", "opening", "opening_result", "verdict", "promotion", "decision")
LOOKS = 60
"""Newest looks from which the pace of sealed rows is taken."""
FEWEST_LOOKS = 7


@dataclass(frozen=True)
class Opening:
    """Sealed rows that were scored once.

    Attributes
    ----------
    by : who asked for the training, and `reason` why.
    version : what the challenger was registered as; None if it was not.
    """

    number: int
    at: datetime
    by: str | None
    reason: str | None
    rows: int
    challenger: str
    candidate: str
    verdict: str | None
    difference: Estimate | None
    metric: str | None
    version: int | None
    promoted: bool
    sequence: int


@dataclass(frozen=True)
class TestRows:
    """The sealed rows of a model.

    Attributes
    ----------
    sealed : rows that no model has been scored on; None where nobody has counted them, and `says` tells how to.
    counted_at : when they were counted.
    needed : rows that one verdict needs at `confidence` (80 % power) to find a difference of `detect`.
    supports : promotions that the sealed rows can support: sealed // needed. One opening uses all rows that are sealed at
        its time, so that these many are reached only if trainings are spread over as many openings.
    missing : labelled rows that must still arrive before the next verdict is possible; 0 if it is.
    per_week : sealed rows that arrived per week lately; None if unknown.
    """

    __test__: ClassVar[bool] = False

    model: str
    sealed: int | None
    counted_at: datetime | None
    needed: int | None
    detect: float
    confidence: float
    share: float
    """Of new rows that become test rows: `split.test`."""
    supports: int | None
    missing: int | None
    per_week: float | None
    opened: int
    """Rows of all openings."""
    openings: tuple[Opening, ...]
    """Newest first."""
    says: str


def test_rows(workspace: Workspace, model: ModelFile, at: datetime) -> TestRows:
    """Sealed and opened rows of a model.

    Raises
    ------
    LedgerUnavailable
    """
    [found] = known(workspace, [model], at)
    entries = workspace.ledger.entries(model.name, KINDS)
    figures = [entry.body["figures"] for entry in entries if entry.body.get("figures", {}).get("sealed") is not None]
    openings = tuple(_openings(entries))[::-1]
    sealed = sealed_rows(found)
    needed = figures[-1].get("needed") if figures else None
    plan = (sealed.value, needed) if sealed.value is not None and needed else None
    missing = ceil(max(0, plan[1] - plan[0]) / model.split.test) if plan else None
    return TestRows(
        model=model.name,
        sealed=sealed.value,
        counted_at=sealed.counted_at,
        needed=needed,
        detect=model.verify.detect,
        confidence=model.verify.confidence,
        share=model.split.test,
        supports=plan[0] // plan[1] if plan else None,
        missing=missing,
        per_week=_per_week(figures),
        opened=sum(one.rows for one in openings),
        openings=openings,
        says=_says(model, sealed, needed, missing),
    )


test_rows.__test__ = False  # type: ignore[attr-defined]


def _openings(entries: Sequence[Entry]) -> Iterator[Opening]:
    """Each opening with what led to it and what came of it; entries are in the order of the ledger."""
    verdicts = {entry.subject: entry for entry in entries if entry.kind == "verdict"}
    results = {entry.subject: entry.body for entry in entries if entry.kind == "opening_result"}
    asked: Entry | None = None
    for number, entry in enumerate(entries):
        asked = entry if entry.kind == "trigger" else asked
        if entry.kind == "opening":
            verdict = verdicts.get(entry.body["digest"])
            became = _became(entries[number:], verdict) if verdict else None
            result = results.get(entry.subject, {})
            yield Opening(
                number=int(entry.subject),
                at=entry.at,
                by=asked.body["by"] if asked else None,
                reason=asked.body["reason"] if asked else None,
                rows=entry.body["rows"],
                challenger=entry.body["digest"],
                candidate=entry.body["name"],
                verdict=verdict.body["verdict"] if verdict else None,
                difference=Estimate.model_validate(result["difference"]) if result else None,
                metric=result.get("metric"),
                version=became.body["version"] if became else None,
                promoted=became is not None and became.body["alias"] == "champion",
                sequence=entry.sequence,
            )


def _became(entries: Sequence[Entry], verdict: Entry) -> Entry | None:
    """What the pipeline made of a verdict: the first entry after it that is not somebody's own act."""
    later = (one for one in entries if one.kind == "promotion" and one.sequence > verdict.sequence)
    return next((one for one in later if "act" not in one.body), None)


def _per_week(figures: Sequence[dict[str, Any]]) -> float | None:
    """Sealed rows that came, over the last looks; what an opening took away does not count."""
    recent = figures[-LOOKS:]
    if len(recent) < FEWEST_LOOKS:
        return None
    came = sum(max(0, after["sealed"] - before["sealed"]) for before, after in pairwise(recent))
    first, last = (datetime.fromisoformat(one["end"]) for one in (recent[0], recent[-1]))
    return came / ((last - first) / timedelta(weeks=1)) if last > first else None


def _says(model: ModelFile, sealed: Sealed, needed: int | None, missing: int | None) -> str:
    if sealed.value is None:
        return f"Nobody has counted the sealed rows: {sealed.why}."
    if not needed or missing is None:
        return f"{sealed.value:,} sealed rows ({sealed.why}); the next look tells how many a verdict needs."
    wanted = f"a verdict at {model.verify.confidence:g} confidence that finds {model.verify.detect:g} needs {needed:,}"
    if missing:
        return f"{sealed.value:,} sealed rows; {wanted}: about {missing:,} more labelled rows have to arrive first."
    return f"{sealed.value:,} sealed rows; {wanted}: one opening is possible, and takes all of them."
