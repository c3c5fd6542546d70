"""What a version computes → what is answered: for one row fast, for many at once, and the same either way.

HTTP, batch, `steward predict` and `steward.Model` all answer through this file.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steward.core.actions import Policy
from steward.errors import AnswerInvalid

Raw = NDArray[np.float64]


class Answer(NamedTuple):
    """The parts of one answer that depend on the row alone; `_asdict()` is plain JSON."""

    prediction: str | float
    confidence: float | None
    """Probability of the prediction; None for a regression."""
    probabilities: dict[str, float] | None
    """By class; None for a regression."""
    interval: dict[str, float] | None
    """Regression: `low` and `high`; None for a classification, or where it is not known."""
    action: str
    message: str
    unseen: list[str]
    """Category columns whose value training did not know."""


class Coded(NamedTuple):
    """A column of texts, of which few are different."""

    values: tuple[str, ...]
    codes: NDArray[np.intp]
    """Position in `values` of each row."""

    def spread(self) -> NDArray[np.object_]:
        """One text per row.

        >>> Coded(("a", "b"), np.array([1, 1, 0])).spread().tolist()
        ['b', 'b', 'a']
        """
        return np.array(self.values, dtype=object)[self.codes]


@dataclass(frozen=True)
class Answers:
    """The answers to n rows, column by column."""

    predictions: NDArray[Any]
    """Class names (object), or numbers, of shape (n,)."""
    confidences: Raw | None
    """Shape (n,)."""
    probabilities: Mapping[str, Raw] | None
    """By class, each of shape (n,)."""
    low: Raw | None
    high: Raw | None
    chosen: NDArray[np.intp]
    """Positions in `policy.recommendations`, of shape (n,)."""
    policy: Policy
    unseen: Mapping[str, Sequence[bool] | NDArray[np.bool_]]
    """By category column, each of length n."""

    def __len__(self) -> int:
        return len(self.predictions)

    def __iter__(self) -> Iterator[Answer]:
        """The answers row by row."""
        return map(Answer, *self.as_lists())

    def as_lists(self) -> tuple[list[Any], ...]:
        """The fields of `Answer`, in their order: a list of n values each."""
        none = [None] * len(self)
        recommended = [self.policy.recommendations[number] for number in self.chosen.tolist()]
        return (
            self.predictions.tolist(),
            none if self.confidences is None else self.confidences.tolist(),
            none if self.probabilities is None else _by_row(self.probabilities),
            none if self.low is None or self.high is None else _by_row({"low": self.low, "high": self.high}),
            [action for action, _ in recommended],
            [message for _, message in recommended],
            self._unseen_names(),
        )

    def as_columns(self, flags: Mapping[str, NDArray[np.bool_]]) -> "dict[str, NDArray[Any] | Coded]":
        """The answers as the columns of a table.

        Parameters
        ----------
        flags : what was accepted although it is unusual, such as `out_of_range:hour`; each of shape (n,).

        Returns
        -------
        `prediction`, `confidence` and `probability_<class>` of each class, or `prediction`, `low` and `high`; `action`,
        `message`; `unseen` and `flags`, names joined by a comma. Texts are coded, because few of them are different.
        """
        columns: dict[str, NDArray[Any] | Coded] = {"prediction": self.predictions}
        if self.confidences is not None and self.probabilities is not None:
            columns["confidence"] = self.confidences
            columns |= {f"probability_{name}": values for name, values in self.probabilities.items()}
        elif self.low is not None and self.high is not None:
            columns |= {"low": self.low, "high": self.high}
        actions, messages = zip(*self.policy.recommendations, strict=True)
        columns |= {"action": Coded(actions, self.chosen), "message": Coded(messages, self.chosen)}
        unseen = {name: np.asarray(values, dtype=bool) for name, values in self.unseen.items()}
        return {**columns, "unseen": _names(unseen, len(self)), "flags": _names(flags, len(self))}

    def _unseen_names(self) -> list[list[str]]:
        found: list[list[str]] = [[] for _ in range(len(self))]
        for name, flags in self.unseen.items():
            for number in np.flatnonzero(flags).tolist():
                found[number].append(name)
        return found


class Answering:
    """Makes answers of what one version computes. Made once per version; safe to share among threads.

    Parameters
    ----------
    classes : classes in the order of the probabilities; empty for a regression.
    policy : what is recommended.
    half_width : regression: half the width of the interval, or None if it is not known.

    Examples
    --------
    >>> from steward.config import Action
    >>> answering = Answering(("Low", "High"), Policy([Action(when="confidence < 0.6", do="notify")]))
    >>> answering.one(np.array([[0.45, 0.55]]), {"team": [True]}, {"team": "new"})._asdict() == {
    ...     "prediction": "High", "confidence": 0.55, "probabilities": {"Low": 0.45, "High": 0.55}, "interval": None,
    ...     "action": "notify", "message": "", "unseen": ["team"]}
    True
    >>> [answer.prediction for answer in answering.many(np.array([[0.45, 0.55], [1, 0]]), {}, {"team": ["new", "old"]})]
    ['High', 'Low']
    >>> Answering((), Policy([]), half_width=2.0).one(np.array([7.0]), {}, {}).interval
    {'low': 5.0, 'high': 9.0}
    """

    def __init__(self, classes: Sequence[str], policy: Policy, half_width: float | None = None) -> None:
        self.classes = tuple(classes)
        self.policy = policy
        self.half_width = half_width
        self._names = np.array(self.classes, dtype=object)

    def one(self, raw: Raw, unseen: Mapping[str, Sequence[bool]], row: Mapping[str, Any]) -> Answer:
        """The answer to one row.

        Parameters
        ----------
        raw : probabilities of shape (1, classes) or a prediction of shape (1,), as `Predictor.answer` gives them.
        unseen : flags of length 1 per category column, as `Predictor.unseen` gives them.
        row : the admitted record.

        Raises
        ------
        AnswerInvalid : what was computed is not finite.
        """
        lost = [name for name, flags in unseen.items() if flags[0]]
        if not self.classes:
            return self._number(raw.item(), lost, row)
        values: list[float] = raw[0].tolist()
        confidence = max(values)
        if not math.isfinite(sum(values)):
            raise _invalid()
        prediction = self.classes[values.index(confidence)]
        probabilities = dict(zip(self.classes, values, strict=True))
        action, message = self.policy.recommend(prediction, confidence, probabilities, row)
        return Answer(prediction, confidence, probabilities, None, action, message, lost)

    def many(
        self, raw: Raw, unseen: Mapping[str, Sequence[bool] | NDArray[np.bool_]], columns: Mapping[str, Any]
    ) -> Answers:
        """The answers to n rows: what `one` answers to each.

        Parameters
        ----------
        raw : probabilities of shape (n, classes), or predictions of shape (n,).
        unseen : flags of length n per category column.
        columns : admitted values, n per contract column.

        Raises
        ------
        AnswerInvalid : what was computed is not finite.
        """
        if not np.isfinite(raw).all():
            raise _invalid()
        if not self.classes:
            chosen = self.policy.choose(raw, None, None, columns)
            low, high = (None, None) if self.half_width is None else (raw - self.half_width, raw + self.half_width)
            return Answers(raw, None, None, low, high, chosen, self.policy, unseen)
        best = raw.argmax(axis=1)
        predictions, confidences = self._names[best], raw.max(axis=1)
        probabilities = {name: raw[:, position] for position, name in enumerate(self.classes)}
        chosen = self.policy.choose(predictions, confidences, probabilities, columns)
        return Answers(predictions, confidences, probabilities, None, None, chosen, self.policy, unseen)

    def _number(self, prediction: float, unseen: list[str], row: Mapping[str, Any]) -> Answer:
        if not math.isfinite(prediction):
            raise _invalid()
        action, message = self.policy.recommend(prediction, None, None, row)
        width = self.half_width
        interval = None if width is None else {"low": prediction - width, "high": prediction + width}
        return Answer(prediction, None, None, interval, action, message, unseen)


def _names(flags: Mapping[str, NDArray[np.bool_]], rows: int) -> Coded:
    """Per row the names whose flag is set, joined by a comma.

    >>> _names({"a": np.array([True, False, True]), "b": np.array([True, False, False])}, 3).spread().tolist()
    ['a,b', '', 'a']
    """
    values, codes = [""], np.zeros(rows, dtype=np.intp)
    for name, flag in flags.items():
        if flag.any():
            pairs, codes = np.unique(2 * codes + flag, return_inverse=True)
            values = [values[pair // 2] + (f",{name}" if pair % 2 else "") for pair in pairs.tolist()]
    return Coded(tuple(value.removeprefix(",") for value in values), codes)


def _by_row(columns: Mapping[str, Raw]) -> list[dict[str, float]]:
    """Columns → one dict per row.

    >>> _by_row({"low": np.array([1.0, 2.0]), "high": np.array([3.0, 4.0])})
    [{'low': 1.0, 'high': 3.0}, {'low': 2.0, 'high': 4.0}]
    """
    lists = [column.tolist() for column in columns.values()]
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def _invalid() -> AnswerInvalid:
    return AnswerInvalid("the version computed something that is no finite number", do="Roll back to another version")
