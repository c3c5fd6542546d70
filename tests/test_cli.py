import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from steward import operations, terminal
from steward.config import ModelFile
from steward.pipeline import Event
from steward.records import Candidate, Estimate, Reference, Trial
from steward.stages import MONITORING

if TYPE_CHECKING:
    from conftest import Installation

COMMANDS = (
    "init",
    "check",
    "train",
    "monitor",
    "predict",
    "score",
    "status",
    "history",
    "promote",
    "rollback",
    "reproduce",
    "report",
)
ALONE = ("schema", "doctor", "demo")
PROMISED = {
    "model", "version", "verdict", "reasons", "winner", "candidates", "test", "snapshot", "accepted", "rejected", "champion",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(
    champion: "tuple[Installation, dict[str, Any]]", tmp_path_factory: pytest.TempPathFactory
) -> "Installation":
    """One copy for all tests here."""
    return champion[0].copy(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def outcome(champion: "tuple[Installation, dict[str, Any]]") -> dict[str, Any]:
    """What `steward train --json` answered."""
    return champion[1]


def test_help_names_every_command(fresh: "Installation") -> None:
    result = fresh.run("--help")
    assert result.exit_code == 0
    assert [name for name in (*COMMANDS, *ALONE) if f" {name} " not in result.stdout] == []


@pytest.mark.parametrize("command", [*COMMANDS, *ALONE])
def test_help_of_a_command_has_an_example(fresh: "Installation", command: str) -> None:
    result = fresh.run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: steward {command}" in " ".join(result.stdout.split())
    assert ("--json" in result.stdout) == (command != "demo")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["fly"],
        ["promote", "risk", "one", "--why", "x"],
        ["promote", "risk", "1"],
        ["rollback", "risk", "--why", "  "],
        ["train", "risk", "--trials", "0"],
        ["monitor", "risk", "--at", "yesterday"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_nothing_on_stdout(fresh: "Installation", arguments: list[str]) -> None:
    result = fresh.run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error" in result.stderr


def test_a_refusal_is_one_json_document_and_one_line(fresh: "Installation") -> None:
    result = fresh.run("status", "nobody", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "UnknownModel"
    assert result.stderr.startswith("UnknownModel: no model file of this name")
    assert fresh.run("status", "nobody").stdout == ""


def test_version_and_schema(fresh: "Installation") -> None:
    assert fresh.run("--version").stdout.startswith("steward ")
    assert fresh.ask("schema") == ModelFile.json_schema()
    assert json.loads(fresh.run("schema").stdout) == ModelFile.json_schema()


def test_a_setting_that_cannot_be_used_is_named(fresh: "Installation") -> None:
    result = fresh.run("status", STEWARD_THREADS="many")
    assert (result.exit_code, result.stderr.split(":")[0]) == (1, "SettingsError")


@pytest.mark.parametrize("failure", [RuntimeError("the unforeseen\nhappened"), KeyboardInterrupt()])
def test_other_failures_are_one_clear_line(
    fresh: "Installation", monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    fresh.write_model()
    monkeypatch.setattr(operations, "status", fail)
    result = fresh.run("status", "risk", "--json")
    if isinstance(failure, KeyboardInterrupt):
        assert (result.exit_code, result.stdout) == (130, "")
        assert "run the same command again" in result.stderr
        return
    assert (result.exit_code, json.loads(result.stdout)["error"]) == (1, "Unexpected")
    assert result.stderr == "Unexpected RuntimeError: the unforeseen happened (STEWARD_DEBUG=1 shows the traceback)\n"
    assert isinstance(fresh.run("status", "risk", STEWARD_DEBUG="1").exception, RuntimeError)


def test_whatever_libraries_print_stays_out_of_the_answer(fresh: "Installation") -> None:
    code = """
import os, sys
from steward import operations
from steward.cli import main
operations.status = lambda *_, **__: print("python") or os.system("echo program") or {"model": "risk"}
sys.argv = ["steward", "status", "risk", "--json"]
main()
"""
    fresh.write_model()
    environment = {**fresh.environment, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == {"model": "risk"}
    assert sorted(done.stderr.split()) == ["program", "python"]


def test_a_reader_that_leaves_is_no_failure(fresh: "Installation") -> None:
    command = f"{sys.executable} -m steward schema | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, env=fresh.environment
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "{", "")


def test_status_without_models_and_with_a_broken_one(fresh: "Installation") -> None:
    assert "`steward init` writes one" in fresh.run("status").stdout
    (fresh.models / "broken.yaml").write_text("name: [")
    answer = fresh.ask("status")["models"]
    assert [(found["model"], found["error"]) for found in answer] == [("broken", "ModelFileError")]
    assert "not valid YAML" in fresh.run("status").stdout


def test_init_writes_a_model_file_once(fresh: "Installation") -> None:
    fresh.write_rows()
    command = ("init", "risk", "--data", str(fresh.rows), "--label", "outcome", "--key", "id")
    answer = fresh.ask(*command)
    path = Path(answer["path"])
    assert ModelFile.load(path).label.column == "outcome"
    path.write_text("mine")
    assert fresh.ask(*command, code=1)["got"] == str(path)
    assert path.read_text() == "mine"
    assert "Read it, then: steward check risk" in fresh.run(*command, "--force").stdout
    assert ModelFile.load(path).name == "risk"


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_init_may_be_told_the_task(fresh: "Installation", task: str) -> None:
    grades = "".join(f"{number},{number % 17},{number % 9}\n" for number in range(600))
    fresh.rows.write_text(f"id,size,grade\n{grades}")
    data = ("--data", str(fresh.rows), "--label", "grade", "--key", "id")
    assert ModelFile.load(Path(fresh.ask("init", "risk", *data, "--task", task)["path"])).task == task
    assert fresh.run("init", "other", *data, "--task", "clustering").exit_code == 2


def test_check_shows_what_is_accepted(fresh: "Installation") -> None:
    fresh.write_model()
    answer = fresh.ask("check", "risk")
    assert (answer["rows"], answer["accepted"], answer["rejected"]) == (600, 600, 0)
    shown = fresh.run("check", "risk").stdout
    assert "accepted" in shown
    assert "Data Docs: " in shown


def test_check_of_a_refused_table_names_the_column(fresh: "Installation") -> None:
    fresh.write_model(stage="moon")
    answer = fresh.ask("check", "risk", code=1)
    assert answer["error"] == "ContractRefused"
    assert "stage" in answer["got"]
    assert Path(answer["data_docs"]).exists()


@pytest.mark.parametrize("record", ["files=3", "[1]", '"x"'])
def test_a_record_that_is_no_json_object(fresh: "Installation", record: str) -> None:
    fresh.write_model()
    result = fresh.run("predict", "risk", "-", "--json", stdin=record)
    assert (result.exit_code, json.loads(result.stdout)["error"]) == (1, "RecordInvalid")


def test_train_answers_what_the_design_promises(outcome: dict[str, Any]) -> None:
    assert set(outcome) >= PROMISED
    assert (outcome["model"], outcome["verdict"], outcome["champion"]) == ("risk", "promote", 1)
    assert outcome["test"]["overlap"] == {"champion": 0, "challenger": 0}
    assert set(outcome["candidates"][0]) >= {"name", "validation", "fit_seconds", "latency_us"}


def test_a_second_training_on_unchanged_data_is_refused(trained: "Installation", outcome: dict[str, Any]) -> None:
    answer = trained.ask("train", "risk", code=1)
    assert (answer["error"], int(answer["missing"]) > 0) == ("NotEnoughSealedRows", True)


def test_what_a_person_sees_after_a_training(trained: "Installation") -> None:
    assert "champion since" in trained.run("status", "risk").stdout
    assert "risk   version 1" in trained.run("status").stdout
    history = trained.run("history", "risk", "--verify").stdout
    assert "first version" in history
    assert "is unbroken" in history
    predicted = trained.run("predict", "risk", '{"files": 900, "stage": "dev"}').stdout
    assert "prediction     High" in predicted


def test_json_after_a_training(trained: "Installation") -> None:
    assert trained.ask("predict", "risk", '{"files": 10, "stage": "dev"}')["prediction"] == "Low"
    assert trained.ask("status", "risk")["last_verdict"]["verdict"] == "promote"
    assert trained.ask("history", "risk", "--limit", "2", "--verify")["chain"]["ok"]
    assert len(trained.ask("history", "risk", "--kind", "opening")["entries"]) == 1
    assert Path(trained.ask("report", "risk")["path"]).exists()


def test_a_look_is_made_once_and_says_what_it_decided(champion: "tuple[Installation, Any]", tmp_path: Path) -> None:
    twin = champion[0].copy(tmp_path)
    found = twin.ask("monitor", "risk", "--at", "2100-01-01")
    assert set(found) == {"model", "at", *(stage.name for stage in MONITORING)}
    assert (found["observe"]["version"], found["decide_retraining"]["train"]) == (1, False)
    assert twin.ask("monitor", "risk", "--at", "2100-01-01T00:00:00+00:00") == found
    shown = twin.run("monitor", "risk", "--at", "2100-01-01")
    assert "wait: nothing asks for a training" in shown.stdout
    assert "measure_accuracy (" in shown.stderr
    assert [entry.kind for entry in twin.workspace.ledger.entries("risk")].count("decision") == 1
    earlier = twin.ask("monitor", "risk", "--at", "1999-01-01", code=1)
    assert earlier["error"] == "ClockWentBack"


def test_without_a_champion_there_is_nothing_to_look_at(described: "Installation") -> None:
    assert described.ask("monitor", "risk", code=1)["error"] == "NoChampion"


def test_by_hand_after_a_training(trained: "Installation") -> None:
    assert trained.ask("promote", "risk", "1", "--why", "again")["champion"] == 1
    assert trained.ask("rollback", "risk", "--why", "no", code=1)["error"] == "VersionUnknown"
    assert trained.ask("rollback", "risk", "1", "--why", "to itself")["version"] == 1


def test_a_tampered_ledger_is_exit_code_1(trained: "Installation", tmp_path: Path) -> None:
    copy = tmp_path / "ledger.db"
    with sqlite3.connect(trained.folder / "home" / "ledger.db") as source, sqlite3.connect(copy) as target:
        source.backup(target)
        target.execute("DROP TRIGGER entries_no_update")
        target.execute("UPDATE entries SET body = '{}' WHERE kind = 'snapshot'")
    result = trained.run("history", "risk", "--kind", "trigger", "--verify", STEWARD_LEDGER_URL=f"sqlite:///{copy}")
    assert result.exit_code == 1
    assert "changed" in result.stdout
    result = trained.run("doctor", "--json", STEWARD_LEDGER_URL=f"sqlite:///{copy}")
    problems = [finding["name"] for finding in json.loads(result.stdout)["findings"] if not finding["ok"]]
    assert (result.exit_code, problems) == (1, ["ledger"])


def test_doctor_of_a_healthy_installation(trained: "Installation") -> None:
    answer = trained.ask("doctor")
    assert {"python", "packages", "airflow", "home", "disk", "store", "ledger", "mlflow"} < {
        finding["name"] for finding in answer["findings"]
    }
    assert "chain unbroken" in trained.run("doctor").stdout


def test_doctor_says_what_to_do(fresh: "Installation") -> None:
    (fresh.folder / "home").write_text("a file where a folder should be")
    (fresh.models / "broken.yaml").write_text("name: Broken")
    answer = fresh.ask("doctor", code=1)
    problems = {finding["name"]: finding["do"] for finding in answer["findings"] if not finding["ok"]}
    assert set(problems) == {"home", "store", "ledger", "mlflow", "model broken"}
    assert None not in problems.values()
    assert "→ Set STEWARD_HOME" in fresh.run("doctor").stdout


def trial(number: int, loss: float | None) -> Trial:
    return Trial(number=number, params={}, loss=loss, seconds=1, state="complete" if loss else "failed")


@pytest.mark.parametrize("on_terminal", [True, False])
def test_progress_on_a_terminal_and_elsewhere(on_terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=on_terminal, width=120, markup=False)
    value = Estimate(value=0.9, low=0.8, high=1)
    roles = Reference(kind="roles", uri="u", digest="d")
    made = Candidate(name="decision_tree", model="risk", roles=roles, metric="accuracy", validation=value)
    with terminal.progress(console, trials=3) as on_event:
        on_event(Event("split", "started"))
        on_event(Event("split", "finished", record=roles))
        on_event(Event("train_candidate", "started", candidate="decision_tree"))
        for number, loss in enumerate((0.5, 0.3, None)):
            on_event(Event("train_candidate", "trial", "decision_tree", trial(number, loss)))
        on_event(Event("train_candidate", "finished", "decision_tree", record=made))
    shown = stream.getvalue()
    assert "accuracy 0.9000 (0.8000 to 1.0000)" in shown
    assert ("━" in shown) == on_terminal
    if not on_terminal:
        assert [line.split(" (")[0] for line in shown.splitlines()] == ["split", "decision_tree"]
