"""Batch scoring: a table goes in, the answers of one version come out, all of them or none."""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steward.config import ModelFile, Source
from steward.core import contracts, drift
from steward.core.answers import Answers, Coded
from steward.core.contracts import Contract
from steward.errors import ContractRefused, ScoringStopped, SourceUnreadable, StewardError
from steward.io.outputs import Output
from steward.io.tables import Session, filled, writing
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.records import Change, Scored, Snapshot
from steward.steps import baseline, observation
from steward.steps.drifting import drift_of_batch

BLOCK = 50_000
"""Rows that are scored at once."""
MEMORY = "768MB"
"""What the reader may hold; more spills to the disk."""
TEXTS = ("prediction", "action", "message", "unseen", "flags")
CARRIED = "^"
"""Begins the names of columns that go from input to output as they are."""

OnProgress = Callable[[int, int], None]
"""Takes the rows that are done and all rows."""


def score(
    workspace: Workspace,
    model: ModelFile,
    source: str,
    output: str,
    *,
    at: datetime,
    on_progress: OnProgress | None = None,
) -> Scored:
    """Score a table through the champion, which is looked up once, here.

    Rows that break the contract of the champion are not scored but set aside, with reasons, beside the output. Nothing is
    in its place before everything is: a run that was killed is simply repeated.

    Parameters
    ----------
    source : path, glob, URL or SQL table, written as `source.table`.
    output : a Parquet or CSV file, or a SQL table.
    at : what the run is dated.

    Raises
    ------
    NoChampion : nothing was promoted yet.
    SourceMissing, SourceUnreadable, SourceUnavailable : about the input.
    OutputRefused, StoreUnavailable : about the output.
    ContractRefused : the input lacks columns.
    ScoringStopped : too many rows break the contract, or have drifted, and the model file says to stop then.
    """
    started = time.monotonic()
    target = Output.at(filled(output, os.environ), output)
    target.check(source)
    version = Model(model, workspace=workspace)
    with workspace.tables.session(MEMORY) as session, workspace.store.scratch() as folder:
        batch = _read(session, version, model, source, at)
        seen = _scored(session, version, model, batch, folder / "answers.parquet", on_progress)
        rejections = _set_aside(session, batch, seen, folder / "rejected.parquet")
        missing, unseen = _shares(workspace, version, seen)
        notes = _judged(model, seen, _moved(workspace, session, version, model, batch, folder / "answers.parquet"))
        target.publish(folder / "answers.parquet", folder / "rejected.parquet" if seen.rejected else None)
    return Scored(
        model=model.name,
        version=version.version,
        at=at,
        input=source,
        output=target.shown,
        rejected_output=target.rejected if seen.rejected else None,
        rows=batch.total,
        scored=seen.rows,
        rejected=seen.rejected,
        rejections=rejections,
        predictions={name: seen.predictions[name] for name in version.answering.classes},
        actions=dict(seen.actions),
        missing=missing,
        unseen=unseen,
        notes=notes,
        seconds=round(time.monotonic() - started, 3),
    )


@dataclass(frozen=True)
class _Batch:
    """The input, held against the contract; nothing is computed yet."""

    contract: Contract
    rows: Any
    """Ibis table of every row, cleaned and marked; `^<name>` are columns that the output gets as they are."""
    carried: dict[str, str]
    """Name in the output → name in `rows`."""
    total: int


@dataclass
class _Seen:
    """What was counted."""

    rows: int = 0
    rejected: int = 0
    predictions: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)


def _read(session: Session, version: Model, model: ModelFile, source: str, at: datetime) -> _Batch:
    trained = version.predictor.model
    table = session.source(Source(table=source, key=trained.source.key, missing=trained.source.missing))
    contract = Contract.unlabelled(trained, at, with_ranges=model.serve.out_of_range == "refuse")
    own = [name for name in (*trained.source.keys, trained.source.time) if name in table.columns]
    carried = {str(name): f"{CARRIED}{name}" for name in dict.fromkeys(own)}
    table = _with_absent(table, contract)
    rows = contracts.flagged(table, contract, session.stage, {name: column for column, name in carried.items()})
    return _Batch(contract, rows, carried, session.row(table.aggregate(rows=table.count()))["rows"])


def _with_absent(table: Any, contract: Contract) -> Any:
    """Columns that may be missing in a row may be absent from the table; raises ContractRefused for any other."""
    import ibis

    absent = [field for field in contract.fields if field.column not in table.columns]
    if lacking := [field.column for field in absent if not field.nullable]:
        raise ContractRefused(
            "the input lacks columns of the contract",
            got=", ".join(table.columns),
            allowed=", ".join(dict.fromkeys(lacking)),
            do="Add them",
            failed=lacking,
        )
    return table.mutate(**{field.column: ibis.null("string") for field in absent}) if absent else table


def _scored(
    session: Session, version: Model, model: ModelFile, batch: _Batch, path: Path, on_progress: OnProgress | None
) -> _Seen:
    """Score the rows that keep the contract, block by block, into a Parquet file; raises ScoringStopped."""
    columns = list(version.predictor.model.columns)
    query = batch.rows.select(*columns, "!accepted", *batch.carried.values())
    texts = [name for name in columns if version.predictor.model.columns[name].type == "category"]
    seen = _Seen()
    with writing(path, TEXTS) as write:
        for block, made in _in_order(
            lambda block: _answered(version, batch, block), session.blocks(query, texts, BLOCK)
        ):
            seen.rejected += block.num_rows - made.table.num_rows
            seen.rows += made.table.num_rows
            _count(seen, made)
            _stop_if_broken(model, seen, batch.total)
            write(made.table)
            if on_progress:
                on_progress(seen.rows + seen.rejected, batch.total)
    return seen


class _Block(NamedTuple):
    """A block of the output."""

    table: Any
    answers: Answers
    missing: dict[str, int]


def _answered(version: Model, batch: _Batch, block: Any) -> _Block:
    """The rows of an Arrow table that keep the contract, with their answers."""
    kept = (
        block if block["!accepted"].null_count == 0 and _all(block["!accepted"]) else block.filter(block["!accepted"])
    )
    model = version.predictor.model
    columns = {name: _values(kept[name], column.type) for name, column in model.columns.items()}
    unseen = _unseen(version, kept)
    answers = version.answering.many(version.predictor.answer(columns), unseen, columns)
    flags = _out_of_range(model, columns)
    table = _table(kept, batch.carried, answers.as_columns(flags), version.version)
    return _Block(table, answers, {name: kept[name].null_count for name in columns})


def _all(column: Any) -> bool:
    import pyarrow.compute

    return bool(pyarrow.compute.all(column).as_py() is not False)


def _values(column: Any, kind: str) -> NDArray[Any]:
    """A column of an Arrow table as the engine takes it: float64 with NaN, or objects with None, where missing."""
    import pyarrow as pa

    if kind == "category":
        texts, codes = _coded(column)
        return texts[codes]
    if kind == "boolean":
        column = column.cast(pa.int8())
    found: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return found


def _coded(column: Any) -> tuple[NDArray[np.object_], NDArray[np.intp]]:
    """Different texts, None at the end, and the position of each row's among them."""
    array = column.combine_chunks()
    texts = np.array([*array.dictionary.to_pylist(), None], dtype=object)
    return texts, array.indices.fill_null(len(texts) - 1).to_numpy().astype(np.intp)


def _unseen(version: Model, block: Any) -> dict[str, NDArray[np.bool_]]:
    """Flags per category column: every different text is asked about once."""
    categories = [name for name, column in version.predictor.model.columns.items() if column.type == "category"]
    coded = {name: _coded(block[name]) for name in categories}
    flags = version.predictor.unseen({name: texts.tolist() for name, (texts, _) in coded.items()})
    return {name: np.array(flags[name], dtype=bool)[codes] for name, (_, codes) in coded.items()}


def _out_of_range(model: ModelFile, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.bool_]]:
    """What the contract let pass: empty where it refuses such rows, because none is left then."""
    found = {}
    for name, column in model.columns.items():
        low, high = column.min, column.max
        if low is not None or high is not None:
            values = columns[name]
            outside = (values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high))
            found[f"out_of_range:{name}"] = outside
    return found


def _table(block: Any, carried: Mapping[str, str], columns: Mapping[str, NDArray[Any] | Coded], version: int) -> Any:
    """The output's columns as an Arrow table."""
    import pyarrow as pa

    made = {name if name not in columns else f"input_{name}": _plain(block[column]) for name, column in carried.items()}
    for name, values in columns.items():
        if isinstance(values, Coded):
            made[name] = pa.DictionaryArray.from_arrays(pa.array(values.codes, pa.int32()), pa.array(values.values))
        else:
            made[name] = pa.array(values)
    made["model_version"] = pa.array(np.full(block.num_rows, version))
    return pa.table(made)


def _plain(column: Any) -> Any:
    """A key or a time as every output can hold it."""
    import pyarrow as pa
    import pyarrow.types as kinds

    held = (kinds.is_integer, kinds.is_floating, kinds.is_timestamp, kinds.is_string)
    return column if any(holds(column.type) for holds in held) else column.cast(pa.string())


def _in_order(work: Callable[[Any], _Block], blocks: Iterable[Any]) -> Iterator[tuple[Any, _Block]]:
    """Every block with what became of it, in order; a few are worked on at a time."""
    workers = min(4, os.cpu_count() or 1)
    ahead: deque[tuple[Any, Future[_Block]]] = deque()
    with ThreadPoolExecutor(workers, "scoring") as pool:
        for block in blocks:
            ahead.append((block, pool.submit(work, block)))
            if len(ahead) > workers:
                first, made = ahead.popleft()
                yield first, made.result()
        for last, made in ahead:
            yield last, made.result()


def _count(seen: _Seen, made: _Block) -> None:
    answers = made.answers
    seen.missing.update(made.missing)
    seen.unseen.update({name: int(np.count_nonzero(flags)) for name, flags in answers.unseen.items()})
    for position, times in enumerate(np.bincount(answers.chosen).tolist()):
        if times:
            seen.actions[answers.policy.recommendations[position].action] += times
    if answers.probabilities is not None:
        seen.predictions.update(Counter(answers.predictions.tolist()))


def _stop_if_broken(model: ModelFile, seen: _Seen, total: int) -> None:
    if model.score.contract == "stop" and seen.rejected > model.rows.max_rejected * total:
        raise ScoringStopped(
            "too many rows break the contract",
            got=f"{seen.rejected} of the first {seen.rows + seen.rejected} rows",
            allowed=f"{model.rows.max_rejected:.3%} of {total} rows",
            do="Repair the input, or say `score.contract: warn` to set such rows aside",
        )


def _set_aside(session: Session, batch: _Batch, seen: _Seen, path: Path) -> dict[str, int]:
    """Keep the rows that were not scored, a line per broken rule; how many there are by rule and column."""
    if seen.rows + seen.rejected != batch.total:
        raise _changed(f"{batch.total} rows, {seen.rows} scored, {seen.rejected} set aside")
    if not seen.rejected:
        return {}
    aside = session.keep(contracts.set_aside(batch.rows))
    if session.row(aside.aggregate(rows=aside.count()))["rows"] != seen.rejected:
        raise _changed(f"{seen.rejected} rows set aside at first, then another number")
    session.write(contracts.rejected(aside, batch.contract), path)
    counts = session.row(aside.aggregate(**contracts.broken(aside, batch.contract)))
    return {
        f"{rule}:{checked.column}": counts[f"{rule}:{i}"]
        for i, checked in enumerate(batch.contract.fields)
        for rule in checked.rules
        if counts[f"{rule}:{i}"]
    }


def _changed(got: str) -> SourceUnreadable:
    return SourceUnreadable(
        "the input changed while it was read", got=got, do="Check that nothing writes to it, then run again"
    )


def _shares(workspace: Workspace, version: Model, seen: _Seen) -> tuple[dict[str, Change], dict[str, Change]]:
    """Missing and unseen values, beside those of the rows that the version learned from."""
    known = _missing_in_training(workspace, version)
    rows = max(seen.rows, 1)
    columns = version.predictor.model.columns
    nullable = [name for name, column in columns.items() if column.nullable]
    missing = {name: Change(share=seen.missing[name] / rows, training=known.get(name)) for name in nullable}
    return missing, {name: Change(share=times / rows, training=0.0) for name, times in seen.unseen.items()}


def _missing_in_training(workspace: Workspace, version: Model) -> dict[str, float]:
    """Share of missing values per column of the version's snapshot, as its file says; nothing if it is gone."""
    import pyarrow.parquet

    try:
        snapshot = workspace.load(Snapshot, version.predictor.made.snapshot)
        metadata = pyarrow.parquet.read_metadata(workspace.store.fetch(snapshot.data))
    except StewardError:
        return {}
    nulls: Counter[str] = Counter()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            if column.statistics is None or not column.statistics.has_null_count:
                return {}
            nulls[column.path_in_schema] += column.statistics.null_count
    return {name: times / max(metadata.num_rows, 1) for name, times in nulls.items()}


def _moved(
    workspace: Workspace, session: Session, version: Model, model: ModelFile, batch: _Batch, answers: Path
) -> tuple[str, ...]:
    """How the batch differs from the rows that the version learned from, as a look of the monitor would find it; nothing
    where those rows are gone.
    """
    trained = version.predictor.model
    try:
        known = baseline.known(workspace, version.predictor.made).baseline
        scored = batch.rows.filter(batch.rows["!accepted"])
        found = observation.profile_of_rows(session, scored, session.parquet(answers), trained, known)
        report = drift_of_batch(workspace, model, version.predictor.made, found.profile)
    except StewardError:
        return ()
    return tuple(drift.sentence(one, None) for one in report.alarms)


def _judged(model: ModelFile, seen: _Seen, moved: tuple[str, ...]) -> tuple[str, ...]:
    """What a person should know of the batch; raises ScoringStopped where the model file says to stop."""
    if moved and model.score.drift == "stop":
        raise ScoringStopped(
            "the rows are not like those that the champion learned from",
            got="; ".join(moved),
            do="Look at the input, or say `score.drift: warn` to score it anyway",
        )
    share = seen.rejected / max(seen.rows + seen.rejected, 1)
    broken = (f"{seen.rejected} rows ({share:.1%}) break the contract",) if share > model.rows.max_rejected else ()
    return (*broken, *moved)
