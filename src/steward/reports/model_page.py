"""The page of a model: its past in one picture, and everything that is known of it now."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from markupsafe import Markup

from steward.reports import formats, heat, plots, timeline
from steward.reports.drawing import svg
from steward.reports.sparkline import columns
from steward.reports.templating import environment
from steward.views.model import ModelPage
from steward.views.timeline import Timeline

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


def drawn(past: Timeline, name: str) -> dict[str, Markup]:
    """The timeline for a desk and for a hand; nothing where nobody has looked yet."""
    if not past.windows:
        return {}
    widths = {"wide": timeline.WIDE, "narrow": timeline.NARROW}
    return {kind: svg(timeline.draw(past, width), f"{name}-{kind}", past.says) for kind, width in widths.items()}


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
    return found


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
        told = f"{formats.span(state.cooldown)} after a training that a trigger asked for; "
        told += "over" if state.cooldown_until is None else f"until {formats.moment(state.cooldown_until)}"
        over = state.cooldown_until is None
        bars.append(("Cooldown", 1 if over else passed / state.cooldown, 1, told))
    told = f"{state.used} of {state.allowed} trainings that triggers may ask for in seven days"
    return [*bars, ("Budget", state.used, state.allowed, told)]
