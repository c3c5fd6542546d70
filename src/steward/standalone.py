"""Airflow, MLflow and the service on one machine: what they are told, how they are started, and how they are talked to.

`airflow standalone` is not used: ended by a signal, it leaves scheduler, API server and workers running.
"""

import base64
import json
import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from steward.config import Settings
from steward.errors import StewardError
from steward.processes import Program, Programs

LOCAL = "127.0.0.1"
USER, VIEWER = "admin", "viewer"
"""Who may do everything, and who may only look."""
READY_WITHIN = 300.0
"""Seconds until the slowest piece has to answer; 30 to 60 on two cores."""


class NotReady(StewardError):
    """A piece of the installation did not start, or did not answer in time."""


@dataclass(frozen=True)
class Site:
    """One installation: where its pieces listen and what they are told."""

    settings: Settings
    dags: Path
    airflow_port: int
    mlflow_port: int
    service_port: int = 0
    parallelism: int = field(default_factory=lambda: max(2, os.cpu_count() or 1))

    @property
    def home(self) -> Path:
        return self.settings.home / "airflow"

    @property
    def airflow_url(self) -> str:
        return f"http://{LOCAL}:{self.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{LOCAL}:{self.mlflow_port}"

    @property
    def service_url(self) -> str:
        return f"http://{LOCAL}:{self.service_port}"

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """The installation's secrets: made once, readable by their owner only."""
        path = self.home / "keys.json"
        if not path.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            made = {name: secrets.token_urlsafe(48) for name in ("jwt", "session")}
            made["fernet"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
            made["password"] = secrets.token_urlsafe(12)
            _write_private(path, made)
            # All users, since Airflow loses passwords where two of its processes add a missing one at once.
            passwords = {USER: made["password"], VIEWER: secrets.token_urlsafe(12)}
            _write_private(self.home / "passwords.json", passwords)
        keys: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return keys

    def environment(self) -> dict[str, str]:
        """What every piece is told; `docs/airflow.md` says why."""
        airflow = {
            "CORE__DAGS_FOLDER": self.dags,
            "CORE__PLUGINS_FOLDER": self.dags.parent / "plugins",
            "CORE__EXECUTOR": "steward.airflow_executor.WarmExecutor",
            "CORE__PARALLELISM": self.parallelism,
            "CORE__LOAD_EXAMPLES": False,
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
            "CORE__FERNET_KEY": self.keys["fernet"],
            "CORE__EXECUTION_API_SERVER_URL": f"{self.airflow_url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin,{VIEWER}:viewer",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": self.home / "passwords.json",
            "API__HOST": LOCAL,
            "API__PORT": self.airflow_port,
            "API__BASE_URL": self.airflow_url,
            "API__WORKERS": 1,
            "API__SECRET_KEY": self.keys["session"],
            "API_AUTH__JWT_SECRET": self.keys["jwt"],
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.2,
            "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,
            "DAG_PROCESSOR__PARSING_PROCESSES": 1,
            "TRIGGERER__CAPACITY": 100,
        }
        return {
            **{f"AIRFLOW__{name}": str(value) for name, value in airflow.items()},
            "AIRFLOW_HOME": str(self.home),
            "STEWARD_HOME": str(self.settings.home),
            "STEWARD_STORE": self.settings.store,
            "STEWARD_LEDGER_URL": self.settings.ledger_url,
            "STEWARD_MODELS": str(self.settings.models),
            "STEWARD_MLFLOW_UI": self.mlflow_url,
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "OMP_NUM_THREADS": str(self.settings.threads),
            "OPENBLAS_NUM_THREADS": str(self.settings.threads),
            "NO_PROXY": f"{LOCAL},localhost",
            "no_proxy": f"{LOCAL},localhost",
            "PYTHONWARNINGS": "ignore",
        }


def free_port(preferred: int) -> int:
    """The first free port from `preferred` on."""
    for port in range(preferred, preferred + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOCAL, port))
            except OSError:
                continue
            return port
    raise NotReady("no free port", got=f"{preferred} to {preferred + 99}", do="End what listens there")


def start_site(site: Site, programs: Programs, say: Callable[[str], None]) -> None:
    """Start every piece and wait until all of them answer; raises NotReady with the end of the right log."""
    logs = site.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = site.environment()

    def start(name: str, *command: str) -> Program:
        return programs.start(name, [sys.executable, "-m", *command], environment, logs / f"{name}.log")

    mlflow = start("mlflow", *_mlflow(site))
    say("preparing Airflow's database")
    migration = start("migration", "airflow", "db", "migrate")
    if programs.wait(migration, READY_WITHIN) != 0:
        raise _not_ready(migration, "Airflow's database could not be prepared")
    pieces = [start(name, "airflow", name) for name in ("api-server", "scheduler", "dag-processor", "triggerer")]
    say("starting API server, scheduler, DAG processor, triggerer and MLflow")
    _await(programs, mlflow, lambda: _answers(f"{site.mlflow_url}/health"))
    # its first answer takes seconds, in which a first task would wait
    _await(programs, pieces[0], lambda: _answers(f"{site.airflow_url}/execution/health"))
    for piece in pieces[1:]:
        _await(programs, piece, lambda piece=piece: _healthy(site, piece.name))  # type: ignore[misc]


def start_service(site: Site, programs: Programs, model: str) -> None:
    """Start `steward serve` and wait until it answers for a model; raises NotReady with the end of its log."""
    log = site.home / "logs" / "service.log"
    command = [sys.executable, "-m", "steward", "serve", "--port", str(site.service_port)]
    service = programs.start("service", command, site.environment(), log)
    page = f"{site.service_url}/v1/models/{model}"
    _await(programs, service, lambda: _answers(page) and json.loads(_fetch(page))["answers"] is not None)


def _mlflow(site: Site) -> list[str]:
    options = ["--backend-store-uri", site.settings.tracking_uri, "--host", LOCAL, "--port", str(site.mlflow_port)]
    return ["mlflow", "server", *options, "--workers", "1"]


def _await(programs: Programs, program: Program, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_WITHIN
    while not ready():
        if programs.exit_code(program) is not None:
            raise _not_ready(program, f"{program.name} has ended")
        if time.monotonic() > end:
            raise _not_ready(program, f"{program.name} did not answer within {READY_WITHIN:g} seconds")
        time.sleep(0.2)


def _not_ready(program: Program, what: str) -> NotReady:
    return NotReady(what, do=f"Its log is {program.log} and ends with:\n{program.tail()}")


def _healthy(site: Site, name: str) -> bool:
    try:
        health = json.loads(_fetch(f"{site.airflow_url}/api/v2/monitor/health"))
    except OSError:
        return False
    return bool(health[name.replace("-", "_")]["status"] == "healthy")


def _answers(url: str) -> bool:
    try:
        _fetch(url)
    except OSError:
        return False
    return True


def _fetch(url: str, body: Any = None, token: str | None = None, *, method: str | None = None) -> bytes:
    """GET, or POST of JSON unless `method` says otherwise; never through a proxy."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)  # noqa: S310
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        content: bytes = answer.read()
        return content


def _write_private(path: Path, content: Mapping[str, str]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(content, stream)


class ServiceApi:
    """The service's interface for one model, as any program would use it."""

    def __init__(self, site: Site, model: str) -> None:
        self.url = f"{site.service_url}/v1/models/{model}"

    def predict(self, record: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(_fetch(f"{self.url}/predict", record))
        return answer

    def predict_many(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = json.loads(_fetch(f"{self.url}/predict/batch", records))["predictions"]
        return answers

    def post_outcomes(self, outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(_fetch(f"{self.url}/outcomes", outcomes))
        return report


class AirflowApi:
    """Airflow's REST interface, as its user."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @cached_property
    def token(self) -> str:
        login = {"username": USER, "password": self.site.keys["password"]}
        return str(json.loads(_fetch(f"{self.site.airflow_url}/auth/token", login))["access_token"])

    def get(self, path: str) -> Any:
        """None where there is nothing."""
        try:
            return json.loads(_fetch(f"{self.site.airflow_url}/api/v2{path}", token=self.token))
        except urllib.error.HTTPError as problem:
            if problem.code == 404:  # noqa: PLR2004
                return None
            raise

    def send(self, method: str, path: str, body: Mapping[str, Any]) -> Any:
        return json.loads(_fetch(f"{self.site.airflow_url}/api/v2{path}", dict(body), self.token, method=method))

    def await_dag(self, dag_id: str, seconds: float = READY_WITHIN) -> None:
        """Wait until Airflow has read this DAG; raises NotReady with the import errors."""
        end = time.monotonic() + seconds
        while self.get(f"/dags/{dag_id}") is None:
            if time.monotonic() > end:
                errors = [error["stack_trace"] for error in self.get("/importErrors")["import_errors"]]
                raise NotReady(f"Airflow did not find the DAG {dag_id}", got="\n".join(errors) or "no import error")
            time.sleep(0.3)

    def trigger(self, dag_id: str, form: Mapping[str, Any], at: datetime | None = None) -> str:
        """Start a run; answers its id.

        Parameters
        ----------
        at : the moment that the run is of, not after now, which is what it is of without this.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": dict(form)}
        if at:  # Airflow names a run after its moment, of which there may be several runs
            body |= {"run_after": at.isoformat(), "dag_run_id": f"manual__{at.isoformat()}_{secrets.token_hex(4)}"}
        return str(self.send("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The newest hundred runs, oldest first."""
        found: list[dict[str, Any]] = self.get(f"/dags/{dag_id}/dagRuns?order_by=-id&limit=100")["dag_runs"]
        return found[::-1]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return found

    def state(self, dag_id: str, run_id: str) -> str:
        return str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def xcom(self, task: Mapping[str, Any], key: str) -> Any:
        """What a task left under this key, or None."""
        entry = self.get(f"{self._task(task)}/xcomEntries/{key}?map_index={task['map_index']}&deserialize=true")
        return entry and entry["value"]

    def noted(self, task: Mapping[str, Any], key: str) -> Any:
        """What a running task noted in its state store, or None."""
        entry = self.get(f"{self._task(task)}/state-store/{key}?map_index={task['map_index']}")
        return entry and entry["value"]

    @staticmethod
    def _task(task: Mapping[str, Any]) -> str:
        return f"/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}"
