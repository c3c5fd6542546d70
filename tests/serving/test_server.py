"""What a serving process weighs and knows."""

import json
import os
import subprocess
import sys

import psutil

HEAVY = {"pandas", "sklearn", "mlflow", "optuna", "great_expectations", "skops", "airflow", "fastapi", "duckdb", "ibis"}
SCRIPT = """
import asyncio, json, sys
import steward.serving.server
from steward.config import Settings
from steward.serving.versions import Versions
versions = Versions(Settings.from_environment())
versions.refresh()
answered = asyncio.run(versions.lineups["risk"].answer({"files": 700, "stage": "prod"}))
print(json.dumps({"engine": versions.lineups["risk"].contenders[0].engine.predictor.engine,
                  "version": answered.version, "modules": list(sys.modules)}))
"""


def test_a_process_that_serves_onnx_knows_nothing_of_training(champion):
    environment = {**os.environ, **champion[0].environment}
    answer = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout)
    assert (found["engine"], found["version"]) == ("onnx", 1)
    assert HEAVY & set(found["modules"]) == set()


def test_memory_stays_small(served):
    served.ask("GET", "/openapi.json")
    assert psutil.Process(served.process.pid).memory_info().rss < 250 * 2**20


def test_a_taken_port_is_said_at_once(served):
    refused = served.installation.run("serve", "--port", str(served.port))
    assert refused.exit_code == 1
    assert "this address cannot be listened on" in refused.stderr
