"""How long Airflow reads 100 model files: `python benchmarks/dag_parsing.py [MODELS]`.

A DAG processor imports Airflow once and then reads the DAG files again and again, so the imports are timed apart.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
READ = """
import json, sys, time
started = time.perf_counter()
from airflow.dag_processing.dagbag import DagBag
import steward.airflow_tasks
imported, cpu = time.perf_counter(), time.process_time()
bag = DagBag(sys.argv[1], bundle_name="steward")
read = time.perf_counter()
heavy = [name for name in ("pandas", "sklearn", "mlflow", "great_expectations") if name in sys.modules]
seconds = {"import": imported - started, "read": read - imported, "cpu": time.process_time() - cpu}
print(json.dumps({**seconds, "dags": len(bag.dags), "heavy": heavy}))
"""


def measure(models: int, folder: Path) -> dict[str, Any]:
    text = (ROOT / "models" / "deployment_risk.yaml").read_text(encoding="utf-8")
    (folder / "models").mkdir(exist_ok=True)
    for number in range(models):
        name = f"model_{number}"
        (folder / "models" / f"{name}.yaml").write_text(text.replace("name: deployment_risk", f"name: {name}"))
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "STEWARD_MODELS": str(folder / "models"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    command = [sys.executable, "-c", READ, str(ROOT / "dags")]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=folder)
    measured: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return measured


def main() -> None:
    models = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        measure(1, Path(folder))
        started = time.perf_counter()
        runs = [measure(models, Path(folder)) for _ in range(5)]
        seconds = time.perf_counter() - started
    read = [run["read"] for run in runs]
    print(f"{models} model files, {runs[0]['dags']} DAGs, 5 runs in {seconds:.0f} s, a process each")
    print(f"reading them   {min(read):.2f} / {statistics.median(read):.2f} / {max(read):.2f} s (min / median / max)")
    print(f"of that, CPU   {statistics.median(run['cpu'] for run in runs):.2f} s (median)")
    print(f"imports before {statistics.median(run['import'] for run in runs):.2f} s (Airflow and Steward, once)")
    print(f"heavy modules  {', '.join(runs[0]['heavy']) or 'none'}")


if __name__ == "__main__":
    main()
