"""Plots of a training as matplotlib figures, which `drawing` turns into SVG for a card or PNG for MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward.records import Candidate, Estimate, Reliability
from steward.reports import drawing
from steward.reports.drawing import INK, MUTED, PALETTE, SURFACE, TICKS, WIDTH, Figure, plain, png

BINS = 10
SMALLEST_BIN = 5
MOST_POINTS = 2_000
LONGEST = 28
"""Letters of a value's name beside its bars."""
Values = NDArray[Any]


def intervals(estimates: Mapping[str, Estimate], label: str, marked: str | None = None) -> Figure:
    """Each value as a dot with its interval as a whisker, one line per name, the first at the top.

    Parameters
    ----------
    marked : the name to point out; all if None.
    """
    figure, axes = drawing.figure(height=0.75 + 0.42 * max(1, len(estimates)))
    for line, (name, estimate) in enumerate(reversed(list(estimates.items()))):
        colour = PALETTE[0] if name == marked or marked is None else MUTED
        axes.plot([estimate.low, estimate.high], [line, line], color=colour, linewidth=2.4, solid_capstyle="round")
        axes.plot([estimate.value], [line], "o", color=colour, markersize=8, markeredgecolor=SURFACE)
    axes.set_yticks(range(len(estimates)), [plain(name) for name in estimates][::-1])
    axes.set_ylim(-0.6, len(estimates) - 0.4)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(plain(label))
    return figure


def search_curves(candidates: Sequence[Candidate]) -> Figure:
    """The best loss so far over the trials of each candidate; single trials as faint dots where there is one curve."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = drawing.figure(height=3.4)
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
    figure, axes = drawing.figure(width=min(WIDTH, size + 1.2), height=size)
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
    names = [plain(name) for name in classes]
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
    confidence = probabilities.max(axis=1)
    right = np.asarray(classes, dtype=object)[probabilities.argmax(axis=1)] == truth
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found = [
        Reliability(confidence=confidence[inside].mean(), right=right[inside].mean(), rows=int(inside.sum()))
        for inside in (bins == number for number in range(BINS))
        if inside.sum() >= SMALLEST_BIN
    ]
    return reliability({"answers": found})


def reliability(curves: Mapping[str, Sequence[Reliability]]) -> Figure:
    """How often answers given with some confidence were right, a curve per set of rows; larger dots for more rows."""
    from matplotlib.ticker import PercentFormatter

    figure, axes = drawing.figure(width=4.8, height=3.8)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    for (name, bins), colour, shape in zip(curves.items(), PALETTE, "so^", strict=False):
        means, shares = [one.confidence for one in bins], [one.right for one in bins]
        sizes = np.array([one.rows for one in bins], dtype=float)
        axes.plot(means, shares, color=colour, linewidth=1.6, label=name, marker=shape, markersize=4)
        axes.scatter(
            means,
            shares,
            s=12 + 70 * sizes / sizes.max(initial=1),
            color=colour,
            marker=shape,
            zorder=3,
            gid=name.replace(" ", "-"),
        )
    ends = [end for bins in curves.values() for one in bins for end in (one.confidence, one.right)]
    lowest = max(0.0, min(ends, default=0.5) - 0.1)
    axes.set_xlim(lowest, 1.02)
    axes.set_ylim(lowest, 1.02)
    axes.set_xlabel("confidence of the answer")
    axes.set_ylabel("share of right answers")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.legend(frameon=False, labelcolor=INK, fontsize=9, loc="upper left")
    return figure


def shares(found: Mapping[str, tuple[float, float]], names: tuple[str, str]) -> Figure:
    """Two distributions side by side, a pair of bars per value, the first value at the top.

    Parameters
    ----------
    found : share of the rows by value, in both; `names` : of the two.
    """
    from matplotlib.ticker import PercentFormatter

    figure, axes = drawing.figure(width=7.0, height=0.9 + 0.34 * max(1, len(found)))
    places = np.arange(len(found))
    for number, (name, colour) in enumerate(zip(names, (MUTED, PALETTE[0]), strict=True)):
        lengths = [pair[number] for pair in found.values()]
        bars = axes.barh(places + 0.19 * (2 * number - 1), lengths, 0.36, color=colour, label=name)
        for place, bar in enumerate(bars):
            bar.set_gid(f"bar-{number}-{place}")
    axes.set_yticks(places, [_brief(value) for value in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of rows")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
    figure.legend(frameon=False, labelcolor=INK, fontsize=9, loc="outside upper left", ncols=2)
    return figure


def residuals(truth: Values, predictions: Values) -> Figure:
    """Predicted against true values; at most 2,000 evenly chosen rows."""
    figure, axes = drawing.figure(width=5.2, height=3.9)
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


def _rectangle(place: tuple[float, float], colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(place, 1, 1, facecolor=colour, alpha=alpha, edgecolor=SURFACE, linewidth=2)


def _brief(name: str) -> str:
    """A value's name in one line that leaves room for its bars."""
    line = " ".join(name.split()) or "(empty)"
    return plain(line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…")


def _words(name: str) -> str:
    """A candidate's name in words; matplotlib would hide a label that begins with `_`."""
    return plain(name.replace("_", " ").strip() or "unnamed")
