"""All models at a glance, those that need attention first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from steward.config import ERRORS, ModelFile
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.records import Estimate
from steward.views.entries import describe
from steward.views.states import STATES, Known, Standing, estimate, known, standing

DAY = timedelta(days=1)
DECISIONS = ("promotion", "verdict", "approval", "failure")


@dataclass(frozen=True)
class Point:
    """Live accuracy at the end of a look."""

    at: datetime
    live: Estimate


@dataclass(frozen=True)
class Sealed:
    """Rows that no model has been scored on; `value` is None where nobody has counted them, and `why` says it.

    `counted_at` : the look that has counted them; None for a number that follows from the ledger.
    """

    value: int | None
    why: str
    counted_at: datetime | None = None


@dataclass(frozen=True)
class Row:
    """A model.

    Attributes
    ----------
    champion : number of the version that serves; None if there is none. `champion_since` : when it became that.
    challenger : a version that was verified after it and not promoted.
    live : None where no outcome is known, and `live_why` says so.
    sparkline : live accuracy of the last looks, oldest first; at most 30.
    per_day : served predictions per day in the last look; None where there was none.
    next_look, next_training : by the schedules of the model file; None without one.
    last_decision : what was decided last about retraining or promotion, and when.
    """

    name: str
    description: str
    task: str
    standing: Standing
    champion: int | None
    champion_since: datetime | None
    challenger: int | None
    metric: str
    larger_is_better: bool
    live: Estimate | None
    live_why: str
    floor: float | None
    sparkline: tuple[Point, ...]
    per_day: float | None
    per_day_why: str
    sealed: Sealed
    next_look: datetime | None
    next_training: datetime | None
    last_decision: str | None
    last_decided_at: datetime | None
    looked_at: datetime | None


@dataclass(frozen=True)
class Overview:
    """Every model that the viewer may see, by attention, then by name.

    Attributes
    ----------
    states : how many models stand how, in the order of attention; only those that occur.
    total : models before the search.
    """

    at: datetime
    rows: tuple[Row, ...]
    states: dict[str, int]
    total: int
    search: str
    says: str


def overview(workspace: Workspace, models: Sequence[ModelFile], at: datetime, search: str = "") -> Overview:
    """All models, with a number of queries that does not depend on how many there are.

    Parameters
    ----------
    search : words that have to occur in name, description, state or sentence, in upper or lower case.

    Raises
    ------
    LedgerUnavailable
    """
    found = [row_of(one) for one in known(workspace, models, at)]
    rows = sorted(found, key=lambda row: (*row.standing.attention, row.name))
    words = search.casefold().split()
    counts = Counter(row.standing.state for row in rows)
    states: dict[str, int] = {state: counts[state] for state in STATES if state in counts}
    shown = tuple(row for row in rows if all(word in _text(row) for word in words))
    return Overview(at, shown, states, len(rows), search, _says(states, len(rows), len(shown), search))


def _text(row: Row) -> str:
    return f"{row.name}\n{row.description}\n{row.standing.state}\n{row.standing.says}".casefold()


def _says(states: dict[str, int], total: int, shown: int, search: str) -> str:
    if not total:
        return "No model file yet; `steward init` writes one."
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    searched = f"{shown} of them match {search!r}; " if search.strip() else ""
    return f"{total} {'model' if total == 1 else 'models'}: {searched}{counts}."


def row_of(found: Known) -> Row:
    """A model's line."""
    model, figures, crowned = found.model, found.figures, found.crowned
    metric = figures.get("metric") or model.metric
    decided = _decided(found)
    per_day, why = _per_day(found)
    return Row(
        name=model.name,
        description=model.description,
        task=model.task,
        standing=standing(found),
        champion=found.champion,
        champion_since=crowned.at if crowned and crowned.body["version"] == found.champion else None,
        challenger=found.challenger,
        metric=metric,
        larger_is_better=metric not in ERRORS,
        live=estimate(figures.get("live")),
        live_why=_live_why(found),
        floor=figures.get("floor"),
        sparkline=tuple(Point(at, live) for at, three in found.live if (live := estimate(three))),
        per_day=per_day,
        per_day_why=why,
        sealed=sealed_rows(found),
        next_look=model.monitor.next_look(found.at),
        next_training=model.retrain.next_training(found.at),
        last_decision=describe(decided) if decided else None,
        last_decided_at=decided.at if decided else None,
        looked_at=found.looked_at,
    )


def _decided(found: Known) -> Entry | None:
    """What was decided last; a look that nothing followed from is only named if there is nothing else."""
    told = [one for one in found.looks if one.body["train"] or one.body["refusals"]]
    entries = [*told, *(found.newest[kind] for kind in DECISIONS if kind in found.newest)]
    return max(entries, key=lambda one: one.sequence, default=found.look)


def _live_why(found: Known) -> str:
    figures = found.figures
    if found.champion is None:
        return "no version serves"
    if not figures:
        return f"nobody has looked at version {found.champion} yet; `steward monitor` does"
    if not figures.get("live"):
        return "no labelled row whose time has come"
    begins = figures.get("fallen_since") or figures.get("alarm_since")
    how = f"worse since {begins[:10]}" if begins else "as verified"
    return f"{figures['metric']} on {figures['labelled']:,} labelled rows of version {figures['version']}: {how}"


def _per_day(found: Known) -> tuple[float | None, str]:
    """Of the newest look, at whichever version."""
    figures = found.seen
    if not figures:
        return None, "nobody has looked at it yet"
    if figures["origin"] != "predictions":
        return None, "no served predictions in the last look"
    start, end = (datetime.fromisoformat(figures[name]) for name in ("start", "end"))
    return figures["rows"] / max((end - start) / DAY, 1e-9), f"from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


def sealed_rows(found: Known) -> Sealed:
    """Rows that no model has been scored on, as they were counted last."""
    opening, snapshot = found.newest.get("opening"), found.newest.get("snapshot")
    counted, measured = found.seen.get("sealed"), found.measured
    if measured and counted is not None and (opening is None or opening.sequence < measured.sequence):
        return Sealed(counted, f"counted at the look of {found.looked_at:%Y-%m-%d %H:%M} UTC", found.looked_at)
    if opening is not None and (snapshot is None or snapshot.sequence < opening.sequence):
        return Sealed(0, f"opening {opening.subject} used all of them; new labelled rows bring new ones")
    if snapshot is not None:
        return Sealed(None, "the newest snapshot was not opened; `steward train --dry-run` counts its sealed rows")
    return Sealed(None, "no snapshot was taken yet; `steward train` takes one")
