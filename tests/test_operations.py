import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steward import operations, steps
from steward.config import ModelFile
from steward.core import estimators
from steward.errors import ArtifactDamaged, LedgerConflict, NoChampion, RecordInvalid, VersionUnknown
from steward.io.workspace import Workspace
from steward.records import Challenger, Estimate, File, Parity, Promotion, Reference, Test, Verdict

AT = datetime(2026, 3, 2, 6, tzinfo=UTC)
MODEL = """
name: risk
task: classification
source: {table: rows.csv, key: id, missing: ["", "?"]}
label: {column: outcome, classes: [Low, Medium, High]}
columns:
  files: {type: integer, min: 0, max: 1000}
  team: {type: category, open: true, nullable: true}
  stage: {type: category, values: [dev, prod], aliases: {production: prod}}
  urgent: {type: boolean}
candidates: [decision_tree]
retrain: {schedule: "0 6 * * 1"}
"""
RECORD = {"files": 90, "team": "web", "stage": "prod", "urgent": False}
ANY = Estimate(value=0.9, low=0.88, high=0.92)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, new_workspace: Callable[[Path], Workspace]) -> Workspace:
    """One for all tests here; every test has a model of its own."""
    return new_workspace(tmp_path_factory.mktemp("operations") / "home")


@pytest.fixture
def model(request: pytest.FixtureRequest) -> ModelFile:
    return ModelFile.parse(MODEL.replace("name: risk", f"name: risk_{zlib.crc32(request.node.name.encode())}"))


@pytest.fixture(scope="module")
def trained() -> Any:
    """A tree that knows Low and High; training never saw a Medium."""
    files = np.arange(100.0)
    team, stage = np.array(["web", "ops"] * 50, dtype=object), np.array(["dev", "prod"] * 50, dtype=object)
    frame = pd.DataFrame({"files": files, "team": team, "stage": stage, "urgent": files % 2})
    pipeline = estimators.build(ModelFile.parse(MODEL), "decision_tree", {}, seed=1, threads=1)
    return estimators.fit(pipeline, frame, np.where(files > 50, "High", "Low").astype(object), threads=1)


def reference(kind: str, digest: str) -> Reference:
    return Reference(kind=kind, uri=f"store/records/{kind}/{digest}.json", digest=digest)


def challenger(workspace: Workspace, model: ModelFile, skops: File, digest: str) -> Reference:
    made = Challenger(
        model=model.name, digest=digest, name="decision_tree", params={}, selection=reference("selection", "s"),
        roles=reference("roles", "r"), snapshot=reference("snapshot", "s"), fingerprint="f" * 64, trained_rows=100,
        trained_units=skops, skops=skops, onnx=None, engine="pipeline", seed=1, threads=1, fit_seconds=1, latency_us=1,
        parity=Parity(passed=False, rows=1, label_differences=0, largest_difference=0, reason=""), classes=model.classes,
        inputs={name: column.type for name, column in model.columns.items()}, example=RECORD, metric="accuracy",
        validation=ANY, model_file=model.model_dump(mode="json", by_alias=True), commit=None, code="c", packages={},
        machine={},
    )  # fmt: skip
    return workspace.remember(Challenger, [model.name, digest], lambda: made)


def promote(workspace: Workspace, model: ModelFile, pipeline: Any, number: int, verdict: str = "promote") -> Reference:
    """Registers version `number` through the pipeline's own step."""
    with workspace.store.scratch() as folder:
        workspace.artifacts.write_skops(pipeline, folder / "model.skops")
        skops = workspace.store.put(folder / "model.skops", "model.skops")
    serving = workspace.registry.aliases(model.name).get("champion")
    test = Test(
        rows=500, metric="accuracy", value=0.9, low=0.88, high=0.92, constant=0.5, difference=ANY, discordance=0.1,
        champion=serving and {"version": serving, "value": 0.8}, overlap={"champion": 0, "challenger": 0},
    )  # fmt: skip
    made = Verdict(
        model=model.name, challenger=challenger(workspace, model, skops, f"{model.name} challenger {number}"), digest=str(number),
        verdict=verdict, reasons=("Better.",), gates=(), slices=(), test=test, opening=number, at=AT,
    )  # fmt: skip
    at = AT + timedelta(days=number)
    held = workspace.remember(Verdict, [model.name, number], lambda: made)
    return steps.promote(workspace, model, held, at=at)


@pytest.fixture
def registered(workspace: Workspace, model: ModelFile, trained: Any) -> Callable[[int], None]:
    def register(count: int) -> None:
        for number in range(1, count + 1):
            promote(workspace, model, trained, number)

    return register


@pytest.fixture(scope="module")
def served(workspace: Workspace, trained: Any) -> ModelFile:
    """A model with a champion, for tests that only read."""
    model = ModelFile.parse(MODEL)
    promote(workspace, model, trained, 1)
    return model


def test_a_reason_is_on_record_once_per_run(workspace: Workspace, model: ModelFile) -> None:
    asked = {"by": "ada", "at": AT, "run_id": "run-1"}
    first = operations.trigger(workspace, model, "manual", "new team", **asked)
    assert operations.trigger(workspace, model, "manual", "new team", **asked) == first
    assert operations.describe(first) == "ada asked for a training (manual): new team"
    with pytest.raises(LedgerConflict, match="another trigger of risk_"):
        operations.trigger(workspace, model, "manual", "another reason", **asked)


def test_a_new_model_has_a_status(workspace: Workspace, model: ModelFile) -> None:
    status = operations.status(workspace, model, at=AT)
    assert (status["champion"], status["last_verdict"], status["last_decisions"]) == (None, None, [])
    assert status["live_accuracy"] == {"value": None, "why": operations.NOT_MONITORED}
    assert status["retrain_schedule"] == "0 6 * * 1"


def test_status_says_since_when_and_why(
    workspace: Workspace, registered: Callable[[int], None], model: ModelFile
) -> None:
    registered(2)
    later = datetime.now(UTC) + timedelta(days=3)
    workspace.ledger.append(model.name, "snapshot", "f" * 64, {"rows": 100, "columns": {}}, AT)
    status = operations.status(workspace, model, at=later)
    assert (status["champion"]["version"], status["previous"]["version"], status["challenger"]) == (2, 1, None)
    assert status["champion"]["champion_since"] == "2026-03-04T06:00:00+00:00"
    assert status["champion"]["age_days"] == pytest.approx(3, abs=0.01)
    assert [entry["says"] for entry in status["last_decisions"]][-1] == "version 2 became champion: Better."
    assert "was not opened" in status["sealed_rows"]["why"]
    workspace.ledger.append(model.name, "opening", "1", {"digest": "d", "rows": 15}, AT)
    assert operations.status(workspace, model, at=later)["sealed_rows"]["value"] == 0


def test_there_and_back_by_hand(workspace: Workspace, registered: Callable[[int], None], model: ModelFile) -> None:
    registered(2)
    back = operations.rollback(workspace, model, why="complaints", by="ada", at=AT)
    assert (back["version"], back["previous"], back["act"]) == (1, 2, "rollback")
    assert workspace.registry.aliases(model.name) == {"champion": 1, "previous": 2}
    forth = operations.promote_by_hand(workspace, model, 2, why="it was the network", by="ada", at=AT)
    assert (forth["champion"], forth["previous"]) == (2, 1)
    assert workspace.registry.aliases(model.name) == {"champion": 2, "previous": 1}
    says = [operations.describe(entry) for entry in operations.history(workspace, model, kind="promotion", limit=2)]
    assert says == [
        "version 1 made champion by ada (rollback): complaints",
        "version 2 made champion by ada (promote): it was the network",
    ]
    assert workspace.ledger.verify().ok


def test_a_challenger_promoted_by_hand_is_no_challenger_any_more(
    workspace: Workspace, registered: Callable[[int], None], model: ModelFile, trained: Any
) -> None:
    registered(1)
    promote(workspace, model, trained, 2, verdict="hold")
    assert workspace.registry.aliases(model.name) == {"champion": 1, "challenger": 2}
    operations.promote_by_hand(workspace, model, 2, why="the board wants it", by="ada", at=AT)
    assert workspace.registry.aliases(model.name) == {"champion": 2, "previous": 1}


def test_what_cannot_be_moved_is_refused_and_not_recorded(
    workspace: Workspace, registered: Callable[[int], None], model: ModelFile
) -> None:
    registered(1)
    before = workspace.ledger.entries()
    with pytest.raises(VersionUnknown, match=r"no previous champion; allowed: 1. Name the version"):
        operations.rollback(workspace, model, why="?", by="ada", at=AT)
    with pytest.raises(VersionUnknown, match="no such version: got 7; allowed: 1"):
        operations.promote_by_hand(workspace, model, 7, why="?", by="ada", at=AT)
    (path,) = Path(workspace.store.root, "files").rglob("*.skops")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ArtifactDamaged, match="changed since it was recorded"):
        operations.promote_by_hand(workspace, model, 1, why="?", by="ada", at=AT)
    path.write_bytes(content)
    assert workspace.ledger.entries() == before


def test_the_decision_about_a_version_is_found_again(workspace: Workspace, served: ModelFile) -> None:
    found = operations.promotion_of(workspace, served)
    assert workspace.load(Promotion, found).version == 1
    assert found == steps.promote(workspace, served, workspace.load(Promotion, found).verdict, at=AT)
    with pytest.raises(VersionUnknown, match="no such version: got 3; allowed: 1"):
        operations.promotion_of(workspace, served, 3)


def test_the_champion_answers(workspace: Workspace, served: ModelFile) -> None:
    answer = operations.predict(workspace, served, RECORD)
    assert answer == {
        "model": "risk",
        "prediction": "High",
        "confidence": 1.0,
        "probabilities": {"Low": 0.0, "Medium": 0.0, "High": 1.0},
        "interval": None,
        "action": "proceed",
        "message": "",
        "unseen": [],
        "flags": [],
        "model_version": 1,
    }


@pytest.mark.parametrize(
    ("change", "unseen"),
    [
        ({"team": "brand new"}, ["team"]),
        ({"team": None}, []),
        ({"team": " ? "}, []),
        ({"stage": " production "}, []),
        ({"urgent": 1}, []),
        ({"files": 90.0}, []),
        ({"id": 7, "outcome": "Low"}, []),
    ],
)
def test_what_the_contract_allows_is_answered(
    workspace: Workspace, served: ModelFile, change: dict[str, Any], unseen: list[str]
) -> None:
    answer = operations.predict(workspace, served, {**RECORD, **change})
    assert (answer["prediction"], answer["unseen"]) == ("High", unseen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": -1}, "files is out of range: got -1; allowed: 0 to 1000"),
        ({"files": 3.5}, "files is not a whole number: got 3.5"),
        ({"files": "3"}, "files is not a whole number: got '3'"),
        ({"files": True}, "files is not a whole number: got True"),
        ({"files": float("inf")}, "files is not a whole number: got inf"),
        ({"files": 10**400}, "files is not a whole number"),
        ({"files": None}, "files is missing; allowed: 0 to 1000"),
        ({"stage": "test"}, "stage has no such category: got 'test'; allowed: dev, prod"),
        ({"stage": ["dev"]}, "stage is not a text"),
        ({"urgent": "yes"}, "urgent is not true or false: got 'yes'"),
        ({"tem": "web"}, "no such field: got 'tem'; allowed: files, team, stage, urgent"),
        ({"files": -1, "stage": "x"}, "files is out of range.*Also wrong: stage has no such category"),
    ],
)
def test_what_breaks_the_contract_is_named(
    workspace: Workspace, served: ModelFile, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecordInvalid, match=message):
        operations.predict(workspace, served, {**RECORD, **change})


def test_without_a_champion_there_is_no_answer(workspace: Workspace, model: ModelFile) -> None:
    with pytest.raises(NoChampion, match=r"has no champion yet. `steward train risk_"):
        operations.predict(workspace, model, RECORD)


def test_the_first_answer_of_a_person_stands(workspace: Workspace, model: ModelFile) -> None:
    verdict = reference("verdict", "v" * 64)
    said = {"decision": "refused", "by": "ada", "why": "not on a Friday"}
    first = steps.approve(workspace, model, verdict, **said, at=AT)
    assert steps.approve(workspace, model, verdict, **said, at=AT + timedelta(hours=1)) == first
    with pytest.raises(LedgerConflict, match="another approval of risk_"):
        steps.approve(workspace, model, verdict, decision="approved", by="bob", why="why not", at=AT)


@pytest.mark.parametrize(
    ("kind", "subject", "body", "says"),
    [
        (
            "observation", "s", {"version": 3, "end": "2026-03-02T06:00:00+00:00", "origin": "predictions", "rows": 500},
            "looked at version 3 up to 2026-03-02T06:00: 500 rows (predictions)",
        ),
        ("observation", "s", {"version": 3, "end": "2026-03-02T06:00:00", "origin": "nothing", "rows": 0}, "nothing came in"),
        ("drift", "s", {"alarms": ["files", "team"], "says": ["files moved", "so did team"]}, "drift in files, team: files moved (and 1"),
        ("decision", "s", {"reason": "wait: too few", "ask_a_person": True}, "wait: too few; a person is asked"),
        ("training", "accuracy:v1", {"run_id": "run-7"}, "training for accuracy:v1 began: run run-7"),
        ("failure", "run-7", {"what": "too few rows", "error": "NoCandidate"}, "run run-7 ended without a verdict: too few rows"),
        ("boundaries", "2", {"validation": "2026-03-01T00:00:00", "test": "2026-03-02T00:00:00"}, "round 2: rows from 2026-03-01"),
        ("notification", "accuracy:v1", {"title": "accuracy fell"}, "told: accuracy fell"),
        ("whatever", "s", {}, "whatever s"),
    ],
)  # fmt: skip
def test_every_entry_says_what_it_is(
    workspace: Workspace, model: ModelFile, kind: str, subject: str, body: dict[str, Any], says: str
) -> None:
    assert says in operations.describe(workspace.ledger.append(model.name, kind, subject, body, AT))


def test_status_says_when_the_next_look_is(workspace: Workspace, model: ModelFile) -> None:
    status = operations.status(workspace, model, at=AT)
    assert status["next_look"] == {"value": "2026-03-03T00:00:00+00:00", "why": "monitor.schedule @daily"}
    assert status["estimated_accuracy"] == status["drift"] == {"value": None, "why": operations.NOT_MONITORED}
    assert status["last_decision"] is None
    unwatched = model.model_copy(update={"monitor": model.monitor.model_copy(update={"schedule": None})})
    assert operations.status(workspace, unwatched, at=AT)["next_look"]["value"] is None
