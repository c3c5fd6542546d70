"""A replay tells the truth about the past, sees nothing of the future, and decides as production does."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from steward import pipeline
from steward.cli import RESUMABLE
from steward.config import ModelFile, Settings
from steward.errors import ReplayRefused
from steward.examples import deployments
from steward.io.predictions import Logged, new_id
from steward.io.workspace import Workspace
from steward.prediction import Model
from steward.records import Decision, Estimate
from steward.replay import Policy, Replay, Seen, replay, stage, write_page
from steward.replay import results as judged
from steward.replay.delays import Delay
from steward.replay.policies import settings_of
from steward.reports.replay import undominated

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, PER_DAY, CHANGES = 90, 40, 60
"""After `CHANGES` days half of the rows are larger than any before, and not all of these are High."""
START, EVERY = BEGAN + timedelta(days=40), timedelta(days=10)
MODEL = """
name: risk
task: classification
source: {table: ROWS, key: id, time: asked}
label: {column: outcome, classes: [Low, High]}
columns:
  files: {type: integer, min: 0, max: 2000}
  stage: {type: category, values: [dev, prod]}
candidates: [decision_tree]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.3}
monitor: {accuracy: {floor: 0.9}}
retrain: {schedule: null, new_rows: null}
"""
POLICIES = ("never", "every:1", "every:2", "floor", "steward")


def rows(days: int = DAYS, changes: int = CHANGES, seed: int = 1) -> pd.DataFrame:
    """Rows that are High above 500 files; later there are some with more than 1,000, which are High above 1,500."""
    rng = np.random.default_rng(seed)
    count = days * PER_DAY
    day = np.repeat(np.arange(days), PER_DAY)
    seconds = np.sort(rng.integers(0, 86_400, (days, PER_DAY)), axis=1).ravel()
    larger = (day >= changes) & (rng.random(count) < 0.5)
    files = rng.integers(0, 1000, count) + 1000 * larger
    return pd.DataFrame(
        {
            "id": [f"r{number:05d}" for number in range(count)],
            "asked": BEGAN + pd.to_timedelta(day * 86_400 + seconds, unit="s"),
            "files": files,
            "stage": rng.choice(["dev", "prod"], count),
            "outcome": np.where((files % 1000 > 500) ^ (rng.random(count) < 0.02), "High", "Low"),
        }
    )


@dataclass(frozen=True)
class Company:
    """A folder with a table, a model file and an installation."""

    home: Path
    model: ModelFile

    @classmethod
    def of(cls, home: Path, frame: pd.DataFrame, model: str = MODEL) -> "Company":
        home.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(home / "rows.parquet", index=False)
        return cls(home, ModelFile.parse(model.replace("ROWS", "rows.parquet")))

    def play(self, **options: Any) -> Replay:
        """In the company's folder: a path that is the same in every test makes the same seeds."""
        asked: dict[str, Any] = {"start": START, "every": EVERY, "label_delay": "2d", "policies": POLICIES, "jobs": 1}
        before = Path.cwd()
        os.chdir(self.home)
        try:
            return replay(self.model, self.settings, **{**asked, **options})
        finally:
            os.chdir(before)

    @property
    def settings(self) -> Settings:
        return Settings.from_environment({"STEWARD_HOME": str(self.home / "home"), "STEWARD_JOBS": "1"})


def text(found: Replay) -> str:
    return json.dumps(found.as_json())


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company.of(tmp_path_factory.mktemp("replay") / "company", rows())


@pytest.fixture(scope="module")
def played(company: Company) -> Replay:
    return company.play()


def test_what_a_change_of_the_world_costs_and_what_training_brings_back(played):
    never, always = played.course("never"), played.course("every:1")
    assert [one.value > 0.9 for one in never.windows] == [True, True, False, False, False]
    assert always.windows[-1].value > 0.9
    assert always.gain.low > 0
    assert never.gain.value == never.retrainings == 0
    assert [played.course(name).retrainings for name in ("every:1", "every:2")] == [4, 2]
    assert [one.number for one in played.course("floor").windows if one.reason] == [3]
    assert played.rows + played.before == DAYS * PER_DAY


def test_the_governor_is_replayed_through_the_sealed_test(played):
    steward = played.course("steward")
    trained = [one for one in steward.windows if one.verdict]
    assert trained
    assert trained[0].number >= 3, "nothing had changed before"
    assert steward.openings == steward.retrainings == len(trained)
    assert steward.gain.low > 0
    fallen = [alarm for alarm in steward.alarms if alarm.kind == "accuracy"]
    assert [(alarm.window, alarm.right) for alarm in fallen] == [(3, True)]


def test_the_same_replay_is_the_same_byte_for_byte_whoever_plays_it(company, played, tmp_path):
    assert text(company.play()) == text(played)
    again = Company.of(tmp_path / "elsewhere", rows())
    assert text(again.play(jobs=2)) == text(played)


def test_a_column_that_only_the_future_knows_changes_nothing(played, tmp_path):
    told = rows().assign(turned_out=lambda frame: frame["outcome"], seen_by=lambda frame: frame.index)
    assert text(Company.of(tmp_path / "told", told).play()) == text(played)


def test_what_comes_later_changes_nothing_that_came_before(played, tmp_path):
    """Rows from the fourth window on are other ones, and labels that arrive from then on are the other way round."""
    then = START + 3 * EVERY
    other = rows()
    later = other["asked"] >= then
    other.loc[later, "files"] = 1999 - other.loc[later, "files"]
    other.loc[later, "outcome"] = "High"
    unknown = (other["asked"] >= then - timedelta(days=2)) & ~later
    other.loc[unknown, "outcome"] = other.loc[unknown, "outcome"].map({"High": "Low", "Low": "High"})
    found = Company.of(tmp_path / "other", other).play()
    for name in POLICIES:
        mine, known = (made.course(name).windows[:3] for made in (found, played))
        with_hindsight = {"value": None, "change": None, "labelled": 0}
        assert [dataclasses.replace(one, **with_hindsight) for one in mine] == [
            dataclasses.replace(one, **with_hindsight) for one in known
        ]
        assert [one.value for one in mine[:2]] == [one.value for one in known[:2]]


def test_production_is_untouched(company, played):
    assert played.policies
    assert [path.name for path in company.settings.home.iterdir()] in (
        ["replays"],
        ["work", "replays"],
        ["replays", "work"],
    )


def test_policies_share_what_the_same_rows_teach(company, played):
    plain = Path(played.folder, "plain")
    assert sorted(path.stem for path in plain.glob("*.json")) == ["0", "1", "2", "3", "4"]
    before = {path: path.stat().st_mtime_ns for path in Path(played.folder).rglob("*.json")}
    more = company.play(policies=[*POLICIES, "every:4"])
    assert more.course("every:4").retrainings == 1
    assert more.course("steward") == played.course("steward")
    untouched = {path: path.stat().st_mtime_ns for path in before if path.name != "replay.json"}
    assert untouched == {path: time for path, time in before.items() if path.name != "replay.json"}


def test_a_replay_that_was_stopped_goes_on_where_it_was(played, tmp_path):
    stopped = Company.of(tmp_path / "stopped", rows())

    def stop(progress: Any) -> None:
        if progress.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.play(on_event=stop)
    (folder,) = (stopped.settings.home / "replays").glob("risk-*")
    (course,) = (folder / "policies").glob("steward-*")
    done = {path: path.stat().st_mtime_ns for path in course.glob("[0-9].json")}
    assert 0 < len(done) < 5
    assert text(stopped.play()) == text(played)
    assert {path: path.stat().st_mtime_ns for path in done} == done


@pytest.mark.parametrize("kept", [False, True], ids=["before its ledger was set aside", "after that"])
def test_a_window_that_was_half_played_is_played_again_with_the_same_result(played, tmp_path, monkeypatch, kept):
    """Killed when the new version was promoted already, and the window was not over yet."""
    killed = Company.of(tmp_path / "killed", rows())
    keep = stage.Place.keep

    def dies(place: stage.Place, policy: str, window: int) -> None:
        if window < 3 or kept:
            keep(place, policy, window)
        if window == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage.Place, "keep", dies)
    with pytest.raises(KeyboardInterrupt):
        killed.play(policies=["steward"])
    monkeypatch.undo()
    over = list(killed.home.glob("home/replays/*/policies/steward-*/[0-9].json"))
    before = {path: path.stat().st_mtime_ns for path in over}
    assert len(before) == 2
    assert killed.play(policies=["steward"]).course("steward") == played.course("steward")
    assert {path: path.stat().st_mtime_ns for path in over} == before


def test_a_replay_that_is_asked_to_stop_does_so_at_once_and_goes_on_with_the_same_result(played, tmp_path):
    """Its main process alone is asked, in the middle of a window that would last for ever."""
    stopped = Company.of(tmp_path / "stopped", rows())
    (stopped.home / "risk.yaml").write_text(MODEL.replace("ROWS", "rows.parquet"))
    (stopped.home / "sleeping.py").write_text(
        "import pathlib, time\ndef rule(seen):\n    pathlib.Path('asleep').touch()\n    time.sleep(600)\n"
    )
    asked = ["--start", START.isoformat(), "--every", "10d", "--label-delay", "2d", "--jobs", "2"]
    command = [
        sys.executable, "-m", "steward", "replay", "risk", *asked, "--policies", "sleeping:rule steward",
    ]  # fmt: skip
    there = {"STEWARD_HOME": "home", "STEWARD_MODELS": ".", "STEWARD_JOBS": "1", "PYTHONPATH": "."}
    with subprocess.Popen(
        command, cwd=stopped.home, env={**os.environ, **there}, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (stopped.home / "asleep").exists() and process.poll() is None:
            time.sleep(0.1)
        began = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, said = process.communicate()
    assert (process.returncode, said.splitlines()) == (128 + signal.SIGTERM, [RESUMABLE])
    assert psutil.wait_procs(began, 30)[1] == []
    assert text(stopped.play()) == text(played)


def whenever_two_windows_have_passed(seen: Seen) -> str | None:
    assert seen.look.records["observe"].rows == 10 * PER_DAY
    return "two windows" if seen.window - (seen.trained or 0) >= 2 else None


def test_rules_of_ones_own_variants_and_tested_ones_are_played_too(company, tmp_path, monkeypatch):
    module = tmp_path / "own_rules.py"
    module.write_text(
        "def every_second(seen):\n    return 'two windows' if seen.window - (seen.trained or 0) >= 2 else None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    asked = ["own_rules:every_second", "every:2:verified", "drift", "steward:on=[],new_rows=null"]
    found = company.play(policies=asked)
    own, verified, drift, deaf = (found.course(name) for name in asked)
    assert [one.number for one in own.windows if one.reason] == [2, 4]
    assert [one.number for one in verified.windows if one.reason] == [2, 4]
    assert verified.openings == verified.retrainings
    assert "drift in files" in next(one.reason for one in drift.windows if one.number == 3).replace("confidence, ", "")
    assert deaf.retrainings == deaf.refused == 0
    assert deaf.settings["retrain"]["on"] == []


def test_the_page_and_the_command_tell_the_same(company, played, invoke, tmp_path):
    page = write_page(played).read_text(encoding="utf-8")
    assert played.recommendation.says in page
    assert page.count("<svg") >= 2
    models = tmp_path / "models"
    models.mkdir()
    (models / "risk.yaml").write_text(MODEL.replace("ROWS", str(company.home / "rows.parquet")))
    answer = invoke(
        "replay", "risk", "--start", START.isoformat(), "--every", "10d", "--label-delay", "2d",
        "--policies", "never every:2", "--json", home=tmp_path / "home", models=models,
    )  # fmt: skip
    assert answer.exit_code == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert [one["name"] for one in document["policies"]] == ["never", "every:2"]
    assert document["policies"][1]["retrainings"] == 2


def test_a_column_that_begins_later_is_taken_into_the_model_file_and_asks_for_a_training(tmp_path):
    """From the change on a new tool turns the outcome over, and nothing else does."""
    frame = rows(changes=DAYS)
    tool = np.where(frame["asked"] < BEGAN + timedelta(days=CHANGES), None, np.where(frame.index % 2, "old", "new"))
    turned = {"Low": "High", "High": "Low"}
    outcome = frame["outcome"].where(tool != "new", frame["outcome"].map(turned))
    column = "  tool: {type: category, open: true, nullable: true}\ncandidates"
    company = Company.of(tmp_path, frame.assign(tool=tool, outcome=outcome), MODEL.replace("candidates", column))
    found = company.play(policies=["every:1", "steward:on=[new_feature]"])
    every, steward = (one.windows for one in found.policies)
    assert [(one.number, one.verdict) for one in steward if one.reason] == [(3, "promote")]
    assert "columns that version 1 does not know: tool" in steward[2].reason
    assert steward[2].value < 0.6
    assert min(steward[3].value, every[3].value) > 0.9


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    from typer.testing import CliRunner

    from steward.cli import app

    def run(*arguments: str, home: Path, models: Path) -> Any:
        monkeypatch.setenv("STEWARD_HOME", str(home))
        monkeypatch.setenv("STEWARD_MODELS", str(models))
        monkeypatch.setenv("STEWARD_JOBS", "1")
        return CliRunner().invoke(app, list(arguments))

    return run


BAD = {
    "no times": (lambda frame: frame, {}, MODEL.replace(", time: asked", ""), "no source.time"),
    "a start after everything": (
        lambda frame: frame,
        {"start": BEGAN + timedelta(days=200)},
        MODEL,
        "rows before its start",
    ),
    "a start before everything": (lambda frame: frame, {"start": BEGAN}, MODEL, "rows before its start"),
    "fewer rows than windows": (
        lambda frame: frame.head(60),
        {"start": None, "every": None, "windows": 50},
        MODEL,
        "as many different times",
    ),
    "too few rows to begin with": (
        lambda frame: frame,
        {"start": BEGAN + timedelta(days=1)},
        MODEL,
        "no first version",
    ),
    "one class before the start": (lambda frame: frame.assign(outcome="Low"), {}, MODEL, "no first version"),
    "no label before the start": (lambda frame: frame, {"label_delay": "60d"}, MODEL, "no first version"),
    "no column of labels' times": (lambda frame: frame, {"label_delay": "told_at"}, MODEL, "no column told_at"),
    "both kinds of windows": (
        lambda frame: frame,
        {"windows": 5},
        MODEL,
        "windows of so many rows, or of such a length",
    ),
    "no row that keeps the contract": (
        lambda frame: frame.assign(files=-1),
        {},
        MODEL,
        "no row that could be asked about",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_past_that_cannot_be_replayed_is_refused_by_name(tmp_path, name):
    change, options, model, message = BAD[name]
    with pytest.raises(ReplayRefused, match=message):
        Company.of(tmp_path / "bad", change(rows()), model).play(**{"policies": ["never"], **options})


def test_what_is_odd_about_a_past_is_said(tmp_path):
    frame = rows()
    day = (frame["asked"] - BEGAN).dt.days
    frame = frame[(day < 50) | (day >= 60)].copy()
    day = (frame["asked"] - BEGAN).dt.days
    frame.loc[(day >= 60) & (day < 70), "outcome"] = None
    frame.loc[(day >= 70) & (day < 80), "outcome"] = "Low"
    frame.loc[day == 45, "files"] = -1
    shuffled = frame.sample(frac=1, random_state=1)
    found = Company.of(tmp_path / "odd", shuffled).play(policies=["never", "steward"])
    said = " | ".join(found.says)
    for part in (
        "not in the order of its times",
        "40 rows break the contract",
        "window 2 is without rows",
        "window 3 is without a label",
        "window 4 is with labels of one class only",
    ):
        assert part in said
    assert [one.value for one in found.course("steward").windows][1:3] == [None, None]


DELAYS = {
    "36h": [129_600.0] * 3,
    "uniform(1d, 1d)": [86_400.0] * 3,
    "lognormal(2d, 0)": [172_800.0] * 3,
}


@pytest.mark.parametrize("text", DELAYS)
def test_labels_arrive_after_their_delay(text):
    found, _ = Delay.parse(text).arrivals(np.zeros(3), None, ["a", "b", "c"], seed=0)
    assert found.tolist() == pytest.approx(DELAYS[text])


def test_a_drawn_delay_belongs_to_its_row():
    delay, keys = Delay.parse("exponential(3d)"), [str(number) for number in range(2_000)]
    found, _ = delay.arrivals(np.zeros(2_000), None, keys, seed=0)
    backwards, _ = delay.arrivals(np.zeros(2_000), None, keys[::-1], seed=0)
    assert found.tolist() == backwards[::-1].tolist()
    assert found.mean() == pytest.approx(3 * 86_400, rel=0.1)
    assert delay.arrivals(np.zeros(3), None, keys[:3], seed=1)[0].tolist() != found[:3].tolist()


def test_a_column_says_when_labels_arrive():
    found, says = Delay.parse("told_at").arrivals(np.array([10.0, 10, 10]), np.array([5.0, 20, np.nan]), [], seed=0)
    assert found.tolist() == [10, 20, np.inf]
    assert says == ("1 labels are dated before their row; they count as known at once",)


@pytest.mark.parametrize("text", ["7x", "uniform(3d, 1d)", "exponential(1d, 2d)", "lognormal(two, 1)"])
def test_a_delay_that_says_nothing_is_refused(text):
    with pytest.raises(ReplayRefused, match="label delay cannot be read"):
        Delay.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("always", "no such rule"),
        ("every:0", "1 or more"),
        ("every:often", "invalid literal"),
        ("floor:high", "could not convert"),
        ("steward:patience=3", "no field retrain.patience"),
        ("steward:cooldown", "no FIELD=VALUE"),
        ("steward:cooldown=soon", "duration"),
        ("nothing_like:it", "No module named"),
        ("json:nothing", "has no attribute"),
        ("never:1", "no such rule"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused(text, why):
    with pytest.raises(ReplayRefused, match=why):
        Policy.parse(text, ModelFile.parse(MODEL))


def test_settings_of_a_variant_are_those_of_the_model_file():
    model = ModelFile.parse(MODEL)
    policy = Policy.parse("steward:cooldown=0h,max_per_week=10,monitor.window=14d,on=[accuracy, event]", model)
    changed = policy.model_file(model)
    assert (changed.retrain.cooldown, changed.retrain.max_per_week) == (timedelta(0), 10)
    assert changed.monitor.window == timedelta(days=14)
    assert changed.retrain.on == ("accuracy", "event")
    snippet = settings_of(policy, 7, model)
    assert snippet["retrain"]["max_per_week"] == 10
    assert snippet["monitor"]["window"] == "2w"
    every = settings_of(Policy.parse("every:1", model), 7, model)
    assert ModelFile.model_validate(model.model_dump(mode="json", by_alias=True) | every).retrain.schedule == "@weekly"


def course(name: str, gain: float, trainings: int, low: float = 0.01, *, governed: bool = True) -> judged.Course:
    return judged.Course(
        name=name, governed=governed, mean=0.8, gain=Estimate(value=gain, low=low, high=1.0), retrainings=trainings,
        refused=0, openings=0, promotions=0, rollbacks=0, wrong=0, surely_wrong=0, alarms=(), windows=(),
        settings={"retrain": {"on": [name]}},
    )  # fmt: skip


RECOMMENDED: dict[str, tuple[Sequence[judged.Course], str]] = {
    "the cheapest of those that keep most of the gain": (
        [course("never", 0, 0, -0.01), course("every:1", 0.10, 49), course("steward", 0.091, 8)],
        "steward",
    ),
    "the best where the cheap ones lose too much": (
        [course("every:1", 0.10, 49), course("steward", 0.05, 8)],
        "every:1",
    ),
    "never where nothing is sure": ([course("never", 0, 0, 0), course("every:1", 0.02, 49, -0.01)], "never"),
}


@pytest.mark.parametrize("name", RECOMMENDED)
def test_what_is_recommended(name):
    courses, expected = RECOMMENDED[name]
    assert judged.recommend(courses, "accuracy").policy == expected


def test_a_policy_is_dominated_by_one_that_gains_as_much_with_less():
    known = [
        {"gain": {"value": gain}, "retrainings": trainings, "refused": 0}
        for gain, trainings in ((0.1, 49), (0.1, 8), (0.0, 0), (0.05, 12))
    ]
    assert [undominated(one, known) for one in known] == [False, True, True, False]


MONTHS = """
name: months
task: classification
source: {table: ROWS, key: deployment_id, time: requested_at}
label: {column: risk_level, classes: [Low, Medium, High], mature_after: 2d}
columns:
  files_changed:     {type: integer, min: 0, max: 100000}
  environment:       {type: category, values: [dev, staging, prod]}
  team:              {type: category, open: true}
  hour:              {type: integer, min: 0, max: 23}
  previous_failures: {type: integer, min: 0, nullable: true}
candidates: [decision_tree]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.1}
monitor: {accuracy: {floor: 0.85}}
retrain: {schedule: null, new_rows: null}
"""
PAST = 3_200
"""Rows of the demo's past that are enough for a small tree."""
DELAY = timedelta(days=2)


@dataclass
class Production:
    """The demo's months, lived in an installation of its own by the steps that the DAGs run."""

    workspace: Workspace
    model: ModelFile
    frame: pd.DataFrame
    table: Path

    def serve(self, start: datetime, end: datetime) -> None:
        champion = Model(self.model, workspace=self.workspace)
        asked = self.frame[(self.frame["requested_at"] >= start) & (self.frame["requested_at"] < end)]
        records = json.loads(asked[list(self.model.columns)].to_json(orient="records"))
        logged = [
            self._logged(champion, key, at.timestamp(), record)
            for key, at, record in zip(asked["deployment_id"], asked["requested_at"], records, strict=True)
        ]
        self.workspace.predictions.prepare()
        writer = self.workspace.predictions.writer(durable=False, patience=30)
        writer.write(logged)
        writer.close()

    @staticmethod
    def _logged(champion: Model, key: str, at: float, record: dict[str, Any]) -> Logged:
        answer = champion.predict(record)
        kept = ("prediction", "confidence", "probabilities", "interval", "action", "unseen", "flags")
        return Logged(
            new_id(at), champion.name, at, champion.version, key, json.dumps(record),
            json.dumps({name: answer[name] for name in kept}), answer["prediction"], answer["confidence"],
            answer["action"], False, None,
        )  # fmt: skip

    def let_labels_arrive(self, start: datetime, end: datetime, since: datetime) -> None:
        """Into the table, which is the system of record, and to the service, each when it is known."""
        come = self.frame["requested_at"] + DELAY
        self.frame[come < end].to_parquet(self.table, index=False)
        news = self.frame[(come >= start) & (come < end) & (self.frame["requested_at"] >= since)]
        told = [
            {"key": key, "label": label} for key, label in zip(news["deployment_id"], news["risk_level"], strict=True)
        ]
        times = [at.timestamp() for at in come[news.index]]
        self.workspace.predictions.add_outcomes(self.model, told, end, received=times)

    def train(self, at: datetime, decision: Decision | None) -> pipeline.Outcome:
        said = decision.reason if decision else "the beginning"
        return pipeline.train(
            self.workspace, self.model, at=at, reason=said, by="test", run_id=at.isoformat(), decision=decision
        )


def test_the_demos_months_are_decided_as_production_decides_them(tmp_path, new_workspace):
    past = deployments.simulate(PAST, first=deployments.PAST - PAST)
    month = deployments.simulate(2_000, first=deployments.PAST, world=deployments.MONTH_TWO)
    frame = pd.concat([past, month], ignore_index=True)
    lived = Company.of(tmp_path / "months", frame, MONTHS)
    start, every = deployments.UNTIL, timedelta(days=5)
    made = lived.play(start=start, every=every, policies=["steward"]).course("steward")

    table = tmp_path / "production.parquet"
    model = ModelFile.parse(MONTHS.replace("ROWS", str(table)))
    production = Production(new_workspace(tmp_path / "home"), model, frame, table)
    production.let_labels_arrive(start, start, start)
    assert production.train(start, None).promotion.alias == "champion"
    decisions = []
    for window in made.windows:
        production.serve(window.start, window.end)
        production.let_labels_arrive(window.start, window.end, start)
        look = pipeline.monitor(production.workspace, model, at=window.end)
        decision, verdict = look.records["decide_retraining"], None
        if decision.train and window is not made.windows[-1]:
            verdict = production.train(window.end, decision).verdict.verdict
        decisions.append((decision.reason, look.records["measure_accuracy"].live, verdict))
    replayed = [
        (one.look["reason"], one.look["live"] and Estimate.model_validate(one.look["live"]), one.verdict)
        for one in made.windows
    ]
    assert replayed == decisions
    assert {verdict for _, _, verdict in replayed} > {None}, "a training was decided and verified"


def test_a_drift_that_does_not_matter_starts_no_training(tmp_path):
    past = deployments.simulate(PAST, first=deployments.PAST - PAST)
    neutral = deployments.World(neutral=True)
    month = deployments.simulate(2_000, first=deployments.PAST, world=neutral)
    lived = Company.of(tmp_path / "neutral", pd.concat([past, month], ignore_index=True), MONTHS)
    made = lived.play(start=deployments.UNTIL, every=timedelta(days=5), policies=["steward"]).course("steward")
    seen = {column for one in made.windows for column in one.look["columns"]}
    assert {"hour", "team"} <= seen, "it was seen"
    assert made.retrainings == made.refused == 0, "and it did not matter"
