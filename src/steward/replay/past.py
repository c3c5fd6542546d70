"""The past of a table: what was there at which moment, and who would have been asked when.

A row is asked about at its own time, and its label arrives later. The table of a moment holds the rows whose label had
arrived by then, as they stand in the source; nothing that is newer can be read through it.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward.config import ModelFile, Source
from steward.core import contracts
from steward.core.contracts import Contract
from steward.errors import ReplayRefused
from steward.io.predictions import joined_key
from steward.io.tables import Session, Tables
from steward.io.workspace import Workspace
from steward.replay.delays import Delay
from steward.steps.observation import values

ROW, ARRIVES = "@place", "@arrives"
"""Columns beside those of the source: the row's place in it, and when its label arrives, seconds since 1970."""
END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)
TABLE, ASKED = "table.parquet", "asked.parquet"
MICROSECOND = timedelta(microseconds=1)
TAKEN_IN = 50
"""Labelled rows with a value that make somebody take a new column into the model file."""


@dataclass(frozen=True)
class Window:
    """A stretch of the past; what is decided at its end serves in the next one."""

    number: int
    """From 1; what was before the first is number 0."""
    start: datetime
    end: datetime
    """Not included."""


class Past:
    """The rows of a table in the order of their times, as they are asked about.

    Attributes
    ----------
    times : seconds since 1970, shape (n,), rising.
    arrives : when each row's label arrives; infinite where it never does.
    truth : object array of class names, or float64 array; None or NaN where there is no legal label.
    accepted : rows that keep the contract, with their label; one of each key.
    """

    def __init__(self, folder: Path, model: ModelFile) -> None:
        self.folder = folder
        self.model = model
        self._table = pd.read_parquet(folder / ASKED)
        self.times: NDArray[np.float64] = self._table[contracts.TIME].to_numpy(float)
        self.arrives: NDArray[np.float64] = self._table[ARRIVES].to_numpy(float)
        kind = object if model.classes else float
        self.truth: NDArray[Any] = self._table[contracts.LABEL].to_numpy(kind)
        self.accepted: NDArray[np.bool_] = self._table["@accepted"].to_numpy(bool)

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Every row as a learning frame."""
        kinds = {name: object if one.type == "category" else float for name, one in self.model.columns.items()}
        found = {name: self._table[f"+{name}"].astype(kind) for name, kind in kinds.items()}
        return pd.DataFrame(
            {name: one.where(one.notna(), None if one.dtype == object else np.nan) for name, one in found.items()}
        )

    @cached_property
    def records(self) -> NDArray[np.object_]:
        """Every row as the JSON that the prediction log keeps."""
        found: NDArray[np.object_] = self._table["record"].to_numpy(object)
        return found

    @cached_property
    def keys(self) -> NDArray[np.object_]:
        found: NDArray[np.object_] = self._table["key"].to_numpy(object)
        return found

    @cached_property
    def ids(self) -> list[str]:
        """A prediction id per row: as `io.predictions.new_id` makes them, but drawn by the row's place."""
        digests = (hashlib.sha256(str(place).encode()).hexdigest() for place in self._table[ROW])
        return [
            f"{int(at * 1_000):012x}7{digest[:3]}8{digest[3:18]}"
            for at, digest in zip(self.times, digests, strict=True)
        ]

    def asked(self, window: Window) -> slice:
        """The rows of a window."""
        first, last = np.searchsorted(self.times, [window.start.timestamp(), window.end.timestamp()])
        return slice(int(first), int(last))

    def arrived(self, after: datetime, until: datetime, since: datetime) -> NDArray[np.intp]:
        """Rows asked about since a moment whose label arrived within a stretch, in the order of arrival."""
        come = (self.arrives >= after.timestamp()) & (self.arrives < until.timestamp())
        found = np.flatnonzero(come & (self.times >= since.timestamp()) & self.labelled)
        return found[np.argsort(self.arrives[found], kind="stable")]

    def known(self, at: datetime) -> NDArray[np.intp]:
        """Accepted rows whose label is final at a moment."""
        final = self.times <= (at - self.model.label.mature_after).timestamp()
        return np.flatnonzero(self.accepted & final & (self.arrives < at.timestamp()))

    def model_at(self, at: datetime, start: datetime) -> ModelFile:
        """The model file as it would have been: a column that has no value before the start is taken in once it has.

        The whole file where more than the column needs it: a feature, a slice or an action.
        """
        before, known = self.frame[self.times < start.timestamp()], self.frame.iloc[self.known(at)]
        late = [
            name for name in self.model.columns if before[name].isna().all() and known[name].notna().sum() < TAKEN_IN
        ]
        if not late:
            return self.model
        document = self.model.model_dump(mode="json", by_alias=True)
        document["columns"] = {name: one for name, one in document["columns"].items() if name not in late}
        try:
            return ModelFile.model_validate(document)
        except ValueError:
            return self.model

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows with a legal label, whenever it arrives."""
        return np.asarray(~pd.isna(self.truth))


def prepare(workspace: Workspace, model: ModelFile, delay: Delay, folder: Path, seed: int) -> tuple[str, ...]:
    """Read the source once and keep it as the table of every moment; answers what a person should know of it.

    Raises
    ------
    ReplayRefused : rows have no time.
    SourceMissing, SourceUnreadable, SourceUnavailable
    """
    column = model.source.time
    if column is None:
        raise ReplayRefused(
            f"{model.name} has no source.time: without times there is no past",
            do="Name the column that says when a row happened as source.time",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with workspace.tables.session() as session:
        source = session.source(model.source)
        _require(model, source.columns, delay)
        table = session.keep(_numbered(source.select(*_columns(model, delay, source.columns))))
        asked, says = _asked(session, model, table, delay, seed)
        moments = session.load(_arrow(asked[[ROW, ARRIVES]]))
        dated = table.inner_join(moments, ROW).order_by(ROW).drop(ROW)
        session.write(dated, folder / TABLE)
    asked.to_parquet(folder / ASKED, index=False)
    return says


def _require(model: ModelFile, columns: Sequence[str], delay: Delay) -> None:
    lost = Contract.of(model, END_OF_TIME).missing(tuple(columns))
    lost += tuple(name for name in (model.source.time, delay.column) if name and name not in (*columns, *lost))
    if lost:
        raise ReplayRefused(
            f"the source has no column {', '.join(lost)}",
            got=", ".join(columns),
            do="Check source and columns of the model file, and --label-delay",
        )


def _columns(model: ModelFile, delay: Delay, there: Sequence[str]) -> list[str]:
    """What the contract, the split and the times need; nobody knows since when the other columns have been there."""
    named = (*model.source.keys, model.source.time, model.label.column, model.split.group, delay.column, *model.columns)
    return [name for name in there if name in named]


def _numbered(table: Any) -> Any:
    import ibis

    return table.mutate(**{ROW: ibis.row_number()})


def _asked(
    session: Session, model: ModelFile, table: Any, delay: Delay, seed: int
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows in the order of their times: what is asked, its label, and when that arrives."""
    incoming = _marked(session, table, Contract.incoming(model, END_OF_TIME))
    labelled = _marked(session, table, Contract.of(model, END_OF_TIME))
    names = [contracts.LABEL, "!accepted"]
    joined = {f"{name}:of": labelled[name] for name in names}
    both = incoming.join(labelled.select(ROW, **joined), ROW)
    found = session.arrow(both.order_by(ROW))
    frame = _frame(model, found)
    says = []
    if undated := int(frame[contracts.TIME].isna().sum()):
        says.append(f"{undated:,} rows have no time that can be read; they are left out")
    if refused := int((~frame["@legal"]).sum()):
        says.append(
            f"{refused:,} rows break the contract: the service would have refused them, and they were not asked about"
        )
    times = frame[contracts.TIME].to_numpy(float)
    frame[ARRIVES], more = delay.arrivals(times, _moments(session, model, table, delay), frame[contracts.KEY], seed)
    frame.loc[frame[contracts.LABEL].isna(), ARRIVES] = np.inf
    if (np.diff(times[~np.isnan(times)]) < 0).any():
        says.append("the source is not in the order of its times; it was sorted")
    kept = frame[frame["@legal"] & frame[contracts.TIME].notna()]
    kept = kept.sort_values([contracts.TIME, ROW], kind="stable", ignore_index=True)
    kept["@accepted"] &= ~kept[contracts.KEY].duplicated()
    return kept.drop(columns=["@legal"]), (*says, *more)


def _marked(session: Session, table: Any, contract: Contract) -> Any:
    return session.keep(contracts.flagged(table, contract, session.stage, carried={ROW: ROW}))


def _frame(model: ModelFile, found: Any) -> pd.DataFrame:
    """Arrow rows that two contracts have marked → what is kept of them."""
    kinds = {name: column.type for name, column in model.columns.items()}
    columns: dict[str, Any] = {f"+{name}": values(found[name], kind) for name, kind in kinds.items()}
    parts = [found[name].cast("string").to_pylist() for name in found.column_names if name.startswith(contracts.KEY)]
    label = found[f"{contracts.LABEL}:of"]
    fields = parts[: len(model.source.keys)] if len(model.source.keys) > 1 else parts[:1]
    return pd.DataFrame(
        {
            ROW: found[ROW].to_numpy(),
            contracts.TIME: seconds(found[contracts.TIME]),
            contracts.KEY: found[contracts.KEY].to_pylist(),
            "key": [None if None in one else joined_key(one) for one in zip(*fields, strict=True)],
            contracts.LABEL: values(label, "category" if model.classes else "number"),
            "@legal": found["!accepted"].to_numpy(zero_copy_only=False),
            "@accepted": found["!accepted:of"].to_numpy(zero_copy_only=False),
            "record": _records(found.select(list(kinds))),
            **columns,
        }
    )


def _records(rows: Any) -> list[str]:
    lines = msgspec.json.Encoder().encode_lines(rows.to_pylist()).decode()
    return lines.removesuffix("\n").split("\n") if lines else []


def seconds(column: Any) -> NDArray[np.float64]:
    """Seconds since 1970 of an Arrow column of timestamps, NaN where there is none."""
    moments = column.to_pandas().to_numpy("datetime64[us]")
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


def _moments(session: Session, model: ModelFile, table: Any, delay: Delay) -> NDArray[np.float64] | None:
    """The column that says when labels arrive, read as times are, in the source's order."""
    if delay.column is None:
        return None
    timed = model.model_copy(update={"source": model.source.model_copy(update={"time": delay.column})})
    contract = Contract.incoming(timed, END_OF_TIME)
    only = replace(
        contract, fields=tuple(one for one in contract.fields if one.name.startswith((contracts.KEY, contracts.TIME)))
    )
    rows = _marked(session, table, only).order_by(ROW)
    return seconds(session.arrow(rows.select(contracts.TIME))[contracts.TIME])


def _arrow(frame: pd.DataFrame) -> Any:
    import pyarrow as pa

    return pa.Table.from_pandas(frame, preserve_index=False)


class TablesOfThen(Tables):
    """Tables of a moment: whatever source is asked for, the rows of the past that were there."""

    def __init__(self, threads: int, folder: Path, table: Path, at: datetime) -> None:
        super().__init__(threads, folder)
        self.table = table
        self.at = at

    def opened(self, folder: Path, memory: str | None) -> Session:
        return _SessionOfThen(self.threads, folder, memory, self.table, self.at)


class _SessionOfThen(Session):
    def __init__(self, threads: int, folder: Path, memory: str | None, table: Path, at: datetime) -> None:
        super().__init__(threads, folder, memory)
        self.table = table
        self.at = at

    def source(self, source: Source) -> Any:  # noqa: ARG002 - the past has one table
        found = self.parquet(self.table)
        return self.stage(found.filter(found[ARRIVES] < self.at.timestamp()).drop(ARRIVES))


def windows(past: Past, start: datetime | None, *, count: int | None, every: timedelta | None) -> tuple[Window, ...]:
    """The windows of a replay: of so many rows each, or so long.

    Raises
    ------
    ReplayRefused : there are fewer rows than windows, or none after the start, or none before it.
    """
    if not len(past):
        raise ReplayRefused("the source has no row that could be asked about", do="`steward check` says why")
    begin = start or _default_start(past)
    rows = past.times[past.times >= begin.timestamp()]
    if len(rows) == len(past) or not len(rows):
        raise ReplayRefused(
            f"a replay needs rows before its start, to train on, and after it; {len(past) - len(rows):,} are before",
            got=begin.isoformat(),
            allowed=f"between {_moment(past.times[0]).isoformat()} and {_moment(past.times[-1]).isoformat()}",
            do="Choose another --start",
        )
    ends = _by_duration(begin, rows, every) if every else _by_rows(begin, rows, count or 1)
    edges = [begin, *ends]
    return tuple(Window(number, first, last) for number, (first, last) in enumerate(zip(edges, ends, strict=False), 1))


def _default_start(past: Past) -> datetime:
    return _moment(past.times[len(past) // 4])


def _by_duration(begin: datetime, rows: NDArray[np.float64], every: timedelta) -> list[datetime]:
    count = math.floor((float(rows[-1]) - begin.timestamp()) / every.total_seconds()) + 1
    return [begin + number * every for number in range(1, count + 1)]


def _by_rows(begin: datetime, rows: NDArray[np.float64], count: int) -> list[datetime]:
    different = len(np.unique(rows))
    if different < count:
        raise ReplayRefused(
            f"{count} windows need at least as many different times",
            got=f"{len(rows):,} rows of {different:,} times after {begin.isoformat()}",
            do="Ask for fewer --windows, or an earlier --start",
        )
    places = [round(number * len(rows) / count) for number in range(1, count)]
    ends = sorted({_moment(rows[place]) for place in places} - {begin})
    return [*ends, _moment(rows[-1]) + MICROSECOND]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def columns_of(past: Past, rows: slice) -> Mapping[str, NDArray[Any]]:
    """Rows as an engine takes them."""
    return {name: past.frame[name].to_numpy()[rows] for name in past.model.columns}
