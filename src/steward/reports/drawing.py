"""How a plot gets onto a page: a matplotlib figure becomes SVG whose colours are those of the page, or PNG for MLflow.

Colours are Okabe and Ito's, told apart by colour-blind readers too. In an SVG they are CSS variables, so that it is
readable in light and in dark; and nothing in it needs a style that a strict content security policy refuses.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from io import BytesIO, StringIO
from threading import Lock
from typing import Any

from markupsafe import Markup

INK, MUTED, GRID, SURFACE = "#1c1d22", "#6a6d78", "#dcdde3", "#fdfdfe"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    SURFACE: "var(--surface)",
    **{colour: f"var(--plot-{number})" for number, colour in enumerate(PALETTE)},
}
WIDTH, HEIGHT = 6.0, 4.0
DOTS_PER_INCH = 110
TICKS = 5
"""Steps of an axis, at most; they are half of what a drawing costs."""
Figure = Any
Axes = Any
ONE_AT_A_TIME = Lock()
"""matplotlib's settings are those of the process, and pages are made by several threads."""


def figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """One pair of axes, inches; no pyplot, which keeps every figure alive and belongs to one thread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    drawn = MatplotlibFigure(figsize=(width, height), layout="constrained", facecolor=SURFACE)
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot(facecolor=SURFACE)
    dress(axes)
    axes.locator_params(nbins=TICKS)
    return drawn, axes


def dress(axes: Axes) -> None:
    """Axes in the page's colours."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=10, length=3)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)


def plain(name: str) -> str:
    """A name from a file, to be drawn as it is: matplotlib reads what is between two dollars as a formula."""
    return name.replace("$", r"\$")


def png(drawn: Figure) -> bytes:
    """The figure as PNG on its own background.

    Here and below the canvas prints: `savefig` would draw twice, once more to find the margins, which drawing does anyway.
    """
    content = BytesIO()
    drawn.set_dpi(DOTS_PER_INCH)
    with _drawing():
        drawn.canvas.print_png(content, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    return content.getvalue()


def svg(drawn: Figure, name: str, description: str) -> Markup:
    """The figure as an SVG element to put into a page; the same figure gives the same text.

    Parameters
    ----------
    name : unique on the page, plain letters; every id in the element begins with it.
    description : what somebody who does not see it should know.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    content = StringIO()
    for patch in (drawn.patch, *(axes.patch for axes in drawn.axes)):
        patch.set_visible(False)
    with _drawing(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        canvas: Any = FigureCanvasSVG(drawn)
        canvas.print_svg(content, metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|xlink:href="#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'style="([^"]*)"', _attributes, text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    root = f"<svg {_root(description)} "
    text = re.sub(r"<svg.*?(?=viewBox)", lambda _: root, text, count=1, flags=re.DOTALL)
    return Markup(text)  # noqa: S704 - drawn here, its texts escaped by matplotlib and above


def _root(description: str) -> str:
    shown = f'class="plot" role="img" aria-label="{escape(description)}"'
    return f'{shown} xmlns:xlink="http://www.w3.org/1999/xlink" stroke-linejoin="round"'


def _attributes(style: re.Match[str]) -> str:
    """A style as presentation attributes; the family of a font is that of the page.

    >>> _attributes(re.match('style="(.*)"', 'style="font-size: 10px; font-family: x; fill: none"'))
    'font-size="10px" fill="none"'
    """
    pairs = (part.split(": ", 1) for part in style[1].split("; ") if ": " in part)
    return " ".join(f'{name}="{setting}"' for name, setting in pairs if name != "font-family")


@contextmanager
def _drawing() -> Iterator[None]:
    """Names come from files: they are drawn whatever their letters."""
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
