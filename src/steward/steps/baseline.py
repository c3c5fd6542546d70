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
from steward.core import contracts, metrics, profiles
from steward.core.performance import Calibration
from steward.core.profiles import CONFIDENCE, PREDICTION, WINDOW, Baseline, Bins, Counted, Kind, Profile
from steward.io.tables import Session
from steward.io.workspace import Workspace
from steward.records import Challenger, Estimate, File, Reference, ReferenceProfile, Roles, Selection, Snapshot
from steward.steps.candidate import winner_predictions
from steward.steps.rows import learning_rows

DAY = timedelta(days=1)
MOST_WINDOWS = 366
FEW_ROWS = 20
"""Rows that a window has on average; shorter ones are joined."""


@dataclass(frozen=True)
class Known:
    """A version's reference profile, loaded."""

    reference: Reference
    record: ReferenceProfile
    baseline: Baseline
    calibration: Calibration | None
    """Of the positions of the confidence's bins."""

    def confidences(self, profile: Profile) -> NDArray[np.float64]:
        """Rows per bin of the calibration, from the profile's confidence."""
        counts = np.array(profile.columns[CONFIDENCE].counts, dtype=float)
        if self.calibration is None:
            return np.zeros(0)
        place = np.searchsorted(self.calibration.edges, np.arange(len(counts)), side="right")
        return np.bincount(place, counts, minlength=len(self.calibration.edges) + 1).astype(float)

    def estimate(self, profile: Profile) -> Estimate | None:
        """Accuracy to expect of rows with these confidences; None where there are none, and for a regression."""
        return self.calibration.estimate(self.confidences(profile)) if self.calibration else None


def known(workspace: Workspace, made: Challenger) -> Known:
    """The reference profile of a version, which is made when it is asked for first."""
    reference = workspace.remember(
        ReferenceProfile, [made.digest, made.roles.digest, made.selection.digest], lambda: _made(workspace, made)
    )
    record = workspace.load(ReferenceProfile, reference)
    document = json.loads(workspace.store.fetch(record.file).read_bytes())
    found = record.calibration
    calibration = Calibration(**{name: tuple(values) for name, values in found.items()}) if found else None
    return Known(reference, record, Baseline.read(document), calibration)


def _made(workspace: Workspace, made: Challenger) -> ReferenceProfile:
    model = ModelFile.model_validate(made.model_file)
    kinds = profiles.kinds_of(model)
    inputs = {name: kind for name, kind in kinds.items() if name in model.columns or name in model.features}
    rows, days = _learned(workspace, model, made)
    answered = _answered(workspace, model, made)
    with workspace.tables.session() as session:
        table = session.load(rows)
        table = session.stage(table.select(**profiles.values_of(table, model), **{WINDOW: table[WINDOW]}))
        bins, windows = profiled(session, table, inputs)
        others = {name: kind for name, kind in kinds.items() if name not in inputs}
        answer_bins, answers = profiled(session, session.load(answered.table), others)
    baseline = Baseline(bins | answer_bins, tuple(windows), answers[0] if answers else Profile.empty(answer_bins))
    return ReferenceProfile(
        model=model.name,
        challenger=made.digest,
        rows=rows.num_rows,
        windows=len(windows),
        days=days,
        file=put_json(workspace, baseline.as_json(), "reference-profile.json"),
        accuracy=_accuracy(model, answered),
        calibration=_calibration(answered, answer_bins.get(CONFIDENCE)),
    )


def _learned(workspace: Workspace, model: ModelFile, made: Challenger) -> tuple[Any, float | None]:
    """Train and validation rows as an Arrow table with the number of each row's window; the days of a window."""
    import pyarrow as pa
    import pyarrow.compute as pc

    roles = workspace.load(Roles, made.roles)
    snapshot = workspace.load(Snapshot, roles.snapshot)
    given = workspace.tables.stored(workspace.store.fetch(roles.file), ["role"])["role"]
    chosen = pc.is_in(given, value_set=pa.array(["train", "validation"], pa.string()))
    time = [contracts.TIME] if model.source.time else []
    data = workspace.tables.stored(workspace.store.fetch(snapshot.data), [*time, *model.columns]).filter(chosen)
    if not time:
        return data.append_column(WINDOW, pa.array(np.zeros(len(data), np.int32))), None
    windows, days = _windows(data[contracts.TIME].to_numpy())
    return data.drop_columns(time).append_column(WINDOW, pa.array(windows)), days


def _windows(times: NDArray[np.datetime64]) -> tuple[NDArray[np.int32], float | None]:
    """The number of each row's window: a day, or as many as make windows neither too many nor too small."""
    there = times[~np.isnat(times)]
    if not len(there):
        return np.zeros(len(times), np.int32), None
    age = (np.where(np.isnat(times), there.min(), times) - there.min()).astype("timedelta64[us]").astype(np.int64)
    span = int(age.max()) // (DAY // timedelta(microseconds=1)) + 1
    days = max(1, ceil(span / MOST_WINDOWS), ceil(FEW_ROWS * span / len(times)))
    return (age // (days * DAY // timedelta(microseconds=1))).astype(np.int32), float(days)


@dataclass(frozen=True)
class _Answered:
    """The winner's answers to the rows that chose it."""

    table: Any
    """Arrow table of `prediction`, `confidence` (classification) and the number of the window, which is 0."""
    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]


def _answered(workspace: Workspace, model: ModelFile, made: Challenger) -> _Answered:
    import pyarrow as pa

    found = winner_predictions(workspace, model, workspace.load(Selection, made.selection))
    rows = learning_rows(workspace, model, made.roles, ("train", "validation"))
    answers, folded = found or (np.zeros((0, len(model.classes)) if model.classes else 0), False)
    truth = (rows.truth if folded else rows.truth[rows.roles == "validation"])[: len(answers)]
    confidence, right = np.zeros(0), np.zeros(0, dtype=bool)
    columns: dict[str, Any] = {PREDICTION: answers}
    if model.classes:
        confidence, labels = answers.max(axis=1), metrics.labels(answers, model.classes)
        right = labels == truth
        columns = {PREDICTION: pa.array(labels, pa.string()), CONFIDENCE: confidence}
    kept = {name: values for name, values in columns.items() if name not in {*model.columns, *model.features}}
    return _Answered(pa.table({**kept, WINDOW: np.zeros(len(answers), np.int32)}), confidence, right)


def profiled(session: Session, table: Any, kinds: Mapping[str, Kind]) -> tuple[dict[str, Bins], list[Profile]]:
    """Bins from a first look, then the windows over them."""
    ranges = session.row(profiles.ranges(table, kinds))
    grids = {name: profiles.grid(ranges, name) for name, kind in kinds.items() if kind == "number"}
    categories = [name for name, kind in kinds.items() if kind == "category"]
    whole = table.drop(WINDOW) if WINDOW in table.columns else table
    first = count(session, whole, grids, dict.fromkeys(categories), kinds)
    bins = profiles.bins_of(first, grids, categories)
    told_apart = {name: bins[name].levels for name in categories}
    found = profiles.profiled(count(session, table, grids, told_apart, kinds), bins)
    return bins, list(found.windows.values())


def count(
    session: Session,
    table: Any,
    grids: Mapping[str, Bins],
    categories: Mapping[str, Sequence[str] | None],
    kinds: Mapping[str, Kind],
) -> Counted:
    """Let the engine count; see `profiles.extremes`, `profiles.cells` and `profiles.levels`."""
    extremes = session.rows(profiles.extremes(table, kinds))
    cells = profiles.cells(table, grids, extremes)
    levels = profiles.levels(table, categories)
    return Counted(
        extremes=extremes,
        cells=None if cells is None else session.arrow(cells),
        levels=None if levels is None else session.arrow(levels),
    )


def put_json(workspace: Workspace, document: Mapping[str, Any], name: str) -> File:
    """Keep a document as a file of the store."""
    with workspace.store.scratch() as folder:
        path = folder / name
        path.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False), encoding="utf-8")
        return workspace.store.put(path, name)


def _accuracy(model: ModelFile, answered: _Answered) -> Estimate | None:
    if not len(answered.right):
        return None
    return metrics.wilson(int(answered.right.sum()), len(answered.right), model.verify.confidence)


def _calibration(answered: _Answered, bins: Bins | None) -> dict[str, Any] | None:
    """Learned on the positions of the confidence's bins, which is all that a profile knows of it."""
    if bins is None or not len(answered.right):
        return None
    place = np.searchsorted(bins.bounds, answered.confidence, side="right").astype(float)
    return vars(Calibration.of(place, answered.right))
