"""The observe step: what came in since the last look, as a profile. The ledger's entry about it is the watermark."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from steward.config import ModelFile
from steward.core import contracts, metrics, profiles, quality
from steward.core.contracts import Contract
from steward.core.profiles import CONFIDENCE, PREDICTION, Baseline, Profile
from steward.core.quality import Facts
from steward.errors import ArtifactDamaged, ClockWentBack, LedgerConflict, SourceMissing, SourceUnreadable
from steward.inference import Predictor
from steward.io.ledger import Entry
from steward.io.tables import Session
from steward.io.workspace import Workspace
from steward.prediction import trained
from steward.records import Challenger, Observation, Promotion, Reference
from steward.steps import baseline

KIND = Observation.kind
FIRST = "first"
"""Subject of the first look at a model; that of any other is the end of the look before."""
SCORED = 50_000
"""Rows of the source that the champion answers so that its answers can be watched; a sample where there are more."""
VERSION = "@version"
READ = ("record", "prediction", "confidence", "version")
"""Of a served prediction."""
Origin = Literal["predictions", "source", "nothing"]


def observe(workspace: Workspace, model: ModelFile, *, at: datetime) -> Reference:
    """Look at what came in since the last look: served predictions, or else rows of the source.

    A window is looked at once. A look that is repeated, or made by two at once, answers the one that is on record; so
    does one whose moment an earlier look has covered.

    Parameters
    ----------
    at : end of the window; time-zone aware.

    Returns
    -------
    Reference to an `Observation`.

    Raises
    ------
    NoChampion : nothing was promoted yet.
    ClockWentBack : `at` is before the first look at this model began.
    SourceUnavailable
    """
    at = at.astimezone(UTC)
    looks = workspace.ledger.entries(model.name, KIND)
    if looks and at <= _end(looks[-1]):
        return _covering(looks, at)
    start = _end(looks[-1]) if looks else _begin(workspace, model, at)
    version, made = trained(workspace, model.name, None)
    before = _columns_before(workspace, looks[-1]) if looks else None
    look = _Look(workspace, model, made, start, at)
    inputs = [model.model_dump(mode="json"), made.digest, start.isoformat(), at.isoformat(), bool(before)]
    reference = workspace.remember(Observation, inputs, lambda: _observation(look, version, before))
    subject = looks[-1].body["end"] if looks else FIRST
    return _on_record(workspace, subject, workspace.load(Observation, reference), reference)


def _begin(workspace: Workspace, model: ModelFile, at: datetime) -> datetime:
    """Where the first look begins: it covers `monitor.window`, and all that the champion has answered since its promotion."""
    promoted = workspace.ledger.entries(model.name, Promotion.kind, newest_first=True, limit=1)
    return min([at - model.monitor.window, *(entry.at for entry in promoted)])


def _end(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry.body["end"])


def _covering(looks: Sequence[Entry], at: datetime) -> Reference:
    """The look whose window ends at a moment or holds it."""
    for entry in looks:
        if at <= _end(entry):
            if at > datetime.fromisoformat(entry.body["start"]):
                return Reference.model_validate(entry.body["record"])
            break
    raise ClockWentBack(
        "this moment is before the first look at the model",
        got=at.isoformat(),
        allowed=f"after {looks[0].body['start']}",
        do="Check the clock of this machine, and --at",
    )


def _columns_before(workspace: Workspace, entry: Entry) -> dict[str, str] | None:
    """The source's columns at a look; None if its record is gone, which is no reason to look no more."""
    try:
        seen = workspace.load(Observation, Reference.model_validate(entry.body["record"]))
    except ArtifactDamaged:
        return None
    columns: dict[str, str] = seen.source["columns"]
    return columns


def _on_record(workspace: Workspace, subject: str, made: Observation, reference: Reference) -> Reference:
    """One look follows another: whoever comes second, with whatever end, takes the one that stands.

    Parameters
    ----------
    subject : the end of the look before.
    """
    body = {
        "start": made.start.isoformat(),
        "end": made.end.isoformat(),
        "version": made.version,
        "origin": made.origin,
        "rows": made.rows,
        "record": reference.as_json(),
        "profile": made.profile.as_json(),
        "bins": made.bins,
    }
    try:
        entry = workspace.ledger.append(made.model, KIND, subject, body, made.end)
    except LedgerConflict:
        found = workspace.ledger.find(made.model, KIND, subject)
        if found is None:
            raise
        entry = found
    return Reference.model_validate(entry.body["record"])


@dataclass(frozen=True)
class _Look:
    """One window, and whose."""

    workspace: Workspace
    model: ModelFile
    """As it is today."""
    made: Challenger
    start: datetime
    end: datetime

    @property
    def trained_by(self) -> ModelFile:
        """The model file of the version's own time: what it takes as columns."""
        return ModelFile.model_validate(self.made.model_file)

    @property
    def seconds(self) -> tuple[float, float]:
        return self.start.timestamp(), self.end.timestamp()


def _observation(look: _Look, version: int, before: dict[str, str] | None) -> Observation:
    workspace, known = look.workspace, baseline.known(look.workspace, look.made)
    with workspace.tables.session() as session:
        source, problem = _source(session, look.model)
        facts = Facts(problem=problem) if source is None else _facts(session, source, look)
        found = _window(session, look, version, source, known.baseline)
    facts = replace(facts, before=before)
    return Observation(
        model=look.model.name,
        version=version,
        start=look.start,
        end=look.end,
        origin=found.origin,
        rows=found.profile.rows,
        reference=known.reference,
        bins=known.record.file.sha256,
        profile=baseline.put_json(workspace, found.profile.as_json(), "profile.json"),
        unseen=found.unseen,
        source=facts.as_json(),
        says=(_sentence(look, found),),
    )


def _source(session: Session, model: ModelFile) -> tuple[Any | None, str | None]:
    """The source, or why there is none; one that is away for now is no finding but a reason to come again."""
    try:
        return session.source(model.source), None
    except (SourceMissing, SourceUnreadable) as problem:
        return None, str(problem)


def _facts(session: Session, source: Any, look: _Look) -> Facts:
    """What is in the source: of rows in the window, or of all where rows have no time."""
    contract = Contract.incoming(look.model, look.end)
    rows = contracts.flagged(quality.complete(source, contract), contract, session.stage)
    newest = {"newest": rows[contracts.TIME].max()} if look.model.source.time else {}
    whole = session.row(rows.aggregate(rows=rows.count(), **newest))
    mine = quality.within(rows, look.start, look.end) if newest else rows
    counted = session.row(mine.aggregate(**quality.counts(mine, contract)))
    query = (
        quality.illegal(mine, contract) if any(counted[name] for name in counted if name.startswith("in_set")) else None
    )
    values = session.rows(query) if query is not None else []
    columns = {name: str(kind) for name, kind in source.schema().items()}
    found = quality.facts(contract, columns, counted, values)
    last = whole.get("newest")
    return replace(found, rows=whole["rows"], newest=last.isoformat() if last else None)


@dataclass(frozen=True)
class _Window:
    """The rows of a window, counted."""

    origin: Origin
    profile: Profile
    unseen: dict[str, dict[str, int]]


def _window(session: Session, look: _Look, version: int, source: Any | None, known: Baseline) -> _Window:
    logged = served_rows(look.workspace, look.model.name, look.trained_by, look.seconds)
    if logged is not None:
        served = session.load(logged)
        answers = served.filter(served[VERSION] == version)
        return _counted(session, look, known, "predictions", served, answers)
    if source is None or not look.model.source.time:
        return _Window("nothing", Profile.empty(known.bins), {})
    rows = source_rows(session, source, look.trained_by, look.start, look.end)
    return _counted(session, look, known, "source", rows, _answers(session, look, rows))


def _counted(session: Session, look: _Look, known: Baseline, origin: Origin, rows: Any, answers: Any) -> _Window:
    counted = profile_of_rows(session, rows, answers, look.trained_by, known)
    return _Window(origin if counted.profile.rows else "nothing", counted.profile, counted.unseen)


@dataclass(frozen=True)
class Counted:
    """Rows and answers as one profile, and the values that training did not know."""

    profile: Profile
    unseen: dict[str, dict[str, int]]


def profile_of_rows(session: Session, rows: Any, answers: Any, model: ModelFile, known: Baseline) -> Counted:
    """The profile of rows, with the answers of some of them.

    Parameters
    ----------
    rows : Ibis table with the contract's columns, cleaned. `answers` : one with `prediction` and `confidence`.
    model : the model file of the version's own time.
    """
    rows = session.stage(rows.select(**profiles.values_of(rows, model)))
    inputs = profile_of(session, rows, known, [name for name in known.bins if name in rows.columns])
    names = [name for name in known.bins if name not in inputs.windows[0].columns]
    outputs = profile_of(session, answers, known, names)
    columns = {**inputs.windows[0].columns, **outputs.windows[0].columns}
    return Counted(Profile(inputs.windows[0].rows, {name: columns[name] for name in known.bins}), inputs.unseen)


def profile_of(session: Session, rows: Any, known: Baseline, names: Sequence[str]) -> profiles.Profiled:
    """Rows of one window, over the bins of a reference."""
    bins = {name: known.bins[name] for name in names}
    grids = {name: one for name, one in bins.items() if one.kind == "number"}
    categories = [name for name, one in bins.items() if one.kind == "category"]
    kinds = {name: one.kind for name, one in bins.items()}
    return profiles.profiled(baseline.count(session, rows, grids, dict.fromkeys(categories), kinds), bins)


def served_rows(workspace: Workspace, name: str, model: ModelFile, seconds: tuple[float, float]) -> Any | None:
    """Served predictions of a time as Arrow batches: the contract's columns, `prediction`, `confidence` and `@version`; a few
    in memory at a time. None if there is none.

    Parameters
    ----------
    name : whose predictions. `model` : the model file of the version's time.
    """
    import pyarrow as pa

    blocks = (_block(model, found) for found in workspace.predictions.columns(name, READ, *seconds))
    first = next(blocks, None)
    if first is None:
        return None
    batches = (batch for block in chain([first], blocks) for batch in block.to_batches())
    return pa.RecordBatchReader.from_batches(first.schema, batches)


def _block(model: ModelFile, found: Mapping[str, Sequence[Any]]) -> Any:
    import pyarrow as pa
    import pyarrow.json

    kinds = {name: pa.string() if column.type == "category" else pa.float64() for name, column in model.columns.items()}
    lines = io.BytesIO("\n".join(found["record"]).encode())
    options = pyarrow.json.ParseOptions(explicit_schema=pa.schema(kinds), unexpected_field_behavior="ignore")
    table = pyarrow.json.read_json(lines, parse_options=options).combine_chunks()
    number = not model.classes
    answers = {
        PREDICTION: pa.array(map(float, found["prediction"]) if number else found["prediction"]),
        CONFIDENCE: pa.array(found["confidence"], pa.float64()),
        VERSION: pa.array(found["version"], pa.int64()),
    }
    for name, values in answers.items():
        if name not in kinds:
            table = table.append_column(name, values)
    return table


def source_rows(session: Session, source: Any, model: ModelFile, start: datetime, end: datetime) -> Any:
    """Rows of the source whose time lies in a window, cleaned, as an Ibis table of the contract's columns and `@key`."""
    contract = Contract.incoming(model, end)
    rows = contracts.cleaned(quality.complete(source, contract), contract, session.stage)
    return session.stage(quality.within(rows, start, end).select(contracts.KEY, *model.columns))


def rows_again(
    workspace: Workspace, model: ModelFile, trained_by: ModelFile, seen: Observation
) -> dict[str, NDArray[Any]] | None:
    """The rows that a look has seen, as `values` of the contract's columns; None if they are gone.

    Parameters
    ----------
    trained_by : the model file of the version's time.
    """
    found = _read_again(workspace, model, trained_by, seen)
    if found is None:
        return None
    return {name: values(found[name], column.type) for name, column in trained_by.columns.items()}


def _read_again(workspace: Workspace, model: ModelFile, trained_by: ModelFile, seen: Observation) -> Any | None:
    if seen.origin == "predictions":
        logged = served_rows(workspace, model.name, trained_by, (seen.start.timestamp(), seen.end.timestamp()))
        return None if logged is None else logged.read_all()
    if seen.origin == "nothing":
        return None
    with workspace.tables.session() as session:
        source, _ = _source(session, model)
        if source is None:
            return None
        rows = source_rows(session, source, trained_by, seen.start, seen.end)
        return session.arrow(rows.select(*trained_by.columns))


def _answers(session: Session, look: _Look, rows: Any) -> Any:
    """What the champion answers to rows of the source, or to a sample of them."""
    import pyarrow as pa

    total: int = session.row(rows.aggregate(n=rows.count()))["n"]
    if total > SCORED:
        rows = rows.filter(rows[contracts.KEY].hash().abs() % -(-total // SCORED) == 0)
    predictor = Predictor.load(look.workspace, look.made)
    model, found = look.trained_by, []
    for block in session.blocks(rows.select(*model.columns)):
        columns = {name: values(block[name], column.type) for name, column in model.columns.items()}
        answers = predictor.answer(columns)
        found.append(_answer_columns(model, answers))
    return session.load(pa.concat_tables(found))


def values(column: Any, kind: str) -> NDArray[Any]:
    """As an engine takes it: float64 with NaN, or objects with None, where missing."""
    import pyarrow as pa

    if kind == "category":
        return np.array(column.to_pylist(), dtype=object)
    if kind == "boolean":
        column = column.cast(pa.int8())
    found: NDArray[Any] = column.cast(pa.float64(), safe=False).to_numpy()
    return found


def _answer_columns(model: ModelFile, answers: NDArray[np.float64]) -> Any:
    import pyarrow as pa

    if not model.classes:
        return pa.table({PREDICTION: answers})
    labels = pa.array(metrics.labels(answers, model.classes), pa.string())
    return pa.table({PREDICTION: labels, CONFIDENCE: answers.max(axis=1)})


def _sentence(look: _Look, found: _Window) -> str:
    window = f"{look.start:%Y-%m-%d %H:%M} to {look.end:%Y-%m-%d %H:%M}"
    if found.origin == "predictions":
        return f"{found.profile.rows:,} served predictions, {window}"
    if found.origin == "source":
        return f"no served predictions; {found.profile.rows:,} rows of the source, {window}"
    reason = (
        "and the source has no rows of that time" if look.model.source.time else "and the source's rows have no time"
    )
    return f"nothing to look at, {window}: no served predictions, {reason}"
