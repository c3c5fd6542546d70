"""`steward init`: looks at a table and drafts its model file."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from steward.config import NAME, ModelFile, Source
from steward.core import drafting, verification
from steward.core.drafting import CountDistinct, Draft
from steward.core.inspection import LISTED, ColumnFacts, TableFacts, Task
from steward.errors import ModelFileError
from steward.io.tables import Session
from steward.io.workspace import Workspace

SAMPLE = 20_000
COLUMNS_AT_ONCE = 25
CELLS_AT_ONCE = 20_000_000
DECIMAL_COMMA = r"^[+-]?\d+,\d+$"
DATE = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?$"
SEPARATORS = (",", ";", "\t", "|")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def draft(
    workspace: Workspace,
    name: str,
    data: str,
    *,
    label: str,
    key: Sequence[str] = (),
    time: str | None = None,
    task: Task | None = None,
) -> Draft:
    """A model file for the table behind `data`, and what a person should know about the table.

    Parameters
    ----------
    data : as `source.table` in a model file: path, glob, URL or SQL table.

    Raises
    ------
    ModelFileError, SourceMissing, SourceUnreadable, SourceUnavailable
    """
    _check_name(name)
    with workspace.tables.session() as session:
        source = session.source(Source(table=data, key=tuple(key) or label))
        texts = session.keep(_texts(source))
        facts = _table_facts(session, source, texts, data)
        sample = _sample(session, texts, facts.rows)
        distinct = _count_distinct(session, texts)
        return drafting.draft(name, facts, sample, distinct, _needed_rows, label=label, key=key, time=time, task=task)


def _needed_rows(model: ModelFile, baseline: float | None, detect: float) -> int:
    return verification.needed_rows(model, baseline=baseline, detect=detect)


def _check_name(name: str) -> None:
    import re

    if not re.fullmatch(NAME, name):
        raise ModelFileError(
            "not a name for a model", got=name, allowed="lower-case letters, digits and _", do="Choose another name"
        )


def _texts(source: Any) -> Any:
    """Every column as text without surrounding blanks; an empty text is no value."""
    return source.select([source[name].cast("string").strip().nullif("").name(name) for name in source.columns])


def _table_facts(session: Session, source: Any, texts: Any, data: str) -> TableFacts:
    rows = int(session.row(texts.aggregate(rows=texts.count()))["rows"])
    names = list(texts.columns)
    counts: dict[str, Any] = {}
    for start in range(0, len(names), COLUMNS_AT_ONCE):
        counts |= _counts(session, source, texts, names[start : start + COLUMNS_AT_ONCE])
    columns: list[ColumnFacts] = []
    width = max(1, min(COLUMNS_AT_ONCE, CELLS_AT_ONCE // max(1, rows)))
    for start in range(0, len(names), width):
        part = names[start : start + width]
        values = session.arrow(texts.select(*part))
        columns += [_column_facts(session, source, texts, name, rows, counts, values[name]) for name in part]
    return TableFacts(data, rows, tuple(columns), _separator(data, names))


def _counts(session: Session, source: Any, texts: Any, names: Sequence[str]) -> dict[str, Any]:
    """The plain counts of several columns in one scan, as `fact|column`."""
    wanted: dict[str, Any] = {}
    for name in names:
        text = texts[name]
        cast = text.try_cast("float64")
        number = (cast.isnan() | cast.isinf()).ifelse(None, cast)
        other = number.isnull()
        wanted |= {
            f"missing|{name}": text.isnull().sum(),
            f"numbers|{name}": number.count(),
            f"whole|{name}": (number == number.floor()).sum(),
            f"minimum|{name}": number.min(),
            f"maximum|{name}": number.max(),
            f"decimal_commas|{name}": other.ifelse(text.re_search(DECIMAL_COMMA), False).sum(),
            f"dates|{name}": other.ifelse(text.re_search(DATE), False).sum(),
            f"leading_zeros|{name}": (text.startswith("0") & text.substr(1, 1).between("0", "9")).sum(),
            f"words|{name}": (text.length() - text.replace(" ", "").length() + 1).mean(),
        }
    found = session.row(texts.aggregate(**wanted))
    stored = {f"blanks|{name}": _blanks(source[name]) for name in names if source[name].type().is_string()}
    return found | (session.row(source.aggregate(**stored)) if stored else {})


def _blanks(column: Any) -> Any:
    return (column != column.strip()).sum()


def _column_facts(
    session: Session, source: Any, texts: Any, name: str, rows: int, counts: dict[str, Any], values: Any
) -> ColumnFacts:
    import pyarrow.compute as pc

    counted = pc.value_counts(values.drop_null()).flatten()
    found, times = (part.to_numpy(zero_copy_only=False) for part in counted)
    plain = {fact: counts.get(f"{fact}|{name}") for fact in COUNTED}
    mixed = 0 < counts[f"numbers|{name}"] < rows - (counts[f"missing|{name}"] or 0)
    return ColumnFacts(
        name=name,
        native=_native(source[name].type()),
        rows=rows,
        distinct=len(found),
        once=int((times == 1).sum()),
        top=_most_frequent(found, times),
        odd=_odd(session, texts, name) if mixed else (),
        **{fact: value for fact, value in plain.items() if value is not None},
    )


def _most_frequent(values: npt.NDArray[Any], times: npt.NDArray[Any]) -> tuple[tuple[str, int], ...]:
    """The most frequent values, the first in the alphabet first where they are equally frequent."""
    if len(times) > LISTED:
        enough = times >= np.partition(times, -LISTED)[-LISTED]
        values, times = values[enough], times[enough]
    ranked = sorted(zip(values.tolist(), times.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(ranked[:LISTED])


def _odd(session: Session, texts: Any, name: str) -> tuple[tuple[str, int], ...]:
    """The most frequent values that are no numbers."""
    import ibis

    values = texts.select(value=texts[name]).filter(lambda t: t.value.try_cast("float64").isnull() & t.value.notnull())
    counted = values.group_by("value").aggregate(n=lambda t: t.count())
    found = session.rows(counted.order_by(ibis.desc("n"), "value").limit(LISTED))
    return tuple((row["value"], row["n"]) for row in found)


COUNTED = (
    "missing",
    "numbers",
    "whole",
    "minimum",
    "maximum",
    "decimal_commas",
    "dates",
    "blanks",
    "leading_zeros",
    "words",
)


def _native(kind: Any) -> Literal["text", "number", "boolean", "time"]:
    if kind.is_boolean():
        return "boolean"
    if kind.is_temporal():
        return "time"
    return "number" if kind.is_numeric() else "text"


def _sample(session: Session, texts: Any, rows: int) -> Any:
    """Every n-th row in the table's order: pandas frame of texts or None."""
    import ibis

    step = max(1, rows // SAMPLE)
    numbered = texts.mutate(steward_row=ibis.row_number())
    chosen = numbered.filter(numbered.steward_row % step == 0).order_by("steward_row").drop("steward_row")
    return session.arrow(chosen).to_pandas().astype(object)


def _count_distinct(session: Session, texts: Any) -> CountDistinct:
    """Counts different rows by one hash per cell, fetched once per column: greedy searches ask for the same ones often."""
    hashes: dict[str, npt.NDArray[np.uint64]] = {}

    def fetch(names: Sequence[str]) -> None:
        wanted = {str(i): texts[name].fill_null("").hash().cast("int64") for i, name in enumerate(names)}
        found = session.arrow(texts.select(**wanted))
        hashes.update({name: found[str(i)].to_numpy().view(np.uint64) for i, name in enumerate(names)})

    def count(combinations: Sequence[Sequence[str]]) -> list[int]:
        if unknown := [name for name in dict.fromkeys(chain(*combinations)) if name not in hashes]:
            fetch(unknown)
        return [_different([hashes[name] for name in names]) for names in combinations]

    return count


def _different(columns: Sequence[npt.NDArray[np.uint64]]) -> int:
    """Different rows of some columns of hashes, each shape (n,)."""
    rows = np.zeros_like(columns[0])
    for column in columns:
        rows = (rows ^ column) * MULTIPLIER
        rows ^= rows >> np.uint64(32)
    return len(np.unique(rows))


def _separator(data: str, names: Sequence[str]) -> str | None:
    """The separator of a local text file: the one that its first line holds most often."""
    import fsspec

    path = Path(data)
    if not path.is_file() or ".csv" not in path.name.lower():
        return None
    with fsspec.open(str(path), "rt", compression="infer", errors="replace") as stream:
        line = stream.readline()
    return max(SEPARATORS, key=line.count) if len(names) > 1 else None
