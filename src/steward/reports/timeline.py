"""A model's past in one picture: how right it was, what was expected, and what was done about it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward.records import Estimate
from steward.reports import drawing
from steward.reports.drawing import GRID, INK, MUTED, PALETTE, SURFACE, Axes, Figure
from steward.reports.formats import words
from steward.views.timeline import Event, Timeline, Window

WIDE, NARROW = 10.0, 4.0
"""Inches: of a desk, and of a hand."""
LEFT, RIGHT, TOP, ABOVE, BETWEEN, LANE, BOTTOM = 0.92, 0.12, 0.3, 2.2, 0.12, 0.27, 0.45
"""Inches of margins and parts: a layout that is known need not be searched for, which halves what a drawing costs."""
FEW = 60
"""Windows that are shown one by one, as a dot with a whisker; more become a line with a band."""
LANES: dict[str, tuple[str, ...]] = {
    "champion": ("champion", "rollback"),
    "drift alarm": (),
    "falling": (),
    "trainings": ("trigger", "training"),
    "verdicts": ("verdict",),
    "people": ("approval", "rollback"),
    "failures": ("failure",),
}
ALWAYS = ("champion", "drift alarm", "falling", "trainings", "verdicts")
MARKS = {
    "promote": ("^", PALETTE[2]), "hold": ("s", PALETTE[4]), "reject": ("X", PALETTE[1]), "trigger": ("|", MUTED),
    "training": (">", PALETTE[0]), "failure": ("X", PALETTE[1]), "rollback": ("<", PALETTE[3]),
    "approved": ("o", PALETTE[2]), "refused": ("X", PALETTE[1]), "timed_out": ("D", PALETTE[4]),
}  # fmt: skip
SHARES = frozenset({"accuracy", "balanced_accuracy", "f1_macro"})
"""Metrics from 0 to 1, so that an estimate of one may be drawn beside another."""
LETTER = 6.2
"""Points that a letter is wide."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Reign:
    """A time in which one version was the champion."""

    version: int
    start: datetime
    end: datetime


def draw(past: Timeline, width: float = WIDE, always: Collection[str] = ALWAYS) -> Figure:
    """The picture. Above, the metric of every look; below, on the same axis of time, what happened.

    Parameters
    ----------
    past : with at least one window.
    width : inches.
    always : lanes that are there even if nothing is in them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    lanes = [name for name in LANES if name in always or _of(past.events, LANES[name])]
    columns = 4 if width > NARROW else 2
    heights = TOP * (4 // columns), ABOVE, BETWEEN, LANE * len(lanes), BOTTOM
    figure = MatplotlibFigure(figsize=(width, sum(heights)))
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, sharex=True, height_ratios=(ABOVE, LANE * len(lanes)))
    figure.subplots_adjust(
        left=LEFT / width, right=1 - RIGHT / width, top=1 - heights[0] / sum(heights), bottom=BOTTOM / sum(heights),
        hspace=2 * BETWEEN / (ABOVE + LANE * len(lanes)),
    )  # fmt: skip
    for axes in (above, below):
        drawing.dress(axes)
    _draw_metric(above, past)
    _draw_lanes(below, past, lanes, 72 * (width - LEFT - RIGHT))
    _dress_time(below, past, width)
    figure.legend(
        *above.get_legend_handles_labels(), frameon=False, labelcolor=INK, fontsize=9.5, loc="upper left",
        ncols=columns, handlelength=1.8, columnspacing=1.4, borderpad=0,
    )  # fmt: skip
    return figure


def reigns(past: Timeline) -> list[Reign]:
    """Which version was the champion, and when, oldest first."""
    crowned = [(event.at, event.version) for event in _of(past.events, LANES["champion"]) if event.version is not None]
    looked = [(window.start, window.version) for window in past.windows[:1]]
    changes: list[tuple[datetime, int]] = []
    for at, version in sorted(looked + crowned):
        if not changes or changes[-1][1] != version:
            changes.append((at, version))
    ends = [at for at, _ in changes[1:]] + [_ends(past)[1]]
    return [Reign(version, at, end) for (at, version), end in zip(changes, ends, strict=True)]


def _ends(past: Timeline) -> tuple[datetime, datetime]:
    moments = [window.end for window in past.windows] + [event.at for event in past.events]
    return min([past.windows[0].start, *moments]), max(moments)


def _of(events: Sequence[Event], kinds: Sequence[str]) -> list[Event]:
    return [event for event in events if event.kind in kinds]


def _draw_metric(axes: Axes, past: Timeline) -> None:
    """Verified value and floor first, then what is expected, then what is known, on top of them."""
    ends = _numbers([window.end for window in past.windows])
    verified = _values(past, lambda one: one.verified.value if one.verified else None)
    floor = _values(past, lambda one: one.floor)
    _draw_level(axes, past, verified, color=MUTED, linewidth=1.2, label="verified", gid="verified")
    _draw_level(axes, past, floor, color=PALETTE[1], linewidth=1.4, linestyle=(0, (1.5, 2)), label="floor", gid="floor")
    comparable = {past.metric} | (set(SHARES) if past.metric in SHARES else set())
    _draw_estimate(axes, ends, [one.estimate if one.estimate_metric in comparable else None for one in past.windows])
    _draw_live(axes, ends, [one.live for one in past.windows], words(past.metric))
    changes = _numbers([reign.start for reign in reigns(past)[1:]])
    axes.vlines(changes, 0, 1, transform=axes.get_xaxis_transform(), color=MUTED, linewidth=0.8, alpha=0.6)
    _dress_metric(axes, past, floor)


def _draw_level(axes: Axes, past: Timeline, levels: Values, **drawn: Any) -> None:
    """A level that holds throughout each window."""
    if not np.isnan(levels).all():
        begin = _numbers([past.windows[0].start, *(window.end for window in past.windows)])
        axes.step(begin, [levels[0], *levels], where="pre", **drawn)


def _draw_estimate(axes: Axes, ends: Values, estimates: Sequence[Estimate | None]) -> None:
    if any(estimates):
        low, middle, high = _limits(estimates)
        axes.fill_between(ends, low, high, color=PALETTE[4], alpha=0.13, linewidth=0, gid="estimate-interval")
        axes.plot(
            ends, middle, color=PALETTE[4], linewidth=1.4, linestyle=(0, (4, 2.5)), gid="estimate",
            label="estimate before labels",
        )  # fmt: skip


def _draw_live(axes: Axes, ends: Values, live: Sequence[Estimate | None], metric: str) -> None:
    """Dots with whiskers; a line with a band where they would run into each other."""
    if not any(live):
        return
    low, middle, high = _limits(live)
    label = metric
    if len(ends) > FEW:
        axes.fill_between(ends, low, high, color=PALETTE[0], alpha=0.2, linewidth=0, gid="live-interval")
        axes.plot(ends, middle, color=PALETTE[0], linewidth=1.7, label=label, gid="live")
        return
    known = ~np.isnan(middle)
    axes.plot(ends, middle, color=PALETTE[0], linewidth=1, alpha=0.5)
    axes.vlines(ends[known], low[known], high[known], color=PALETTE[0], linewidth=1.8, alpha=0.55, gid="live-interval")
    axes.scatter(
        ends[known], middle[known], s=26, color=PALETTE[0], edgecolor=SURFACE, linewidth=0.8, zorder=4, label=label,
        gid="live",
    )  # fmt: skip


def _dress_metric(axes: Axes, past: Timeline, floor: Values) -> None:
    """Limits that a single window of few rows does not stretch."""
    found = [one for window in past.windows for one in (window.live, window.estimate, window.verified) if one]
    middle = np.array([one.value for one in found] + [number for number in floor if not np.isnan(number)] or [0.5])
    low = np.percentile([one.low for one in found] or middle, 5)
    high = np.percentile([one.high for one in found] or middle, 95)
    bottom, top = min(low, middle.min()), max(high, middle.max())
    room = 0.06 * (top - bottom) or 0.1 * abs(top) or 0.1
    axes.set_ylim(bottom - room, min(1.003, top + room) if past.metric in SHARES else top + room)
    axes.locator_params(axis="y", nbins=drawing.TICKS)
    axes.tick_params(axis="x", length=0)


def _draw_lanes(axes: Axes, past: Timeline, lanes: Sequence[str], points: float) -> None:
    """One lane per kind of happening, so that marks of different kinds never lie upon each other."""
    begin, end = (_numbers(_ends(past))).tolist()
    for place, lane in enumerate(lanes):
        if lane == "champion":
            _draw_reigns(axes, reigns(past), place, points / max(end - begin, 1e-9))
        elif lane == "drift alarm":
            _draw_spans(axes, past.windows, [bool(one.alarms) for one in past.windows], place, "alarms")
        elif lane == "falling":
            _draw_spans(axes, past.windows, [one.falling for one in past.windows], place, "falling")
        else:
            _draw_marks(axes, _of(past.events, LANES[lane]), place, lane)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9.5)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    for place in range(lanes[0] == "champion", len(lanes)):
        axes.axhline(place, color=GRID, linewidth=0.8, zorder=0)


def _draw_reigns(axes: Axes, found: Sequence[Reign], place: int, points_per_day: float) -> None:
    """A bar per version; its name where there is room for it."""
    from matplotlib.patches import Rectangle

    for number, reign in enumerate(found):
        start, end = _numbers([reign.start, reign.end]).tolist()
        colour = PALETTE[0] if number % 2 == 0 else PALETTE[5]
        bar = Rectangle((start, place - 0.37), end - start, 0.74, alpha=0.28, facecolor=colour, edgecolor=SURFACE)
        bar.set_gid(f"champion-{number}")
        axes.add_patch(bar)  # `barh` takes ten times as long
        room = (end - start) * points_per_day
        names = (f"version {reign.version}", f"v{reign.version}")
        name = next((one for one in names if LETTER * len(one) + 6 < room), None)
        if name:
            axes.text((start + end) / 2, place, name, ha="center", va="center", fontsize=9.5, color=INK)


def _draw_spans(axes: Axes, windows: Sequence[Window], marked: Sequence[bool], place: int, name: str) -> None:
    """Marked windows that follow each other are one bar, whatever lies between them: a long past is thinned."""
    found = groupby(zip(windows, marked, strict=True), key=itemgetter(1))
    runs = [[window for window, _ in run] for is_marked, run in found if is_marked]
    spans = [_numbers([run[0].start, run[-1].end]).tolist() for run in runs]
    if spans:
        widths = [(start, end - start) for start, end in spans]
        axes.broken_barh(widths, (place - 0.2, 0.4), color=PALETTE[1], linewidth=1.2, gid=name)


def _draw_marks(axes: Axes, events: Sequence[Event], place: int, lane: str) -> None:
    """A shape and a colour per kind; their meaning is in the lane's name and in the words below the picture."""
    for kind in dict.fromkeys(event.outcome or event.kind for event in events):
        shape, colour = MARKS.get(kind, ("o", MUTED))
        moments = _numbers([event.at for event in events if (event.outcome or event.kind) == kind])
        heights = np.full(len(moments), place, dtype=float)
        edge = {} if shape == "|" else {"edgecolor": SURFACE, "linewidth": 0.7}
        axes.scatter(moments, heights, s=52, marker=shape, color=colour, zorder=3, gid=f"{lane}-{kind}", **edge)


def _dress_time(axes: Axes, past: Timeline, width: float) -> None:
    import matplotlib.dates

    dates: Any = matplotlib.dates

    begin, end = _numbers(_ends(past)).tolist()
    room = max(0.015 * (end - begin), 0.2)
    axes.set_xlim(begin - room, end + room)
    locator = dates.AutoDateLocator(minticks=2, maxticks=8 if width > NARROW else 5)
    axes.xaxis.set_major_locator(locator)
    offsets = ["", "%Y", "%b %Y", "%-d %b %Y", "%-d %b %Y", "%-d %b %Y, %H:%M"]
    named = ["%Y", "%b", "%-d", "%H:%M", "%H:%M", "%S.%f"]
    starts = ["", "%Y", "%b", "%-d %b", "%H:%M", "%H:%M"]
    written = dates.ConciseDateFormatter(locator, formats=named, zero_formats=starts, offset_formats=offsets)
    axes.xaxis.set_major_formatter(written)
    axes.xaxis.get_offset_text().set(color=MUTED, size=9.5)


def _numbers(moments: Sequence[datetime]) -> Values:
    """Days since 1970, as matplotlib counts them."""
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return np.array([(moment - epoch) / timedelta(days=1) for moment in moments], dtype=float)


def _values(past: Timeline, read: Callable[[Window], float | None]) -> Values:
    return np.array([read(window) for window in past.windows], dtype=float)


def _limits(estimates: Sequence[Estimate | None]) -> tuple[Values, Values, Values]:
    """Low, value and high, each NaN where there is none."""
    found: list[tuple[Any, ...]] = [
        (one.low, one.value, one.high) if one else (np.nan, np.nan, np.nan) for one in estimates
    ]
    low, middle, high = np.array(found, dtype=float).T
    return low, middle, high
