"""Word-sized pictures, drawn by hand: a page about 300 models shows as many of them."""

from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from steward.records import Estimate

WIDTH, HEIGHT, MARGIN = 120.0, 28.0, 3.0


def sparkline(estimates: Sequence[Estimate | None], description: str, floor: float | None = None) -> Markup:
    """A line with its interval as a band, the floor dotted, the newest value as a dot; empty without a value.

    Parameters
    ----------
    estimates : oldest first, at even distances; a gap where there is none.
    description : what somebody who does not see it should know.
    """
    known = [(place, one) for place, one in enumerate(estimates) if one is not None]
    if not known:
        return Markup("")
    levels = [level for _, one in known for level in (one.low, one.high)] + ([] if floor is None else [floor])
    bottom, top = min(levels), max(levels)

    def x(place: int) -> str:
        return f"{MARGIN + (WIDTH - 2 * MARGIN) * place / max(1, len(estimates) - 1):.1f}"

    def y(level: float) -> str:
        return f"{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (level - bottom) / ((top - bottom) or 1):.1f}"

    upper = [f"{x(place)},{y(one.high)}" for place, one in known]
    lower = [f"{x(place)},{y(one.low)}" for place, one in reversed(known)]
    line = " ".join(f"{x(place)},{y(one.value)}" for place, one in known)
    place, newest = known[-1]
    parts = [
        f'<polygon class="interval" points="{" ".join(upper + lower)}"/>',
        "" if floor is None else f'<line class="floor" x1="0" x2="{WIDTH:g}" y1="{y(floor)}" y2="{y(floor)}"/>',
        f'<polyline points="{line}"/>',
        f'<circle cx="{x(place)}" cy="{y(newest.value)}" r="2.6"/>',
    ]
    named = f'role="img" aria-label="{escape(description)}"'
    return Markup(  # noqa: S704 - numbers, and a description that is escaped
        f'<svg class="sparkline" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" {named}>{"".join(parts)}</svg>'
    )


def columns(heights: Sequence[float], description: str) -> Markup:
    """A column per value from zero upwards, the newest at the right.

    Parameters
    ----------
    heights : 0 or more, oldest first.
    description : what somebody who does not see it should know.
    """
    top, wide = max(heights, default=0) or 1, 600 / max(1, len(heights))
    bars = [
        f'<rect x="{number * wide:.1f}" y="{60 * (1 - height / top):.1f}" width="{max(0.6, 0.8 * wide):.1f}" '
        f'height="{60 * height / top:.1f}"/>'
        for number, height in enumerate(heights)
    ]
    named = f'role="img" aria-label="{escape(description)}"'
    return Markup(f'<svg class="columns" viewBox="0 0 600 60" preserveAspectRatio="none" {named}>{"".join(bars)}</svg>')  # noqa: S704 - as above
