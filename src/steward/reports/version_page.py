"""The page of a version: how it came about, how it did in production, and how it compares with another."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from steward.records import Estimate
from steward.reports import plots
from steward.reports.card import ENGINES
from steward.reports.drawing import svg
from steward.reports.formats import interval, words
from steward.reports.model_page import drawn
from steward.reports.templating import environment
from steward.views.timeline import Event, Timeline
from steward.views.version import Comparison, VersionPage

LANES = ("champion", "drift alarm", "falling")
"""Of a version's own time; the trainings in it are of other versions."""


def render(page: VersionPage, frame: Mapping[str, Any]) -> str:
    """The page as HTML; `frame` as for a model's page."""
    pictures = drawn(_past(page), "production", LANES) | _pictures(page)
    shown = {"page": page, "pictures": pictures, "engines": ENGINES}
    return environment().get_template("version.html").render(**shown, **frame)


def render_comparison(found: Comparison, frame: Mapping[str, Any]) -> str:
    """Two versions side by side."""
    topics = [(topic, list(lines)) for topic, lines in groupby(found.lines, key=lambda line: line.topic)]
    return environment().get_template("compare.html").render(found=found, topics=topics, **frame)


def _past(page: VersionPage) -> Timeline:
    """The version's own time, as the picture of a model's past takes it."""
    made = page.production
    crowned = [Event(one.since, "champion", one.why, one.by, page.number, None, 0) for one in made.reigns]
    return Timeline(
        metric=page.metric,
        larger_is_better=True,
        windows=made.windows,
        events=(*crowned, *made.alarms),
        looks=made.looks,
        every=made.every,
        since=made.windows[0].start if made.windows else None,
        until=made.windows[-1].end if made.windows else None,
        says=made.says,
    )


def _pictures(page: VersionPage) -> dict[str, Any]:
    found = {}
    if page.test is not None:
        values = {f"version {page.number}": page.test}
        for name, level in (
            (f"version {page.champion_then}, then champion", page.champion_value),
            ("best constant", page.constant),
        ):
            if level is not None:
                values[name] = Estimate(value=level, low=level, high=level)
        text = "; ".join(f"{name}: {interval(value)}" for name, value in values.items())
        label = f"{words(page.metric)} on sealed rows"
        figure = plots.intervals(values, label, f"version {page.number}")
        found["comparison"] = svg(figure, "comparison", text)
    if page.calibration:
        figure = plots.reliability({"at verification": page.calibration})
        found["calibration"] = svg(figure, "calibration", "Share of right answers by confidence, on its sealed rows")
    return found
