"""The HTML card of a run: one self-contained page, from the data to the decision, without script."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from steward.config import ModelFile
from steward.records import (
    Approval,
    Candidate,
    Challenger,
    Estimate,
    Promotion,
    Reference,
    Roles,
    Selection,
    Snapshot,
    Verdict,
)
from steward.reports import plots

SHARES = frozenset({"accuracy", "balanced_accuracy", "f1_macro"})
"""Metrics that people read as per cent."""

KIB = 1_024


@dataclass(frozen=True)
class Run:
    """Everything that a card tells."""

    model: ModelFile
    snapshot: Snapshot
    roles: Roles
    candidates: tuple[Candidate, ...]
    selection: Selection
    challenger: Challenger
    verdict: Verdict
    lineage: Mapping[str, Reference]
    """Reference by what it leads to, in the order of the run."""
    approval: Approval | None = None
    promotion: Promotion | None = None
    truth: np.ndarray | None = None
    """Of the opened test rows, shape (n,)."""
    predictions: np.ndarray | None = None
    """Of the challenger on them: shape (n, k), or (n,)."""


ENGINES = {
    "tables": "tables of its trees in float64",
    "onnx": "ONNX Runtime in float64",
    "estimator": "scikit-learn's estimator without pandas",
    "pipeline": "the whole scikit-learn pipeline",
}


def render(run: Run) -> str:
    """The card as HTML; the same run gives the same text."""
    drawn = {name: Markup(svg) for name, svg in _plots(run).items()}  # noqa: S704 - drawn here, its texts escaped
    page = _environment().get_template("card.html")
    return page.render(run=run, engines=ENGINES, title=run.model.name.replace("_", " "), plots=drawn)


def _plots(run: Run) -> dict[str, str]:
    """SVG by place in the card; a place without data has no plot."""
    figures = {
        "candidates": _candidates_plot(run),
        "search": plots.svg(plots.search_curves(run.candidates), "search", "Best loss so far over the trials"),
        "comparison": _comparison_plot(run),
    }
    test, classes = run.verdict.test, run.model.classes
    if test.confusion:
        text = "Test rows by true and predicted class; the same counts are in the table below"
        figures["confusion"] = plots.svg(plots.confusion(test.confusion, classes), "confusion", text)
    if run.truth is not None and run.predictions is not None:
        figures["answers"] = _answers_plot(run.truth, run.predictions, run.model)
    return figures


def _candidates_plot(run: Run) -> str:
    values = {line.name.replace("_", " "): line.value for line in run.selection.table if line.value}
    text = "; ".join(f"{name}: {interval(value, run.selection.metric)}" for name, value in values.items())
    metric = run.selection.metric
    label = f"{_metric(metric)} on the rows that choose"
    figure = plots.intervals(values, label, _winner(run), share=metric in SHARES)
    return plots.svg(figure, "candidates", text)


def _comparison_plot(run: Run) -> str:
    test = run.verdict.test
    values = {"challenger": Estimate(value=test.value, low=test.low, high=test.high)}
    if test.champion:
        values["champion"] = Estimate(**{name: test.champion[name] for name in ("value", "low", "high")})
    values["best constant"] = Estimate(value=test.constant, low=test.constant, high=test.constant)
    text = "; ".join(f"{name}: {interval(value, test.metric)}" for name, value in values.items())
    label = f"{_metric(test.metric)} on sealed rows"
    figure = plots.intervals(values, label, "challenger", share=test.metric in SHARES)
    return plots.svg(figure, "comparison", text)


def _answers_plot(truth: np.ndarray, predictions: np.ndarray, model: ModelFile) -> str:
    if not model.classes:
        return plots.svg(
            plots.residuals(truth, predictions), "answers", "Predicted against true values of the test rows"
        )
    figure = plots.calibration(truth, predictions, model.classes)
    return plots.svg(figure, "answers", "Share of right answers by confidence of the answer, on the test rows")


def _winner(run: Run) -> str:
    return run.selection.winner.replace("_", " ")


def _metric(name: str) -> str:
    return name.replace("_", " ")


def value(number: float, metric: str = "") -> str:
    """A metric's value as people read it.

    >>> value(0.91234, "accuracy"), value(23456.7, "rmse"), value(0.000123)
    ('91.2 %', '23,457', '0.000123')
    """
    if metric in SHARES:
        return f"{100 * number:.1f} %"
    if number == 0 or 0.001 <= abs(number) < 1_000:  # noqa: PLR2004
        return f"{number:.3g}" if abs(number) >= 1 else f"{number:.3f}"
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:.3g}"  # noqa: PLR2004


def interval(estimate: Estimate, metric: str = "") -> str:
    """A value and its confidence interval.

    >>> interval(Estimate(value=0.9, low=0.88, high=0.92), "accuracy")
    '90.0 % (88.0 % to 92.0 %)'
    """
    return f"{value(estimate.value, metric)} ({value(estimate.low, metric)} to {value(estimate.high, metric)})"


def difference(estimate: Estimate | None, metric: str = "") -> str:
    """A signed difference in the metric's unit; points for a share.

    >>> difference(Estimate(value=0.012, low=-0.004, high=0.028), "accuracy")
    '+1.2 points (-0.4 to +2.8)'
    """
    if estimate is None:
        return "—"
    if metric in SHARES:
        low, middle, high = (f"{100 * number:+.1f}" for number in (estimate.low, estimate.value, estimate.high))
        return f"{middle} points ({low} to {high})"
    return f"{estimate.value:+.3g} ({estimate.low:+.3g} to {estimate.high:+.3g})"


def size(count: int) -> str:
    """Bytes as people read them.

    >>> size(512), size(2_500_000)
    ('512 B', '2.4 MiB')
    """
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < KIB:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= KIB
    return f"{amount:.1f} GiB"


def duration(microseconds: float) -> str:
    """A time span in the unit that suits it.

    >>> duration(16), duration(2_345), duration(83_000_000)
    ('16 µs', '2.3 ms', '83.0 s')
    """
    if microseconds < 1_000:  # noqa: PLR2004
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1e3:.1f} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.1f} s"  # noqa: PLR2004


def address(uri: str) -> str | None:
    """What a link may lead to: a web page or a local file, and nothing else.

    >>> address("/home/me/page.html"), address("javascript:alert(1)")
    ('file:///home/me/page.html', None)
    """
    if uri.startswith("/"):
        return PurePosixPath(uri).as_uri()
    return uri if urlsplit(uri).scheme in ("http", "https", "file") else None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("steward.reports"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: dict[str, Any] = {
        "value": value,
        "interval": interval,
        "difference": difference,
        "size": size,
        "duration": duration,
        "address": address,
        "words": _metric,
    }
    environment.filters |= shown
    return environment
