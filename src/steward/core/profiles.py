"""A table as a compact summary that can be added to another: counts over bins that were fixed at training time.

Bins are an arithmetic grid, so that an engine finds a value's cell without comparing it with sorted edges; cells are
pooled to quantile bins of the reference afterwards. A profile holds no row and no rare value: it can be kept for ever.

An engine counts, by the Ibis expressions at the end of this file, in one of two ways. Histograms of all columns are one
query, which reads the rows once and is planned in a moment, but they stay in memory. Of very many rows every column is
grouped on its own: that can spill, and is as fast where the rows are only read.
"""

import ast
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from itertools import pairwise
from operator import add, and_, eq, ge, gt, le, lt, ne, or_
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from steward.config import ModelFile
from steward.expressions import Expression

CELLS = 1_024
"""Of the grid over a numeric column."""
BINS = 50
"""Quantile bins that the cells are pooled to."""
BEYOND = 8
"""Times the width of the grid: values further out count as lying there."""
MOST_LEVELS = 250
"""Of a category; rarer ones are pooled."""
MOST_VALUES = 5_000
"""Different values of a category that are told apart at all."""
MOST_UNSEEN = 20
"""Values that training did not know which are named."""
MOST_IN_MEMORY = 1_000_000
"""Rows that are counted by histograms: of a text, should each row have one of its own, 250 MB."""
PREDICTION, CONFIDENCE = "prediction", "confidence"
"""Columns beside those of the contract, where it has none of this name."""

Counts = NDArray[np.int64]
Kind = Literal["number", "category"]
Span = tuple[float, float]
"""Beginning and end, seconds since 1970."""


@dataclass(frozen=True)
class Bins:
    """Where the values of a column are counted.

    Attributes
    ----------
    low, step : numbers: value → cell `round((value - low) / step)`, kept within 0 … CELLS - 1.
    edges : numbers: the first cell of every bin but the first; rising.
    levels : categories: a bin each, in this order.
    rare : categories: further values that training knew; they share the last bin.
    open : categories: training knew more values than can be kept, so that every other value counts as a rare one.
    """

    kind: Kind
    low: float = 0.0
    step: float = 1.0
    edges: tuple[int, ...] = ()
    levels: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    open: bool = False

    @property
    def count(self) -> int:
        """How many; at least one, which stays empty where training saw no value."""
        return len(self.edges) + 1 if self.kind == "number" else max(1, len(self.levels) + bool(self.rare))

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Numbers: the inner edges of the bins as values."""
        return self.low + self.step * (np.array(self.edges, dtype=float) - 0.5)

    def as_json(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in document.items()}
        return cls(**fields)

    @property
    def reach(self) -> float:
        """Numbers: how far from `low` a cell can lie."""
        return BEYOND * CELLS * self.step

    @classmethod
    def of_numbers(cls, low: float, high: float, cells: Counts) -> Self:
        """Quantile bins from a first count over a grid; `low` and below is its first cell, `high` and above its last.

        >>> bins = Bins.of_numbers(0.0, 10.23, np.bincount([0, 0, 500, 1023], minlength=1024))
        >>> bins.edges, bins.count
        ((1, 501), 3)
        """
        step = (high - low) / (CELLS - 1) or 1.0
        share = np.cumsum(cells) / max(1, cells.sum())
        wanted = np.searchsorted(share, np.arange(1, BINS) / BINS) + 1
        full = [int(edge) for edge in np.unique(wanted) if cells[:edge].any() and cells[edge:].any()]
        return cls("number", low=low, step=step, edges=tuple(full))

    @classmethod
    def of_levels(cls, counts: Mapping[str, int]) -> Self:
        """A bin per value, the most frequent first; one bin for all that are rare."""
        names = sorted(counts, key=lambda name: (-counts[name], name))
        rare, too_many = sorted(names[MOST_LEVELS:MOST_VALUES]), len(names) > MOST_VALUES
        return cls("category", levels=tuple(names[:MOST_LEVELS]), rare=tuple(rare), open=too_many)

    def pooled(self, cells: Counts) -> Counts:
        """Counts per bin from counts per cell of the grid."""
        edges = [0, *self.edges, len(cells)]
        return np.array([cells[start:end].sum() for start, end in pairwise(edges)], dtype=np.int64)

    def sorted_in(self, found: Mapping[str, int]) -> tuple[Counts, int]:
        """Counts per bin from counts per value, and how many values training did not know."""
        position = {name: index for index, name in enumerate(self.levels)} | dict.fromkeys(self.rare, len(self.levels))
        counts, unseen = np.zeros(self.count, dtype=np.int64), 0
        for name, rows in found.items():
            if name in position or self.open:
                counts[position.get(name, len(self.levels))] += rows
            else:
                unseen += rows
        return counts, unseen

    def knows(self, name: str) -> bool:
        """Is it a value that training saw, or may have seen?"""
        return self.open or name in self.levels or name in self.rare


@dataclass(frozen=True)
class ColumnProfile:
    """One column of some rows.

    Attributes
    ----------
    counts : rows per bin. `unseen` : rows whose value has none.
    total, squares : of numbers, from the middles of their cells: each value to half a thousandth of where most of them
        lie, and not further out than `BEYOND` times that.
    """

    counts: tuple[int, ...]
    missing: int = 0
    unseen: int = 0
    minimum: float | None = None
    maximum: float | None = None
    total: float = 0.0
    squares: float = 0.0

    @property
    def known(self) -> int:
        """Rows with a value that has a bin."""
        return sum(self.counts)

    @property
    def rows(self) -> int:
        return self.known + self.missing + self.unseen

    def __add__(self, other: Self) -> "ColumnProfile":
        return ColumnProfile.sum([self, other])

    @classmethod
    def sum(cls, parts: Sequence["ColumnProfile"]) -> Self:
        """Of one and more over the same bins."""
        return cls(
            counts=tuple(np.array([one.counts for one in parts], dtype=np.int64).sum(axis=0).tolist()),
            missing=sum(one.missing for one in parts),
            unseen=sum(one.unseen for one in parts),
            minimum=min((one.minimum for one in parts if one.minimum is not None), default=None),
            maximum=max((one.maximum for one in parts if one.maximum is not None), default=None),
            total=sum(one.total for one in parts),
            squares=sum(one.squares for one in parts),
        )


@dataclass(frozen=True)
class Profile:
    """Some rows, column by column; profiles over the same bins add up.

    Examples
    --------
    >>> one = Profile(2, {"team": ColumnProfile((1, 1))})
    >>> (one + one).columns["team"].counts
    (2, 2)
    """

    rows: int
    columns: dict[str, ColumnProfile]

    def __add__(self, other: Self) -> "Profile":
        return Profile(self.rows + other.rows, {name: own + other.columns[name] for name, own in self.columns.items()})

    @classmethod
    def empty(cls, bins: Mapping[str, Bins]) -> Self:
        """No row at all."""
        return cls(0, {name: ColumnProfile((0,) * one.count) for name, one in bins.items()})

    def as_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "columns": {name: vars(column) for name, column in self.columns.items()}}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        columns = document["columns"].items()
        return cls(
            document["rows"],
            {name: ColumnProfile(**{**column, "counts": tuple(column["counts"])}) for name, column in columns},
        )


@dataclass(frozen=True)
class Series:
    """One column's windows in order of time.

    Attributes
    ----------
    counts : shape (windows, bins); missing, unseen : shape (windows,).
    spans : where each window begins and ends, seconds since 1970, shape (windows, 2); None if that is not known.
    """

    kind: Kind
    counts: NDArray[np.float64]
    missing: NDArray[np.float64]
    unseen: NDArray[np.float64]
    spans: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, kind: Kind, windows: Iterable[ColumnProfile], spans: Iterable[Span] = ()) -> Self:
        found, times = list(windows), list(spans)
        return cls(
            kind,
            np.array([one.counts for one in found], dtype=float),
            np.array([one.missing for one in found], dtype=float),
            np.array([one.unseen for one in found], dtype=float),
            np.array(times, dtype=float) if times else None,
        )

    def __len__(self) -> int:
        return len(self.counts)

    def __add__(self, other: Self) -> "Series":
        """These windows, then the other ones."""
        counts, missing, unseen = (np.concatenate(pair) for pair in zip(self._arrays, other._arrays, strict=True))
        spans = None if self.spans is None or other.spans is None else np.concatenate([self.spans, other.spans])
        return Series(self.kind, counts, missing, unseen, spans)

    @property
    def rows(self) -> NDArray[np.float64]:
        """Of each window, whatever stands in them."""
        return np.asarray(self.counts.sum(axis=1) + self.missing + self.unseen)

    def newest(self, lengths: Sequence[int]) -> "Series":
        """The newest 1, 2, 3 … windows, each time added up."""
        return self.summed(np.full(len(lengths), len(self)), np.asarray(lengths))

    def summed(self, ends: NDArray[np.intp], lengths: NDArray[np.intp]) -> "Series":
        """So many windows before each end, added up."""
        return Series(self.kind, *(running(one, ends, lengths) for one in self._arrays))

    @property
    def _arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        return self.counts, self.missing, self.unseen


def running(values: NDArray[np.float64], ends: NDArray[np.intp], lengths: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sums of so many values before each end.

    >>> running(np.array([1.0, 2.0, 4.0]), np.array([2, 3]), np.array([2, 1])).tolist()
    [3.0, 4.0]
    """
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    return np.asarray(total[ends] - total[ends - lengths])


@dataclass(frozen=True)
class Baseline:
    """What windows are held against: the rows that a version learned from.

    Attributes
    ----------
    bins : per column; `prediction` and `confidence` among them, which are counted on rows that the version had not learned
        from.
    windows : in order of time; one where rows have no time.
    spans : of each window; none where rows have no time.
    """

    bins: dict[str, Bins]
    windows: tuple[Profile, ...]
    spans: tuple[Span, ...] = ()

    @property
    def whole(self) -> Profile:
        """All windows together."""
        rows = sum(one.rows for one in self.windows)
        return Profile(rows, {n: ColumnProfile.sum([one.columns[n] for one in self.windows]) for n in self.bins})

    @property
    def series(self) -> dict[str, Series]:
        """As `Detector` takes them."""
        return {name: self.series_of(name, self.windows, self.spans) for name in self.bins}

    def series_of(self, name: str, windows: Iterable[Profile], spans: Iterable[Span] = ()) -> Series:
        """Windows of one column; those in which it has no row say nothing of it."""
        times = list(spans)
        found = [one.columns[name] for one in windows]
        there = [place for place, one in enumerate(found) if one.rows]
        return Series.of(
            self.bins[name].kind, [found[place] for place in there], [times[place] for place in there] if times else ()
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "bins": {name: bins.as_json() for name, bins in self.bins.items()},
            "windows": [one.as_json() for one in self.windows],
            "spans": self.spans,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            {name: Bins.read(bins) for name, bins in document["bins"].items()},
            tuple(Profile.read(one) for one in document["windows"]),
            tuple((start, end) for start, end in document["spans"]),
        )


# Counting where the rows are: Ibis expressions, nothing is computed here.


WINDOW = "@window"
"""Column that says which window a row is in: whole numbers from 0."""
OUTER = 1 / BINS
"""The grid lies between these quantiles: the outermost bins are open anyway, and one outlier must not stretch it."""


def kinds_of(model: ModelFile) -> dict[str, Kind]:
    """What is profiled of a contract, and how: its columns, its features, and the answers."""
    found: dict[str, Kind] = {
        name: "category" if column.type in ("category", "boolean") else "number"
        for name, column in model.columns.items()
    }
    answers: dict[str, Kind] = (
        {PREDICTION: "category", CONFIDENCE: "number"} if model.classes else {PREDICTION: "number"}
    )
    features: dict[str, Kind] = dict.fromkeys(model.features, "number")
    return (
        found | features | {name: kind for name, kind in answers.items() if name not in found and name not in features}
    )


def values_of(table: Any, model: ModelFile) -> dict[str, Any]:
    """The columns of a contract and its features as what is profiled: numbers as float64, all others as texts.

    Parameters
    ----------
    table : Ibis table with the columns of the contract, cleaned; booleans as booleans or as 0 and 1.
    """
    found = {}
    for name, column in model.columns.items():
        if column.type == "boolean":
            found[name] = _boolean_text(table[name])
        else:
            found[name] = table[name].cast("string" if column.type == "category" else "float64")
    features = {name: Expression.parse(feature.expression) for name, feature in model.features.items()}
    return found | {name: feature_value(expression, table) for name, expression in features.items()}


def _boolean_text(column: Any) -> Any:
    import ibis

    if not column.type().is_boolean():
        column = column.cast("float64") != 0
    return ibis.cases((column, "true"), (~column, "false"), else_=ibis.null("string"))


def ranges(table: Any, kinds: Mapping[str, Kind]) -> Any:
    """One row: low and high quantile, smallest and largest value of every number; all null where there is none."""
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    found = {
        f"{what}:{name}": value
        for name in numbers
        for what, value in {
            "low": table[name].quantile(OUTER),
            "high": table[name].quantile(1 - OUTER),
            "minimum": table[name].min(),
            "maximum": table[name].max(),
        }.items()
    }
    return table.aggregate(rows=table.count(), **found)


def grid(found: Mapping[str, Any], name: str) -> Bins:
    """A number's grid without bins yet, from what `ranges` found."""
    low, high = found[f"low:{name}"], found[f"high:{name}"]
    if low == high:
        low, high = found[f"minimum:{name}"], found[f"maximum:{name}"]
    if low is None or not math.isfinite(high - low):
        return Bins("number")
    return Bins.of_numbers(low, high, np.zeros(CELLS, dtype=np.int64))


def extremes(table: Any, kinds: Mapping[str, Kind]) -> Any:
    """Rows, and smallest and largest of each number; a row per `@window` if there are windows. Where Parquet says so already,
    nothing is read.
    """
    found: dict[str, Any] = {"rows": table.count()}
    for name, kind in kinds.items():
        if kind == "number":
            found |= {f"minimum:{name}": table[name].min(), f"maximum:{name}": table[name].max()}
    return _aggregated(table, found)


def present(table: Any, categories: Iterable[str]) -> Any:
    """How many rows have a value of each category; a row per `@window` if there are windows."""
    return _aggregated(table, {name: table[name].count() for name in categories})


def _aggregated(table: Any, found: Mapping[str, Any]) -> Any:
    return (table.group_by(WINDOW) if WINDOW in table.columns else table).aggregate(**found)


def histograms(
    table: Any, grids: Mapping[str, Bins], categories: Iterable[str], found: Sequence[Mapping[str, Any]]
) -> Any:
    """Every column by its name as a map: from cells, or from values, to their rows; without the missing ones, and null if all
    are. A row per `@window` if there are windows.

    Parameters
    ----------
    found : what `extremes` found.
    """
    numbers = {name: _histogram("int16")(_cell(table[name], one, name, found)) for name, one in grids.items()}
    texts = {name: _histogram("string")(table[name].cast("string")) for name in categories}
    return _aggregated(table, numbers | texts)


@cache
def _histogram(kind: str) -> Callable[[Any], Any]:
    """An aggregate of DuckDB (and of Trino), which Ibis does not know by itself."""
    import ibis

    @ibis.udf.agg.builtin(name="histogram", signature=((kind,), f"map<{kind}, int64>"))
    def histogram(values):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ...

    return histogram  # type: ignore[no-any-return]


def cells(table: Any, grids: Mapping[str, Bins], found: Sequence[Mapping[str, Any]]) -> Any | None:
    """How many rows are in each cell of each number: Ibis table of `column` (position in `grids`), `value` (the cell; null
    where missing; below 0 and above the grid as far as `BEYOND`), `n`, and `@window` if the rows have one. None without
    numbers.

    Parameters
    ----------
    found : what `extremes` found.
    """
    values = [_cell(table[name], one, name, found) for name, one in grids.items()]
    return _joined([_grouped(table, place, value) for place, value in enumerate(values)])


def _cell(value: Any, one: Bins, name: str, found: Sequence[Mapping[str, Any]]) -> Any:
    """Numbers that cannot be out of reach are not compared: that costs half the time."""
    import ibis

    cell = ((value - one.low if one.low else value) * (1 / one.step)).cast("int16")
    low = [row[f"minimum:{name}"] for row in found if row[f"minimum:{name}"] is not None]
    high = [row[f"maximum:{name}"] for row in found if row[f"maximum:{name}"] is not None]
    if not low or (min(low) > one.low - one.reach and max(high) < one.low + one.reach):
        return cell
    limit = round(one.reach / one.step)
    return ibis.cases(
        (value <= one.low - one.reach, ibis.literal(-limit, "int16")),
        (value >= one.low + one.reach, ibis.literal(limit, "int16")),
        else_=cell,
    )


def levels(table: Any, told_apart: Mapping[str, Sequence[str] | None]) -> Any | None:
    """How many rows have each value of each category: Ibis table of `column` (position in `told_apart`), `value`, `n`, and
    `@window` if the rows have one. None without categories.

    Parameters
    ----------
    told_apart : per category the values that are, all others are null as missing ones are; or None for the most frequent
        ones, whatever they are.
    """
    import ibis

    parts = []
    for place, (name, names) in enumerate(told_apart.items()):
        value = table[name]
        if names is None:
            counted = _grouped(table, place, value)
            parts.append(counted.order_by([counted.n.desc(), "value"]).limit(MOST_VALUES + 2))
        else:
            parts.append(_grouped(table, place, value.isin(list(names)).ifelse(value, ibis.null("string"))))
    return _joined(parts)


def _grouped(table: Any, place: int, value: Any) -> Any:
    import ibis

    keys = {WINDOW: table[WINDOW], "value": value} if WINDOW in table.columns else {"value": value}
    counted = table.group_by(**keys).aggregate(n=lambda rows: rows.count())
    return counted.select(*keys, "n", column=ibis.literal(place, "int16"))


def _joined(parts: Sequence[Any]) -> Any:
    import ibis

    return ibis.union(*parts) if len(parts) > 1 else parts[0] if parts else None


@dataclass(frozen=True)
class Tally:
    """How many rows have each value, or are in each cell, of one column: three arrays of one length, by rising window."""

    window: NDArray[np.int64]
    value: NDArray[Any]
    n: NDArray[np.int64]

    @classmethod
    def of(cls, window: NDArray[np.int64], value: Any, n: Any) -> Self:
        """From two Arrow arrays, of which the missing values are left out."""
        there = np.flatnonzero(value.is_valid().to_numpy(zero_copy_only=False))
        order = there[np.argsort(window[there], kind="stable")]
        return cls(window[order], value.to_numpy(zero_copy_only=False)[order], n.to_numpy(zero_copy_only=False)[order])

    def of_window(self, number: int) -> Self:
        mine = slice(*np.searchsorted(self.window, [number, number + 1]))
        return type(self)(self.window[mine], self.value[mine], self.n[mine])

    @property
    def per_value(self) -> dict[str, int]:
        """Of a category, over all windows."""
        found: dict[str, int] = {}
        for value, n in zip(self.value.tolist(), self.n.tolist(), strict=True):
            found[value] = found.get(value, 0) + n
        return found

    @property
    def per_cell(self) -> Counts:
        """Of a number, over all windows; rows beyond the grid are in its outermost cells."""
        place = np.clip(self.value, 0, CELLS - 1).astype(np.int64)
        return np.bincount(place, self.n, minlength=CELLS).astype(np.int64)


@dataclass(frozen=True)
class Counted:
    """What an engine has counted.

    Attributes
    ----------
    rows : of each window, what `extremes` found.
    tallies : per column.
    present : how many rows of each window have a value of each category, where the tallies do not tell all values apart.
    """

    rows: Mapping[int, Mapping[str, Any]]
    tallies: Mapping[str, Tally]
    present: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of_histograms(cls, found: Sequence[Mapping[str, Any]], table: Any) -> Self:
        """From what `extremes` found, and `histograms` as an Arrow table."""
        window, tallies = _windows(table), {}
        for name in table.column_names:
            if name != WINDOW:
                maps = table[name].combine_chunks()
                each = np.repeat(window, np.diff(maps.offsets.to_numpy()))
                tallies[name] = Tally.of(each, maps.keys, maps.items)
        return cls(_by_window(found), tallies)

    @classmethod
    def of_groups(
        cls,
        found: Sequence[Mapping[str, Any]],
        present: Sequence[Mapping[str, int]],
        tables: Iterable[tuple[Iterable[str], Any]],
    ) -> Self:
        """From what `extremes` and `present` found, and `cells` and `levels` as Arrow tables, each with its columns."""
        import pyarrow.compute as pc

        tallies = {}
        for names, table in tables:
            for place, name in enumerate(names):
                rows = table.filter(pc.equal(table["column"], place))
                tallies[name] = Tally.of(_windows(rows), rows["value"], rows["n"])
        return cls(_by_window(found), tallies, _by_window(present))


def _windows(table: Any) -> NDArray[np.int64]:
    """The window of each row; 0 without windows."""
    if WINDOW not in table.column_names:
        return np.zeros(len(table), dtype=np.int64)
    return np.asarray(table[WINDOW].to_numpy(), dtype=np.int64)


def _by_window(rows: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {row.get(WINDOW, 0): row for row in rows}


@dataclass(frozen=True)
class Profiled:
    """The windows of some rows.

    Attributes
    ----------
    windows : by the number of the window, rising.
    unseen : per category the values that training did not know, the most frequent ones, with their rows.
    """

    windows: dict[int, Profile]
    unseen: dict[str, dict[str, int]] = field(default_factory=dict)


def bins_of(counted: Counted, grids: Mapping[str, Bins], categories: Sequence[str]) -> dict[str, Bins]:
    """The bins that a first count leads to: quantiles of numbers, and the most frequent values of categories."""
    numbers = {
        name: Bins.of_numbers(one.low, one.low + one.step * (CELLS - 1), counted.tallies[name].per_cell)
        for name, one in grids.items()
    }
    return numbers | {name: Bins.of_levels(counted.tallies[name].per_value) for name in categories}


def profiled(counted: Counted, bins: Mapping[str, Bins]) -> Profiled:
    """Profiles over bins that are known."""
    windows, unseen = {}, {}
    for number, row in sorted(counted.rows.items()):
        present, columns = counted.present.get(number, {}), {}
        for name, one in bins.items():
            tally = counted.tallies[name].of_window(number)
            if one.kind == "number":
                columns[name] = _number(tally, one, name, row)
            else:
                columns[name] = _category(tally, one, row["rows"], present.get(name, int(tally.n.sum())))
        windows[number] = Profile(row["rows"], columns)
    for name, one in bins.items():
        if one.kind == "category" and (found := _unknown(counted.tallies[name], one)):
            unseen[name] = found
    return Profiled(windows, unseen)


def _number(tally: Tally, bins: Bins, name: str, row: Mapping[str, Any]) -> ColumnProfile:
    middle = bins.low + bins.step * tally.value.astype(np.int64)
    return ColumnProfile(
        counts=tuple(bins.pooled(tally.per_cell).tolist()),
        missing=row["rows"] - int(tally.n.sum()),
        minimum=_finite(row[f"minimum:{name}"]),
        maximum=_finite(row[f"maximum:{name}"]),
        total=_finite(float((tally.n * middle).sum())) or 0.0,
        squares=_finite(float((tally.n * middle**2).sum())) or 0.0,
    )


def _finite(value: float | None) -> float | None:
    """The number, or the largest there is: JSON knows no infinity."""
    return None if value is None or math.isnan(value) else max(-1e308, min(1e308, value))


def _category(tally: Tally, bins: Bins, rows: int, present: int) -> ColumnProfile:
    """Values that are not told apart are rare ones of an open category, or ones that training did not know."""
    counts, unseen = bins.sorted_in(tally.per_value)
    if bins.open or bins.rare:
        counts[-1] += present - int(counts.sum()) - unseen
    return ColumnProfile(tuple(counts.tolist()), rows - present, present - int(counts.sum()))


def _unknown(tally: Tally, bins: Bins) -> dict[str, int]:
    values = [(name, n) for name, n in tally.per_value.items() if not bins.knows(name)]
    return dict(sorted(values, key=lambda item: (-item[1], item[0]))[:MOST_UNSEEN])


# Features: what `Expression.evaluate` says of arrays, as an engine says it.


BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: add,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    ast.Div: lambda left, right: left / right.nullif(0),
    ast.FloorDiv: lambda left, right: (left / right.nullif(0)).floor(),
    ast.Mod: lambda left, right: left - right * (left / right.nullif(0)).floor(),
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: eq,
    ast.NotEq: ne,
    ast.Lt: lt,
    ast.LtE: le,
    ast.Gt: gt,
    ast.GtE: ge,
}


def feature_value(expression: Expression, table: Any) -> Any:
    """A feature as an Ibis number; null where it is infinite or undefined, as the models see it.

    Parameters
    ----------
    table : Ibis table with the contract's columns.
    """
    return _as_number(_translated(expression.tree, table))


def _translated(node: ast.expr, table: Any) -> Any:
    import ibis

    match node:
        case ast.Name():
            return table[node.id]
        case ast.Constant():
            return ibis.literal(float(node.value) if type(node.value) is int else node.value)
        case ast.BoolOp():
            return reduce(and_ if isinstance(node.op, ast.And) else or_, [_true(one, table) for one in node.values])
        case ast.UnaryOp(op=ast.Not()):
            return ~_true(node.operand, table)
        case ast.UnaryOp():
            value = _as_number(_translated(node.operand, table))
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp():
            sides = (_as_number(_translated(side, table)) for side in (node.left, node.right))
            return BINARY[type(node.op)](*sides)
        case ast.Compare():
            return _compared(node, table)
        case ast.IfExp():
            body, otherwise = _translated(node.body, table), _translated(node.orelse, table)
            return _true(node.test, table).ifelse(body, otherwise)
    raise TypeError(f"unchecked node {node!r}")


def _as_number(value: Any) -> Any:
    return value.cast("float64")


def _true(node: ast.expr, table: Any) -> Any:
    """True or false, never null: what is missing is not true."""
    value = _translated(node, table)
    return (value if value.type().is_boolean() else _as_number(value) != 0).fill_null(False)


def _compared(node: ast.Compare, table: Any) -> Any:
    """A missing value makes every comparison false but `!=` and `not in`."""
    left, found = _translated(node.left, table), []
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            members = [item.value for item in getattr(comparator, "elts", ()) if isinstance(item, ast.Constant)]
            inside = left.isin(members).fill_null(False) if members else left.isnull() & left.notnull()
            found.append(~inside if isinstance(op, ast.NotIn) else inside)
            continue
        right = _translated(comparator, table)
        found.append(COMPARISONS[type(op)](left, right).fill_null(isinstance(op, ast.NotEq)))
        left = right
    return reduce(and_, found)
