"""Boosted trees as tables of bits: which leaves a value leaves open, column by column.

A row's leaf in a tree is the first one that no column rules out. So instead of walking every tree, one table row per
column is looked up and the rows are combined with AND; the lowest bit that is left is the leaf. Gradient boosting on
histograms has at most 255 thresholds a column, which keeps the tables small. Everything is exact: thresholds are
compared in float64, a category is its own table row, and so is a missing value.

After Lucchese et al., QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees, 2015;
the tables hold its bit vectors, combined beforehand for every interval between two thresholds.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

WORD = 64
MOST_LEAVES = 2 * WORD
MOST_BYTES = 64 * 1024 * 1024
ROWS = 64
"""Answered at a time, so that what is combined stays in the processor's cache."""
LINKS = ("softmax", "sigmoid", "identity", "exp")

Link = Literal["softmax", "sigmoid", "identity", "exp"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Tree:
    """A tree's nodes as arrays; `left` and `right` are -1 in leaves.

    Attributes
    ----------
    sets : per node the codes that go left, None for a numeric split; empty where all splits are numeric.
    """

    target: int
    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    threshold: Matrix
    missing_left: NDArray[Any]
    values: Matrix
    sets: Sequence[Sequence[float] | None] = ()


class LeafTables:
    """Copies of a boosting whose answers are averaged.

    Parameters
    ----------
    columns : input columns that are looked at; shape (f,).
    codes : of each, how many codes it has if it is a category, else -1.
    thresholds, ends : of each numeric column, rising; `ends` says where each column's end.
    masks : table rows of all columns, one below the other; shape (r, words * trees), unsigned words of up to 64 bits.
    values : of every leaf; shape (trees, 64 * words).
    groups : first tree of every (copy, class); trees stand in that order.
    copies : how many answers are averaged.
    """

    def __init__(
        self,
        *,
        width: int,
        columns: NDArray[np.int64],
        codes: NDArray[np.int64],
        thresholds: Matrix,
        ends: NDArray[np.int64],
        masks: NDArray[Any],
        values: Matrix,
        groups: NDArray[np.int64],
        copies: int,
        link: str,
    ) -> None:
        self.width, self.copies, self.link = int(width), int(copies), str(link)
        self.columns, self.codes, self.groups = columns, codes, groups
        self.thresholds, self.ends = thresholds, ends
        self._two = values.shape[1] > WORD
        self.masks, self.values = masks if self._two else _shortened(masks), values
        used = values if self._two else values[:, : self.masks.itemsize * 8]
        self._flat = used.ravel()
        self._base = np.arange(len(used)) * used.shape[1]
        self._parts = np.split(thresholds, ends[:-1])
        self._lists = [part.tolist() for part in self._parts]
        heights = [int(code) + 1 if code >= 0 else len(part) + 2 for code, part in zip(codes, self._parts, strict=True)]
        self._starts = np.concatenate([[0], np.cumsum(heights)[:-1]]).astype(np.int64)
        self._steps = list(zip(columns.tolist(), codes.tolist(), self._starts.tolist(), self._lists, strict=True))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays, readable by `read`."""
        names = ("columns", "codes", "thresholds", "ends", "masks", "values", "groups")
        found = {name: getattr(self, name) for name in names}
        return found | {"sizes": np.array([self.width, self.copies, LINKS.index(self.link)])}

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """From what `arrays` gave."""
        width, copies, link = arrays["sizes"].tolist()
        return cls(width=width, copies=copies, link=LINKS[link], **{n: a for n, a in arrays.items() if n != "sizes"})

    def answer(self, rows: Matrix) -> Matrix:
        """Probabilities of shape (n, classes), or predictions of shape (n,), for prepared rows of shape (n, width)."""
        if len(rows) == 1:
            combined = np.bitwise_and.reduce(self.masks.take(self._place(rows[0].tolist()), axis=0), axis=0)
            return self._linked(self._sums(combined[None, :]))
        places = self._places(rows)
        sums = np.empty((len(rows), len(self.groups)))
        other = np.empty((ROWS, self.masks.shape[1]), dtype=self.masks.dtype)
        for start in range(0, len(rows), ROWS):
            block = places[:, start : start + ROWS]
            combined = self.masks.take(block[0], axis=0)
            for place in block[1:]:
                combined &= self.masks.take(place, axis=0, out=other[: len(place)], mode="clip")
            sums[start : start + ROWS] = self._sums(combined)
        return self._linked(sums)

    def _place(self, row: list[float]) -> list[int]:
        """Table rows of one row."""
        found = []
        for column, codes, start, steps in self._steps:
            value = row[column]
            if codes >= 0:
                found.append(start + (int(value) if 0 <= value < codes else codes))
            else:
                found.append(start + (len(steps) + 1 if isnan(value) else bisect_left(steps, value)))
        return found

    def _places(self, rows: Matrix) -> NDArray[np.int64]:
        """Table rows of many rows; shape (f, n)."""
        places = np.empty((len(self.columns), len(rows)), dtype=np.int64)
        for at, (column, codes, steps) in enumerate(zip(self.columns, self.codes, self._parts, strict=True)):
            values = rows[:, column]
            if codes >= 0:
                places[at] = np.where((values >= 0) & (values < codes), values, codes)
            else:
                places[at] = np.searchsorted(steps, values) + np.isnan(values)
        return places + self._starts[:, None]

    def _sums(self, masks: NDArray[Any]) -> Matrix:
        """Leaf values added up per copy and class; shape (n, groups)."""
        leaves = _lowest_bit(masks[:, : len(self.values)]).astype(np.int64)
        if self._two:
            leaves += np.where(leaves == WORD, _lowest_bit(masks[:, len(self.values) :]), 0)
        leaves += self._base
        return np.asarray(np.add.reduceat(self._flat.take(leaves), self.groups, axis=1))

    def _linked(self, sums: Matrix) -> Matrix:
        raw = sums.reshape(len(sums), self.copies, len(self.groups) // self.copies)
        match self.link:
            case "softmax":
                raw = np.exp(raw - raw.max(axis=2, keepdims=True))
                raw /= raw.sum(axis=2, keepdims=True)
            case "sigmoid":
                raw = _logistic(raw)
                raw = np.concatenate([1 - raw, raw], axis=2)
            case "exp":
                raw = np.exp(raw)
        answers = (
            np.add.reduce(raw, axis=1) / self.copies if self.copies > 1 else raw[:, 0]
        )  # `mean`, without its checks
        return answers if self.link in ("softmax", "sigmoid") else answers[:, 0]


def _shortened(masks: NDArray[Any]) -> NDArray[Any]:
    """The masks in the shortest words that do: beyond a bit that is set in every row no lowest bit is ever looked for.

    >>> _shortened(np.array([0b1111, 2**64 - 1], dtype=np.uint64) | np.uint64(2**64 - 2**31)).dtype
    dtype('uint32')
    """
    never = ~np.bitwise_and.reduce(masks, axis=None)
    needed = int(never).bit_length() + 1
    return masks.astype(next((f"u{bits // 8}" for bits in (8, 16, 32) if needed <= bits), masks.dtype), copy=False)


def _lowest_bit(words: NDArray[Any]) -> NDArray[np.uint8]:
    """Position of the lowest bit that is set, the length of the word where none is."""
    lower = -words
    lower &= words
    lower -= words.dtype.type(1)
    return np.asarray(np.bitwise_count(lower), dtype=np.uint8)


def _logistic(raw: Matrix) -> Matrix:
    small = np.exp(-np.abs(raw))
    return np.where(raw >= 0, 1 / (1 + small), small / (1 + small))


def build(trees: Sequence[Sequence[Tree]], *, width: int, codes: int, targets: int, link: Link) -> LeafTables:
    """The tables of one or several copies.

    Parameters
    ----------
    trees : of each copy.
    width : columns of a prepared row.
    codes : categories are codes below this number; what is not is taken for a missing value.
    targets : sums per copy: classes, or 1.

    Raises
    ------
    TypeError : a tree has more than 128 leaves, or the tables would be too large.
    """
    ordered = [tree for copy in trees for target in range(targets) for tree in copy if tree.target == target]
    firsts = np.cumsum([0, *(sum(t.target == target for t in copy) for copy in trees for target in range(targets))])
    if len(set(firsts.tolist())) != len(firsts):
        raise TypeError("a class without trees")
    found = [_Leaves.of(tree) for tree in ordered]
    most = max(leaves.count for leaves in found)
    if most > MOST_LEAVES:
        raise TypeError(f"a tree of {most} leaves; tables hold {MOST_LEAVES}")
    words = 1 if most <= WORD else 2
    columns = sorted({int(column) for tree in ordered for column in tree.feature[tree.left >= 0]})
    tables = {column: _Table.of(column, ordered, codes) for column in columns or [0]}
    if sum(table.height for table in tables.values()) * words * len(ordered) * WORD // 8 > MOST_BYTES:
        raise TypeError("tables that are too large for a processor's cache to be of use")
    masks = {column: _all_open(table.height, words * len(ordered)) for column, table in tables.items()}
    for number, (tree, leaves) in enumerate(zip(ordered, found, strict=True)):
        for node, (start, end) in leaves.below_left.items():
            column = int(tree.feature[node])
            right = tables[column].rows_to_the_right(tree, node)
            for word in range(words):
                open_leaves = np.uint64(~_bits(start - word * WORD, end - word * WORD) & (2**WORD - 1))
                for rows in right:
                    masks[column][rows, word * len(ordered) + number] &= open_leaves
    values = np.zeros((len(ordered), WORD * words))
    for number, (tree, leaves) in enumerate(zip(ordered, found, strict=True)):
        values[number, : leaves.count] = tree.values[leaves.order]
    return LeafTables(
        width=width,
        columns=np.array(list(tables)),
        codes=np.array([table.codes for table in tables.values()]),
        thresholds=np.concatenate([table.thresholds for table in tables.values()]),
        ends=np.cumsum([len(table.thresholds) for table in tables.values()]),
        masks=np.concatenate(list(masks.values())),
        values=values,
        groups=firsts[:-1],
        copies=len(trees),
        link=link,
    )


def _all_open(height: int, words: int) -> NDArray[np.uint64]:
    return np.full((height, words), np.iinfo(np.uint64).max, dtype=np.uint64)


@dataclass(frozen=True)
class _Leaves:
    """A tree's leaves from left to right, and for every inner node the places of those below its left child."""

    order: list[int]
    below_left: dict[int, tuple[int, int]]

    @property
    def count(self) -> int:
        return len(self.order)

    @classmethod
    def of(cls, tree: Tree) -> Self:
        order: list[int] = []
        below: dict[int, tuple[int, int]] = {}
        left, right = tree.left.tolist(), tree.right.tolist()
        first: dict[int, int] = {}
        waiting = [(0, False)]
        while waiting:
            node, left_is_done = waiting.pop()
            if left[node] < 0:
                order.append(node)
            elif left_is_done:
                below[node] = first[node], len(order)
                waiting.append((right[node], False))
            else:
                first[node] = len(order)
                waiting += [(node, True), (left[node], False)]
        return cls(order, below)


@dataclass(frozen=True)
class _Table:
    """One column's table: a row per interval between thresholds, or per code; the last row is for a missing value."""

    column: int
    codes: int
    thresholds: Matrix

    @property
    def height(self) -> int:
        return self.codes + 1 if self.codes >= 0 else len(self.thresholds) + 2

    @classmethod
    def of(cls, column: int, trees: Sequence[Tree], codes: int) -> Self:
        thresholds: list[Matrix] = []
        categorical = False
        for tree in trees:
            mine = np.flatnonzero((tree.left >= 0) & (tree.feature == column))
            sets = [tree.sets[node] for node in mine.tolist()] if tree.sets else [None] * len(mine)
            thresholds.append(tree.threshold[mine[[one is None for one in sets]]] if len(mine) else np.empty(0))
            categorical = categorical or any(one is not None for one in sets)
        found = np.unique(np.concatenate(thresholds))
        if categorical and len(found):
            raise TypeError("a column that is split both as a number and as a category")
        return cls(column, codes if categorical else -1, found)

    def rows_to_the_right(self, tree: Tree, node: int) -> list[Any]:
        """The table rows that lead to the right here, as indices."""
        members = tree.sets[node] if tree.sets else None
        missing = [] if tree.missing_left[node] else [self.height - 1]
        if members is None:
            first = int(np.searchsorted(self.thresholds, tree.threshold[node])) + 1
            return [slice(first, self.height - 1), *missing]
        left = {int(code) for code in members}
        return [[code for code in range(self.codes) if code not in left], *missing]


def _bits(start: int, end: int) -> int:
    """A word with the bits from start to end - 1."""
    start, end = min(max(start, 0), WORD), min(max(end, 0), WORD)
    return (1 << end) - (1 << start)
