"""Everything that a person or a machine can get wrong, through the command line: each is one named error that says
what, the value, what is allowed and what to do, and leaves nothing half-written behind."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from steward import errors, pipeline
from steward.errors import LedgerUnavailable, RegistryUnavailable, StoreUnavailable
from steward.records import Challenger, File, Promotion
from steward.stages import STAGES

if TYPE_CHECKING:
    from conftest import Installation

AT = datetime(2026, 2, 1, tzinfo=UTC)
MESSAGE = 2_000
"""The longest message: a table with a thousand wrong values must not fill the screen."""


def refused(installation: "Installation", *command: str, **environment: str) -> dict[str, Any]:
    """The error's JSON; its name is one of `errors`, and its one line on stderr says the same."""
    result = installation.run(*command, "--json", **environment)
    assert result.exit_code == 1, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    assert issubclass(getattr(errors, answer["error"]), errors.StewardError)
    assert answer["what"]
    assert len(result.stdout) < 4 * MESSAGE
    return answer


def frame_of(installation: "Installation") -> pd.DataFrame:
    return pd.read_csv(installation.rows, dtype=str, keep_default_na=False)


def changed(installation: "Installation", change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(frame_of(installation)).to_csv(installation.rows, index=False)


def is_clean(installation: "Installation", allowed: tuple[str, ...] = ("trigger", "failure")) -> bool:
    """Pages for people are all that is in the store, who asked and that it failed all that is in the ledger."""
    workspace = installation.workspace
    left = [path for part in ("files", "records") for path in Path(workspace.store.root, part).rglob("*.*")]
    assert left == []
    assert {entry.kind for entry in workspace.ledger.entries()} <= set(allowed)
    assert workspace.ledger.verify().ok
    return is_whole(installation)


def is_whole(installation: "Installation") -> bool:
    """Whatever is there is whole: no parts, no scratch files, every record readable, the chain unbroken."""
    workspace = installation.workspace
    assert [path.name for path in Path(workspace.store.root).rglob("*.part")] == []
    assert list(installation.home.glob("work/*")) == []
    for path in Path(workspace.store.root).glob("records/*/*.json"):
        assert workspace.store.read_record(path.parent.name, path.stem) is not None
    assert workspace.ledger.verify().ok
    return True


def cell(column: str, value: str, rows: int = 600) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The same value in the first rows of a column."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[: rows - 1, column] = value
        return frame

    return change


def categories(frame: pd.DataFrame) -> pd.DataFrame:
    many = pd.concat([frame, frame], ignore_index=True)
    return many.assign(id=range(len(many)), stage=[f"stage {number % 1_000}" for number in range(len(many))])


@pytest.mark.parametrize(
    ("content", "error", "what"),
    [
        (None, "SourceMissing", "no file matches the source"),
        (b"", "SourceUnreadable", "a source file is empty"),
        (b"\x00\x01\x02\xff" * 500, "SourceUnreadable", "zero bytes is no CSV"),
        (b"PAR1, says this text", "SourceUnreadable", "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "SourceUnreadable", "no CSV"),
        (b'{"id": 1, "files": 2}\n', "ContractRefused", "breaks the contract of risk"),
        (b"id,files,stage,outcome\n", "ContractRefused", "breaks the contract of risk"),
    ],
    ids=["missing", "empty", "zero bytes", "not Parquet", "picture", "JSON", "only a header"],
)
def test_a_source_that_is_no_table(described: "Installation", content: bytes | None, error: str, what: str) -> None:
    described.rows.unlink() if content is None else described.rows.write_bytes(content)
    for command in ("check", "train"):
        answer = refused(described, command, "risk")
        assert answer["error"] == error, answer
        assert what in answer["what"]
        assert answer["do"]
        assert str(described.rows) in f"{answer['what']} {answer['got']}" or error == "ContractRefused"
        assert is_clean(described)


def test_a_file_with_an_unknown_ending(described: "Installation") -> None:
    described.change_model("rows.csv", "rows.xlsx")
    (described.folder / "rows.xlsx").write_bytes(b"PK\x03\x04")
    answer = refused(described, "train", "risk")
    assert answer["error"] == "SourceUnreadable"
    assert ".parquet" in answer["allowed"]
    assert answer["do"] == "Convert it to Parquet"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda frame: frame.drop(columns="id"), "id"),
        (cell("id", "", 100), "id"),
        (cell("id", "7", 100), "id"),
        (lambda frame: frame.drop(columns="outcome"), "outcome"),
        (lambda frame: frame.drop(columns="files"), "files"),
        (cell("outcome", "Low"), "outcome"),
        (cell("outcome", "Medium", 100), "outcome"),
        (cell("files", "-1"), "files"),
        (cell("files", "many", 100), "files"),
        (cell("files", "nan", 100), "files"),
        (cell("files", "inf", 100), "files"),
        (cell("files", "1e999", 100), "files"),
        (cell("files", "2.5", 100), "files"),
        (categories, "stage"),
    ],
    ids=[
        "no key", "null keys", "duplicate keys", "no label", "no column", "one class", "unknown class",
        "all rows rejected", "text in numbers", "NaN", "infinity", "overflow", "fractions", "1000 categories",
    ],
)  # fmt: skip
def test_a_table_that_breaks_the_contract(
    described: "Installation", change: Callable[[pd.DataFrame], pd.DataFrame], named: str
) -> None:
    changed(described, change)
    for command in ("check", "train"):
        answer = refused(described, command, "risk")
        assert answer["error"] == "ContractRefused", answer
        assert named in answer["got"]
        assert answer["do"]
        assert Path(answer["data_docs"]).exists()
        assert is_clean(described)


def test_a_few_bad_rows_are_set_aside_with_their_values(described: "Installation") -> None:
    changed(described, lambda frame: cell("files", "inf", 3)(cell("id", "", 1)(frame)))
    answer = described.ask("check", "risk")
    assert (answer["rows"], answer["accepted"], answer["rejected"]) == (600, 597, 3)
    kept = pd.read_parquet(described.workspace.store.fetch(File.model_validate(answer["rejected_rows"])))
    assert set(zip(kept["column"], kept["value"].fillna(""), strict=True)) >= {("files", "inf"), ("id", "")}


def test_a_thousand_open_categories_train(described: "Installation") -> None:
    described.change_model("{type: category, values: [dev, prod]}", "{type: category, open: true}")
    changed(described, categories)
    assert described.ask("train", "risk", "--dry-run")["accepted"] == 1_200


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("type: integer", "type: complex", "'integer', 'number', 'category' or 'boolean'"),
        ("[decision_tree]", "[oracle]", "knows no 'oracle'; allowed: logistic_regression"),
        ("[decision_tree]", "[{estimator: no.such.Thing}]", None),
        ("classes: [Low, High]", "classes: [Low]", "at least two different classes"),
        ("columns:", "columns: [", "not valid YAML"),
        ("task: classification", "task: clustering", "'classification' or 'regression'"),
        ("key: id}", "key: id, colour: red}", "unknown field"),
        ("name: risk", "name: \x00", "YAML"),
    ],
    ids=[
        "column type",
        "candidate",
        "own estimator",
        "one class",
        "YAML",
        "task",
        "unknown field",
        "control character",
    ],
)
def test_a_model_file_that_says_something_impossible(
    described: "Installation", old: str, new: str, said: str | None
) -> None:
    described.change_model(old, new)
    answer = refused(described, "train", "risk")
    if said is None:
        assert answer["error"] == "NoCandidate"
        assert "no.such.Thing" in str(answer)
        return
    assert answer["error"] == "ModelFileError"
    assert said in f"{answer['what']} {answer['got']} {answer['allowed']}"
    assert "risk.yaml:" in answer["what"]
    assert answer["do"]
    assert is_clean(described, allowed=())


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"[1, 2]", b"just a text"], ids=str)
def test_a_model_file_that_is_none(described: "Installation", content: bytes) -> None:
    (described.models / "risk.yaml").write_bytes(content)
    answer = refused(described, "train", "risk")
    assert answer["error"] == "ModelFileError"
    assert "risk.yaml" in answer["what"]
    assert answer["do"]


def test_a_model_file_that_is_a_folder(described: "Installation") -> None:
    (described.models / "risk.yaml").unlink()
    (described.models / "risk.yaml").mkdir()
    assert refused(described, "train", "risk")["error"] == "ModelFileError"


def test_an_unknown_model_and_an_unknown_candidate(described: "Installation") -> None:
    answer = refused(described, "train", "risc")
    assert (answer["error"], answer["got"], answer["allowed"]) == ("UnknownModel", "risc", "risk")
    answer = refused(described, "train", "risk", "--candidate", "oracle")
    assert (answer["error"], answer["got"], answer["allowed"]) == ("ModelFileError", "oracle", "decision_tree")
    assert is_clean(described, allowed=())


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_mlflow_that_is_not_there(described: "Installation", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"http://127.0.0.1:{closed_port()}"
    answer = refused(described, "train", "risk", MLFLOW_TRACKING_URI=address)
    assert (answer["error"], answer["retryable"]) == ("RegistryUnavailable", True)
    assert address in answer["got"]
    assert "MLFLOW_TRACKING_URI" in answer["do"]
    assert is_whole(described)
    assert described.ask("train", "risk")["champion"] == 1


def test_a_locked_mlflow_database(described: "Installation", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steward.io.registry.LOCK_SECONDS", 0.2)
    with sqlite3.connect(described.home / "mlflow.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = refused(described, "train", "risk")
        other.rollback()
    assert (answer["error"], answer["retryable"]) == ("RegistryUnavailable", True)
    assert "locked" in answer["got"]
    assert is_whole(described)
    assert described.ask("train", "risk", "--dry-run")["winner"] == "decision_tree"


def test_a_locked_ledger(described: "Installation", monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes for longer than anybody waits."""
    assert described.workspace.ledger.entries() == []
    monkeypatch.setattr("steward.io.ledger.LOCK_SECONDS", 0.2)
    with sqlite3.connect(described.home / "ledger.db") as other:
        other.execute("BEGIN IMMEDIATE")
        answer = refused(described, "train", "risk")
        other.rollback()
    assert (answer["error"], answer["retryable"]) == ("LedgerUnavailable", True)
    assert "locked" in answer["got"]
    assert "STEWARD_LEDGER_URL" in answer["do"]
    assert is_clean(described, allowed=())


PREDICT = ("predict", "risk", '{"files": 3, "stage": "dev"}')
PROMOTE = ("promote", "risk", "1", "--why", "again")


@pytest.mark.parametrize(
    ("command", "file"),
    [(PREDICT, "*.onnx"), (PREDICT, "*.json"), (PROMOTE, "*.skops")],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_artifact_with_one_byte_changed(trained: "Installation", command: tuple[str, ...], file: str) -> None:
    (path,) = Path(trained.workspace.store.root, "files").rglob(file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = trained.workspace.ledger.entries()
    answer = refused(trained, *command)
    assert answer["error"] == "ArtifactDamaged"
    assert path.stem in answer["allowed"]
    assert answer["do"]
    assert trained.workspace.ledger.entries() == before


@pytest.mark.parametrize("command", [PREDICT, PROMOTE], ids=lambda command: command[0])
def test_an_artifact_with_a_type_that_is_not_on_the_list(
    trained: "Installation", command: tuple[str, ...], tmp_path: Path
) -> None:
    """Records and digests fit the smuggled file: only the list stands against it."""
    workspace = trained.workspace
    version = workspace.registry.version("risk", 1)
    challenger = workspace.load(Challenger, version.challenger)
    workspace.artifacts.write_skops(make_pipeline(FunctionTransformer(shutil.rmtree)), tmp_path / "evil.skops")
    evil = workspace.store.put(tmp_path / "evil.skops", "evil.skops")
    smuggled = challenger.model_copy(update={"skops": evil, "engine": "pipeline"})
    workspace.store.write_record("challenger", version.challenger.digest, smuggled.as_json())
    before = workspace.ledger.entries()
    answer = refused(trained, *command)
    assert answer["error"] == "ArtifactUntrusted"
    assert "shutil.rmtree" in answer["got"]
    assert "STEWARD_TRUSTED_TYPES" in answer["do"]
    assert workspace.ledger.entries() == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a disk of so many bytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size: int) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
        return folder

    try:
        yield make
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # MLflow keeps its database open


def fill(disk: Path) -> Path:
    """Takes every byte that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(bytes(1 << 16)):
            pass
    return ballast


@pytest.mark.parametrize("full_at", ["accept", "train_candidate", "verify", "promote"])
def test_a_full_disk(described: "Installation", small_disk: Callable[[int], Path], full_at: str) -> None:
    """The step that meets it says so, and once there is space again it does its work, once."""
    disk = small_disk(24 << 20)
    described.home = shutil.copytree(described.home, disk / "home")
    described.environment["STEWARD_HOME"] = str(described.home)
    workspace, made = described.workspace, {"approve": None}
    for stage in STAGES:
        if stage.approval:
            continue
        run = partial(pipeline._run_stage, workspace, workspace.model("risk"), stage, made, AT, None, lambda _: None)
        if stage.name == full_at:
            ballast = fill(disk)
            with pytest.raises(
                (StoreUnavailable, RegistryUnavailable, LedgerUnavailable), match=r"No space|full"
            ) as caught:
                run()
            assert caught.value.retryable
            ballast.unlink()
            assert is_whole(described)
        made[stage.name] = run()
    assert is_whole(described)
    assert workspace.load(Promotion, made["promote"]).champion == 1
    assert [version.number for version in workspace.registry.versions("risk")] == [1]
