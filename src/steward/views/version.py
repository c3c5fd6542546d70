"""One version: how it came about, how it did in production, and how it compares with another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

from steward.config import ERRORS, ModelFile
from steward.errors import VersionUnknown
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.records import (
    Accuracy,
    Candidate,
    Challenger,
    Decision,
    Estimate,
    Gate,
    Parity,
    Promotion,
    Reference,
    Reliability,
    Roles,
    Selection,
    Slice,
    Snapshot,
    TradeOff,
    Verdict,
)
from steward.views.entries import actor, describe
from steward.views.evidence import Evidence
from steward.views.model import verdict_of
from steward.views.timeline import Event, Window, alarms_of, thinned, windows_of

KINDS = ("decision", "promotion", "verdict", "approval", "opening")
TOPICS = ("data", "training", "verification", "production", "environment")


@dataclass(frozen=True)
class Step:
    """A step of the lineage: snapshot → roles → candidates → selection → challenger → opening → verdict → approval →
    promotion.

    `digest` and `uri` are of the record in the store; None for what is an entry of the ledger only (`sequence`).
    """

    name: str
    says: str
    at: datetime | None
    digest: str | None
    uri: str | None
    sequence: int | None


@dataclass(frozen=True)
class Reign:
    """A time as champion; `until` is None while it lasts."""

    since: datetime
    until: datetime | None
    why: str
    by: str | None


@dataclass(frozen=True)
class Production:
    """How a version did while it served; `windows` are thinned as in `Timeline`."""

    reigns: tuple[Reign, ...]
    windows: tuple[Window, ...]
    every: int
    looks: int
    served: int
    """Predictions in its looks."""
    alarms: tuple[Event, ...]
    best: Estimate | None
    worst: Estimate | None
    newest: Estimate | None
    says: str


@dataclass(frozen=True)
class VersionPage:
    """A version.

    Attributes
    ----------
    alias : `champion`, `challenger`, `previous`, or None.
    candidate : the winner's name. `params` : its setting.
    test : of the opening: rows, value with interval, difference to the champion then.
    card : path of the HTML card in the pages of the store, None where none was written.
    rebuild : the command that trains it again and compares.
    problems : what could not be read, a sentence each.
    """

    model: str
    number: int
    alias: str | None
    registered_at: datetime
    verdict: str
    reasons: tuple[str, ...]
    challenger: str
    """Digest of the trained artifact."""
    candidate: str | None
    params: dict[str, Any]
    selection_reason: str
    table: tuple[TradeOff, ...]
    metric: str
    validation: Estimate | None
    test: Estimate | None
    test_rows: int
    opening: int | None
    constant: float | None
    champion_then: int | None
    champion_value: float | None
    difference: Estimate | None
    gates: tuple[Gate, ...]
    slices: tuple[Slice, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: tuple[Reliability, ...]
    """On its opening; empty before the first look at it, which computes it."""
    classes: tuple[str, ...]
    confidence: float
    """Of every interval: `verify.confidence` at its time."""
    fingerprint: str | None
    """Of the snapshot."""
    accepted: int | None
    rejected: int | None
    roles: dict[str, int]
    trained_rows: int | None
    labels: dict[str, int]
    engine: str | None
    parity: Parity | None
    latency_us: float | None
    bytes: int | None
    packages: dict[str, str]
    commit: str | None
    run_id: str | None
    """The MLflow run."""
    lineage: tuple[Step, ...]
    production: Production
    card: str | None
    rebuild: str
    others: tuple[int, ...]
    """Numbers of the other versions, newest first: what it can be compared with."""
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """A line of a comparison; `same` where both sides say the same. `better` : `left`, `right`, or None."""

    topic: str
    """A heading: one of `TOPICS`, in this order."""
    name: str
    left: str
    right: str
    same: bool
    better: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two versions side by side."""

    model: str
    left: VersionPage
    right: VersionPage
    lines: tuple[Compared, ...]
    says: str


def version_page(workspace: Workspace, model: ModelFile, number: int, at: datetime, *, most: int = 200) -> VersionPage:
    """Everything about a version.

    Raises
    ------
    VersionUnknown : no such version was registered by the pipeline.
    LedgerUnavailable
    """
    entries = workspace.ledger.entries(model.name, KINDS)
    registered = _registered(model, number, entries)
    run = _Run.read(workspace, registered)
    made, chosen, test = run.challenger, run.selection, run.verdict.test if run.verdict else None
    champion = (test.champion if test else None) or {}
    return VersionPage(
        model=model.name,
        number=number,
        alias=_alias(number, entries),
        registered_at=registered.at,
        verdict=run.verdict.verdict if run.verdict else verdict_of(registered, entries),
        reasons=tuple(registered.body["reasons"]),
        challenger=run.verdict.digest if run.verdict else "",
        candidate=made.name if made else None,
        params=made.params if made else {},
        selection_reason=chosen.reason if chosen else "",
        table=chosen.table if chosen else (),
        metric=test.metric if test else model.metric,
        validation=made.validation if made else None,
        test=Estimate(value=test.value, low=test.low, high=test.high) if test else None,
        test_rows=test.rows if test else 0,
        opening=run.verdict.opening if run.verdict else None,
        constant=test.constant if test else None,
        champion_then=champion.get("version"),
        champion_value=champion.get("value"),
        difference=test.difference if test else None,
        gates=run.verdict.gates if run.verdict else (),
        slices=run.verdict.slices if run.verdict else (),
        confusion=test.confusion if test else (),
        calibration=_calibration(run.evidence, number, entries),
        classes=made.classes if made else model.classes,
        confidence=run.confidence or model.verify.confidence,
        fingerprint=made.fingerprint if made else None,
        accepted=run.snapshot.accepted if run.snapshot else None,
        rejected=run.snapshot.rejected if run.snapshot else None,
        roles=run.roles.rows if run.roles else {},
        trained_rows=made.trained_rows if made else None,
        labels=run.snapshot.labels if run.snapshot else {},
        engine=made.engine if made else None,
        parity=made.parity if made else None,
        latency_us=made.latency_us if made else None,
        bytes=made.skops.bytes if made else None,
        packages=made.packages if made else {},
        commit=made.commit if made else None,
        run_id=made.run_id if made else None,
        lineage=tuple(_lineage(run, registered, entries)),
        production=_production(number, entries, at, most),
        card=_card(workspace, model, number),
        rebuild=f"steward reproduce {model.name} {number}",
        others=tuple(one for one in _numbers(entries) if one != number),
        problems=tuple(run.evidence.problems),
    )


def _registered(model: ModelFile, number: int, entries: Sequence[Entry]) -> Entry:
    """The entry by which the pipeline registered a version."""
    for entry in entries:
        if entry.kind == Promotion.kind and entry.body["version"] == number and "act" not in entry.body:
            return entry
    raise VersionUnknown(
        f"{model.name} has no such version",
        got=number,
        allowed=", ".join(map(str, _numbers(entries))) or "none yet",
        do=f"`steward status {model.name}` lists the versions",
    )


def _numbers(entries: Sequence[Entry]) -> list[int]:
    """Of the versions that the pipeline registered, newest first."""
    registered = [one for one in entries if one.kind == Promotion.kind and "act" not in one.body]
    return sorted({one.body["version"] for one in registered}, reverse=True)


def _alias(number: int, entries: Sequence[Entry]) -> str | None:
    """What the newest promotion calls a version."""
    newest = next((one.body for one in reversed(entries) if one.kind == Promotion.kind), {})
    named = {newest.get("previous"): "previous", newest.get("champion"): "champion"}
    if newest.get("alias") == "challenger":
        named[newest["version"]] = "challenger"
    return named.get(number)


@dataclass(frozen=True)
class _Run:
    """What the training of a version left in the store, as far as it can be read."""

    evidence: Evidence
    verdict: Verdict | None
    challenger: Challenger | None
    selection: Selection | None
    roles: Roles | None
    snapshot: Snapshot | None
    candidates: tuple[tuple[Reference, Candidate], ...]

    @classmethod
    def read(cls, workspace: Workspace, registered: Entry) -> "_Run":
        evidence = Evidence(workspace)
        verdict = evidence.read(Verdict, Reference.model_validate(registered.body["verdict"]))
        made = evidence.read(Challenger, verdict.challenger if verdict else None)
        chosen = evidence.read(Selection, made.selection if made else None)
        found = ((one, evidence.read(Candidate, one)) for one in (chosen.candidates if chosen else ()))
        return cls(
            evidence=evidence,
            verdict=verdict,
            challenger=made,
            selection=chosen,
            roles=evidence.read(Roles, made.roles if made else None),
            snapshot=evidence.read(Snapshot, made.snapshot if made else None),
            candidates=tuple((reference, candidate) for reference, candidate in found if candidate),
        )

    @property
    def confidence(self) -> float | None:
        """Of its intervals, by the model file of its time."""
        verify = self.challenger.model_file.get("verify", {}) if self.challenger else {}
        found: float | None = verify.get("confidence")
        return found


def _lineage(run: _Run, registered: Entry, entries: Sequence[Entry]) -> Iterator[Step]:
    made, verdict = run.challenger, run.verdict
    if made and run.snapshot:
        says = (
            f"{run.snapshot.accepted:,} rows accepted and {run.snapshot.rejected:,} rejected, of {run.snapshot.source}"
        )
        yield _step("snapshot", says, made.snapshot, run.snapshot.at)
    if made and run.roles:
        says = ", ".join(f"{rows:,} {role}" for role, rows in run.roles.rows.items())
        yield _step("roles", f"{says} rows, by {run.roles.by}", made.roles)
    for reference, candidate in run.candidates:
        value = (
            f"{candidate.metric} {candidate.validation.shown}" if candidate.validation else candidate.error or "failed"
        )
        yield _step(f"candidate {candidate.name}", value, reference)
    if made and run.selection:
        yield _step("selection", run.selection.reason, made.selection)
    if made and verdict:
        yield _step(
            "challenger",
            f"{made.name}, trained on {made.trained_rows:,} rows, served by {made.engine}",
            verdict.challenger,
        )
        opening = next((one for one in entries if (one.kind, one.subject) == ("opening", str(verdict.opening))), None)
        if opening:
            yield Step("opening", describe(opening), opening.at, None, None, opening.sequence)
    reference = Reference.model_validate(registered.body["verdict"])
    yield _step(
        "verdict", " ".join(verdict.reasons) if verdict else "not at hand", reference, verdict.at if verdict else None
    )
    for entry in entries:
        answer = entry.kind == "approval" and entry.subject == reference.digest
        if answer or entry.sequence == registered.sequence:
            yield Step(entry.kind, describe(entry), entry.at, None, None, entry.sequence)


def _step(name: str, says: str, reference: Reference, at: datetime | None = None) -> Step:
    return Step(name, says, at, reference.digest, reference.uri, None)


def _calibration(evidence: Evidence, number: int, entries: Sequence[Entry]) -> tuple[Reliability, ...]:
    """On its opening, as any look at it has computed it."""
    for entry in reversed(entries):
        if entry.kind == Decision.kind and entry.body.get("figures", {}).get("version") == number:
            found = evidence.part(Accuracy, entry.body["parts"])
            return found.verified_calibration if found else ()
    return ()


def _card(workspace: Workspace, model: ModelFile, number: int) -> str | None:
    """Its name among the pages of the store."""
    name = f"{model.name}/version-{number}.html"
    return name if workspace.store.has_page(name) else None


def _production(number: int, entries: Sequence[Entry], at: datetime, most: int) -> Production:
    looks = [
        one for one in entries if one.kind == Decision.kind and one.body.get("figures", {}).get("version") == number
    ]
    windows = windows_of(looks)
    kept, every = thinned(windows, most)
    live = [one.live for one in windows if one.live]
    metric = next((one.metric for one in reversed(windows) if one.metric), None)
    order = sorted(live, key=lambda one: one.value, reverse=metric not in ERRORS)
    reigns = tuple(_reigns(number, entries))
    return Production(
        reigns=reigns,
        windows=kept,
        every=every,
        looks=len(windows),
        served=sum(one.served or 0 for one in windows),
        alarms=alarms_of(windows),
        best=order[0] if order else None,
        worst=order[-1] if order else None,
        newest=live[-1] if live else None,
        says=_says(number, reigns, windows, metric, at),
    )


def _reigns(number: int, entries: Sequence[Entry]) -> Iterator[Reign]:
    """From each time that it became champion until another version did."""
    crowned = [one for one in entries if one.kind == Promotion.kind and one.body["alias"] == "champion"]
    for entry, after in zip_longest(crowned, crowned[1:]):
        if entry.body["version"] == number:
            why = str((entry.body["reasons"] or [""])[0])
            yield Reign(entry.at, after.at if after else None, why, actor(entry))


def _says(number: int, reigns: Sequence[Reign], windows: Sequence[Window], metric: str | None, at: datetime) -> str:
    if not reigns:
        return f"Version {number} has never been champion."
    days = sum(((one.until or at) - one.since for one in reigns), timedelta()) / timedelta(days=1)
    how = "serves" if reigns[-1].until is None else "served"
    live = [one.live for one in windows if one.live]
    measured = f"; live {metric} at the end {live[-1].shown}" if live else "; how right it was is not known"
    return f"Version {number} {how} for {days:,.1f} days, {len(windows):,} look{'' if len(windows) == 1 else 's'}{measured}."


def compare(workspace: Workspace, model: ModelFile, left: int, right: int, at: datetime) -> Comparison:
    """Two versions side by side; raises as `version_page`."""
    a, b = (version_page(workspace, model, number, at) for number in (left, right))
    lines = tuple(sorted(_lines(a, b), key=lambda line: TOPICS.index(line.topic)))
    differ = sum(not line.same for line in lines)
    says = f"Versions {left} and {right} differ in {differ} of {len(lines)} points."
    return Comparison(model.name, a, b, lines, says)


def _lines(a: VersionPage, b: VersionPage) -> Iterator[Compared]:
    for topic, name, tell in TOLD:
        yield _line(topic, name, tell(a), tell(b))
    for name in sorted({*a.params, *b.params}):
        yield _line("training", f"parameter {name}", _plain(a.params.get(name)), _plain(b.params.get(name)))
    yield _measured("verification", "on its sealed rows", a.metric, b.metric, a.test, b.test)
    yield _measured("production", "newest live value", a.metric, b.metric, a.production.newest, b.production.newest)
    for name in sorted({*a.packages, *b.packages}):
        yield _line("environment", name, _plain(a.packages.get(name)), _plain(b.packages.get(name)))


def _line(topic: str, name: str, left: str, right: str) -> Compared:
    return Compared(topic, name, left, right, left == right)


def _measured(topic: str, name: str, metric_a: str, metric_b: str, a: Estimate | None, b: Estimate | None) -> Compared:
    """A metric of both; each was measured on rows of its own, so that one is only called better where intervals part."""
    told = [f"{metric} {one.shown}" if one else "unknown" for metric, one in ((metric_a, a), (metric_b, b))]
    better = None
    if a and b and metric_a == metric_b and (a.low > b.high or b.low > a.high):
        better = "left" if (a.value > b.value) == (metric_a not in ERRORS) else "right"
    return Compared(topic, name, told[0], told[1], told[0] == told[1], better)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else "none"
        if value is None
        else str(value)
    )


TOLD: tuple[tuple[str, str, Callable[[VersionPage], str]], ...] = (
    ("data", "snapshot", lambda page: (page.fingerprint or "unknown")[:12]),
    ("data", "accepted rows", lambda page: _plain(page.accepted)),
    ("data", "rejected rows", lambda page: _plain(page.rejected)),
    ("data", "rows per class", lambda page: ", ".join(f"{name} {rows:,}" for name, rows in page.labels.items())),
    ("training", "candidate", lambda page: page.candidate or "unknown"),
    ("training", "trained on rows", lambda page: _plain(page.trained_rows)),
    ("training", "why it was chosen", lambda page: page.selection_reason),
    ("verification", "verdict", lambda page: page.verdict),
    ("verification", "reasons", lambda page: " ".join(page.reasons)),
    ("verification", "sealed rows", lambda page: _plain(page.test_rows)),
    ("production", "as champion", lambda page: page.production.says),
    ("production", "predictions", lambda page: _plain(page.production.served)),
    ("production", "alarms", lambda page: _plain(len(page.production.alarms))),
    ("environment", "engine", lambda page: page.engine or "unknown"),
    ("environment", "size in bytes", lambda page: _plain(page.bytes)),
    ("environment", "microseconds per prediction", lambda page: _plain(page.latency_us)),
    ("environment", "commit", lambda page: page.commit or "unknown"),
)
"""Topic, name, and what it is of a version."""
