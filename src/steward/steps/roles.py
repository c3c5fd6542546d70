"""The split step: every row of a snapshot gets its role, for life."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steward.config import ModelFile
from steward.core import contracts, splitting, verification
from steward.io.tables import STORED
from steward.io.workspace import Workspace
from steward.records import Reference, Roles, Snapshot, Test


def split(workspace: Workspace, model: ModelFile, snapshot: Reference, *, detect: float | None = None) -> Reference:
    """Give every row of a snapshot its role, and stop here if too few sealed rows are left.

    Parameters
    ----------
    detect : the loss that a trigger measured; where it is larger than `verify.detect`, fewer sealed rows are enough.

    Returns
    -------
    Reference to `Roles`.

    Raises
    ------
    NotEnoughSealedRows
    RolesFixed : the model file would make test rows of rows that models may have learned from.
    """
    accepted = workspace.load(Snapshot, snapshot)
    opened = opened_roles(workspace, model)
    splitting.require_same_split(model.split, [roles.split for roles in opened])
    rows = _rows(workspace, model, accepted)
    roles, cut = given_roles(workspace, model, rows, opened)
    total, classes = splitting.tally(roles, rows.labels, model.classes or ())
    wanted = max(model.verify.detect, detect or 0)
    needed = needed_rows(workspace, model, classes, wanted)
    splitting.require_sealed(total["test"], needed, model.split, wanted)
    if cut is not None:
        number, moment = cut
        workspace.ledger.append(model.name, "boundaries", str(number), moment.as_json(), accepted.at)
    with workspace.store.scratch() as folder:
        _write(folder / "roles.parquet", rows.units, roles)
        file = workspace.store.put(folder / "roles.parquet", "roles.parquet")

    def make() -> Roles:
        return Roles(
            model=model.name,
            snapshot=snapshot,
            fingerprint=accepted.fingerprint,
            by=model.split.by,
            split=model.split.model_dump(mode="json"),
            file=file,
            rows=total,
            classes=classes,
            needed=needed,
            detect=wanted,
            opening=len(opened) + 1,
            notes=splitting.notes(classes, model.split.by),
        )

    asked = model.model_dump(mode="json", include={"name", "task", "split", "verify"})
    return workspace.remember(Roles, [asked, snapshot.digest, len(opened), needed, wanted, file.sha256], make)


@dataclass(frozen=True)
class Marked:
    """What roles are given by, of every row of a snapshot."""

    units: splitting.Units
    times: npt.NDArray[np.datetime64] | None
    labels: Any
    """Arrow array."""


def _rows(workspace: Workspace, model: ModelFile, snapshot: Snapshot) -> Marked:
    by = model.split.by
    unit = contracts.GROUP if by == "group" else contracts.DIGEST
    time = [contracts.TIME] if by == "time" else []
    stored = workspace.tables.stored(workspace.store.fetch(snapshot.data), [unit, contracts.LABEL, *time])
    return Marked(
        units=splitting.units_of_groups(stored[unit]) if by == "group" else splitting.units_in(stored[unit]),
        times=stored[contracts.TIME].to_numpy() if time else None,
        labels=stored[contracts.LABEL].combine_chunks(),
    )


def given_roles(
    workspace: Workspace, model: ModelFile, rows: Marked, opened: Sequence[Roles]
) -> tuple[splitting.Codes, tuple[int, splitting.Round] | None]:
    """The role of every row, and the cut by time with its number if this snapshot needs a new one."""
    cut = None
    if rows.times is None:
        roles = splitting.roles_by_unit(rows.units, model.split)
    else:
        entries = workspace.ledger.entries(model.name, "boundaries")
        rounds = [splitting.Round.read(entry.body) for entry in entries]
        new = splitting.next_round(rows.times, rounds, model.split)
        cut = (len(rounds) + 1, new) if new else None
        roles = splitting.roles_by_time(rows.times, [*rounds, new] if new else rounds)
    return splitting.with_opened(roles, rows.units, [_sealed(workspace, one) for one in opened]), cut


def opened_roles(workspace: Workspace, model: ModelFile) -> list[Roles]:
    """The roles whose test rows were opened, oldest first."""
    entries = workspace.ledger.entries(model.name, "opening")
    return [workspace.load(Roles, Reference.model_validate(entry.body["roles"])) for entry in entries]


def _sealed(workspace: Workspace, roles: Roles) -> splitting.Units:
    """The units that were test rows by these roles."""
    import pyarrow.compute as pc

    given = workspace.tables.stored(workspace.store.fetch(roles.file))
    return splitting.units_in(given.filter(pc.equal(given["role"], "test"))["unit"])


def _write(path: Path, units: splitting.Units, roles: splitting.Codes) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    names = pa.array(splitting.ROLES, pa.string())
    table = pa.table(
        {
            "unit": splitting.column_of(units),
            "role": pa.DictionaryArray.from_arrays(pa.array(roles, pa.int8()), names),
        }
    )
    pyarrow.parquet.write_table(table, path, use_dictionary=["role"], **STORED)


def needed_rows(workspace: Workspace, model: ModelFile, classes: dict[str, dict[str, int]], detect: float) -> int:
    """Sealed rows that a decision needs.

    Planned from how often champion and challenger differed at their last comparison; for the second version from how
    good the first one was, and for the first from the best constant, which is what it has to beat.
    """
    tests = [Test.model_validate(entry.body) for entry in workspace.ledger.entries(model.name, "opening_result")]
    compared = [test for test in tests if test.champion]
    if compared:
        return verification.needed_rows(model, discordance=compared[-1].discordance, detect=detect)
    promotions = workspace.ledger.entries(model.name, "promotion", newest_first=True, limit=1)
    if tests and promotions and promotions[0].body["champion"] is not None:
        first = tests[-1]
        return verification.needed_rows(
            model, baseline=first.value if first.metric == "accuracy" else first.other.get("accuracy"), detect=detect
        )
    trained = classes.get("train", {})
    constant = max(trained.values()) / max(1, sum(trained.values())) if trained else None
    return verification.needed_rows(model, baseline=constant, detect=detect)
