"""The running example, start to finish.

A company's past deployments, a DAG run in Airflow, a verified champion in MLflow, and a service that it answers through:
new deployments ask it, and their outcomes come back to it. Then a month passes that changes the company: monitoring finds
what that costs and why, and asks for a training, whose champion the service takes up.

The company's time is not ours. What it does in January 2026 goes on record as of January 2026, and runs in Airflow are of
the moment that they look from; only what is asked over HTTP happens now.
"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from steward.config import ModelFile, Settings
from steward.errors import StewardError
from steward.examples import deployments
from steward.io.predictions import Logged, new_id
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.processes import Programs
from steward.records import (
    Accuracy,
    Candidate,
    Decision,
    Drift,
    Promotion,
    Quality,
    Record,
    Reference,
    Selection,
    Verdict,
)
from steward.standalone import USER, AirflowApi, NotReady, ServiceApi, Site, free_port, start_service, start_site

MODEL = "deployment_risk"
TRAIN, MONITOR = f"{MODEL}.train", f"{MODEL}.monitor"
AIRFLOW_PORT, MLFLOW_PORT, SERVICE_PORT = 8080, 5000, 8000
RUN_WITHIN = 3_600.0
"""Seconds that a run may take before the demo gives up on it."""
FOLLOWED_WITHIN = 60.0
"""Seconds in which Airflow has to start the training that was asked for, and the service to take up its champion."""
REQUESTS, ALONE = 300, 60
"""New deployments that ask the service, and how many of them come one by one."""
MONTH = 2_000
"""Deployments of the month after."""
MATURE = timedelta(days=7)
"""How old a label has to be, as the model file says."""
MONTH_BEGINS = deployments.UNTIL + MATURE
"""The first training is of this moment: every label of the past is final."""
MONTH_ENDS = MONTH_BEGINS + timedelta(days=MONTH // deployments.PER_DAY)
LOOKED_AT = MONTH_ENDS + MATURE + timedelta(days=1)
RECORD = {"files_changed": 120, "environment": "prod", "team": "payments", "hour": 23, "previous_failures": 2}
"""What the `curl` line asks about."""
R = TypeVar("R", bound=Record)
T = TypeVar("T")
LOOK_EVERY = 0.5
SENTENCES = 6
"""The most that each part of a look says here; `steward monitor` and the task's XCom say all."""
LONGEST = 160
"""Characters of a task's note while it is followed."""
ENDED = ("success", "failed")
MARKS = {"success": "[green]✓[/]", "failed": "[red]✗[/]", "upstream_failed": "[red]·[/]", "running": "[yellow]●[/]"}


def run(*, once: bool, fresh: bool = False, form: Mapping[str, Any] | None = None) -> int:
    """Start everything, train, show what came of it, and serve until Ctrl-C; ends every process it started.

    Parameters
    ----------
    once : end after the training.
    fresh : set what an earlier demo left aside and begin anew.
    form : parameters of the training, such as `{"trials": 2}`.

    Returns
    -------
    Exit code: 0 if a champion was promoted, answered over HTTP and got its outcomes, and if after the month monitoring asked
    for a second one that was promoted and serves (without `once`: or if somebody ended it after that), 1 if not.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    settings = Settings.from_environment()
    try:
        with _signals_as_exit():
            return _run(console, settings, once=once, fresh=fresh, form=form or {})
    except KeyboardInterrupt:
        console.print("\nEnded before the training had.")
        return 130
    except StewardError as problem:
        console.print(f"[red]{problem.name}[/]: {problem}", markup=True)
        return 1


def _run(console: Console, settings: Settings, *, once: bool, fresh: bool, form: Mapping[str, Any]) -> int:
    model = settings.model(MODEL)
    if fresh:
        _set_aside(console, settings.home)
    ports = {"Airflow": AIRFLOW_PORT, "MLflow": MLFLOW_PORT, "The service": SERVICE_PORT}
    site = Site(settings, _dags_folder(), *(_port(console, name, port) for name, port in ports.items()))
    with Programs() as programs:
        console.print("Starting Airflow and MLflow; this takes a minute or less. Everything ends with this program.")
        with _progress(console) as say:
            _simulate(model, say)
            start_site(site, programs, say)
            api = AirflowApi(site)
            for dag_id in (TRAIN, MONITOR):
                say(f"waiting until Airflow has read {dag_id}")
                api.await_dag(dag_id)
        _tell_where(console, site)
        run_id = api.trigger(TRAIN, {"reason": "steward demo", **form}, MONTH_BEGINS)
        promoted = _follow_training(console, Workspace(settings), api, run_id)
        served = _has_champion(settings) and _use_service(console, site, programs)
        renewed = promoted and served and _live_on(console, Workspace(settings), api, ServiceApi(site, MODEL))
        shown = served and _show_curl(console, site)
        if not once:
            _serve(console, site)
    return 0 if renewed and shown else 1


@contextmanager
def _signals_as_exit() -> Iterator[None]:
    """SIGTERM and SIGHUP leave every `with` block in order, as Ctrl-C does."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(console: Console) -> Iterator[Any]:
    """Says what is being waited for: a moving line on a terminal, plain lines elsewhere."""
    started = time.monotonic()
    if not console.is_terminal:
        yield lambda text: console.print(f"  {time.monotonic() - started:5.1f} s  {text}")
        return
    with console.status("") as status:
        yield lambda text: status.update(f"{text} …")


def _set_aside(console: Console, home: Path) -> None:
    if home.exists():
        aside = home.with_name(f"{home.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
        home.rename(aside)
        console.print(f"What was in {home} is now in {aside}.")


def _dags_folder() -> Path:
    for folder in (Path.cwd() / "dags", Path(__file__).parents[2] / "dags"):
        if (folder / "train.py").exists():
            return folder
    raise NotReady("the folder of DAG files was not found", got=str(Path.cwd()), do="Run this in Steward's own folder")


def _port(console: Console, name: str, preferred: int) -> int:
    port = free_port(preferred)
    if port != preferred:
        console.print(f"Port {preferred} is taken; {name} listens on {port}.")
    return port


def _simulate(model: ModelFile, say: Any) -> None:
    """The company's past, where the model file expects it."""
    source = Path(model.source.table)
    if list(source.parent.glob(source.name)):
        return
    say("simulating 10,000 deployments of a company")
    deployments.write(source.parent, deployments.simulate())


def _tell_where(console: Console, site: Site) -> None:
    console.print(f"Airflow  {site.airflow_url}/dags/{TRAIN}  (user {USER}, password {site.keys['password']})")
    console.print(f"Steward  {site.airflow_url}/plugin/steward  (in Airflow's menu)")
    console.print(f"MLflow   {site.mlflow_url}")
    console.print(f"Service  {site.service_url}/docs  (once there is a champion)")


def _follow_training(console: Console, workspace: Workspace, api: AirflowApi, run_id: str) -> bool:
    """Shows a training and what came of it; True if a champion was promoted."""
    state = _follow(console, api, TRAIN, run_id)
    return _tell_result(console, workspace, api, run_id, state)


def _follow(console: Console, api: AirflowApi, dag_id: str, run_id: str) -> str:
    """Shows the run's tasks until it has ended; answers its state."""
    states = _states(api, dag_id, run_id)
    return _show_live(console, dag_id, states) if console.is_terminal else _show_lines(console, states)


def _states(api: AirflowApi, dag_id: str, run_id: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The run's state and its tasks, in order, each with `label`, `note` and `seconds`, until the run has ended."""
    end = time.monotonic() + RUN_WITHIN
    summaries: dict[str, str] = {}
    while True:
        state = api.state(dag_id, run_id)
        tasks = sorted(api.tasks(dag_id, run_id), key=lambda task: (task["start_date"] or "~", task["map_index"]))
        yield state, [_described(api, task, summaries) for task in tasks]
        if state in ENDED:
            return
        if time.monotonic() > end:
            raise NotReady(f"{dag_id} did not end in time", allowed=f"{RUN_WITHIN:g} seconds")
        time.sleep(LOOK_EVERY)


def _described(api: AirflowApi, task: dict[str, Any], summaries: dict[str, str]) -> dict[str, Any]:
    note, state = summaries.get(task["id"]), task["state"]
    if note is None and state == "success":
        note = summaries[task["id"]] = api.xcom(task, "summary") or ""
    elif note is None and state == "failed":
        note = summaries[task["id"]] = _refusal(api.xcom(task, "error"))
    elif state == "running" and task["task_id"] == "train_candidate":
        note = f"{api.noted(task, 'trials') or 0} trials"
    label = task["task_id"] if task["map_index"] < 0 else f"  {task['rendered_map_index'] or task['map_index']}"
    return {**task, "label": label, "note": note or "", "seconds": task["duration"] or 0.0}


def _refusal(error: Mapping[str, Any] | None) -> str:
    if error is None:
        return "failed; its log in Airflow says why"
    got = f": got {error['got']}" if error["got"] else ""
    return f"{error['error']}: {error['what']}{got}. {error['do'] or ''}"


def _show_live(console: Console, dag_id: str, states: Iterator[tuple[str, list[dict[str, Any]]]]) -> str:
    state = ""
    with Live(console=console, refresh_per_second=4) as live:
        for state, tasks in states:
            table = Table(box=None, show_header=False)
            for task in tasks:
                mark = MARKS.get(task["state"] or "", "[dim]○[/]")
                table.add_row(mark, task["label"], f"{task['seconds']:.1f} s" if task["seconds"] else "", _brief(task))
            live.update(Group(f"{dag_id} is {state}", table))
    return state


def _brief(task: Mapping[str, Any]) -> str:
    """A task's note in one line; what a look says in full comes afterwards."""
    note: str = task["note"]
    return note if len(note) <= LONGEST else f"{note[:LONGEST].rsplit(' ', 1)[0]} …"


def _show_lines(console: Console, states: Iterator[tuple[str, list[dict[str, Any]]]]) -> str:
    state, told = "", set()
    for state, tasks in states:  # noqa: B007 - the last one is the answer
        for task in tasks:
            line = (task["id"], task["state"])
            named = task["map_index"] < 0 or not str(task["rendered_map_index"] or 0).isdigit()
            if named and task["state"] in ("running", *ENDED, "skipped") and line not in told:
                told.add(line)
                ended = f" {_brief(task)}" if task["state"] != "running" else ""
                console.print(f"  {task['label'].strip()}: {task['state']}{ended}", markup=False, soft_wrap=True)
    return state


def _tell_result(console: Console, workspace: Workspace, api: AirflowApi, run_id: str, state: str) -> bool:
    """Candidates, choice, verdict and champion, or why there is none; True if a champion was promoted."""
    tasks = api.tasks(TRAIN, run_id)
    candidates = _made(workspace, api, tasks, Candidate, "train_candidate")
    selections = _made(workspace, api, tasks, Selection, "select")
    if candidates:
        console.print(_candidates_table(candidates, selections[0].winner if selections else None))
    for selection in selections:
        console.print(f"Chosen: {selection.winner}. {selection.reason}")
    for verdict in _made(workspace, api, tasks, Verdict, "verify"):
        _tell_verdict(console, verdict)
    promotions = _made(workspace, api, tasks, Promotion, "promote")
    for promotion in promotions:
        console.print(
            f"Version {promotion.version} is the {promotion.alias}; champion: {promotion.champion or 'none'}."
        )
    for task in tasks:
        if task["task_id"] == "report" and (path := api.xcom(task, "summary")):
            console.print(f"Card     {path}", soft_wrap=True)
        if task["state"] == "failed":
            _tell_refusal(console, api, task)
    return state == "success" and any(promotion.alias == "champion" for promotion in promotions)


def _made(
    workspace: Workspace, api: AirflowApi, tasks: Sequence[Mapping[str, Any]], kind: type[R], task_id: str
) -> list[R]:
    """The records that a run's task has made; several if it is mapped."""
    found = [api.xcom(task, "return_value") for task in tasks if task["task_id"] == task_id]
    return [workspace.load(kind, Reference.model_validate(value)) for value in found if value]


def _has_champion(settings: Settings) -> bool:
    newest = Workspace(settings).ledger.entries(MODEL, Promotion.kind, newest_first=True, limit=1)
    return bool(newest and newest[0].body["champion"])


def _use_service(console: Console, site: Site, programs: Programs) -> bool:
    """New deployments ask the service, and their outcomes are posted; True if all of them were answered and known."""
    frame = deployments.simulate(REQUESTS, first=deployments.PAST)
    truths = frame.pop("risk_level").tolist()
    records = json.loads(frame.to_json(orient="records", date_format="iso"))
    api = ServiceApi(site, MODEL)
    with _progress(console) as say:
        say("starting the service")
        start_service(site, programs, MODEL)
        say(f"{REQUESTS} new deployments ask for their risk")
        answers = [*map(api.predict, records[:ALONE]), *api.predict_many(records[ALONE:])]
        pairs = zip(answers, truths, strict=True)
        report = api.post_outcomes([{"prediction_id": a["prediction_id"], "label": truth} for a, truth in pairs])
    actions = Counter(answer["action"] for answer in answers)
    right = sum(answer["prediction"] == truth for answer, truth in zip(answers, truths, strict=True))
    console.print(
        f"{len(answers)} new deployments were answered: {', '.join(f'{n} {name}' for name, n in actions.most_common())}. "
        f"Their outcomes came back ({report['accepted']} accepted): {right / len(answers):.1%} were predicted right."
    )
    return report["accepted"] == REQUESTS and all(answer["logged"] for answer in answers)


def _live_on(console: Console, workspace: Workspace, api: AirflowApi, service: ServiceApi) -> bool:
    """A month passes, monitoring looks, and a training follows; True if the service answers with its champion."""
    _live_a_month(workspace, workspace.model(MODEL))
    console.print(
        f"\nA month passes: four times the files, around the clock, three new teams, and nights have become safe. "
        f"{MONTH:,} deployments asked version 1, and were labelled."
    )
    before = {run["dag_run_id"] for run in api.runs(TRAIN)}
    run_id = api.trigger(MONITOR, {}, LOOKED_AT)
    _follow(console, api, MONITOR, run_id)
    if not _tell_look(console, workspace, api, run_id):
        return False
    with _progress(console) as say:
        say(f"waiting until Airflow starts {TRAIN}")
        started = _await(lambda: [run["dag_run_id"] for run in api.runs(TRAIN) if run["dag_run_id"] not in before])
    if not started:
        console.print(f"{TRAIN} was not started within {FOLLOWED_WITHIN:g} seconds.", style="red")
        return False
    return _follow_training(console, workspace, api, started[0]) and _taken_up(console, workspace, service)


def _live_a_month(workspace: Workspace, model: ModelFile) -> None:
    """The champion answers the month's deployments, their outcomes come two days later, and they get into the table.

    What the service does, on record as of a time that no service can be asked at.
    """
    first = deployments.PAST + MATURE.days * deployments.PER_DAY
    frame = deployments.simulate(MONTH, first=first, world=deployments.MONTH_TWO)
    champion = Model(model, workspace=workspace)
    times = [moment.timestamp() for moment in frame["requested_at"]]
    records = json.loads(frame[list(model.columns)].to_json(orient="records"))
    lines = zip(times, frame["deployment_id"], records, strict=True)
    rows = [_logged(champion, at, key, record) for at, key, record in lines]
    workspace.predictions.prepare()
    writer = workspace.predictions.writer(durable=True, patience=30)
    writer.write(rows)
    writer.close()
    deployments.write(Path(model.source.table).parent, frame)
    labels = zip(rows, frame["risk_level"], strict=True)
    outcomes = [{"prediction_id": row.prediction_id, "label": label} for row, label in labels]
    for start in range(0, MONTH, deployments.PER_DAY):
        arrived = datetime.fromtimestamp(times[start], UTC) + timedelta(days=2)
        workspace.predictions.add_outcomes(model, outcomes[start : start + deployments.PER_DAY], arrived)


def _logged(champion: Model, at: float, key: str, record: Mapping[str, Any]) -> Logged:
    answer = champion.predict(record)
    kept = ("prediction", "confidence", "probabilities", "interval", "action", "unseen", "flags")
    return Logged(
        prediction_id=new_id(at),
        model=champion.name,
        at=at,
        version=champion.version,
        key=key,
        record=json.dumps(record),
        answer=json.dumps({name: answer[name] for name in kept}),
        prediction=answer["prediction"],
        confidence=answer["confidence"],
        action=answer["action"],
        control=False,
        fallback=None,
    )


def _tell_look(console: Console, workspace: Workspace, api: AirflowApi, run_id: str) -> bool:
    """What monitoring has found, and what follows; True if a training does."""
    tasks = api.tasks(MONITOR, run_id)
    looks: dict[str, type[Record]] = {"check_quality": Quality, "detect_drift": Drift, "measure_accuracy": Accuracy}
    for task_id, kind in looks.items():
        for record in _made(workspace, api, tasks, kind, task_id):
            for sentence in getattr(record, "says", ())[:SENTENCES]:
                console.print(f"  {kind.kind:>8}  {sentence}", markup=False, soft_wrap=True)
    for task in tasks:
        if task["state"] == "failed":
            _tell_refusal(console, api, task)
    decisions = _made(workspace, api, tasks, Decision, "decide_retraining")
    for decision in decisions:
        console.print(f"Governor: {decision.reason}", style="bold", markup=False, soft_wrap=True)
    return any(decision.train for decision in decisions)


def _taken_up(console: Console, workspace: Workspace, service: ServiceApi) -> bool:
    """Whether the running service answers with the new champion."""
    version = Model(MODEL, workspace=workspace).version
    answered = bool(_await(lambda: service.predict(RECORD)["model_version"] == version))
    console.print(f"The service answers with version {version}." if answered else "The service did not take it up.")
    return answered


def _await(look: Callable[[], T]) -> T:
    """What `look` answers, as soon as that is something, or in the end."""
    end = time.monotonic() + FOLLOWED_WITHIN
    while not (found := look()) and time.monotonic() < end:
        time.sleep(LOOK_EVERY)
    return found


def _show_curl(console: Console, site: Site) -> bool:
    """A line to copy, and what it answers here and now; True if it is an answer."""
    url = f"{site.service_url}/v1/models/{MODEL}/predict"
    line = f"curl -s {url} -H 'Content-Type: application/json' -d '{json.dumps(RECORD)}'"
    console.print(f"Try it   {line}", soft_wrap=True, markup=False)
    if shutil.which("curl"):
        command = [*shlex.split(line), "--noproxy", "*"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
        answer = json.loads(text or "{}")
    else:
        answer = ServiceApi(site, MODEL).predict(RECORD)
    console.print(json.dumps(answer), soft_wrap=True, markup=False)
    return "prediction" in answer


def _candidates_table(candidates: Sequence[Candidate], winner: str | None) -> Table:
    table = Table(title="Candidates, on the rows that choose", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for heading in (candidates[0].metric, "95 % interval", "one prediction", "size", "search"):
        table.add_column(heading, justify="right", no_wrap=True)
    for candidate in candidates:
        value = candidate.validation
        name = f"[bold]{candidate.name} ←[/]" if candidate.name == winner else candidate.name
        table.add_row(
            name,
            f"{value.value:.4f}" if value else "failed",
            f"{value.low:.4f} to {value.high:.4f}" if value else candidate.error,
            f"{candidate.latency_us / 1000:.1f} ms",
            f"{candidate.bytes / 1024:,.0f} KiB",
            f"{candidate.search_seconds:.1f} s",
        )
    return table


def _tell_verdict(console: Console, verdict: Verdict) -> None:
    test = verdict.test
    console.print(
        f"Verdict: [bold]{verdict.verdict}[/]. {test.metric} {test.value:.4f} ({test.low:.4f} to {test.high:.4f}) on "
        f"{test.rows} sealed rows, opened once; overlap with training rows: {sum(test.overlap.values())}."
    )
    for gate in verdict.gates:
        console.print(f"  {gate.outcome:>6}  {gate.name}: {gate.detail}", markup=False)


def _tell_refusal(console: Console, api: AirflowApi, task: Mapping[str, Any]) -> None:
    error = api.xcom(task, "error")
    console.print(f"{task['task_id']}: {_refusal(error)}", style="red", markup=False)
    if error and error["error"] == "NotEnoughSealedRows":
        console.print(
            "Nothing is wrong: this data was trained on before, and its sealed rows were opened then. "
            "`make demo FRESH=1` begins anew and sets the old results aside."
        )


def _serve(console: Console, site: Site) -> None:
    _tell_where(console, site)
    console.print("Serving until Ctrl-C.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("\nEnding every process …")


if __name__ == "__main__":
    sys.exit(run(once="--once" in sys.argv, fresh="--fresh" in sys.argv))
