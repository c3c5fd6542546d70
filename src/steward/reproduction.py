"""Rebuilds a version from what was recorded, and names the input that differs where the result does."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from steward import steps
from steward.config import ModelFile
from steward.core import contracts, fingerprints, tuning
from steward.errors import ArtifactDamaged, CandidateFailed, NotReproducible
from steward.io import environment
from steward.io.store import sha256_of
from steward.io.workspace import Workspace
from steward.records import Challenger, Roles, Snapshot


@dataclass(frozen=True)
class Reproduction:
    """What became of training a version again.

    `data` names recorded rows that are no longer what they were; nothing is trained on those, and `rebuilt` is None.
    `surroundings` names what else differs from the first training: packages, Steward's code, commit, machine.
    """

    model: str
    version: int
    recorded: str
    """SHA-256 of the recorded artifact."""
    rebuilt: str | None
    data: tuple[str, ...]
    surroundings: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Is the rebuilt artifact the recorded one, byte for byte?"""
        return self.rebuilt == self.recorded

    @property
    def differences(self) -> tuple[str, ...]:
        """Every input that differs; none of them mattered if the result is identical."""
        return (*self.data, *self.surroundings)

    @property
    def summary(self) -> str:
        """The outcome in one sentence."""
        who = f"version {self.version} of {self.model}"
        if self.identical:
            return f"{who} was rebuilt byte for byte: {self.recorded}"
        if self.data:
            return f"{who} cannot be rebuilt: {'; '.join(self.data)}"
        why = "; ".join(self.surroundings) or "every recorded input is the same, so the training itself does not repeat"
        return f"{who} came out differently: {why}"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, for `steward reproduce --json`."""
        return {**asdict(self), "identical": self.identical, "differences": self.differences, "summary": self.summary}


def reproduce(workspace: Workspace, model_name: str, version: int) -> Reproduction:
    """Train a version again with its recorded snapshot, roles, model file, parameters, seed and threads.

    Raises
    ------
    VersionUnknown : the registry has no such version.
    NotReproducible : the record of what it was trained with is gone, or the recorded training fails here.
    """
    challenger = _recorded(workspace, model_name, version)
    data = tuple(_changed_data(workspace, challenger))
    return Reproduction(
        model=model_name,
        version=version,
        recorded=challenger.digest,
        rebuilt=None if data else _trained_again(workspace, challenger),
        data=data,
        surroundings=tuple(_changed_surroundings(workspace, challenger)),
    )


def _recorded(workspace: Workspace, model_name: str, version: int) -> Challenger:
    reference = workspace.registry.version(model_name, version).challenger
    try:
        return workspace.load(Challenger, reference)
    except ArtifactDamaged as problem:
        raise NotReproducible(
            f"the record of version {version} of {model_name} is gone or changed",
            got=reference.uri,
            do="Restore it from a backup of the store",
        ) from problem


def _changed_data(workspace: Workspace, challenger: Challenger) -> Iterator[str]:
    """The rows are the recorded ones if their files are, and if their content has the recorded fingerprint."""
    try:
        found = _fingerprint(workspace, workspace.load(Snapshot, challenger.snapshot))
        if found != challenger.fingerprint:
            yield f"the snapshot differs: its fingerprint is {found}, recorded is {challenger.fingerprint}"
    except ArtifactDamaged as problem:
        yield f"the snapshot differs: {problem}"
        return
    try:
        roles = workspace.load(Roles, challenger.roles)
        given = workspace.tables.stored(workspace.store.fetch(roles.file)).to_pandas()
        trained = pd.read_parquet(workspace.store.fetch(challenger.trained_units))["unit"]
        if set(given.loc[given["role"].isin(("train", "validation")), "unit"]) != set(trained):
            yield "the roles differ: other rows are train or validation rows than those that it was trained on"
    except ArtifactDamaged as problem:
        yield f"the roles differ: {problem}"


def _fingerprint(workspace: Workspace, snapshot: Snapshot) -> str:
    rows = workspace.tables.stored(workspace.store.fetch(snapshot.data))
    kept = rows.drop_columns([contracts.DIGEST])
    return fingerprints.fingerprint(fingerprints.types(kept.schema), [kept])


def _changed_surroundings(workspace: Workspace, challenger: Challenger) -> Iterator[str]:
    yield from _changed("package", challenger.packages, environment.packages())
    if workspace.code != challenger.code:
        yield f"Steward's code differs: {workspace.code[:12]}, recorded is {challenger.code[:12]}"
    if workspace.commit != challenger.commit:
        yield f"the commit differs: {workspace.commit or 'none'}, recorded is {challenger.commit or 'none'}"
    yield from _changed("machine", challenger.machine, environment.machine())


def _changed(what: str, recorded: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*recorded, *found}):
        if recorded.get(name) != found.get(name):
            yield f"{what} {name} differs: {found.get(name, 'none')}, recorded is {recorded.get(name, 'none')}"


def _trained_again(workspace: Workspace, challenger: Challenger) -> str:
    model = ModelFile.model_validate(challenger.model_file)
    rows = steps.learning_rows(workspace, model, challenger.roles, ("train", "validation"))
    how: dict[str, Any] = {"times": rows.times, "seed": challenger.seed, "threads": challenger.threads}
    try:
        pipeline = tuning.refit(model, challenger.name, challenger.params, rows.frame, rows.truth, **how)
    except CandidateFailed as problem:
        raise NotReproducible(
            "the recorded training fails here", got=str(problem), do="Install the recorded package versions"
        ) from problem
    with workspace.store.scratch() as folder:
        workspace.artifacts.write_skops(pipeline, folder / "model.skops")
        return sha256_of(folder / "model.skops")
