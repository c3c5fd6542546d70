"""Speed and memory of one drift check from Parquet: Steward against SciPy, Evidently and one DuckDB query that sums.

Ten numeric and five category columns. Every contender runs in a process of its own on one core, reads the same window
from Parquet, and compares it with the same 7,000 reference rows; what it imports before its clock starts is not counted,
what it prepares of the reference beforehand neither. `sum` is the time that reading every column takes, which nothing
can beat by much. Evidently lives in an environment of its own, which this program makes.

    python benchmarks/drift_speed.py --rows 1000000
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

REFERENCE_ROWS = 7_000
NUMBERS, CATEGORIES = [f"n{i}" for i in range(10)], [f"c{i}" for i in range(5)]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
PACKAGES = {"evidently": ("evidently==0.7.17", "pandas<3")}


def write(path: Path, rows: int, seed: int) -> None:
    """Normal, skewed and whole numbers, and categories of 3 to 40 values; 1 % missing."""
    import duckdb

    numbers = [
        f"CASE WHEN random() < 0.01 THEN NULL ELSE {value} END AS n{i}"
        for i, value in enumerate(
            ["random() + random() + random()", "exp(2 * random() + 2 * random())", "floor(random() * 24)"] * 3
            + ["random() * random()"]
        )
    ]
    categories = [f"'value ' || floor(random() * random() * {3 + 9 * i})::int AS c{i}" for i in range(5)]
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.execute(f"SELECT setseed({seed / 1_000})")
        columns = ", ".join([*numbers, *categories])
        connection.execute(f"COPY (SELECT {columns} FROM range({rows})) TO '{path}' (FORMAT parquet)")


def sums(_reference: Path) -> Callable[[Path], int]:
    import duckdb

    def run(window: Path) -> int:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1")
            parts = [*(f"sum({name})" for name in NUMBERS), *(f"sum(length({name}))" for name in CATEGORIES)]
            return len(connection.execute(f"SELECT {', '.join(parts)} FROM '{window}'").fetchall())

    return run


def steward(reference: Path) -> Callable[[Path], int]:
    """Profile of the window by DuckDB over the reference's bins, then the detector."""
    import tempfile

    from steward.core import drift, profiles
    from steward.io.tables import Session
    from steward.steps import baseline, observation

    kinds: dict[str, Any] = dict.fromkeys(NUMBERS, "number") | dict.fromkeys(CATEGORIES, "category")
    scratch = Path(tempfile.mkdtemp())

    session = Session(1, scratch)
    bins, windows = baseline.profiled(session, session.parquet(reference), kinds)
    known = profiles.Baseline(bins, tuple(windows.values()))
    session.close()

    def run(window: Path) -> int:
        session = Session(1, scratch)
        found = observation.profile_of(session, session.parquet(window), known, list(bins)).windows[0]
        session.close()
        recent = {name: known.series_of(name, [found]) for name in bins}
        return len(drift.Detector(known.series).examine(recent, level=1e-4).findings)

    return run


def scipy(reference: Path) -> Callable[[Path], int]:
    """KS and chi-square per column."""
    import pandas as pd
    from scipy import stats

    known = pd.read_parquet(reference)

    def run(window: Path) -> int:
        rows, found = pd.read_parquet(window), 0
        for name in NUMBERS:
            found += stats.ks_2samp(known[name].dropna(), rows[name].dropna()).pvalue < 0.05
        for name in CATEGORIES:
            counts = pd.concat([known[name].value_counts(), rows[name].value_counts()], axis=1).fillna(0)
            found += stats.chi2_contingency(counts.to_numpy().T + 0.5).pvalue < 0.05
        return int(found)

    return run


def evidently(reference: Path) -> Callable[[Path], int]:
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=NUMBERS, categorical_columns=CATEGORIES)
    known = Dataset.from_pandas(pd.read_parquet(reference), data_definition=definition)

    def run(window: Path) -> int:
        rows = Dataset.from_pandas(pd.read_parquet(window), data_definition=definition)
        return len(Report([DataDriftPreset()]).run(rows, known).dict()["metrics"])

    return run


CONTENDERS: dict[str, Callable[[Path], Callable[[Path], int]]] = {
    "sum": sums,
    "steward": steward,
    "scipy": scipy,
    "evidently": evidently,
}


def run_here(name: str, folder: Path, rows: int) -> None:
    """The body of a contender's own process: the fastest of a few runs, and the most memory that it held."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    check = CONTENDERS[name](folder / "reference.parquet")
    before = _peak()
    wall, cpu = [], []
    for _ in range(1 if name == "evidently" else 3):
        started, used = time.perf_counter(), time.process_time()
        check(folder / f"window-{rows}.parquet")
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    print(json.dumps({"wall": min(wall), "cpu": min(cpu), "before": before, "peak": _peak()}))


def _peak() -> float:
    """Megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def python_of(name: str, folder: Path) -> str:
    """The interpreter that has what a contender needs; its environment is made on first use."""
    if name not in PACKAGES:
        return sys.executable
    python = folder / name / "bin" / "python"
    if not (folder / name / "ready").exists():
        venv.create(folder / name, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[name], "pyarrow"], check=True)
        (folder / name / "ready").touch()
    return str(python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3, help="Evidently runs once")
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "steward" / "drift")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        run_here(options.contenders[0], options.here, options.rows[0])
        return
    options.work.mkdir(parents=True, exist_ok=True)
    if not (options.work / "reference.parquet").exists():
        write(options.work / "reference.parquet", REFERENCE_ROWS, 1)
    print(f"{'rows':>12}{'contender':>12}{'seconds':>10}{'CPU s':>8}{'peak MB':>9}{'x sum':>8}")
    for rows in options.rows:
        if not (options.work / f"window-{rows}.parquet").exists():
            write(options.work / f"window-{rows}.parquet", rows, 2)
        compare(rows, options.contenders, options.work, options.rounds)


def compare(rows: int, contenders: list[str], work: Path, rounds: int) -> None:
    """In turns, so that what else the machine does meets all alike; of each the fastest time, and the most memory."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in contenders:
            if turn and name == "evidently":
                continue
            command = [python_of(name, work), __file__, "--here", str(work), "--rows", str(rows), "--contenders", name]
            done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{rows:>12,}{name:>12}  failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}", flush=True)
                continue
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    for name, runs in found.items():
        if runs:
            wall, cpu = (min(one[what] for one in runs) for what in ("wall", "cpu"))
            ratio = cpu / min(one["cpu"] for one in found["sum"]) if found.get("sum") else float("nan")
            peak = max(one["peak"] for one in runs)
            print(f"{rows:>12,}{name:>12}{wall:>10.2f}{cpu:>8.2f}{peak:>9.0f}{ratio:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
