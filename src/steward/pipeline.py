"""How the stages run in this process.

The Airflow DAG is made from the same `STAGES`, so that `steward train` and `<model>.train` cannot drift apart.
"""

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from queue import Queue
from typing import Any, Literal

from steward import notices, operations, steps
from steward.config import ModelFile, Settings
from steward.core.retraining import Trigger
from steward.errors import StewardError
from steward.io.workspace import Workspace
from steward.processes import workers
from steward.records import Candidate, Card, Decision, Promotion, Record, Reference, Selection, Snapshot, Trial, Verdict
from steward.stages import MONITORING, STAGES, Stage, searched


@dataclass(frozen=True)
class Event:
    """Something that whoever watches a run would like to see."""

    stage: str
    state: Literal["started", "finished", "trial"]
    candidate: str | None = None
    trial: Trial | None = None
    record: Record | None = None


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """Everything that one training led to."""

    model: str
    snapshot: Snapshot
    candidates: tuple[Candidate, ...]
    selection: Selection
    verdict: Verdict | None
    promotion: Promotion | None
    card: str | None

    def as_json(self) -> dict[str, Any]:
        """The answer of `steward train --json`; after a dry run verdict, test, version and champion are null."""
        test = self.verdict.test if self.verdict else None
        return {
            "model": self.model,
            "version": self.promotion.version if self.promotion else None,
            "verdict": self.verdict.verdict if self.verdict else None,
            "reasons": list(self.promotion.reasons if self.promotion else ()) or ["dry run: no sealed row was opened"],
            "winner": self.selection.winner,
            "candidates": [_candidate_json(candidate) for candidate in self.candidates],
            "test": test
            and {
                "rows": test.rows,
                "metric": test.metric,
                "value": test.value,
                "low": test.low,
                "high": test.high,
                "champion": test.champion,
                "difference": test.difference.as_json(),
                "overlap": test.overlap,
            },
            "snapshot": self.snapshot.fingerprint,
            "accepted": self.snapshot.accepted,
            "rejected": self.snapshot.rejected,
            "champion": self.promotion.champion if self.promotion else None,
            "card": self.card,
        }


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    value = candidate.validation
    return {
        "name": candidate.name,
        "validation": value and {"metric": candidate.metric, **value.as_json()},
        "fit_seconds": candidate.fit_seconds,
        "latency_us": candidate.latency_us,
        "error": candidate.error,
    }


def train(
    workspace: Workspace,
    model: ModelFile,
    *,
    at: datetime,
    reason: str,
    by: str,
    run_id: str,
    decision: Decision | None = None,
    candidates: Sequence[str] | None = None,
    trials: int | None = None,
    dry_run: bool = False,
    on_event: OnEvent = lambda _: None,
) -> Outcome:
    """Run the whole train DAG in this process.

    Parameters
    ----------
    at : the moment of the run, time-zone aware: which labels are mature, and what the ledger says.
    reason, by, run_id : why this training, who asked, and its identity on record.
    decision : to train, which this training follows: its trigger, its cause, and the loss that was measured.
    candidates, trials : fewer candidates or another number of trials than the model file says.
    dry_run : stop before the sealed rows are opened.
    on_event : called as things happen.

    Raises
    ------
    StewardError : whatever a step refuses; running again goes on where this run stopped.
    """
    model = model.only(candidates, trials)
    kind = decision.trigger["kind"] if decision and decision.trigger else "manual"
    cause, detect = (decision.cause, decision.detect) if decision else (None, None)
    operations.trigger(workspace, model, kind, reason, by=by, at=at, run_id=run_id, cause=cause)
    try:
        made = _run_stages(workspace, model, at, detect, dry_run=dry_run, on_event=on_event)
    except StewardError as problem:
        if not problem.retryable:
            operations.failed(workspace, model, run_id, problem, at=at)
        raise
    return _outcome(workspace, model, made)


def _run_stages(
    workspace: Workspace, model: ModelFile, at: datetime, detect: float | None, *, dry_run: bool, on_event: OnEvent
) -> dict[str, Any]:
    made: dict[str, Any] = {"approve": None}
    for stage in STAGES:
        if dry_run and stage.opens:
            break
        if stage.approval or (stage.explains and not workspace.explains):
            continue
        on_event(Event(stage.name, "started"))
        made[stage.name] = _run_stage(workspace, model, stage, made, at, detect, on_event)
        if not stage.mapped:
            record = record_of(workspace, made[stage.name])
            notices.tell_of(workspace, model, record, at=at)
            on_event(Event(stage.name, "finished", record=record))
    return made


def _run_stage(
    workspace: Workspace,
    model: ModelFile,
    stage: Stage,
    made: dict[str, Any],
    at: datetime,
    detect: float | None,
    on_event: OnEvent,
) -> Any:
    match stage.name:
        case "accept":
            return steps.accept(workspace, model, at=at)
        case "split":
            return steps.split(workspace, model, made["accept"], detect=detect)
        case "train_candidate":
            return _train_candidates(workspace, model, made["split"], on_event)
        case "verify":
            return steps.verify(workspace, model, made["refit"], at=at)
        case "promote":
            return steps.promote(workspace, model, made["verify"], approval=made["approve"], at=at)
    return getattr(steps, stage.name)(workspace, model, *(made[name] for name in stage.takes))


@dataclass(frozen=True)
class Look:
    """Everything that one look at the champion found."""

    model: str
    at: datetime
    records: dict[str, Record]
    """By stage."""

    def as_json(self) -> dict[str, Any]:
        """The answer of `steward monitor --json`: one record per stage, under the stage's name."""
        found = {stage: record.as_json() for stage, record in self.records.items()}
        return {"model": self.model, "at": self.at.isoformat(), **found}


def monitor(
    workspace: Workspace,
    model: ModelFile,
    *,
    at: datetime,
    events: Sequence[Trigger] = (),
    on_event: OnEvent = lambda _: None,
) -> Look:
    """Run the whole monitor DAG in this process; a training that is asked for is put on record, not started.

    Parameters
    ----------
    at : the moment that is looked from, time-zone aware; what happened later is not seen.
    events : what other platforms have told, as triggers.

    Raises
    ------
    NoChampion : there is nothing to watch yet.
    StewardError : whatever a step refuses; running again goes on where this run stopped.
    """
    made: dict[str, Reference] = {}
    records: dict[str, Record] = {}
    for stage in MONITORING:
        on_event(Event(stage.name, "started"))
        given = [made[name] for name in stage.takes]
        made[stage.name] = run_look(workspace, model, stage.name, given, at=at, events=events)
        records[stage.name] = record_of(workspace, made[stage.name])
        notices.tell_of(workspace, model, records[stage.name], at=at)
        on_event(Event(stage.name, "finished", record=records[stage.name]))
    return Look(model.name, at, records)


def run_look(
    workspace: Workspace,
    model: ModelFile,
    stage: str,
    given: Sequence[Reference],
    *,
    at: datetime,
    events: Sequence[Trigger] = (),
) -> Reference:
    """One stage of a look; `given` are the references that the stage takes."""
    match stage:
        case "observe":
            return steps.observe(workspace, model, at=at)
        case "measure_accuracy":
            return steps.measure_accuracy(workspace, model, given[0], at=at)
        case "decide_retraining":
            return steps.decide_retraining(workspace, model, given, at=at, events=events)
    step: Callable[..., Reference] = getattr(steps, stage)
    return step(workspace, model, *given)


def record_of(workspace: Workspace, reference: Reference) -> Record:
    """What stands behind a reference of any kind."""
    return workspace.load(RECORDS[reference.kind], reference)


RECORDS: dict[str, type[Record]] = {
    record.kind: record for record in Record.__subclasses__() if "kind" not in record.model_fields
}


def _train_candidates(
    workspace: Workspace, model: ModelFile, roles: Reference, on_event: OnEvent
) -> tuple[Reference, ...]:
    """Every candidate, `settings.jobs` of them side by side; the order of the answer is that of the model file."""
    names = searched(model)
    if min(workspace.settings.jobs, len(names)) == 1:
        return tuple(_train_here(workspace, model, roles, name, on_event) for name in names)
    found: dict[str, Reference] = {}
    context = multiprocessing.get_context("forkserver")
    with _trials_of_others(context, on_event) as queue, workers(workspace.settings.jobs) as pool:
        waiting = {pool.submit(_train_there, workspace.settings, model, roles, name, queue): name for name in names}
        for done in as_completed(waiting):
            name = waiting[done]
            found[name] = done.result()
            candidate = workspace.load(Candidate, found[name])
            on_event(Event("train_candidate", "finished", candidate=name, record=candidate))
    return tuple(found[name] for name in names)


def _train_here(workspace: Workspace, model: ModelFile, roles: Reference, name: str, on_event: OnEvent) -> Reference:
    on_event(Event("train_candidate", "started", candidate=name))
    reference = steps.train_candidate(
        workspace, model, roles, name, on_trial=lambda trial: on_event(Event("train_candidate", "trial", name, trial))
    )
    on_event(Event("train_candidate", "finished", candidate=name, record=workspace.load(Candidate, reference)))
    return reference


def _train_there(settings: Settings, model: ModelFile, roles: Reference, name: str, queue: "Queue[Any]") -> Reference:
    """The same in another process, which opens its own workspace."""
    queue.put(Event("train_candidate", "started", candidate=name))
    return steps.train_candidate(
        Workspace(settings),
        model,
        roles,
        name,
        on_trial=lambda trial: queue.put(Event("train_candidate", "trial", name, trial)),
    )


@contextmanager
def _trials_of_others(context: Any, on_event: OnEvent) -> Iterator["Queue[Any]"]:
    """A queue that other processes put events into, and a thread that hands them on."""
    with context.Manager() as manager:
        queue = manager.Queue()
        listener = threading.Thread(target=_hand_on, args=(queue, on_event), daemon=True)
        listener.start()
        try:
            yield queue
        finally:
            queue.put(None)
            listener.join()


def _hand_on(queue: "Queue[Any]", on_event: OnEvent) -> None:
    for event in iter(queue.get, None):
        on_event(event)


def _outcome(workspace: Workspace, model: ModelFile, made: dict[str, Any]) -> Outcome:
    def found(record: type[Any], stage: str) -> Any:
        return workspace.load(record, made[stage]) if made.get(stage) else None

    card = found(Card, "report")
    return Outcome(
        model=model.name,
        snapshot=found(Snapshot, "accept"),
        candidates=tuple(workspace.load(Candidate, reference) for reference in made["train_candidate"]),
        selection=found(Selection, "select"),
        verdict=found(Verdict, "verify"),
        promotion=found(Promotion, "promote"),
        card=card.path if card else None,
    )
