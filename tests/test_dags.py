"""The DAG files: what they make of model files, and what their tasks do with a run."""

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="steward-airflow-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

from airflow.sdk.exceptions import AirflowSkipException
from airflow.serialization.serialized_objects import DagSerialization

from steward import airflow_tasks, errors
from steward.config import ModelFile, Settings
from steward.errors import LedgerUnavailable, StewardError
from steward.io.workspace import Workspace
from steward.records import Decision, Promotion, Reference, Snapshot
from steward.stages import MONITORING, STAGES, stages

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "models" / "deployment_risk.yaml").read_text(encoding="utf-8")
AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
BY_PERSON = TEXT.replace("approve: automatic", "approve: person")


def model_of(text: str) -> ModelFile:
    return ModelFile.parse(text, "models/test.yaml")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one good model file."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "deployment_risk.yaml").write_text(TEXT)
    return folder


def settings_of(folder: Path) -> Settings:
    return Settings.from_environment({"STEWARD_HOME": str(folder / "home"), "STEWARD_MODELS": str(folder / "models")})


class Task:
    """What a running task has of Airflow, kept in memory."""

    def __init__(
        self,
        *,
        dry_run=False,
        candidates=("decision_tree",),
        events=(),
        run_type="manual",
        reason="a test",
        run_id="run-1",
        at=AT,
    ):
        self.pushed, self.noted = {}, {}
        self.context = {
            "params": {"dry_run": dry_run, "candidates": list(candidates), "trials": 2, "reason": reason},
            "ti": SimpleNamespace(
                xcom_push=self.pushed.__setitem__,
                xcom_pull=lambda task_ids, key: self.pushed.get(key),
                task_id="accept",
                log_url="http://127.0.0.1:8080/dags/a.train/runs/1/tasks/accept",
            ),
            "task_state_store": SimpleNamespace(set=self.noted.__setitem__),
            "outlet_events": {},
            "dag_run": SimpleNamespace(
                dag_id="deployment_risk.train",
                run_id=run_id,
                run_after=at,
                run_type=run_type,
                triggering_user_name="ana",
                consumed_asset_events=list(events),
            ),
        }


@pytest.mark.parametrize("text", [TEXT, BY_PERSON], ids=["automatic", "person"])
def test_the_dag_has_the_edges_of_the_stages(text):
    model = model_of(text)
    dag = airflow_tasks.train_dag(model)
    for stage in stages(model):
        taken = {name for name in stage.takes if name in {other.name for other in stages(model)}}
        assert taken <= dag.get_task(stage.name).upstream_task_ids
    extra = set(dag.task_ids) - {stage.name for stage in stages(model)}
    assert extra == ({"plan", "card", "ask"} if model.approve == "person" else {"plan"})


SCORED = TEXT + 'score: {input: waiting.parquet, output: answers.parquet, schedule: "0 5 * * *"}\n'


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        (TEXT, None),
        (SCORED, "0 5 * * *"),
        (SCORED.replace(', schedule: "0 5 * * *"', ""), "steward://deployment_risk/champion"),
    ],
    ids=["by hand only", "by time", "after a promotion"],
)
def test_a_batch_runs_after_a_promotion_or_by_time(text, schedule):
    dag = airflow_tasks.score_dag(model_of(text))
    asset = getattr(dag.timetable, "asset_condition", None)
    assert (dag.dag_id, dag.task_ids, dag.catchup) == ("deployment_risk.score", ["score"], False)
    assert schedule == (asset.objects[0].uri if asset else getattr(dag.timetable, "expression", None))
    assert DagSerialization.to_dict(dag)


@pytest.mark.parametrize("field", ["input", "output"])
def test_the_batch_form_is_typed(field):
    form = airflow_tasks.score_dag(model_of(SCORED)).params
    assert form.get_param(field).resolve() in ("waiting.parquet", "answers.parquet")
    for bad in ("", 5):
        with pytest.raises(Exception, match="Failed validating"):
            form.get_param(field).resolve(bad)
    with pytest.raises(Exception, match="Failed validating"):
        airflow_tasks.score_dag(model_of(TEXT)).params.get_param(field).resolve()


def test_a_batch_task_scores_and_may_run_again(trained, tmp_path, monkeypatch):
    for name, value in trained.environment.items():
        monkeypatch.setenv(name, value)
    form = {"input": str(trained.rows), "output": str(tmp_path / "answers.parquet")}
    for _ in range(2):
        task = Task()
        task.context["params"] = form
        answer = airflow_tasks.ScoreOperator(task_id="score", model="risk").execute(task.context)
        assert json.loads(json.dumps(answer))["scored"] == len(pd.read_parquet(form["output"])) == 600
        assert task.pushed["summary"] == f"version 1 scored 600 of 600 rows into {form['output']}"
    task.context["params"] = form | {"input": "nothing.parquet"}
    with pytest.raises(errors.SourceMissing, match="no file matches"):
        airflow_tasks.ScoreOperator(task_id="score", model="risk").execute(task.context)
    assert task.pushed["error"]["error"] == "SourceMissing"


def test_the_monitor_has_the_edges_of_its_stages_and_asks_only_when_it_decides_to():
    dag = airflow_tasks.monitor_dag(model_of(TEXT))
    assert set(dag.task_ids) == {stage.name for stage in MONITORING}
    for stage in MONITORING:
        assert dag.get_task(stage.name).upstream_task_ids == set(stage.takes)
    outlets = {task.task_id: [outlet.name for outlet in task.outlets] for task in dag.tasks if task.outlets}
    assert outlets == {"decide_retraining": ["deployment_risk/decision"]}
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert DagSerialization.to_dict(dag)


@pytest.mark.parametrize(
    ("text", "expression"),
    [(TEXT, "0 0 * * *"), (TEXT.replace('schedule: "@daily"', "schedule: null"), None)],
    ids=["by time", "when told"],
)
def test_the_monitor_looks_by_time_and_when_a_platform_tells_of_an_event(text, expression):
    dag = airflow_tasks.monitor_dag(model_of(text))
    assert [asset.uri for asset in dag.timetable.asset_condition.objects] == ["steward://deployment_risk/event"]
    assert getattr(getattr(dag.timetable, "timetable", None), "expression", None) == expression


def test_candidates_are_mapped_and_named():
    task = airflow_tasks.train_dag(model_of(TEXT)).get_task("train_candidate")
    assert task.is_mapped
    assert task.map_index_template == "{{ task.candidate }}"
    assert task.upstream_task_ids == {"plan", "split"}


def test_a_person_is_asked_after_the_card_and_before_the_promotion():
    dag = airflow_tasks.train_dag(model_of(BY_PERSON))
    ask = dag.get_task("ask")
    assert (ask.upstream_task_ids, ask.downstream_task_ids) == ({"card"}, {"approve"})
    assert (ask.defaults, ask.response_timeout) == (["Reject"], airflow_tasks.ANSWER_WITHIN)
    assert "xcom_pull(task_ids='card'" in ask.body


def test_runs_are_started_by_time_or_by_the_asset():
    dag = airflow_tasks.train_dag(model_of(TEXT))
    assert [asset.uri for asset in dag.timetable.asset_condition.objects] == ["steward://deployment_risk/retrain"]
    assert dag.timetable.timetable.expression == "0 6 * * 1"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    without_time = airflow_tasks.train_dag(model_of(TEXT.replace('schedule: "0 6 * * 1", ', "")))
    assert type(without_time.timetable).__name__ == "AssetTriggeredTimetable"


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("reason", "the team changed", 5),
        ("candidates", ["decision_tree"], ["no_such_candidate"]),
        ("candidates", ["decision_tree", "random_forest"], []),
        ("trials", 3, "many"),
        ("trials", 1, 0),
        ("dry_run", True, "perhaps"),
    ],
)
def test_the_trigger_form_is_typed(field, good, bad):
    form = airflow_tasks.train_dag(model_of(TEXT)).params
    assert form.get_param(field).resolve(good) == good
    with pytest.raises(Exception, match="Failed validating"):
        form.get_param(field).resolve(bad)


@pytest.mark.parametrize(
    ("problem", "action"),
    [
        (errors.LedgerUnavailable("locked"), "retry"),
        (errors.StoreUnavailable("disk full"), "retry"),
        (errors.RegistryUnavailable("no answer"), "retry"),
        (errors.SourceUnavailable("no answer"), "retry"),
        (errors.ContractRefused("refused"), "fail"),
        (errors.NotEnoughSealedRows("too few"), "fail"),
        (KeyError("a fault"), "fail"),
        (OSError("who knows"), "default"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_an_error_decides_whether_it_is_tried_again(problem, action):
    assert airflow_tasks.RETRY_POLICY.evaluate(problem, 1, 3).action.value == action


def test_every_error_has_its_place_in_the_policy():
    for kind in StewardError.__subclasses__():
        action = airflow_tasks.RETRY_POLICY.evaluate(kind("x"), 1, 3).action.value
        assert action == ("retry" if kind.retryable else "fail")


def test_the_dag_is_the_same_each_time_it_is_read():
    first, second = (DagSerialization.to_dict(airflow_tasks.train_dag(model_of(BY_PERSON))) for _ in range(2))
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def test_in_a_task_only_its_own_dag_is_made(models, tmp_path, monkeypatch):
    (models / "other.yaml").write_text(TEXT.replace("name: deployment_risk", "name: other"))
    assert set(airflow_tasks.train_dags(settings_of(tmp_path))) == {"deployment_risk.train", "other.train"}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "other.train")
    assert set(airflow_tasks.train_dags(settings_of(tmp_path))) == {"other.train"}
    assert set(airflow_tasks.score_dags(settings_of(tmp_path))) == set()


READ = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1], bundle_name="steward")
heavy = [name for name in ("pandas", "sklearn", "mlflow", "great_expectations") if name in sys.modules]
print(json.dumps({"dags": sorted(bag.dags), "errors": bag.import_errors, "heavy": heavy}))
"""


def test_a_broken_model_file_is_one_import_error_and_reading_is_light(models, tmp_path):
    (models / "broken.yaml").write_text(TEXT.replace("min: 500", "min: many"))
    environment = {
        **os.environ,
        "STEWARD_MODELS": str(models),
        "STEWARD_HOME": str(tmp_path / "home"),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
    }
    command = [sys.executable, "-c", READ, str(ROOT / "dags")]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(answer.stdout.splitlines()[-1])
    assert {f"deployment_risk.{kind}" for kind in ("train", "score", "monitor")} <= set(found["dags"])
    assert not any(dag.startswith("broken") for dag in found["dags"])
    [(file, message)] = found["errors"].items()
    assert file.endswith("model_files.py")
    assert "broken.yaml:16: rows.min" in message
    assert found["heavy"] == []


EVENT = SimpleNamespace(
    extra={"trigger": "accuracy", "reason": "82 % after 89 %", "by": "deployment_risk.monitor"},
    asset=SimpleNamespace(uri="steward://deployment_risk/retrain"),
    source_dag_id="deployment_risk.monitor",
)
CAUSE = {"cause": "accuracy:1", "evidence": {"value": 0.82}, "detect": 0.07}
ASKED_EVENT = SimpleNamespace(extra=EVENT.extra | CAUSE, asset=EVENT.asset, source_dag_id=None)
BARE_EVENT = SimpleNamespace(extra={}, asset=EVENT.asset, source_dag_id=None)


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        (Task(reason="new team"), ("manual", "new team", "ana")),
        (Task(reason=""), ("manual", "no reason given", "ana")),
        (Task(run_type="scheduled"), ("schedule", "it was time", "Airflow")),
        (Task(events=[EVENT]), ("accuracy", "82 % after 89 %", "deployment_risk.monitor")),
        (Task(events=[BARE_EVENT]), ("event", "an event of steward://deployment_risk/retrain", "Airflow")),
    ],
)
def test_a_run_says_who_asked_and_why(task, asked):
    found = airflow_tasks.who_asked(task.context["dag_run"], task.context["params"])
    assert (found.trigger, found.reason, found.by) == asked


def test_a_run_that_a_monitor_asked_for_is_on_record_with_its_cause_and_starts_once(home):
    plan = airflow_tasks.PlanOperator(task_id="plan", model="deployment_risk")
    first = Task(events=[ASKED_EVENT])
    for _ in range(2):
        plan.execute(first.context)
    assert first.pushed["summary"] == "deployment_risk.monitor asked (accuracy): 82 % after 89 %"
    assert airflow_tasks._loss_to_detect(first.context) == 0.07
    [entry] = Workspace(Settings.from_environment()).ledger.entries("deployment_risk", "trigger")
    assert entry.body["evidence"] == {"value": 0.82}
    with pytest.raises(AirflowSkipException, match="started for this already: run-1"):
        plan.execute(Task(events=[ASKED_EVENT], run_id="run-2").context)


def test_a_schedule_waits_for_enough_new_rows(home, monkeypatch):
    monkeypatch.setattr("steward.operations.too_early", lambda *_, at: "3 labelled rows since the last training")
    plan = airflow_tasks.PlanOperator(task_id="plan", model="deployment_risk")
    with pytest.raises(AirflowSkipException, match="3 labelled rows"):
        plan.execute(Task(run_type="scheduled").context)
    assert plan.execute(Task().context) == ["decision_tree"]


FALLEN = {
    "kind": "accuracy",
    "cause": "accuracy:1",
    "reason": "it fell",
    "at": AT.isoformat(),
    "evidence": {"value": 0.82},
    "loss": 0.07,
    "loss_low": 0.05,
}


@pytest.mark.parametrize(
    ("train", "trigger", "extra"),
    [
        (
            True,
            FALLEN,
            {
                "trigger": "accuracy",
                "cause": "accuracy:1",
                "reason": "it fell",
                "evidence": {"value": 0.82},
                "detect": 0.07,
                "by": "deployment_risk.monitor",
            },
        ),
        (False, None, None),
    ],
)
def test_only_a_decision_to_train_asks_for_a_training(train, trigger, extra):
    added = []
    outlet = SimpleNamespace(add=lambda asset, extra: added.append((asset.uri, extra)))
    decision = Decision(
        model="deployment_risk",
        subject="s",
        at=AT,
        train=train,
        reason="r",
        trigger=trigger,
        cause="accuracy:1" if train else None,
        detect=0.07 if train else None,
    )
    key = airflow_tasks.retrain_alias("deployment_risk")
    airflow_tasks.announce(model_of(TEXT), decision, {key: outlet})
    assert added == ([("steward://deployment_risk/retrain", extra)] if extra else [])


def told(**extra):
    return SimpleNamespace(extra=extra, asset=SimpleNamespace(uri="steward://m/event"), timestamp=AT)


@pytest.mark.parametrize(
    ("events", "causes"),
    [
        ([], []),
        ([told()], [("event:steward://m/event 2026-03-02T06:00:00+00:00", "an event of steward://m/event")]),
        ([told(id="a", reason="moved"), told(id="a", reason="moved")], [("event:a", "moved")]),
        ([told(events=[{"id": "a", "reason": "x"}, {"id": "b", "reason": "y"}])], [("event:a", "x"), ("event:b", "y")]),
    ],
)
def test_events_of_other_platforms_become_triggers(events, causes):
    found = airflow_tasks.events_of(SimpleNamespace(consumed_asset_events=events))
    assert [(trigger.cause, trigger.reason) for trigger in found] == causes
    assert all((trigger.kind, trigger.at) == ("event", AT) for trigger in found)


def test_a_model_without_a_champion_is_not_looked_at(home):
    look = airflow_tasks.LookOperator(task_id="observe", step="observe", model="deployment_risk")
    with pytest.raises(AirflowSkipException, match="has no champion yet"):
        look.execute(Task().context)


def test_the_callback_of_a_failed_task_tells_people_and_never_fails(home, models, monkeypatch):
    heard = []
    monkeypatch.setattr("steward.notices.tell", lambda *given, link, at: heard.append((given, link, at)) or 1)
    (models / "deployment_risk.yaml").write_text(TEXT.replace("notify: []", "notify: ['json://127.0.0.1:1']"))
    airflow_tasks.tell_of_failure(Task().context | {"exception": LedgerUnavailable("locked")})
    [((_, name, urls, [notice]), link, at)] = heard
    assert (name, urls, at) == ("deployment_risk", ("json://127.0.0.1:1",), AT)
    assert notice.title == "deployment_risk: a run failed"
    assert "deployment_risk.train of 2026-03-02 06:00 (run-1), task accept: LedgerUnavailable: locked" in notice.text
    assert link.endswith("/tasks/accept")
    [entry] = Workspace(Settings.from_environment()).ledger.entries("deployment_risk", "failure")
    assert (entry.subject, entry.body["error"]) == ("run-1", "LedgerUnavailable")


@pytest.mark.parametrize(
    ("answer", "decision", "by", "why"),
    [
        (("Approve", {"id": "1", "name": "ana"}, {"why": "looks right"}), "approved", "ana", "looks right"),
        (("Reject", {"id": "1", "name": "ana"}, {"why": ""}), "refused", "ana", "no reason given"),
        (("Reject", None, {}), "timed_out", "nobody", "no answer within 7 days"),
    ],
)
def test_an_answer_becomes_a_decision(answer, decision, by, why):
    chosen, user, form = answer
    found = airflow_tasks.answer_of_person(
        {
            "chosen_options": [chosen],
            "responded_by_user": user,
            "params_input": form,
            "responded_at": "2026-03-02T06:00:00+00:00",
        }
    )
    assert found == {"decision": decision, "by": by, "why": why, "at": AT}


@pytest.fixture
def home(models, tmp_path, monkeypatch) -> Path:
    """The environment of a task: a home, a model file, and a table."""
    from steward.examples import deployments

    deployments.write(tmp_path / "data" / "deployments", deployments.simulate(600))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEWARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STEWARD_MODELS", str(models))
    monkeypatch.setenv("STEWARD_MLFLOW_UI", "http://127.0.0.1:5000")
    return tmp_path


def test_planning_puts_the_reason_on_record_and_names_the_candidates_last_first(home):
    task = Task(candidates=["random_forest", "decision_tree"], reason="new team")
    assert airflow_tasks.PlanOperator(task_id="plan", model="deployment_risk").execute(task.context) == [
        "decision_tree",
        "random_forest",
    ]
    [entry] = Workspace(Settings.from_environment()).ledger.entries("deployment_risk", "trigger")
    assert entry.body["reason"] == "new team"
    assert (entry.subject, entry.at, task.pushed["asked"]["by"]) == ("run-1", AT, "ana")


def test_a_step_answers_with_a_plain_reference(home):
    task = Task()
    step = airflow_tasks.StepOperator(task_id="accept", step="accept", model="deployment_risk")
    answer = json.loads(json.dumps(step.execute(task.context)))
    snapshot = Workspace(Settings.from_environment()).load(Snapshot, Reference.model_validate(answer))
    assert snapshot.accepted == 600
    assert task.pushed["summary"] == "600 rows: 600 accepted, 0 rejected"


def test_candidates_come_back_in_the_order_of_the_model_file():
    references = [Reference(kind="candidate", uri="u", digest=name) for name in ("last", "first")]
    found = airflow_tasks._references([reference.model_dump() for reference in references])
    assert [reference.digest for reference in found] == ["first", "last"]


def test_a_refusal_leaves_its_facts(home):
    (home / "data" / "deployments").rename(home / "elsewhere")
    task = Task()
    with pytest.raises(errors.SourceMissing, match="no file matches"):
        airflow_tasks.StepOperator(task_id="accept", step="accept", model="deployment_risk").execute(task.context)
    assert task.pushed["error"]["error"] == "SourceMissing"


def test_a_dry_run_ends_before_the_sealed_rows():
    [opens] = [stage.name for stage in STAGES if stage.opens]
    task = airflow_tasks.train_dag(model_of(TEXT)).get_task(opens)
    with pytest.raises(AirflowSkipException, match="no sealed row is opened"):
        task.execute(Task(dry_run=True).context)


@pytest.mark.parametrize(("alias", "events"), [("champion", 1), ("challenger", 0)])
def test_only_a_new_champion_updates_the_asset(alias, events):
    added = []
    promotion = Promotion(
        model="deployment_risk",
        verdict=Reference(kind="verdict", uri="u", digest="d"),
        version=3,
        alias=alias,
        champion=3,
        previous=2,
        reasons=(),
        at=AT,
    )
    outlet = SimpleNamespace(add=lambda asset, extra: added.append((asset.uri, extra)))
    key = airflow_tasks.champion_alias("deployment_risk")
    airflow_tasks.announce(model_of(TEXT), promotion, {key: outlet})
    assert added == [("steward://deployment_risk/champion", {"version": 3})] * events


def test_the_retry_policy_reaches_every_task():
    for task in airflow_tasks.train_dag(model_of(BY_PERSON)).tasks:
        assert task.retry_policy is airflow_tasks.RETRY_POLICY
        assert task.retries == airflow_tasks.RETRIES
        assert task.task_id == "ask" or task.execution_timeout


def test_a_lost_database_is_what_steward_calls_retryable():
    assert LedgerUnavailable.retryable
