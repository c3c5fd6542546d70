"""Where a replay plays: a folder of its own, with one store for all policies, and a ledger and registry for each.

Production's workspace is asked for the source once. After that nothing of it is opened.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from steward.config import ModelFile, Settings
from steward.errors import StewardError
from steward.inference import Predictor
from steward.io.artifacts import CLEAN_PROCESS_SECONDS, Artifacts
from steward.io.registry import Registry
from steward.io.versions import LedgerRegistry
from steward.io.workspace import R, Workspace
from steward.records import Candidate, Challenger, Reference, ReferenceProfile, Roles, Selection, Snapshot
from steward.replay.past import TABLE, TablesOfThen

SHARED = (Snapshot, Roles, Candidate, Selection, Challenger, ReferenceProfile)
"""Records that the rows and the model file alone decide: of several policies the first one makes them."""


@dataclass(frozen=True)
class Place:
    """The folder of a replay."""

    folder: Path
    settings: Settings
    """Those of production; a replay takes its threads and trusted types."""

    @property
    def past(self) -> Path:
        return self.folder / "past"

    def of(self, policy: str) -> Path:
        """The folder of a policy: its ledger, and what came of each window."""
        return self.folder / "policies" / policy

    def workspace(self, policy: str, at: datetime, life: int = 0) -> "Workspace":
        """A policy's workspace at a moment; in another life it finds no decision of an earlier one."""
        home = self.of(policy)
        settings = replace(
            self.settings,
            home=home,
            store=str(self.folder / "store"),
            ledger_url=f"sqlite:///{home / 'ledger.db'}",
            tracking_uri=f"sqlite:///{home / 'ledger.db'}",
            mlflow_ui=None,
            jobs=1,
        )
        return _Then(settings, f"{policy} {life}", self.past / TABLE, at)

    def keep(self, policy: str, window: int) -> None:
        """Set the ledger aside as it is after a window; that of the one before stays, until this window counts as played."""
        folder = self.of(policy)
        _copy(folder / "ledger.db", folder / f"after-{window}.db")
        (folder / f"after-{window - 2}.db").unlink(missing_ok=True)

    def restore(self, policy: str, window: int, first: str) -> None:
        """Give a policy the ledger as it was after a window; after none, that of the first version."""
        self.forget(policy)
        folder = self.of(policy)
        _copy(folder / f"after-{window}.db" if window else self.of(first) / "ledger.db", folder / "ledger.db")

    def forget(self, policy: str) -> None:
        """Take a policy's ledger away."""
        folder = self.of(policy)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("ledger.db*"):
            left.unlink()

    def next_life(self, policy: str) -> int:
        """The number of another attempt at a policy."""
        path = self.of(policy) / "life"
        life = int(path.read_text(encoding="utf-8")) + 1 if path.exists() else 1
        path.write_text(str(life), encoding="utf-8")
        return life

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def write(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(path)


def _copy(database: Path, target: Path) -> None:
    """Whole or not at all, whoever has it open."""
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(part)) as copy:
        source.backup(copy)
    part.replace(target)


class _Then(Workspace):
    """A workspace that knows only what was there at a moment."""

    explains = False

    def __init__(self, settings: Settings, policy: str, table: Path, at: datetime) -> None:
        super().__init__(settings)
        self.policy = policy
        self.table = table
        self.at = at

    @cached_property
    def registry(self) -> Registry:
        return cast("Registry", LedgerRegistry(self.ledger))

    @cached_property
    def tables(self) -> TablesOfThen:
        return TablesOfThen(self.settings.threads, self.settings.home / "work", self.table, self.at)

    @cached_property
    def artifacts(self) -> Artifacts:
        return ArtifactsHere(self.store, self.settings.trusted_types)

    @property
    def commit(self) -> None:
        """No version of a replay is anybody's."""
        return

    def remember(self, record: type[R], inputs: list[Any], make: Callable[[], R]) -> Reference:
        """What a policy has decided is its own."""
        own = [] if record in SHARED else [self.policy]
        return super().remember(record, [*inputs, *own], make)


class ArtifactsHere(Artifacts):
    """Tries files in this process: a replayed version serves nobody, and a process takes longer than most trainings."""

    def answers_in_clean_process(self, challenger: Challenger, timeout: float = CLEAN_PROCESS_SECONDS) -> str | None:  # noqa: ARG002
        try:
            Predictor.open(self, challenger).answer(
                {name: [challenger.example.get(name)] for name in challenger.inputs}
            )
        except StewardError as problem:
            return str(problem)
        return None


def replayed(model: ModelFile) -> ModelFile:
    """The model file as it is replayed: nobody is told, nobody is asked, and the table has every outcome."""
    changed = model.model_dump(mode="json", by_alias=True)
    changed |= {"notify": [], "approve": "automatic"}
    changed["source"]["outcomes"] = False
    return ModelFile.model_validate(changed)
