"""The small safe language of `features.*.expression` and `serve.actions[].when`.

Python's own syntax without calls and attributes: names, numbers, texts, `and or not`, comparisons (`in` with a list of
constants too), `+ - * / // %` of numbers, `x if condition else y`, and `probabilities['High']`. A name is a column.

A missing value (None or NaN) makes every comparison false except `!=` and `not in`; it is not true; what is calculated
with it is NaN. A comparison counts as 1 or 0 where it is calculated with. Division by zero is infinite, or NaN for 0/0.

There are two ways to the same answers: `evaluate` for arrays, `value` for one row, which is a hundred times faster there.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, Any]
Compiled = Callable[[Row], Any]
MAX_LENGTH = 2_000
MAX_DEPTH = 50
SUBSCRIPTED = "probabilities"
"""The one name that has parts."""


def _divide(left: float, right: float) -> float:
    if right:
        return left / right
    return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left) * math.copysign(1.0, right)


def _floor_divide(left: float, right: float) -> float:
    return left // right if right else _divide(left, right)


def _modulo(left: float, right: float) -> float:
    return left % right if right else math.nan


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # noqa: PLR0124 - NaN


def _equal(left: Any, right: Any) -> bool:
    return left is not None and bool(left == right)


def _unequal(left: Any, right: Any) -> bool:
    return left is None or bool(left != right)


def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def ordered(left: Any, right: Any) -> bool:
        if _is_missing(left) or _is_missing(right):
            return False
        return bool(compare(left, right))

    return ordered


@dataclass(frozen=True)
class _Operator:
    """The same operation for single values and for arrays of numbers."""

    one: Callable[[Any, Any], Any]
    many: Callable[[Any, Any], Any]


BINARY: dict[type[ast.operator], _Operator] = {
    ast.Add: _Operator(operator.add, np.add),
    ast.Sub: _Operator(operator.sub, np.subtract),
    ast.Mult: _Operator(operator.mul, np.multiply),
    ast.Div: _Operator(_divide, np.true_divide),
    ast.FloorDiv: _Operator(_floor_divide, np.floor_divide),
    ast.Mod: _Operator(_modulo, np.mod),
}
COMPARISONS: dict[type[ast.cmpop], _Operator] = {
    ast.Eq: _Operator(_equal, operator.eq),
    ast.NotEq: _Operator(_unequal, operator.ne),
    ast.Lt: _Operator(_ordered(operator.lt), operator.lt),
    ast.LtE: _Operator(_ordered(operator.le), operator.le),
    ast.Gt: _Operator(_ordered(operator.gt), operator.gt),
    ast.GtE: _Operator(_ordered(operator.ge), operator.ge),
}


@dataclass(frozen=True)
class Expression:
    """A parsed expression; `names` are the columns it reads.

    Examples
    --------
    >>> night = Expression.parse("hour < 6 or hour >= 22")
    >>> sorted(night.names)
    ['hour']
    >>> night.evaluate({"hour": np.array([3, 12, 23])}).tolist()
    [True, False, True]
    >>> night.value({"hour": 3.0}), night.value({"hour": None})
    (True, False)
    >>> Expression.parse("team in ['ops', 'web']").evaluate({"team": np.array(["ops", None], dtype=object)}).tolist()
    [True, False]
    >>> Expression.parse("probabilities['High'] > 0.3").value({"probabilities": {"High": 0.4}})
    True
    >>> Expression.parse("__import__('os')")
    Traceback (most recent call last):
    ValueError: calls are not allowed
    """

    text: str
    names: frozenset[str]
    tree: ast.expr

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Parse `text`; raises ValueError naming what is not allowed."""
        if len(text) > MAX_LENGTH:
            raise ValueError(f"longer than {MAX_LENGTH} characters")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, RecursionError, MemoryError) as problem:
            raise ValueError(f"not an expression: {getattr(problem, 'msg', problem)}") from problem
        names: set[str] = set()
        _check(tree, names, MAX_DEPTH)
        return cls(text, frozenset(names), tree)

    def evaluate(self, columns: Mapping[str, Any]) -> Any:
        """The value for arrays of shape (n,) or for single values; raises KeyError for a name that is not there.

        Raises TypeError where texts are calculated with, or compared in order with numbers.
        """
        with np.errstate(all="ignore"):
            return _evaluate(self.tree, columns)

    def holds_for(self, columns: Mapping[str, Any]) -> NDArray[np.bool_]:
        """For which rows is the value true?"""
        return _truth(self.evaluate(columns))

    @cached_property
    def value(self) -> Compiled:
        """The value for one row, a mapping of names to number, boolean, text or None: what `evaluate` answers, sooner."""
        return _compile(self.tree)

    @cached_property
    def holds(self) -> Callable[[Row], bool]:
        """Is the value for one row true?"""
        return _condition(self.tree)


def _check(node: ast.expr, names: set[str], depth: int) -> None:
    if depth == 0:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    match node:
        case ast.Name():
            names.add(node.id)
        case ast.Constant():
            _check_constant(node)
        case ast.BoolOp():
            _check_all(node.values, names, depth)
        case ast.UnaryOp(op=ast.Not()):
            _check(node.operand, names, depth - 1)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            _check_numbers([node.operand], names, depth)
        case ast.BinOp():
            if type(node.op) not in BINARY:
                raise ValueError(f"operator {type(node.op).__name__} is not allowed")
            _check_numbers([node.left, node.right], names, depth)
        case ast.Compare():
            _check_comparison(node, names, depth)
        case ast.IfExp():
            _check_all([node.test, node.body, node.orelse], names, depth)
        case ast.Subscript(value=ast.Name(id="probabilities"), slice=ast.Constant(value=str())):
            names.add(SUBSCRIPTED)
        case ast.Call():
            raise ValueError("calls are not allowed")
        case _:
            raise ValueError(f"{type(node).__name__.lower()} is not allowed")


def _check_all(nodes: Sequence[ast.expr], names: set[str], depth: int) -> None:
    for node in nodes:
        _check(node, names, depth - 1)


def _check_numbers(nodes: Sequence[ast.expr], names: set[str], depth: int) -> None:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            raise ValueError("texts cannot be calculated with")
    _check_all(nodes, names, depth)


def _check_comparison(node: ast.Compare, names: set[str], depth: int) -> None:
    _check(node.left, names, depth - 1)
    for op, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            _check_list(right)
        elif type(op) in COMPARISONS:
            _check(right, names, depth - 1)
        else:
            raise ValueError(f"comparison {type(op).__name__} is not allowed")


def _check_constant(node: ast.Constant) -> None:
    if not isinstance(node.value, bool | int | float | str):
        raise ValueError(f"constant {node.value!r} is not allowed")
    try:
        _constant(node)
    except OverflowError:
        raise ValueError("a number is too large") from None


def _check_list(node: ast.expr) -> None:
    if not isinstance(node, ast.List | ast.Tuple):
        raise ValueError("`in` needs a list of constants")
    for item in node.elts:
        if not isinstance(item, ast.Constant):
            raise ValueError("`in` needs a list of constants")
        _check_constant(item)


def _constant(node: ast.Constant) -> Any:
    """Texts and booleans as they are, numbers as float64, as columns are."""
    return float(node.value) if type(node.value) is int else node.value


def _members(node: ast.expr) -> frozenset[Any]:
    return frozenset(_constant(item) for item in getattr(node, "elts", ()) if isinstance(item, ast.Constant))


# Many rows at once.


def _evaluate(node: ast.expr, columns: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name():
            return _array(columns[node.id])
        case ast.Constant():
            return _array(_constant(node))
        case ast.Subscript(slice=ast.Constant(value=str() as part)):
            return _array(columns[SUBSCRIPTED][part])
        case ast.BoolOp():
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            values = [_truth(_evaluate(value, columns)) for value in node.values]
            return combine.reduce(np.broadcast_arrays(*values)) if len(values) > 1 else values[0]
        case ast.UnaryOp(op=ast.Not()):
            return np.logical_not(_truth(_evaluate(node.operand, columns)))
        case ast.UnaryOp():
            value = _numbers(_evaluate(node.operand, columns))
            return np.negative(value) if isinstance(node.op, ast.USub) else value
        case ast.BinOp():
            left, right = (_numbers(_evaluate(side, columns)) for side in (node.left, node.right))
            return BINARY[type(node.op)].many(left, right)
        case ast.Compare():
            return _compare(node, columns)
        case ast.IfExp():
            return _choose(*(_evaluate(part, columns) for part in (node.test, node.body, node.orelse)))
    raise TypeError(f"unchecked node {node!r}")


def _array(value: Any) -> NDArray[Any]:
    """Texts and what may be missing among them as objects, everything else as NumPy sees it."""
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "UT" else array


def _numbers(array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype == object:
        return np.asarray(np.frompyfunc(_number, 1, 1)(array), dtype=np.float64)
    return np.asarray(array, dtype=np.float64)


def _truth(array: Any) -> NDArray[np.bool_]:
    array = np.asarray(array)
    if array.dtype == object:
        return np.asarray(np.frompyfunc(_is_true, 1, 1)(array), dtype=bool)
    truth: NDArray[np.bool_] = np.asarray(array, dtype=bool) & (array == array)  # noqa: PLR0124 - NaN is not true
    return truth


def _choose(condition: Any, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    if object in (first.dtype, second.dtype):
        first, second = first.astype(object), second.astype(object)
    return np.where(_truth(condition), first, second)


def _compare(node: ast.Compare, columns: Mapping[str, Any]) -> Any:
    left = _evaluate(node.left, columns)
    result: Any = True
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            current, right = _is_member(left, _members(comparator)) ^ isinstance(op, ast.NotIn), left
        else:
            right = _evaluate(comparator, columns)
            current = _compared(type(op), left, right)
        result = np.logical_and(result, current)
        left = right
    return result


def _compared(op: type[ast.cmpop], left: NDArray[Any], right: NDArray[Any]) -> Any:
    compare = COMPARISONS[op]
    if object not in (left.dtype, right.dtype):
        return compare.many(left, right)
    if op in (ast.Eq, ast.NotEq) and right.ndim == 0 and right[()] is not None:
        return compare.many(left, right)
    return np.asarray(np.frompyfunc(compare.one, 2, 1)(left, right), dtype=bool)


def _is_member(left: NDArray[Any], members: frozenset[Any]) -> NDArray[np.bool_]:
    if left.dtype == object:
        return np.asarray(np.frompyfunc(members.__contains__, 1, 1)(left), dtype=bool)
    found = np.zeros(left.shape, dtype=bool)
    for number in (member for member in members if not isinstance(member, str)):
        found = found | (left == number)
    return found


# One row: the tree as functions that call each other, made once.


def _compile(node: ast.expr) -> Compiled:
    match node:
        case ast.Name():
            return operator.itemgetter(node.id)
        case ast.Constant():
            constant = _constant(node)
            return lambda _row: constant
        case ast.Subscript(slice=ast.Constant(value=str() as part)):
            return lambda row: row[SUBSCRIPTED][part]
        case ast.BoolOp():
            return _any_or_all([_condition(value) for value in node.values], stop=isinstance(node.op, ast.Or))
        case ast.UnaryOp(op=ast.Not()):
            condition = _condition(node.operand)
            return lambda row: not condition(row)
        case ast.UnaryOp():
            operand, sign = _calculated(node.operand), -1.0 if isinstance(node.op, ast.USub) else 1.0
            return lambda row: sign * operand(row)
        case ast.BinOp():
            calculate, left, right = BINARY[type(node.op)].one, _calculated(node.left), _calculated(node.right)
            return lambda row: calculate(left(row), right(row))
        case ast.Compare():
            return _comparison(node)
        case ast.IfExp():
            test, body, otherwise = _condition(node.test), _compile(node.body), _compile(node.orelse)
            return lambda row: body(row) if test(row) else otherwise(row)
    raise TypeError(f"unchecked node {node!r}")


def _any_or_all(conditions: Sequence[Callable[[Row], bool]], *, stop: bool) -> Compiled:
    def combined(row: Row) -> bool:
        for condition in conditions:
            if condition(row) is stop:
                return stop
        return not stop

    return combined


def _condition(node: ast.expr) -> Callable[[Row], bool]:
    """As `_compile`, with the truth of the value."""
    compiled = _compile(node)
    if isinstance(node, ast.Compare | ast.BoolOp) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
        return compiled
    return lambda row: _is_true(compiled(row))


def _is_true(value: Any) -> bool:
    return not _is_missing(value) and bool(value)


def _calculated(node: ast.expr) -> Callable[[Row], float]:
    compiled = _compile(node)
    return lambda row: _number(compiled(row))


def _number(value: Any) -> float:
    if isinstance(value, str):
        raise TypeError("texts cannot be calculated with")
    return math.nan if value is None else float(value)


def _comparison(node: ast.Compare) -> Compiled:
    left = _compile(node.left)
    pairs: list[tuple[Callable[[Any, Any], bool], Compiled | None]] = []
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            pairs.append((_membership(_members(comparator), isinstance(op, ast.In)), None))
        else:
            pairs.append((COMPARISONS[type(op)].one, _compile(comparator)))
    if len(pairs) == 1:
        return _single_comparison(left, *pairs[0])

    def chained(row: Row) -> bool:
        value = left(row)
        for compare, right in pairs:
            other = value if right is None else right(row)
            if not compare(value, other):
                return False
            value = other
        return True

    return chained


def _single_comparison(left: Compiled, compare: Callable[[Any, Any], bool], right: Compiled | None) -> Compiled:
    if right is None:
        return lambda row: compare(left(row), None)
    return lambda row: compare(left(row), right(row))


def _membership(members: frozenset[Any], wanted: bool) -> Callable[[Any, Any], bool]:
    return lambda value, _same: (value in members) is wanted
