"""The plugin file by itself: every process of Airflow executes it, and whatever is wrong with Steward ends there."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import importlib.util, json, sys
from fastapi import FastAPI
from fastapi.testclient import TestClient

specification = importlib.util.spec_from_file_location("steward_plugin", sys.argv[1])
module = importlib.util.module_from_spec(specification)
specification.loader.exec_module(module)
loaded = sorted(name for name in sys.modules if name.startswith("steward."))
[mounted] = module.StewardPlugin.fastapi_apps
airflow = FastAPI()
airflow.mount(mounted["url_prefix"], mounted["app"])
airflow.get("/others")(lambda: "well")
client = TestClient(airflow)
answer = client.get("/steward/models/risk")
print(json.dumps({
    "loaded": loaded,
    "views": module.StewardPlugin.external_views,
    "status": answer.status_code,
    "said": answer.text,
    "policy": answer.headers["content-security-policy"],
    "others": client.get("/others").json(),
}))
"""


def test_it_is_light_knows_where_airflow_is_and_breaks_nothing(tmp_path):
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__API__BASE_URL": "https://company.example/airflow",
        "AIRFLOW__API__SECRET_KEY": "secret",
        "STEWARD_THREADS": "a great many",
        "PYTHONWARNINGS": "ignore",
    }
    plugin = ROOT / "plugins" / "steward_plugin.py"
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, plugin],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["loaded"] == []
    assert {view["destination"] for view in found["views"]} == {"nav", "dag", "dag_run", "task", "task_instance"}
    assert len({view["url_route"] for view in found["views"]}) == len(found["views"])
    for view in found["views"]:
        assert view["href"].startswith("/airflow/steward/")
        assert view["icon"].startswith("/airflow/steward/static/")
    assert found["status"] == 503
    assert "cannot be shown" in found["said"]
    assert "a great many" not in found["said"]
    assert "default-src 'none'" in found["policy"]
    assert found["others"] == "well"
    assert "STEWARD_THREADS must be a whole number" in answer.stderr + answer.stdout
