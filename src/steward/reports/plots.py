"""Plots of a training as matplotlib figures, which become SVG for a card or PNG for MLflow.

Colours are Okabe and Ito's, told apart by colour-blind readers too. In an SVG they are CSS variables, so that a card is
readable in light and in dark.
"""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward.records import Candidate, Estimate

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
BINS = 10
SMALLEST_BIN = 5
MOST_POINTS = 2_000
Figure = Any
Values = NDArray[Any]


def intervals(
    estimates: Mapping[str, Estimate], label: str, marked: str | None = None, *, share: bool = False
) -> Figure:
    """Each value as a dot with its interval as a whisker, one line per name, the first at the top.

    Parameters
    ----------
    marked : the name to point out; all if None.
    share : are the values shares, which people read as per cent?
    """
    from matplotlib.ticker import PercentFormatter

    figure, axes = _figure(height=0.75 + 0.42 * max(1, len(estimates)))
    for line, (name, estimate) in enumerate(reversed(list(estimates.items()))):
        colour = PALETTE[0] if name == marked or marked is None else MUTED
        axes.plot([estimate.low, estimate.high], [line, line], color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot([estimate.value], [line], "o", color=colour, markersize=8, markeredgecolor=SURFACE)
    axes.set_yticks(range(len(estimates)), [_plain(name) for name in estimates][::-1])
    axes.set_ylim(-0.6, len(estimates) - 0.4)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(_plain(label))
    if share:
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
    return figure


def search_curves(candidates: Sequence[Candidate]) -> Figure:
    """The best loss so far over the trials of each candidate; single trials as faint dots where there is one curve."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(height=3.4)
    shown = [candidate for candidate in candidates if any(trial.loss is not None for trial in candidate.trials)]
    for number, candidate in enumerate(shown):
        colour = PALETTE[number % len(PALETTE)]
        tried = [(trial.number + 1, trial.loss) for trial in candidate.trials if trial.loss is not None]
        steps, losses = zip(*tried, strict=True)
        if len(shown) == 1:
            axes.plot(steps, losses, "o", color=colour, alpha=0.35, markersize=4)
        axes.step(
            steps, np.minimum.accumulate(losses), where="post", color=colour, linewidth=2, label=_words(candidate.name)
        )
    axes.set_xlabel("trial")
    axes.set_ylabel("best loss so far")
    axes.xaxis.set_major_locator(MaxNLocator(TICKS, integer=True))
    if len(shown) > 1:
        figure.legend(frameon=False, labelcolor=INK, fontsize=9, loc="outside upper left", ncols=3)
    return figure


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Rows by true class, columns by predicted class; the shade is the share of the true class."""
    table = np.asarray(counts, dtype=float).reshape(len(classes), len(classes))
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = min(5.4, 1.9 + 0.75 * len(classes))
    figure, axes = _figure(width=min(WIDTH, size + 1.2), height=size)
    axes.grid(visible=False)
    many = len(classes) > BINS
    for (true, predicted), count in np.ndenumerate(table):
        if many and count == 0:
            continue
        share = float(shares[true, predicted])
        place = (predicted - 0.5, true - 0.5)
        axes.add_patch(_rectangle(place, PALETTE[0] if true == predicted else PALETTE[1], 0.06 + 0.5 * share))
        if not many:
            told = f"{count:,.0f}\n{share:.0%}"
            axes.text(predicted, true, told, ha="center", va="center", fontsize=10, color=INK, in_layout=False)
    axes.set_xlim(-0.5, len(classes) - 0.5)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    names = [_plain(name) for name in classes]
    axes.set_xticks(range(len(classes)), names, rotation=0 if len(classes) <= 5 else 45)  # noqa: PLR2004
    axes.set_yticks(range(len(classes)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    return figure


def calibration(truth: Values, probabilities: Values, classes: Sequence[str]) -> Figure:
    """How often an answer given with some confidence was right, in ten bins of confidence.

    Parameters
    ----------
    truth : class names, shape (n,).
    probabilities : shape (n, k), columns as `classes`.
    """
    figure, axes = _figure(width=5.2, height=3.9)
    confidence = probabilities.max(axis=1)
    right = np.asarray(classes, dtype=object)[probabilities.argmax(axis=1)] == truth
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    kept = [number for number in range(BINS) if (bins == number).sum() >= SMALLEST_BIN]
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    means = [float(confidence[bins == number].mean()) for number in kept]
    shares = [float(right[bins == number].mean()) for number in kept]
    sizes = np.array([float((bins == number).sum()) for number in kept])
    axes.plot(means, shares, color=PALETTE[0], linewidth=1.6)
    axes.scatter(means, shares, s=30 + 150 * sizes / max(sizes.max(initial=1), 1), color=PALETTE[0], zorder=3)
    lowest = max(0.0, min([1.0, *means, *shares]) - 0.1)
    axes.set_xlim(lowest, 1.02)
    axes.set_ylim(lowest, 1.02)
    axes.set_xlabel("confidence of the answer")
    axes.set_ylabel("share of right answers")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="upper left")
    return figure


def residuals(truth: Values, predictions: Values) -> Figure:
    """Predicted against true values; at most 2,000 evenly chosen rows."""
    figure, axes = _figure(width=5.2, height=3.9)
    chosen = np.linspace(0, len(truth) - 1, min(len(truth), MOST_POINTS)).astype(int)
    axes.plot(truth[chosen], predictions[chosen], "o", color=PALETTE[0], alpha=0.35, markersize=4, markeredgewidth=0)
    ends = [float(min(truth.min(), predictions.min())), float(max(truth.max(), predictions.max()))]
    axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlabel("true value")
    axes.set_ylabel("predicted value")
    return figure


def of_candidate(candidate: Candidate, truth: Values, predictions: Values, classes: Sequence[str]) -> dict[str, bytes]:
    """A candidate's plots for its MLflow run: PNG by file name.

    Parameters
    ----------
    truth, predictions : of the rows that choose; probabilities of shape (n, k), or values of shape (n,).
    """
    plots = {"search.png": png(search_curves([candidate]))} if candidate.trials else {}
    if not classes:
        return plots | {"predicted_against_true.png": png(residuals(truth, predictions))}
    return plots | {
        "confusion_matrix.png": png(confusion(count_confusion(truth, predictions, classes), classes)),
        "calibration.png": png(calibration(truth, predictions, classes)),
    }


def count_confusion(truth: Values, probabilities: Values, classes: Sequence[str]) -> list[list[int]]:
    """Rows by true class and predicted class."""
    position = {name: number for number, name in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(table, ([position[str(name)] for name in truth], probabilities.argmax(axis=1)), 1)
    return [[int(count) for count in row] for row in table]


def png(figure: Figure) -> bytes:
    """The figure as PNG on its own background."""
    content = BytesIO()
    figure.set_dpi(DOTS_PER_INCH)
    with _drawing():  # `savefig` would draw twice: once more to find the margins, which drawing does anyway
        figure.canvas.print_png(content, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    return content.getvalue()


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element to put into a page; the same figure gives the same text.

    Parameters
    ----------
    name : unique on the page, plain letters.
    description : what somebody who does not see it should know.
    """
    import matplotlib as mpl

    content = StringIO()
    with _drawing(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|xlink:href="#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    described = f'<svg role="img" aria-label="{escape(description)}"'
    return re.sub(
        r'<svg|(?<= )(?:width|height)="[\d.]+pt"', lambda m: described if m[0] == "<svg" else "", text, count=3
    )


def _figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Any]:
    """One pair of axes; no pyplot, which keeps every figure alive and belongs to one thread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as MatplotlibFigure

    figure = MatplotlibFigure(figsize=(width, height), layout="constrained", facecolor=SURFACE)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=SURFACE)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=10, length=3)
    axes.locator_params(nbins=TICKS)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    return figure, axes


def _rectangle(place: tuple[float, float], colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(place, 1, 1, facecolor=colour, alpha=alpha, edgecolor=SURFACE, linewidth=2)


def _words(name: str) -> str:
    """A candidate's name in words; matplotlib would hide a label that begins with `_`."""
    return _plain(name.replace("_", " ").strip() or "unnamed")


def _plain(name: str) -> str:
    """A name from a file, to be drawn as it is: matplotlib reads what is between two dollars as a formula."""
    return name.replace("$", r"\$")


@contextmanager
def _drawing() -> Iterator[None]:
    """Names come from files: they are drawn whatever their letters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
