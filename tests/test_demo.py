"""The demo for real: Airflow and MLflow start, a champion comes, falls, and is followed by a better one."""

import re
import socket
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from steward import demo
from steward.examples import deployments
from steward.standalone import free_port


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.timeout(900)
def test_the_whole_story_is_told_and_on_record(played):
    said = played.said
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
    workspace = played.workspace
    assert workspace.registry.champion("deployment_risk").number == 2
    by_hand, decided, started = workspace.ledger.entries("deployment_risk", "trigger")
    assert (by_hand.body["reason"], by_hand.body["by"]) == ("steward demo", "admin")
    assert (decided.subject, started.body["by"]) == (started.body["cause"], "deployment_risk.monitor")
    assert started.body["evidence"]
    verdict = workspace.ledger.entries("deployment_risk", "verdict")[-1].body
    assert verdict["test"]["champion"]["version"] == 1
    assert set(verdict["test"]["overlap"].values()) == {0}


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.timeout(900)
def test_a_batch_is_scored_in_airflow(played, tmp_path):
    waiting, answers = tmp_path / "waiting.parquet", tmp_path / "answers.parquet"
    deployments.simulate(50, first=2 * deployments.PAST).drop(columns="risk_level").to_parquet(waiting)
    run_id = played.api.trigger("deployment_risk.score", {"input": str(waiting), "output": str(answers)})
    assert played.await_state("deployment_risk.score", run_id) == "success"
    assert len(pd.read_parquet(answers)) == 50


STEPS = ("_follow_training", "_has_champion", "_use_service", "_live_on", "_show_curl")


@pytest.mark.parametrize("missing", [*STEPS, None])
def test_the_exit_code_is_0_only_if_every_step_of_the_story_happened(missing, tmp_path, monkeypatch):
    monkeypatch.setenv("STEWARD_HOME", str(tmp_path))
    monkeypatch.setenv("STEWARD_MODELS", str(Path(__file__).parents[1] / "models"))
    for name in ("_simulate", "start_site"):
        monkeypatch.setattr(demo, name, lambda *_: None)
    airflow = SimpleNamespace(await_dag=lambda _: None, trigger=lambda *_: "run")
    monkeypatch.setattr(demo, "AirflowApi", lambda _: airflow)
    for name in STEPS:
        monkeypatch.setattr(demo, name, lambda *_, happened=name != missing: happened)
    assert demo.run(once=True) == (0 if missing is None else 1)


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) > port
