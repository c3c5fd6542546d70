"""When to train again, on real streams: `python benchmarks/policies.py [--data FOLDER] [--sets NAME ...] [--windows N]`.

Every set is replayed by `steward replay`'s own code under never, every window, every fifth, a floor and Steward as shipped: one model
file for all, gradient boosting with its first setting, the first fifth of the rows known at the start, labels one window late.
Rows keep their order and are spread evenly over time, a week per window. Prints a line per policy and set, and whether Steward kept
90 % of what training in every window gained over never training again, with a quarter of its trainings; and whether it is sure that
it kept less, as windows differ from each other by chance: nobody keeps 90 % of a gain that is itself within the noise.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from steward.config import ModelFile, Settings
from steward.records import Estimate
from steward.replay import Course, Replay, replay

TABLE = "rows.parquet"
KEPT, SHARE, SETS_KEPT = 0.9, 0.25, 0.75
"""The goal: so much of the gain, with so many of the trainings, on so many of the sets."""
KNOWN = 0.2
"""Share of the rows that are known when a replay begins."""
WEEK = pd.Timedelta(days=7)
BEGIN = pd.Timestamp("2020-01-01", tz="UTC")
ALLOWED = {"classification": 0.02, "regression": 0.1}
"""Below what the first model reaches on rows it has not learned from: where the policy `floor` has its floor."""


@dataclass(frozen=True)
class Stream:
    """A set in the order of time."""

    path: str
    label: str
    dropped: tuple[str, ...] = ()
    order: str | None = None
    separator: str = ","
    task: str = "classification"

    def read(self, data: Path) -> tuple[pd.DataFrame, pd.Series]:
        frame = pd.read_csv(data / self.path, sep=self.separator)
        frame.columns = [str(name).replace(".", "_").strip() for name in frame.columns]
        frame = frame.dropna(subset=[self.label])
        if self.order:
            frame = frame.sort_values(self.order, kind="stable")
        frame = frame.reset_index(drop=True)
        lost = [name for name in frame if name.startswith("Unnamed") or name in (*self.dropped, self.label)]
        return frame.drop(columns=lost), frame[self.label]


def defects(project: str) -> Stream:
    return Stream(f"jit_issta21/{project}_k_feature.csv.gz", "bug", ("_id", "date", "__"), "date")


def builds(project: str) -> Stream:
    return Stream(f"ci_travis_a/{project}.csv.gz", "build_failed")


STREAMS: dict[str, Stream] = {
    **{f"jit_{name}": defects(name) for name in ("jdt", "platform", "gerrit", "go", "openstack", "qt")},
    **{f"ci_{name}": builds(name) for name in ("sonarqube", "graylog2-server", "gradle", "cloudify", "rails")},
    "elec2": Stream("elec2/elec2.csv.gz", "class"),
    "bank_marketing": Stream("bank_marketing/bank-additional-full.csv.gz", "y", ("duration",), separator=";"),
    "powersupply": Stream("powersupply/powersupply.csv.gz", "class"),
    "gas_sensor_drift": Stream("gas_sensor_drift/gas_sensor_drift.csv.gz", "gas", ("batch", "concentration")),
    "beijing_pm25": Stream("beijing_pm25/pollution.csv.gz", "pm2_5", ("No", "year"), task="regression"),
}


def prepared(stream: Stream, data: Path, windows: int) -> tuple[ModelFile, float]:
    """The set as a table in this folder, its model file, and a floor that could be known at the start.

    The model file's path of the table is the same wherever that is: what is random in a training is seeded by the model file.
    """
    frame, truth = stream.read(data)
    known = int(len(frame) * KNOWN)
    step = WEEK * windows / (len(frame) - known)
    columns = {
        name: {"type": "number", "nullable": True}
        if pd.api.types.is_numeric_dtype(values)
        else {"type": "category", "open": True, "nullable": True}
        for name, values in frame.items()
    }
    classes = sorted(truth.astype(str).unique()) if stream.task == "classification" else None
    frame.astype({name: float for name, one in columns.items() if one["type"] == "number"}).assign(
        row_id=[f"row-{number}" for number in range(len(frame))],
        asked_at=BEGIN + step * np.arange(len(frame)),
        outcome=truth.astype(str) if classes else truth.astype(float),
    ).to_parquet(TABLE, index=False)
    document = {
        "name": "stream",
        "task": stream.task,
        "source": {"table": TABLE, "key": "row_id", "time": "asked_at"},
        "label": {"column": "outcome", **({"classes": classes} if classes else {})},
        "columns": columns,
        "rows": {"min": 100},
        "candidates": ["gradient_boosting"],
        "search": {"trials": 1, "cross_validate_below": 0},
        "monitor": {"schedule": "@weekly"},
    }
    return ModelFile.parse(yaml.safe_dump(document)), floor(stream, frame.iloc[:known], truth.iloc[:known])


def floor(stream: Stream, frame: pd.DataFrame, truth: pd.Series) -> float:
    """What a first model reaches on the newest third of the rows that are known at the start, less what is allowed."""
    numbers = frame.apply(lambda one: one if pd.api.types.is_numeric_dtype(one) else one.astype("category").cat.codes)
    cut = len(frame) * 2 // 3
    if stream.task == "regression":
        fitted = HistGradientBoostingRegressor(random_state=0).fit(numbers[:cut], truth[:cut])
        error = float(np.sqrt(np.mean((fitted.predict(numbers[cut:]) - truth[cut:]) ** 2)))
        return round(error * (1 + ALLOWED[stream.task]), 4)
    fitted = HistGradientBoostingClassifier(random_state=0, max_iter=30).fit(numbers[:cut], truth[:cut])
    return round(float(fitted.score(numbers[cut:], truth[cut:])) - ALLOWED[stream.task], 4)


@dataclass(frozen=True)
class Found:
    """One set's replay."""

    name: str
    made: Replay
    seconds: float

    def course(self, kind: str) -> Course:
        return next(one for one in self.made.policies if one.name.startswith(kind))

    @property
    def sign(self) -> float:
        return 1.0 if self.made.larger_is_better else -1.0

    def gain(self, kind: str) -> float:
        """Over never training again, in the metric, positive is better."""
        return self.sign * ((self.course(kind).mean or 0.0) - (self.course("never").mean or 0.0))

    @property
    def reached(self) -> bool:
        """Enough of the gain (where every window loses, Steward must not lose more than a tenth less), with few enough trainings."""
        most = SHARE * self.course("every:1").retrainings
        return self.gain("steward") >= KEPT * self.gain("every:1") and self.course("steward").retrainings <= most

    @property
    def shortfall(self) -> Estimate:
        """By how much 90 % of the gain was missed, in the metric; its interval of 90 % is by the differences between windows."""
        courses = [self.course(kind).windows for kind in ("steward", "never", "every:1")]
        played = [one for one in zip(*courses, strict=True) if all(window.value is not None for window in one)]
        steward, never, every = (self.sign * np.array([one[place].value for one in played]) for place in range(3))
        share = np.array([one[0].labelled for one in played], dtype=float)
        share /= share.sum()
        missed = KEPT * every + (1 - KEPT) * never - steward
        mean = float(share @ missed)
        half = 1.645 * float(np.sqrt((share**2) @ (missed - mean) ** 2 * len(played) / (len(played) - 1)))
        return Estimate(value=mean, low=mean - half, high=mean + half)

    @property
    def missed(self) -> bool:
        """Surely less than enough of the gain, or too many trainings for it."""
        few = self.course("steward").retrainings <= SHARE * self.course("every:1").retrainings
        return not self.reached and (self.shortfall.low > 0 or not few)

    @property
    def lost(self) -> bool:
        """Surely worse than never training again."""
        gain = self.course("steward").gain
        return gain is not None and gain.high < 0

    def lines(self) -> list[str]:
        made, total = self.made, self.gain("every:1")
        head = f"{self.name}: {made.rows:,} rows after {made.before:,}, {made.metric}, {self.seconds:.0f} s"
        rows = [
            f"    {one.name:18} {one.mean or 0:9.4f} {self.gain(one.name):+9.4f} {one.retrainings:4} trainings"
            f"{f' {one.refused:3} refused {one.promotions:3} promoted {one.wrong:2} wrong' if one.governed else ''}"
            for one in made.policies
        ]
        kept = f"{self.gain('steward') / total:.0%} of the gain" if total > 0 else "nothing to gain"
        goal = "goal met" if self.reached else "goal surely missed" if self.missed else "goal missed within the noise"
        end = f"    Steward keeps {kept}: {goal}{', and loses to never' if self.lost else ''}"
        return [head, *rows, end]


def played(name: str, arguments: argparse.Namespace, say: Callable[[str], None]) -> Found:
    data = arguments.data.resolve()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        model, least = prepared(STREAMS[name], data, arguments.windows)
        settings = Settings.from_environment({"STEWARD_HOME": f"{folder}/home", "STEWARD_JOBS": str(arguments.jobs)})
        began = time.perf_counter()
        made = replay(
            model,
            settings,
            start=(BEGIN + WEEK * arguments.windows * KNOWN / (1 - KNOWN)).to_pydatetime(),
            windows=arguments.windows,
            label_delay="7d",
            policies=["never", "every:1", "every:5", f"floor:{least}", arguments.steward],
        )
        found = Found(name, made, time.perf_counter() - began)
    for line in found.lines():
        say(line)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--sets", nargs="*", choices=STREAMS, default=list(STREAMS))
    parser.add_argument("--windows", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steward", default="steward", help="settings of the governor, such as steward:new_rows=0.1")
    parser.add_argument("--json", type=Path, help="also write every replay's answer here")
    arguments = parser.parse_args()
    found = [played(name, arguments, lambda line: print(line, flush=True)) for name in arguments.sets]
    if arguments.json:
        arguments.json.write_text(json.dumps({one.name: one.made.as_json() for one in found}, indent=1))
    reached, lost = sum(one.reached for one in found), [one.name for one in found if one.lost]
    print(
        f"\n{reached} of {len(found)} sets: at least {KEPT:.0%} of the gain of every window with at most {SHARE:.0%} of its trainings "
        f"(goal: {SETS_KEPT:.0%} of the sets), surely less on {sum(one.missed for one in found)}; "
        f"surely worse than never: {', '.join(lost) or 'none'}."
    )


if __name__ == "__main__":
    main()
