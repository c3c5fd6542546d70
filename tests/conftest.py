"""Shared by all tests: workspaces of one's own, and what is made once per session because making it takes seconds."""

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before NumPy loads

import pytest
from typer.testing import CliRunner, Result

from steward.cli import app
from steward.config import Settings
from steward.io.workspace import Workspace

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the suite file by file, because what a file prepares is prepared once; Airflow's tests, which
    take longest, begin first.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args != ("airflow",))  # type: ignore[union-attr]


def workspace_in(home: Path) -> Workspace:
    return Workspace(Settings.from_environment({"STEWARD_HOME": str(home), "STEWARD_JOBS": "1"}))


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
