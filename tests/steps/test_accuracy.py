"""Live accuracy against served predictions, outcomes and source rows whose truth is known."""

import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from steward import Model, operations, pipeline, steps
from steward.config import ModelFile
from steward.core import splitting
from steward.errors import StewardError
from steward.io.predictions import Logged, new_id
from steward.records import Accuracy, Decision, Reference, Roles
from steward.serving.schemas import encode
from steward.steps import labelled, promotion, question
from steward.steps.opening import Contestant
from tests.conftest import plain_workspace_in

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
MODEL = """
name: risk
task: classification
source: {table: HOME/rows/*.parquet, key: id, time: at}
label: {column: outcome, classes: [Low, High]}
columns:
  files: {type: number, min: 0, max: 1000}
  stage: {type: category, values: [dev, prod]}
split: {by: SPLIT}
candidates: [decision_tree]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.15, slices: [stage]}
"""
LIMIT, NOISE = 500, 0.08
PAST = 1_500


def rows(count, first, start, days, seed, limit=LIMIT):
    """Rows whose outcome is High above `limit` files, but for some noise."""
    drawn = np.random.default_rng(seed)
    files = drawn.uniform(0, 1000, count)
    high = (files > limit) ^ (drawn.random(count) < NOISE)
    seconds = np.sort(drawn.uniform(0, days * 86_400, count))
    return pd.DataFrame(
        {
            "id": [f"row-{number}" for number in range(first, first + count)],
            "at": pd.to_datetime(start) + pd.to_timedelta(seconds, unit="s"),
            "files": files,
            "stage": np.where(drawn.random(count) < 0.5, "dev", "prod"),
            "outcome": np.where(high, "High", "Low"),
        }
    )


class Place:
    """A workspace, its model, and what happens there."""

    def __init__(self, home, split="key"):
        self.home = home
        self.workspace = plain_workspace_in(home)
        self.model = ModelFile.parse(MODEL.replace("HOME", str(home)).replace("SPLIT", split))

    def change(self, **sections):
        document = self.model.model_dump(mode="json", by_alias=True)
        for name, values in sections.items():
            document[name] |= values
        self.model = ModelFile.model_validate(document)

    def add(self, frame, name):
        (self.home / "rows").mkdir(parents=True, exist_ok=True)
        frame.to_parquet(self.home / "rows" / f"{name}.parquet", index=False)

    def train(self, at, run):
        return pipeline.train(self.workspace, self.model, at=at, reason="test", by="ada", run_id=run)

    def serve(self, frame, version=1, **more):
        """Every row becomes a prediction on record, at the row's time."""
        model = Model(self.model, version, workspace=self.workspace)
        given = model.predict(frame.drop(columns=["id", "at", "outcome"]))
        logged = []
        for (_, row), (_, answer) in zip(frame.iterrows(), given.iterrows(), strict=True):
            at = row["at"].timestamp()
            kept = {"prediction": answer["prediction"], "confidence": float(answer.get("confidence", 0))}
            kept["probabilities"] = {name: float(answer[f"probability_{name}"]) for name in self.model.classes}
            record = {"files": row["files"], "stage": row["stage"]}
            logged.append(
                Logged(
                    new_id(at), "risk", at, version, row["id"], encode(record).decode(), encode(kept).decode(),
                    str(answer["prediction"]), kept["confidence"], more.get("action", "proceed"),
                    more.get("control", False), None,
                )
            )  # fmt: skip
        self.workspace.predictions.prepare()
        writer = self.workspace.predictions.writer(durable=False, patience=5)
        writer.write(logged)
        writer.close()
        return frame.assign(right=(given["prediction"].to_numpy() == frame["outcome"].to_numpy()))

    def outcomes(self, frame, at):
        items = [{"key": key, "label": label} for key, label in zip(frame["id"], frame["outcome"], strict=True)]
        if items:
            self.workspace.predictions.add_outcomes(self.model, items, at)

    def look(self, at, *, decide=True):
        observation = steps.observe(self.workspace, self.model, at=at)
        reference = steps.measure_accuracy(self.workspace, self.model, observation, at=at)
        if decide:
            self.decision = self.workspace.load(
                Decision, steps.decide_retraining(self.workspace, self.model, [observation, reference], at=at)
            )
        return self.workspace.load(Accuracy, reference)

    def sealed(self, frame):
        units = [splitting.unit_of(key) for key in frame["id"]]
        return np.array([splitting.role_of(unit, self.model.split) == "test" for unit in units])


@pytest.fixture(scope="module")
def champions(tmp_path_factory):
    """Homes with a champion, by how rows are split."""
    made = {}
    for split in ("key", "time"):
        home = tmp_path_factory.mktemp(split) / "home"
        place = Place(home, split)
        place.add(rows(PAST, 0, START - 60 * DAY, 60, seed=1), "past")
        assert place.train(START, "first").promotion.champion == 1
        made[split] = home
    return made


@pytest.fixture
def place(request, champions, tmp_path):
    """A copy of a home, to do with as one likes; the snapshot's files are where they were."""
    split = getattr(request, "param", "key")
    home = champions[split]
    shutil.copytree(home, tmp_path / "home")
    return Place(tmp_path / "home", split)


def triggers(found):
    return [trigger["kind"] for trigger in found.triggers]


def test_what_was_served_is_measured_by_its_outcomes(place):
    served = place.serve(rows(800, 9_000, START, 6, seed=2))
    place.outcomes(served, START + 7 * DAY)
    place.outcomes(pd.DataFrame({"id": ["nobody"], "outcome": ["High"]}), START + 7 * DAY)
    found = place.look(START + 8 * DAY)
    open_rows = served[~place.sealed(served)]
    assert (found.rows, found.served, found.left_out) == (len(open_rows), len(open_rows), place.sealed(served).sum())
    assert found.live.value == pytest.approx(open_rows["right"].mean())
    assert found.live.low < 1 - NOISE < found.live.high
    assert {one.value: one.rows for one in found.slices} == open_rows["stage"].value_counts().to_dict()
    assert (triggers(found), found.alarm_since, found.fallen_since) == ([], None, None)
    assert found.estimate.value == pytest.approx(served["right"].mean(), abs=0.03)
    assert any("an estimate does not see" in said for said in found.says)
    status = operations.status(place.workspace, place.model, at=START + 8 * DAY)
    assert status["live_accuracy"]["value"] == found.live.value
    assert "as verified" in status["live_accuracy"]["why"]
    assert status["last_decision"]["reason"] == "wait: nothing asks for a training"
    assert status["next_look"]["value"] == "2026-03-10T00:00:00+00:00"


def test_nothing_served_nothing_new_is_said_clearly(place):
    found = place.look(START + DAY)
    assert (found.rows, found.live, found.estimate, triggers(found)) == (0, None, None, [])
    assert found.says == ("No labelled row whose time has come: live accuracy is not known.",)


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_rows_decide_nothing(place, count):
    bad = rows(200, 9_000, START, 1, seed=2)
    bad = bad[~place.sealed(bad)].head(count)
    served = place.serve(bad.assign(outcome=np.where(bad["files"] > LIMIT, "Low", "High")))
    place.outcomes(served, START + 2 * DAY)
    found = place.look(START + 2 * DAY)
    assert (found.rows, triggers(found)) == (count, [])


@pytest.mark.parametrize("change", ["gone", "no label", "no column"])
def test_a_source_that_cannot_be_read_leaves_what_was_served(place, change):
    served = place.serve(rows(300, 9_000, START, 1, seed=2))
    place.outcomes(served, START + DAY)
    observation = steps.observe(place.workspace, place.model, at=START + 2 * DAY)
    shutil.rmtree(place.home / "rows")
    if change != "gone":
        lost = {"no label": "outcome", "no column": "stage"}[change]
        place.add(rows(100, 0, START, 1, seed=3).drop(columns=lost), "other")
    reference = steps.measure_accuracy(place.workspace, place.model, observation, at=START + 2 * DAY)
    found = place.workspace.load(Accuracy, reference)
    assert found.served > 200
    assert found.says[0].startswith("The source was not read")


def arrive(place, served, at):
    """Outcomes with their delays: of wrong answers within a day, of right ones within ten days."""
    drawn = np.random.default_rng(5)
    delay = np.where(served["right"], drawn.uniform(0, 10, len(served)), drawn.uniform(0, 1, len(served)))
    moment = served["at"] + pd.to_timedelta(delay, unit="D")
    for day in pd.date_range(START, at, freq="D"):
        due = (moment > day - DAY) & (moment <= day)
        place.outcomes(served[due], day.to_pydatetime())
    return moment


def test_a_window_whose_labels_are_thirty_percent_in_raises_no_alarm(place):
    """Bad news travels fast: of the young predictions that have an outcome, nearly all were wrong."""
    place.change(monitor={"window": "1d"})
    served = place.serve(rows(6_000, 9_000, START, 40, seed=2))
    moment = arrive(place, served, START + 60 * DAY)
    young = (served["at"] >= START + 27 * DAY) & (moment <= START + 30 * DAY) & (served["at"] < START + 30 * DAY)
    assert young.sum() / (served["at"].between(START + 27 * DAY, START + 30 * DAY)).sum() < 0.35
    assert served[young]["right"].mean() < 0.75, "read as it is, this window would be an alarm"
    alarms = []
    for day in (3, 10, 20, 27, 30, 33, 36, 45, 60):
        found = place.look(START + day * DAY)
        alarms += triggers(found)
        if found.end and day <= 40:
            assert found.end < START + (day - 8) * DAY
    assert alarms == []
    assert found.ripe_after == pytest.approx(9 * 86_400, rel=0.15)
    assert found.watch["windows"] >= 5


def test_labels_that_come_after_months_are_read(place):
    """Of the newest predictions none has an outcome yet, and says nothing about when outcomes come."""
    served = place.serve(rows(1_000, 9_000, START, 250, seed=2))
    for day in range(100, 250, 10):
        due = served["at"].between(START + (day - 100) * DAY, START + (day - 90) * DAY)
        place.outcomes(served[due], START + day * DAY)
    found = place.look(START + 245 * DAY)
    assert found.ripe_after == pytest.approx(100 * 86_400, rel=0.1)
    assert found.live.low < served["right"].mean() < found.live.high


def test_rows_whose_labels_are_all_here_are_read_however_young(place):
    served = place.serve(rows(400, 9_000, START, 0.01, seed=2))
    place.outcomes(served, START + timedelta(minutes=15))
    assert place.look(START + timedelta(minutes=16)).served > 300


def changed(place, count=4_000, seed=3, name="new"):
    """A month in which the limit is another one, as rows of the source."""
    frame = rows(count, 9_000, START, 30, seed, limit=300)
    place.add(frame, name)
    return frame


def test_a_changed_world_asks_for_training_with_what_it_cost(place, monkeypatch):
    frame = changed(place)
    scored = []
    answers = Contestant.answers
    monkeypatch.setattr(
        Contestant, "answers", lambda self, given, classes: scored.append(given) or answers(self, given, classes)
    )
    found = place.look(START + 30 * DAY)
    sealed = place.sealed(frame)
    assert set(pd.concat(scored)["files"]) == set(frame[~sealed]["files"]), "no sealed row is answered"
    assert (found.new_rows, found.sealed, found.left_out) == (len(frame), sealed.sum(), sealed.sum())
    assert found.start == found.end - 7 * DAY
    accuracy, drift, more = found.triggers
    assert (accuracy["kind"], drift["kind"], more["kind"]) == ("accuracy", "concept_drift", "new_rows")
    assert accuracy["loss"] == pytest.approx(0.17, abs=0.08)
    assert 0.03 < drift["loss"] < 0.25, "what the older half of the month teaches"
    assert "training with the newest rows would help" in " ".join(found.says)
    assert "stage = prod" in found.moved[0]
    assert place.decision.train
    assert place.decision.detect == pytest.approx(accuracy["loss"])
    status = operations.status(place.workspace, place.model, at=START + 30 * DAY)
    assert "worse since 2026-03-31" in status["live_accuracy"]["why"]
    assert status["last_decision"]["train"]


def test_a_cause_keeps_its_name_while_it_goes_on_and_the_watch_reads_every_row_once(place):
    changed(place)
    first = place.look(START + 30 * DAY)
    second = place.look(START + 31 * DAY)
    assert [one["cause"] for one in first.triggers] == [one["cause"] for one in second.triggers]
    assert second.watch["windows"] == first.watch["windows"] == 1
    assert second.question == first.question, "the question is not asked again without new rows"
    assert (place.decision.train, "not begun since" in place.decision.reason) == (True, True)
    more = rows(400, 20_000, START + 31 * DAY, 1, seed=9, limit=300)
    place.add(more, "more")
    third = place.look(START + 33 * DAY)
    assert third.watch["windows"] == 2
    assert third.fallen_since == first.fallen_since


def test_a_training_that_a_trigger_started_plans_with_the_loss(place):
    changed(place, count=3_000)
    place.change(verify={"detect": 0.05})
    place.look(START + 30 * DAY)
    decision = place.decision
    made = pipeline.train(
        place.workspace, place.model, at=START + 30 * DAY, reason=decision.reason, by="monitor", run_id="second",
        decision=decision,
    )  # fmt: skip
    assert made.promotion.champion == 2
    roles = [entry.body["roles"] for entry in place.workspace.ledger.entries("risk", "opening")]
    assert place.workspace.load(Roles, Reference.model_validate(roles[-1])).detect == decision.detect
    found = place.look(START + 31 * DAY)
    assert (found.version, triggers(found), found.new_rows) == (2, [], 0)


@pytest.mark.parametrize(
    ("count", "again"),
    [pytest.param(2_000, True, id="looks are sure"), pytest.param(260, False, id="too few rows to be sure")],
)
def test_what_a_verdict_did_not_favour_waits_for_looks_that_are_sure(place, count, again):
    changed(place, count)
    place.change(monitor={"window": "40d"}, verify={"detect": 0.9})
    found = place.look(START + 30 * DAY)
    assert place.decision.trigger["kind"] == "accuracy"
    sure = found.question.skill.interval(0.9875).low > 0
    assert sure == again
    cause, ledger = place.decision.cause, place.workspace.ledger
    begun = START + 30 * DAY + timedelta(minutes=1)
    operations.trigger(
        place.workspace, place.model, "accuracy", "it fell", by="monitor", at=begun, run_id="2", cause=cause
    )
    ledger.append("risk", "verdict", "in vain", {"verdict": "hold"}, begun)
    place.look(START + 32 * DAY)
    if again:
        assert place.decision.cause == f"{cause}, attempt 2"
    else:
        refused = {one["kind"]: one["rule"] for one in place.decision.refusals}
        assert (place.decision.train, refused["accuracy"]) == (False, "second attempt")


def test_outcomes_that_no_training_would_have_teach_nothing(place):
    served = place.serve(rows(800, 9_000, START, 6, seed=2, limit=300))
    place.outcomes(served, START + 7 * DAY)
    found = place.look(START + 8 * DAY)
    assert (found.alarm_since is not None, found.question) == (True, None)
    place.change(source={"outcomes": True})
    assert place.look(START + 9 * DAY).question.skill.interval(0.98).low > 0


def test_what_looks_have_asked_is_part_of_the_verdict(place):
    """The world changes; look after look says that newer rows teach a better model, and the verdict knows it."""
    for day in range(6):
        place.add(rows(300, 9_000 + 1_000 * day, START + day * DAY, 1, seed=day, limit=300), f"day {day}")
        found = place.look(START + (day + 1) * DAY)
    assert found.question.rows > 1_000
    assert found.question.skill.rows < found.question.rows, "the first answers count less"
    assert found.question.skill.interval(0.98).low > 0
    assert [one["loss_low"] > 0 for one in found.triggers if one["kind"] == "new_rows"] == [True]
    assert [one["loss"] for one in found.triggers if one["kind"] == "new_rows"] == [None], "not in the metric"
    place.train(START + 6 * DAY, "second")
    test = place.workspace.ledger.find("risk", "opening_result", "2").body
    assert test["asked"] == found.question.skill.as_json()
    assert test["skill"]["rows"] == test["rows"]
    assert place.workspace.ledger.find("risk", "opening_result", "1").body["asked"] is None, "nobody had looked"
    assert place.look(START + 7 * DAY).question is None, "another version is another question"


def test_a_question_is_asked_of_rows_that_nobody_learned_from(place, monkeypatch):
    """And of each once: what teaches is older than what is asked, and never sealed. At first the older half teaches."""
    taught, asked = [], []
    refit = question.tuning.refit
    monkeypatch.setattr(
        question.tuning, "refit", lambda *given, **more: taught.append(given[3]["files"]) or refit(*given, **more)
    )
    skill = question.verification.skill
    monkeypatch.setattr(
        question.verification, "skill", lambda *given, **more: asked.append(len(given[1])) or skill(*given, **more)
    )
    new = [rows(300, 9_000 + 1_000 * day, START + day * DAY, 1, seed=day) for day in range(3)]
    open_rows = [frame[~place.sealed(frame)] for frame in new]
    for day, frame in enumerate(new):
        place.add(frame, f"day {day}")
        found = place.look(START + (day + 1) * DAY)
    middle = len(open_rows[0]) // 2
    questions = [open_rows[0][middle:], *open_rows[1:]]
    lessons = [open_rows[0][:middle], open_rows[0], pd.concat(open_rows[:2])]
    assert found.question.rows == sum(map(len, questions))
    assert asked == [len(frame) for frame in questions for _ in ("gain", "skill")]
    assert [set(given[PAST:]) for given in taught] == [set(frame["files"]) for frame in lessons]
    few = rows(10, 20_000, START + 3 * DAY, 1, seed=9)
    place.add(few, "few")
    assert place.look(START + 4 * DAY).question == found.question, "ten rows are not worth a training"


def test_new_rows_are_a_reason_as_a_share_of_what_the_last_training_had(place):
    place.add(rows(74, 9_000, START, 2, seed=3), "some")
    assert triggers(place.look(START + 2 * DAY)) == []
    place.add(rows(1, 10_000, START, 2, seed=4), "one more")
    found = place.look(START + 3 * DAY)
    assert (found.new_rows, triggers(found)) == (75, ["new_rows"])
    assert (place.decision.train, place.decision.refusals[0]["rule"]) == (False, "expected loss")
    assert operations.too_early(place.workspace, place.model, at=START + 3 * DAY) is None, "the schedule waits for none"


def test_new_rows_are_counted_and_are_a_reason(place):
    place.change(retrain={"new_rows": 400})
    assert steps.count_new_rows(place.workspace, place.model, at=START) == 0
    assert "0 labelled rows since the last training" in operations.too_early(place.workspace, place.model, at=START)
    place.add(rows(450, 9_000, START, 2, seed=3), "new")
    assert steps.count_new_rows(place.workspace, place.model, at=START + 2 * DAY) == 450
    assert operations.too_early(place.workspace, place.model, at=START + 2 * DAY) is None
    found = place.look(START + 2 * DAY)
    assert triggers(found) == ["new_rows"]
    assert found.triggers[0]["reason"] == "450 labelled rows since the last training; 400 are a reason"
    assert (place.decision.train, place.decision.cause) == (True, found.triggers[0]["cause"])
    place.change(verify={"detect": 0.01})
    assert place.look(START + 3 * DAY).triggers[0]["cause"] == found.triggers[0]["cause"]


@pytest.mark.parametrize("place", ["key", "time"], indirect=True)
def test_with_outcomes_the_rows_that_only_the_log_has_count_as_the_next_snapshot_counts_them(place):
    """Half of what was served is in the table too; none is counted twice."""
    place.change(source={"outcomes": True}, retrain={"new_rows": 700})
    served = place.serve(rows(800, 9_000, START, 6, seed=2))
    place.add(served.head(400).drop(columns="right"), "half")
    assert steps.count_new_rows(place.workspace, place.model, at=START + 7 * DAY) == 400
    place.outcomes(served, START + 7 * DAY)
    found = place.look(START + 8 * DAY)
    roles = place.workspace.load(Roles, _split(place, START + 8 * DAY))
    assert (found.new_rows, found.sealed) == (800, roles.rows["test"])
    assert found.rows + found.left_out == 800
    assert steps.count_new_rows(place.workspace, place.model, at=START + 8 * DAY) == 800
    assert triggers(found) == ["new_rows"]
    assert place.decision.train
    made = place.train(START + 8 * DAY, "second")
    assert made.snapshot.accepted == PAST + 800
    assert steps.count_new_rows(place.workspace, place.model, at=START + 9 * DAY) == 0


def _split(place, at):
    return steps.split(place.workspace, place.model, steps.accept(place.workspace, place.model, at=at))


def test_continuous_learning_begins_where_the_champion_ended(place):
    place.change(retrain={"new_rows": 400}, search={"trials": 2}, verify={"detect": 0.3})
    place.add(rows(800, 9_000, START, 2, seed=3), "new")
    params = Model(place.model, workspace=place.workspace).predictor.made.params
    made = pipeline.train(place.workspace, place.model, at=START + 3 * DAY, reason="more", by="ada", run_id="second")
    first, second = made.candidates[0].trials
    assert {name: params[name] for name in first.params} == first.params
    assert second.params != first.params


def test_the_previous_version_comes_back_if_it_was_better(place, monkeypatch):
    """Version 2 learned a change that was gone the day after."""
    changed(place)
    assert place.train(START + 30 * DAY, "second").promotion.champion == 2
    place.change(monitor={"shadow": "5d"})
    served = place.serve(rows(600, 30_000, START + 31 * DAY, 1, seed=4), version=2)
    place.outcomes(served, START + 32 * DAY)
    with monkeypatch.context() as killed:
        killed.setattr(promotion, "move_aliases", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            place.look(START + 33 * DAY)
    assert place.workspace.registry.aliases("risk")["champion"] == 2
    found = place.look(START + 33 * DAY)
    assert (found.version, found.shadow.version, found.shadow.rolled_back) == (2, 1, True)
    assert found.shadow.difference.high < 0
    assert triggers(found) == []
    assert place.workspace.registry.aliases("risk") == {"champion": 1, "previous": 2}
    *_, last = place.workspace.ledger.entries("risk", "promotion")
    assert (last.body["act"], last.body["by"], last.body["champion"]) == ("rollback", "monitor", 1)
    assert operations.describe(last).startswith("version 1 made champion by monitor (rollback): Version 2: on ")
    after = place.look(START + 34 * DAY)
    assert (after.version, after.shadow) == (1, None)


def test_rows_from_before_the_promotion_whose_outcomes_came_too_late_speak_too(place):
    """Nobody waits for rows that the new version serves, to see that it is worse on the newest ones."""
    changed(place)
    asked = place.serve(rows(600, 30_000, START + 28 * DAY, 1, seed=4), version=1)
    assert place.train(START + 30 * DAY, "second").promotion.champion == 2
    place.add(asked.drop(columns="right"), "labelled later")
    found = place.look(START + 30 * DAY + timedelta(hours=6))
    assert (found.version, found.shadow.rolled_back, found.shadow.rows > 400) == (2, True, True)


def test_a_good_version_stays(place):
    changed(place)
    assert place.train(START + 30 * DAY, "second").promotion.champion == 2
    served = place.serve(rows(600, 30_000, START + 31 * DAY, 1, seed=4, limit=300), version=2)
    place.outcomes(served, START + 32 * DAY)
    found = place.look(START + 33 * DAY)
    assert (found.shadow.rolled_back, place.workspace.registry.aliases("risk")["champion"]) == (False, 2)
    assert found.shadow.difference.low > 0


@pytest.mark.parametrize("place", ["time"], indirect=True)
def test_by_time_no_row_that_was_read_becomes_a_test_row(place, monkeypatch):
    """Looks go on while rows come in; at the next training none of what was answered is sealed."""
    future = rows(2_000, 9_000, START, 40, seed=3)
    scored, read = [], 0
    answers = Contestant.answers
    monkeypatch.setattr(
        Contestant,
        "answers",
        lambda self, given, classes: scored.extend(given["files"]) or answers(self, given, classes),
    )
    for day in (5, 12, 25, 40):
        place.add(future[future["at"] < START + day * DAY], "new")
        read += place.look(START + day * DAY).read
    snapshot = steps.accept(place.workspace, place.model, at=START + 40 * DAY)
    roles = place.workspace.load(Roles, steps.split(place.workspace, place.model, snapshot))
    sealed, _, _ = steps.rows_of(place.workspace, place.model, roles, "test")
    assert read == len(set(scored)) > 1_500
    assert len(sealed) >= 290
    assert not set(scored) & set(sealed["files"])


def test_rows_that_the_champion_learned_from_are_no_evidence(place):
    past = rows(PAST, 0, START - 60 * DAY, 60, seed=1).head(400).assign(at=START + DAY)
    place.outcomes(place.serve(past), START + 2 * DAY)
    found = place.look(START + 3 * DAY)
    roles = [splitting.role_of(splitting.unit_of(key), place.model.split) for key in past["id"]]
    assert found.rows <= roles.count("test")


def test_a_look_is_measured_once(place):
    place.outcomes(place.serve(rows(300, 9_000, START, 1, seed=2)), START + DAY)
    first = place.look(START + 2 * DAY)
    assert place.look(START + 2 * DAY) == first


def test_a_version_that_never_was_champion_cannot_be_watched(place):
    with pytest.raises(StewardError, match="no such champion"):
        labelled.Champion.of(place.workspace, place.model, 9)


HOUSES = """
name: risk
task: regression
source: {table: HOME/rows/*.parquet, key: id}
label: {column: outcome, min: 0}
columns:
  files: {type: number, min: 0, max: 1000}
  stage: {type: category, open: true}
split: {by: group, group: stage}
candidates: [linear_regression]
search: {trials: 1, cross_validate_below: 0}
verify: {detect: 0.2}
"""


def houses(count, first, seed, noise=20.0, towns=(0, 150)):
    """Prices in towns, without a date."""
    drawn = np.random.default_rng(seed)
    files = drawn.uniform(0, 1000, count)
    return pd.DataFrame(
        {
            "id": [f"row-{number}" for number in range(first, first + count)],
            "files": files,
            "stage": [f"town-{number}" for number in drawn.integers(*towns, count)],
            "outcome": np.abs(100 + files + drawn.normal(0, noise, count)),
        }
    )


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    home = tmp_path_factory.mktemp("towns") / "home"
    place = Place(home)
    place.model = ModelFile.parse(HOUSES.replace("HOME", str(home)))
    place.add(houses(1_500, 0, seed=1), "past")
    assert place.train(START, "first").promotion.champion == 1
    return place


def test_a_regression_of_groups_without_times(towns):
    place = towns
    new = houses(600, 9_000, seed=2, towns=(150, 300))
    place.add(new, "new")
    units = [splitting.unit_of(town) for town in new["stage"]]
    sealed = np.array([splitting.role_of(unit, place.model.split) == "test" for unit in units])
    first = place.look(START + DAY)
    assert (first.rows, first.left_out, first.start) == ((~sealed).sum(), sealed.sum(), None)
    assert (first.metric, first.estimate_metric, triggers(first)) == ("rmse", "rmse", ["new_rows"])
    assert first.live.low < first.verified.high
    assert first.live.high > first.verified.low
    assert first.estimate.value == pytest.approx(first.live.value, rel=0.15)
    second = place.look(START + 2 * DAY)
    assert (second.rows, second.watch["windows"]) == (first.rows, 1), "read once"
    place.add(houses(3_000, 20_000, seed=3, noise=90.0, towns=(150, 300)), "worse")
    third = place.look(START + 3 * DAY)
    assert third.watch["windows"] == 2
    assert triggers(third)[0] == "accuracy"
    assert third.triggers[0]["loss"] == pytest.approx(1 - third.verified.value / third.live.value)
    assert third.alarm_since is not None
    assert third.question.asked_at == START + 3 * DAY
    assert third.question.gain.value < 0.05, "noise cannot be learned, and nobody pretends that it can"


def test_a_control_share_speaks_for_those_that_were_acted_upon(place):
    """High is stopped, and what is stopped does not fail; the control share shows what would have been."""
    place.change(serve={"actions": [{"when": "prediction == 'High'", "do": "stop"}], "control": 0.2})
    frame = rows(3_000, 9_000, START, 6, seed=2)
    model = Model(place.model, workspace=place.workspace)
    high = model.predict(frame[["files", "stage"]])["prediction"].to_numpy() == "High"
    control = np.random.default_rng(1).random(len(frame)) < 0.2
    prevented = frame.assign(outcome=np.where(high & ~control, "Low", frame["outcome"]))
    for mask, done in ((~high, "proceed"), (high & ~control, "stop"), (high & control, "proceed")):
        place.serve(prevented[mask], action=done, control=bool(control[mask].all()))
    place.outcomes(prevented, START + 7 * DAY)
    found = place.look(START + 8 * DAY)
    assert (found.metric, triggers(found)) == ("accuracy", [])
    assert found.live.low < 1 - NOISE < found.live.high


PRICES = HOUSES.replace("key: id}", "key: id, time: at}").replace("{by: group, group: stage}", "{by: key}")


def prices(frame, slope=1.0):
    """The same rows, whose outcome is a price that rises with `files`."""
    drawn = np.random.default_rng(len(frame))
    return frame.assign(outcome=100 + slope * frame["files"] + drawn.normal(0, 20, len(frame)))


@pytest.fixture
def market(tmp_path):
    place = Place(tmp_path / "home")
    place.model = ModelFile.parse(PRICES.replace("HOME", str(place.home)))
    place.add(prices(rows(PAST, 0, START - 60 * DAY, 60, seed=1)), "past")
    assert place.train(START, "first").promotion.champion == 1
    return place


def test_the_previous_version_of_a_regression_comes_back_if_it_was_better(market):
    market.add(prices(rows(4_000, 9_000, START, 30, seed=2), slope=1.5), "a change")
    assert market.train(START + 30 * DAY, "second").promotion.champion == 2
    market.add(prices(rows(600, 30_000, START + 31 * DAY, 1, seed=4)), "that was gone")
    found = market.look(START + 33 * DAY)
    assert (found.version, found.shadow.version, found.shadow.rolled_back) == (2, 1, True)
    assert found.shadow.difference.high < -0.5, "the share of the old one's error that the new one adds"
    assert market.workspace.registry.aliases("risk") == {"champion": 1, "previous": 2}


def test_a_control_share_speaks_for_a_regression_too(market):
    """What is expensive is stopped and costs nothing then; the control share shows what it would have cost."""
    market.change(serve={"actions": [{"when": "prediction > 600", "do": "stop"}], "control": 0.2})
    frame = prices(rows(3_000, 9_000, START, 6, seed=2))
    answered = Model(market.model, workspace=market.workspace).predict(frame[["files", "stage"]])["prediction"]
    dear = answered > 600
    control = np.random.default_rng(1).random(len(frame)) < 0.2
    stopped = dear.to_numpy() & ~control
    prevented = frame.assign(outcome=np.where(stopped, 0.0, frame["outcome"]))
    for mask, done in ((~dear, "proceed"), (stopped, "stop"), (dear & control, "proceed")):
        market.serve(prevented[mask], action=done, control=bool(control[mask].all()))
    market.outcomes(prevented, START + 7 * DAY)
    found = market.look(START + 8 * DAY)
    assert (found.metric, triggers(found)) == ("mae", [])
    assert found.live.low < (answered - frame["outcome"]).abs().mean() < found.live.high
    assert (answered - prevented["outcome"]).abs().mean() > 10 * found.live.high, "what a mean over all rows would say"
