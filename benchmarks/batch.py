"""Batch scoring from Parquet to Parquet, against the bare model's predict on arrays that are already prepared.

A gradient boosting is trained on the example's simulated deployments; 1,000,000 rows are scored by `steward score` and,
in the same run and interleaved with it, by the bare estimator on a float64 matrix, on one thread and on all of them. Peak
memory is that of a process of its own, at 100,000 and at 1,000,000 rows. CPU seconds are printed too: neighbours on the
machine cost them nothing.

    python benchmarks/batch.py --rows 1000000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MODEL = """
name: deployment_risk
task: classification
source: {table: TABLE, key: deployment_id, time: requested_at}
label: {column: risk_level, classes: [Low, Medium, High]}
columns:
  files_changed:     {type: integer, min: 0, max: 100000}
  environment:       {type: category, values: [dev, staging, prod]}
  team:              {type: category, open: true}
  hour:              {type: integer, min: 0, max: 23}
  previous_failures: {type: integer, min: 0, nullable: true}
features: {night: {expression: "hour < 6 or hour >= 22"}}
candidates: [CANDIDATE]
search: {trials: 1, cross_validate_below: 0}
serve:
  actions:
    - {when: "prediction == 'High' and confidence >= 0.6", do: require_approval, say: "Require approval"}
    - {when: "prediction == 'High' or confidence < 0.5", do: notify}
"""
SCORE = """
import json, resource, sys, time
from datetime import UTC, datetime
from steward import steps
from steward.config import Settings
from steward.io.workspace import Workspace
workspace = Workspace(Settings.from_environment())
model = workspace.model("deployment_risk")
before, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
scored = steps.score(workspace, model, sys.argv[1], sys.argv[2], at=datetime(2026, 3, 1, tzinfo=UTC))
after = resource.getrusage(resource.RUSAGE_SELF)
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])  # ru_maxrss would be the parent's
print(json.dumps({"wall": time.perf_counter() - before, "scored": scored.scored, "peak_mb": peak / 1024,
                  "cpu": after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime}))
"""
BARE = """
import json, resource, sys, time
import numpy as np
from steward.config import Settings
from steward.io.workspace import Workspace
from steward import Model
workspace = Workspace(Settings.from_environment())
model = Model("deployment_risk", workspace=workspace)
estimator = workspace.artifacts.load_skops(model.predictor.made.skops)[-1]
matrix = np.load(sys.argv[1])
before, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
estimator.predict_proba(matrix)
after = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"wall": time.perf_counter() - before,
                  "cpu": after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime}))
"""


def main() -> None:
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="steward-batch-") as name:
        folder = Path(name)
        os.environ |= {"STEWARD_HOME": str(folder / "home"), "STEWARD_MODELS": str(folder / "models")}
        engine = _prepare(folder, given.rows, given.candidate)
        small = _run(SCORE, folder / "small.parquet", folder / "small-answers.parquet")
        steward, one, many = [], [], []
        for _ in range(given.repeats):
            steward.append(_run(SCORE, folder / "rows.parquet", folder / "answers.parquet"))
            one.append(_run(BARE, folder / "matrix.npy", threads=1))
            many.append(_run(BARE, folder / "matrix.npy", threads=os.cpu_count() or 1))
    _tell(given, engine, small, steward, one, many)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--candidate", default="gradient_boosting")
    return parser.parse_args()


def _prepare(folder: Path, rows: int, candidate: str) -> str:
    """Data, a champion, and the matrix that the bare estimator is given; answers the champion's engine."""
    import numpy as np

    from steward import Model, pipeline
    from steward.config import Settings
    from steward.examples import deployments
    from steward.io.workspace import Workspace

    past = deployments.simulate(20_000)
    past.to_parquet(folder / "past.parquet", index=False)
    (folder / "models").mkdir()
    text = MODEL.replace("TABLE", str(folder / "past.parquet")).replace("CANDIDATE", candidate)
    (folder / "models" / "deployment_risk.yaml").write_text(text)
    workspace = Workspace(Settings.from_environment())
    model = workspace.model("deployment_risk")
    pipeline.train(workspace, model, at=datetime.now(UTC), reason="benchmark", by="benchmark", run_id="1")
    drawn = past.iloc[np.random.default_rng(0).integers(0, len(past), rows)].drop(columns="risk_level")
    drawn["deployment_id"] = [f"row-{number:07d}" for number in range(rows)]
    drawn.to_parquet(folder / "rows.parquet", index=False)
    drawn.iloc[: rows // 10].to_parquet(folder / "small.parquet", index=False)
    champion = Model(model, workspace=workspace)
    fitted = workspace.artifacts.load_skops(champion.predictor.made.skops)
    kinds = {name: object if kind == "category" else float for name, kind in champion.predictor.made.inputs.items()}
    np.save(folder / "matrix.npy", fitted[:-1].transform(drawn[list(kinds)].astype(kinds)))
    return champion.predictor.engine


def _run(program: str, *arguments: Path, threads: int | None = None) -> dict[str, Any]:
    """A process of its own, so that its peak memory is its own."""
    pinned = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads or 1))
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **pinned}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _tell(given: argparse.Namespace, engine: str, small: Any, steward: Any, one: Any, many: Any) -> None:
    best = {name: {k: min(run[k] for run in runs) for k in ("wall", "cpu")} for name, runs in
            {"steward score": steward, "bare, 1 thread": one, "bare, all threads": many}.items()}  # fmt: skip
    print(f"{given.candidate}, engine {engine}, {given.rows:,} rows, {os.cpu_count()} cores, best of {given.repeats}")
    for name, figures in best.items():
        print(f"  {name:18} {figures['wall']:7.2f} s   {figures['cpu']:7.2f} CPU s")
    ours = best["steward score"]
    fastest = min(best["bare, 1 thread"]["wall"], best["bare, all threads"]["wall"])
    print(f"  ratio to the faster bare run {ours['wall'] / fastest:.2f}, to its CPU time on one thread "
          f"{ours['cpu'] / best['bare, 1 thread']['cpu']:.2f} (aim: at most 2)")  # fmt: skip
    print(f"  peak memory {small['peak_mb']:.0f} MB at {given.rows // 10:,} rows, "
          f"{max(run['peak_mb'] for run in steward):.0f} MB at {given.rows:,}")  # fmt: skip


if __name__ == "__main__":
    main()
