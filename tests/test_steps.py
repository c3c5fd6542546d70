"""One matrix over every step: repeatable, safe to kill, plain JSON. Promise 5 of the design."""

import hashlib
import json
import multiprocessing
import random
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from steward import records, steps
from steward.config import ModelFile, Settings
from steward.examples import deployments
from steward.io.workspace import Workspace
from steward.records import Record, Reference
from steward.stages import STAGES, Stage

AT = datetime(2026, 2, 1, tzinfo=UTC)
STEPS = tuple(stage.name for stage in STAGES)
KINDS: dict[str, type[Record]] = {kind.kind: kind for kind in Record.__subclasses__()}
XCOM_BYTES = 64 * 1024
KILLS = 3
PRELOADED = (
    "steward.pipeline",
    "great_expectations",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "optuna",
    "skl2onnx",
    "onnxruntime",
    "skops.io",
    "matplotlib.figure",
    "ibis.backends.duckdb",
)
MEASURED = {"fit_seconds", "search_seconds", "seconds", "latency_us", "run_id", "commit"}
"""What may differ between two runs of the same step: durations, MLflow's names, and what the tree says meanwhile."""

PLACES = {"uri", "path", "data_docs"}


@dataclass(frozen=True)
class Moment:
    """A home as it is right before a step, the call that comes next, and what it leads to if nothing disturbs it."""

    home: Path
    step: Callable[..., Reference]
    model: ModelFile
    arguments: Sequence[Any]
    named: dict[str, Any]
    expected: Reference
    content: Any
    traces: Any

    def copied(self, home: Path) -> Workspace:
        shutil.copytree(self.home, home)
        return opened(home)

    def repeated(self, workspace: Workspace) -> Reference:
        return self.step(workspace, self.model, *self.arguments, **self.named)


def opened(home: Path) -> Workspace:
    return Workspace(Settings.from_environment({"STEWARD_HOME": str(home), "STEWARD_JOBS": "1"}))


def model_file(data: Path) -> ModelFile:
    return ModelFile.model_validate(
        {
            "name": "risk",
            "task": "classification",
            "source": {"table": str(data / "*.parquet"), "key": "deployment_id"},
            "label": {"column": "risk_level", "classes": ["Low", "Medium", "High"]},
            "columns": {
                "files_changed": {"type": "integer"},
                "environment": {"type": "category", "values": ["dev", "staging", "prod"]},
                "hour": {"type": "integer"},
            },
            "rows": {"max_rejected": 0.5},
            "candidates": ["decision_tree"],
            "search": {"trials": 2, "cross_validate_below": 0},
            "verify": {"detect": 0.2, "slices": ["environment"]},
            "approve": "person",
        }
    )


def call_of(stage: Stage, made: dict[str, Reference]) -> tuple[Sequence[Any], dict[str, Any]]:
    """What a stage is called with, beside the workspace and the model file."""
    given = [made[name] for name in stage.takes]
    match stage.name:
        case "train_candidate":
            return [*given, "decision_tree"], {}
        case "select":
            return [given[0], given[1:]], {}
        case "approve":
            return given, {"decision": "approved", "by": "Ann", "why": "fine", "at": AT}
        case "promote":
            return given[:1], {"approval": given[1], "at": AT}
        case "accept" | "verify":
            return given, {"at": AT}
    return given, {}


def content_of(workspace: Workspace, reference: Reference) -> Any:
    """Everything that a record says, without what is measured and where it stands."""
    return _without(workspace.load(KINDS[reference.kind], reference).as_json(), MEASURED | PLACES)


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(part, names) for name, part in value.items() if name not in names}
    return [_without(part, names) for part in value] if isinstance(value, list) else value


def traces(workspace: Workspace) -> dict[str, Any]:
    """What a step leaves behind and must not leave twice."""
    client, entries = workspace.registry.client, workspace.ledger.entries()
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(experiments) if experiments else []
    return {
        "ledger": [(entry.model, entry.kind, entry.subject) for entry in entries],
        "runs": sorted((run.info.run_name, run.info.status) for run in runs),
        "logged models": len(client.search_logged_models(experiments)),
        "versions": [version.number for version in workspace.registry.versions("risk")],
        "aliases": workspace.registry.aliases("risk"),
        "records": sorted(path.name for path in Path(workspace.store.root).glob("records/*/*.json")),
    }


@pytest.fixture(scope="session")
def moments(tmp_path_factory: pytest.TempPathFactory, new_workspace: Callable[[Path], Workspace]) -> dict[str, Moment]:
    """One undisturbed training, with a copy of its home before each step."""
    folder = tmp_path_factory.mktemp("steps")
    table = deployments.simulate(1_500)
    table.loc[3, "environment"] = "moon"
    deployments.write(folder / "data", table)
    workspace, model = new_workspace(folder / "home"), model_file(folder / "data")
    made: dict[str, Reference] = {}
    found = {}
    for stage in STAGES:
        before = folder / f"before-{stage.name}"
        shutil.copytree(folder / "home", before)
        step, (arguments, named) = getattr(steps, stage.name), call_of(stage, made)
        made[stage.name] = reference = step(workspace, model, *arguments, **named)
        found[stage.name] = Moment(
            before, step, model, arguments, named, reference, content_of(workspace, reference), traces(workspace)
        )
    return found


@pytest.fixture
def moment(moments: dict[str, Moment], request: pytest.FixtureRequest) -> Moment:
    return moments[request.param]


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Makes real processes that are fresh but for imported libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


every_step = pytest.mark.parametrize("moment", STEPS, indirect=True)


def test_the_matrix_has_every_step() -> None:
    assert {name for name in STEPS if not callable(getattr(steps, name))} == set()
    assert {step for step in vars(records).values() if isinstance(step, type) and issubclass(step, Record)} == {
        Record,
        *KINDS.values(),
    }


@every_step
def test_the_same_again_is_the_same_reference_and_leaves_nothing_twice(moment: Moment, tmp_path: Path) -> None:
    """Repeated as it is, and as after a kill just before the step's last write, which is its record."""
    workspace = moment.copied(tmp_path / "home")
    first = moment.repeated(workspace)
    assert moment.repeated(opened(tmp_path / "home")) == first
    assert is_as_expected(moment, workspace, first)
    Path(first.uri).unlink()
    assert moment.repeated(opened(tmp_path / "home")) == first
    assert is_as_expected(moment, workspace, first)


@every_step
def test_reference_and_record_survive_json_and_fit_into_xcom(moment: Moment) -> None:
    text = json.dumps(moment.expected.as_json())
    assert Reference.model_validate(json.loads(text)) == moment.expected
    assert len(text) < XCOM_BYTES
    kind = KINDS[moment.expected.kind]
    record = opened(moment.home.parent / "home").load(kind, moment.expected)
    assert kind.model_validate(json.loads(json.dumps(record.as_json(), allow_nan=False))) == record
    assert kind.model_validate_json(record.model_dump_json()) == record


@pytest.mark.slow
@every_step
def test_killed_at_a_random_moment_and_repeated(moment: Moment, processes: ForkServerContext, tmp_path: Path) -> None:
    calm = moment.copied(tmp_path / "calm")
    started = time.monotonic()
    assert is_as_expected(moment, calm, in_fresh_process(processes, moment, calm))
    seconds, drawn = time.monotonic() - started, random.Random(moment.step.__name__)
    for number in range(KILLS):
        home = tmp_path / f"killed-{number}"
        victim = processes.Process(
            target=moment.step, args=(moment.copied(home), moment.model, *moment.arguments), kwargs=moment.named
        )
        victim.start()
        victim.join((number + drawn.random()) / KILLS * seconds)
        victim.kill()
        victim.join()
        again = moment.repeated(opened(home))
        assert is_as_expected(moment, opened(home), again), f"killed after {number} of {KILLS} parts of {seconds:.1f} s"


def in_fresh_process(processes: ForkServerContext, moment: Moment, workspace: Workspace) -> Reference:
    with ProcessPoolExecutor(1, processes) as pool:
        return pool.submit(
            moment.step, Workspace(workspace.settings), moment.model, *moment.arguments, **moment.named
        ).result()


def is_as_expected(moment: Moment, workspace: Workspace, reference: Reference) -> bool:
    """The reference, what is behind it, and every trace are those of the undisturbed run, and nothing is half-written."""
    assert reference == moment.expected.model_copy(update={"uri": reference.uri})
    assert content_of(workspace, reference) == moment.content
    assert traces(workspace) == moment.traces
    assert workspace.ledger.verify().ok
    root = Path(workspace.store.root)
    assert list(root.rglob("*.part")) == []
    for path in root.glob("records/*/*.json"):
        assert workspace.store.read_record(path.parent.name, path.stem) is not None
    for path in root.glob("files/*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name.partition(".")[0]
    return True
