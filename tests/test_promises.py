"""Promises 1, 2 and 3 of the design, each by tests that try to break it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steward import pipeline, steps
from steward.config import ModelFile, Verify
from steward.core import metrics, verification
from steward.errors import NotEnoughSealedRows, OpeningRefused
from steward.examples import deployments
from steward.io.workspace import Workspace
from steward.records import Challenger, Reference, Roles, Selection, Skill, Verdict
from steward.steps import opening
from tests.conftest import plain_workspace_in

AT = datetime(2026, 2, 1, tzinfo=UTC)
SECONDS = 120
"""The longest that a test waits for another process."""


@dataclass(frozen=True)
class Trained:
    """A home in which two challengers of the same roles wait for their verification."""

    home: Path
    model: ModelFile
    roles: Reference
    good: Reference
    other: Reference

    @property
    def workspace(self) -> Workspace:
        return plain_workspace_in(self.home)


def model_file(data: Path) -> ModelFile:
    return ModelFile.model_validate(
        {
            "name": "deployment_risk",
            "task": "classification",
            "source": {"table": str(data / "*.parquet"), "key": "deployment_id"},
            "label": {"column": "risk_level", "classes": ["Low", "Medium", "High"]},
            "columns": {
                "files_changed": {"type": "integer"},
                "environment": {"type": "category", "open": True},
                "hour": {"type": "integer"},
                "previous_failures": {"type": "integer", "nullable": True},
            },
            "candidates": ["decision_tree", "logistic_regression"],
            "search": {"trials": 1, "cross_validate_below": 0},
            "verify": {"detect": 0.08, "slices": ["environment"]},
        }
    )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Accepted, split and trained once; never verified here."""
    folder = tmp_path_factory.mktemp("promises")
    deployments.write(folder / "data", deployments.simulate(4_000))
    model, workspace = model_file(folder / "data"), plain_workspace_in(folder / "home")
    roles = steps.split(workspace, model, steps.accept(workspace, model, at=AT))
    made = {}
    for name in model.candidate_names:
        candidate = steps.train_candidate(workspace, model, roles, name)
        made[name] = steps.refit(workspace, model, steps.select(workspace, model, roles, [candidate]))
    return Trained(folder / "home", model, roles, made["decision_tree"], made["logistic_regression"])


@pytest.fixture
def trained(prepared: Trained, tmp_path: Path) -> Trained:
    """A copy of the prepared home: its ledger holds no opening yet."""
    shutil.copytree(prepared.home, tmp_path / "home")
    shutil.copytree(Path(prepared.model.source.table).parent, tmp_path / "data")
    changed = prepared.model.model_dump(mode="json", by_alias=True)
    changed["source"]["table"] = str(tmp_path / "data" / "*.parquet")
    return replace(prepared, home=tmp_path / "home", model=ModelFile.model_validate(changed))


@pytest.fixture(scope="session")
def undisturbed(prepared: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A copy in which nothing is killed: what others are held against."""
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    shutil.copytree(prepared.home, home)
    return replace(prepared, home=home)


VERIFY = """
import json, sys, time
from datetime import datetime
from pathlib import Path
from steward import steps
from steward.config import ModelFile, Settings
from steward.errors import OpeningRefused
from steward.io.versions import LedgerRegistry
from steward.io.workspace import Workspace
from steward.records import Reference
from steward.replay.stage import ArtifactsHere
from steward.steps import opening

def hang(*_, **__):
    time.sleep(600)

home, start, at = Path(sys.argv[1]), Path(sys.argv[4]), datetime.fromisoformat(sys.argv[5])
workspace = Workspace(Settings.from_environment({"STEWARD_HOME": str(home)}))
workspace.registry = LedgerRegistry(workspace.ledger)
workspace.artifacts = ArtifactsHere(workspace.store, ())
model, reference = ModelFile.model_validate_json(sys.argv[2]), Reference.model_validate_json(sys.argv[3])
if sys.argv[6] == "hang before scoring":
    opening._score_sealed = hang
if sys.argv[6] == "hang after scoring":
    type(workspace.artifacts).answers_in_clean_process = hang
workspace.registry.champion(model.name)
print("ready", flush=True)
while not start.exists():
    time.sleep(0.001)
try:
    print("verified", steps.verify(workspace, model, reference, at=at).digest)
except OpeningRefused as refusal:
    print("refused", refusal)
"""


def verify_elsewhere(trained: Trained, challenger: Reference, start: Path, fault: str = "") -> subprocess.Popen[str]:
    """A real process that verifies as soon as `start` exists."""
    arguments = [
        str(trained.home),
        trained.model.model_dump_json(by_alias=True),
        challenger.model_dump_json(),
        str(start),
        AT.isoformat(),
        fault,
    ]
    return subprocess.Popen(
        [sys.executable, "-c", VERIFY, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]


def answer_of(process: subprocess.Popen[str]) -> str:
    answer, problem = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, problem
    return answer.strip()


def wait_for_entry(trained: Trained, kind: str) -> None:
    ledger, deadline = trained.workspace.ledger, time.monotonic() + SECONDS
    while not ledger.entries(trained.model.name, kind):
        assert time.monotonic() < deadline, f"no {kind} after {SECONDS} s"
        time.sleep(0.01)


def entries(trained: Trained, kind: str) -> int:
    return len(trained.workspace.ledger.entries(trained.model.name, kind))


def figures(trained: Trained, verdict: Reference) -> dict[str, object]:
    """Everything that a verdict says, without where its files are."""
    told = trained.workspace.load(Verdict, verdict).as_json()
    told["test"]["predictions"].pop("uri")
    return told


@pytest.mark.slow
def test_promise_1_of_racing_verifications_one_challenger_opens_and_the_other_is_refused(
    trained: Trained, tmp_path: Path
) -> None:
    """Three processes, two of them for the same challenger, as after a lost heartbeat."""
    start = tmp_path / "start"
    racers = [verify_elsewhere(trained, one, start) for one in (trained.good, trained.other, trained.good)]
    for racer in racers:
        wait_until_ready(racer)
    start.touch()
    first, other, again = (answer_of(racer) for racer in racers)
    assert first == again
    refused, verified = sorted([first, other])
    assert verified.startswith("verified ")
    assert refused.startswith("refused opening 1 of deployment_risk cannot be made")
    assert "Run the training again" in refused
    assert entries(trained, "opening") == entries(trained, "opening_result") == entries(trained, "verdict") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "last"), [("hang before scoring", "opening"), ("hang after scoring", "opening_result")]
)
def test_promise_1_a_killed_verification_repeats_to_the_same_result(
    trained: Trained, undisturbed: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, last: str
) -> None:
    start = tmp_path / "start"
    start.touch()
    victim = verify_elsewhere(trained, trained.good, start, fault)
    wait_until_ready(victim)
    wait_for_entry(trained, last)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=SECONDS)
    assert entries(trained, "verdict") == 0

    with pytest.raises(OpeningRefused, match="opened by another challenger"):
        steps.verify(trained.workspace, trained.model, trained.other, at=AT)
    if last == "opening_result":
        monkeypatch.setattr(opening, "_score_sealed", lambda *_: pytest.fail("the rows were scored a second time"))
    repeated = steps.verify(trained.workspace, trained.model, trained.good, at=AT)
    monkeypatch.undo()

    expected = steps.verify(undisturbed.workspace, trained.model, trained.good, at=AT)
    assert repeated == expected.model_copy(update={"uri": repeated.uri})
    assert figures(trained, repeated) == figures(undisturbed, expected)
    assert entries(trained, "opening") == entries(trained, "opening_result") == 1


def test_promise_1_no_label_is_read_before_the_claim(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    read = steps.rows_of

    def watched(workspace: Workspace, model: ModelFile, roles: Roles, *wanted: str) -> object:
        assert "test" not in wanted or entries(trained, "opening") == 1
        return read(workspace, model, roles, *wanted)

    monkeypatch.setattr(opening, "rows_of", watched)
    steps.verify(trained.workspace, trained.model, trained.good, at=AT)


def test_promise_1_training_again_on_unchanged_data_is_refused_before_it_trains(trained: Trained) -> None:
    workspace, seen = trained.workspace, []
    steps.verify(workspace, trained.model, trained.good, at=AT)
    with pytest.raises(NotEnoughSealedRows, match=r"0 sealed test rows are too few.* more labelled rows") as refusal:
        pipeline.train(
            workspace,
            trained.model,
            at=AT,
            reason="again",
            by="me",
            run_id="2",
            on_event=lambda e: seen.append(e.stage),
        )
    assert refusal.value.facts["missing"] > 0
    assert "train_candidate" not in seen


def test_promise_1_no_row_is_sealed_twice_and_opened_rows_are_trained_on(trained: Trained) -> None:
    workspace = trained.workspace
    steps.verify(workspace, trained.model, trained.good, at=AT)
    before = given_roles(workspace, trained.roles)
    after = given_roles(workspace, second_roles(trained))
    opened = before.index[before == "test"]
    assert set(after[opened]) == {"train"}
    assert (after[before.index[before != "test"]] == before[before != "test"]).all(), "no row changes sides"
    assert (after == "test").sum() > 0


def given_roles(workspace: Workspace, roles: Reference) -> "pd.Series[str]":
    frame = pd.read_parquet(workspace.store.fetch(workspace.load(Roles, roles).file))
    return frame.set_index("unit")["role"]


def second_roles(trained: Trained) -> Reference:
    """Roles after 4,000 more deployments."""
    data = Path(trained.model.source.table).parent
    deployments.write(data, deployments.simulate(4_000, first=4_000))
    workspace = trained.workspace
    return steps.split(workspace, trained.model, steps.accept(workspace, trained.model, at=AT))


def challenger_of(trained: Trained, roles: Reference, name: str = "decision_tree") -> Reference:
    workspace = trained.workspace
    candidate = steps.train_candidate(workspace, trained.model, roles, name)
    return steps.refit(workspace, trained.model, steps.select(workspace, trained.model, roles, [candidate]))


def test_promise_2_champion_and_challenger_meet_on_rows_that_neither_was_trained_on(trained: Trained) -> None:
    workspace = trained.workspace
    first = steps.verify(workspace, trained.model, trained.good, at=AT)
    assert workspace.load(Verdict, first).verdict == "promote"
    steps.promote(workspace, trained.model, first, at=AT)

    second = challenger_of(trained, second_roles(trained))
    verdict = workspace.load(Verdict, steps.verify(workspace, trained.model, second, at=AT))
    assert verdict.test.champion is not None
    assert verdict.test.champion["version"] == 1
    assert verdict.test.overlap == {"champion": 0, "challenger": 0}
    assert verdict.opening == 2
    answers = pd.read_parquet(workspace.store.fetch(verdict.test.predictions))
    assert answers["unit"].is_unique
    assert answers.filter(regex="^(champion|challenger):").notna().all(axis=None), "both answered every row"


def test_promise_2_a_champion_that_saw_the_test_rows_looks_better_and_is_found_out(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cheat is trained on the sealed rows too and memorises them."""
    honest = trained.workspace.load(Challenger, trained.good)
    workspace, read = trained.workspace, steps.learning_rows

    def all_rows(workspace: Workspace, model: ModelFile, roles: Reference, wanted: object) -> object:
        return read(workspace, model, roles, ("train", "validation", "test"))

    selection = workspace.load(Selection, honest.selection)
    memorising = {**selection.params, "max_depth": None, "min_samples_leaf": 1, "ccp_alpha": 0.0}
    cheating = selection.model_copy(update={"params": {k: v for k, v in memorising.items() if k in selection.params}})
    reference = workspace.remember(Selection, ["cheat"], lambda: cheating)
    monkeypatch.setattr("steward.steps.challenger.learning_rows", all_rows)
    cheat = steps.refit(workspace, trained.model, reference)
    monkeypatch.undo()

    ours = workspace.load(Verdict, steps.verify(workspace, trained.model, trained.good, at=AT))
    frame, truth, _ = steps.rows_of(workspace, trained.model, workspace.load(Roles, trained.roles), "test")
    contestant = opening._contestant(workspace, workspace.load(Challenger, cheat))
    flattered = metrics.score(
        "accuracy", truth, contestant.answers(frame, trained.model.classes), trained.model.classes
    )
    assert flattered > ours.test.value
    assert ours.test.overlap == {"champion": 0, "challenger": 0}

    overlap = opening._overlap(given_roles(workspace, trained.roles).loc[lambda role: role == "test"].index, contestant)
    gate = verification.no_overlap({"challenger": 0, "champion": overlap})
    assert overlap == ours.test.rows
    assert verification.decide([gate])[0] == "reject"


CLASSES = ("no", "yes")
ROWS = 1_500
COMPARISONS = 1_000


def verdict_on(
    generator: np.random.Generator, only_challenger: float, only_champion: float, gain_of_looks: float = 0.0
) -> str:
    """The verdict where the challenger alone is right on a share of rows, and the champion alone on another; and where newer
    rows teach models that are better by so much.
    """
    truth = generator.choice(np.array(CLASSES, dtype=object), ROWS)
    kind = generator.choice(4, ROWS, p=[only_challenger, only_champion, 0.08, 0.92 - only_challenger - only_champion])
    challenger, champion = (answers(truth, np.isin(kind, right)) for right in ((0, 3), (1, 3)))
    difference = metrics.paired("accuracy", truth, challenger, champion, CLASSES, confidence=0.95, seed=0)
    skill = verification.skill("brier", truth, challenger, champion, CLASSES, seed=0)
    looks = Skill(value=generator.normal(gain_of_looks, 0.004), error=0.004, rows=8_000)
    return verification.decide([verification.champion("accuracy", difference, Verify(), 1, skill, looks)])[0]


def answers(truth: np.ndarray, right: np.ndarray) -> np.ndarray:
    says_yes = (truth == "yes") == right
    return np.where(says_yes[:, None], [0.2, 0.8], [0.8, 0.2])


@pytest.mark.parametrize("discordance", [0.01, 0.06, 0.10])
def test_promise_3_of_1000_equally_good_challengers_at_most_25_are_promoted(discordance: float) -> None:
    generator = np.random.default_rng(20_260_101)
    verdicts = [verdict_on(generator, discordance / 2, discordance / 2) for _ in range(COMPARISONS)]
    assert verdicts.count("promote") <= 25
    assert verdicts.count("hold") >= 940, "95 % are expected, and rejections are as many as promotions"


@pytest.mark.parametrize("discordance", [0.06, 0.10])
def test_promise_3_a_challenger_that_is_3_points_better_is_promoted_in_most_runs(discordance: float) -> None:
    generator = np.random.default_rng(20_260_101)
    shares = (discordance + 0.03) / 2, (discordance - 0.03) / 2
    verdicts = [verdict_on(generator, *shares) for _ in range(200)]
    assert verdicts.count("promote") >= 180
    assert "reject" not in verdicts


@pytest.mark.parametrize("gain_of_looks", [0.0, 0.1])
def test_promise_3_a_tie_does_not_promote(gain_of_looks: float) -> None:
    assert verdict_on(np.random.default_rng(0), 0.0, 0.0, gain_of_looks) == "hold"


def test_promise_3_no_look_promotes_what_is_worse_on_the_sealed_rows() -> None:
    generator = np.random.default_rng(20_260_101)
    verdicts = [verdict_on(generator, 0.03, 0.06, gain_of_looks=0.1) for _ in range(200)]
    assert verdicts.count("promote") == 0


def test_promise_3_a_first_version_that_learned_nothing_is_not_promoted() -> None:
    generator = np.random.default_rng(0)
    promoted = 0
    for _ in range(200):
        truth = generator.choice(np.array(CLASSES, dtype=object), ROWS, p=[0.6, 0.4])
        constant = np.tile([0.6, 0.4], (ROWS, 1))
        guessed = answers(truth, (truth == "no") ^ (generator.random(ROWS) < 0.02))
        difference = metrics.paired("accuracy", truth, guessed, constant, CLASSES, confidence=0.95, seed=0)
        gate = verification.better_than_constant("accuracy", 0.6, 0.6, difference)
        promoted += verification.decide([gate])[0] == "promote"
    assert promoted <= 5
