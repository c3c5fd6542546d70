"""The only adapter between the steps and Airflow: step → task, dict ↔ Reference, error ↔ retry policy, assets.

Airflow reads this file every few seconds, and once more in every task. So it imports nothing heavy, and the steps are
imported inside a task's body: the one place in Steward where our own code is imported late.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import (
    DAG,
    Asset,
    AssetAlias,
    AssetOrTimeSchedule,
    AssetWatcher,
    BaseOperator,
    BaseOperatorLink,
    CronTriggerTimetable,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    XComArg,
    get_parsing_context,
)
from airflow.sdk.exceptions import AirflowSkipException

from steward.config import ModelFile, Settings
from steward.errors import ModelFileError, NoChampion, StewardError
from steward.records import Decision, Promotion, Record, Reference
from steward.stages import MONITORING, Stage, searched, stages

if TYPE_CHECKING:
    from steward.core.retraining import Trigger
    from steward.io.workspace import Workspace

RETRIES = 3
FAULTS: list[type[BaseException] | str] = [
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
]
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=[kind for kind in StewardError.__subclasses__() if kind.retryable],
            action=RetryAction.RETRY,
            reason="out of reach now, may be back soon",
        ),
        RetryRule(exception=StewardError, action=RetryAction.FAIL, reason="trying again would change nothing"),
        RetryRule(exception=FAULTS, action=RetryAction.FAIL, reason="a fault in the code, not an outage"),
    ]
)
"""What is out of reach is tried again with growing pauses, what is refused or faulty is not; the rest gets the usual retries."""


def tell_of_failure(context: Mapping[str, Any]) -> None:
    """Airflow's callback for a task that has failed for good: it goes on record, and people hear of it once per run."""
    from steward import notices, operations
    from steward.io.workspace import Workspace

    workspace = Workspace(Settings.from_environment())
    run, task = context["dag_run"], context["ti"]
    found = context.get("exception")
    problem = found if isinstance(found, BaseException) else RuntimeError(str(found or "the task was ended"))
    model = workspace.model(run.dag_id.split(".")[0])
    if run.dag_id.endswith(".train"):
        named = problem if isinstance(problem, StewardError) else StewardError(type(problem).__name__)
        operations.failed(workspace, model, run.run_id, named, at=run.run_after)
    what = f"{run.dag_id} of {run.run_after:%Y-%m-%d %H:%M} ({run.run_id}), task {task.task_id}"
    notices.tell_of_failure(workspace, model, what, problem, at=run.run_after, link=page_of(context))


DEFAULTS = {
    "owner": "steward",
    "retries": RETRIES,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": RETRY_POLICY,
    "on_failure_callback": tell_of_failure,
}
"""Of every task."""

TIMEOUTS = {
    "train_candidate": timedelta(hours=12),
    "refit": timedelta(hours=4),
    "plan": timedelta(minutes=10),
    "score": timedelta(hours=12),
}
TIMEOUT = timedelta(hours=2)
ANSWER_WITHIN = timedelta(days=7)
"""How long a promotion waits for a person."""
PROGRESS_EVERY = 0.5
"""Seconds between two notes of a search's progress in the task's state store."""


def retrain_asset(model: str) -> Asset:
    """The asset that carries every trigger; an event's `extra` says `trigger`, `reason`, `by`, `cause` and `evidence`."""
    return Asset(name=f"{model}/retrain", uri=f"steward://{model}/retrain", group="steward")


def champion_asset(model: str) -> Asset:
    """Updated when a model has a new champion."""
    return Asset(name=f"{model}/champion", uri=f"steward://{model}/champion", group="steward")


def champion_alias(model: str) -> AssetAlias:
    """What `promote` declares as its outlet: an alias is updated only where a task says so."""
    return AssetAlias(name=f"{model}/promotion", group="steward")


def retrain_alias(model: str) -> AssetAlias:
    """What `decide_retraining` declares as its outlet: nothing is asked for unless the decision is to train."""
    return AssetAlias(name=f"{model}/decision", group="steward")


def event_asset(model: str) -> Asset:
    """Updated when another platform tells of something; the model's monitor looks at once and decides what it means."""
    return Asset(name=f"{model}/event", uri=f"steward://{model}/event", group="steward")


class MlflowLink(BaseOperatorLink):  # type: ignore[misc]
    """From a task to its run, or version, in MLflow."""

    name = "MLflow"
    xcom_key = "mlflow_link"

    def get_link(self, operator: "StepOperator", *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        return operator.links.get(self.name, "")


class CardLink(BaseOperatorLink):  # type: ignore[misc]
    """From a report to the card, as MLflow keeps it."""

    name = "Card"
    xcom_key = "card_link"

    def get_link(self, operator: "StepOperator", *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        return operator.links.get(self.name, "")


class PlanOperator(BaseOperator):  # type: ignore[misc]
    """Puts on record who asked for this run and why; answers the candidates to train."""

    def __init__(self, *, model: str, **options: Any) -> None:
        super().__init__(**options)
        self.model = model

    def execute(self, context: Mapping[str, Any]) -> list[str]:
        from steward import operations

        workspace, model = _open(self.model, context["params"])
        asked = who_asked(context["dag_run"], context["params"])
        at = context["dag_run"].run_after
        context["ti"].xcom_push("asked", asdict(asked))
        context["ti"].xcom_push("summary", f"{asked.by} asked ({asked.trigger}): {asked.reason}")
        run_id = context["dag_run"].run_id
        with _explained(context):
            if asked.trigger == "schedule" and (why := operations.too_early(workspace, model, at=at)):
                raise AirflowSkipException(why)
            if asked.cause and (other := operations.started_for(workspace, model, asked.cause, but=run_id)):
                raise AirflowSkipException(f"a training was started for this already: {other}")
            operations.trigger(
                workspace,
                model,
                asked.trigger,
                asked.reason,
                by=asked.by,
                at=at,
                run_id=run_id,
                cause=asked.cause,
                evidence=asked.evidence,
            )
        return list(reversed(searched(model)))  # costly candidates stand last in a file: they start first


class StepOperator(BaseOperator):  # type: ignore[misc]
    """One step as a task: references come in as dicts and go out as one.

    Parameters
    ----------
    step : name of the function in `steward.steps`.
    takes : the references it is given, as XComs.
    candidate : of a mapped task.
    answer : what `HITLOperator` answered; for `approve` only.
    """

    template_fields: Sequence[str] = ("takes", "candidate", "answer")
    operator_extra_links = (MlflowLink(), CardLink())
    ui_color: ClassVar[str] = "#e8f1ee"

    def __init__(
        self,
        *,
        step: str,
        model: str,
        takes: Sequence[Any] = (),
        candidate: Any = None,
        answer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.step = step
        self.model = model
        self.takes = takes
        self.candidate = candidate
        self.answer = answer
        self.links: dict[str, str] = {}

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        from steward import notices, pipeline

        workspace, model = self._open(context)
        with _explained(context):
            reference = self._call(workspace, model, context)
            record = pipeline.record_of(workspace, reference)
            context["ti"].xcom_push("summary", summary_of(record))
            self.links = links_of(workspace, record)
        announce(model, record, context["outlet_events"])
        at = context["dag_run"].run_after
        notices.tell_of(workspace, model, record, at=at, link=page_of(context))
        return reference.model_dump()

    def _open(self, context: Mapping[str, Any]) -> tuple["Workspace", ModelFile]:
        return _open(self.model, context["params"])

    def _call(self, workspace: "Workspace", model: ModelFile, context: Mapping[str, Any]) -> Reference:
        """The step itself. `at` is the moment of the run, the same in every retry."""
        from steward import steps

        at = context["dag_run"].run_after
        given = [_references(value) for value in self.takes]
        match self.step:
            case "accept":
                return steps.accept(workspace, model, at=at)
            case "split":
                return steps.split(workspace, model, given[0], detect=_loss_to_detect(context))
            case "train_candidate":
                return steps.train_candidate(
                    workspace, model, given[0], self.candidate, on_trial=_progress(context, model.search.trials)
                )
            case "verify":
                return steps.verify(workspace, model, given[0], at=at)
            case "approve":
                return steps.approve(workspace, model, given[0], **answer_of_person(self.answer))
            case "promote":
                return steps.promote(workspace, model, given[0], approval=given[1] if given[1:] else None, at=at)
        step: Callable[..., Reference] = getattr(steps, self.step)
        return step(workspace, model, *given)


class LookOperator(StepOperator):
    """One stage of a look at the champion. Without a champion there is nothing to look at, which is no failure."""

    ui_color: ClassVar[str] = "#eeeaf4"

    def _open(self, context: Mapping[str, Any]) -> tuple["Workspace", ModelFile]:  # noqa: ARG002 - it has no form
        from steward.io.workspace import Workspace

        workspace = Workspace(Settings.from_environment())
        return workspace, workspace.model(self.model)

    def _call(self, workspace: "Workspace", model: ModelFile, context: Mapping[str, Any]) -> Reference:
        from steward import pipeline

        run = context["dag_run"]
        given = [_references(value) for value in self.takes]
        try:
            return pipeline.run_look(workspace, model, self.step, given, at=run.run_after, events=events_of(run))
        except NoChampion as problem:
            raise AirflowSkipException(str(problem)) from problem


class TellOperator(BaseOperator):  # type: ignore[misc]
    """Hands what an event trigger fired for on to the model's monitor."""

    def execute(self, context: Mapping[str, Any]) -> None:
        heard = [event.extra["payload"] for event in context["dag_run"].consumed_asset_events]
        context["outlet_events"][self.outlets[0]].extra = {"events": heard}
        context["ti"].xcom_push("summary", "; ".join(payload["reason"] for payload in heard))


class ScoreOperator(BaseOperator):  # type: ignore[misc]
    """Batch scoring as one task; answers what became of the batch."""

    ui_color: ClassVar[str] = "#eef0f6"

    def __init__(self, *, model: str, **options: Any) -> None:
        super().__init__(**options)
        self.model = model

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        from steward import steps
        from steward.io.workspace import Workspace

        workspace = Workspace(Settings.from_environment())
        form, at = context["params"], context["dag_run"].run_after
        with _explained(context):
            scored = steps.score(workspace, workspace.model(self.model), form["input"], form["output"], at=at)
        notes = f": {'; '.join(scored.notes)}" if scored.notes else ""
        summary = f"version {scored.version} scored {scored.scored} of {scored.rows} rows into {scored.output}{notes}"
        context["ti"].xcom_push("summary", summary)
        return scored.as_json()


class OpeningOperator(StepOperator):
    """A step that opens sealed rows; a dry run ends before it."""

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        if context["params"]["dry_run"]:
            raise AirflowSkipException("dry run: no sealed row is opened")
        return super().execute(context)


@dataclass(frozen=True)
class Asked:
    """Why a run happens."""

    trigger: str
    reason: str
    by: str
    cause: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    detect: float | None = None
    """The loss that was measured: the verdict needs only as many rows as it takes to see that much."""


def who_asked(run: Any, params: Mapping[str, Any]) -> Asked:
    """What an asset event's `extra` says, the schedule, or the person who filled in the form."""
    for event in reversed(run.consumed_asset_events):
        extra = event.extra
        reason = str(extra.get("reason") or f"an event of {event.asset.uri}")
        by = str(extra.get("by") or event.source_dag_id or "Airflow")
        more = {name: extra[name] for name in ("cause", "evidence", "detect") if extra.get(name)}
        return Asked(str(extra.get("trigger") or "event"), reason, by, **more)
    if run.run_type == "scheduled":
        return Asked("schedule", "it was time", "Airflow")
    return Asked("manual", params["reason"] or "no reason given", run.triggering_user_name or "unknown")


def _loss_to_detect(context: Mapping[str, Any]) -> float | None:
    """The measured loss that `plan` was told, if a monitor asked for this run."""
    asked = context["ti"].xcom_pull(task_ids="plan", key="asked") or {}
    loss: float | None = asked.get("detect")
    return loss


def events_of(run: Any) -> tuple["Trigger", ...]:
    """The events that started a look, as triggers; an event that is told twice under one `id` is one cause."""
    from steward.core.retraining import Trigger

    found = {}
    for event in run.consumed_asset_events:
        for told in event.extra.get("events") or [event.extra]:
            name = str(told.get("id") or f"{event.asset.uri} {event.timestamp.isoformat()}")
            reason = str(told.get("reason") or f"an event of {event.asset.uri}")
            found[name] = Trigger("event", f"event:{name}", reason, event.timestamp, evidence=dict(told))
    return tuple(found.values())


def page_of(context: Mapping[str, Any]) -> str | None:
    """Where Airflow shows the task."""
    return getattr(context["ti"], "log_url", None)


def answer_of_person(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What `HITLOperator` answered, as arguments of the step `approve`; without an answer the default is refusal."""
    user = answer["responded_by_user"]
    at = datetime.fromisoformat(str(answer["responded_at"])).astimezone(UTC)
    why = (answer["params_input"] or {}).get("why") or ""
    if user is None:
        return {"decision": "timed_out", "by": "nobody", "why": f"no answer within {ANSWER_WITHIN.days} days", "at": at}
    approved = ApprovalOperator.APPROVE in answer["chosen_options"]
    decision = "approved" if approved else "refused"
    return {"decision": decision, "by": user.get("name") or user.get("id"), "why": why or "no reason given", "at": at}


SUMMARIES: dict[str, Callable[[Any], str]] = {
    "snapshot": lambda it: f"{it.rows} rows: {it.accepted} accepted, {it.rejected} rejected",
    "roles": lambda it: f"{_counted(it.rows)}; {it.needed} sealed rows are needed",
    "candidate": lambda it: (
        f"{it.metric} {it.validation.shown} on validation rows" if it.validation else f"failed: {it.error}"
    ),
    "selection": lambda it: f"{it.winner}: {it.reason}",
    "challenger": lambda it: f"{it.name} on {it.trained_rows} rows, served by {it.engine}: {it.parity.reason}",
    "verdict": lambda it: f"{it.verdict}: {'; '.join(it.reasons)}",
    "approval": lambda it: f"{it.decision} by {it.by}: {it.why}",
    "promotion": lambda it: (
        f"version {it.version}: {it.alias or 'kept as evidence'}; champion: {it.champion or 'none yet'}"
    ),
    "card": lambda it: it.path,
    "decision": lambda it: it.reason,
}
"""One sentence about each record, for people who look at a task."""


def summary_of(record: Record) -> str:
    """One sentence about a record; of a look, what it says."""
    if record.kind in SUMMARIES:
        return SUMMARIES[record.kind](record)
    return "; ".join(sentence.rstrip(".") for sentence in getattr(record, "says", ())) or "nothing to report"


def _counted(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {role}" for role, count in rows.items())


def links_of(workspace: "Workspace", record: Record) -> dict[str, str]:
    """Where a browser finds what a record speaks of; nothing where MLflow has no web address."""
    base = (workspace.settings.mlflow_ui or "").rstrip("/")
    if not base:
        return {}
    match record.as_json():
        case {"version": version, "model": model, "alias": _}:
            return {"MLflow": f"{base}/#/models/{model}/versions/{version}"}
        case {"path": path, "of": _, **card}:
            run_id = card.get("run_id")
            return {"Card": f"{_run_page(workspace, base, run_id)}/artifacts/{Path(path).name}"} if run_id else {}
        case {"run_id": str(run_id)}:
            return {"MLflow": _run_page(workspace, base, run_id)}
    return {}


def _run_page(workspace: "Workspace", base: str, run_id: str) -> str:
    experiment = workspace.registry.client.get_run(run_id).info.experiment_id
    return f"{base}/#/experiments/{experiment}/runs/{run_id}"


def _open(name: str, params: Mapping[str, Any]) -> tuple["Workspace", ModelFile]:
    from steward.io.workspace import Workspace

    workspace = Workspace(Settings.from_environment())
    model = workspace.model(name)
    chosen = tuple(params["candidates"] or ())
    return workspace, model.only(None if set(chosen) == set(model.candidate_names) else chosen, params["trials"])


def _references(value: Any) -> Any:
    """One reference, or those of all mapped tasks, which `plan` turned round, in the order of the model file."""
    if isinstance(value, Mapping):
        return Reference.model_validate(value)
    return [Reference.model_validate(item) for item in value][::-1]


def _progress(context: Mapping[str, Any], trials: int) -> Callable[[Any], None]:
    """Notes how far a search is in the task's state store, where Airflow's pages and `steward demo` read it."""
    last = datetime.min.replace(tzinfo=UTC)

    def note(trial: Any) -> None:
        nonlocal last
        now = datetime.now(UTC)
        if trial.number + 1 < trials and (now - last).total_seconds() < PROGRESS_EVERY:
            return
        last = now
        context["task_state_store"].set("trials", f"{trial.number + 1} of {trials}")

    return note


@contextmanager
def _explained(context: Mapping[str, Any]) -> Iterator[None]:
    """Leaves a refusal as XCom `error`: what, got, allowed, do."""
    try:
        yield
    except StewardError as problem:
        context["ti"].xcom_push("error", problem.as_json())
        raise


def announce(model: ModelFile, record: Record, outlets: Mapping[Any, Any]) -> None:
    """A new champion updates the model's asset, and a decision to train asks for a training; other records do neither."""
    if isinstance(record, Promotion) and record.alias == "champion":
        outlets[champion_alias(model.name)].add(champion_asset(model.name), extra={"version": record.version})
    if isinstance(record, Decision) and record.train and record.trigger:
        told = {"trigger": record.trigger["kind"], "reason": record.trigger["reason"], "by": f"{model.name}.monitor"}
        figures = {"cause": record.cause, "detect": record.detect, "evidence": record.trigger["evidence"]}
        outlets[retrain_alias(model.name)].add(retrain_asset(model.name), extra=told | figures)


def train_dag(model: ModelFile) -> DAG:
    """`<model>.train`: the stages of `steward.stages`, one task each."""
    dag = DAG(
        dag_id=f"{model.name}.train",
        description=model.description or None,
        doc_md=_documentation(model),
        schedule=_schedule(model),
        catchup=False,
        max_active_runs=1,
        params=_form(model),
        tags={"steward", model.name, model.task},
        default_args=DEFAULTS,
    )
    with dag:
        plan = PlanOperator(task_id="plan", model=model.name, execution_timeout=TIMEOUTS["plan"])
        made: dict[str, XComArg] = {}
        for stage in stages(model):
            made[stage.name] = _add_stage(model, stage, made, plan)
        plan >> dag.get_task("accept")
    return dag


def _add_stage(model: ModelFile, stage: Stage, made: Mapping[str, XComArg], plan: BaseOperator) -> XComArg:
    operator = OpeningOperator if stage.opens else StepOperator
    options: dict[str, Any] = {
        "task_id": stage.name,
        "step": stage.name,
        "model": model.name,
        "takes": [made[name] for name in stage.takes if name in made],
        "execution_timeout": TIMEOUTS.get(stage.name, TIMEOUT),
    }
    if stage.mapped:
        mapped = operator.partial(map_index_template="{{ task.candidate }}", **options).expand(candidate=plan.output)
        return XComArg(mapped)
    if stage.approval:
        options["answer"] = _ask_person(model, made["verify"])
    if stage.name == "promote":
        options["outlets"] = [champion_alias(model.name)]
    return operator(**options).output


def _ask_person(model: ModelFile, verdict: XComArg) -> XComArg:
    """The card of the verdict, and a question to a person about it.

    Not `ApprovalOperator`: it skips what follows a refusal, and ours goes on record.
    """
    card = StepOperator(task_id="card", step="report", model=model.name, takes=[verdict], execution_timeout=TIMEOUT)
    ask = HITLOperator(
        task_id="ask",
        subject=f"Promote the challenger of {model.name}?",
        body=(
            "{{ ti.xcom_pull(task_ids='verify', key='summary') }}\n\n"
            "Card: {{ ti.xcom_pull(task_ids='card', key='summary') }}"
        ),
        options=[ApprovalOperator.APPROVE, ApprovalOperator.REJECT],
        defaults=ApprovalOperator.REJECT,
        params={"why": Param("", type="string", title="Why", description="Goes on record with your answer")},
        response_timeout=ANSWER_WITHIN,
    )
    card >> ask
    return ask.output


def _schedule(model: ModelFile) -> Any:
    asset = retrain_asset(model.name)
    if model.retrain.schedule is None:
        return [asset]
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(model.retrain.schedule, timezone="UTC"), assets=[asset])


def _form(model: ModelFile) -> dict[str, Param]:
    """The trigger form."""
    names = list(model.candidate_names)
    return {
        "reason": Param("", type="string", maxLength=500, title="Why", description="Goes on record with this run"),
        "candidates": Param(
            names,
            type="array",
            items={"type": "string", "enum": names},
            examples=names,
            minItems=1,
            title="Candidates",
            description="Who competes in this run",
        ),
        "trials": Param(
            model.search.trials,
            type="integer",
            minimum=1,
            maximum=10_000,
            title="Trials",
            description="Settings tried per candidate",
        ),
        "dry_run": Param(
            False, type="boolean", title="Dry run", description="Stop before the sealed rows are opened: no verdict"
        ),
    }


def _documentation(model: ModelFile) -> str:
    """What Airflow shows of the model file."""
    columns = "\n".join(f"| {name} | {column.type} | {column.description} |" for name, column in model.columns.items())
    return (
        f"**{model.name}**: {model.description or 'no description'}\n\n"
        f"Trains {', '.join(model.candidate_names)} on `{model.source.table}`, chooses by {model.metric} on validation "
        f"rows, verifies the winner once on sealed rows, and promotes it "
        f"{'when a person agrees' if model.approve == 'person' else 'if the verdict allows'}.\n\n"
        f"| column | type | meaning |\n|---|---|---|\n{columns}\n| **{model.label.column}** | label | "
        f"{', '.join(model.classes) or 'a number'} |\n"
    )


def monitor_dag(model: ModelFile) -> DAG:
    """`<model>.monitor`: the stages of a look, one task each, by time and when another platform tells of an event."""
    schedule, asset = model.monitor.schedule, event_asset(model.name)
    by_time = CronTriggerTimetable(schedule, timezone="UTC") if schedule else None
    dag = DAG(
        dag_id=f"{model.name}.monitor",
        description=f"Watches the champion of {model.name} and asks for a training when that would help",
        schedule=AssetOrTimeSchedule(timetable=by_time, assets=[asset]) if by_time else [asset],
        catchup=False,
        max_active_runs=1,
        tags={"steward", model.name, model.task},
        default_args=DEFAULTS,
    )
    with dag:
        made: dict[str, XComArg] = {}
        for stage in MONITORING:
            made[stage.name] = LookOperator(
                task_id=stage.name,
                step=stage.name,
                model=model.name,
                takes=[made[name] for name in stage.takes],
                outlets=[retrain_alias(model.name)] if stage.name == "decide_retraining" else [],
                execution_timeout=TIMEOUT,
            ).output
    return dag


def event_dag(model: str, name: str, trigger: Any) -> DAG:
    """`<model>.<name>`: every time that an event trigger fires, the model's monitor looks and decides.

    Parameters
    ----------
    trigger : such as `steward_sensors.PlatformEventTrigger`; what it fires with has `id` and `reason`.
    """
    heard = Asset(
        name=f"{model}/{name}",
        uri=f"steward://{model}/{name}",
        group="steward",
        watchers=[AssetWatcher(name=f"{model}.{name}", trigger=trigger)],
    )
    dag = DAG(
        dag_id=f"{model}.{name}",
        description=f"Hears of an event and has {model}.monitor look at {model}",
        schedule=[heard],
        catchup=False,
        tags={"steward", model},
        default_args=DEFAULTS,
    )
    with dag:
        TellOperator(task_id="tell", outlets=[event_asset(model)], execution_timeout=TIMEOUTS["plan"])
    return dag


def score_dag(model: ModelFile) -> DAG:
    """`<model>.score`: batch scoring after a promotion, or on its own schedule, or only by hand without `score.input`."""
    place = "path, glob, URL or SQL table"
    schedule: Any = None
    if model.score.input is not None:
        own = model.score.schedule
        schedule = CronTriggerTimetable(own, timezone="UTC") if own else [champion_asset(model.name)]
    dag = DAG(
        dag_id=f"{model.name}.score",
        description=f"Asks the champion of {model.name} about every row of a table",
        schedule=schedule,
        catchup=False,
        max_active_runs=1,
        params={
            "input": Param(
                model.score.input or "",
                type="string",
                minLength=1,
                title="Input",
                description=f"What to score: {place}",
            ),
            "output": Param(
                model.score.output or "",
                type="string",
                minLength=1,
                title="Output",
                description="Where the answers go: a Parquet or CSV file, or a SQL table",
            ),
        },
        tags={"steward", model.name, model.task},
        default_args=DEFAULTS,
    )
    with dag:
        ScoreOperator(task_id="score", model=model.name, execution_timeout=TIMEOUTS["score"])
    return dag


def train_dags(settings: Settings | None = None) -> dict[str, DAG]:
    """`<model>.train` for every model file that can be read; in a task only the DAG that the task belongs to."""
    return _dags("train", train_dag, settings)


def monitor_dags(settings: Settings | None = None) -> dict[str, DAG]:
    """`<model>.monitor`, likewise."""
    return _dags("monitor", monitor_dag, settings)


def score_dags(settings: Settings | None = None) -> dict[str, DAG]:
    """`<model>.score`, likewise."""
    return _dags("score", score_dag, settings)


def _dags(kind: str, make: Callable[[ModelFile], DAG], settings: Settings | None) -> dict[str, DAG]:
    settings = settings or Settings.from_environment()
    wanted = get_parsing_context().dag_id
    dags = {}
    for path in settings.model_paths():
        if wanted in (None, f"{path.stem}.{kind}"):
            try:
                dag = make(settings.model(path.stem))
            except ModelFileError:
                continue  # `refuse_broken_model_files` tells, in a DAG file of its own
            dags[dag.dag_id] = dag
    return dags


def refuse_broken_model_files(settings: Settings | None = None) -> None:
    """Raises one ModelFileError that lists every model file that cannot be read.

    Airflow takes down every DAG of a file that has an import error. So this is called by a DAG file that has no DAGs.
    """
    settings = settings or Settings.from_environment()
    problems = []
    for path in settings.model_paths():
        try:
            settings.model(path.stem)
        except ModelFileError as problem:
            problems.append(problem.what)
    if problems:
        raise ModelFileError("\n".join(problems), do="Until then these models have no DAGs; the others run") from None
