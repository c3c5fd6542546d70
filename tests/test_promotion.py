"""The step `promote` against a real registry, ledger and store; only the training before it is made up."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sklearn.tree import DecisionTreeClassifier

from steward import steps
from steward.config import ModelFile
from steward.io.registry import Registry
from steward.io.workspace import Workspace
from steward.records import (
    Approval,
    Challenger,
    Estimate,
    Parity,
    Promotion,
    Record,
    Reference,
    Test,
    Verdict,
    digest_of,
)

AT = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 3, 2, tzinfo=UTC)
VALUE = Estimate(value=0.9, low=0.88, high=0.92)
ANY = Reference(kind="any", uri="any", digest="0" * 64)
MODEL = """
name: {name}
task: classification
source: {{table: x.parquet, key: id}}
label: {{column: level, classes: [Low, High]}}
columns: {{files: {{type: integer}}}}
approve: {approve}
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, new_workspace: Callable[[Path], Workspace]) -> Workspace:
    """One for all: every test has a model of its own."""
    return new_workspace(tmp_path_factory.mktemp("promotion") / "home")


@pytest.fixture
def model(request: pytest.FixtureRequest) -> ModelFile:
    name = request.node.name.partition("[")[0] + "_" + digest_of(request.node.name)[:6]
    return ModelFile.parse(MODEL.format(name=name, approve="automatic"))


def stored(workspace: Workspace, record: Record) -> Reference:
    return workspace.remember(type(record), [record.as_json()], lambda: record)


def judged(
    workspace: Workspace, model: ModelFile, verdict: str, *, depth: int = 1, champion: int | None = None
) -> Reference:
    """A verdict on a challenger; another depth is another challenger."""
    fitted = DecisionTreeClassifier(max_depth=depth).fit([[0.0], [1.0], [2.0]], ["Low", "High", "Low"])
    with workspace.store.scratch() as folder:
        skops = steps.write_skops(workspace, fitted, folder)
    challenger = Challenger(
        model=model.name, digest=digest_of(model.name, depth), name="decision_tree", params={}, selection=ANY,
        roles=ANY, snapshot=ANY, fingerprint="f" * 64, trained_rows=3, trained_units=skops, skops=skops, onnx=None,
        engine="pipeline", seed=1, threads=1, fit_seconds=1, latency_us=1, classes=model.classes,
        parity=Parity(passed=True, rows=1, label_differences=0, largest_difference=0, reason=""),
        inputs={"files": "integer"}, example={"files": 1}, metric="accuracy", validation=VALUE, model_file={},
        commit=None, code="c", packages={"python": "3.11.7"}, machine={}, run_id=None,
    )  # fmt: skip
    test = Test(
        rows=500, metric="accuracy", value=0.9, low=0.88, high=0.92, constant=0.5, difference=VALUE, discordance=0.1,
        champion=champion and {"version": champion, **VALUE.as_json()}, overlap={"champion": 0, "challenger": 0},
    )  # fmt: skip
    reached = Verdict(
        model=model.name, challenger=stored(workspace, challenger), digest=challenger.digest, verdict=verdict,
        reasons=(f"{verdict}.",), gates=(), slices=(), test=test, opening=depth, at=AT,
    )  # fmt: skip
    return stored(workspace, reached)


def promoted(workspace: Workspace, model: ModelFile, verdict: Reference, **more: Any) -> Promotion:
    return workspace.load(Promotion, steps.promote(workspace, model, verdict, at=AT, **more))


def test_champions_in_a_row(workspace: Workspace, model: ModelFile) -> None:
    first = promoted(workspace, model, judged(workspace, model, "promote"))
    second = promoted(workspace, model, judged(workspace, model, "promote", depth=2, champion=1))
    assert (first.alias, first.champion, first.previous) == ("champion", 1, None)
    assert (second.alias, second.champion, second.previous) == ("champion", 2, 1)
    assert workspace.registry.aliases(model.name) == {"champion": 2, "previous": 1}


def test_held_version_is_challenger_until_a_champion_comes(workspace: Workspace, model: ModelFile) -> None:
    promoted(workspace, model, judged(workspace, model, "promote"))
    held = promoted(workspace, model, judged(workspace, model, "hold", depth=2, champion=1))
    assert (held.alias, held.champion) == ("challenger", 1)
    assert workspace.registry.aliases(model.name) == {"champion": 1, "challenger": 2}
    promoted(workspace, model, judged(workspace, model, "promote", depth=3, champion=1))
    assert workspace.registry.aliases(model.name) == {"champion": 3, "previous": 1}


def test_rejected_version_is_kept_without_alias(workspace: Workspace, model: ModelFile) -> None:
    rejected = promoted(workspace, model, judged(workspace, model, "reject"))
    assert (rejected.version, rejected.alias, rejected.champion) == (1, None, None)
    assert workspace.registry.aliases(model.name) == {}
    assert workspace.registry.version(model.name, 1).verdict == "reject"


def test_twice_is_once(workspace: Workspace, model: ModelFile) -> None:
    verdict = judged(workspace, model, "promote")
    references = {steps.promote(workspace, model, verdict, at=at).digest for at in (AT, LATER)}
    assert len(references) == 1
    assert len(workspace.registry.versions(model.name)) == 1
    assert len(workspace.ledger.entries(model.name, "promotion")) == 1


@pytest.mark.parametrize(
    "last_words",
    ["create_model_version", "log_model_artifacts", "finalize_logged_model", "set_registered_model_alias"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_and_repeated(
    workspace: Workspace, model: ModelFile, monkeypatch: pytest.MonkeyPatch, last_words: str, when: str
) -> None:
    """Killed around each of its writes to MLflow: the repetition ends in the one version, and a full set of aliases."""
    promoted(workspace, model, judged(workspace, model, "promote"))
    verdict = judged(workspace, model, "promote", depth=2, champion=1)
    do = getattr(type(workspace.registry.client), last_words)

    def dies(*arguments: Any, **named: Any) -> None:
        if when == "after":
            do(*arguments, **named)
        raise KeyboardInterrupt(last_words)

    monkeypatch.setattr(type(workspace.registry.client), last_words, dies)
    with pytest.raises(KeyboardInterrupt, match=last_words):
        steps.promote(workspace, model, verdict, at=AT)
    monkeypatch.undo()
    assert promoted(workspace, model, verdict).champion == 2
    assert workspace.registry.aliases(model.name) == {"champion": 2, "previous": 1}
    assert [version.number for version in workspace.registry.versions(model.name)] == [2, 1]
    assert len(workspace.ledger.entries(model.name, "promotion")) == 2


def test_repetition_does_not_undo_what_a_person_did_since(
    workspace: Workspace, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(workspace, model, judged(workspace, model, "promote"))
    verdict = judged(workspace, model, "promote", depth=2, champion=1)
    monkeypatch.setattr(Registry, "move", killed)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        steps.promote(workspace, model, verdict, at=AT)
    monkeypatch.undo()
    workspace.ledger.append(model.name, "promotion", "rollback", {"champion": 1}, LATER)
    assert promoted(workspace, model, verdict).version == 2
    assert workspace.registry.aliases(model.name) == {"champion": 1}


def test_champion_that_changed_meanwhile_is_not_replaced(workspace: Workspace, model: ModelFile) -> None:
    promoted(workspace, model, judged(workspace, model, "promote"))
    late = promoted(workspace, model, judged(workspace, model, "promote", depth=2))
    assert (late.alias, late.champion) == ("challenger", 1)
    assert late.reasons[-1] == "It was compared with no champion, but version 1 serves now."


@pytest.mark.parametrize(
    ("decision", "alias", "reason"),
    [
        ("approved", "champion", "promote."),
        ("refused", "challenger", "Not approved: refused, Ann: too early"),
        ("timed_out", "challenger", "Not approved: timed out, Ann: too early"),
        (None, "challenger", "No person has approved it yet."),
    ],
)
def test_a_person_decides(
    workspace: Workspace, model: ModelFile, decision: str | None, alias: str, reason: str
) -> None:
    asking = model.model_copy(update={"approve": "person"})
    verdict = judged(workspace, asking, "promote")
    approval = decision and stored(
        workspace,
        Approval(model=model.name, verdict=verdict, decision=decision, by="Ann", why="too early", at=AT),
    )
    done = promoted(workspace, asking, verdict, approval=approval)
    assert (done.alias, done.reasons[-1]) == (alias, reason)


def test_approval_that_comes_later_promotes(workspace: Workspace, model: ModelFile) -> None:
    asking = model.model_copy(update={"approve": "person"})
    verdict = judged(workspace, asking, "promote")
    assert promoted(workspace, asking, verdict).champion is None
    said = Approval(model=model.name, verdict=verdict, decision="approved", by="Ann", why="fine", at=LATER)
    done = promoted(workspace, asking, verdict, approval=stored(workspace, said))
    assert (done.version, done.champion) == (1, 1)
    assert workspace.registry.aliases(model.name) == {"champion": 1}


def killed(*_: object) -> None:
    raise KeyboardInterrupt("killed")
