"""Rows as numbers: contract columns and declared features, the same code at training and at inference.

Everything after the `Encoder` is numeric, so that a candidate never sees a text. Serving calls `encode_columns` on
plain lists or arrays, without pandas.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from steward.config import ModelFile
from steward.core.preparation import Encoding

MAX_LEVELS = 250
"""HistGradientBoosting takes 255 categories; pool, unseen and missing need room too."""
MIN_ROWS = 5
"""Levels of an open category with fewer training rows are pooled."""

Matrix = NDArray[np.float64]


class Encoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learning frame → float64 matrix of shape (rows, contract columns + features), in the model file's order.

    - Numbers stay as they are, booleans become 0 and 1; what is missing or infinite becomes NaN.
    - A category becomes its code 0 … k-1: declared values first, then the values of the training rows, sorted. Of
      these, values with fewer than `min_rows` rows, and all but the `max_levels` most frequent, share code k.
    - A value that training did not know gets the code of the shared rare ones, which it resembles most. Where there
      are none it gets code k, which no training row has: one-hot encodes it as zeros, and gradient boosting treats
      it like a missing value. It is not NaN, because a missing value may mean something and a new one does not.
    - A feature is its expression's value, NaN where that is infinite or undefined.
    - A column without any value in the training rows is 0 for ever: nothing was learned about it.

    Parameters
    ----------
    columns : contract columns and their types, in order.
    values : declared values of the categories that have them.
    expressions : engineered features, in order.

    Examples
    --------
    >>> encoder = Encoder({"hour": "integer", "team": "category"}, {"team": ["ops"]}, {"night": "hour < 6"}, min_rows=1)
    >>> rows = pd.DataFrame({"hour": [3.0, 12.0], "team": pd.Series(["web", None], dtype=object)})
    >>> encoder.fit_transform(rows).tolist()
    [[3.0, 1.0, 1.0], [12.0, nan, 0.0]]
    >>> encoder.encode_columns({"hour": [23], "team": ["brand new"]}).tolist()
    [[23.0, 2.0, 0.0]]
    >>> encoder.get_feature_names_out().tolist()
    ['hour', 'team', 'night']
    """

    def __init__(
        self,
        columns: dict[str, str],
        values: dict[str, list[str]] | None = None,
        expressions: dict[str, str] | None = None,
        *,
        min_rows: int = MIN_ROWS,
        max_levels: int = MAX_LEVELS,
    ) -> None:
        self.columns = columns
        self.values = values
        self.expressions = expressions
        self.min_rows = min_rows
        self.max_levels = max_levels

    @classmethod
    def of(cls, model: ModelFile) -> Self:
        """The encoder that a model file describes."""
        return cls(
            columns={name: column.type for name, column in model.columns.items()},
            values={name: list(column.values) for name, column in model.columns.items() if column.values},  # noqa: PD011
            expressions={name: feature.expression for name, feature in model.features.items()},
        )

    def fit(self, frame: pd.DataFrame, truth: object = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Learn the categories' levels."""
        self.codes_: dict[str, dict[str, float]] = {}
        self.unseen_: dict[str, float] = {}
        for name in self._categories():
            self._learn(name, Counter(value for value in frame[name] if isinstance(value, str)))
        self.empty_: list[int] = []
        self.empty_ = np.flatnonzero(np.isnan(self.transform(frame)).all(axis=0)).tolist()
        self.n_features_in_ = len(self.columns)
        return self

    def transform(self, frame: pd.DataFrame) -> Matrix:
        """Rows of a learning frame as a matrix; see the class."""
        return self.encode_columns({name: frame[name].to_numpy() for name in self.columns})

    def encode_columns(self, columns: Mapping[str, Any]) -> Matrix:
        """As `transform`, from one list or array of equal length per contract column; other columns are ignored.

        Raises
        ------
        KeyError : a contract column is not there.
        ModelFileError : a feature is neither number nor boolean.
        """
        return self.encoding.matrix(columns)

    def unseen(self, columns: Mapping[str, Any]) -> dict[str, list[bool]]:
        """Per category column, which values training did not know; a missing value is not one of them."""
        return self.encoding.unseen_values(columns)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:  # noqa: ARG002
        return np.array([*self.columns, *(self.expressions or {})], dtype=object)

    @property
    def encoding(self) -> Encoding:
        """What `fit` has learned, for those who compute without scikit-learn."""
        return Encoding(dict(self.columns), self.codes_, self.unseen_, dict(self.expressions or {}), self.empty_)

    def _categories(self) -> list[str]:
        return [name for name, kind in self.columns.items() if kind == "category"]

    def _learn(self, name: str, counts: "Counter[str]") -> None:
        declared = (self.values or {}).get(name, [])
        found = sorted(set(counts) - set(declared))
        kept = [*declared, *(level for level in found if counts[level] >= self.min_rows)]
        if len(kept) > self.max_levels:
            frequent = set(sorted(kept, key=lambda level: -counts[level])[: self.max_levels])
            kept = [level for level in kept if level in frequent]
        rare = float(len(kept))
        self.unseen_[name] = rare
        self.codes_[name] = dict.fromkeys([*declared, *found], rare) | {level: float(i) for i, level in enumerate(kept)}


def column_positions(model: ModelFile) -> tuple[list[int], list[int]]:
    """Positions in the encoder's matrix: of numbers (booleans and features included), and of categories."""
    kinds = [column.type for column in model.columns.values()] + ["number"] * len(model.features)
    return (
        [position for position, kind in enumerate(kinds) if kind != "category"],
        [position for position, kind in enumerate(kinds) if kind == "category"],
    )
