"""The rows of a snapshot that have some role, as candidates take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from steward.config import ModelFile
from steward.core import contracts, history, splitting
from steward.io.workspace import Workspace
from steward.records import File, Reference, Roles, Snapshot


def rows_of(
    workspace: Workspace, model: ModelFile, roles: Roles, *wanted: splitting.Role
) -> tuple[pd.DataFrame, npt.NDArray[Any], npt.NDArray[Any]]:
    """The rows with the wanted roles, in the snapshot's order, each file checked against its SHA-256.

    Returns
    -------
    Learning frame (contract columns in the model file's order: float64, or object for categories), truth (object array
    of class names, or float64 array), and units (object array of 16 bytes each), each with n rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    snapshot = workspace.load(Snapshot, roles.snapshot)
    given = workspace.tables.stored(workspace.store.fetch(roles.file))
    chosen = pc.is_in(given["role"], value_set=pa.array(wanted, pa.string()))
    columns = [contracts.LABEL, *model.columns]
    data = workspace.tables.stored(workspace.store.fetch(snapshot.data), columns).filter(chosen)
    columns_of = {name: learning_column(data[name], column.type) for name, column in model.columns.items()}
    frame = pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns_of.items()})
    truth = learning_column(data[contracts.LABEL], "category" if model.classes else "number")
    return frame, truth, given["unit"].filter(chosen).to_numpy()


def learning_column(column: Any, kind: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    values: npt.NDArray[Any] = (column if kind == "category" else column.cast(pa.float64())).to_numpy()
    return values


def trained_on(workspace: Workspace, units: File) -> npt.NDArray[np.uint64]:
    """The first halves of the units that a version learned from."""
    column = workspace.tables.stored(workspace.store.fetch(units))["unit"].to_pylist()
    return splitting.numbers_of(np.frombuffer(b"".join(column), np.uint8).reshape(-1, splitting.UNIT_BYTES))


@dataclass(frozen=True)
class LearningRows:
    """Rows of some roles in the snapshot's order, n of each; `roles` says which row has which."""

    frame: pd.DataFrame
    truth: npt.NDArray[Any]
    units: npt.NDArray[Any]
    roles: npt.NDArray[Any]
    times: npt.NDArray[np.float64] | None = None
    """Seconds since 1970, -inf where a row has no time; read only where `model.train` looks at them."""

    def choosing(self, model: ModelFile, *, folded: bool) -> npt.NDArray[np.intp]:
        """Positions of the rows that choose between candidates.

        Parameters
        ----------
        folded : are train rows among them, as in cross-validation?
        """
        chosen = np.arange(len(self.roles)) if folded else np.flatnonzero(self.roles == "validation")
        return chosen if self.times is None else chosen[history.judges(model.train, self.times[chosen])]


def learning_rows(
    workspace: Workspace, model: ModelFile, reference: Reference, wanted: Sequence[splitting.Role]
) -> LearningRows:
    """The rows that have one of the wanted roles; see `rows_of`."""
    roles = workspace.load(Roles, reference)
    frame, truth, units = rows_of(workspace, model, roles, *wanted)
    given = workspace.tables.stored(workspace.store.fetch(roles.file), ["role"])["role"].to_numpy()
    chosen = np.isin(given, wanted)
    times = _times(workspace, roles)[chosen] if model.train.looks_at_times else None
    return LearningRows(frame, truth, units, given[chosen], times)


def _times(workspace: Workspace, roles: Roles) -> npt.NDArray[np.float64]:
    """Of every row of the snapshot; see `LearningRows`."""
    snapshot = workspace.load(Snapshot, roles.snapshot)
    times = workspace.tables.stored(workspace.store.fetch(snapshot.data), [contracts.TIME])[contracts.TIME]
    found = times.to_numpy().astype("datetime64[us]")
    return np.where(np.isnat(found), -np.inf, found.astype(np.int64) / 1e6)
