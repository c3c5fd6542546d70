"""What `steward doctor` looks at: everything that has to be there before a training can work."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from typing import Any

from packaging.requirements import Requirement

from steward.config import ModelFile, Settings
from steward.errors import LedgerConflict, SettingsError, StewardError, StoreUnavailable
from steward.io.workspace import Workspace

GIBIBYTE = 1 << 30
FREE_ENOUGH = GIBIBYTE
INSTALL = "Install what requirements.txt pins: `make check` does, or `pip install -r requirements.txt`"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    do: str | None = None

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at one thing after the other; nothing is changed but probe files, which are removed or a few bytes."""
    workspace = Workspace(settings)
    looks: dict[str, Callable[[], str]] = {
        "python": _python,
        "packages": _packages,
        "airflow": _airflow,
        "home": lambda: _home(settings),
        "disk": lambda: _disk(settings),
        "store": lambda: _store(workspace),
        "ledger": lambda: _ledger(workspace),
        "mlflow": lambda: _mlflow(workspace),
        **{f"model {path.stem}": partial(_model, settings, path.stem) for path in settings.model_paths()},
    }
    if not settings.model_paths():
        looks["models"] = lambda: f"none in {settings.models} yet; `steward init` writes one"
    for name, look in looks.items():
        yield _look(name, look)


def _look(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, detail=look())
    except StewardError as problem:
        got = "" if problem.got is None else f": {problem.got}"
        return Finding(name, ok=False, detail=f"{problem.what}{got}", do=problem.do)


def _python() -> str:
    needed = metadata("steward")["Requires-Python"]
    if not Requirement(f"python{needed}").specifier.contains(platform.python_version()):
        raise SettingsError("this Python does not fit", got=platform.python_version(), do=f"Use Python {needed}")
    return f"{platform.python_version()} on {platform.system()}, {os.cpu_count()} cores"


def _packages() -> str:
    needed = [Requirement(line) for line in requires("steward") or ()]
    needed = [item for item in needed if item.marker is None or item.marker.evaluate({"extra": ""})]
    problems = [problem for item in needed if (problem := _misfit(item))]
    if problems:
        raise SettingsError("installed packages do not fit", got="; ".join(problems), do=INSTALL)
    return f"{len(needed)} packages fit"


def _misfit(needed: Requirement) -> str | None:
    try:
        found = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} is missing (needed {needed.specifier or 'in any version'})"
    fits = needed.specifier.contains(found, prereleases=True)
    return None if fits else f"{needed.name} {found} (needed {needed.specifier})"


def _airflow() -> str:
    """By its metadata: importing Airflow takes seconds and writes its configuration."""
    try:
        return f"Apache Airflow {version('apache-airflow')}"
    except PackageNotFoundError as problem:
        raise SettingsError(
            "Apache Airflow is not installed; `steward train` works, DAGs do not", do=INSTALL
        ) from problem


def _home(settings: Settings) -> str:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.home) as probe:
            probe.write(b"steward")
    except OSError as problem:
        raise StoreUnavailable(
            "the home folder cannot be written", got=problem, do="Set STEWARD_HOME to a folder that you may write"
        ) from problem
    return str(settings.home)


def _disk(settings: Settings) -> str:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < FREE_ENOUGH:
        raise StoreUnavailable(
            "the disk of the home folder is nearly full",
            got=f"{free / GIBIBYTE:.2f} GiB free",
            do="Free some space, or set STEWARD_HOME to another disk",
        )
    return f"{free / GIBIBYTE:.1f} GiB free"


def _store(workspace: Workspace) -> str:
    workspace.store.write_record("probe", "doctor", {"ok": True})
    workspace.store.read_record("probe", "doctor")
    return workspace.store.shown_url


def _ledger(workspace: Workspace) -> str:
    report = workspace.ledger.verify()
    if not report.ok:
        raise LedgerConflict(
            "the ledger was changed behind Steward's back",
            got="; ".join(problem.detail for problem in report.problems[:3]),
            do="`steward history --verify` names every entry; restore the database from a backup",
        )
    return f"{workspace.ledger.shown_url}: {report.entries} entries, chain unbroken"


def _mlflow(workspace: Workspace) -> str:
    workspace.registry.aliases("doctor")
    return f"MLflow {version('mlflow')} answers"


def _model(settings: Settings, name: str) -> str:
    model: ModelFile = settings.model(name)
    return f"{model.task}, {len(model.columns)} columns, candidates {', '.join(model.candidate_names)}"
