"""The accept step: the source, held against the contract, becomes a snapshot."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steward.config import ModelFile
from steward.core import contracts, expectations, fingerprints, splitting
from steward.errors import ContractRefused, SourceUnreadable
from steward.io.tables import Session, writing
from steward.io.workspace import Workspace
from steward.records import Reference, Snapshot
from steward.steps import served


def accept(workspace: Workspace, model: ModelFile, *, at: datetime) -> Reference:
    """Read the source, hold it against the contract, keep the accepted rows as a snapshot.

    Parameters
    ----------
    at : the moment as of which labels are mature; time-zone aware.

    Returns
    -------
    Reference to a `Snapshot`.

    Raises
    ------
    SourceMissing, SourceUnreadable, SourceUnavailable, ContractRefused
    """
    contract = contracts.Contract.of(model, at)
    with workspace.tables.session() as session, workspace.store.scratch() as folder:
        source = session.source(model.source)
        columns = tuple(source.columns)
        if contract.missing(columns):
            raise _refused(workspace, contract, expectations.judge(contract, columns), columns, folder)
        scan = _scanned(workspace, session, source, contract, folder)
        unexpected = session.row(contracts.examples(scan.aside, contract, scan.found)) if scan.found["rejected"] else {}
        judgement = expectations.judge(contract, columns, scan.found, unexpected)
        if judgement.failed:
            raise _refused(workspace, contract, judgement, columns, folder)
        if scan.found["rejected"]:
            session.write(contracts.rejected(scan.aside, contract), folder / "rejected.parquet")
        return _keep_snapshot(workspace, contract, scan, judgement, columns, folder)


@dataclass(frozen=True)
class _Scan:
    """What one pass over the source found; the accepted rows are in a file by then."""

    aside: Any
    """Ibis table of the other rows, marked."""
    found: dict[str, Any]
    content: fingerprints.Content
    keys: list[npt.NDArray[np.uint64]]
    """Of every mature row with a key, accepted or not, the first half of its digest."""


def _scanned(workspace: Workspace, session: Session, source: Any, contract: contracts.Contract, folder: Path) -> _Scan:
    """The source in one pass; in two where keys stand twice."""
    total = session.row(source.aggregate(rows=source.count()))["rows"]
    rows, more = served.added(workspace, session, contracts.flagged(source, contract, session.stage), contract)
    total += more
    scan = _passed(session, rows, total, contract, folder / "snapshot.parquet")
    if splitting.any_twice(scan.keys):
        doubles = session.keep(contracts.duplicated_keys(rows))
        rows = contracts.with_duplicates(rows, doubles, contract, session.stage)
        scan = _passed(session, rows, total, contract, folder / "snapshot.parquet")
    if scan.found["rows"] != total:
        raise SourceUnreadable(
            "rows were lost between source and snapshot",
            got=f"{total} rows, {scan.found['accepted']} accepted, {scan.found['rejected']} rejected",
            do="Check that nothing writes to the source, then run again",
        )
    return scan


def _passed(session: Session, rows: Any, total: int, contract: contracts.Contract, path: Path) -> _Scan:
    """Write the accepted rows, count them, and keep the other ones for a closer look."""
    query = contracts.accepted(rows, contract)
    kept, keys = contracts.AcceptedRows(contract), []
    content = fingerprints.Content(fingerprints.types(query.select(*contract.columns).schema().to_pyarrow()))
    with writing(path, contract.repetitive) as write:
        for hashed in map(contracts.with_time_zone, session.blocks(query, contract.texts)):
            units = splitting.units_of(hashed[contracts.DIGEST].chunk(0))
            keys.append(splitting.numbers_of(units))
            block = hashed.set_column(hashed.num_columns - 1, contracts.DIGEST, splitting.column_of(units))
            write(block)
            kept.add(block)
            content.add(block, {contracts.KEY: keys[-1]})
    if kept.rows == total:
        return _Scan(None, kept.joined(contracts.NOTHING_ASIDE), content, keys)
    aside = session.keep(contracts.set_aside(rows))
    counts = session.row(aside.aggregate(**contracts.aside(aside, contract)))
    others = session.arrow(contracts.digests(aside))[contracts.DIGEST].combine_chunks()
    taken = splitting.numbers_of(splitting.units_of(others))
    return _Scan(aside, kept.joined(counts), content, [*keys, taken])


def _refused(
    workspace: Workspace,
    contract: contracts.Contract,
    judgement: expectations.Judgement,
    columns: Sequence[str],
    folder: Path,
) -> ContractRefused:
    page = _keep_page(workspace, contract, judgement, f"refused-{contract.at:%Y%m%dT%H%M%S}", folder)
    return expectations.refusal(contract, judgement, columns, page)


def _keep_page(
    workspace: Workspace, contract: contracts.Contract, judgement: expectations.Judgement, name: str, folder: Path
) -> str:
    page = folder / "contract.html"
    page.write_text(judgement.page, encoding="utf-8")
    return workspace.store.put_page(page, f"{contract.model.name}/contract-{name}.html")


def _keep_snapshot(
    workspace: Workspace,
    contract: contracts.Contract,
    scan: _Scan,
    judgement: expectations.Judgement,
    columns: Sequence[str],
    folder: Path,
) -> Reference:
    model, found, fingerprint = contract.model, scan.found, scan.content.fingerprint
    data = workspace.store.put(folder / "snapshot.parquet", "snapshot.parquet")
    aside = folder / "rejected.parquet"
    rejected = workspace.store.put(aside, aside.name) if aside.exists() else None
    page = _keep_page(workspace, contract, judgement, fingerprint[:16], folder)

    def make() -> Snapshot:
        return Snapshot(
            model=model.name,
            fingerprint=fingerprint,
            at=contract.at,
            source=model.source.table,
            rows=found["rows"],
            accepted=found["accepted"],
            rejected=found["rejected"],
            immature=found["immature"],
            data=data,
            rejected_rows=rejected,
            rejections=contracts.rejections(contract, found),
            expectations=judgement.expectations,
            unknown_columns=contract.unknown(columns),
            notes=contracts.notes(contract, found),
            labels=contracts.labels(contract, found),
            data_docs=page,
        )

    asked = model.model_dump(mode="json", include={"name", "task", "source", "label", "columns", "rows", "split"})
    inputs = [asked, list(columns), data.sha256, rejected.sha256 if rejected else None]
    reference = workspace.remember(Snapshot, inputs, make)
    body = {"rows": found["accepted"], "columns": scan.content.columns}
    workspace.ledger.append(model.name, "snapshot", fingerprint, body, contract.at)
    return reference
