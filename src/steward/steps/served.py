"""Served predictions whose outcome is known, as rows of the source: what `source.outcomes` adds to a snapshot."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from steward.config import ModelFile
from steward.core import contracts
from steward.io.predictions import key_parts
from steward.io.tables import Session
from steward.io.workspace import Workspace

AT, ID = "@at", "@prediction_id"
"""Columns of served rows beside those of the source."""
LOGGED = ("prediction_id", "at", "key", "record")
"""Of a served prediction."""


def added(workspace: Workspace, session: Session, rows: Any, contract: contracts.Contract) -> tuple[Any, int]:
    """The source's rows, and behind them those that only the prediction log has.

    Parameters
    ----------
    rows : the source, as `contracts.flagged` marks it.

    Returns
    -------
    The same kind of table, and how many rows came from the log: one per key, with the columns of the newest prediction that
    has an outcome, its time, and its current outcome. A prediction without a key has its id as key.
    """
    if not contract.model.source.outcomes:
        return rows, 0
    mature = contract.mature_before or contract.at
    found = missing(workspace, session, rows, contract, mature)
    if found is None:
        return rows, 0
    names = [name for name in found.columns if name != ID]
    count: int = session.row(found.aggregate(n=found.count()))["n"]
    return session.stage(rows.select(*names).union(found.select(*names))), count


def missing(
    workspace: Workspace, session: Session, rows: Any, contract: contracts.Contract, until: datetime
) -> Any | None:
    """Served rows up to a moment whose key the source has not, marked as the source's rows are, with the prediction's id.

    None if there is none in the log.

    Outcomes that came after `contract.at` are left out, so that a step that is run again finds what it found.
    """
    model = contract.model
    last = math.nextafter(until.timestamp(), math.inf)
    blocks = workspace.predictions.labelled(model.name, LOGGED, until=last, received_by=contract.at.timestamp())
    first = next(blocks, None)
    if first is None:
        return None
    served = session.load(_reader(model, chain([first], blocks)))
    newest = session.keep(_newest(served, model.source.keys))
    marked = contracts.flagged(newest.drop(AT), contract, session.stage, carried={ID: ID})
    shared = rows.filter(rows[contracts.KEY].isin(marked[contracts.KEY]))
    known = session.keep(shared.select(contracts.KEY).distinct())
    names = [name for name in rows.columns if not name.startswith("=")]
    return session.keep(marked.anti_join(known, contracts.KEY).select(*names, ID).order_by(contracts.KEY))


def _newest(served: Any, keys: Sequence[str]) -> Any:
    """Of several predictions with one key, the newest."""
    import ibis

    order = ibis.window(group_by=[served[name] for name in keys], order_by=[served[AT].desc(), served[ID].desc()])
    ranked = served.mutate(**{"@rank": ibis.row_number().over(order)})
    return ranked.filter(ranked["@rank"] == 0).drop("@rank")


def _reader(model: ModelFile, blocks: Iterable[Mapping[str, Sequence[Any]]]) -> Any:
    """Served rows as Arrow batches with the source's columns."""
    import pyarrow as pa

    schema = pa.schema([*((name, getattr(pa, kind)()) for name, kind in _types(model).items())])
    batches = (
        pa.RecordBatch.from_pylist([_row(model, *told) for told in zip(*block.values(), strict=True)], schema)
        for block in blocks
    )
    return pa.RecordBatchReader.from_batches(schema, batches)


def _types(model: ModelFile) -> dict[str, str]:
    """Arrow types of the columns of a served row."""
    texts = dict.fromkeys((*model.source.keys, ID), "string")
    times = {name: "float64" for name in (AT, model.source.time) if name}
    label = {model.label.column: "string" if model.task == "classification" else "float64"}
    columns = {name: "string" if column.type == "category" else "float64" for name, column in model.columns.items()}
    return texts | times | label | columns


def _row(model: ModelFile, prediction_id: str, at: float, key: str | None, record: str, label: str) -> dict[str, Any]:
    keys = model.source.keys
    parts = key and key_parts(key, len(keys))
    known: Mapping[str, Any] = json.loads(record)
    return {
        ID: prediction_id,
        AT: at,
        **dict(zip(keys, parts or [prediction_id] * len(keys), strict=True)),
        **({model.source.time: at} if model.source.time else {}),
        model.label.column: label if model.task == "classification" else float(label),
        **{name: known.get(name) for name in model.columns},
    }
