import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steward.errors import ArtifactDamaged
from steward.io.workspace import Workspace
from steward.records import Card, File, Promotion, Reference

KILLED = """
import os, signal, sys
from steward.config import Settings
from steward.io.workspace import Workspace
from steward.records import Card
workspace = Workspace(Settings.from_environment({"STEWARD_HOME": sys.argv[1]}))

def make():
    with workspace.store.scratch() as folder:
        (folder / "half").write_text("written")
        os.kill(os.getpid(), signal.SIGKILL)

workspace.remember(Card, ["input"], make)
"""


def card(path: str = "card.html") -> Card:
    of = Reference(kind="verdict", uri="u", digest="d")
    return Card(model="m", of=of, file=File(uri="f", sha256="s", bytes=1), path=path)


def test_a_record_is_made_once(workspace: Workspace) -> None:
    made = []

    def make() -> Card:
        made.append(1)
        return card()

    first = workspace.remember(Card, ["input"], make)
    assert workspace.remember(Card, ["input"], make) == first
    assert (len(made), workspace.load(Card, first)) == (1, card())


@pytest.mark.parametrize("inputs", [["other"], ["input", None], [["input"]]])
def test_other_inputs_make_another_record(workspace: Workspace, inputs: list[object]) -> None:
    assert workspace.remember(Card, ["input"], card) != workspace.remember(Card, inputs, card)


def test_other_code_makes_another_record(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = workspace.remember(Card, ["input"], card)
    monkeypatch.setitem(workspace.__dict__, "code", "another version")
    assert workspace.remember(Card, ["input"], card) != first


def test_a_killed_step_leaves_no_record_and_is_made_by_the_next(workspace: Workspace) -> None:
    home = workspace.settings.home
    killed = subprocess.run([sys.executable, "-c", KILLED, str(home)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not list(Path(workspace.store.root).rglob("*.json"))
    assert workspace.load(Card, workspace.remember(Card, ["input"], card)) == card()


def test_a_failed_step_leaves_no_record(workspace: Workspace) -> None:
    def fail() -> Card:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        workspace.remember(Card, ["input"], fail)
    assert workspace.load(Card, workspace.remember(Card, ["input"], card)) == card()


def test_a_reference_to_nothing_or_to_another_kind_is_refused(workspace: Workspace) -> None:
    reference = workspace.remember(Card, ["input"], card)
    for broken in (reference.model_copy(update={"digest": "0" * 64}), reference.model_copy(update={"kind": "verdict"})):
        with pytest.raises(ArtifactDamaged, match="no card behind this reference"):
            workspace.load(Card, broken)
    with pytest.raises(ArtifactDamaged, match="no promotion behind this reference"):
        workspace.load(Promotion, reference)


def test_nothing_is_opened_before_it_is_used(workspace: Workspace) -> None:
    assert not workspace.settings.home.exists()


def test_outside_a_repository_there_is_no_commit(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", os.sep)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert workspace.commit is None
