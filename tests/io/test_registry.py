import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from steward.errors import RegistryUnavailable, VersionUnknown
from steward.io.ledger import Ledger
from steward.io.registry import Registry, Version
from steward.io.versions import LedgerRegistry
from steward.io.workspace import Workspace
from steward.records import (
    Candidate,
    Challenger,
    Estimate,
    File,
    Parity,
    Reference,
    Test,
    Trial,
    Verdict,
    digest_of,
)

VALUE = Estimate(value=0.9, low=0.88, high=0.92)


def reference(name: str = "any") -> Reference:
    return Reference(kind="any", uri=f"store/records/any/{name}.json", digest=digest_of(name))


def candidate(name: str = "random_forest", error: str | None = None) -> Candidate:
    trials = tuple(Trial(number=i, params={}, loss=1 / (i + 1), seconds=1, state="complete") for i in range(5))
    return Candidate(
        name=name, model="risk", roles=reference(), params={"depth": 3, "kind": None}, metric="accuracy",
        validation=VALUE, loss=0.2, trials=trials, fit_seconds=1.5, latency_us=40, bytes=1000, error=error,
    )  # fmt: skip


def challenger(skops: Path, content: str = "one") -> Challenger:
    skops.write_text(content)
    file = File(uri=str(skops), sha256=digest_of(content), bytes=len(content))
    return Challenger(
        model="risk", digest=file.sha256, name="random_forest", params={"depth": 3}, selection=reference(),
        roles=reference(), snapshot=reference(), fingerprint="f" * 64, trained_rows=300, trained_units=file,
        skops=file, onnx=None, engine="pipeline", seed=1, threads=1, fit_seconds=1, latency_us=1,
        parity=Parity(passed=True, rows=1, label_differences=0, largest_difference=0, reason=""),
        classes=("Low", "High"), inputs={"files": "integer", "team": "category"},
        example={"files": 3, "team": "ops"}, metric="accuracy", validation=VALUE, model_file={}, commit="c0ffee",
        code="c", packages={"python": "3.11.7", "scikit-learn": "1.9.1"}, machine={}, run_id=None,
    )  # fmt: skip


def verdict() -> Verdict:
    test = Test(
        rows=500, metric="accuracy", value=0.9, low=0.88, high=0.92, constant=0.5, champion=None, difference=VALUE,
        discordance=0.1, overlap={"champion": 0, "challenger": 0},
    )  # fmt: skip
    return Verdict(
        model="risk", challenger=reference(), digest="d", verdict="promote", reasons=("Better.",), gates=(), slices=(),
        test=test, opening=1, at=datetime(2026, 3, 1, tzinfo=UTC),
    )  # fmt: skip


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, new_workspace: Callable[[Path], Workspace]) -> Registry:
    return new_workspace(tmp_path_factory.mktemp("registry") / "home").registry


@pytest.fixture(params=["mlflow", "ledger"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Registry | LedgerRegistry:
    """Both registries answer alike: production's, and the one that a replay keeps in its ledger."""
    if request.param == "mlflow":
        return request.getfixturevalue("registry")
    return LedgerRegistry(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))


def register(registry: Registry | LedgerRegistry, folder: Path, content: str = "one") -> int:
    held = challenger(folder / "model.skops", content)
    return registry.register(held, reference(content), verdict(), skops=folder / "model.skops")


def test_candidate_is_a_nested_run(registry: Registry) -> None:
    run_id = registry.log_candidate(
        "risk", reference(), candidate(), lambda: {"curve.svg": b"<svg/>"}, {"snapshot": "f00d"}
    )
    run = registry.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == registry.training_run("risk", reference())
    assert run.data.tags["steward.snapshot"] == "f00d"
    assert run.data.params == {"depth": "3", "kind": "None"}
    assert run.data.metrics["validation_accuracy"] == 0.9
    assert [m.value for m in registry.client.get_metric_history(run_id, "best_loss")] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    assert [file.path for file in registry.client.list_artifacts(run_id, "plots")] == ["plots/curve.svg"]


def test_candidate_twice_is_one_run(registry: Registry) -> None:
    twice = {registry.log_candidate("risk", reference("twice"), candidate()) for _ in range(2)}
    assert len(twice) == 1


def test_half_written_run_is_replaced(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the run was made: the repeated step leaves one finished run."""
    monkeypatch.setattr(registry, "_log_result", killed)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        registry.log_candidate("risk", reference("half"), candidate())
    monkeypatch.undo()
    run_id = registry.log_candidate("risk", reference("half"), candidate())
    parent = registry.training_run("risk", reference("half"))
    experiment = registry.client.get_experiment_by_name("risk").experiment_id
    runs = registry.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert [(run.info.run_id, run.info.status) for run in runs] == [(run_id, "FINISHED")]


def test_failed_candidate_is_a_failed_run(registry: Registry) -> None:
    run_id = registry.log_candidate("risk", reference("failed"), candidate(error="ValueError: no"))
    run = registry.client.get_run(run_id)
    assert (run.info.status, run.data.tags["steward.error"]) == ("FAILED", "ValueError: no")


def test_model_without_versions(either: Registry | LedgerRegistry) -> None:
    registry = either
    assert (registry.aliases("nobody"), registry.champion("nobody"), registry.versions("nobody")) == ({}, None, [])
    with pytest.raises(VersionUnknown, match="got 3; allowed: none yet"):
        registry.version("nobody", 3)


def test_version_leads_back_to_the_store(either: Registry | LedgerRegistry, tmp_path: Path) -> None:
    registry = either
    number = register(registry, tmp_path)
    registry.move("risk", "champion", number)
    champion = registry.champion("risk")
    assert isinstance(champion, Version)
    assert (champion.number, champion.digest, champion.challenger) == (number, digest_of("one"), reference("one"))
    assert (champion.verdict, champion.reason, champion.aliases) == ("promote", "Better.", ("champion",))
    registry.move("risk", "champion", None)
    assert registry.champion("risk") is None


def test_registered_twice_is_one_version(either: Registry | LedgerRegistry, tmp_path: Path) -> None:
    registry = either
    assert register(registry, tmp_path, "again") == register(registry, tmp_path, "again")
    newest, *_ = registry.versions("risk")
    assert newest.number == register(registry, tmp_path, "again")


def test_aliases_move_and_versions_count_up(either: Registry | LedgerRegistry, tmp_path: Path) -> None:
    first, second = (register(either, tmp_path, content) for content in ("first", "second"))
    assert second == first + 1
    either.move("risk", "champion", first)
    either.move("risk", "previous", first)
    either.move("risk", "champion", second)
    either.move("risk", "champion", second)
    assert {name: either.aliases("risk")[name] for name in ("champion", "previous")} == {
        "champion": second,
        "previous": first,
    }
    assert [version.number for version in either.versions("risk")][:2] == [second, first]
    assert either.version("risk", first).aliases == ("previous",)
    assert either.training_run("risk", reference()) == either.training_run("risk", reference())
    either.move("risk", "champion", None)
    either.move("risk", "previous", None)
    with pytest.raises(VersionUnknown, match="got 99"):
        either.version("risk", 99)


def test_mlflow_shows_signature_and_example(registry: Registry, tmp_path: Path) -> None:
    number = register(registry, tmp_path, "shown")
    import mlflow

    mlflow.set_tracking_uri(registry.tracking_uri)
    shown = mlflow.models.get_model_info(f"models:/risk/{number}")
    assert [column.name for column in shown.signature.inputs] == ["files", "team"]
    assert shown.saved_input_example_info is not None
    assert shown.flavors["sklearn"]["serialization_format"] == "skops"


def test_first_use_from_two_processes(tmp_path: Path) -> None:
    code = """
import sys; from pathlib import Path; from steward.io.registry import Registry
from steward.records import Reference
home = Path(sys.argv[1])
registry = Registry(f"sqlite:///{home / 'mlflow.db'}", home)
print(registry.training_run("risk", Reference(kind="roles", uri="any", digest="a" * 64)))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert len({stdout for stdout, _ in answers}) == 1
    assert {stderr for _, stderr in answers} == {""}


def test_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RegistryUnavailable, match=rf"MLflow does not answer.*127.0.0.1:{port}") as caught:
        Registry(f"http://user:secret@127.0.0.1:{port}", tmp_path).champion("risk")
    assert caught.value.retryable
    assert "secret" not in str(caught.value)


def test_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steward.io.registry.LOCK_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "mlflow.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RegistryUnavailable, match="locked"):
        Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path).aliases("risk")
    other.close()


def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is a text, and a rather long one for a header of a database file")
    with pytest.raises(RegistryUnavailable, match="not a database"):
        Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path).aliases("risk")


def killed(*_: object) -> None:
    raise KeyboardInterrupt("killed")
