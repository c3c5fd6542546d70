"""One model: its past in one picture, and everything that is known of it now."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from steward.config import ModelFile
from steward.io.latencies import BOUNDS, Latency
from steward.io.ledger import Entry
from steward.io.predictions import Answered
from steward.io.workspace import Workspace
from steward.records import (
    Accuracy,
    Challenger,
    Decision,
    Estimate,
    Quality,
    QualityFinding,
    Reference,
    Reliability,
    Verdict,
)
from steward.views.drift import DriftMap, drift_map
from steward.views.evidence import Evidence
from steward.views.governor import Governor, governor
from steward.views.overview import Row, row_of
from steward.views.states import Known, known
from steward.views.timeline import Timeline, Window, timeline, windows_of, within

KINDS = ("decision", "promotion", "trigger", "failure", "verdict", "approval")
KINDS_OF_VERSIONS = ("promotion", "verdict")
ANSWERS = ("prediction", "confidence")
"""Watched as columns are."""
VERSIONS = 50
COUNTED = 100_000
"""Predictions of the last day that are counted at most."""
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Confusion:
    """Rows by true class (outer) and answered class (inner), in the order of `classes`."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> int:
        return sum(map(sum, self.counts))


@dataclass(frozen=True)
class Judged:
    """Confusion and calibration of one set of rows; empty where they are not known (a regression has neither)."""

    says: str
    """Which rows, and when."""
    confusion: Confusion | None
    calibration: tuple[Reliability, ...]


@dataclass(frozen=True)
class SliceRow:
    """The rows with one value of one column: now, and at verification."""

    column: str
    value: str
    rows: int
    now: Estimate | None
    verified: Estimate | None
    moved: bool
    """Surely worse than at verification."""


@dataclass(frozen=True)
class Day:
    """Predictions of a window, per day."""

    start: datetime
    end: datetime
    rows: int
    per_day: float


@dataclass(frozen=True)
class Traffic:
    """What is served, and how fast.

    Attributes
    ----------
    last_day : predictions of the last 24 hours, by what answered: `version 3`, `version 2 (fallback)`, `fallback`, `control group`.
    capped : there were more than were counted.
    hours : how long requests for one prediction took, hour by hour of the last 24, by the start of the hour; only those with any.
    latency_us : time of one prediction when the champion was verified, in microseconds; `latency_allowed_ms` by the model file.
    says : how fast requests were answered in these hours.
    """

    days: tuple[Day, ...]
    last_day: dict[str, int]
    capped: bool
    newest: datetime | None
    hours: dict[datetime, Latency]
    latency_us: float | None
    latency_allowed_ms: float | None
    says: str


@dataclass(frozen=True)
class VersionLine:
    """A line of the list of versions."""

    number: int
    registered_at: datetime
    verdict: str
    reason: str
    alias: str | None
    """`champion`, `challenger`, `previous`, or None."""
    served_from: datetime | None
    """When it last became champion."""


@dataclass(frozen=True)
class ModelPage:
    """Everything about a model.

    Attributes
    ----------
    row : the model's line of the overview.
    quality : findings of the newest look; `quality_says` names the look, or why there is nothing.
    now, verified : the champion on labelled rows of the last look, and at its opening.
    problems : what could not be read, a sentence each: the rest of the page stands.
    """

    at: datetime
    confidence: float
    """Of every interval: `verify.confidence`."""
    row: Row
    timeline: Timeline
    drift: DriftMap
    quality: tuple[QualityFinding, ...]
    quality_says: str
    now: Judged
    verified: Judged
    slices: tuple[SliceRow, ...]
    traffic: Traffic
    governor: Governor
    versions: tuple[VersionLine, ...]
    """Newest first; at most 50."""
    problems: tuple[str, ...]


def model_page(
    workspace: Workspace,
    model: ModelFile,
    at: datetime,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    most: int = 200,
) -> ModelPage:
    """Everything about a model; reads its entries and a handful of records, however long its past is.

    Parameters
    ----------
    since, until : looks that ended before or after are left out of timeline, heat map and traffic.
    most : looks that the timeline shows at most, see `Timeline.every`.

    Raises
    ------
    LedgerUnavailable
    """
    [found] = known(workspace, [model], at)
    entries = workspace.ledger.entries(model.name, KINDS)
    looks = [entry for entry in entries if entry.kind == Decision.kind]
    windows = windows_of(looks)
    shown = within(windows, since, until)
    evidence, parts = Evidence(workspace), found.measured.body["parts"] if found.measured else {}
    accuracy, quality = evidence.part(Accuracy, parts), evidence.part(Quality, parts)
    accuracy = accuracy if accuracy and accuracy.version == found.champion else None
    verdict = _verdict(evidence, found)
    return ModelPage(
        at=at,
        confidence=model.verify.confidence,
        row=row_of(found),
        timeline=timeline(entries, windows, model.metric, since, until or at, most),
        drift=drift_map(shown, looks, [*model.columns, *model.features, *(ANSWERS if model.classes else ANSWERS[:1])]),
        quality=quality.findings if quality else (),
        quality_says=_quality_says(found, quality),
        now=_now(model, accuracy),
        verified=_verified(model, verdict, accuracy),
        slices=_slices(accuracy, verdict),
        traffic=_traffic(workspace, found, shown, evidence.read(Challenger, verdict.challenger if verdict else None)),
        governor=governor(found, entries),
        versions=_versions(found, entries),
        problems=tuple(evidence.problems),
    )


def versions(workspace: Workspace, model: ModelFile, at: datetime) -> tuple[Row, tuple[VersionLine, ...]]:
    """A model's line of the overview and its versions: what one has to see to act on them.

    Raises
    ------
    LedgerUnavailable
    """
    [found] = known(workspace, [model], at)
    return row_of(found), _versions(found, workspace.ledger.entries(model.name, KINDS_OF_VERSIONS))


def _verdict(evidence: Evidence, found: Known) -> Verdict | None:
    """What was verified of the champion, if it was registered lately."""
    mine = [one for one in found.promotions if one.body["version"] == found.champion]
    return evidence.read(Verdict, Reference.model_validate(mine[-1].body["verdict"])) if mine else None


def _quality_says(found: Known, quality: Quality | None) -> str:
    if quality is None:
        return "Nobody has looked at the rows yet; `steward monitor` does."
    count = len(quality.findings)
    what = "nothing is wrong" if not count else "one finding" if count == 1 else f"{count} findings"
    return f"Look of {found.looked_at:%Y-%m-%d %H:%M} UTC: {what}."


def _now(model: ModelFile, made: Accuracy | None) -> Judged:
    if made is None or made.live is None:
        return Judged("No labelled row whose time has come is known of the version that serves.", None, ())
    where = f" from {made.start:%Y-%m-%d} to {made.end:%Y-%m-%d}" if made.start and made.end else ""
    confusion = Confusion(model.classes, made.confusion) if made.confusion else None
    return Judged(f"{made.rows:,} labelled rows{where}", confusion, made.calibration)


def _verified(model: ModelFile, verdict: Verdict | None, made: Accuracy | None) -> Judged:
    if verdict is None:
        return Judged("What was verified of the version that serves is not at hand.", None, ())
    test = verdict.test
    confusion = Confusion(model.classes, test.confusion) if test.confusion else None
    says = f"{test.rows:,} sealed rows of opening {verdict.opening}, {verdict.at:%Y-%m-%d}"
    return Judged(says, confusion, made.verified_calibration if made else ())


def _slices(made: Accuracy | None, verdict: Verdict | None) -> tuple[SliceRow, ...]:
    """Those of now; without any, those of the opening."""
    now = {(one.column, one.value): one for one in made.slices} if made else {}
    then = {(one.column, one.value): one for one in verdict.slices} if verdict else {}
    worse = tuple(one.partition(":")[0] for one in made.moved) if made else ()
    return tuple(
        SliceRow(
            column=one.column,
            value=one.value,
            rows=one.rows,
            now=now[place].challenger if place in now else None,
            verified=then[place].challenger if place in then else None,
            moved=f"{one.column} = {one.value}" in worse,
        )
        for place, one in (now or then).items()
    )


def _traffic(workspace: Workspace, found: Known, windows: Sequence[Window], made: Challenger | None) -> Traffic:
    answered = workspace.predictions.answered(found.model.name, (found.at - DAY).timestamp(), COUNTED)
    total, newest = sum(one.rows for one in answered), found.answered
    hours = workspace.latencies.hours(found.model.name, (found.at - DAY).timestamp())
    return Traffic(
        days=tuple(
            Day(one.start, one.end, one.served, one.served / ((one.end - one.start) / DAY))
            for one in windows
            if one.served
        ),
        last_day=_by_answerer(answered),
        capped=total >= COUNTED,
        newest=datetime.fromtimestamp(newest.at, UTC) if newest else None,
        hours={datetime.fromtimestamp(start, UTC): one for start, one in hours.items()},
        latency_us=made.latency_us if made else None,
        latency_allowed_ms=found.model.verify.max_latency_ms,
        says=_fast(sum(hours.values(), Latency())) if newest else "Nothing was served yet.",
    )


def _fast(latency: Latency) -> str:
    """How long requests took, in a sentence."""
    if not latency.requests:
        return "The service was asked for no single prediction in the last 24 hours, so that its latency is not known."
    half, nearly_all = (_within(latency.within(share)) for share in (0.5, 0.99))
    return (
        f"Of {latency.requests:,} requests for one prediction in the last 24 hours half were answered {half}, "
        f"99 % {nearly_all}; on average in {1_000 * latency.mean:,.2f} ms."
    )


def _within(seconds: float | None) -> str:
    return f"within {1_000 * seconds:g} ms" if seconds else f"in more than {BOUNDS[-1]:g} s"


def _by_answerer(answered: Sequence[Answered]) -> dict[str, int]:
    named: Counter[str] = Counter()
    for one in answered:
        who = f"version {one.version}" if one.version is not None else "the constant"
        named[f"{who}{' (fallback)' if one.fallback else ''}{', control group' if one.control else ''}"] += one.rows
    return dict(named.most_common())


def _versions(found: Known, entries: Sequence[Entry]) -> tuple[VersionLine, ...]:
    registered = [entry for entry in entries if entry.kind == "promotion" and "act" not in entry.body]
    aliases = {found.previous: "previous", found.challenger: "challenger", found.champion: "champion"}
    return tuple(
        VersionLine(
            number=entry.body["version"],
            registered_at=entry.at,
            verdict=verdict_of(entry, entries),
            reason=str((entry.body["reasons"] or [""])[0]),
            alias=aliases.get(entry.body["version"]),
            served_from=crowned[-1].at if (crowned := crownings(entries, entry.body["version"])) else None,
        )
        for entry in registered[: -VERSIONS - 1 : -1]
    )


def verdict_of(registered: Entry, entries: Sequence[Entry]) -> str:
    """The word of the verdict that led to a registration: of those before it the newest with the same reasons."""
    reasons = registered.body["reasons"]
    for entry in reversed(entries):
        given = entry.body["reasons"] if entry.kind == "verdict" and entry.sequence < registered.sequence else None
        if given is not None and reasons[: len(given)] == given:
            return str(entry.body["verdict"])
    return "promote" if registered.body["alias"] == "champion" else "unknown"


def crownings(entries: Sequence[Entry], version: int) -> list[Entry]:
    """The entries that made a version the champion."""
    return [
        entry
        for entry in entries
        if entry.kind == "promotion" and entry.body["version"] == version and entry.body["alias"] == "champion"
    ]
