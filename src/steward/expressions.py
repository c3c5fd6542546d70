"""The small safe language of `features.*.expression` and `serve.actions[].when`.

Python's own syntax without calls, attributes or subscripts: names, numbers, texts, `and or not`, comparisons
(`in` with a list of constants too), `+ - * / // %` and `x if condition else y`. A name is a column. Missing values
make every comparison false except `!=` and `not in`, as in pandas.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.true_divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
MAX_LENGTH = 2_000


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
    >>> Expression.parse("team in ['ops', 'web']").evaluate({"team": np.array(["ops", None], dtype=object)}).tolist()
    [True, False]
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
        _check(tree, names)
        return cls(text, frozenset(names), tree)

    def evaluate(self, columns: Mapping[str, Any]) -> Any:
        """The value for arrays of shape (n,) or for single values; raises KeyError for a name that is not there."""
        with np.errstate(all="ignore"):
            return _evaluate(self.tree, columns)


def _check(node: ast.expr, names: set[str]) -> None:
    match node:
        case ast.Name():
            names.add(node.id)
        case ast.Constant():
            if not isinstance(node.value, bool | int | float | str):
                raise ValueError(f"constant {node.value!r} is not allowed")
        case ast.BoolOp():
            _check_all(node.values, names)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd()):
            _check(node.operand, names)
        case ast.BinOp():
            if type(node.op) not in BINARY:
                raise ValueError(f"operator {type(node.op).__name__} is not allowed")
            _check_all([node.left, node.right], names)
        case ast.Compare():
            _check(node.left, names)
            for op, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(op, ast.In | ast.NotIn):
                    _check_list(right)
                elif type(op) in COMPARISONS:
                    _check(right, names)
                else:
                    raise ValueError(f"comparison {type(op).__name__} is not allowed")
        case ast.IfExp():
            _check_all([node.test, node.body, node.orelse], names)
        case ast.Call():
            raise ValueError("calls are not allowed")
        case _:
            raise ValueError(f"{type(node).__name__.lower()} is not allowed")


def _check_all(nodes: list[ast.expr], names: set[str]) -> None:
    for node in nodes:
        _check(node, names)


def _check_list(node: ast.expr) -> None:
    if not isinstance(node, ast.List | ast.Tuple) or not all(isinstance(item, ast.Constant) for item in node.elts):
        raise ValueError("`in` needs a list of constants")


def _evaluate(node: ast.expr, columns: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name():
            return columns[node.id]
        case ast.Constant():
            return node.value
        case ast.BoolOp():
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            values = [_truth(_evaluate(value, columns)) for value in node.values]
            return combine.reduce(np.broadcast_arrays(*values)) if len(values) > 1 else values[0]
        case ast.UnaryOp(op=ast.Not()):
            return np.logical_not(_truth(_evaluate(node.operand, columns)))
        case ast.UnaryOp():
            value = _evaluate(node.operand, columns)
            return operator.neg(value) if isinstance(node.op, ast.USub) else value
        case ast.BinOp():
            return BINARY[type(node.op)](_evaluate(node.left, columns), _evaluate(node.right, columns))
        case ast.Compare():
            return _compare(node, columns)
        case ast.IfExp():
            condition = _truth(_evaluate(node.test, columns))
            return np.where(condition, _evaluate(node.body, columns), _evaluate(node.orelse, columns))
    raise TypeError(f"unchecked node {node!r}")


def _compare(node: ast.Compare, columns: Mapping[str, Any]) -> Any:
    left = _evaluate(node.left, columns)
    result: Any = True
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            members: list[Any] = [
                item.value for item in getattr(comparator, "elts", ()) if isinstance(item, ast.Constant)
            ]
            found = np.logical_or.reduce([_truth(np.equal(left, member)) for member in members] or [np.False_])
            current, right = (found if isinstance(op, ast.In) else np.logical_not(found)), left
        else:
            right = _evaluate(comparator, columns)
            current = _truth(COMPARISONS[type(op)](left, right))
        result = np.logical_and(result, current)
        left = right
    return result


def _truth(value: Any) -> Any:
    """Booleans from comparisons of object arrays, whose missing values answer None."""
    array = np.asarray(value)
    return np.array([bool(item) for item in array.ravel()]).reshape(array.shape) if array.dtype == object else array
