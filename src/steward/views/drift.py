"""Drift by column and look, and both distributions of a column at a window."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from steward.config import ModelFile
from steward.errors import ArtifactDamaged, VersionUnknown
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.records import Decision, Drift, File, Observation, Reference, ReferenceProfile
from steward.views.timeline import Window

if TYPE_CHECKING:
    from steward.core.profiles import Bins, ColumnProfile

LOOKS = 60
"""Looks that are shown side by side."""
BARS = 20
"""Bars of a distribution, at most about so many."""


@dataclass(frozen=True)
class Cell:
    """A column at a look.

    Attributes
    ----------
    effect : 0 where nothing was found; how much it moved, in the unit of `question`.
    question : what moved: location, spread, shape, missing, unseen; None where nothing was found.
    p : of the strongest finding; None where nothing was found.
    alarm : raised at this look. `lasting` : an alarm that had begun before and has not ended.
    matters : False for a change that is real and negligible.
    touched : share of rows, at most, that it can touch.
    windows : looks that show it best together.
    """

    effect: float = 0.0
    question: str | None = None
    p: float | None = None
    alarm: bool = False
    matters: bool = True
    touched: float | None = None
    windows: int = 1
    lasting: bool = False


@dataclass(frozen=True)
class Look:
    """A column of the heat map: one window."""

    start: datetime
    end: datetime
    version: int
    rows: int
    level: float | None
    """p-value below which a column was in alarm."""


@dataclass(frozen=True)
class DriftMap:
    """Drift by column and look. `cells[i][j]` is column i at look j; columns with the most alarms first, then the largest effect.

    `left_out` : earlier looks that are not shown. `says` : what has moved now, a sentence each.
    """

    columns: tuple[str, ...]
    looks: tuple[Look, ...]
    cells: tuple[tuple[Cell, ...], ...]
    left_out: int
    says: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """A bar of a distribution: a category, or numbers from `low` to `high`."""

    name: str
    low: float | None
    high: float | None
    reference: float
    window: float
    """Shares of the rows, 0 to 1."""


@dataclass(frozen=True)
class Distribution:
    """A column at a look beside the rows that the version learned from. Loads two files of the store.

    Attributes
    ----------
    shares : of the rows that have a value; the reference's shares add up to 1, and so do the window's.
    missing, unseen : shares of all rows: of the reference, of the window.
    values : unseen values and their rows, the most frequent ones.
    findings : what the test said about this column at this look, a sentence each; empty where it was calm.
    """

    model: str
    column: str
    kind: str
    """`number` or `category`; true and false are two categories."""
    start: datetime
    end: datetime
    version: int
    reference_rows: int
    window_rows: int
    shares: tuple[Share, ...]
    missing: tuple[float, float]
    unseen: tuple[float, float]
    values: dict[str, int]
    cell: Cell
    findings: tuple[str, ...]
    says: str


def drift_map(windows: Sequence[Window], entries: Sequence[Entry], columns: Sequence[str]) -> DriftMap:
    """The newest looks among these.

    Parameters
    ----------
    entries : those behind the windows, and perhaps more.
    columns : of the model file; those that looks found something in are added.
    """
    shown = windows[-LOOKS:]
    figures = {entry.sequence: entry.body["figures"] for entry in entries if entry.body.get("figures")}
    seen = [figures[one.sequence] for one in shown]
    names = list(dict.fromkeys([*columns, *(name for one in seen for name in one.get("drift", ()))]))
    cells = {name: tuple(_cell(one, name) for one in seen) for name in names}
    worst = sorted(names, key=lambda name: (*_weight(cells[name]), names.index(name)))
    return DriftMap(
        columns=tuple(worst),
        looks=tuple(_look(one, found) for one, found in zip(shown, seen, strict=True)),
        cells=tuple(cells[name] for name in worst),
        left_out=len(windows) - len(shown),
        says=_says(seen),
    )


def _look(window: Window, figures: Mapping[str, Any]) -> Look:
    return Look(window.start, window.end, window.version, window.rows, figures.get("level"))


def _cell(figures: Mapping[str, Any], column: str) -> Cell:
    lasting = column in figures.get("since", {})
    found = figures.get("drift", {}).get(column)
    if found is None:
        return Cell(lasting=lasting)
    question, effect, p, alarm, matters, touched, windows = found
    return Cell(
        effect=effect, question=question, p=p, alarm=alarm, matters=matters, touched=touched, windows=windows, lasting=lasting
    )  # fmt: skip


def _weight(cells: Sequence[Cell]) -> tuple[bool, int, float]:
    """Sorts columns: in alarm now, then by alarms, then by how surely something was found."""
    now = bool(cells) and (cells[-1].alarm or cells[-1].lasting)
    return not now, -sum(one.alarm for one in cells), min((one.p for one in cells if one.p is not None), default=1.0)


def _says(seen: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    if not seen:
        return ("Nobody has looked at it yet; `steward monitor` does.",)
    since = seen[-1].get("since", {})
    lasting = [f"{name} has moved, since {since[name][:10]}." for name in sorted(since, key=lambda one: since[one])]
    return tuple(lasting) or ("Nothing has moved that an alarm was raised for.",)


def distribution(workspace: Workspace, model: ModelFile, column: str, end: datetime) -> Distribution:
    """Both distributions of a column at the look that ended at a moment.

    Raises
    ------
    VersionUnknown : no look ended then, or it has no such column.
    ArtifactDamaged : its files are gone.
    """
    from steward.core.profiles import Baseline, Profile

    decided = workspace.ledger.find(model.name, Decision.kind, end.astimezone(UTC).isoformat())
    parts = decided.body["parts"] if decided else {}
    if decided is None or Observation.kind not in parts:
        raise VersionUnknown(f"no look at {model.name} ended then", got=end.isoformat(), do="Choose one on its page")
    seen = workspace.load(Observation, Reference.model_validate(parts[Observation.kind]))
    reference = workspace.load(ReferenceProfile, seen.reference)
    baseline = Baseline.read(_content(workspace, reference.file))
    if column not in baseline.bins:
        known_columns = ", ".join(baseline.bins)
        raise VersionUnknown(f"version {seen.version} knows no such column", got=column, allowed=known_columns)
    bins, known = baseline.bins[column], baseline.whole.columns[column]
    found = Profile.read(_content(workspace, seen.profile)).columns[column]
    shares = _shares(bins, known.counts, found.counts)
    return Distribution(
        model=model.name,
        column=column,
        kind=bins.kind,
        start=seen.start,
        end=seen.end,
        version=seen.version,
        reference_rows=known.rows,
        window_rows=found.rows,
        shares=shares,
        missing=(_part(known.missing, known.rows), _part(found.missing, found.rows)),
        unseen=(_part(known.unseen, known.rows), _part(found.unseen, found.rows)),
        values=seen.unseen.get(column, {}),
        cell=_cell(decided.body.get("figures", {}), column),
        findings=_findings(workspace, parts.get(Drift.kind), column),
        says=_in_words(column, [*shares, *_odd(known, found)], found.rows),
    )


def _odd(known: "ColumnProfile", found: "ColumnProfile") -> Iterator[Share]:
    """What has no bar: rows without a value, and with one that training did not know."""
    for name, then, now in (
        ("no value", known.missing, found.missing),
        ("values unknown to training", known.unseen, found.unseen),
    ):
        yield Share(name, None, None, _part(then, known.rows), _part(now, found.rows))


def _content(workspace: Workspace, file: File) -> Any:
    return json.loads(workspace.store.fetch(file).read_bytes())


def _part(rows: float, total: float) -> float:
    return rows / total if total else 0.0


def _findings(workspace: Workspace, part: Any, column: str) -> tuple[str, ...]:
    """What the detector said; nothing where its record is gone."""
    with suppress(ArtifactDamaged):
        found = workspace.load(Drift, Reference.model_validate(part)) if part else None
        return tuple(one.says for one in found.findings if one.column == column) if found else ()
    return ()


def _shares(bins: "Bins", reference: Sequence[int], window: Sequence[int]) -> tuple[Share, ...]:
    """At most `BARS`: neighbouring bins of numbers together, and rare categories as others."""
    groups = _of_numbers(bins, reference) if bins.kind == "number" else _of_levels(bins, reference, window)
    return tuple(Share(name, low, high, _of(reference, mine), _of(window, mine)) for name, low, high, mine in groups)


def _of(counts: Sequence[int], places: Sequence[int]) -> float:
    """The share of these bins."""
    return _part(sum(counts[place] for place in places), sum(counts))


Group = tuple[str, float | None, float | None, Sequence[int]]
"""Name, edges, and the bins in it."""


def _of_numbers(bins: "Bins", reference: Sequence[int]) -> list[Group]:
    """Neighbours together until they hold a bar's share of the reference."""
    groups: list[list[int]] = [[]]
    for place in range(len(reference)):
        if _of(reference, groups[-1]) >= 1 / BARS:
            groups.append([])
        groups[-1].append(place)
    edges = [None, *(float(edge) for edge in bins.bounds), None]
    spans = [(edges[one[0]], edges[one[-1] + 1], one) for one in groups]
    return [(_between(low, high), low, high, one) for low, high, one in spans]


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return "all" if high is None else f"below {high:.4g}"
    return f"{low:.4g} and above" if high is None else f"{low:.4g} to {high:.4g}"


def _of_levels(bins: "Bins", reference: Sequence[int], window: Sequence[int]) -> list[Group]:
    """Those that are most frequent in either; the bin of rare values is among the others."""
    places = range(len(bins.levels))
    shares = {
        place: max(_part(reference[place], sum(reference)), _part(window[place], sum(window))) for place in places
    }
    kept = sorted(sorted(places, key=lambda place: -shares[place])[: BARS - 1])
    others = [place for place in range(len(reference)) if place not in kept]
    groups: list[Group] = [(bins.levels[place], None, None, [place]) for place in kept]
    return [*groups, (f"{len(others)} others", None, None, others)] if others else groups


def _in_words(column: str, shares: Sequence[Share], rows: int) -> str:
    if not rows:
        return f"No row of this look says anything of {column}."
    moved = max(shares, key=lambda one: abs(one.window - one.reference))
    change = f"{moved.name}, {100 * moved.reference:.1f} % of the reference and {100 * moved.window:.1f} % of this look"
    return f"{column} on {rows:,} rows; what changed most: {change}."
