"""A year in which nothing changes, lived by the whole loop: what was raised, and what was trained?

Daily windows with ten numeric and five category columns after 7,000 rows of fourteen days, labels a day late, gradient boosting
with its first setting. Every look of the year is `pipeline.monitor`, every training goes through all steps: it is a replay.
The worlds: `calm` draws all days alike; `wobble` moves every column by 0.1 standard deviations from day to day and with
a weekly rhythm, which means nothing; in `neutral` a column that has nothing to do with the label moves for good on day 100;
in `saturated` nothing can be learned beyond what the first version knows, so that every training would be in vain.

    python benchmarks/stable_year.py --worlds calm --days 365
"""

import argparse
import os
import resource
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from steward.config import ModelFile, Settings
from steward.replay import Course, replay

NUMBERS, CATEGORIES = [f"n{i}" for i in range(10)], [f"c{i}" for i in range(5)]
LEVELS = np.array(["a", "b", "c", "d", "e"], dtype=object)
SHARES = np.log([0.35, 0.30, 0.20, 0.10, 0.05])
KNOWN_ROWS, KNOWN_DAYS = 7_000, 14
BEGIN = pd.Timestamp("2025-01-01", tz="UTC")
DAY = pd.Timedelta(days=1)
MOVES = KNOWN_DAYS + 100
WORLDS = ("calm", "wobble", "neutral", "saturated")


def day(rng: np.random.Generator, world: str, date: int, count: int) -> pd.DataFrame:
    """The rows of one day."""
    restless = world == "wobble"
    turn = 2 * np.pi * date / 7
    frame = pd.DataFrame({"asked_at": BEGIN + date * DAY + np.sort(rng.random(count)) * DAY})
    for place, name in enumerate(NUMBERS):
        mean = restless * 0.1 * (rng.standard_normal() + np.sin(turn + place))
        moved = 0.5 if world == "neutral" and name == "n9" and date >= MOVES else 0.0
        frame[name] = rng.normal(mean + moved, 1.0, count)
    for place, name in enumerate(CATEGORIES):
        tilt = restless * 0.1 * (rng.standard_normal(5) + np.sin(turn + place + np.arange(5)))
        shares = np.exp(SHARES + tilt)
        frame[name] = rng.choice(LEVELS, count, p=shares / shares.sum())
    odds = 1.8 * frame.n0 + 1.2 * frame.n1 * (frame.c0 == "a") - 1.5 * (frame.c1 == "b") + np.abs(frame.n2) - 0.3
    if world == "saturated":
        odds = pd.Series(np.where(frame.c0.isin(["a", "b"]), 2.0, -2.0))
    frame["outcome"] = np.where(rng.random(count) < 1 / (1 + np.exp(-odds)), "High", "Low")
    return frame


def year(world: str, rows: int, days: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    counts = [KNOWN_ROWS // KNOWN_DAYS] * KNOWN_DAYS + [rows] * days
    frame = pd.concat([day(rng, world, date, count) for date, count in enumerate(counts)], ignore_index=True)
    return frame.assign(row_id=[f"row-{number}" for number in range(len(frame))])


def model_of(table: Path) -> ModelFile:
    columns: dict[str, object] = {name: {"type": "number"} for name in NUMBERS}
    columns |= {name: {"type": "category", "open": True} for name in CATEGORIES}
    document = {
        "name": "stable",
        "task": "classification",
        "source": {"table": str(table), "key": "row_id", "time": "asked_at"},
        "label": {"column": "outcome", "classes": ["Low", "High"]},
        "columns": columns,
        "candidates": ["gradient_boosting"],
        "search": {"trials": 1, "cross_validate_below": 0},
        "monitor": {"schedule": "@daily"},
    }
    return ModelFile.parse(yaml.safe_dump(document))


def tell(world: str, course: Course) -> None:
    raised = Counter(one.kind for one in course.alarms)
    seen: dict[str, int] = {}
    for window in course.windows:
        for column in (window.look or {}).get("columns", ()):
            seen.setdefault(column, window.number)
    trained = [one for one in course.windows if one.reason]
    print(f"{world}, {course.name}: {course.mean or 0:.4f}", end=" ")
    print(f"alarms {dict(raised) or 'none'}; drift of {seen or 'nothing'} (first look)", flush=True)
    for one in trained:
        print(f"    {one.number:4}: {one.verdict or one.refused}: {one.reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--rows", type=int, default=500, help="a day")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--policies", nargs="+", default=["never", "steward"])
    given = parser.parse_args()
    for world in given.worlds:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "rows.parquet"
            year(world, given.rows, given.days, given.seed).to_parquet(table, index=False)
            settings = Settings.from_environment({"STEWARD_HOME": f"{folder}/home", "STEWARD_JOBS": str(given.jobs)})
            began = time.perf_counter()
            found = replay(
                model_of(table),
                settings,
                start=(BEGIN + KNOWN_DAYS * DAY).to_pydatetime(),
                every=timedelta(days=1),
                label_delay="1d",
                policies=given.policies,
            )
            seconds = time.perf_counter() - began
        for course in found.policies:
            tell(world, course)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"    {seconds:.0f} s, the largest process had {peak:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
