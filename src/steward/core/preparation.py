"""Rows as numbers without scikit-learn, pandas or SciPy: what serves an answer must start fast and stay small.

`Encoding` is what the `encode` step of a pipeline has learned; the pipeline's `Encoder` computes with it too. A `Plan`
is encoding and `prepare` step together, as plain JSON; `compilation` makes it of a fitted pipeline. All of it is
float64, in the order of operations of scikit-learn.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from statistics import NormalDist
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from steward.errors import ModelFileError
from steward.expressions import Expression

LARGEST = float(np.finfo(np.float32).max)
BOUND = 1e-7
"""scikit-learn's QuantileTransformer maps to a normal distribution between the quantiles of this and one minus this."""

ORDERED = ("columns", "expressions")
"""What has an order in an encoding: pairs in JSON, whose objects have none."""

LOWEST_SHARE = BOUND - float(np.spacing(1))
NORMAL = NormalDist()

Matrix = NDArray[np.float64]
Row = list[float]
Columns = Mapping[str, Any]
"""One list or array of equal length per contract column: numbers (None or NaN where missing), or texts and None."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Encoding:
    """Contract columns → float64 matrix of shape (rows, contract columns + features), in the model file's order.

    Parameters
    ----------
    columns : contract columns and their types, in order.
    codes : code by value of each category column.
    unseen : per category column the code of a value that is not in `codes`.
    expressions : engineered features, in order.
    empty : positions of columns without any value in training: 0 for ever.

    Examples
    --------
    >>> encoding = Encoding({"hour": "integer", "team": "category"}, {"team": {"web": 0.0}}, {"team": 1.0}, {"night": "hour < 6"})
    >>> encoding.matrix({"hour": [3, None], "team": ["web", "brand new"]}).tolist()
    [[3.0, 0.0, 1.0], [nan, 1.0, 0.0]]
    >>> encoding.unseen_values({"team": ["brand new", "web", None]})
    {'team': [True, False, False]}
    """

    columns: Mapping[str, str]
    codes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    unseen: Mapping[str, float] = field(default_factory=dict)
    expressions: Mapping[str, str] = field(default_factory=dict)
    empty: Sequence[int] = ()

    def matrix(self, columns: Columns) -> Matrix:
        """Encode n rows; columns that are not in the contract are ignored.

        Raises
        ------
        KeyError : a contract column is not there.
        ModelFileError : a feature is neither number nor boolean.
        """
        matrix = np.empty((len(columns[next(iter(self.columns))]), len(self.columns) + len(self.expressions)))
        for position, name, codes, unseen in self._columns:
            values = columns[name]
            matrix[:, position] = values if codes is None else _coded(values, codes, unseen)
        if self._features:
            matrix[:, len(self.columns) :] = self._computed(columns, len(matrix))
        if self.empty:
            matrix[:, self.empty] = 0.0
        if not (np.abs(matrix) <= LARGEST).all():
            matrix[np.isinf(matrix)] = np.nan
            np.clip(matrix, -LARGEST, LARGEST, out=matrix)
        return matrix

    def row(self, columns: Columns) -> Row:
        """As `matrix` for a single row, ten times sooner."""
        row = [_single(columns[name][0], codes, unseen) for _, name, codes, unseen in self._columns]
        if self._features:
            row += self._computed_row(columns)
        for position in self.empty:
            row[position] = 0.0
        return [value if -LARGEST <= value <= LARGEST else _bounded(value) for value in row]

    def unseen_values(self, columns: Columns) -> dict[str, list[bool]]:
        """Per category column, which values training did not know; a missing value is not one of them."""
        return {
            name: [isinstance(value, str) and value not in codes for value in columns[name]]
            for name, codes in self.codes.items()
        }

    @cached_property
    def _columns(self) -> list[tuple[int, str, Mapping[str, float] | None, float]]:
        return [
            (position, name, self.codes.get(name), self.unseen.get(name, np.nan))
            for position, name in enumerate(self.columns)
        ]

    @cached_property
    def _features(self) -> list[tuple[str, Expression]]:
        return [(name, Expression.parse(text)) for name, text in self.expressions.items()]

    @cached_property
    def _read(self) -> dict[str, type]:
        """Columns that features read, and what their arrays hold."""
        names = frozenset[str]().union(*(expression.names for _, expression in self._features))
        return {name: object if kind == "category" else float for name, kind in self.columns.items() if name in names}

    def _computed(self, columns: Columns, rows: int) -> Matrix:
        arrays: dict[str, NDArray[Any]] = {
            name: np.asarray(columns[name], dtype=kind) for name, kind in self._read.items()
        }
        computed = np.empty((rows, len(self._features)))
        for position, (name, expression) in enumerate(self._features):
            with _computing(name, expression):
                computed[:, position] = np.asarray(expression.evaluate(arrays), dtype=np.float64)
        return computed

    def _computed_row(self, columns: Columns) -> Row:
        values = {name: columns[name][0] for name in self._read}
        row = {
            name: values[name] if kind is object or values[name] is None else float(values[name])
            for name, kind in self._read.items()
        }
        computed = []
        for name, expression in self._features:
            with _computing(name, expression):
                value = expression.value(row)
                computed.append(np.nan if value is None else float(value))
        return computed


@contextmanager
def _computing(name: str, expression: Expression) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as problem:
        raise ModelFileError(
            f"features.{name} cannot be computed",
            got=f"{expression.text} ({problem})",
            allowed="an expression whose value is a number or a boolean",
            do="Change the expression in the model file",
        ) from problem


class Step(Protocol):
    """Matrix of shape (n, m) → matrix of shape (n, k); `row` does the same to one row as plain numbers, much sooner."""

    def __call__(self, matrix: Matrix) -> Matrix: ...

    def row(self, row: Row) -> Row: ...


class Fill:
    """Missing values replaced per column, as `SimpleImputer`; which were missing is appended for some columns."""

    def __init__(self, values: Sequence[float], marked: Sequence[int] = ()) -> None:
        self.values = np.array(values, dtype=np.float64)
        self.marked = list(marked)
        self._values = self.values.tolist()

    def __call__(self, matrix: Matrix) -> Matrix:
        missing = np.isnan(matrix)
        filled = np.where(missing, self.values, matrix)
        return np.concatenate([filled, missing[:, self.marked]], axis=1) if self.marked else filled

    def row(self, row: Row) -> Row:
        filled = [instead if value != value else value for value, instead in zip(row, self._values, strict=True)]  # noqa: PLR0124
        return filled + _marks(row, self.marked) if self.marked else filled


class Missing:
    """1 where a value of some columns is missing, else 0, as `MissingIndicator`."""

    def __init__(self, marked: Sequence[int]) -> None:
        self.marked = list(marked)

    def __call__(self, matrix: Matrix) -> Matrix:
        return np.isnan(matrix[:, self.marked]).astype(np.float64)

    def row(self, row: Row) -> Row:
        return _marks(row, self.marked)


class Standardise:
    """`StandardScaler`."""

    def __init__(self, center: Sequence[float], scale: Sequence[float]) -> None:
        self.center = np.array(center, dtype=np.float64)
        self.scale = np.array(scale, dtype=np.float64)
        self._scales = list(zip(self.center.tolist(), self.scale.tolist(), strict=True))

    def __call__(self, matrix: Matrix) -> Matrix:
        return (matrix - self.center) / self.scale

    def row(self, row: Row) -> Row:
        return [(value - center) / scale for value, (center, scale) in zip(row, self._scales, strict=True)]


class OneHot:
    """Codes 0 … k-1 and missing, per column, as 0 and 1.

    Parameters
    ----------
    places : per column the output column that is 1 for each code, and last for missing; `width` stands for none.
    """

    def __init__(self, places: Sequence[Sequence[int]], width: int) -> None:
        lengths = [len(one) for one in places]
        self.places = np.concatenate([np.array(one, dtype=np.intp) for one in places])
        self.missing = np.array(lengths) - 1.0
        self.starts = np.cumsum([0, *lengths[:-1]])
        self.width = width
        self._places = [list(one) for one in places]

    def __call__(self, matrix: Matrix) -> Matrix:
        codes = np.where(np.isnan(matrix), self.missing, matrix).astype(np.intp)
        ones = np.zeros((len(matrix), self.width + 1))
        ones[np.arange(len(matrix))[:, None], self.places[codes + self.starts]] = 1.0
        return ones[:, :-1]

    def row(self, row: Row) -> Row:
        ones = [0.0] * (self.width + 1)
        for value, places in zip(row, self._places, strict=True):
            ones[places[-1 if value != value else int(value)]] = 1.0  # noqa: PLR0124
        return ones[:-1]


class Spline:
    """`SplineTransformer` as the polynomials between its knots, and constants outside.

    Parameters
    ----------
    columns : per column `breaks` (m ascending numbers), `starts` and `lengths` of the m+1 pieces that they divide, and
        `pieces`: of shape (degree + 1, m + 1, splines) the coefficients of (x - start) / length, highest power first.
    """

    def __init__(self, columns: Sequence[Json]) -> None:
        most = max(len(one["breaks"]) for one in columns)
        self.breaks = np.array([_padded(one["breaks"], most, np.inf) for one in columns])
        self.starts = np.array([_padded(one["starts"], most + 1, 0.0) for one in columns])
        self.lengths = np.array([_padded(one["lengths"], most + 1, 1.0) for one in columns])
        powers, _, splines = np.shape(columns[0]["pieces"])
        self.pieces = np.zeros((powers, len(columns), most + 1, splines))
        for position, one in enumerate(columns):
            pieces = np.array(one["pieces"])
            self.pieces[:, position, : pieces.shape[1]] = pieces
        self.columns = np.arange(len(columns))
        self._columns = [
            (one["breaks"], one["starts"], one["lengths"], np.moveaxis(np.array(one["pieces"]), 0, 2).tolist())
            for one in columns
        ]

    def __call__(self, matrix: Matrix) -> Matrix:
        piece = (matrix[:, :, None] >= self.breaks).sum(axis=2)
        place = ((matrix - self.starts[self.columns, piece]) / self.lengths[self.columns, piece])[:, :, None]
        values: Matrix = self.pieces[0][self.columns, piece]
        for coefficients in self.pieces[1:]:
            values = values * place + coefficients[self.columns, piece]
        return values.reshape(len(matrix), -1)

    def row(self, row: Row) -> Row:
        values = []
        for value, (breaks, starts, lengths, pieces) in zip(row, self._columns, strict=True):
            piece = bisect_right(breaks, value)
            place = (value - starts[piece]) / lengths[piece]
            for coefficients in pieces[piece]:
                total = coefficients[0]
                for coefficient in coefficients[1:]:
                    total = total * place + coefficient
                values.append(total)
        return values


class Normal:
    """`QuantileTransformer` to a normal distribution.

    Parameters
    ----------
    quantiles : of each column, ascending, at `references`, which go from 0 to 1.
    """

    def __init__(self, quantiles: Sequence[Sequence[float]], references: Sequence[float]) -> None:
        self.quantiles = [np.array(one, dtype=np.float64) for one in quantiles]
        self.mirrored = [-one[::-1] for one in self.quantiles]
        self.references = np.array(references, dtype=np.float64)
        self.mirrored_references = -self.references[::-1]
        self._curves = [
            (one.tolist(), self.references.tolist(), mirrored.tolist(), self.mirrored_references.tolist())
            for one, mirrored in zip(self.quantiles, self.mirrored, strict=True)
        ]

    def __call__(self, matrix: Matrix) -> Matrix:
        shares = np.empty(matrix.shape)
        for position, quantiles in enumerate(self.quantiles):
            column = matrix[:, position]
            share = 0.5 * (
                np.interp(column, quantiles, self.references)
                - np.interp(-column, self.mirrored[position], self.mirrored_references)
            )
            share[column + BOUND > quantiles[-1]] = 1.0
            share[column - BOUND < quantiles[0]] = 0.0
            shares[:, position] = share
        return normal_quantile(np.clip(shares, LOWEST_SHARE, 1 - LOWEST_SHARE))

    def row(self, row: Row) -> Row:
        values = []
        for value, (quantiles, references, mirrored, mirrored_references) in zip(row, self._curves, strict=True):
            if value - BOUND < quantiles[0]:
                share = 0.0
            elif value + BOUND > quantiles[-1]:
                share = 1.0
            else:
                up, down = (
                    _interpolated(value, quantiles, references),
                    _interpolated(-value, mirrored, mirrored_references),
                )
                share = 0.5 * (up - down)
            values.append(NORMAL.inv_cdf(min(max(share, LOWEST_SHARE), 1 - LOWEST_SHARE)))
        return values


STEPS: Mapping[str, Callable[..., Step]] = {
    "fill": Fill,
    "missing": Missing,
    "standardise": Standardise,
    "one_hot": OneHot,
    "spline": Spline,
    "normal": Normal,
}


@dataclass(frozen=True)
class Block:
    """Some columns of the encoder's matrix and what is done to them, one step after the other."""

    columns: list[int]
    steps: tuple[Step, ...]

    @classmethod
    def from_json(cls, document: Json) -> Self:
        steps = tuple(
            STEPS[step["step"]](**{k: v for k, v in step.items() if k != "step"}) for step in document["steps"]
        )
        return cls(document["columns"], steps)

    def row(self, encoded: Row) -> Row:
        row = [encoded[column] for column in self.columns]
        for step in self.steps:
            row = step.row(row)
        return row

    def matrix(self, encoded: Matrix) -> Matrix:
        matrix = encoded[:, self.columns]
        for step in self.steps:
            matrix = step(matrix)
        return matrix


class Plan:
    """What the `encode` and `prepare` steps of a fitted pipeline do; thread-safe.

    Parameters
    ----------
    encoding : what `encode` has learned.
    blocks : what `prepare` does, side by side; without any, the encoder's matrix is the result.

    Examples
    --------
    >>> plan = Plan.from_json({"encoding": {"columns": {"hour": "integer"}},
    ...     "blocks": [{"columns": [0], "steps": [{"step": "fill", "values": [12.0], "marked": [0]}]}]})
    >>> plan.matrix({"hour": [3, None]}).tolist()
    [[3.0, 0.0], [12.0, 1.0]]
    """

    def __init__(self, encoding: Encoding, blocks: Iterable[Json] = ()) -> None:
        self.encoding = encoding
        self._documents = list(blocks)
        self._blocks = [Block.from_json(one) for one in self._documents]
        self._first = next(iter(encoding.columns))

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """A plan that `as_json` wrote."""
        encoding = document["encoding"]
        ordered = {name: dict(encoding[name]) for name in ORDERED if name in encoding}
        return cls(Encoding(**{**encoding, **ordered}), document["blocks"])

    def as_json(self) -> Json:
        """Plain JSON; every number is read back as it was."""
        encoding = {name: getattr(self.encoding, name) for name in Encoding.__dataclass_fields__}
        ordered = {name: [list(pair) for pair in encoding[name].items()] for name in ORDERED}
        return {"encoding": {**encoding, **ordered}, "blocks": self._documents}

    def matrix(self, columns: Columns) -> Matrix:
        """What the estimator is given, shape (n, m); raises KeyError if a contract column is not there."""
        if len(columns[self._first]) == 1:
            return np.array([self._row(columns)])
        encoded = self.encoding.matrix(columns)
        if not self._blocks:
            return encoded
        parts = [block.matrix(encoded) for block in self._blocks]
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def unseen(self, columns: Columns) -> dict[str, list[bool]]:
        """Per category column, which values training did not know; a missing value is not one of them."""
        return self.encoding.unseen_values(columns)

    def _row(self, columns: Columns) -> Row:
        encoded = self.encoding.row(columns)
        return [value for block in self._blocks for value in block.row(encoded)] if self._blocks else encoded


def normal_quantile(shares: Matrix) -> Matrix:
    """Where a standard normal distribution reaches these shares, all between 0 and 1.

    Wichura's algorithm AS 241 (1988), accurate to about 16 digits, as `statistics.NormalDist` has it for one number.

    >>> normal_quantile(np.array([0.5, 0.975, 1e-7])).round(6).tolist()
    [0.0, 1.959964, -5.199338]
    """
    from_middle = shares - 0.5
    middle = 0.180625 - from_middle * from_middle
    root = np.sqrt(-np.log(np.minimum(shares, 1.0 - shares)))
    tail = np.where(root <= 5.0, _ratio(_NEAR, root - 1.6), _ratio(_FAR, root - 5.0))  # noqa: PLR2004 - AS 241
    return np.where(np.abs(from_middle) <= 0.425, from_middle * _ratio(_MIDDLE, middle), np.copysign(tail, from_middle))  # noqa: PLR2004


_MIDDLE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_NEAR = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], values: Matrix) -> Matrix:
    top, bottom = coefficients
    return _polynomial(top, values) / _polynomial(bottom, values)


def _polynomial(coefficients: tuple[float, ...], values: Matrix) -> Matrix:
    result = np.full_like(values, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * values + coefficient
    return result


def _coded(values: Any, codes: Mapping[str, float], unseen: float) -> list[float]:
    values = values.tolist() if isinstance(values, np.ndarray) else values
    return [codes.get(value, unseen) if isinstance(value, str) else np.nan for value in values]


def _padded(values: Sequence[float], length: int, value: float) -> list[float]:
    return [*values, *[value] * (length - len(values))]


def _single(value: Any, codes: Mapping[str, float] | None, unseen: float) -> float:
    if codes is None:
        return np.nan if value is None else float(value)
    return codes.get(value, unseen) if isinstance(value, str) else np.nan


def _bounded(value: float) -> float:
    """What is missing or infinite is missing; the rest is within what scikit-learn's float32 holds."""
    return min(max(value, -LARGEST), LARGEST) if isfinite(value) else np.nan


def _marks(row: Row, marked: Sequence[int]) -> Row:
    return [1.0 if row[position] != row[position] else 0.0 for position in marked]


def _interpolated(value: float, places: Row, values: Row) -> float:
    """As `numpy.interp` within the places."""
    left = bisect_right(places, value) - 1
    if left == len(places) - 1 or places[left] == value:
        return values[left]
    slope = (values[left + 1] - values[left]) / (places[left + 1] - places[left])
    return slope * (value - places[left]) + values[left]
