"""Labelled rows that the champion has answered, or would have: what its live accuracy is measured on.

They are served predictions whose outcome is known, and rows that the source has got since the champion's snapshot, which the
champion answers now. Rows that are sealed, or that the next snapshot may seal, are left out before anybody answers them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward.config import ModelFile
from steward.core import contracts, performance, splitting
from steward.core.actions import PROCEED, Policy
from steward.errors import SourceMissing, SourceUnavailable, SourceUnreadable, VersionUnknown
from steward.inference import Predictor
from steward.io.ledger import Entry
from steward.io.predictions import key_parts
from steward.io.tables import Session
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.records import Roles, Snapshot, Verdict
from steward.steps import served
from steward.steps.opening import Contestant
from steward.steps.roles import Marked, given_roles, opened_roles
from steward.steps.rows import learning_column, trained_on

HISTORIES = tuple(days * 86_400 for days in (60, 240, 960))
"""Seconds of predictions that teach when outcomes arrive: of more where the newest ones do not tell, as their outcomes come
months later."""

LOGGED = ("prediction_id", "at", "version", "key", "record", "answer", "action", "control", "fallback")
"""Of a served prediction."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Champion:
    """The version that is watched."""

    number: int
    predictor: Predictor
    promotion: Entry
    """What made it the champion."""

    @classmethod
    def of(cls, workspace: Workspace, model: ModelFile, number: int) -> "Champion":
        """Raises VersionUnknown if it never was the champion."""
        entries = workspace.ledger.entries(model.name, "promotion", newest_first=True)
        crowned = [entry for entry in entries if (entry.body["version"], entry.body["alias"]) == (number, "champion")]
        if not crowned:
            raise VersionUnknown(
                f"{model.name} had no such champion", got=number, do="Look again with `steward monitor`"
            )
        return cls(number, Model(model, number, workspace=workspace).predictor, crowned[0])

    @property
    def contestant(self) -> Contestant:
        return Contestant(self.predictor, frozenset(), self.number)

    def verdict(self, workspace: Workspace) -> Verdict:
        """What its opening showed."""
        entry = workspace.ledger.find(self.predictor.made.model, "verdict", self.predictor.made.digest)
        if entry is None:
            raise VersionUnknown("no verdict on this version", got=self.number, do="Restore the ledger")
        return Verdict.model_validate({**entry.body, "at": entry.at})


@dataclass(frozen=True)
class Columns:
    """The contract's columns of rows. Those of logged records are read when somebody asks: few looks do, and for few rows.

    Parameters
    ----------
    parts : learning frames, and logged records as arrays of JSON texts.
    """

    model: ModelFile
    parts: tuple[pd.DataFrame | NDArray[np.object_], ...]

    def __getitem__(self, kept: Mask) -> "Columns":
        masks = np.split(kept, np.cumsum([len(part) for part in self.parts])[:-1])
        return replace(self, parts=tuple(part[mask] for part, mask in zip(self.parts, masks, strict=True)))

    def __add__(self, other: "Columns") -> "Columns":
        return replace(self, parts=self.parts + other.parts)

    def frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """All of them, or some, as a learning frame."""
        asked = list(self.model.columns if names is None else names)
        frames = [
            part[asked] if isinstance(part, pd.DataFrame) else learning_frame(self.model, part.tolist(), asked)
            for part in self.parts
        ]
        return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True)
class Judged:
    """Labelled rows with the champion's answers; n of each.

    Attributes
    ----------
    times : seconds since 1970; NaN where the source has no time.
    keys : units of the rows' keys, shape (n, 16).
    units : what the split goes by: the same, or the units of the rows' groups.
    served : was the row answered when it happened?
    weights : of served rows, where a control share stands for those that were acted upon.
    """

    times: NDArray[np.float64]
    keys: splitting.Units
    units: splitting.Units
    columns: Columns
    truth: NDArray[Any]
    answers: NDArray[np.float64]
    served: Mask
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, kept: Mask) -> "Judged":
        return Judged(**{name: value[kept] for name, value in vars(self).items()})

    def __add__(self, other: "Judged") -> "Judged":
        if not len(self) or not len(other):
            return other if not len(self) else self
        arrays = {
            name: np.concatenate([value, getattr(other, name)])
            for name, value in vars(self).items()
            if name != "columns"
        }
        return Judged(columns=self.columns + other.columns, **arrays)


@dataclass(frozen=True)
class Lessons:
    """Labelled rows that came since the champion's snapshot and that the next training would learn from; n of each.

    As in `Judged`; nothing is answered.
    """

    times: NDArray[np.float64]
    units: splitting.Units
    columns: Columns
    truth: NDArray[Any]

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, kept: Mask) -> "Lessons":
        return Lessons(self.times[kept], self.units[kept], self.columns[kept], self.truth[kept])


@dataclass(frozen=True)
class Found:
    """What is known at a moment.

    Attributes
    ----------
    rows : labelled and ripe, not sealed: everything of the window, and what was not read before.
    lessons : labelled and ripe, not sealed: everything that the champion has not seen, as far as a training would.
    ripe_until : of `served` and `source`, the time up to which rows were taken, seconds since 1970.
    ripe_after : seconds after which most outcomes have come; None if it is not known.
    left_out : ripe rows that are sealed, or whose role nobody knows.
    new_rows : labelled rows that no training has seen, of the source and, with `source.outcomes`, of the prediction log:
        what the next snapshot would add. `sealed` of them are sealed.
    """

    rows: Judged
    lessons: Lessons
    ripe_until: Mapping[str, float]
    ripe_after: float | None
    left_out: int
    new_rows: int
    sealed: int
    says: tuple[str, ...]


def find_labelled(
    workspace: Workspace, model: ModelFile, champion: Champion, *, at: datetime, read_until: Mapping[str, float]
) -> Found:
    """Everything that may be looked at.

    Parameters
    ----------
    read_until : what an earlier look took already, as `Found.ripe_until` said.
    """
    read = read_until.get("served", champion.promotion.at.timestamp())
    ripe_after, until = _ripe(workspace, model, at, read)
    since = min(read, until - model.monitor.window.total_seconds())
    answered, nameless = _served(workspace, model, champion, since, until, at)
    fresh = _fresh(workspace, model, champion, at)
    others = ~np.isin(splitting.numbers_of(fresh.marks.keys), splitting.numbers_of(answered.keys))
    opened = opened_roles(workspace, model)
    coming = fresh.marks + fresh.logged
    in_snapshot, in_log = _sealed(workspace, model, coming, answered, opened)
    in_source = in_snapshot[: len(fresh)]
    untrained = _untrained(workspace, champion, coming, opened)
    ripe = ~(fresh.marks.times > fresh.ripe_until)
    known = ~in_log & ~nameless & ~_learned(workspace, model, champion, answered)
    taken = ripe & ~in_source
    lessons, alone = _read(model, fresh, taken), others[taken]
    unasked = lessons[alone]
    return Found(
        rows=_answered(champion, model, unasked, fresh.marks.keys[taken][alone]) + answered[known],
        lessons=_with_logged(lessons, answered[known], fresh.marks) if model.source.outcomes else lessons,
        ripe_until=_read_until(model, unasked.times, answered.times[known], read_until, until, read),
        ripe_after=ripe_after,
        left_out=int((ripe & others & in_source).sum() + (in_log | nameless).sum()),
        new_rows=int(untrained.sum()),
        sealed=int((untrained & in_snapshot).sum()),
        says=fresh.says,
    )


def _ripe(workspace: Workspace, model: ModelFile, at: datetime, read: float) -> tuple[float | None, float]:
    """The age at which a served prediction is read, and the time up to which they are.

    All of a stretch may be read as soon as nearly all of its outcomes are here, however young it is.
    """
    now, final = at.timestamp(), model.label.mature_after.total_seconds()
    for history in HISTORIES:
        pairs = workspace.predictions.arrivals(model.name, now - history, now, now)
        made = np.array([time for time, _ in pairs], dtype=float)
        came = np.array([np.nan if arrived is None else arrived for _, arrived in pairs], dtype=float)
        ripe = performance.Maturity.of(now - made, np.maximum(came - made, 0)).ripe if len(made) else None
        if ripe is not None:
            break
    unread = (made >= read) & (made < now - final)
    if unread.any() and (~np.isnan(came[unread])).mean() >= performance.RIPE:
        return ripe, max(read, now - final)
    wait = max(ripe or 0.0, final)
    return ripe, max(read, now - wait) if wait else read


def _served(
    workspace: Workspace, model: ModelFile, champion: Champion, since: float, until: float, at: datetime
) -> tuple[Judged, Mask]:
    """The champion's served predictions whose outcome is known, the newest of each key; and of which nobody can say what
    role they will have.
    """
    logged = _newest(workspace, model, champion, since, until, at)
    keys = _key_texts(model, logged)
    texts = keys if model.split.group is None else _groups(model, logged)
    rows = Judged(
        times=np.array(logged["at"], dtype=float),
        keys=(units := _units(keys)),
        units=units if texts is keys else _units(texts),
        columns=Columns(model, (np.array(logged["record"], dtype=object),)),
        truth=np.array(logged["label"], dtype=object if model.classes else float),
        answers=_logged_answers(model, logged["answer"]),
        served=np.ones(len(keys), dtype=bool),
        weights=_weights(model, logged),
    )
    return rows, np.array([text is None and model.split.group is not None for text in texts], dtype=bool)


def _newest(
    workspace: Workspace, model: ModelFile, champion: Champion, since: float, until: float, at: datetime
) -> dict[str, list[Any]]:
    """The newest labelled prediction of each key that the champion made: `LOGGED`, and its `label`."""
    columns: dict[str, list[Any]] = {name: [] for name in (*LOGGED, "label")}
    for block in workspace.predictions.labelled(model.name, LOGGED, since, until, received_by=at.timestamp()):
        for name, values in block.items():
            columns[name].extend(values)
    told_by = (columns[name] for name in ("version", "fallback", "key", "prediction_id"))
    newest = {
        key or prediction_id: place
        for place, (version, fallback, key, prediction_id) in enumerate(zip(*told_by, strict=True))
        if version == champion.number and fallback is None
    }
    return {name: [values[place] for place in newest.values()] for name, values in columns.items()}


def learning_frame(model: ModelFile, records: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Columns of logged records, which are JSON texts, as a learning frame."""
    kinds = {name: object if model.columns[name].type == "category" else float for name in names}
    found = zip(kinds.items(), _fields(records, names), strict=True)
    return pd.DataFrame({name: pd.Series(values, dtype=kind) for (name, kind), values in found})


def _fields(documents: Sequence[str], names: Sequence[str], kind: Any = Any, lacking: Any = None) -> list[list[Any]]:
    """What stands under each of these names in JSON objects; `lacking` where nothing does."""
    structure = _structure(names, kind, lacking)
    found = list(map(msgspec.json.Decoder(structure).decode, documents))
    return [list(map(attrgetter(place), found)) for place in structure.__struct_fields__]


def _structure(names: Sequence[str], kind: Any, lacking: Any) -> type[msgspec.Struct]:
    """A JSON object of which only these fields are read: in half the time of a dictionary, and no garbage to collect."""
    places = [f"_{place}" for place in range(len(names))]
    fields = [(place, kind, lacking) for place in places]
    rename = dict(zip(places, names, strict=True))
    return msgspec.defstruct("Document", fields, rename=rename, frozen=True, gc=False)


def _logged_answers(model: ModelFile, answers: Sequence[str]) -> NDArray[np.float64]:
    if not model.classes:
        return np.array(_fields(answers, ["prediction"])[0], dtype=float)
    chances = _structure(model.classes, float, 0.0)
    (found,) = _fields(answers, ["probabilities"], chances, chances())
    return np.array(list(map(msgspec.structs.astuple, found)), dtype=float).reshape(len(found), len(model.classes))


def _weights(model: ModelFile, logged: Mapping[str, Sequence[Any]]) -> NDArray[np.float64]:
    """What the policy recommends today says of the control share what would have been done."""
    control = np.array(logged["control"], dtype=bool)
    if not control.any():
        return np.ones(len(control))
    places = np.flatnonzero(control).tolist()
    frame = learning_frame(model, [logged["record"][place] for place in places], list(model.columns))
    rows: list[Any] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    policy, actions = Policy(model.serve.actions), list(logged["action"])
    for place, row in zip(places, rows, strict=True):
        said = msgspec.json.decode(logged["answer"][place])
        actions[place] = policy.recommend(said["prediction"], said["confidence"], said["probabilities"], row).action
    return performance.weights(control.tolist(), [action != PROCEED for action in actions])


def _key_texts(model: ModelFile, logged: Mapping[str, Sequence[Any]]) -> list[str | None]:
    """The keys as the accept step would write them; None for a prediction that never becomes a row."""
    count, own = len(model.source.keys), model.source.outcomes
    return [
        _key_text((key and key_parts(key, count)) or ([prediction_id] * count if own else None))
        for key, prediction_id in zip(logged["key"], logged["prediction_id"], strict=True)
    ]


def _key_text(parts: Sequence[str] | None) -> str | None:
    if parts is None:
        return None
    return parts[0] if len(parts) == 1 else "".join(f"{len(part)}:{part}," for part in parts)


def _groups(model: ModelFile, logged: Mapping[str, Sequence[Any]]) -> list[str | None]:
    """The rows' groups, from the records or the keys."""
    group, keys = str(model.split.group), model.source.keys
    (values,) = _fields(logged["record"], [group])
    place = keys.index(group) if group in keys else None
    return [_group(value, key, len(keys), place) for value, key in zip(values, logged["key"], strict=True)]


def _group(value: Any, key: str | None, count: int, place: int | None) -> str | None:
    if value is None and place is not None and key:
        parts = key_parts(key, count)
        value = parts and parts[place]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value)


def _units(texts: Sequence[str | None]) -> splitting.Units:
    joined = b"".join(bytes(splitting.UNIT_BYTES) if text is None else splitting.unit_of(text) for text in texts)
    return np.frombuffer(joined, np.uint8).reshape(-1, splitting.UNIT_BYTES)


@dataclass(frozen=True)
class _Marks:
    """When labelled rows were, and what they are known by; as in `Judged`."""

    times: NDArray[np.float64]
    keys: splitting.Units
    units: splitting.Units

    @classmethod
    def none(cls) -> "_Marks":
        nothing = np.zeros((0, splitting.UNIT_BYTES), np.uint8)
        return cls(np.zeros(0), nothing, nothing)

    @classmethod
    def of(cls, model: ModelFile, table: Any) -> "_Marks":
        """Of an Arrow table with the snapshot's columns."""
        keys = splitting.units_of(table[contracts.DIGEST].combine_chunks())
        dated = contracts.TIME in table.column_names
        times = _seconds(table[contracts.TIME]) if dated else np.full(table.num_rows, np.nan)
        return cls(times, keys, splitting.units_of_groups(table[contracts.GROUP]) if model.split.group else keys)

    def __add__(self, other: "_Marks") -> "_Marks":
        return _Marks(*(np.concatenate([value, getattr(other, name)]) for name, value in vars(self).items()))

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class _Fresh:
    """Labelled rows that came since the champion's snapshot and that the next one would have; nothing is answered yet."""

    marks: _Marks
    """Of the rows of the source."""
    logged: _Marks
    """Of those that only the prediction log has, with `source.outcomes`."""
    table: Any = None
    """Of the source's rows: Arrow table with the snapshot's columns."""
    ripe_until: float = np.inf
    says: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.marks)


def _fresh(workspace: Workspace, model: ModelFile, champion: Champion, at: datetime) -> _Fresh:
    contract = contracts.Contract.of(model, at)
    snapshot = workspace.load(Snapshot, champion.predictor.made.snapshot)
    known = workspace.store.fetch(snapshot.data)
    with workspace.tables.session() as session:
        try:
            source = session.source(model.source)
        except (SourceMissing, SourceUnreadable, SourceUnavailable) as problem:
            return _unread(f"{problem.what}")
        if lost := contract.missing(source.columns):
            return _unread(f"it has no column {', '.join(lost)}")
        rows = contracts.flagged(source, contract, session.stage)
        old = session.parquet(known).select(contracts.KEY)
        table = _without_doubles(session.arrow(contracts.accepted(rows, contract).anti_join(old, contracts.KEY)))
        waiting = _unlabelled(session, rows) if contracts.TIME in contract.columns else np.zeros(0)
        logged = _logged(workspace, session, rows, contract, old)
    marks = _Marks.of(model, table)
    return _Fresh(marks, logged, table, _ripe_until(marks.times, waiting))


def _unread(why: str) -> _Fresh:
    return _Fresh(_Marks.none(), _Marks.none(), says=(f"The source was not read: {why}.",))


def _logged(workspace: Workspace, session: Session, rows: Any, contract: contracts.Contract, old: Any) -> _Marks:
    """Served rows that `source.outcomes` would add to a snapshot now, as the accept step finds them."""
    if not contract.model.source.outcomes:
        return _Marks.none()
    found = served.missing(workspace, session, rows, contract, contract.mature_before or contract.at)
    if found is None:
        return _Marks.none()
    good = contracts.accepted(found, contract).anti_join(old, contracts.KEY)
    return _Marks.of(contract.model, session.arrow(good))


def _without_doubles(table: Any) -> Any:
    """One of the rows that are the same; none of those whose key stands on different rows."""
    import pyarrow as pa

    frame = table.select([name for name in table.column_names if name != contracts.DIGEST]).to_pandas()
    if not frame[contracts.KEY].duplicated().any():
        return table
    different = ~frame.duplicated()
    unsure = frame.loc[different, contracts.KEY].duplicated(keep=False).reindex(frame.index, fill_value=False)
    return table.filter(pa.array(different & ~unsure))


def _unlabelled(session: Session, rows: Any) -> NDArray[np.float64]:
    """Times of rows that wait for nothing but their label."""
    lacking = rows.filter(rows[contracts.LABEL].isnull(), ~rows["!immature"], rows[contracts.TIME].notnull())  # noqa: PD003, PD004 - Ibis
    return _seconds(session.arrow(lacking.select(contracts.TIME))[contracts.TIME])


def _seconds(column: Any) -> NDArray[np.float64]:
    """Seconds since 1970, NaN where there is no time."""
    moments = column.to_pandas().to_numpy("datetime64[us]")
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


def _ripe_until(times: NDArray[np.float64], waiting: NDArray[np.float64]) -> float:
    dated = times[~np.isnan(times)]
    if not len(dated) or not len(waiting):
        return np.inf
    waiting = waiting[waiting >= dated.min()]
    labelled = np.arange(len(dated) + len(waiting)) < len(dated)
    return performance.ripe_until(np.concatenate([dated, waiting]), labelled)


def _read_until(
    model: ModelFile,
    of_source: NDArray[np.float64],
    of_log: NDArray[np.float64],
    before: Mapping[str, float],
    until: float,
    read: float,
) -> dict[str, float]:
    """Up to where rows were taken. By time the newest ones are sealed now and are taken when newer ones are here."""
    found = dict(before)
    dated = of_source[~np.isnan(of_source)]
    if len(dated):
        found["source"] = max(float(dated.max()), before.get("source", -np.inf))
    if model.split.by == "time":
        until = float(np.nextafter(of_log.max(), np.inf)) if len(of_log) else read
    return {**found, "served": max(until, read)}


def _sealed(
    workspace: Workspace, model: ModelFile, coming: _Marks, answered: Judged, opened: Sequence[Roles]
) -> tuple[Mask, Mask]:
    """Of the coming rows, and of the answered ones: those that are test rows, or would be in a snapshot taken now.

    By time the newest share of the rows is sealed. Rows that come later are newer, so that no row that was read becomes a
    test row afterwards. An answered row that is among the coming ones has its role from there: counted twice it would move
    the cut.
    """
    place = _places(coming.keys, answered.keys)
    alone = place < 0
    units, times = (
        np.concatenate([coming.units, answered.units[alone]]),
        np.concatenate([coming.times, answered.times[alone]]),
    )
    moments = (times * 1e6).astype("datetime64[us]") if model.split.by == "time" else None
    roles, _ = given_roles(workspace, model, Marked(units, moments, None), opened)
    never = ~units.any(axis=1)
    sealed = np.asarray((roles == splitting.CODES["test"]) & (~never if moments is None else True))
    place[alone] = np.arange(len(coming), len(units))
    return sealed[: len(coming)], sealed[place]


def _places(keys: splitting.Units, asked: splitting.Units) -> NDArray[np.intp]:
    """Where each key that is asked for stands among the others; -1 where it does not."""
    numbers, wanted = splitting.numbers_of(keys), splitting.numbers_of(asked)
    order = np.argsort(numbers, kind="stable")
    found = np.searchsorted(numbers[order], wanted)
    there = np.isin(wanted, numbers)
    return np.where(there, order[np.minimum(found, max(0, len(order) - 1))] if len(order) else -1, -1)


def _untrained(workspace: Workspace, champion: Champion, rows: _Marks, opened: Sequence[Roles]) -> Mask:
    """Rows that came after the last training that opened sealed rows; it may have been another one than the champion's."""
    last = opened[-1].snapshot if opened else champion.predictor.made.snapshot
    if last == champion.predictor.made.snapshot or not len(rows):
        return np.ones(len(rows), dtype=bool)
    file = workspace.store.fetch(workspace.load(Snapshot, last).data)
    known = splitting.units_in(workspace.tables.stored(file, [contracts.DIGEST])[contracts.DIGEST])
    return ~np.isin(splitting.numbers_of(rows.keys), splitting.numbers_of(known))


def _learned(workspace: Workspace, model: ModelFile, champion: Champion, rows: Judged) -> Mask:
    """Rows whose key the champion was trained on; a group may come again, with new rows."""
    if model.split.by == "group" or not len(rows):
        return np.zeros(len(rows), dtype=bool)
    return np.isin(splitting.numbers_of(rows.keys), trained_on(workspace, champion.predictor.made.trained_units))


def _read(model: ModelFile, fresh: _Fresh, kept: Mask) -> Lessons:
    """These fresh rows of the source."""
    import pyarrow as pa

    frame, truth = learning_frame(model, [], list(model.columns)), np.zeros(0, dtype=object if model.classes else float)
    if kept.any():
        table = fresh.table.filter(pa.array(kept))
        frame = pd.DataFrame(
            {name: learning_column(table[name], column.type) for name, column in model.columns.items()}
        )
        truth = learning_column(table[contracts.LABEL], "category" if model.classes else "number")
    return Lessons(fresh.marks.times[kept], fresh.marks.units[kept], Columns(model, (frame,)), truth)


def _answered(champion: Champion, model: ModelFile, rows: Lessons, keys: splitting.Units) -> Judged:
    """These rows, answered by the champion now."""
    shape = (0, len(model.classes)) if model.classes else (0,)
    return Judged(
        times=rows.times,
        keys=keys,
        units=rows.units,
        columns=rows.columns,
        truth=rows.truth,
        answers=champion.contestant.answers(rows.columns.frame(), model.classes) if len(rows) else np.zeros(shape),
        served=np.zeros(len(rows), dtype=bool),
        weights=np.ones(len(rows)),
    )


def _with_logged(found: Lessons, logged: Judged, known: _Marks) -> Lessons:
    """And what only the prediction log has: with `source.outcomes` it would be part of a snapshot."""
    alone = logged[~np.isin(splitting.numbers_of(logged.keys), splitting.numbers_of(known.keys))]
    return Lessons(
        np.concatenate([found.times, alone.times]),
        np.concatenate([found.units, alone.units]),
        found.columns + alone.columns,
        np.concatenate([found.truth, alone.truth]),
    )


def count_new_rows(workspace: Workspace, model: ModelFile, *, at: datetime) -> int | None:
    """Labelled rows that no training has seen; None if there was none yet. No row is answered, no label looked at."""
    version = workspace.registry.champion(model.name)
    if version is None:
        return None
    champion = Champion.of(workspace, model, version.number)
    fresh = _fresh(workspace, model, champion, at)
    coming = fresh.marks + fresh.logged
    return int(_untrained(workspace, champion, coming, opened_roles(workspace, model)).sum())
