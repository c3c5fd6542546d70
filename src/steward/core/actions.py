"""Prediction and confidence → the recommended action."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steward.config import Action
from steward.expressions import Expression

PROCEED = "proceed"
ASKED = frozenset({"prediction", "confidence", "probabilities"})
"""Names in a condition that are no columns."""


class Recommendation(NamedTuple):
    """What to do, and what to tell a person."""

    action: str
    message: str


class Policy:
    """The actions of a model file: the first whose condition holds is recommended, and `proceed` if none does.

    A column that the answering version does not have counts as missing. Parsed once; safe to share among threads.

    Parameters
    ----------
    actions : `serve.actions` of the model file.

    Attributes
    ----------
    recommendations : what can be recommended, in the order of the actions; the last one if no condition holds.

    Examples
    --------
    >>> policy = Policy([Action(when="prediction == 'High' and confidence >= 0.6", do="ask", say="Ask a senior"),
    ...                  Action(when="hour < 6", do="notify"), Action(otherwise="proceed")])
    >>> policy.recommend("High", 0.7, {"High": 0.7, "Low": 0.3}, {"hour": 12.0})
    Recommendation(action='ask', message='Ask a senior')
    >>> policy.recommend("Low", 0.7, {"High": 0.3, "Low": 0.7}, {"hour": None})
    Recommendation(action='proceed', message='')
    >>> actions, messages = policy.recommend_many(
    ...     np.array(["High", "Low"], dtype=object), np.array([0.7, 0.7]), None, {"hour": np.array([12.0, 3.0])})
    >>> actions.tolist(), messages.tolist()
    (['ask', 'notify'], ['Ask a senior', ''])
    """

    def __init__(self, actions: Sequence[Action]) -> None:
        conditions: list[Expression] = []
        recommendations: list[Recommendation] = []
        for action in actions:
            recommendations.append(Recommendation(action.do or action.otherwise or PROCEED, action.say))
            if action.when is None:
                break
            conditions.append(Expression.parse(action.when))
        if len(recommendations) == len(conditions):
            recommendations.append(Recommendation(PROCEED, ""))
        self.recommendations = tuple(recommendations)
        self._conditions = tuple(conditions)
        self._columns = tuple(sorted(frozenset[str]().union(*(c.names for c in conditions)) - ASKED))
        self._holds = tuple(condition.holds for condition in conditions)

    def recommend(
        self,
        prediction: str | float,
        confidence: float | None,
        probabilities: Mapping[str, float] | None,
        row: Mapping[str, Any],
    ) -> Recommendation:
        """The recommendation for one row.

        Parameters
        ----------
        prediction : a class, or a number.
        confidence, probabilities : None for a regression.
        row : the admitted record: column → number, text or None.
        """
        scope: dict[str, Any] = {name: row.get(name) for name in self._columns}
        scope["prediction"], scope["confidence"], scope["probabilities"] = prediction, confidence, probabilities
        for number, holds in enumerate(self._holds):
            if holds(scope):
                return self.recommendations[number]
        return self.recommendations[-1]

    def recommend_many(
        self,
        predictions: NDArray[Any],
        confidences: NDArray[np.float64] | None,
        probabilities: Mapping[str, NDArray[np.float64]] | None,
        columns: Mapping[str, Any],
    ) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
        """Actions and messages of n rows, each of shape (n,): what `recommend` says for each row."""
        chosen = self.choose(predictions, confidences, probabilities, columns)
        actions, messages = (np.array(texts, dtype=object) for texts in zip(*self.recommendations, strict=True))
        return actions[chosen], messages[chosen]

    def choose(
        self,
        predictions: NDArray[Any],
        confidences: NDArray[np.float64] | None,
        probabilities: Mapping[str, NDArray[np.float64]] | None,
        columns: Mapping[str, Any],
    ) -> NDArray[np.intp]:
        """As `recommend_many`, as positions in `recommendations`."""
        missing = np.full(len(predictions), np.nan)
        scope: dict[str, Any] = {name: columns.get(name, missing) for name in self._columns}
        scope["prediction"], scope["probabilities"] = predictions, probabilities
        scope["confidence"] = missing if confidences is None else confidences
        chosen = np.full(len(predictions), len(self.recommendations) - 1)
        open_rows = np.ones(len(predictions), dtype=bool)
        for number, condition in enumerate(self._conditions):
            found = open_rows & condition.holds_for(scope)
            chosen[found] = number
            open_rows &= ~found
        return chosen
