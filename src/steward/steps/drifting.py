"""The detect_drift step: have inputs or answers moved away from what the champion learned from?"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from statistics import median
from typing import Any

import pandas as pd

from steward.config import ModelFile
from steward.core import drift
from steward.core.drift import Detector, Finding, Report
from steward.core.profiles import Profile, Series, Span
from steward.core.retraining import Trigger
from steward.errors import LedgerConflict
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.prediction import trained
from steward.records import Challenger, Drift, DriftFinding, Estimate, File, Observation, Reference, Separation
from steward.steps import baseline, observation
from steward.steps.rows import learning_rows
from steward.steps.training import training_seed

KIND = Drift.kind
DAYS_OF_YEAR = 365
ROWS_AT_HAND = 50_000
"""More rows are not read again for a classifier."""
TOLD_APART_CONFIDENCE = 0.999
"""Of the classifier's AUC, which is looked at every time."""


def detect_drift(workspace: Workspace, model: ModelFile, observation: Reference) -> Reference:
    """Hold the looks at this version so far, up to this one, against the rows that it learned from.

    Returns
    -------
    Reference to a `Drift`. What raised an alarm stands in the ledger too, so that later looks know since when it lasts.
    """
    seen = workspace.load(Observation, observation)
    inputs = [model.monitor.model_dump(mode="json"), observation.digest]
    reference = workspace.remember(Drift, inputs, lambda: _drift(workspace, model, observation, seen))
    found = workspace.load(Drift, reference)
    alarms = sorted({finding.column for finding in found.findings if finding.alarm})
    if alarms:
        body = {
            "version": found.version,
            "alarms": alarms,
            "since": {name: found.since[name].isoformat() for name in alarms},
            "says": list(found.says),
            "record": reference.as_json(),
        }
        try:
            workspace.ledger.append(model.name, KIND, seen.start.isoformat(), body, seen.end)
        except LedgerConflict:
            entry = workspace.ledger.find(model.name, KIND, seen.start.isoformat())
            return Reference.model_validate(entry.body["record"]) if entry else reference
    return reference


@dataclass(frozen=True)
class _Window:
    """One look at the version."""

    start: str
    end: str
    profile: Profile

    @property
    def span(self) -> Span:
        return datetime.fromisoformat(self.start).timestamp(), datetime.fromisoformat(self.end).timestamp()


@dataclass(frozen=True)
class _History:
    """The looks at one version, oldest first, the last one is in question; and what they raised."""

    windows: tuple[_Window, ...]
    alarms: Mapping[str, frozenset[str]]
    """Column → beginnings of the windows in which it raised an alarm."""
    lasting: Mapping[str, str]
    """Column → since when, of the alarms that had not ended before this look."""
    per_year: float

    def of(self, column: str) -> list[_Window]:
        """The windows that say something of a column."""
        return [window for window in self.windows if window.profile.columns[column].rows]


def _history(workspace: Workspace, model: ModelFile, seen: Observation) -> _History:
    entries = workspace.ledger.entries(model.name, Observation.kind)
    before = [entry for entry in entries if _comparable(entry, seen) and _start(entry) < seen.start]
    before = before[-(drift.RECENT + drift.MOST_CALM) :]
    windows = [
        _Window(entry.body["start"], entry.body["end"], _profile(workspace, entry.body["profile"])) for entry in before
    ]
    windows.append(_Window(seen.start.isoformat(), seen.end.isoformat(), _profile(workspace, seen.profile.as_json())))
    raised = {entry.subject: entry for entry in workspace.ledger.entries(model.name, KIND)}
    mine = [raised[window.start] for window in windows[:-1] if window.start in raised]
    newest = {window.start for window in windows[-1 - drift.EPISODE : -1]}
    return _History(
        windows=tuple(windows),
        alarms=_alarms(mine),
        lasting=_lasting([entry for entry in mine if entry.subject in newest]),
        per_year=_per_year(windows, first=bool(entries) and entries[0].body["start"] == windows[0].start),
    )


def _start(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry.body["start"])


def _comparable(entry: Entry, seen: Observation) -> bool:
    """A look at the same version, over the same bins."""
    return bool(entry.body["version"] == seen.version and entry.body["bins"] == seen.bins)


def _profile(workspace: Workspace, file: Mapping[str, Any]) -> Profile:
    return Profile.read(json.loads(workspace.store.fetch(File.model_validate(file)).read_bytes()))


def _alarms(entries: Iterable[Entry]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for entry in entries:
        for column in entry.body["alarms"]:
            found[column] = found.get(column, frozenset()) | {entry.subject}
    return found


def _lasting(entries: Iterable[Entry]) -> dict[str, str]:
    """The later entry knows the beginning from the one before."""
    return reduce(lambda found, entry: {**found, **entry.body["since"]}, entries, {})


def _per_year(windows: Sequence[_Window], *, first: bool) -> float:
    """Looks in a year at the pace of the newest ones; the first look at a model goes further back than later ones."""
    paced = windows[1:] if first else windows
    times = [(datetime.fromisoformat(one.start), datetime.fromisoformat(one.end)) for one in paced[-drift.RECENT :]]
    days = [(end - start) / timedelta(days=1) for start, end in times]
    return DAYS_OF_YEAR / median(days) if days else DAYS_OF_YEAR


def _drift(workspace: Workspace, model: ModelFile, reference: Reference, seen: Observation) -> Drift:
    _, made = trained(workspace, model.name, seen.version)
    known, history = baseline.known(workspace, made), _history(workspace, model, seen)
    report = _examined(model, known, history)
    findings = tuple(_finding(one, history) for one in report.findings)
    alarms = {one.column: one.since for one in reversed(findings) if one.alarm}
    since = alarms | {name: datetime.fromisoformat(day) for name, day in history.lasting.items()}
    in_question = max((one.windows for one in report.alarms), default=1)
    loss = known.expected_loss([window.profile for window in history.windows if window.profile.rows][-in_question:])
    separation = _separation(workspace, model, made, seen)
    return Drift(
        model=model.name,
        observation=reference,
        version=seen.version,
        level=report.level,
        windows=sum(window.profile.rows > 0 for window in history.windows),
        findings=findings,
        since=since,
        separation=separation,
        expected_loss=loss,
        says=(*(one.says for one in findings), *_says(separation, loss if alarms else None, model)),
        triggers=(_trigger(seen, findings, since, loss).as_json(),) if alarms else (),
    )


def _examined(model: ModelFile, known: baseline.Known, history: _History) -> Report:
    """Columns that reference and window both know something of."""
    columns = {name: history.of(name) for name in known.baseline.bins}
    reference = {name: one for name, one in known.baseline.series.items() if len(one)}
    newest = history.windows[-1]
    names = [name for name, found in columns.items() if name in reference and found and found[-1] is newest]
    budget = drift.SHARE_OF_ALARMS * model.monitor.false_alarms_per_year
    level = drift.level_of(budget, history.per_year, max(1, len(names)))
    if not names:
        return Report((), {}, level)
    recent, calm = {}, {}
    for name in names:
        windows = {window.start: window for window in columns[name]}
        chosen = drift.calm_windows(list(windows), history.alarms.get(name, ()))
        recent[name] = _series(known, name, columns[name][-drift.RECENT :])
        if chosen:
            calm[name] = _series(known, name, [windows[start] for start in chosen])
    return Detector({name: reference[name] for name in names}, calm).examine(recent, level=level)


def _series(known: baseline.Known, name: str, windows: Sequence[_Window]) -> Series:
    return known.baseline.series_of(name, [one.profile for one in windows], [one.span for one in windows])


def drift_of_batch(workspace: Workspace, model: ModelFile, made: Challenger, profile: Profile) -> Report:
    """A batch as the only window: held against the rows that a version learned from, as a look is.

    Parameters
    ----------
    made : the version, whose reference profile's bins the profile is over.

    Raises
    ------
    StewardError : the rows that the version learned from are gone.
    """
    reference = {name: one for name, one in baseline.known(workspace, made).baseline.series.items() if len(one)}
    recent = {name: Series.of(reference[name].kind, [profile.columns[name]]) for name in reference}
    recent = {name: one for name, one in recent.items() if one.rows.any()}
    budget = drift.SHARE_OF_ALARMS * model.monitor.false_alarms_per_year
    level = drift.level_of(budget, model.monitor.looks_per_year, len(recent))
    return Detector({name: reference[name] for name in recent}).examine(recent, level=level)


def _finding(found: Finding, history: _History) -> DriftFinding:
    """With since when: the beginning of the windows that show it best, or that of the alarm that lasts."""
    first = history.of(found.column)[-found.windows].start
    since = datetime.fromisoformat(history.lasting.get(found.column, first) if found.alarm else first)
    return DriftFinding.model_validate(
        {**found.as_json(), "since": since, "says": drift.sentence(found, f"{since:%Y-%m-%d %H:%M}")}
    )


def _separation(workspace: Workspace, model: ModelFile, made: Challenger, seen: Observation) -> Separation | None:
    """By a classifier, where the rows of the window are few enough to be read again."""
    if not workspace.explains or not drift.FEWEST_TOLD_APART <= seen.rows <= ROWS_AT_HAND:
        return None
    trained_by = ModelFile.model_validate(made.model_file)
    window = observation.rows_again(workspace, model, trained_by, seen)
    if window is None:
        return None
    learned = learning_rows(workspace, trained_by, made.roles, ("train", "validation")).frame
    return drift.tell_apart(
        learned,
        pd.DataFrame(window),
        seed=training_seed(trained_by, made.fingerprint),
        confidence=TOLD_APART_CONFIDENCE,
    )


def _says(separation: Separation | None, loss: Estimate | None, model: ModelFile) -> Iterable[str]:
    if separation is not None and separation.auc.low > 0.5:  # noqa: PLR2004 - a coin's
        auc, columns = separation.auc, ", ".join(separation.columns) or "no single column"
        yield f"a classifier tells these rows from the reference with AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}), by {columns}"
    if loss is not None:
        value, low, high = (f"{100 * one:.1f}" for one in (loss.value, loss.low, loss.high))
        by, cost = ("confidence", "points of accuracy") if model.classes else ("predictions", "% of its error")
        yield (
            f"by the champion's own {by} this costs {value} {cost} ({low} to {high}): "
            "an estimate, which cannot see concept drift"
        )


def _trigger(
    seen: Observation, findings: Sequence[DriftFinding], since: Mapping[str, datetime], loss: Estimate | None
) -> Trigger:
    """One cause as long as it lasts: columns in alarm so far, and since when."""
    columns, first = ",".join(sorted(since)), min(since.values())
    strongest = next(one for one in findings if one.alarm)
    return Trigger(
        kind="data_drift",
        cause=f"data_drift:{seen.version}:{columns}:{first.isoformat()}",
        reason=strongest.says,
        at=seen.end,
        evidence={
            "columns": sorted(since),
            "since": first.isoformat(),
            "findings": [one.as_json() for one in findings if one.alarm],
        },
        loss=loss.value if loss else None,
        loss_low=loss.low if loss else None,
    )
