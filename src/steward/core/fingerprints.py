"""The identity of a table's whole content, and the difference between two tables.

Every row becomes a 64-bit number, and two scramblings of that number are added up modulo 2**64: in any order the sums are
the same, and a row that stands twice counts twice. SHA-256 over columns, types, number of rows and sums is the fingerprint.
It is defined here and not by an engine (`row_number` is the definition, for one row at a time):

- a row is a sequence of 64-bit words, each mixed into what came before it: a bit mask per 60 columns that says which values
  are null, then one word per value, 0 for a null;
- the word of an integer or boolean is its two's complement, of a number its IEEE 754 bits, of a time its microseconds since
  1970, of everything else the first 8 bytes of the SHA-256 of its text;
- the mixer is the finalizer of SplitMix64 (Steele, Lea and Flood: Fast Splittable Pseudorandom Number Generators, 2014).

It finds every accident: one that changes nothing here has a chance of 2**-64. It is arithmetic and no cryptography, so
that a million rows take a tenth of a second; what was forged is found by the SHA-256 of the file that holds the rows.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward.records import digest_of

FORMAT = "steward-fingerprint-2"
MASK_COLUMNS = 60
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECONDS = 1_000_000
START, SECOND = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
BITS = 2**64 - 1
MIXER = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
BLOCK = 16_384
"""Rows that are mixed at a time: their words stay in the processor's cache."""

Words = NDArray[np.uint64]


def row_number(values: Sequence[object], types: Sequence[str]) -> int:
    """The number of one row: the definition, for one row at a time.

    >>> hex(row_number([1, None, "a"], ["integer", "number", "text"]))
    '0xc9fb980b9d7edb92'
    """
    words = []
    for start in range(0, len(values), MASK_COLUMNS):
        nulls = [value is None for value in values[start : start + MASK_COLUMNS]]
        words.append(sum(1 << place for place, null in enumerate(nulls) if null))
    words += [0 if value is None else word(value, kind) for value, kind in zip(values, types, strict=True)]
    number = START
    for one in words:
        number = mixed(number ^ one)
    return number


def word(value: Any, kind: str) -> int:
    """The 64-bit word of one value.

    >>> hex(word(-1, "integer")), hex(word(1.0, "number")), hex(word("a", "text"))
    ('0xffffffffffffffff', '0x3ff0000000000000', '0xca978112ca1bbdca')
    """
    if kind == "number":
        return int.from_bytes(struct.pack(">d", float(value)), "big")
    if kind == "text":
        return int.from_bytes(hashlib.sha256(str(value).encode()).digest()[:8], "big")
    if kind == "time":
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        elapsed = moment - EPOCH
        return int((elapsed.days * 86_400 + elapsed.seconds) * MICROSECONDS + elapsed.microseconds) & BITS
    return int(value) & BITS


def mixed(number: int) -> int:
    """A number between 0 and 2**64, scrambled one to one.

    >>> hex(mixed(1))
    '0x5692161d100b05e5'
    """
    for shift, factor in MIXER:
        number = ((number ^ (number >> shift)) * factor) & BITS
    return number ^ (number >> 31)


def types(schema: Any) -> dict[str, str]:
    """How each column is written, from an Arrow schema."""
    return {field.name: _type(field.type) for field in schema}


def _type(kind: Any) -> str:
    import pyarrow.types as of

    if of.is_boolean(kind):
        return "boolean"
    if of.is_integer(kind):
        return "integer"
    if of.is_floating(kind):
        return "number"
    return "time" if of.is_timestamp(kind) else "text"


class Content:
    """The content of a table, added up block by block.

    Parameters
    ----------
    columns : what belongs to the identity, in order, with how it is written (`types`).
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = dict(columns)
        self.rows = 0
        self.sums = (0, 0)

    def add(self, block: Any, words: Mapping[str, Words] | None = None) -> None:
        """Count the rows of an Arrow table or batch.

        Parameters
        ----------
        words : what is known of text columns already: the first 8 bytes of the SHA-256 of each value, shape (n,).
        """
        known = words or {}
        columns = [known[name] if name in known else words_of(block[name], kind) for name, kind in self.columns.items()]
        columns = [*_masks([block[name] for name in self.columns]), *columns]
        first, second = self.sums
        for start in range(0, block.num_rows, BLOCK):
            numbers = np.full(min(BLOCK, block.num_rows - start), START, np.uint64)
            for column in columns:
                numbers ^= column[start : start + BLOCK]
                _scramble(numbers)
            first += int(_scramble(numbers.copy()).sum())
            second += int(_scramble(numbers ^ np.uint64(SECOND)).sum())
        self.sums = first & BITS, second & BITS
        self.rows += block.num_rows

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that was added."""
        parts = [str(part) for part in (self.rows, *self.sums)]
        return digest_of(FORMAT, [list(column) for column in self.columns.items()], parts)


def fingerprint(columns: Mapping[str, str], blocks: Iterable[Any]) -> str:
    """SHA-256 (hex) of a table's content, from its `types` and its rows as Arrow tables or batches.

    >>> import pyarrow as pa
    >>> table = pa.table({"a": [1, 2, None], "b": ["x", "", None]})
    >>> whole = fingerprint(types(table.schema), [table])
    >>> whole == fingerprint(types(table.schema), [table[2:], table[:2]])
    True
    """
    content = Content(columns)
    for block in blocks:
        content.add(block)
    return content.fingerprint


def _scramble(numbers: Words) -> Words:
    """`mixed`, in place."""
    for shift, factor in MIXER:
        numbers ^= numbers >> np.uint64(shift)
        numbers *= np.uint64(factor)
    numbers ^= numbers >> np.uint64(31)
    return numbers


def _masks(columns: Sequence[Any]) -> list[Words]:
    masks = []
    for start in range(0, len(columns), MASK_COLUMNS):
        mask = np.zeros(len(columns[0]), np.uint64)
        for place, column in enumerate(columns[start : start + MASK_COLUMNS]):
            if column.null_count:
                mask |= _array(column.is_null()).astype(np.uint64) << np.uint64(place)
        masks.append(mask)
    return masks


def words_of(column: Any, kind: str) -> Words:
    """The words of an Arrow column, shape (n,); 0 for a null."""
    import pyarrow as pa

    if kind == "text":
        return _words_of_texts(column)
    if kind == "time":
        column = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())
    wide: Any = column.cast(pa.float64() if kind == "number" else pa.int64())
    return _array(wide.fill_null(0) if wide.null_count else wide).view(np.uint64)


def _words_of_texts(column: Any) -> Words:
    """Every different text is hashed once."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    texts = column.dictionary.cast(pa.string()).to_pylist()
    of_texts = np.array([*(word(text, "text") for text in texts), 0], dtype=np.uint64)
    words: Words = of_texts[_array(column.indices.fill_null(len(texts)))]
    return words


def _array(column: Any) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False)
    return values


@dataclass(frozen=True)
class Difference:
    """What differs between two tables of the same kind.

    `changed` counts rows per column, among the rows that both have; `example` is one such row.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: tuple[str, ...]
    only_first: int
    only_second: int
    changed: dict[str, int]
    example: dict[str, Any] | None = None

    def __str__(self) -> str:
        said = [
            *(f"column {name} was added" for name in self.added),
            *(f"column {name} was removed" for name in self.removed),
            *(f"column {name} has another type" for name in self.retyped),
            *([f"{self.only_first} rows are gone"] if self.only_first else []),
            *([f"{self.only_second} rows are new"] if self.only_second else []),
            *(f"{name} differs in {number} rows" for name, number in self.changed.items()),
        ]
        where = f", such as {self.example}" if self.example else ""
        return "; ".join(said) + where if said else "no difference"


def changes(first: Any, second: Any, key: str) -> tuple[Any, Any]:
    """Two Ibis tables that `difference` is made from: one row of counts, and at most one example.

    Parameters
    ----------
    key : the column that names a row in both.
    """
    import ibis

    common = [name for name in first.columns if name in second.columns and name != key]
    left = first.select(k=first[key], here=ibis.literal(1), **{f"a{i}": first[name] for i, name in enumerate(common)})
    right = second.select(
        k2=second[key], there=ibis.literal(1), **{f"b{i}": second[name] for i, name in enumerate(common)}
    )
    both = left.outer_join(right, left.k == right.k2)
    matched = both.here.notnull() & both.there.notnull()
    differs = {
        i: matched & ~both[f"a{i}"].cast("string").identical_to(both[f"b{i}"].cast("string"))
        for i in range(len(common))
    }
    counted = both.aggregate(
        only_first=both.there.isnull().sum(),
        only_second=both.here.isnull().sum(),
        **{f"c{i}": differs[i].sum() for i in differs},
    )
    anywhere = reduce(lambda a, b: a | b, differs.values(), ibis.literal(False))
    values = {f"{side}{i}": both[f"{side}{i}"].cast("string") for i in differs for side in "ab"}
    return counted, both.filter(anywhere).select(key=both.k.cast("string"), **values).order_by("key").limit(1)


def difference(
    first: Mapping[str, str],
    second: Mapping[str, str],
    key: str,
    counts: Mapping[str, int],
    examples: Sequence[Mapping[str, Any]],
) -> Difference:
    """The difference of two tables from their `types` and what `changes` found."""
    common = [name for name in first if name in second and name != key]
    changed = {name: counts[f"c{i}"] for i, name in enumerate(common) if counts.get(f"c{i}")}
    example = None
    if examples:
        found = examples[0]
        example = {"key": found["key"]} | {
            name: (found[f"a{i}"], found[f"b{i}"]) for i, name in enumerate(common) if found[f"a{i}"] != found[f"b{i}"]
        }
    return Difference(
        added=tuple(name for name in second if name not in first),
        removed=tuple(name for name in first if name not in second),
        retyped=tuple(name for name in first if name in second and first[name] != second[name]),
        only_first=counts["only_first"] or 0,
        only_second=counts["only_second"] or 0,
        changed=changed,
        example=example,
    )
