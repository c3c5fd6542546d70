"""One record as a client sends it → one row of the contract."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from steward.config import Column, ModelFile, Serve
from steward.errors import RecordInvalid

Value = float | str | None
Row = dict[str, Value]
KINDS = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}
LARGEST_WHOLE = 10**18
"""Whole numbers as far as every table and every JSON parser can hold them."""
LARGEST = 1e308
SHOWN = 20
"""The most problems of one request that are listed."""


class Admitted(NamedTuple):
    """A record that keeps the contract."""

    row: Row
    """Value of every contract column, in their order: number, text, or None where missing."""
    flags: tuple[str, ...]
    """What was accepted although it is unusual: `out_of_range:COLUMN`, `unknown_field:NAME`."""

    @property
    def columns(self) -> dict[str, tuple[Value, ...]]:
        """The row as columns of one value."""
        return {name: (value,) for name, value in self.row.items()}


@dataclass(frozen=True)
class AdmittedRecords:
    """Records that keep the contract, column by column."""

    columns: Mapping[str, Sequence[Value]]
    """By contract column, in their order; one value per record."""
    flags: Sequence[tuple[str, ...]]
    """Of each record."""

    def __len__(self) -> int:
        return len(self.flags)

    def __iter__(self) -> Iterator[Admitted]:
        return map(Admitted, self.rows(), self.flags)

    def rows(self) -> list[Row]:
        """As `Admitted` has them."""
        return [dict(zip(self.columns, values, strict=True)) for values in zip(*self.columns.values(), strict=True)]


class Reader:
    """Reads records of one contract; made once per model, because a call must cost microseconds.

    Blanks around a text are removed, aliases replaced, and texts that mean "no value" are missing. Key, time, group
    and label may stand in the record; no model looks at them.

    Parameters
    ----------
    model : the contract.
    serve : `out_of_range` and `unknown_fields` say what is flagged rather than refused; everything is refused if None.

    Examples
    --------
    >>> text = '''
    ... {name: m, task: classification, source: {table: t.csv, key: id}, label: {column: risk, classes: [Low, High]},
    ...  columns: {hour: {type: integer, min: 0, max: 23}, team: {type: category, open: true, nullable: true}},
    ...  serve: {out_of_range: flag}}
    ... '''
    >>> model = ModelFile.parse(text)
    >>> Reader(model, model.serve).read({"id": 17, "hour": 24, "team": " web "})
    Admitted(row={'hour': 24.0, 'team': 'web'}, flags=('out_of_range:hour',))
    """

    def __init__(self, model: ModelFile, serve: Serve | None = None) -> None:
        missing = frozenset(model.source.missing)
        others = (*model.source.keys, model.source.time, model.split.group, model.label.column)
        self.others = frozenset(name for name in others if name is not None)
        """Fields beside the columns that a record may carry."""
        self.columns = tuple(model.columns)
        self._known = self.others | model.columns.keys()
        self._refuses_unknown = serve is None or serve.unknown_fields == "refuse"
        flagged = serve is not None and serve.out_of_range == "flag"
        self._converters = tuple(
            (name, _converter(name, column, missing), _range(column) if flagged else None)
            for name, column in model.columns.items()
        )
        self._by_column = tuple(
            (name, _by_column(column, _converter(name, column, missing))) for name, column in model.columns.items()
        )
        self._checks = tuple(
            (name, None if flagged else _range(column), f"{name} is out of range", _allowed(column))
            for name, column in model.columns.items()
        )

    def read(self, record: Mapping[str, Any]) -> Admitted:
        """The record's row; raises RecordInvalid, whose `problems` lists every field that is wrong."""
        problems: list[RecordInvalid] = []
        flags: list[str] = []
        row: Row = {}
        get = record.get
        for (name, convert, flagged), (_, refused, what, allowed) in zip(self._converters, self._checks, strict=True):
            given = get(name)
            try:
                value = row[name] = convert(given)
            except RecordInvalid as problem:
                problems.append(problem)
                continue
            if flagged is not None and value is not None and not flagged[0] <= value <= flagged[1]:  # type: ignore[operator]
                flags.append(f"out_of_range:{name}")
            if refused is not None and value is not None and not refused[0] <= value <= refused[1]:  # type: ignore[operator]
                problems.append(RecordInvalid(what, got=given, allowed=allowed, field=name))
        if record.keys() - self._known:
            self._judge_unknown(record, problems, flags)
        if problems:
            raise together(problems)
        return Admitted(row, tuple(flags))

    def read_many(self, records: Sequence[Mapping[str, Any]]) -> AdmittedRecords:
        """What `read` says of each, column by column where nothing is unusual: ten times as fast.

        Raises
        ------
        RecordInvalid : of the first record that breaks the contract; `record` is its position.
        """
        columns = self._ordinary_columns(records)
        if columns is not None:
            return AdmittedRecords(columns, [()] * len(records))
        admitted = []
        for position, record in enumerate(records):
            try:
                admitted.append(self.read(record))
            except RecordInvalid as problem:
                problem.facts["record"] = position
                raise
        return AdmittedRecords(columns_of([each.row for each in admitted]), [each.flags for each in admitted])

    def _ordinary_columns(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Value]] | None:
        """The values of records without anything to flag or refuse; None if there is something."""
        if not all(map(self._known.issuperset, set(map(tuple, records)))):
            return None
        columns = {}
        for name, read in self._by_column:
            values = read([record.get(name) for record in records])
            if values is None:
                return None
            columns[name] = values
        return columns

    def _judge_unknown(self, record: Mapping[str, Any], problems: list[RecordInvalid], flags: list[str]) -> None:
        unknown = (name for name in record if name not in self._known)
        if self._refuses_unknown:
            allowed = ", ".join(self.columns)
            problems += [
                RecordInvalid("the model has no such field", got=name, allowed=allowed, field=name) for name in unknown
            ]
        else:
            flags += [f"unknown_field:{name}" for name in unknown]


def admit(model: ModelFile, record: Mapping[str, Any]) -> Row:
    """The record's values of the contract columns, in their order; everything unusual is refused.

    Raises
    ------
    RecordInvalid : names field, value and what is allowed; `problems` lists every field that is wrong.

    Examples
    --------
    >>> text = '''
    ... {name: m, task: classification, source: {table: t.csv, key: id}, label: {column: risk, classes: [Low, High]},
    ...  columns: {hour: {type: integer, min: 0, max: 23}, team: {type: category, open: true, nullable: true}}}
    ... '''
    >>> model = ModelFile.parse(text)
    >>> admit(model, {"hour": 7, "team": " web "})
    {'hour': 7.0, 'team': 'web'}
    >>> admit(model, {"hour": 24})
    Traceback (most recent call last):
    steward.errors.RecordInvalid: hour is out of range: got 24; allowed: 0 to 23
    """
    return Reader(model).read(record).row


def together(problems: Sequence[RecordInvalid]) -> RecordInvalid:
    """The first problem, which tells of the others."""
    first, *others = problems
    told = "; ".join(str(other).rstrip(".") for other in others[:SHOWN])
    facts = {**first.facts, "problems": [problem.as_json() for problem in problems[:SHOWN]]}
    return RecordInvalid(
        first.what, got=first.got, allowed=first.allowed, do=f"Also wrong: {told}" if told else None, **facts
    )


def _range(column: Column) -> tuple[float, float] | None:
    if column.min is None and column.max is None:
        return None
    return (-math.inf if column.min is None else column.min, math.inf if column.max is None else column.max)


def _converter(name: str, column: Column, missing: frozenset[str]) -> Callable[[Any], Value]:
    """Turns what a client sent for a column into the contract's value; raises RecordInvalid. Ranges are not looked at."""
    allowed = _allowed(column)
    convert = _category(name, column, allowed) if column.type == "category" else _number(name, column, allowed)

    def read(value: Any) -> Value:
        if isinstance(value, str):
            value = value.strip()
            if value in missing:
                value = None
        if value is None or value != value:  # noqa: PLR0124 - NaN
            if not column.nullable:
                raise RecordInvalid(f"{name} is missing", allowed=allowed, field=name)
            return None
        return convert(value)

    return read


def _by_column(column: Column, convert: Callable[[Any], Value]) -> Callable[[Sequence[Any]], Sequence[Value] | None]:
    """Reads the values of a column if all of them are ordinary: of its own type, in its range; None otherwise."""
    kinds_of: dict[str, set[type]] = {"category": {str}, "boolean": {bool, int, float}}
    legal = kinds_of.get(column.type, {int, float}) | ({type(None)} if column.nullable else set())
    low, high = _range(column) or (-LARGEST, LARGEST)
    if column.type == "integer":
        low, high = max(low, -LARGEST_WHOLE), min(high, LARGEST_WHOLE)

    def numbers(values: Sequence[Any]) -> Sequence[Value] | None:
        kinds = set(map(type, values))
        if not kinds <= legal:
            return None
        there = [value for value in values if value is not None] if type(None) in kinds else values
        if there and not low <= min(there) <= max(there) <= high:
            return None
        if float in kinds and not all(value == value for value in there):  # noqa: PLR0124 - NaN
            return None
        if float in kinds and column.type == "integer" and not all(value == int(value) for value in there):
            return None
        if there is values:
            return list(map(float, values))
        return [None if value is None else float(value) for value in values]

    def few(values: Sequence[Any]) -> Sequence[Value] | None:
        if not set(map(type, values)) <= legal:
            return None
        try:
            read = {value: convert(value) for value in set(values)}
        except RecordInvalid:
            return None
        return [read[value] for value in values]

    return numbers if column.type in ("integer", "number") else few


def _category(name: str, column: Column, allowed: str) -> Callable[[Any], str]:
    legal = None if column.open or not column.values else frozenset(column.values)
    aliases = dict(column.aliases)

    def convert(value: Any) -> str:
        if not isinstance(value, str | int | float):
            raise RecordInvalid(f"{name} is not a text", got=value, allowed=allowed, field=name)
        text = value if isinstance(value, str) else _text(value)
        text = aliases.get(text, text)
        if legal is not None and text not in legal:
            raise RecordInvalid(f"{name} has no such category", got=value, allowed=allowed, field=name)
        return text

    return convert


def _text(value: Any) -> str:
    """A number or boolean as the accept step writes it: whole numbers without a decimal point."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else str(value)


def _number(name: str, column: Column, allowed: str) -> Callable[[Any], float]:
    is_legal = {"boolean": _is_boolean, "integer": _is_whole, "number": _is_finite}[column.type]
    largest = {"boolean": 0, "integer": LARGEST_WHOLE, "number": LARGEST}[column.type]
    any_fraction = column.type == "number"

    def convert(value: Any) -> float:
        kind = type(value)  # the usual case first: this runs for every value of every request
        if (kind is int or kind is float) and -largest <= value <= largest and (any_fraction or value == int(value)):
            return float(value)
        if is_legal(value):
            return float(value)
        raise RecordInvalid(f"{name} is not {KINDS[column.type]}", got=value, allowed=allowed, field=name)

    return convert


def _is_boolean(value: Any) -> bool:
    return isinstance(value, int | float) and value in (0, 1)


def _is_whole(value: Any) -> bool:
    return _is_finite(value) and value == int(value) and -LARGEST_WHOLE <= value <= LARGEST_WHOLE


def _is_finite(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the largest float
        return False


def _allowed(column: Column) -> str:
    """What the contract allows, in words."""
    if column.type == "boolean":
        return KINDS["boolean"]
    if column.type == "category":
        return ", ".join(column.values) if column.values and not column.open else "any text"
    low, high = (None if limit is None else f"{limit:.12g}" for limit in (column.min, column.max))
    if low is not None and high is not None:
        return f"{low} to {high}"
    bound = f" from {low}" if low is not None else f" up to {high}" if high is not None else ""
    return KINDS[column.type] + bound


def columns_of(rows: Sequence[Row]) -> dict[str, list[Value]]:
    """Rows → values per column.

    >>> columns_of([{"hour": 7.0, "team": "web"}, {"hour": None, "team": "db"}])
    {'hour': [7.0, None], 'team': ['web', 'db']}
    """
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def problems_of(refusal: RecordInvalid) -> Iterator[dict[str, Any]]:
    """Every problem of a refusal as plain JSON: field, what, got, allowed."""
    for problem in refusal.facts.get("problems", ()):
        yield {name: problem.get(name) for name in ("field", "what", "got", "allowed")}
