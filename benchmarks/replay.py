"""What a replay takes, and what it sees.

    python benchmarks/replay.py                    # 50 windows, five policies, 25,000 rows, gradient boosting
    python benchmarks/replay.py --switches         # the demo's company with each of its drifts on its own

The first prints seconds per window, what share the loop takes beside the fits, and what memory all processes had. The second replays a past and a month in which
one thing has changed: what was seen, when, and whether a training followed.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from dataclasses import replace as changed
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from steward.config import ModelFile, Settings
from steward.examples import deployments
from steward.examples.deployments import PAST, UNTIL, World
from steward.replay import Replay, replay

TABLE = "rows.parquet"
MODEL = Path(__file__).parents[1] / "models" / "deployment_risk.yaml"
POLICIES = ("never", "every:1", "every:5", "floor", "steward")
ROWS, WINDOWS, KNOWN = 25_000, 50, 0.25
GOAL_SECONDS, GOAL_SHARE = 180, 0.30
LOOK_SECONDS = 2.0
MONTHS = 2
SWITCHES: Mapping[str, World] = {
    "nothing": World(),
    "files_factor=4": World(files_factor=4),
    "around_the_clock": World(around_the_clock=True),
    "new_teams=0.25": World(new_teams=0.25),
    "night_is_safe": World(night_is_safe=True),
    "neutral": World(neutral=True),
    "all of month two": deployments.MONTH_TWO,
}


def model_of(table: str, **sections: Mapping[str, Any]) -> ModelFile:
    """The demo's model file for a table in this folder: gradient boosting only, in one setting, and Steward's own rules of when to train."""
    document = ModelFile.load(MODEL).only(["gradient_boosting"], 1).model_dump(mode="json", by_alias=True)
    document["source"]["table"] = table
    document["search"]["cross_validate_below"] = 0
    document["retrain"] = {"schedule": None}
    for name, section in sections.items():
        document[name] |= section
    return ModelFile.model_validate(document)


def settings_in(folder: str, jobs: int) -> Settings:
    return changed(Settings.from_environment({"STEWARD_HOME": f"{folder}/home"}), jobs=jobs)


def speed(rows: int, windows: int, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        half = rows * 6 // 10
        early = deployments.simulate(half, first=0)
        late = deployments.simulate(rows - half, first=half, world=deployments.MONTH_TWO)
        pd.concat([early, late], ignore_index=True).to_parquet(TABLE, index=False)
        model = model_of(TABLE)
        began = time.perf_counter()
        with watched() as used:
            found = replay(model, settings_in(folder, jobs), windows=windows, label_delay="2d", policies=POLICIES)
        seconds = time.perf_counter() - began
    tell_speed(found, seconds, jobs, used)


@dataclass
class Used:
    """What this process and those that came of it have used: bytes, where what they share counts once, and CPU seconds."""

    memory: list[int] = field(default_factory=list)
    cpu: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        now, mine = 0, psutil.Process()
        for process in (mine, *mine.children(recursive=True)):
            with suppress(psutil.Error):
                now += process.memory_full_info().pss
                self.cpu[process.pid] = sum(process.cpu_times()[:2])
        self.memory.append(now)


@contextmanager
def watched() -> Iterator[Used]:
    """Looks every few seconds."""
    used, over = Used(), threading.Event()
    used.look()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            used.look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield used
    finally:
        over.set()
        watcher.join()
        used.look()


def tell_speed(found: Replay, seconds: float, jobs: int, used: Used) -> None:
    windows = len(found.policies[0].windows)
    print(
        f"{found.rows + found.before:,} rows, {windows} windows, {len(found.policies)} policies, {jobs} processes, load {os.getloadavg()[0]:.1f}"
    )
    for one in found.policies:
        mean, gain = one.mean or 0, one.gain.value if one.gain else 0
        print(
            f"  {one.name:10} {found.metric} {mean:.4f} ({gain:+.4f}), {one.retrainings:3} retrainings, {one.refused} refused"
        )
    parts = {name: one for name, one in found.seconds.items() if one["all"]}
    for name, one in parts.items():
        print(f"  {name:10} {one['all']:7.1f} s in its process, of these fits {one['fits']:7.1f} s")
    everything, fits = (sum(one[what] for one in parts.values()) for what in ("all", "fits"))
    cpu = sum(used.cpu.values())
    print(
        f"  {seconds:.1f} s in all (goal: under {GOAL_SECONDS}), {seconds / windows:.2f} s per window; {cpu:.1f} CPU seconds"
    )
    print(f"  the loop takes {1 - fits / everything:.0%} beside the fits (goal: at most {GOAL_SHARE:.0%})")
    begun, most = used.memory[0] / 2**20, max(used.memory) / 2**20
    print(f"  all processes together had {most:.0f} MB at most; {begun:.0f} MB when the replay began")


def switches(names: Sequence[str], jobs: int) -> None:
    print("the past as it was, then two months with one thing changed; looks every 5 days, labels after 2 days")
    for name in names:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            month = deployments.simulate(MONTHS * 2_400, first=PAST, world=SWITCHES[name])
            frame = pd.concat([deployments.simulate(), month], ignore_index=True)
            frame.to_parquet(TABLE, index=False)
            model = model_of(TABLE, retrain={"new_rows": None}, label={"mature_after": "2d"})
            found = replay(
                model,
                settings_in(folder, jobs),
                start=UNTIL,
                every=timedelta(days=5),
                label_delay="2d",
                policies=["never", "steward"],
            )
        tell_switch(name, found)


def tell_switch(name: str, found: Replay) -> None:
    steward, never = found.course("steward"), found.course("never")
    seen: dict[str, int] = {}
    for window in steward.windows:
        for column in (window.look or {}).get("columns", ()):
            seen.setdefault(column, window.number)
    shown = ", ".join(f"{column} in look {number}" for column, number in seen.items()) or "no drift"
    alarms = (
        ", ".join(f"{one.kind} in look {one.window}" for one in steward.alarms if one.kind != "data_drift") or "no fall"
    )
    trained = (
        ", ".join(f"{one.number}: {one.verdict or one.refused}" for one in steward.windows if one.reason) or "none"
    )
    print(f"  {name:18} {shown}; {alarms}")
    print(
        f"  {'':18} trainings after look {trained}; {found.metric} {steward.mean or 0:.4f}, never again {never.mean or 0:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--switches", nargs="*", choices=SWITCHES, help="which; all without a name")
    given = parser.parse_args()
    if given.switches is not None:
        switches(given.switches or list(SWITCHES), given.jobs)
    else:
        speed(given.rows, given.windows, given.jobs)


if __name__ == "__main__":
    main()
