"""The page of one column at one look: both distributions, and what the test said."""

from collections.abc import Mapping
from typing import Any

from steward.reports import heat, plots
from steward.reports.drawing import svg
from steward.reports.templating import environment
from steward.views.drift import Distribution

NAMES = ("learned from", "this look")


def render(found: Distribution, frame: Mapping[str, Any]) -> str:
    """The page as HTML; `frame` as for a model's page."""
    pairs = {one.name: (one.reference, one.window) for one in found.shares}
    text = f"{found.says} The same shares are in the table below."
    picture = svg(plots.shares(pairs, NAMES), "shares", text) if pairs else ""
    shown = {"picture": picture, "names": NAMES, "units": heat.UNITS, "moved": heat.MOVED}
    return environment().get_template("distribution.html").render(found=found, **shown, **frame)
