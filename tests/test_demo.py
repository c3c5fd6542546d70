"""The demo for real: Airflow and MLflow start, a champion comes, and no process stays."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from steward.config import Settings
from steward.examples import deployments
from steward.io.workspace import Workspace
from steward.processes import Programs
from steward.standalone import AirflowApi, Site, free_port

ROOT = Path(__file__).parents[1]
FORM = {"trials": 1}
QUICKER = {  # for the training that monitoring asks for: nobody fills in its form
    "trials: 20": "trials: 1",
    "[logistic_regression, decision_tree, random_forest, gradient_boosting, neural_network]": "[gradient_boosting]",
}
RUN = "import json, sys\nfrom steward.demo import run\nsys.exit(run(once={once}, form=json.loads(sys.argv[1])))"
WITHIN = 300
PERSON = "approve: person"


@pytest.fixture
def company(tmp_path: Path) -> Path:
    """A folder with model files and 4,000 deployments."""
    (tmp_path / "models").mkdir()
    text = (ROOT / "models" / "deployment_risk.yaml").read_text(encoding="utf-8")
    for slow, quick in QUICKER.items():
        assert slow in text
        text = text.replace(slow, quick)
    (tmp_path / "models" / "deployment_risk.yaml").write_text(text)
    asked = text.replace("name: deployment_risk", "name: asked_risk").replace("approve: automatic", PERSON)
    (tmp_path / "models" / "asked_risk.yaml").write_text(asked)
    deployments.write(tmp_path / "data" / "deployments", deployments.simulate(8_000))
    return tmp_path


def start_demo(folder: Path, *, once: bool) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLFLOW", "STEWARD"))
    }
    return subprocess.Popen(
        [sys.executable, "-c", RUN.format(once=once), json.dumps(FORM)],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(demo: subprocess.Popen[str], pattern: str) -> str:
    """What the demo says until a line matches."""
    said, end = "", time.monotonic() + WITHIN
    for line in demo.stdout:
        said += line
        if re.search(pattern, line):
            return said
        assert time.monotonic() < end, said
    raise AssertionError(f"the demo ended before it said {pattern!r}:\n{said}")


def processes_of(folder: Path) -> list[str]:
    """Processes that work in this folder, or speak of it, and live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if str(folder) in process.cwd() or str(folder) in " ".join(process.cmdline()):
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def wait_for_silence(folder: Path, seconds: float = 40) -> list[str]:
    end = time.monotonic() + seconds
    while (left := processes_of(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


@pytest.mark.xdist_group("airflow")
@pytest.mark.slow
@pytest.mark.timeout(2 * WITHIN)
def test_once_tells_the_whole_story_and_leaves_no_process(company):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        demo = start_demo(company, once=True)
        said, _ = demo.communicate(timeout=WITHIN)
    assert demo.returncode == 0, said
    assert "Port 8080 is taken; Airflow listens on 80" in said
    assert "Verdict: promote" in said
    assert "Version 1 is the champion" in said
    assert re.search(r"accuracy +Live accuracy 0\.\d+ .* verified 0\.\d+", said)
    assert "Governor: train now" in said
    assert "plan: success deployment_risk.monitor asked (" in said
    assert "Version 2 is the champion" in said
    assert "The service answers with version 2." in said
    assert "300 new deployments were answered" in said
    assert "(300 accepted)" in said
    assert re.search(r"Service +http://127\.0\.0\.1:\d+/docs", said)
    [answer] = [line for line in said.splitlines() if line.startswith('{"prediction": "High"')]
    assert '"model_version": 2' in answer
    assert '"logged": true' in answer
    assert re.search(r"curl -s http://127\.0\.0\.1:\d+/v1/models/deployment_risk/predict -H", said)
    workspace = Workspace(Settings.from_environment({"STEWARD_HOME": str(company / ".steward")}))
    assert workspace.registry.champion("deployment_risk").number == 2
    by_hand, decided, started = workspace.ledger.entries("deployment_risk", "trigger")
    assert (by_hand.body["reason"], by_hand.body["by"]) == ("steward demo", "admin")
    assert (decided.subject, started.body["by"]) == (started.body["cause"], "deployment_risk.monitor")
    assert started.body["evidence"]
    verdict = workspace.ledger.entries("deployment_risk", "verdict")[-1].body
    assert verdict["test"]["champion"]["version"] == 1
    assert set(verdict["test"]["overlap"].values()) == {0}
    assert processes_of(company) == []


def waits_for_an_answer(api: AirflowApi, run_id: str) -> bool:
    """Airflow 3.3.2 loses an answer that comes between the question and the moment when its task begins to wait."""
    states = {task["task_id"]: task["state"] for task in api.tasks("asked_risk.train", run_id)}
    return states["ask"] in ("deferred", "awaiting_input")


def answer_for_ana(api: AirflowApi, run_id: str) -> None:
    """Approve in Airflow, as its page does."""
    path = f"/dags/asked_risk.train/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails"
    end = time.monotonic() + WITHIN
    while not ((detail := api.get(path)) and waits_for_an_answer(api, run_id)):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert re.search(r"(promote|hold|reject): ", detail["body"])
    assert ".html" in detail["body"]
    api.send("PATCH", path, {"chosen_options": ["Approve"], "params_input": {"why": "the card looks right"}})


@pytest.mark.xdist_group("airflow")
@pytest.mark.slow
@pytest.mark.timeout(3 * WITHIN)
def test_a_person_approves_and_a_signal_in_a_training_leaves_nothing(company):
    with start_demo(company, once=False) as demo:
        try:
            approve_then_end(demo, company)
        finally:
            demo.terminate()
    assert processes_of(company) == []


def approve_then_end(demo: subprocess.Popen[str], company: Path) -> None:
    said = read_until(demo, "Serving until Ctrl-C")
    settings = Settings.from_environment({"STEWARD_HOME": str(company / ".steward")})
    ports = [int(re.search(rf"{name} +http://127.0.0.1:(\d+)", said)[1]) for name in ("Airflow", "MLflow")]
    api = AirflowApi(Site(settings, ROOT / "dags", *ports))

    run_id = api.trigger("asked_risk.train", FORM)
    answer_for_ana(api, run_id)
    end = time.monotonic() + WITHIN
    while (state := api.state("asked_risk.train", run_id)) not in ("success", "failed"):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert state == "success", api.tasks("asked_risk.train", run_id)
    workspace = Workspace(settings)
    [approval] = workspace.ledger.entries("asked_risk", "approval")
    assert (approval.body["decision"], approval.body["why"]) == ("approved", "the card looks right")
    assert workspace.registry.champion("asked_risk").number == 1

    refused = api.trigger("deployment_risk.train", {**FORM, "reason": "again"})
    while not any(task["state"] == "running" for task in api.tasks("deployment_risk.train", refused)):
        time.sleep(0.1)
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(60) == 128 + signal.SIGTERM


FAMILY = """
import os, signal, sys, time
from pathlib import Path
from steward.processes import Programs
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
with Programs() as programs:
    grandchild = f"{sys.executable} -c 'import signal,time; signal.signal(15, 1); time.sleep(600)' {sys.argv[1]} & sleep 600"
    programs.start("shell", ["sh", "-c", f"({grandchild}) & sleep 600; : {sys.argv[1]}"], {}, Path(sys.argv[1], "log"))
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_orphans_that_ignore_signals_end_with_the_caller(number, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as caller:
        assert caller.stdout.readline() == "started\n"
        time.sleep(0.5)
        assert len(processes_of(tmp_path)) >= 3
        caller.send_signal(number)
        try:
            caller.wait(40)
        finally:
            caller.kill()
    assert wait_for_silence(tmp_path) == []


def test_a_program_that_cannot_start_is_an_error(tmp_path):
    with Programs() as programs, pytest.raises(OSError, match="no-such-program"):
        programs.start("nothing", ["no-such-program"], {}, tmp_path / "log")


def test_a_program_tells_its_exit_code_and_its_last_lines(tmp_path):
    with Programs() as programs:
        program = programs.start("three", ["sh", "-c", "seq 20; exit 3"], {}, tmp_path / "log")
        assert programs.wait(program, 10) == 3
        assert program.tail(2) == "19\n20"


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) > port
