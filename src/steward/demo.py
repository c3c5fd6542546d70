"""The running example, start to finish.

A company's past deployments, a DAG run in Airflow, a verified champion in MLflow, and a service that it answers through:
new deployments ask it, and their outcomes come back to it.
"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from steward.config import ModelFile, Settings
from steward.errors import StewardError
from steward.io.workspace import Workspace
from steward.processes import Programs
from steward.records import Candidate, Promotion, Record, Reference, Selection, Verdict
from steward.standalone import USER, AirflowApi, NotReady, ServiceApi, Site, free_port, start_service, start_site

MODEL = "deployment_risk"
AIRFLOW_PORT, MLFLOW_PORT, SERVICE_PORT = 8080, 5000, 8000
TRAINED_WITHIN = 3_600.0
"""Seconds that the training may take before the demo gives up on it."""
REQUESTS, ALONE = 300, 60
"""New deployments that ask the service, and how many of them come one by one."""
RECORD = {"files_changed": 120, "environment": "prod", "team": "payments", "hour": 23, "previous_failures": 2}
"""What the `curl` line asks about."""
LOOK_EVERY = 0.5
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
    Exit code: 0 if a champion was promoted, and answered over HTTP, and got its outcomes (without `once`: or if somebody
    ended it after that), 1 if not.
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
            say(f"waiting until Airflow has read {MODEL}.train")
            api.await_dag(f"{MODEL}.train")
        _tell_where(console, site)
        run_id = api.trigger(f"{MODEL}.train", {"reason": "steward demo", **form})
        state = _follow(console, api, run_id)
        promoted = _tell_result(console, Workspace(settings), api, run_id, state)
        served = _has_champion(settings) and _use_service(console, site, programs)
        if not once:
            _serve(console, site)
    return 0 if promoted and served else 1


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
    from steward.examples import deployments

    say("simulating 10,000 deployments of a company")
    deployments.write(source.parent, deployments.simulate())


def _tell_where(console: Console, site: Site) -> None:
    console.print(f"Airflow  {site.airflow_url}/dags/{MODEL}.train  (user {USER}, password {site.keys['password']})")
    console.print(f"MLflow   {site.mlflow_url}")
    console.print(f"Service  {site.service_url}/docs  (once there is a champion)")


def _follow(console: Console, api: AirflowApi, run_id: str) -> str:
    """Shows the run's tasks until it has ended; answers its state."""
    show = _show_live if console.is_terminal else _show_lines
    states = _states(api, run_id)
    return show(console, states)


def _states(api: AirflowApi, run_id: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The run's state and its tasks, in order, each with `label`, `note` and `seconds`, until the run has ended."""
    dag_id = f"{MODEL}.train"
    end = time.monotonic() + TRAINED_WITHIN
    summaries: dict[str, str] = {}
    while True:
        state = api.state(dag_id, run_id)
        tasks = sorted(api.tasks(dag_id, run_id), key=lambda task: (task["start_date"] or "~", task["map_index"]))
        yield state, [_described(api, task, summaries) for task in tasks]
        if state in ENDED:
            return
        if time.monotonic() > end:
            raise NotReady("the training did not end in time", allowed=f"{TRAINED_WITHIN:g} seconds")
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


def _show_live(console: Console, states: Iterator[tuple[str, list[dict[str, Any]]]]) -> str:
    state = ""
    with Live(console=console, refresh_per_second=4) as live:
        for state, tasks in states:
            table = Table(box=None, show_header=False)
            for task in tasks:
                mark = MARKS.get(task["state"] or "", "[dim]○[/]")
                table.add_row(mark, task["label"], f"{task['seconds']:.1f} s" if task["seconds"] else "", task["note"])
            live.update(Group(f"{MODEL}.train is {state}", table))
    return state


def _show_lines(console: Console, states: Iterator[tuple[str, list[dict[str, Any]]]]) -> str:
    state, told = "", set()
    for state, tasks in states:  # noqa: B007 - the last one is the answer
        for task in tasks:
            line = (task["id"], task["state"])
            named = task["map_index"] < 0 or not str(task["rendered_map_index"] or 0).isdigit()
            if named and task["state"] in ("running", *ENDED, "skipped") and line not in told:
                told.add(line)
                ended = f" {task['note']}" if task["state"] != "running" else ""
                console.print(f"  {task['label'].strip()}: {task['state']}{ended}", markup=False, soft_wrap=True)
    return state


def _tell_result(console: Console, workspace: Workspace, api: AirflowApi, run_id: str, state: str) -> bool:
    """Candidates, choice, verdict and champion, or why there is none; True if a champion was promoted."""
    tasks = api.tasks(f"{MODEL}.train", run_id)

    def made(kind: type[Record], task_id: str) -> list[Any]:
        found = [api.xcom(task, "return_value") for task in tasks if task["task_id"] == task_id]
        return [workspace.load(kind, Reference.model_validate(value)) for value in found if value]

    candidates = made(Candidate, "train_candidate")
    selections: Sequence[Selection] = made(Selection, "select")
    if candidates:
        console.print(_candidates_table(candidates, selections[0].winner if selections else None))
    for selection in selections:
        console.print(f"Chosen: {selection.winner}. {selection.reason}")
    for verdict in made(Verdict, "verify"):
        _tell_verdict(console, verdict)
    promotions: Sequence[Promotion] = made(Promotion, "promote")
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


def _has_champion(settings: Settings) -> bool:
    newest = Workspace(settings).ledger.entries(MODEL, Promotion.kind, newest_first=True, limit=1)
    return bool(newest and newest[0].body["champion"])


def _use_service(console: Console, site: Site, programs: Programs) -> bool:
    """New deployments ask the service, and their outcomes are posted; True if all of them were answered and known."""
    from steward.examples import deployments

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
    asked = _show_curl(console, site)
    return asked and report["accepted"] == REQUESTS and all(answer["logged"] for answer in answers)


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
