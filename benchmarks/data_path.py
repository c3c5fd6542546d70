"""accept + fingerprint + split against pandas reading the same Parquet: time and memory, side by side in one run.

Each contender is a process of its own that has its libraries imported before the clock starts; what the imports cost is
printed beside it. Contenders alternate, so that a busy machine slows both; the ratio of times is the median over the
rounds. CPU seconds are shown too: on a machine that does nothing else, several threads make the wall time the shorter one.

    python benchmarks/data_path.py [--rows 1000000] [--rounds 3] [--steps-only]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

MODEL = {
    "name": "wide",
    "task": "classification",
    "source": {"key": "id", "time": "at"},
    "label": {"column": "label", "classes": ["Low", "Medium", "High"]},
    "columns": {
        **{f"i{i}": {"type": "integer", "min": 0, "max": 1000} for i in range(4)},
        **{f"f{i}": {"type": "number", "nullable": True} for i in range(4)},
        **{f"c{i}": {"type": "category", "values": ["alpha", "beta", "gamma", "delta"]} for i in range(3)},
        "b0": {"type": "boolean"},
    },
}


def write(path: Path, rows: int, block: int = 1_000_000) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for start in range(0, rows, block):
        n, random = min(block, rows - start), np.random.default_rng(start)
        seconds = 1_735_689_600 + np.sort(random.integers(0, 10_000_000, n)) + start
        columns = {
            "id": [f"row-{i}" for i in range(start, start + n)],
            "at": pa.array(seconds * 1_000_000, pa.timestamp("us")),
            **{f"i{i}": random.integers(0, 1000, n) for i in range(4)},
            **{f"f{i}": random.normal(size=n) for i in range(4)},
            **{f"c{i}": random.choice(["alpha", "beta", "gamma", "delta"], n) for i in range(3)},
            "b0": random.random(n) < 0.3,
            "label": random.choice(["Low", "Medium", "High"], n),
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_pandas(path: Path) -> dict[str, float]:
    start = time.perf_counter()
    import pandas as pd

    imported, cpu = time.perf_counter(), cpu_seconds()
    pd.read_parquet(path)
    return {
        "import": imported - start,
        "seconds": time.perf_counter() - imported,
        "cpu": cpu_seconds() - cpu,
    }


def run_steps(path: Path) -> dict[str, float]:
    start = time.perf_counter()
    import great_expectations.expectations
    import great_expectations.render.renderer
    import great_expectations.render.view  # noqa: F401
    import ibis

    from steward import steps
    from steward.config import ModelFile, Settings
    from steward.io.workspace import Workspace

    ibis.duckdb.connect()
    model = ModelFile.model_validate(MODEL | {"source": MODEL["source"] | {"table": str(path)}})
    with tempfile.TemporaryDirectory(dir=path.parent) as home:
        workspace = Workspace(Settings.from_environment({"STEWARD_HOME": home}))
        workspace.ledger.entries()  # an installation has its tables
        imported, cpu = time.perf_counter(), cpu_seconds()
        snapshot = steps.accept(workspace, model, at=datetime(2026, 1, 1, tzinfo=UTC))
        accepted = time.perf_counter()
        steps.split(workspace, model, snapshot)
        done = time.perf_counter()
    return {
        "import": imported - start,
        "seconds": done - imported,
        "cpu": cpu_seconds() - cpu,
        "accept": accepted - imported,
        "split": done - accepted,
    }


CONTENDERS = {"pandas": run_pandas, "steps": run_steps}


def measured(name: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--contender", name, "--path", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps-only", action="store_true")
    parser.add_argument("--contender", choices=CONTENDERS)
    parser.add_argument("--path", type=Path)
    arguments = parser.parse_args()
    if arguments.contender:
        found = CONTENDERS[arguments.contender](arguments.path)
        print(json.dumps(found | {"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        write(path, arguments.rows)
        names = ["steps"] if arguments.steps_only else list(CONTENDERS)
        runs = [{name: measured(name, path) for name in names} for _ in range(arguments.rounds)]
    for name in names:
        best = min((run[name] for run in runs), key=lambda run: run["seconds"])
        print(f"{name:8}", " ".join(f"{what} {value:.2f}" for what, value in best.items()))
    if not arguments.steps_only:
        wall, cpu, memory = (
            statistics.median(run["steps"][what] / run["pandas"][what] for run in runs)
            for what in ("seconds", "cpu", "mb")
        )
        print(
            f"{arguments.rows} x 15: time ratio {wall:.2f} (at most 3; of CPU seconds {cpu:.2f}), "
            f"memory ratio {memory:.2f} (at most 2)"
        )


if __name__ == "__main__":
    main()
