"""Opens everything that Steward touches, from Settings; the only way to get it."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from steward.config import ModelFile, Settings
from steward.errors import ArtifactDamaged
from steward.io.artifacts import Artifacts
from steward.io.latencies import LatencyStore
from steward.io.ledger import Ledger
from steward.io.predictions import PredictionStore
from steward.io.registry import Registry
from steward.io.store import Store
from steward.io.tables import Tables
from steward.records import Record, Reference, digest_of

R = TypeVar("R", bound=Record)


class Workspace:
    """The store, the ledger, the registry and the tables of one installation.

    Nothing is opened before it is used.

    Examples
    --------
    >>> workspace = Workspace(Settings.from_environment({"STEWARD_HOME": "/tmp/steward-example"}))
    >>> workspace.store.url
    '/tmp/steward-example/store'
    """

    explains = True
    """Whether steps also make what no decision rests on: cards, plots, a classifier that tells new rows from old ones, what a
    candidate costs that has no rival, and an ONNX file beside the tables that serve."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def model(self, name: str) -> ModelFile:
        """The model file of this name."""
        return self.settings.model(name)

    @cached_property
    def store(self) -> Store:
        return Store(self.settings.store, self.settings.home / "work")

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.settings.ledger_url)

    @cached_property
    def predictions(self) -> PredictionStore:
        return PredictionStore(self.ledger)

    @cached_property
    def latencies(self) -> LatencyStore:
        return LatencyStore(self.ledger)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.settings.tracking_uri, self.settings.home)

    @cached_property
    def tables(self) -> Tables:
        scans = max(self.settings.threads, os.cpu_count() or 1)
        return Tables(scans, self.settings.home / "work")

    @cached_property
    def artifacts(self) -> Artifacts:
        return Artifacts(self.store, self.settings.trusted_types)

    @cached_property
    def code(self) -> str:
        """Digest of the code that decides: another version of it makes other records."""
        folder = Path(__file__).parents[1]
        digest = hashlib.sha256()
        for path in sorted(
            [*folder.glob("core/*.py"), *folder.glob("steps/*.py"), folder / "expressions.py", folder / "inference.py"]
        ):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    @cached_property
    def commit(self) -> str | None:
        """The git commit of the working folder, with `+` if there are changes; None outside a repository."""
        try:
            head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
            changed = subprocess.run(
                ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return head.stdout.strip() + ("+" if changed.stdout.strip() else "")

    def remember(self, record: type[R], inputs: list[Any], make: Callable[[], R]) -> Reference:
        """The record that these inputs lead to: made once, and found again by every later call.

        Parameters
        ----------
        record : the record's type; its `kind` names the folder.
        inputs : plain JSON values that decide the result; the code's digest is added.
        make : does the work. A kill before it returns leaves no record, so that the next call does it again.
        """
        address = digest_of(record.kind, self.code, *inputs)
        body = self.store.read_record(record.kind, address)
        if body is None:
            self.store.write_record(record.kind, address, make().as_json())
        return Reference(kind=record.kind, uri=self.store.record_uri(record.kind, address), digest=address)

    def load(self, record: type[R], reference: Reference) -> R:
        """The record behind a reference; raises ArtifactDamaged if it is gone or changed."""
        body = self.store.read_record(record.kind, reference.digest)
        if body is None or reference.kind != record.kind:
            raise ArtifactDamaged(f"no {record.kind} behind this reference", got=reference.uri, do="Run the step again")
        return record.model_validate(body)
