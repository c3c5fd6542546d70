"""The HTML card of a run: one self-contained page, from the data to the decision, without script."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
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
from steward.reports.drawing import svg
from steward.reports.formats import interval, words
from steward.reports.templating import environment, stylesheet


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
    told = {"run": run, "engines": ENGINES, "title": words(run.model.name), "steps": _lineage(run), **stylesheet()}
    return environment().get_template("card.html").render(told, plots=_plots(run))


class Step(NamedTuple):
    """A line of the lineage."""

    name: str
    says: str = ""
    digest: str | None = None
    at: datetime | None = None


def _lineage(run: Run) -> list[Step]:
    rows = f"{run.snapshot.accepted:,} rows, fingerprint"
    steps = [Step("snapshot", rows, run.snapshot.fingerprint, run.snapshot.at)]
    steps += [Step(name, digest=reference.digest) for name, reference in run.lineage.items()]
    steps.append(Step("artifact", digest=run.challenger.digest))
    if run.approval:
        said = f"{words(run.approval.decision)} by {run.approval.by}: {run.approval.why}"
        steps.append(Step("approval", said, at=run.approval.at))
    return steps


def _plots(run: Run) -> dict[str, Markup]:
    """SVG by place in the card; a place without data has no plot."""
    figures = {
        "candidates": _candidates_plot(run),
        "search": svg(plots.search_curves(run.candidates), "search", "Best loss so far over the trials"),
        "comparison": _comparison_plot(run),
    }
    test, classes = run.verdict.test, run.model.classes
    if test.confusion:
        text = "Test rows by true and predicted class; the same counts are in the table below"
        figures["confusion"] = svg(plots.confusion(test.confusion, classes), "confusion", text)
    if run.truth is not None and run.predictions is not None:
        figures["answers"] = _answers_plot(run.truth, run.predictions, run.model)
    return figures


def _candidates_plot(run: Run) -> Markup:
    values = {words(line.name): line.value for line in run.selection.table if line.value}
    text = "; ".join(f"{name}: {interval(value)}" for name, value in values.items())
    metric = run.selection.metric
    label = f"{words(metric)} on the rows that choose"
    figure = plots.intervals(values, label, words(run.selection.winner))
    return svg(figure, "candidates", text)


def _comparison_plot(run: Run) -> Markup:
    test = run.verdict.test
    values = {"challenger": Estimate(value=test.value, low=test.low, high=test.high)}
    if test.champion:
        values["champion"] = Estimate(**{name: test.champion[name] for name in ("value", "low", "high")})
    values["best constant"] = Estimate(value=test.constant, low=test.constant, high=test.constant)
    text = "; ".join(f"{name}: {interval(value)}" for name, value in values.items())
    label = f"{words(test.metric)} on sealed rows"
    figure = plots.intervals(values, label, "challenger")
    return svg(figure, "comparison", text)


def _answers_plot(truth: np.ndarray, predictions: np.ndarray, model: ModelFile) -> Markup:
    if not model.classes:
        return svg(plots.residuals(truth, predictions), "answers", "Predicted against true values of the test rows")
    figure = plots.calibration(truth, predictions, model.classes)
    return svg(figure, "answers", "Share of right answers by confidence of the answer, on the test rows")
