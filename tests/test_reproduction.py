"""One small training, promoted once; then rebuilt with everything as it was, and with one thing changed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steward import steps
from steward.config import ModelFile
from steward.core import compilation, estimators
from steward.errors import NotReproducible, VersionUnknown
from steward.io.workspace import Workspace
from steward.records import Card, Challenger, Promotion, Reference, Snapshot, Verdict
from steward.reproduction import Reproduction, reproduce

AT = datetime(2026, 3, 1, tzinfo=UTC)
MODEL = """
name: risk
task: classification
source: {{table: {table}, key: id}}
label: {{column: level, classes: [Low, High]}}
columns:
  files: {{type: integer, min: 0}}
  team: {{type: category, open: true}}
candidates: [{candidate}]
search: {{trials: 1, cross_validate_below: 0}}
verify: {{detect: 0.3, slices: [team]}}
"""


def table(path: Path, rows: int = 900) -> Path:
    random = np.random.default_rng(0)
    files, team = random.integers(0, 50, rows), random.choice(["ops", "web", "data"], rows)
    level = np.where(files + 20 * (team == "ops") + random.normal(0, 2, rows) > 30, "High", "Low")
    frame = pd.DataFrame({"id": [f"r{n}" for n in range(rows)], "files": files, "team": team, "level": level})
    frame.to_parquet(path, index=False)
    return path


def model(folder: Path, candidate: str = "decision_tree") -> ModelFile:
    return ModelFile.parse(MODEL.format(table=table(folder / "rows.parquet"), candidate=candidate))


def refitted(workspace: Workspace, model: ModelFile) -> Reference:
    roles = steps.split(workspace, model, steps.accept(workspace, model, at=AT))
    candidates = [steps.train_candidate(workspace, model, roles, name) for name in model.candidate_names]
    return steps.refit(workspace, model, steps.select(workspace, model, roles, candidates))


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, new_workspace: Callable[[Path], Workspace]
) -> tuple[Workspace, ModelFile, Reference]:
    folder = tmp_path_factory.mktemp("trained")
    workspace, described = new_workspace(folder / "home"), model(folder)
    verdict = steps.verify(workspace, described, refitted(workspace, described), at=AT)
    return workspace, described, steps.promote(workspace, described, verdict, at=AT)


@pytest.fixture(scope="module")
def promotion(trained: tuple[Workspace, ModelFile, Reference]) -> Promotion:
    return trained[0].load(Promotion, trained[2])


@pytest.fixture
def challenger(trained: tuple[Workspace, ModelFile, Reference], promotion: Promotion) -> Challenger:
    workspace = trained[0]
    return workspace.load(Challenger, workspace.load(Verdict, promotion.verdict).challenger)


def test_first_version_is_champion(trained: tuple[Workspace, ModelFile, Reference], promotion: Promotion) -> None:
    assert (promotion.version, promotion.alias, promotion.champion, promotion.previous) == (1, "champion", 1, None)
    assert trained[0].registry.aliases("risk") == {"champion": 1}


def test_same_inputs_give_the_same_bytes(trained: tuple[Workspace, ModelFile, Reference]) -> None:
    again = reproduce(trained[0], "risk", 1)
    assert again.identical, again.summary
    assert again.differences == ()
    assert again.summary.startswith("version 1 of risk was rebuilt byte for byte")
    assert json.loads(json.dumps(again.as_json()))["identical"] is True


def test_another_workspace_gives_the_same_bytes(
    tmp_path: Path, challenger: Challenger, new_workspace: Callable[[Path], Workspace]
) -> None:
    """Nothing but the declared inputs decides the artifact; the table's path is not one of them for the rows."""
    folder = Path(challenger.model_file["source"]["table"]).parent
    other = new_workspace(tmp_path / "home")
    made = other.load(Challenger, refitted(other, model(folder)))
    assert made.digest == challenger.digest
    assert made.onnx is not None
    assert challenger.onnx is not None
    assert made.onnx.sha256 == challenger.onnx.sha256
    assert made.trained_units.sha256 == challenger.trained_units.sha256


def test_changed_row_is_a_changed_snapshot(
    trained: tuple[Workspace, ModelFile, Reference], challenger: Challenger
) -> None:
    workspace = trained[0]
    data = workspace.load(Snapshot, challenger.snapshot).data
    path, whole = Path(data.uri), Path(data.uri).read_bytes()
    rows = pq.read_table(path)
    column = rows["files"].to_pylist()
    column[0] += 1
    pq.write_table(
        rows.set_column(rows.schema.get_field_index("files"), "files", pa.array(column, rows["files"].type)), path
    )
    try:
        changed = reproduce(workspace, "risk", 1)
    finally:
        path.write_bytes(whole)
    assert not changed.identical
    assert changed.rebuilt is None
    assert changed.summary.startswith("version 1 of risk cannot be rebuilt: the snapshot differs: ")


def test_forged_record_of_a_changed_row(
    trained: tuple[Workspace, ModelFile, Reference], challenger: Challenger, tmp_path: Path
) -> None:
    """File and record fit each other again; the fingerprint that the challenger remembers does not."""
    workspace = trained[0]
    snapshot = workspace.load(Snapshot, challenger.snapshot)
    rows = pq.read_table(workspace.store.fetch(snapshot.data))
    pq.write_table(rows.slice(1), tmp_path / "fewer.parquet")
    forged = snapshot.model_copy(update={"data": workspace.store.put(tmp_path / "fewer.parquet", "fewer.parquet")})
    workspace.store.write_record("snapshot", challenger.snapshot.digest, forged.as_json())
    try:
        changed = reproduce(workspace, "risk", 1)
    finally:
        workspace.store.write_record("snapshot", challenger.snapshot.digest, snapshot.as_json())
    assert "the snapshot differs: its fingerprint is" in changed.summary


def test_lost_roles(trained: tuple[Workspace, ModelFile, Reference], challenger: Challenger) -> None:
    file = Path(challenger.trained_units.uri)
    aside = file.rename(file.with_suffix(".aside"))
    try:
        assert "the roles differ: a stored file is gone" in reproduce(trained[0], "risk", 1).summary
    finally:
        aside.rename(file)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("packages", {"scikit-learn": "1.2.3"}, "package scikit-learn differs: 1.9.1, recorded is 1.2.3"),
        ("commit", "c0ffee", "recorded is c0ffee"),
        ("code", "f" * 64, "Steward's code differs"),
        ("machine", {"cores": "512"}, "machine cores differs"),
    ],
)
def test_names_what_else_differs(
    trained: tuple[Workspace, ModelFile, Reference], challenger: Challenger, field: str, value: object, said: str
) -> None:
    """The artifact is the same: the difference is reported, and did not matter."""
    again = with_record(trained[0], challenger, **{field: value})
    assert any(said in difference for difference in again.surroundings)
    assert again.identical


@pytest.mark.parametrize(("field", "value"), [("seed", 1), ("params", {"max_depth": 1})])
def test_other_training_comes_out_differently(
    trained: tuple[Workspace, ModelFile, Reference], challenger: Challenger, field: str, value: object
) -> None:
    again = with_record(trained[0], challenger, **{field: value}, commit="c0ffee")
    assert not again.identical
    assert "came out differently: the commit differs" in again.summary


def test_version_that_is_not_there(trained: tuple[Workspace, ModelFile, Reference]) -> None:
    with pytest.raises(VersionUnknown, match="got 7; allowed: 1"):
        reproduce(trained[0], "risk", 7)


def test_record_that_is_gone(trained: tuple[Workspace, ModelFile, Reference], promotion: Promotion) -> None:
    workspace = trained[0]
    record = Path(workspace.load(Verdict, promotion.verdict).challenger.uri)
    aside = record.rename(record.with_suffix(".aside"))
    try:
        with pytest.raises(NotReproducible, match="record of version 1 of risk is gone"):
            reproduce(workspace, "risk", 1)
    finally:
        aside.rename(record)


def test_card_of_a_real_run(trained: tuple[Workspace, ModelFile, Reference]) -> None:
    workspace, described, promotion = trained
    card = workspace.load(Card, steps.report(workspace, described, promotion))
    page = Path(card.path).read_text(encoding="utf-8")
    assert "steward reproduce risk 1" in page
    assert card.run_id is not None
    assert Path(card.path).name in [file.path for file in workspace.registry.client.list_artifacts(card.run_id)]


def test_wrong_onnx_is_found_and_not_served(
    tmp_path: Path, new_workspace: Callable[[Path], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """sklearn-onnx takes gradient boosting with native categories without complaint, and its answers are wrong."""
    monkeypatch.setattr(compilation, "compile_estimator", lambda _: (_ for _ in ()).throw(TypeError("not mine")))
    monkeypatch.setattr(compilation, "is_boosted", lambda _: False)
    monkeypatch.setattr(estimators, "BOOSTINGS", 1)
    workspace = new_workspace(tmp_path / "home")
    made = workspace.load(Challenger, refitted(workspace, model(tmp_path, "gradient_boosting")))
    assert [(one.name, one.parity.passed) for one in made.engines] == [("onnx", False), ("estimator", True)]
    assert (made.engine, made.onnx, made.parity) == ("estimator", None, made.engines[-1].parity)
    assert "rows get another class" in made.engines[0].parity.reason


def test_tree_is_served_from_onnx(challenger: Challenger) -> None:
    assert challenger.engine == "onnx"
    assert challenger.parity.passed
    assert challenger.parity.rows > 135  # edge rows too


def with_record(workspace: Workspace, challenger: Challenger, **changed: object) -> Reproduction:
    """Reproduce as if something else had been recorded."""
    reference = workspace.registry.version("risk", 1).challenger
    workspace.store.write_record("challenger", reference.digest, challenger.model_copy(update=changed).as_json())
    try:
        return reproduce(workspace, "risk", 1)
    finally:
        workspace.store.write_record("challenger", reference.digest, challenger.as_json())
