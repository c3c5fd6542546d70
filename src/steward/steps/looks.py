"""What earlier looks at a version found, and which labelled rows they have read."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steward.core import splitting
from steward.errors import ArtifactDamaged
from steward.io.ledger import Entry
from steward.io.workspace import Workspace
from steward.records import Accuracy, File, Reference
from steward.steps.rows import trained_on

if TYPE_CHECKING:
    from steward.steps.labelled import Judged

FEWEST_ROWS = 50
"""Fewer labelled rows decide nothing."""
LOOKED_BACK = 100
"""Decisions among which looks are searched."""


def looks(workspace: Workspace, model: str, version: int | None = None) -> Iterator[tuple[Entry, Accuracy]]:
    """What was measured, and the decision that it led to, the newest first; lost records are left out.

    Parameters
    ----------
    version : looks at this one; None for any.
    """
    for entry in workspace.ledger.entries(model, "decision", newest_first=True, limit=LOOKED_BACK):
        part = entry.body["parts"].get(Accuracy.kind)
        if part is None:
            continue
        try:
            found = workspace.load(Accuracy, Reference.model_validate(part))
        except ArtifactDamaged:
            continue
        if version in (None, found.version):
            yield entry, found


def unread(workspace: Workspace, rows: "Judged", until: Mapping[str, float], units: File | None) -> NDArray[np.bool_]:
    """Rows that are later than what was read; without a time, those whose unit was not read."""
    undated = np.isnan(rows.times)
    source = np.nextafter(until.get("source", -np.inf), np.inf)
    later = rows.times >= np.where(rows.served, until.get("served", -np.inf), source)
    if not undated.any():
        return np.asarray(later)
    known = trained_on(workspace, units) if units else np.zeros(0, np.uint64)
    return np.where(undated, ~np.isin(splitting.numbers_of(rows.keys), known), later)


def keep_units(workspace: Workspace, rows: "Judged") -> File | None:
    """The units of the rows without a time, for `unread`; None if every row has one."""
    undated = rows.keys[np.isnan(rows.times)]
    if not len(undated):
        return None
    with workspace.store.scratch() as folder:
        path = folder / "read.parquet"
        pd.DataFrame({"unit": sorted(unit.tobytes() for unit in undated)}).to_parquet(path, index=False)
        return workspace.store.put(path, path.name)
