"""How much of the past a candidate learns from: which rows, and how much each of them counts.

Both are settings of a candidate like any other, called `history` and `recency`, if the model file offers a choice. They are
measured from the newest row that is learned from, so that a version trained on "the last 90 days" is trained on the 90
days before its own training. Which choice is right is asked of the newest rows: older ones would vote for the past.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward.config import Train, parse_duration

HISTORY, RECENCY = "history", "recency"
PARAMETERS = (HISTORY, RECENCY)
FEWEST_JUDGES = 500
"""So many of the newest rows choose, if there are so many, however short the shortest choice is."""

Values = NDArray[Any]
Params = Mapping[str, Any]


def space(train: Train, *, weights: bool) -> dict[str, list[Any]]:
    """The parameters beside a candidate's own that are to be searched; none if all rows count alike, as by default.

    Parameters
    ----------
    weights : does the candidate's estimator take sample weights? Without them there is no recency.
    """
    offered = {HISTORY: train.history, RECENCY: train.recency if weights else ("none",)}
    return {name: list(choices) for name, choices in offered.items() if choices not in (("all",), ("none",))}


def starts(dimensions: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination, to be tried before chance decides.

    >>> starts({"history": ["all", "90d"]}), starts({})
    ([{'history': 'all'}, {'history': '90d'}], [{}])
    """
    return [dict(zip(dimensions, chosen, strict=True)) for chosen in product(*dimensions.values())]


def own(params: Params) -> dict[str, Any]:
    """The parameters that are the estimator's own.

    >>> own({"max_depth": 3, "history": "90d"})
    {'max_depth': 3}
    """
    return {name: value for name, value in params.items() if name not in PARAMETERS}


@dataclass(frozen=True)
class Lesson:
    """What a pipeline learns: all rows, all alike, unless something is said."""

    rows: Values | None = None
    """Positions of the rows to learn from."""
    weights: Values | None = None
    """What each of these counts."""
    members: "Mapping[str, Lesson] | None" = None
    """Of an ensemble: what each candidate in it learns."""

    @classmethod
    def of(cls, params: Params, times: Values) -> "Lesson":
        """What a candidate's parameters say about rows of these times; see `kept`."""
        if "members" in params:
            lessons = {name: cls.of(member["params"], times) for name, member in params["members"].items()}
            return cls(members=lessons)
        rows = kept(params, times)
        return cls(rows if len(rows) < len(times) else None, weights(params, times[rows]))

    def teach(self, pipeline: Any, frame: Any, truth: Values) -> Any:
        """Train a pipeline in place on its part of a learning frame, or of a matrix."""
        if self.members is not None:
            return pipeline.fit(frame, truth, estimate__lessons=self.members)
        if self.rows is not None:
            frame = frame.iloc[self.rows] if isinstance(frame, pd.DataFrame) else frame[self.rows]
            truth = truth[self.rows]
        told = {} if self.weights is None else {"estimate__sample_weight": self.weights}
        return pipeline.fit(frame, truth, **told)

    def count(self, rows: int) -> int:
        """How many of so many rows are learned from, by any candidate."""
        if self.members is not None:
            return max(lesson.count(rows) for lesson in self.members.values())
        return rows if self.rows is None else len(self.rows)


def looks_at_times(params: Params) -> bool:
    """Does it matter for these parameters how old a row is?

    >>> looks_at_times({"max_depth": 3, "history": "all"}), looks_at_times({"history": 5_000})
    (False, True)
    """
    members = params.get("members", {}).values()
    mine = params.get(HISTORY, "all") != "all" or params.get(RECENCY, "none") != "none"
    return mine or any(looks_at_times(member["params"]) for member in members)


def kept(params: Params, times: Values) -> NDArray[np.intp]:
    """Positions of the rows that are learned from, in their order.

    Parameters
    ----------
    times : (n,) seconds since 1970; -inf for a row without a time, which is older than all others.

    >>> kept({"history": "1d"}, np.array([0.0, 100_000.0, 150_000.0])).tolist()
    [1, 2]
    >>> kept({"history": 1}, np.array([5.0, 3.0])).tolist()
    [0]
    """
    return _last(params.get(HISTORY, "all"), times)


def weights(params: Params, times: Values) -> Values | None:
    """What each row counts, on average 1; half as much with every half-life that it is older. None: all alike.

    >>> weights({"recency": "1d"}, np.array([0.0, 86_400.0])).round(3).tolist()
    [0.667, 1.333]
    """
    chosen = params.get(RECENCY, "none")
    newest = times.max(initial=-np.inf)
    if chosen == "none" or not np.isfinite(newest):
        return None
    halved = 0.5 ** ((newest - times) / _seconds(chosen))
    return np.asarray(halved / halved.mean())


def judges(train: Train, times: Values) -> NDArray[np.intp]:
    """Positions of the rows that choose, in their order: all, or with a choice to make those of the shortest past.

    Parameters
    ----------
    times : of the rows that may choose; see `kept`.
    """
    pasts = [*train.history, *(half_life for half_life in train.recency if half_life != "none")]
    shortest = min((_last(past, times) for past in pasts), key=len)
    return shortest if len(shortest) >= FEWEST_JUDGES else _last(FEWEST_JUDGES, times)


def _last(past: str | int, times: Values) -> NDArray[np.intp]:
    if past == "all":
        return np.arange(len(times))
    if isinstance(past, int):
        return np.sort(np.argsort(times, kind="stable")[max(0, len(times) - past) :])
    return np.flatnonzero(times > times.max(initial=-np.inf) - _seconds(past))


def _seconds(duration: str) -> float:
    return float(parse_duration(duration).total_seconds())  # type: ignore[attr-defined]
