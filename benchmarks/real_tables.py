"""The whole training on real tables: `python benchmarks/real_tables.py [--data FOLDER] [--trials N] [--tables NAME ...]`.

Each model file is made by `steward init` and touched up as its user would, in a workspace of its own. Prints what each table gave.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """A table, the arguments of `init`, and (old text, new text) edits of the drafted model file."""

    path: str
    label: str
    arguments: tuple[str, ...] = ()
    edits: tuple[tuple[str, str], ...] = ()


TABLES = {
    "rails": Table("ci_travis_a/rails.csv.gz", "build_failed"),
    "openstack": Table(
        "jit_issta21/openstack_k_feature.csv.gz",
        "bug",
        ("--time", "date"),
        (("# split: {by: time}", "split: {by: time}"),),
    ),
    "hypothyroid": Table("hypothyroid/hypothyroid.csv.gz", "Class"),
    "horse_colic": Table("horse_colic/horse-colic.csv.gz", "surgical_lesion"),
    "ames_housing": Table("ames_housing/AmesHousing.csv.gz", "SalePrice"),
    "adult": Table("adult/adult_train.csv.gz", "income"),
}


def steward(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STEWARD_HOME": str(folder / ".steward"), "STEWARD_MODELS": str(folder / "models")}
    command = [sys.executable, "-m", "steward", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def run(name: str, table: Table, data: Path, trials: int | None, folder: Path) -> None:
    made = steward(folder, "init", name, "--data", str(data / table.path), "--label", table.label, *table.arguments)
    if made.returncode:
        print(f"{name}: init refused: {made.stderr.strip()}")
        return
    path = folder / "models" / f"{name}.yaml"
    text = path.read_text()
    for old, new in table.edits:
        if old not in text:
            print(f"{name}: the draft has no {old!r} to change")
        text = text.replace(old, new)
    path.write_text(text)
    started = time.perf_counter()
    answer = steward(folder, "train", name, "--json", *(["--trials", str(trials)] if trials else []))
    seconds = time.perf_counter() - started
    report(name, json.loads(answer.stdout), seconds)


def report(name: str, outcome: dict, seconds: float) -> None:
    if "error" in outcome:
        print(f"{name}: {outcome['error']}: {outcome['what']}; got {outcome['got']} ({seconds:.0f} s)")
        return
    test, difference = outcome["test"], outcome["test"]["difference"]
    print(
        f"{name}: {outcome['verdict']}, {outcome['accepted']:,} rows accepted, {outcome['rejected']:,} rejected; "
        f"{outcome['winner']}: {test['metric']} {test['value']:.4g} ({test['low']:.4g} to {test['high']:.4g}) on "
        f"{test['rows']:,} sealed rows, {difference['value']:+.4g} ({difference['low']:+.4g} to {difference['high']:+.4g}) "
        f"against the constant; {seconds:.0f} s"
    )
    for candidate in outcome["candidates"]:
        value = candidate["validation"]
        figure = f"{value['value']:.4g}" if value else candidate["error"]
        print(f"    {candidate['name']}: {figure}")
    for reason in outcome["reasons"]:
        print(f"    {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    arguments = parser.parse_args()
    for name in arguments.tables:
        with tempfile.TemporaryDirectory() as folder:
            run(name, TABLES[name], arguments.data.resolve(), arguments.trials, Path(folder))


if __name__ == "__main__":
    main()
