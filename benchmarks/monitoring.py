"""What a look costs: quality, drift, accuracy, the estimate before labels, new features and the governor, all of `pipeline.monitor`.

One model is trained on 7,000 rows with ten numbers and five categories, answers 10,000 rows a look, and is told their
outcomes. Then the same version is made champion of many models, each with its own file, table and history in the ledger,
and all of them are watched in one process.

    python benchmarks/monitoring.py --models 300
"""

import argparse
import json
import resource
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from steward import pipeline
from steward.config import ModelFile, Settings
from steward.io.predictions import Logged, new_id
from steward.io.workspace import Workspace
from steward.prediction import Model

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TRAINED_ON, DAYS = 7_000, 14
NUMBERS, CATEGORIES = [f"n{i}" for i in range(10)], [f"c{i}" for i in range(5)]
MODEL = """
name: NAME
task: classification
source: {table: TABLE, key: id, time: asked}
label: {column: outcome, classes: [Low, High]}
columns:
  NUMBERS
  CATEGORIES
candidates: [gradient_boosting]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.3}
monitor: {schedule: "@daily"}
"""


def model_file(name: str, table: Path) -> ModelFile:
    numbers = "\n  ".join(f"{one}: {{type: number, nullable: true}}" for one in NUMBERS)
    categories = "\n  ".join(f"{one}: {{type: category, open: true}}" for one in CATEGORIES)
    text = MODEL.replace("NAME", name).replace("TABLE", str(table))
    return ModelFile.parse(text.replace("NUMBERS", numbers).replace("CATEGORIES", categories))


def rows(count: int, until: datetime, days: float, seed: int) -> pd.DataFrame:
    """Rows of the days before a moment."""
    rng = np.random.default_rng(seed)
    asked = until - pd.to_timedelta(np.sort(rng.uniform(0, days * 86_400, count))[::-1], unit="s")
    frame = pd.DataFrame({name: rng.normal(size=count) for name in NUMBERS})
    for place, name in enumerate(CATEGORIES):
        frame[name] = rng.choice([f"value {level}" for level in range(3 + 4 * place)], count)
    high = frame["n0"] + frame["n1"] + (frame["c0"] == "value 0") + rng.normal(size=count) > 0
    keys = [f"{seed}-{place}" for place in range(count)]
    return frame.assign(id=keys, asked=asked, outcome=np.where(high, "High", "Low"))


def serve(workspace: Workspace, model: ModelFile, frame: pd.DataFrame) -> None:
    """The champion answers rows of a source, on record, each at its time."""
    version, columns = Model(model, workspace=workspace), list(model.columns)
    answers = version.predict(frame[columns])
    texts = [json.dumps(record) for record in json.loads(frame[columns].to_json(orient="records"))]
    keys = frame[model.source.keys[0]].astype(str)
    chances = answers[[f"probability_{name}" for name in model.classes]].set_axis(list(model.classes), axis=1)
    told = chances.to_dict(orient="records") if model.classes else [{}] * len(frame)
    logged = []
    for text, answer, chance, key, at in zip(
        texts, answers.itertuples(), told, keys, frame[model.source.time], strict=True
    ):
        seconds = at.timestamp()
        said = str(answer.prediction), float(getattr(answer, "confidence", 0.0))
        made = (
            new_id(seconds),
            model.name,
            seconds,
            version.version,
            key,
            text,
            json.dumps({"probabilities": chance}),
            *said,
            "proceed",
            False,
            None,
        )
        logged.append(Logged(*made))
    workspace.predictions.prepare()
    writer = workspace.predictions.writer(durable=False, patience=5)
    for begin in range(0, len(logged), 1_000):
        writer.write(logged[begin : begin + 1_000])
    writer.close()


def tell(workspace: Workspace, model: ModelFile, frame: pd.DataFrame, at: datetime) -> None:
    """The outcomes of rows arrive."""
    items = [
        {"key": key, "label": label}
        for key, label in zip(frame[model.source.keys[0]].astype(str), frame[model.label.column], strict=True)
    ]
    if items:
        workspace.predictions.add_outcomes(model, items, at)


def look(workspace: Workspace, model: ModelFile, at: datetime) -> tuple[float, float, dict[str, float]]:
    """Wall and CPU seconds of a look, and CPU seconds by step."""
    began, by_step = {}, defaultdict[str, float](float)

    def on_event(event: pipeline.Event) -> None:
        if event.state == "started":
            began[event.stage] = time.process_time()
        else:
            by_step[event.stage] += time.process_time() - began[event.stage]

    wall, cpu = time.perf_counter(), time.process_time()
    pipeline.monitor(workspace, model, at=at, on_event=on_event)
    return time.perf_counter() - wall, time.process_time() - cpu, by_step


def one_model(workspace: Workspace, model: ModelFile, looks: int, served: int) -> None:
    print(
        f"a look at {served:,} served predictions with outcomes, one process\n{'look':>6}{'seconds':>9}{'CPU s':>8}  by step"
    )
    for number in range(1, looks + 1):
        at = START + number * DAY
        frame = rows(served, at, 0.9, seed=number)
        serve(workspace, model, frame)
        tell(workspace, model, frame.head(9 * served // 10), at)
        wall, cpu, by_step = look(workspace, model, at)
        steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in by_step.items())
        print(f"{number:>6}{wall:>9.2f}{cpu:>8.2f}  {steps}", flush=True)


def copies(workspace: Workspace, folder: Path, count: int) -> list[ModelFile]:
    """Models of their own, whose champion is the one that was trained: the records of a training name no path."""
    made = []
    for number in range(count):
        name = f"copy_{number:03}"
        table = folder / f"{name}.parquet"
        rows(300, START + DAY, 0.9, seed=10_000 + number).to_parquet(table, index=False)
        for entry in workspace.ledger.entries("original"):
            if entry.kind in ("promotion", "verdict", "opening", "opening_result", "snapshot"):
                workspace.ledger.append(name, entry.kind, entry.subject, entry.body, entry.at)
        made.append(model_file(name, table))
    return made


def many_models(workspace: Workspace, folder: Path, count: int) -> None:
    models = copies(workspace, folder, count)
    wall, cpu = time.perf_counter(), time.process_time()
    for number, model in enumerate(models, start=1):
        pipeline.monitor(workspace, model, at=START + DAY)
        if number in (10, count):
            print(
                f"{number:>6} models, 300 rows each: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} CPU s, "
                f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=4)
    parser.add_argument("--served", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        home = {"STEWARD_HOME": str(folder / "home"), "STEWARD_JOBS": "1", "STEWARD_THREADS": "1"}
        workspace = Workspace(Settings.from_environment(home))
        model = model_file("original", folder / "original.parquet")
        rows(TRAINED_ON, START, DAYS, seed=0).to_parquet(folder / "original.parquet", index=False)
        pipeline.train(workspace, model, at=START, reason="first version", by="benchmark", run_id="first")
        one_model(workspace, model, options.looks, options.served)
        many_models(workspace, folder, options.models)


if __name__ == "__main__":
    main()
