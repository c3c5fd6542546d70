"""A model's past as points and events: what one picture of it is drawn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from steward.config import ERRORS
from steward.io.ledger import Entry
from steward.records import Estimate, figure
from steward.views.entries import actor, describe, version_of
from steward.views.states import estimate

Happening = Literal["champion", "rollback", "alarm", "trigger", "training", "failure", "verdict", "approval"]


@dataclass(frozen=True)
class Window:
    """What one look found, without opening any file.

    Attributes
    ----------
    live : the model's metric on labelled rows of `rows`; None where none was known yet.
    estimate : what was expected before labels, in `estimate_metric`.
    served : predictions of the window; None where the rows came from the source.
    alarms : columns that were in alarm. `falling` : the champion was known to be worse than verified.
    """

    start: datetime
    end: datetime
    version: int
    rows: int
    served: int | None
    live: Estimate | None
    labelled: int
    metric: str | None
    floor: float | None
    verified: Estimate | None
    estimate: Estimate | None
    estimate_metric: str | None
    expected_loss: float | None
    alarms: tuple[str, ...]
    falling: bool
    quality: int
    """Findings of the quality check."""
    train: bool
    """Whether the governor said to train."""
    says: str
    """What the governor decided and why."""
    sequence: int
    """Entry of the ledger."""


@dataclass(frozen=True)
class Event:
    """Something that happened at a moment.

    Attributes
    ----------
    version : the version that it concerns, where it concerns one.
    outcome : of a verdict `promote`, `hold` or `reject`; of an approval its decision; else None.
    """

    at: datetime
    kind: Happening
    says: str
    by: str | None
    version: int | None
    outcome: str | None
    sequence: int


@dataclass(frozen=True)
class Timeline:
    """Windows and events of a time, oldest first.

    Attributes
    ----------
    every : 1 where each look is there; n where a long past is thinned to every nth (looks that raised an alarm, changed the
        version or asked for a training are always there).
    says : the picture in words, for those who cannot see it.
    """

    metric: str
    larger_is_better: bool
    windows: tuple[Window, ...]
    events: tuple[Event, ...]
    looks: int
    every: int
    since: datetime | None
    until: datetime | None
    says: str


def windows_of(entries: Sequence[Entry]) -> list[Window]:
    """The looks behind entries `decision`, oldest first; those of an older Steward, which kept no figures, are not there."""
    found = [_window(entry, figures) for entry in entries if (figures := entry.body.get("figures", {})).get("end")]
    return sorted(found, key=lambda window: window.end)


def _window(entry: Entry, figures: dict[str, Any]) -> Window:
    return Window(
        start=datetime.fromisoformat(figures["start"]),
        end=datetime.fromisoformat(figures["end"]),
        version=figures["version"],
        rows=figures["rows"],
        served=figures["rows"] if figures["origin"] == "predictions" else None,
        live=estimate(figures.get("live")),
        labelled=figures.get("labelled", 0),
        metric=figures.get("metric"),
        floor=figures.get("floor"),
        verified=estimate(figures.get("verified")),
        estimate=estimate(figures.get("estimate")),
        estimate_metric=figures.get("estimate_metric"),
        expected_loss=(figures.get("expected_loss") or [None])[0],
        alarms=tuple(sorted(figures.get("since", ()))),
        falling=bool(figures.get("fallen_since") or figures.get("alarm_since")),
        quality=figures.get("quality", 0),
        train=entry.body["train"],
        says=describe(entry),
        sequence=entry.sequence,
    )


def within(windows: Sequence[Window], since: datetime | None, until: datetime | None) -> list[Window]:
    """Windows that ended from a moment (included) to another (included)."""
    return [one for one in windows if (since is None or one.end >= since) and (until is None or one.end <= until)]


def thinned(windows: Sequence[Window], most: int) -> tuple[tuple[Window, ...], int]:
    """At most about so many windows, and every how many-th is kept beside those in which something changed."""
    every = -(-len(windows) // most) or 1
    if every == 1:
        return tuple(windows), 1
    changed = {after.end for before, after in pairwise(windows) if _changes(before, after)}
    last = (len(windows) - 1) % every
    kept = (one for place, one in enumerate(windows) if place % every == last or one.end in changed)
    return tuple(kept), every


def _changes(before: Window, after: Window) -> bool:
    news = bool(set(after.alarms) - set(before.alarms)) or after.falling > before.falling
    return news or after.version != before.version or after.train


def events_of(entries: Sequence[Entry], windows: Sequence[Window]) -> tuple[Event, ...]:
    """What happened, oldest first: what people and the pipeline did, and alarms when they began."""
    done = (event for entry in entries if (event := _event(entry)) is not None)
    return tuple(sorted([*done, *alarms_of(windows)], key=lambda event: (event.at, event.sequence)))


def _event(entry: Entry) -> Event | None:
    """None for an entry that is told by another one, or is no event."""
    kinds: dict[str, Happening | None] = {
        "promotion": _promoted(entry),
        "trigger": "trigger" if "decision" in entry.body else "training",
        "failure": "failure",
        "verdict": "verdict",
        "approval": "approval",
    }
    kind = kinds.get(entry.kind)
    if kind is None:
        return None
    outcome = (
        entry.body.get("verdict" if kind == "verdict" else "decision") if kind in ("verdict", "approval") else None
    )
    return Event(entry.at, kind, describe(entry), actor(entry), version_of(entry), outcome, entry.sequence)


def _promoted(entry: Entry) -> Happening | None:
    if entry.body.get("alias") != "champion":
        return None
    return "rollback" if entry.body.get("act") == "rollback" else "champion"


def alarms_of(windows: Sequence[Window]) -> tuple[Event, ...]:
    """When each alarm began."""
    return tuple(_alarms(windows))


def _alarms(windows: Sequence[Window]) -> Iterator[Event]:
    columns: set[str] = set()
    falling = False
    for one in windows:
        news = sorted(set(one.alarms) - columns)
        if news:
            yield _alarm(one, f"drift in {', '.join(news)}")
        if one.falling and not falling:
            how = f": live {one.metric} {one.live.shown}" if one.live else ""
            yield _alarm(one, f"answers are wrong more often than verified{how}")
        columns, falling = set(one.alarms), one.falling


def _alarm(window: Window, says: str) -> Event:
    return Event(window.end, "alarm", says, "monitor", window.version, None, window.sequence)


def timeline(
    entries: Sequence[Entry], windows: Sequence[Window], metric: str, since: datetime | None, until: datetime, most: int
) -> Timeline:
    """The past of a model between two moments, from its entries and the looks among them."""
    looks = within(windows, since, until)
    kept, every = thinned(looks, most)
    events = tuple(one for one in events_of(entries, windows) if one.at <= until and (since is None or one.at >= since))
    moments = [*(one.end for one in looks), *(one.at for one in events)]
    return Timeline(
        metric=metric,
        larger_is_better=metric not in ERRORS,
        windows=kept,
        events=events,
        looks=len(looks),
        every=every,
        since=min(moments, default=None),
        until=max(moments, default=None),
        says=_says(looks, events),
    )


def _says(looks: Sequence[Window], events: Sequence[Event]) -> str:
    if not looks and not events:
        return "Nothing is on record of this time."
    live = [one for one in looks if one.live]
    said = [f"{len(looks):,} looks" if len(looks) != 1 else "One look"]
    if live and live[0].live and live[-1].live:
        said.append(f"live {live[-1].metric} from {figure(live[0].live.value)} to {figure(live[-1].live.value)}")
    for kind, name in (
        ("alarm", "alarms"),
        ("training", "trainings"),
        ("champion", "new champions"),
        ("rollback", "rollbacks"),
    ):
        count = sum(event.kind == kind for event in events)
        said += [f"{count} {name if count != 1 else name[:-1]}"] if count else []
    return f"{'; '.join(said)}."
