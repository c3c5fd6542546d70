"""The page of a replay: what each policy would have cost and gained, drawn."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from steward.reports import drawing
from steward.reports.drawing import INK, MUTED, PALETTE, SURFACE, Figure
from steward.reports.formats import words
from steward.reports.templating import environment, stylesheet

LINES = ("-", "--", ":", "-.")
"""Beside their colours, lines differ in how they are drawn."""
WIDE = 7.5
"""Inches of the picture over time."""


def render(replay: Mapping[str, Any], seconds: Mapping[str, Mapping[str, float]]) -> str:
    """The page as HTML.

    Parameters
    ----------
    replay : the answer of `steward replay --json`.
    seconds : what each policy took, and the trainings that several share.
    """
    metric, courses = words(replay["metric"]), replay["policies"]
    best = max((one["gain"]["value"] for one in courses if one["gain"]), default=0.0)
    described = f"{metric} of {len(courses)} policies over {len(courses[0]['windows'])} windows; the table below has the figures"
    pareto = f"{metric} gained over never training again against retrainings; the table has the figures"
    return environment().get_template("replay.html").render(
        replay=replay,
        seconds=seconds,
        best=best,
        moment=datetime.fromisoformat,
        plots={
            "course": drawing.svg(over_time(courses, metric), "course", described),
            "pareto": drawing.svg(gained(courses, metric), "pareto", pareto),
        },
        document=json.dumps(replay["recommendation"], ensure_ascii=False),
        **stylesheet(),
    )  # fmt: skip


def over_time(courses: Sequence[Mapping[str, Any]], label: str) -> Figure:
    """The metric of every window, a line per policy; a triangle where a new version begins to serve."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    figure, axes = drawing.figure(width=WIDE, height=4.2)
    for number, course in enumerate(courses):
        shown = [one for one in course["windows"] if one["value"] is not None]
        times = [datetime.fromisoformat(one["end"]) for one in shown]
        style = {"color": PALETTE[number % len(PALETTE)], "linestyle": LINES[number // len(PALETTE) % len(LINES)]}
        axes.plot(times, [one["value"] for one in shown], linewidth=1.8, label=drawing.plain(course["name"]), **style)
        changed = [one for one in shown if one["change"]]
        axes.plot(
            [datetime.fromisoformat(one["end"]) for one in changed], [one["value"] for one in changed],
            "^", color=style["color"], markersize=9, markeredgecolor=SURFACE, linestyle="none",
        )  # fmt: skip
    axes.set_ylabel(label)
    locator: Any = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    figure.legend(frameon=False, labelcolor=INK, fontsize=9.5, loc="outside upper left", ncols=4)
    return figure


def gained(courses: Sequence[Mapping[str, Any]], label: str) -> Figure:
    """What each policy gained over never training again, against its retrainings; nothing to the upper left beats a filled dot."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = drawing.figure(width=WIDE, height=4.0)
    axes.axhline(0, color=MUTED, linewidth=1)
    known = [one for one in courses if one["gain"]]
    named: dict[tuple[int, float], list[str]] = {}
    for one in known:
        colour = PALETTE[courses.index(one) % len(PALETTE)]
        gain, asked = one["gain"], one["retrainings"] + one["refused"]
        axes.plot([asked, asked], [gain["low"], gain["high"]], color=colour, linewidth=1.6)
        filled = colour if undominated(one, known) else SURFACE
        axes.plot([asked], [gain["value"]], "o", color=filled, markeredgecolor=colour, markersize=9)
        named.setdefault((asked, round(gain["value"], 3)), []).append(drawing.plain(one["name"]))
    for place, names in named.items():
        axes.annotate(", ".join(names), place, (7, 5), textcoords="offset points", color=INK, fontsize=9.5)
    axes.set_xlabel("trainings that were asked for")
    axes.set_ylabel(f"gain in {label}")
    axes.margins(x=0.18, y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def undominated(course: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no other policy gained as much with fewer trainings, or more with as many."""

    def figures(one: Mapping[str, Any]) -> tuple[float, float]:
        return one["gain"]["value"], -(one["retrainings"] + one["refused"])

    mine = figures(course)
    better = (one for one in map(figures, others) if one != mine)
    return not any(gain >= mine[0] and cheap >= mine[1] for gain, cheap in better)
