"""What a version learned from, as a profile: made once per version, and what every later window is held against."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward.config import ModelFile
from steward.core import contracts, metrics, performance, profiles
from steward.core.performance import Calibration, ErrorCalibration
from steward.core.profiles import CONFIDENCE, PREDICTION, WINDOW, Baseline, Bins, Counted, Kind, Profile, Series, Span
from steward.core.splitting import Role
from steward.io.tables import Session
from steward.io.workspace import Workspace
from steward.records import (
    Challenger,
    Estimate,
    File,
    Reference,
    ReferenceProfile,
    Roles,
    Selection,
    Snapshot,
    Test,
    Verdict,
)
from steward.steps.candidate import winner_predictions
from steward.steps.opening import read_opened
from steward.steps.rows import learning_rows

LEARNED: tuple[Role, ...] = ("train", "validation")
DAY = timedelta(days=1)
HOURS = tuple(timedelta(hours=hours) for hours in (1, 2, 3, 4, 6, 8, 12))
"""Lengths of windows shorter than a day: parts of one, so that the same hours come again."""
MOST_WINDOWS = 366
"""Of a day and more; the whole past is cut into so many at most."""
MOST_HOURS = 672
"""Windows shorter than a day; of a longer past the newest ones."""
FEW_ROWS = 20
"""Rows that a window has on average; shorter ones are joined."""


@dataclass(frozen=True)
class Known:
    """A version's reference profile, loaded."""

    reference: Reference
    record: ReferenceProfile
    baseline: Baseline
    calibration: Calibration | ErrorCalibration | None
    """Of the positions of the bins: the confidence's, or those of a regression's prediction."""

    def expected_loss(self, windows: Sequence[Profile]) -> Estimate | None:
        """What the answers in some windows say that is lost against the reference's: of the accuracy, or by which share the
        error of a regression grows. None where nothing is known of the answers.
        """
        if self.calibration is None or not windows:
            return None
        name = CONFIDENCE if isinstance(self.calibration, Calibration) else PREDICTION
        edges = self.calibration.edges

        def per_bin(series: Series) -> NDArray[np.float64]:
            counts = series.counts.sum(axis=0)
            place = np.searchsorted(edges, np.arange(len(counts)), side="right")
            return np.bincount(place, counts, minlength=len(edges) + 1).astype(float)

        known, recent = (self.baseline.series_of(name, one) for one in (self.baseline.windows, windows))
        if not len(known) or not len(recent):
            return None
        return performance.expected_loss(self.calibration, per_bin(known), per_bin(recent))


def known(workspace: Workspace, made: Challenger) -> Known:
    """The reference profile of a version, which is made when it is asked for first."""
    verdict = workspace.ledger.find(made.model, Verdict.kind, made.digest)
    test = Test.model_validate(verdict.body["test"]) if verdict else None
    inputs = [
        made.digest,
        made.roles.digest,
        made.selection.digest,
        test and test.predictions and test.predictions.sha256,
    ]
    reference = workspace.remember(ReferenceProfile, inputs, lambda: _made(workspace, made, test))
    record = workspace.load(ReferenceProfile, reference)
    document = json.loads(workspace.store.fetch(record.file).read_bytes())
    return Known(reference, record, Baseline.read(document), _read_calibration(record.calibration))


def _read_calibration(document: Mapping[str, Any] | None) -> Calibration | ErrorCalibration | None:
    if document is None:
        return None
    fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in document.items()}
    return ErrorCalibration(**fields) if "metric" in fields else Calibration(**fields)


def _made(workspace: Workspace, made: Challenger, test: Test | None) -> ReferenceProfile:
    model = ModelFile.model_validate(made.model_file)
    kinds = profiles.kinds_of(model)
    inputs = {name: kind for name, kind in kinds.items() if name in model.columns or name in model.features}
    times = _times(workspace, model, made, *LEARNED)
    cut = _cut(times, model.monitor.looks_per_year)
    rows = _learned(workspace, model, made).append_column(WINDOW, cut.as_column)
    answered = _answered(workspace, model, made, cut)
    served = _served(workspace, model, made, test, cut) if test else answered
    judged = served if len(served.truth) >= len(answered.truth) / 2 else answered
    with workspace.tables.session() as session:
        table = session.load(rows.filter(cut.kept))
        table = session.stage(table.select(**profiles.values_of(table, model), **{WINDOW: table[WINDOW]}))
        bins, windows = profiled(session, table, inputs)
        others = {name: kind for name, kind in kinds.items() if name not in inputs}
        answer_bins, answers = profiled(session, session.load(served.table), others)
    unanswered = Profile.empty(answer_bins)
    joined = [
        Profile(one.rows, one.columns | answers.get(number, unanswered).columns) for number, one in windows.items()
    ]
    baseline = Baseline(bins | answer_bins, tuple(joined), tuple(cut.span(number) for number in windows if cut.days))
    return ReferenceProfile(
        model=model.name,
        challenger=made.digest,
        rows=int(cut.kept.sum()),
        windows=len(joined),
        days=cut.days,
        file=put_json(workspace, baseline.as_json(), "reference-profile.json"),
        accuracy=_accuracy(model, judged),
        calibration=_calibration(model, judged, answer_bins),
    )


def _given(workspace: Workspace, made: Challenger, *roles_of_rows: Role) -> tuple[Snapshot, Any]:
    """The snapshot, and which of its rows have one of these roles."""
    import pyarrow as pa
    import pyarrow.compute as pc

    roles = workspace.load(Roles, made.roles)
    given = workspace.tables.stored(workspace.store.fetch(roles.file), ["role"])["role"]
    chosen = pc.is_in(given, value_set=pa.array(roles_of_rows, pa.string()))
    return workspace.load(Snapshot, roles.snapshot), chosen


def _learned(workspace: Workspace, model: ModelFile, made: Challenger) -> Any:
    """Train and validation rows as an Arrow table of the contract's columns."""
    snapshot, chosen = _given(workspace, made, *LEARNED)
    return workspace.tables.stored(workspace.store.fetch(snapshot.data), list(model.columns)).filter(chosen)


def _times(workspace: Workspace, model: ModelFile, made: Challenger, *roles_of_rows: Role) -> NDArray[np.datetime64]:
    """When the rows with these roles happened; NaT where that is not known."""
    snapshot, chosen = _given(workspace, made, *roles_of_rows)
    if not model.source.time:
        return np.full(int(chosen.combine_chunks().true_count), "NaT", "datetime64[us]")
    found = workspace.tables.stored(workspace.store.fetch(snapshot.data), [contracts.TIME])[contracts.TIME]
    times: NDArray[np.datetime64] = found.filter(chosen).to_numpy().astype("datetime64[us]")
    return times


@dataclass(frozen=True)
class _Cut:
    """Which window each row is in: whole numbers from 0, and below 0 where a row is too old to be in any."""

    window: NDArray[np.int32]
    days: float | None = None
    """Length of a window; None where rows have no time."""
    first: float = 0.0
    """When window 0 begins, seconds since 1970."""

    @property
    def kept(self) -> NDArray[np.bool_]:
        return self.window >= 0

    @property
    def as_column(self) -> Any:
        import pyarrow as pa

        return pa.array(self.window)

    def of(self, times: NDArray[np.datetime64]) -> NDArray[np.int32]:
        """The windows of other rows, the nearest one where they are outside of all."""
        if self.days is None:
            return np.zeros(len(times), np.int32)
        seconds = (
            np.where(np.isnat(times), np.datetime64(int(self.first), "s"), times).astype("datetime64[us]").astype(float)
        )
        numbers = (seconds / 1e6 - self.first) // (self.days * DAY.total_seconds())
        found: NDArray[np.int32] = np.clip(numbers, 0, self.window.max()).astype(np.int32)
        return found

    def span(self, number: int) -> Span:
        length = (self.days or 0.0) * DAY.total_seconds()
        return self.first + number * length, self.first + (number + 1) * length


def _cut(times: NDArray[np.datetime64], looks_per_year: float) -> _Cut:
    """Cut the past into windows as long as the time between two looks, if that is a day or less: else into days, or as
    many days as make windows neither too many nor too small. They begin at midnight and at full hours, UTC.
    """
    there = times[~np.isnat(times)]
    if not len(there):
        return _Cut(np.zeros(len(times), np.int32))
    first, last = there.min(), there.max()
    if timedelta(days=365.25) / looks_per_year <= HOURS[-1]:
        for length in HOURS:
            begin = max(first, last - np.timedelta64((MOST_HOURS - 1) * length))
            rows = len(there[there >= begin]) / max(1.0, float((last - begin) / np.timedelta64(length)))
            if timedelta(days=365) / looks_per_year <= length and rows >= FEW_ROWS:
                return _numbered(times, length, begin)
    span = (last - first) // np.timedelta64(DAY) + 1
    days = max(1, ceil(span / MOST_WINDOWS), ceil(FEW_ROWS * span / len(times)))
    return _numbered(times, days * DAY, first)


def _numbered(times: NDArray[np.datetime64], length: timedelta, first: np.datetime64) -> _Cut:
    """Rows without a time are in the first window."""
    steps = np.where(np.isnat(times), first, times).astype("datetime64[us]").astype(np.int64)
    numbers = steps // (length // timedelta(microseconds=1))
    start = int(first.astype("datetime64[us]").astype(np.int64)) // (length // timedelta(microseconds=1))
    return _Cut((numbers - start).astype(np.int32), length / DAY, start * length.total_seconds())


@dataclass(frozen=True)
class _Answered:
    """Answers to rows with known truth that taught them nothing."""

    table: Any
    """As of `_as_table`."""
    answers: NDArray[np.float64]
    """Confidences of a classification, else predictions."""
    truth: NDArray[Any]
    """Whether the answer was right, or the right number."""


def _answered(workspace: Workspace, model: ModelFile, made: Challenger, cut: _Cut) -> _Answered:
    found = winner_predictions(workspace, model, workspace.load(Selection, made.selection))
    trained = ModelFile.model_validate(made.model_file)
    rows = learning_rows(workspace, trained, made.roles, LEARNED)
    answers, folded = found or (np.zeros((0, len(model.classes)) if model.classes else 0), False)
    chosen = rows.choosing(trained, folded=folded)[: len(answers)]
    return _judged(model, answers, rows.truth[chosen], cut.window[chosen])


def _served(workspace: Workspace, model: ModelFile, made: Challenger, test: Test, cut: _Cut) -> _Answered:
    """The version's own answers to the rows that verified it.

    The winner has learned from fewer rows than the version, so that its confidences are others: they would look like drift.
    """
    opened = read_opened(workspace, model, test)
    return _judged(model, opened.challenger, opened.truth, cut.of(_times(workspace, model, made, "test")))


def _judged(
    model: ModelFile, answers: NDArray[np.float64], truth: NDArray[Any], window: NDArray[np.int32]
) -> _Answered:
    table = _as_table(model, answers, window)
    if model.classes:
        truth, answers = metrics.labels(answers, model.classes) == truth, answers.max(axis=1)
    return _Answered(table, answers, truth)


def _as_table(model: ModelFile, answers: NDArray[np.float64], window: NDArray[np.int32]) -> Any:
    """Arrow table of `prediction`, `confidence` (classification) and the number of the window."""
    import pyarrow as pa

    columns: dict[str, Any] = {PREDICTION: answers}
    if model.classes:
        labels = pa.array(metrics.labels(answers, model.classes), pa.string())
        columns = {PREDICTION: labels, CONFIDENCE: answers.max(axis=1)}
    kept = {name: values for name, values in columns.items() if name not in {*model.columns, *model.features}}
    return pa.table({**kept, WINDOW: window}).filter(window >= 0)


def profiled(session: Session, table: Any, kinds: Mapping[str, Kind]) -> tuple[dict[str, Bins], dict[int, Profile]]:
    """Bins from a first look, then the windows over them, by their numbers."""
    ranges = session.row(profiles.ranges(table, kinds))
    grids = {name: profiles.grid(ranges, name) for name, kind in kinds.items() if kind == "number"}
    categories = [name for name, kind in kinds.items() if kind == "category"]
    whole = table.drop(WINDOW) if WINDOW in table.columns else table
    first = count(session, whole, grids, dict.fromkeys(categories), kinds)
    bins = profiles.bins_of(first, grids, categories)
    told_apart = {name: bins[name].levels for name in categories}
    found = profiles.profiled(count(session, table, grids, told_apart, kinds), bins)
    return bins, found.windows


def count(
    session: Session,
    table: Any,
    grids: Mapping[str, Bins],
    categories: Mapping[str, Sequence[str] | None],
    kinds: Mapping[str, Kind],
) -> Counted:
    """Let the engine count.

    Parameters
    ----------
    categories : with the values that are told apart even where the rows are very many; see `profiles.levels`.
    """
    found = session.rows(profiles.extremes(table, kinds))
    if kinds and sum(row["rows"] for row in found) <= profiles.MOST_IN_MEMORY:
        return Counted.of_histograms(found, session.arrow(profiles.histograms(table, grids, categories, found)))
    tables = [(grids, profiles.cells(table, grids, found)), (categories, profiles.levels(table, categories))]
    return Counted.of_groups(
        found,
        session.rows(profiles.present(table, categories)) if categories else (),
        [(names, session.arrow(query)) for names, query in tables if query is not None],
    )


def put_json(workspace: Workspace, document: Mapping[str, Any], name: str) -> File:
    """Keep a document as a file of the store."""
    with workspace.store.scratch() as folder:
        path = folder / name
        path.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False), encoding="utf-8")
        return workspace.store.put(path, name)


def _accuracy(model: ModelFile, answered: _Answered) -> Estimate | None:
    if not model.classes or not len(answered.truth):
        return None
    return metrics.wilson(int(answered.truth.sum()), len(answered.truth), model.verify.confidence)


def _calibration(model: ModelFile, answered: _Answered, bins: Mapping[str, Bins]) -> dict[str, Any] | None:
    """Learned on the positions of the bins, which is all that a profile knows of the answers."""
    one = bins.get(CONFIDENCE if model.classes else PREDICTION)
    if one is None or not len(answered.truth):
        return None
    place = np.searchsorted(one.bounds, answered.answers, side="right").astype(float)
    if model.classes:
        return vars(Calibration.of(place, answered.truth))
    return vars(
        ErrorCalibration.of("mae" if model.metric == "mae" else "rmse", answered.answers, answered.truth, place)
    )
