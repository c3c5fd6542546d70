"""The page of a model: its past in one picture, and everything that is known of it now."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup

from steward.io.latencies import Latency
from steward.reports import formats, heat, plots, timeline
from steward.reports.drawing import svg
from steward.reports.sparkline import columns
from steward.reports.templating import environment
from steward.views.model import ModelPage
from steward.views.timeline import Timeline

HOUR = timedelta(hours=1)
RANGES = {"30 days": timedelta(days=30), "90 days": timedelta(days=90), "1 year": timedelta(days=365)}


def render(page: ModelPage, frame: Mapping[str, Any]) -> str:
    """The page as HTML.

    Parameters
    ----------
    frame : what `base.html` draws around it, and `link(kind, **names)`.
    """
    shown = {
        "pictures": {**drawn(page.timeline, "timeline"), **_pictures(page)},
        "heat": heat.table(page.drift),
        "waits": _waits(page),
        "since": {name: page.at - length for name, length in RANGES.items()},
    }
    return environment().get_template("model.html").render(page=page, **shown, **frame)


def drawn(past: Timeline, name: str, always: Collection[str] = timeline.ALWAYS) -> dict[str, Markup]:
    """The timeline for a desk and for a hand; nothing where nobody has looked yet."""
    if not past.windows:
        return {}
    widths = {"wide": timeline.WIDE, "narrow": timeline.NARROW}
    return {
        kind: svg(timeline.draw(past, width, always), f"{name}-{kind}", past.says) for kind, width in widths.items()
    }


def _pictures(page: ModelPage) -> dict[str, Markup]:
    found = {}
    curves = {"at verification": page.verified, "now": page.now}
    known = {name: one.calibration for name, one in curves.items() if one.calibration}
    if known:
        text = "Share of right answers by confidence; the same figures are in the table below"
        found["calibration"] = svg(plots.reliability(known), "calibration", text)
    if page.traffic.days:
        days = page.traffic.days
        peak = max(day.per_day for day in days)
        text = f"Predictions per day over {len(days)} looks; at most {formats.number(peak)} per day"
        found["traffic"] = columns([day.per_day for day in days], text)
    if page.traffic.hours:
        found["latency"] = _latency(page.traffic.hours, page.at)
    return found


def _latency(hours: Mapping[datetime, Latency], at: datetime) -> Markup:
    """Mean time of a request in each of the last 24 hours; nothing where there was none."""
    newest = at.replace(minute=0, second=0, microsecond=0)
    means = [hours[start].mean if (start := newest - number * HOUR) in hours else 0.0 for number in range(24, -1, -1)]
    slowest = formats.duration(1e6 * max(means))
    return columns(means, f"Mean time of a request, hour by hour of the last day; at most {slowest}")


def _waits(page: ModelPage) -> list[tuple[str, float, float, str]]:
    """What the governor waits for, as bars: a name, how much is there, how much it takes, and both in words."""
    state = page.governor
    bars: list[tuple[str, float, float, str]] = []
    if state.needed is not None and state.sealed is not None:
        told = f"{state.sealed:,} of {state.needed:,} sealed rows that a verdict needs"
        bars.append(("Sealed rows", state.sealed, state.needed, told))
    if state.new_rows_wanted and state.new_rows is not None:
        told = f"{state.new_rows:,} of {state.new_rows_wanted:,} labelled rows since the last training"
        bars.append(("New rows", state.new_rows, state.new_rows_wanted, told))
    if state.cooldown and state.last_training:
        passed = min(page.at - state.last_training, state.cooldown)
        over = state.cooldown_until is None
        told = "over" if state.cooldown_until is None else f"until {formats.moment(state.cooldown_until)}"
        told += f": {formats.span(state.cooldown)} after a training that a trigger asked for"
        bars.append(("Cooldown", 1 if over else passed / state.cooldown, 1, told))
    told = f"{state.used} of {state.allowed} trainings that triggers may ask for in seven days"
    return [*bars, ("Budget", state.used, state.allowed, told)]
