"""The accuracy step: how right the champion is, as far as it is known, and what that asks for."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from steward.config import ModelFile
from steward.core import metrics, performance, verification
from steward.core.performance import Fall, Watch
from steward.core.retraining import Kind, Trigger
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.records import (
    Accuracy,
    DirectQuestion,
    Estimate,
    Observation,
    Promotion,
    Reference,
    Roles,
    Shadow,
    Slice,
    Verdict,
    figure,
)
from steward.steps.labelled import Champion, Found, Judged, find_labelled
from steward.steps.looks import FEWEST_ROWS, keep_units, looks, unread
from steward.steps.opening import Contestant, read_opened
from steward.steps.promotion import enthrone
from steward.steps.question import ask
from steward.steps.rows import trained_on

SHARE_OF_ALARMS = 0.25
"""Of `monitor.false_alarms_per_year`: one such share for falls, one for the watch; the rest belongs to drift."""
LARGE_ERROR = 0.8
"""Regression: an answer counts as wrong if it is further off than this share of the verified ones."""

Mask = NDArray[np.bool_]


def measure_accuracy(workspace: Workspace, model: ModelFile, observation: Reference, *, at: datetime) -> Reference:
    """Measure the champion on labelled rows whose time has come, and go back to the version before it if that was better.

    No sealed row is looked at. What was watched before is found through the last decision about the same version.

    Parameters
    ----------
    at : outcomes that arrived later are left out.

    Returns
    -------
    Reference to an `Accuracy`.
    """
    asked = model.model_dump(mode="json", exclude={"retrain", "notify"})
    inputs = [observation.digest, asked, model.retrain.new_rows]
    return workspace.remember(Accuracy, inputs, lambda: _measured(workspace, model, observation, at))


@dataclass(frozen=True)
class _Verified:
    """What the champion's opening showed, as live rows are measured."""

    opened: verification.Opened
    classes: tuple[str, ...]
    verdict: Verdict

    @property
    def confidence(self) -> NDArray[np.float64]:
        return np.asarray(self.opened.challenger.max(axis=1), dtype=float)

    @property
    def large_error(self) -> float:
        return float(np.quantile(np.abs(self.opened.challenger - self.opened.truth), LARGE_ERROR))

    def wrong(self, truth: NDArray[Any], answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 where an answer is wrong, shape (n,)."""
        if self.classes:
            return np.asarray(metrics.labels(answers, self.classes) != truth, dtype=float)
        return np.asarray(np.abs(answers - truth) > self.large_error, dtype=float)


def _measured(workspace: Workspace, model: ModelFile, reference: Reference, at: datetime) -> Accuracy:
    observed = workspace.load(Observation, reference)
    champion = Champion.of(workspace, model, observed.version)
    trained, verdict = champion.predictor.model, champion.verdict(workspace)
    verified = _Verified(read_opened(workspace, trained, verdict.test), trained.classes, verdict)
    before = _before(workspace, model, observed)
    found = find_labelled(workspace, model, champion, at=at, read_until=before.read_until if before else {})
    rows = found.rows
    new = unread(workspace, rows, before.read_until if before else {}, before.read_rows if before else None)
    window, start, end = _window(model, rows)
    watch = _watched(workspace, model, before, verified, rows[new])
    live = _live(model, rows[window], verified, watch)
    made = Accuracy(
        model=model.name,
        observation=reference,
        version=champion.number,
        at=at,
        metric=live.metric if live else model.metric,
        start=start,
        end=end,
        rows=int(window.sum()),
        served=int((window & rows.served).sum()),
        waiting=workspace.predictions.count(model.name, found.ripe_until["served"], at.timestamp()),
        left_out=found.left_out,
        live=live.reported if live else None,
        floor=live.floor if live else None,
        verified=live.verified if live else None,
        **_estimated(workspace, model, champion, verified, observed, rows[new]),
        slices=(slices := _slices(model, rows[window])),
        moved=_moved(slices, verdict),
        **_judged(rows[window], verified),
        ripe_after=found.ripe_after,
        watch=watch.as_json(),
        read_until=dict(found.ripe_until),
        read=int(new.sum()),
        read_rows=keep_units(workspace, rows) or (before.read_rows if before else None),
        alarm_since=((before.alarm_since if before else None) or observed.end) if watch.alarm else None,
        new_rows=found.new_rows,
        sealed=found.sealed,
    )
    against = live.fall if live else None
    fallen_since = _fallen_since(before, made, against, observed.end)
    news = made.alarm_since is not None and (before is None or before.alarm_since is None)
    question = ask(workspace, model, champion, found, before.question if before else None, anew=news, at=at)
    shadow = _shadow(workspace, model, champion, rows, at)
    made = made.model_copy(update={"fallen_since": fallen_since, "question": question, "shadow": shadow})
    triggers = tuple(_triggers(workspace, model, champion, made, against, at))
    said = tuple(_says(model, made, against, found))
    return made.model_copy(update={"triggers": tuple(one.as_json() for one in triggers), "says": said})


def _before(workspace: Workspace, model: ModelFile, observed: Observation) -> Accuracy | None:
    """The last look at the same version that led to a decision."""
    mine = looks(workspace, model.name, observed.version)
    return next((found for entry, found in mine if datetime.fromisoformat(entry.subject) < observed.end), None)


def _window(model: ModelFile, rows: Judged) -> tuple[Mask, datetime | None, datetime | None]:
    """The newest `monitor.window` of the rows; those without a time belong to every window."""
    undated = np.isnan(rows.times)
    if undated.all():
        return undated, None, None
    end = float(np.nanmax(rows.times))
    start = end - model.monitor.window.total_seconds()
    return undated | (rows.times > start), datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)


@dataclass(frozen=True)
class _Live:
    """A metric on live rows, and what it is held against."""

    metric: str
    reported: Estimate
    floor: float | None
    verified: Estimate
    fall: Fall | None


def _live(model: ModelFile, rows: Judged, verified: _Verified, watch: Watch) -> _Live | None:
    """The model's metric; where weights speak, one that is a mean over rows. None without rows.

    A fall has to be sure although windows differ from each other by more than samples do, as far as the watch has seen.
    """
    if not len(rows):
        return None
    weighs = bool((rows.weights != 1).any())
    metric = model.metric if not weighs else "accuracy" if model.classes else "mae"
    confidence = model.verify.confidence
    sure = performance.sure_of_a_fall(
        SHARE_OF_ALARMS * model.monitor.false_alarms_per_year, model.monitor.looks_per_year
    )
    known = metrics.interval(
        metric, verified.opened.truth, verified.opened.challenger, verified.classes, confidence=confidence, seed=0
    )
    floor = _floor(model, metric)
    enough = performance.effective(rows.weights) >= FEWEST_ROWS
    doubted = _interval(metric, rows, model.classes, max(sure, confidence)) if enough else None
    wide = performance.widened(doubted, watch.dispersion) if doubted else None
    fall = performance.fallen(wide, floor=floor, verified=known, metric=metric) if wide else None
    return _Live(metric, _interval(metric, rows, model.classes, confidence), floor, known, fall)


def _floor(model: ModelFile, metric: str) -> float | None:
    """`monitor.accuracy.floor` speaks of the model's own metric; without it a version keeps what it had to prove."""
    if metric == model.metric and model.monitor.accuracy.floor is not None:
        return model.monitor.accuracy.floor
    return model.verify.floor.get(metric)


def _interval(metric: str, rows: Judged, classes: tuple[str, ...], confidence: float) -> Estimate:
    if (rows.weights == 1).all():
        return metrics.interval(metric, rows.truth, rows.answers, classes, confidence=confidence, seed=0)
    values = metrics.labels(rows.answers, classes) == rows.truth if classes else np.abs(rows.answers - rows.truth)
    return performance.weighted(np.asarray(values, dtype=float), rows.weights, confidence=confidence)


def _watched(
    workspace: Workspace, model: ModelFile, before: Accuracy | None, verified: _Verified, fresh: Judged
) -> Watch:
    """The watch after the rows that it has not read yet; how much windows differ was learned under versions before, too."""
    if before:
        watch = Watch.read(before.watch)
    else:
        errors = verified.wrong(verified.opened.truth, verified.opened.challenger)
        patience = model.monitor.looks_per_year / (SHARE_OF_ALARMS * model.monitor.false_alarms_per_year)
        watch = Watch.of(errors=int(errors.sum()), rows=len(errors), patience=patience, steps=_steps(workspace, model))
    count = performance.effective(fresh.weights)
    if not count:
        return watch
    rate = float(np.average(verified.wrong(fresh.truth, fresh.answers), weights=fresh.weights))
    return watch.after(errors=rate * count, rows=count)


def _steps(workspace: Workspace, model: ModelFile) -> tuple[float, ...]:
    """What the last look, at whatever version, knew of how much windows differ."""
    return next((Watch.read(found.watch).steps for _, found in looks(workspace, model.name)), ())


def _estimated(
    workspace: Workspace, model: ModelFile, champion: Champion, verified: _Verified, observed: Observation, new: Judged
) -> dict[str, Any]:
    """The estimate before labels, of what was served in the look, or else of the rows that are new."""
    since, until = observed.start.timestamp(), observed.end.timestamp()
    said = "confidence" if verified.classes else "prediction"
    logged = [
        answer
        for block in workspace.predictions.columns(model.name, ("version", said), since, until)
        for version, answer in zip(block["version"], block[said], strict=True)
        if version == champion.number
    ]
    answers = np.array(logged, dtype=float) if logged else new.answers.max(axis=1) if verified.classes else new.answers
    level = model.verify.confidence
    if verified.classes:
        right = 1 - verified.wrong(verified.opened.truth, verified.opened.challenger)
        calibration = performance.Calibration.of(verified.confidence, right.astype(bool))
        return {
            "estimate": calibration.estimate(calibration.count(answers), confidence=level),
            "estimate_metric": "accuracy",
        }
    metric: Literal["rmse", "mae"] = "mae" if model.metric == "mae" else "rmse"
    errors = performance.ErrorCalibration.of(metric, verified.opened.challenger, verified.opened.truth)
    return {"estimate": errors.estimate(answers, confidence=level), "estimate_metric": metric}


def _slices(model: ModelFile, rows: Judged) -> tuple[Slice, ...]:
    if not len(rows):
        return ()
    frame = rows.columns.frame(model.verify.slices)
    columns = {name: frame[name].to_numpy() for name in model.verify.slices}
    how: dict[str, Any] = {"confidence": model.verify.confidence, "seed": 0}
    found = verification.slices(model.metric, columns, rows.truth, rows.answers, None, model.classes, **how)
    return tuple(
        one.model_copy(update={"finding": "too few rows" if one.challenger is None else "measured"}) for one in found
    )


def _moved(slices: tuple[Slice, ...], verdict: Verdict) -> tuple[str, ...]:
    """Slices whose interval lies below what was verified of the same slice, the worst first."""
    known = {(one.column, one.value): one.challenger for one in verdict.slices}
    found = []
    for one in slices:
        was = known.get((one.column, one.value))
        fall = (
            was
            and one.challenger
            and performance.fallen(one.challenger, floor=None, verified=was, metric=verdict.test.metric)
        )
        if fall:
            told = figure(fall.live.value), figure(fall.reference)
            shown = f"{one.column} = {one.value}: {told[0]} on {one.rows:,} rows, verified {told[1]}"
            found.append((fall.loss.value, shown))
    return tuple(shown for _, shown in sorted(found, reverse=True))


def _judged(rows: Judged, verified: _Verified) -> dict[str, Any]:
    """Confusion and calibration of a classification, of live rows and of those that it was verified on."""
    classes, opened = verified.classes, verified.opened
    if not classes:
        return {}
    return {
        "confusion": metrics.confusion(rows.truth, rows.answers, classes) if len(rows) else (),
        "calibration": performance.reliability(rows.answers, rows.truth, classes),
        "verified_calibration": performance.reliability(opened.challenger, opened.truth, classes),
    }


def _fallen_since(before: Accuracy | None, made: Accuracy, fall: Fall | None, end: datetime) -> datetime | None:
    """A fall begins when it is sure and ends when the value itself is back."""
    since = before.fallen_since if before else None
    if fall:
        return since or end
    if since is None or made.live is None or made.verified is None:
        return since
    levels = [made.verified.low if metrics.larger_is_better(made.metric) else made.verified.high]
    levels += [] if made.floor is None else [made.floor]
    back = all(performance.recovered(made.live.value, level, made.metric) for level in levels)
    return None if back else since


def _shadow(workspace: Workspace, model: ModelFile, champion: Champion, rows: Judged, at: datetime) -> Shadow | None:
    """The previous version's answers to the rows that neither had learned; it comes back if it was surely better.

    They are those up to `monitor.shadow` after the promotion, and those before it whose outcomes came too late for the training.
    A champion that a person made is not judged so: somebody wanted it.
    """
    entry, lasts = champion.promotion, model.monitor.shadow
    subject, previous = f"rollback of entry {entry.sequence} by the monitor", entry.body["previous"]
    watched = rows.times < (entry.at + lasts).timestamp()
    if "act" in entry.body or previous in (None, champion.number) or watched.sum() < FEWEST_ROWS:
        return None
    rival = Model(model, previous, workspace=workspace).predictor
    units = rows.units if model.split.by == "group" else rows.keys
    numbers = np.ascontiguousarray(units[:, :8]).view(">u8").ravel().astype(np.uint64)
    fair = rows[watched & ~np.isin(numbers, trained_on(workspace, rival.made.trained_units))]
    if len(fair) < FEWEST_ROWS:
        return None
    answers = Contestant(rival, frozenset(), previous).answers(fair.columns.frame(), model.classes)
    looks = max(1, ceil(lasts.total_seconds() / (365.25 * 86_400) * model.monitor.looks_per_year))
    difference = metrics.paired(
        model.metric, fair.truth, fair.answers, answers, model.classes,
        confidence=1 - (1 - model.verify.confidence) / looks, seed=0,
    )  # fmt: skip
    found = Shadow(version=previous, rows=len(fair), difference=difference, until=entry.at + lasts)
    newest, *_ = workspace.ledger.entries(model.name, Promotion.kind, newest_first=True, limit=1)
    begun = workspace.ledger.find(model.name, Promotion.kind, subject) is not None
    if not begun and (difference.high >= 0 or newest.sequence != entry.sequence):
        return found
    why = f"on {found.rows:,} rows that neither had learned it is worse than version {previous}: {model.metric} {difference.shown}"
    enthrone(
        workspace, _registered(workspace, model, previous), act="rollback",
        why=f"Version {champion.number}: {why}.", by="monitor", at=at, subject=subject,
    )  # fmt: skip
    return found.model_copy(update={"rolled_back": True})


def _registered(workspace: Workspace, model: ModelFile, version: int) -> Promotion:
    entries = workspace.ledger.entries(model.name, Promotion.kind)
    return Promotion.model_validate(
        next(entry.body for entry in entries if entry.body["version"] == version and "act" not in entry.body)
    )


def _triggers(
    workspace: Workspace, model: ModelFile, champion: Champion, made: Accuracy, fall: Fall | None, at: datetime
) -> Iterator[Trigger]:
    """What asks for a training; a version that was just taken back asks for nothing."""
    if made.shadow and made.shadow.rolled_back:
        return
    evidence = {"rows": made.rows, "moved": list(made.moved)}
    if fall and made.fallen_since:
        cause = f"accuracy:v{made.version}:{made.fallen_since:%Y-%m-%dT%H:%M}"
        yield _trigger("accuracy", cause, fall.sentence, at, {**evidence, "live": fall.live.as_json()}, fall.loss)
    gain = made.question.gain.interval(model.verify.confidence) if made.question else None
    if made.alarm_since and gain and gain.low > 0 and made.question:
        cause = f"concept_drift:v{made.version}:{made.alarm_since:%Y-%m-%dT%H:%M}"
        why = (
            f"answers are wrong more often since {made.alarm_since:%Y-%m-%d}, and with the newest rows the same kind of model "
            f"is better by {gain.shown} {model.metric} on {made.question.rows:,} rows"
        )
        yield _trigger("concept_drift", cause, why, at, evidence, gain)
    if model.retrain.new_rows is None:
        return
    last = _last_roles(workspace, model, champion)
    wanted = model.retrain.enough_rows(sum(last.rows.values()))
    if wanted is not None and made.new_rows >= wanted:
        cause = f"new_rows:{last.fingerprint[:12]}:{made.new_rows // wanted}"
        why = f"{made.new_rows:,} labelled rows since the last training; {wanted:,} are a reason"
        low = verification.of_looks(made.question.skill, model.verify.confidence).low if made.question else None
        yield Trigger("new_rows", cause, why, at, {"new_rows": made.new_rows}, loss_low=low)


def _trigger(kind: Kind, cause: str, reason: str, at: datetime, evidence: dict[str, Any], loss: Estimate) -> Trigger:
    return Trigger(kind, cause, reason, at, evidence, loss=loss.value, loss_low=loss.low)


def _last_roles(workspace: Workspace, model: ModelFile, champion: Champion) -> Roles:
    """Of the newest snapshot whose sealed rows were opened."""
    opened = workspace.ledger.entries(model.name, "opening", newest_first=True, limit=1)
    roles = Reference.model_validate(opened[0].body["roles"]) if opened else champion.predictor.made.roles
    return workspace.load(Roles, roles)


def _says(model: ModelFile, made: Accuracy, fall: Fall | None, found: Found) -> Iterator[str]:
    yield from found.says
    if made.live is None:
        yield "No labelled row whose time has come: live accuracy is not known."
    else:
        where = f"{made.start:%Y-%m-%d} to {made.end:%Y-%m-%d}" if made.start and made.end else "all new rows"
        known = f"; verified {made.verified.shown}" if made.verified else ""
        yield f"Live {made.metric} {made.live.shown} on {made.rows:,} labelled rows ({where}){known}."
    if fall:
        yield f"{fall.sentence[0].upper()}{fall.sentence[1:]}, since {made.fallen_since:%Y-%m-%d}."
    if made.alarm_since:
        yield f"Answers are wrong more often than verified, since {made.alarm_since:%Y-%m-%d}; {_answer(made.question, model.verify.confidence)}."
    yield from (f"Worse where {one}." for one in made.moved)
    if made.estimate:
        yield (
            f"Before labels: {made.estimate_metric} {made.estimate.shown} is estimated from the champion's own answers; "
            "an estimate does not see that what is right has changed."
        )
    if made.shadow:
        back = "; it serves again" if made.shadow.rolled_back else ""
        yield f"Compared with version {made.shadow.version} in shadow: {made.shadow.difference.shown} on {made.shadow.rows:,} rows{back}."
    if made.left_out:
        yield f"{made.left_out:,} labelled rows are sealed, or may become so, and were not looked at."
    if made.waiting:
        yield f"{made.waiting:,} predictions are too young to be read."


def _answer(question: DirectQuestion | None, confidence: float) -> str:
    if question is None:
        return "too few new rows to ask whether training would help"
    gain = question.gain.interval(confidence)
    verdict = "would help" if gain.low > 0 else "would not help" if gain.high < 0 else "is not sure to help"
    return f"training with the newest rows {verdict}: {gain.shown} on {question.rows:,} rows"
