"""The find_features step: columns of the source that the contract does not know, and what they would add."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward.config import ModelFile
from steward.core import contracts, novelty, quality, splitting
from steward.core.contracts import Contract
from steward.core.retraining import Trigger
from steward.errors import ArtifactDamaged, SourceMissing, SourceUnreadable
from steward.io.tables import Session
from steward.io.workspace import Workspace
from steward.prediction import trained
from steward.records import Decision, Estimate, NewFeature, NewFeatures, Observation, Reference, Snapshot, digest_of
from steward.steps.observation import values as values_of

MOST_TRIED = 5
"""New columns that are tried out in one look, the first ones of the source."""
LOOKED_BACK = 100
"""Decisions among which the last look is searched."""
TRY_AGAIN = 1.25
"""A column is tried again when so many times more rows have a value."""
DRAWN = 4
"""Times as many rows as are tried on: some of them are sealed."""


def find_features(workspace: Workspace, model: ModelFile, observation: Reference) -> Reference:
    """Look for columns that came to the source after the champion's snapshot, and try what they would add.

    Sealed rows are not looked at. A column that somebody has taken into the model file since is the trigger: only then can
    a training use it.

    Returns
    -------
    Reference to `NewFeatures`.
    """
    inputs = [model.model_dump(mode="json"), observation.digest]
    return workspace.remember(NewFeatures, inputs, lambda: _found(workspace, model, observation))


def _found(workspace: Workspace, model: ModelFile, reference: Reference) -> NewFeatures:
    seen = workspace.load(Observation, reference)
    _, made = trained(workspace, model.name, seen.version)
    known = workspace.load(Snapshot, made.snapshot).unknown_columns
    columns = seen.source["columns"]
    unknown = Contract.of(model, seen.end).unknown(tuple(columns))
    new = [name for name in unknown if name not in known and name not in made.inputs]
    before = _before(workspace, model, seen) if new else {}
    features = tuple(_features(workspace, model, seen, new[:MOST_TRIED], before)) if new else ()
    trigger = _trigger(model, seen, [name for name in model.columns if name not in made.inputs])
    return NewFeatures(
        model=model.name,
        observation=reference,
        features=features,
        says=(*(one.says for one in features), *((trigger.reason,) if trigger else ())),
        triggers=(trigger.as_json(),) if trigger else (),
    )


@dataclass(frozen=True)
class _Measured:
    """What a column adds, on so many labelled rows, when so many rows of the source had a value."""

    rows: int
    filled_rows: int
    gain: Estimate | None


def _before(workspace: Workspace, model: ModelFile, seen: Observation) -> dict[str, _Measured]:
    """What the newest decision before this look knew of new columns, if it was about the same version."""
    for entry in workspace.ledger.entries(model.name, Decision.kind, newest_first=True, limit=LOOKED_BACK):
        part = entry.body["parts"].get(NewFeatures.kind)
        if part is None or datetime.fromisoformat(entry.subject) >= seen.end:
            continue
        try:
            found = workspace.load(NewFeatures, Reference.model_validate(part))
            same = workspace.load(Observation, found.observation).version == seen.version
        except ArtifactDamaged:
            return {}
        known = {one.column: one for one in found.features if same}
        return {n: _Measured(one.rows, one.filled_rows, one.gain) for n, one in known.items() if one.gain}
    return {}


def _trigger(model: ModelFile, seen: Observation, taken: Sequence[str]) -> Trigger | None:
    if not taken:
        return None
    names = ", ".join(taken)
    return Trigger(
        kind="new_feature",
        cause=f"new_feature:{seen.version}:{','.join(sorted(taken))}",
        reason=f"the model file of {model.name} has columns that version {seen.version} does not know: {names}",
        at=seen.end,
        evidence={"columns": list(taken)},
    )


@dataclass(frozen=True)
class _Rows:
    """Labelled rows of the source that are not sealed."""

    frame: pd.DataFrame
    truth: NDArray[Any]


def _features(
    workspace: Workspace,
    model: ModelFile,
    seen: Observation,
    names: Sequence[str],
    before: Mapping[str, _Measured],
) -> Iterator[NewFeature]:
    try:
        with workspace.tables.session() as session:
            source = session.source(model.source)
            rows = _marked(session, source, model, seen.end, names)
            for name in names:
                yield _feature(workspace, session, model, seen, rows, name, before.get(name))
    except (SourceMissing, SourceUnreadable):
        return  # the quality of this look says so


def _marked(session: Session, source: Any, model: ModelFile, at: datetime, names: Sequence[str]) -> Any:
    """The source held against the contract, with the new columns as `+name`."""
    contract = Contract.of(model, at)
    carried = {f"+{name}": name for name in names if name in source.columns}
    return contracts.flagged(quality.complete(source, contract), contract, session.stage, carried)


def _feature(
    workspace: Workspace,
    session: Session,
    model: ModelFile,
    seen: Observation,
    rows: Any,
    name: str,
    before: _Measured | None,
) -> NewFeature:
    column = f"+{name}"
    there = rows[column].notnull() & (rows[column].cast("string") != "")  # noqa: PD004 - a column of Ibis
    times = {"since": rows[contracts.TIME].min(where=there)} if model.source.time else {}
    counted = session.row(rows.aggregate(rows=rows.count(), filled=there.sum().fill_null(0), **times))
    first = counted.get("since")
    total = counted["rows"] if first is None else _since(session, rows, first)
    found = before if before and counted["filled"] < TRY_AGAIN * before.filled_rows else None
    found = found or _measured(_tried(workspace, session, model, rows, column), model, column, counted["filled"])
    share = counted["filled"] / max(1, total)
    since = first.replace(tzinfo=UTC) if first else seen.start if name not in (seen.source["before"] or {}) else None
    return NewFeature(
        column=name,
        type=seen.source["columns"][name],
        since=since,
        filled=share,
        rows=found.rows,
        filled_rows=found.filled_rows,
        metric=model.metric,
        gain=found.gain,
        says=_sentence(name, since, share, model.metric, found.gain),
    )


def _since(session: Session, rows: Any, first: datetime) -> int:
    import ibis

    later = rows.filter(rows[contracts.TIME] >= ibis.literal(first, "timestamp"))
    found: int = session.row(later.aggregate(n=later.count()))["n"]
    return found


def _tried(workspace: Workspace, session: Session, model: ModelFile, rows: Any, column: str) -> _Rows | None:
    """Accepted rows with a value, without sealed ones: at most `novelty.MOST_ROWS`.

    They are drawn by the hash of their keys, from the end that is never sealed where that hash gives the roles.
    """
    kept = rows.filter(rows["!accepted"] & rows[column].notnull())  # noqa: PD004 - a column of Ibis
    extra = [name for name in (contracts.TIME, contracts.GROUP) if name in rows.columns]
    digest = kept[contracts.KEY].hexdigest("sha256").left(contracts.DIGITS)
    chosen = kept.select(*model.columns, contracts.LABEL, *extra, column, **{contracts.DIGEST: digest})
    found = session.arrow(chosen.order_by(chosen[contracts.DIGEST].desc()).limit(DRAWN * novelty.MOST_ROWS))
    if not found.num_rows:
        return None
    found = found.filter(_not_sealed(workspace, model, found)).slice(0, novelty.MOST_ROWS)
    frame = pd.DataFrame({name: values_of(found[name], one.type) for name, one in model.columns.items()})
    frame[column] = found[column].to_pandas().astype(object)
    truth = values_of(found[contracts.LABEL], "category" if model.classes else "number")
    return _Rows(frame, truth)


def _not_sealed(workspace: Workspace, model: ModelFile, found: Any) -> Any:
    """Which rows are not test rows and will never be, whatever was opened; by time, newer rows have no role yet."""
    import pyarrow as pa

    if model.split.by == "time":
        rounds = [splitting.Round.read(entry.body) for entry in workspace.ledger.entries(model.name, "boundaries")]
        times = found[contracts.TIME].to_numpy()
        last = np.datetime64(rounds[-1].test.astimezone(UTC).replace(tzinfo=None), "us") if rounds else None
        roles = splitting.roles_by_time(times, rounds)
        return pa.array((roles != splitting.CODES["test"]) & (times <= last if last is not None else False))
    if model.split.by == "group":
        units = splitting.units_of_groups(found[contracts.GROUP])
    else:
        units = splitting.units_of(found[contracts.DIGEST].combine_chunks())
    return pa.array(splitting.roles_by_unit(units, model.split) != splitting.CODES["test"])


def _measured(rows: _Rows | None, model: ModelFile, column: str, filled_rows: int) -> _Measured:
    if rows is None:
        return _Measured(0, filled_rows, None)
    seed = int(digest_of(model.name, column, len(rows.frame))[:8], 16)
    gain = novelty.gain(model, rows.frame.drop(columns=column), rows.frame[column], rows.truth, seed=seed)
    return _Measured(len(rows.frame), filled_rows, gain)


def _sentence(name: str, since: datetime | None, filled: float, metric: str, gain: Estimate | None) -> str:
    when = f" since {since:%Y-%m-%d}" if since else ""
    start = f"the source has a column {name} that the contract does not know{when}, filled in {filled:.0%} of the rows"
    if gain is None:
        return f"{start}; too few labelled rows have it to say what it would add"
    size = f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    if gain.low > 0:
        return f"{start}; it would add {size} to {metric}: take it into `columns` of the model file to use it"
    return f"{start}; what it would add to {metric}, {size}, is within noise"
