"""From trigger to promoted in Airflow, and how much of it is Airflow: `python benchmarks/orchestration.py [TRIALS]`.

A run in a fresh home: LocalExecutor, SQLite, 10,000 rows, five candidates. A task's own seconds are from its start to
its end; Airflow's share is the rest of the critical path: every moment in which no task runs, and starting the process
of those that do (`plan`, which does next to nothing, tells how long that takes).
"""

import os
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from steward.config import Settings
from steward.examples import deployments
from steward.processes import Programs
from steward.standalone import AirflowApi, Site, free_port, start_site

ROOT = Path(__file__).parents[1]
DAG = "deployment_risk.train"


def run(folder: Path, trials: int) -> tuple[float, float, list[dict[str, Any]], int]:
    """Seconds until everything is ready, the moment of the trigger, the tasks of the run, and the number of workers."""
    (folder / "models").mkdir()
    (folder / "models" / "deployment_risk.yaml").write_text((ROOT / "models" / "deployment_risk.yaml").read_text())
    deployments.write(folder / "data" / "deployments", deployments.simulate())
    os.chdir(folder)
    started = time.time()
    with Programs() as programs:
        site = Site(Settings.from_environment({}), ROOT / "dags", free_port(8080), free_port(5000))
        start_site(site, programs, lambda text: print(f"  {time.time() - started:5.1f} s  {text}", flush=True))
        api = AirflowApi(site)
        api.await_dag(DAG)
        ready, triggered = time.time() - started, time.time()
        run_id = api.trigger(DAG, {"trials": trials, "reason": "benchmark"})
        while (state := api.state(DAG, run_id)) not in ("success", "failed"):
            time.sleep(0.25)
        tasks = api.tasks(DAG, run_id)
        if state != "success":
            sys.exit(f"the run failed: {[api.xcom(task, 'error') for task in tasks if task['state'] == 'failed']}")
        return ready, triggered, tasks, site.parallelism


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def busy(tasks: list[dict[str, Any]]) -> float:
    """Seconds in which at least one task ran."""
    total, until = 0.0, 0.0
    for begin, end in sorted((moment(task["start_date"]), moment(task["end_date"])) for task in tasks):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder:
        ready, triggered, tasks, workers = run(Path(folder), trials)
    promoted = max(moment(task["end_date"]) for task in tasks if task["task_id"] == "promote") - triggered
    until_promoted = [task for task in tasks if task["task_id"] != "report"]
    for task in sorted(tasks, key=lambda task: task["start_date"]):
        name = task["rendered_map_index"] or task["task_id"]
        waited = moment(task["start_date"]) - moment(task["scheduled_when"])
        print(
            f"{name:22} started {moment(task['start_date']) - triggered:6.1f} s, waited {waited:5.1f} s, "
            f"ran {task['duration']:6.1f} s"
        )
    [plan] = [task["duration"] for task in tasks if task["task_id"] == "plan"]
    depth = len({task["task_id"] for task in until_promoted})
    idle = promoted - busy(until_promoted)
    print(f"cores {os.cpu_count()}, workers {workers}, load {os.getloadavg()[0]:.1f}")
    print(f"start of all pieces until ready  {ready:6.1f} s")
    print(f"trigger to promoted              {promoted:6.1f} s, 5 candidates x {trials} trials")
    print(f"  no task running                {idle:6.1f} s ({idle / promoted:.0%}): Airflow's scheduling")
    print(f"  `plan`, which does nothing     {plan:6.1f} s: at most this per task on a path of {depth} tasks")


if __name__ == "__main__":
    main()
