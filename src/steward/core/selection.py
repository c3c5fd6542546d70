"""The cheapest candidate within noise of the best, and why.

"Within noise" is the one-standard-error rule (Breiman, Friedman, Olshen & Stone 1984, section 3.4.3), applied to the
paired difference on the rows that choose. A wider interval would let a plainly worse candidate win wherever there are
few rows. The best of many candidates also looks better on these rows than it is, the more so the more compete: one
more reason to prefer the cheapest close to it, and the reason why no figure from here is ever given as the winner's
accuracy. That figure comes from the sealed test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from steward.core import metrics
from steward.errors import NoCandidate
from steward.records import Candidate, Estimate, TradeOff

ONE_STANDARD_ERROR = 0.6827
"""Confidence at which an interval reaches one standard error to both sides."""

CLEARLY = 2.0
"""A cost counts as higher only above this multiple of the lowest: a timer on a busy machine is not better than that."""


@dataclass(frozen=True)
class Cost:
    """One thing that a candidate costs; `text` shows an amount to people."""

    name: str
    amount: Callable[[TradeOff], float]
    text: Callable[[float], str]
    tolerance: float = CLEARLY


COSTS = (
    Cost("latency", lambda line: line.latency_us, lambda amount: f"{amount:,.0f} µs"),
    Cost("size", lambda line: line.bytes, lambda amount: f"{amount / 1024:,.0f} KiB"),
    Cost("fit time", lambda line: line.fit_seconds, lambda amount: f"{amount:.2f} s"),
    Cost("interpretability", lambda line: line.interpretability, lambda amount: f"grade {amount:.0f}", tolerance=1.0),
)
"""In the order in which they decide."""


@dataclass(frozen=True)
class Choice:
    """The winner, its score on the rows that choose, one sentence of reason, and a line per candidate."""

    winner: str
    validation: Estimate
    reason: str
    table: tuple[TradeOff, ...]


def choose(
    candidates: Sequence[Candidate],
    predictions: Mapping[str, NDArray[Any]],
    truth: NDArray[Any],
    classes: Sequence[str],
    *,
    metric: str,
    prefer: Literal["simplest_within_noise", "best"],
    confidence: float,
    seed: int,
) -> Choice:
    """Choose among candidates on the rows that choose; a failed candidate stands in the table with its error.

    Parameters
    ----------
    predictions : by candidate name, on the rows of `truth`; failed candidates have none.
    confidence : of the interval of each candidate's own score; what is within noise is one standard error.

    Raises
    ------
    NoCandidate : every candidate failed.
    """
    scored = [one.name for one in candidates if one.error is None]
    if not scored:
        raise NoCandidate(
            "no candidate could be trained",
            got="; ".join(f"{one.name}: {one.error}" for one in candidates) or "no candidates",
            do="Fix the first of these errors and run again",
        )
    values = {
        name: metrics.interval(metric, truth, predictions[name], classes, confidence=confidence, seed=seed)
        for name in scored
    }
    sign = 1 if metrics.larger_is_better(metric) else -1
    best = max(scored, key=lambda name: sign * values[name].value)
    differences = {
        name: metrics.paired(
            metric, truth, predictions[name], predictions[best], classes, confidence=ONE_STANDARD_ERROR, seed=seed
        )
        for name in scored
    }
    table = tuple(_line(one, values.get(one.name), differences.get(one.name)) for one in candidates)
    close = [line for line in table if line.within_noise]
    winner = best if prefer == "best" else _cheapest(close, best).name
    return Choice(winner, values[winner], _reason(table, winner, best, metric, prefer), table)


def _line(candidate: Candidate, value: Estimate | None, difference: Estimate | None) -> TradeOff:
    return TradeOff(
        name=candidate.name,
        value=value,
        difference=difference,
        within_noise=difference is not None and difference.high >= 0,
        latency_us=candidate.latency_us,
        bytes=candidate.bytes,
        fit_seconds=candidate.fit_seconds,
        interpretability=candidate.interpretability,
        error=candidate.error,
    )


def _cheapest(lines: Sequence[TradeOff], best: str) -> TradeOff:
    """Each cost in turn sends away whoever is clearly dearer than the cheapest left; then the best score decides."""
    left = list(lines)
    for cost in COSTS:
        limit = cost.tolerance * min(cost.amount(line) for line in left)
        left = [line for line in left if cost.amount(line) <= limit]
    return max(left, key=lambda line: (line.name == best, line.difference.value if line.difference else -np.inf))


def _reason(table: Sequence[TradeOff], winner: str, best: str, metric: str, prefer: str) -> str:
    lines = {line.name: line for line in table}
    scored = sum(line.value is not None for line in table)
    if scored == 1:
        return f"{winner} is the only candidate that could be trained ({metric} {_figure(lines[winner].value)})."
    if winner == best:
        others = "" if prefer == "best" else "; none within one standard error of it is clearly cheaper"
        return f"{winner} has the best {metric} of {scored} candidates, {_figure(lines[best].value)}{others}."
    return (
        f"{winner} ({metric} {_figure(lines[winner].value)}) is within one standard error of {best}, the best of "
        f"{scored} candidates ({_figure(lines[best].value)}), and cheaper: {_saving(lines[winner], lines[best])}."
    )


def _saving(winner: TradeOff, best: TradeOff) -> str:
    """The first cost by which the best is clearly dearer."""
    for cost in COSTS:
        ours, theirs = cost.amount(winner), cost.amount(best)
        if theirs > cost.tolerance * ours:
            return f"{cost.name} {cost.text(ours)} instead of {cost.text(theirs)}"
    return "the sum of small differences"


def _figure(estimate: Estimate | None) -> str:
    return "unknown" if estimate is None else f"{estimate.value:.4g}"
