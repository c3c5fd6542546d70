"""Shared by all tests: workspaces of one's own, and what is made once per session because making it takes seconds."""

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, cast

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before NumPy loads

import pytest
from typer.testing import CliRunner, Result
from xdist.scheduler import LoadFileScheduling

from steward.cli import app
from steward.config import Settings
from steward.examples import deployments
from steward.io.artifacts import Artifacts
from steward.io.registry import Registry
from steward.io.versions import LedgerRegistry
from steward.io.workspace import Workspace
from steward.replay.stage import ArtifactsHere
from steward.standalone import AirflowApi, Site

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
MODEL = """
name: risk
task: classification
source: {table: ROWS, key: id}
label: {column: outcome, classes: [Low, High]}
columns:
  files: {type: integer, min: 0, max: 1000}
  stage: {type: category, values: [dev, prod]}
candidates: [decision_tree]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.3}
"""


IN_AIRFLOW = ("tests/test_demo.py", "tests/test_pages_in_airflow.py", "tests/test_processes.py")
"""Files with tests that need a started Airflow: they share one, and the last of them ends it."""
LONG = (
    "tests/test_replay.py",
    "tests/test_steps.py",
    "tests/steps/test_accuracy.py",
    "tests/test_promises.py",
    "tests/core/test_tuning.py",
    "tests/test_identical_answers.py",
)
"""What takes longest begins first, so that no process is left alone with it at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {file: place for place, file in enumerate((*IN_AIRFLOW, *LONG))}
    items.sort(key=lambda item: first.get(_file_of(item.nodeid), len(first)))
    lost = {_file_of(item.nodeid) for item in items if item.get_closest_marker("airflow")} - set(IN_AIRFLOW)
    if lost:
        raise pytest.UsageError(f"needs a started Airflow and is not in IN_AIRFLOW: {', '.join(lost)}")


class _Files(LoadFileScheduling):
    """A file's tests go to one process, and those of the files that share an Airflow too."""

    def _split_scope(self, nodeid: str) -> str:
        return IN_AIRFLOW[0] if _file_of(nodeid) in IN_AIRFLOW else _file_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return _Files(config, log) if config.getvalue("dist") == "loadfile" else None


def _file_of(nodeid: str) -> str:
    return nodeid.split("::", 1)[0]


def workspace_in(home: Path) -> Workspace:
    return Workspace(Settings.from_environment({"STEWARD_HOME": str(home), "STEWARD_JOBS": "1"}))


class PlainWorkspace(Workspace):
    """A real one without what only people read, MLflow, and the trial of a version in a process of its own.

    These are nine tenths of a small training, and no decision rests on them: for tests that are not about them.
    """

    explains = False

    @cached_property
    def registry(self) -> Registry:
        return cast("Registry", LedgerRegistry(self.ledger))

    @cached_property
    def artifacts(self) -> Artifacts:
        return ArtifactsHere(self.store, self.settings.trusted_types)


def plain_workspace_in(home: Path, *, explains: bool = False) -> Workspace:
    made = PlainWorkspace(workspace_in(home).settings)
    made.explains = explains
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace in a folder of its own, in which MLflow's database is not made yet."""
    return workspace_in(tmp_path / "home")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: its migrations take 5 to 25 seconds, a copy takes none."""
    home = tmp_path_factory.mktemp("mlflow") / "home"
    assert workspace_in(home).registry.aliases("nobody") == {}
    return home / "mlflow.db"


@pytest.fixture(scope="session")
def new_workspace(mlflow_database: Path) -> Callable[[Path], Workspace]:
    """Makes a workspace in a home folder, with an MLflow database that is ready."""

    def make(home: Path) -> Workspace:
        home.mkdir(parents=True)
        shutil.copyfile(mlflow_database, home / "mlflow.db")
        return workspace_in(home)

    return make


class Installation:
    """A folder with model files and a home, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.home = folder / "home"
        self.rows = folder / "rows.csv"
        self.models.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "STEWARD_HOME": str(self.home),
            "STEWARD_MODELS": str(self.models),
            "STEWARD_JOBS": "1",
            "STEWARD_LEDGER_URL": "",
            "STEWARD_STORE": "",
            "STEWARD_DEBUG": "",
            "MLFLOW_TRACKING_URI": "",
        }

    @property
    def workspace(self) -> Workspace:
        return Workspace(Settings.from_environment(self.environment))

    def write_rows(self, count: int = 600, stage: str = "prod") -> None:
        """Rows whose outcome is High if, and only if, there are more than 500 files."""
        drawn = random.Random(1)
        lines = ["id,files,stage,outcome"]
        for number in range(count):
            files = drawn.randint(0, 1000)
            lines.append(f"{number},{files},{drawn.choice(['dev', stage])},{'High' if files > 500 else 'Low'}")
        self.rows.write_text("\n".join(lines) + "\n")

    def write_model(self, stage: str = "prod") -> None:
        self.write_rows(stage=stage)
        (self.models / "risk.yaml").write_text(MODEL.replace("ROWS", str(self.rows)))

    def change_model(self, old: str, new: str) -> None:
        path = self.models / "risk.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def run(self, *arguments: str, stdin: str | None = None, **environment: str) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, env={**self.environment, **environment})

    def ask(self, *arguments: str, code: int = 0, **environment: str) -> dict[str, Any]:
        result = self.run(*arguments, "--json", **environment)
        assert result.exit_code == code, result.stderr
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    def copy(self, folder: Path) -> "Installation":
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        twin = Installation(folder)
        twin.change_model(str(self.rows), str(twin.rows))
        return twin


@pytest.fixture
def fresh(tmp_path: Path) -> Installation:
    """Nothing there yet, not even a home."""
    return Installation(tmp_path)


@pytest.fixture
def described(fresh: Installation, new_workspace: Callable[[Path], Workspace]) -> Installation:
    """Rows, their model file, and an MLflow database; nothing trained."""
    new_workspace(fresh.home)
    fresh.write_model()
    return fresh


@pytest.fixture(scope="session")
def champion(
    tmp_path_factory: pytest.TempPathFactory, new_workspace: Callable[[Path], Workspace]
) -> tuple[Installation, dict[str, Any]]:
    """An installation with a champion, and what `steward train` answered. Take a `copy` before changing anything."""
    installation = Installation(tmp_path_factory.mktemp("champion"))
    new_workspace(installation.home)
    installation.write_model()
    return installation, installation.ask("train", "risk", "--reason", "first version")


@pytest.fixture
def trained(champion: tuple[Installation, dict[str, Any]], tmp_path: Path) -> Installation:
    """A copy of the installation with a champion, to do with as one likes."""
    return champion[0].copy(tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables; tests that need it are skipped where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real tables are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A private PostgreSQL server; skips where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("no PostgreSQL in /usr/lib/postgresql; `apt-get install postgresql` runs these tests too")
    owner = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="steward-pg-", dir="/tmp"))
    if owner:
        shutil.chown(folder, owner["user"])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", **owner}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binaries, data = found[-1].parent, folder / "data"
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run([binaries / "initdb", "-D", data, "-A", "trust", "-U", "steward", "--no-sync"], check=True, **quiet)
    subprocess.run([binaries / "pg_ctl", "-D", data, "-o", options, "-w", "start"], check=True, **quiet)
    try:
        yield f"postgresql://steward:geheim@127.0.0.1:{port}/"
    finally:
        subprocess.run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **quiet)
        shutil.rmtree(folder, ignore_errors=True)


QUICKER = {  # for trainings whose form nobody fills in
    "trials: 20": "trials: 1",
    "[logistic_regression, decision_tree, random_forest, gradient_boosting, neural_network]": "[gradient_boosting]",
}
RUN = "import json, sys\nfrom steward.demo import run\nsys.exit(run(once=False, form=json.loads(sys.argv[1])))"
STORY_WITHIN = 600
"""Seconds; 90 where nothing else runs."""
PORT = 8080


class PlayedDemo:
    """The demo in a process of its own: Airflow, MLflow and the service run, and the whole story was told.

    Its models are `deployment_risk`, whose second version serves, and `asked_risk`, which a person has to approve.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""
        _write_company(folder)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLFLOW", "STEWARD"))
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps({"trials": 1})],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def listen(self) -> None:
        """Until it has said everything."""
        end = time.monotonic() + STORY_WITHIN
        for line in self.process.stdout or ():
            self.said += line
            if "Serving until Ctrl-C" in line:
                return
            assert time.monotonic() < end, self.said
        raise AssertionError(f"the demo ended early:\n{self.said}")

    @cached_property
    def settings(self) -> Settings:
        environment = {"STEWARD_HOME": str(self.folder / ".steward"), "STEWARD_MODELS": str(self.folder / "models")}
        return Settings.from_environment(environment)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.settings)

    @cached_property
    def api(self) -> AirflowApi:
        """Airflow's REST interface, as its administrator."""
        found = [re.search(rf"{name} +http://127.0.0.1:(\d+)", self.said) for name in ("Airflow", "MLflow")]
        return AirflowApi(Site(self.settings, self.folder / "dags", *(int(port[1]) for port in found if port)))

    def await_state(self, dag_id: str, run_id: str) -> str:
        """The state in which a run has ended."""
        end = time.monotonic() + STORY_WITHIN
        while (state := self.api.state(dag_id, run_id)) not in ("success", "failed"):
            assert time.monotonic() < end, self.api.tasks(dag_id, run_id)
            time.sleep(0.5)
        return state


def _write_company(folder: Path) -> None:
    """Model files and 8,000 deployments."""
    (folder / "models").mkdir()
    text = (Path(__file__).parents[1] / "models" / "deployment_risk.yaml").read_text(encoding="utf-8")
    for slow, quick in QUICKER.items():
        assert slow in text
        text = text.replace(slow, quick)
    (folder / "models" / "deployment_risk.yaml").write_text(text)
    asked = text.replace("name: deployment_risk", "name: asked_risk").replace("approve: automatic", "approve: person")
    (folder / "models" / "asked_risk.yaml").write_text(asked)
    deployments.write(folder / "data" / "deployments", deployments.simulate(8_000))


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedDemo]:
    """A started Airflow for all tests that need one; they are marked `airflow`."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else has the port, which is as good
            taken.bind(("127.0.0.1", PORT))
            taken.listen()
        demo = PlayedDemo(tmp_path_factory.mktemp("company"))
        with demo.process:
            try:
                demo.listen()
                yield demo
            finally:
                demo.process.terminate()
