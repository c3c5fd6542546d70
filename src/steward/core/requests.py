"""One record as a client sends it → one row of the contract."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from steward.config import Column, ModelFile
from steward.errors import RecordInvalid

Value = float | str | None
KINDS = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}


def admit(model: ModelFile, record: Mapping[str, Any]) -> dict[str, Value]:
    """The record's values of the contract columns, in their order: number, text, or None where missing.

    Blanks around a text are removed, aliases replaced, and texts that mean "no value" are missing. Key, time, group
    and label may stand in the record; they are not looked at.

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
    problems = [*_unknown_fields(model, record)]
    row: dict[str, Value] = {}
    for name, column in model.columns.items():
        try:
            row[name] = _value(name, column, record.get(name), model.source.missing)
        except RecordInvalid as problem:
            problems.append(problem)
    if problems:
        raise _together(problems)
    return row


def _unknown_fields(model: ModelFile, record: Mapping[str, Any]) -> Iterator[RecordInvalid]:
    others = {*model.source.keys, model.source.time, model.split.group, model.label.column}
    for name in record:
        if name not in model.columns and name not in others:
            yield RecordInvalid("the model has no such field", got=name, allowed=", ".join(model.columns), field=name)


def _together(problems: list[RecordInvalid]) -> RecordInvalid:
    """The first problem, which tells of the others."""
    first, *others = problems
    do = f"Also wrong: {'; '.join(str(other).rstrip('.') for other in others)}" if others else None
    facts = {**first.facts, "problems": [problem.as_json() for problem in problems]}
    return RecordInvalid(first.what, got=first.got, allowed=first.allowed, do=do, **facts)


def _value(name: str, column: Column, value: Any, missing: tuple[str, ...]) -> Value:
    if isinstance(value, str):
        value = value.strip()
    if value is None or value in missing or (isinstance(value, float) and math.isnan(value)):
        if not column.nullable:
            raise RecordInvalid(f"{name} is missing", allowed=_allowed(column), field=name)
        return None
    if column.type == "category":
        return _category(name, column, value)
    return _number(name, column, value)


def _category(name: str, column: Column, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise RecordInvalid(f"{name} is not a text", got=value, allowed=_allowed(column), field=name)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = column.aliases.get(text, text)
    if not column.open and column.values and text not in column.values:
        raise RecordInvalid(f"{name} has no such category", got=value, allowed=_allowed(column), field=name)
    return text


def _number(name: str, column: Column, value: Any) -> float:
    if column.type == "boolean":
        legal = isinstance(value, int | float) and value in (0, 1)
    else:
        legal = isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if not legal or (column.type == "integer" and value != int(value)):
        raise RecordInvalid(f"{name} is not {KINDS[column.type]}", got=value, allowed=_allowed(column), field=name)
    if (column.min is not None and value < column.min) or (column.max is not None and value > column.max):
        raise RecordInvalid(f"{name} is out of range", got=value, allowed=_allowed(column), field=name)
    return float(value)


def _is_finite(value: float) -> bool:
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
