"""The pages that are read: they change nothing."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Response, status
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from markupsafe import Markup
from pydantic import AfterValidator, BeforeValidator

from steward.io.workspace import Workspace
from steward.pages.addresses import FILES
from steward.pages.visit import Visiting
from steward.reports import distribution, model_page, version_page
from steward.reports.formats import value, words
from steward.reports.sparkline import sparkline
from steward.views import drift, model, sealed, version
from steward.views.decisions import Filter, as_csv, as_json, decisions, export
from steward.views.overview import Row, overview

router = APIRouter()
CARD_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
"""A card is one file with its style inside; nothing in it runs."""

PIECE = 1 << 16
"""Characters of a download that are sent together, at least."""
FOR_EVER = "private, max-age=31536000, immutable"


def _filled(value: object) -> object:
    """A field of a form that was left empty says nothing."""
    return None if value == "" else value


def _utc(moment: datetime | None) -> datetime | None:
    """A moment that names no zone is of UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


Day = Annotated[date | None, BeforeValidator(_filled)]
Moment = Annotated[datetime | None, BeforeValidator(_filled), AfterValidator(_utc)]
Number = Annotated[int | None, BeforeValidator(_filled)]


@router.get("/static/{name}")
def static(name: str) -> Response:
    if name not in FILES:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"There is no file {name}.")
    path, kind = FILES[name]
    return Response(path.read_bytes(), media_type=kind, headers={"cache-control": FOR_EVER})


@router.get("/")
def show_overview(visit: Visiting, q: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    models, broken = visit.installation.model_files.among(visit.readable)
    found = overview(visit.workspace, models, visit.now, q)
    return visit.show("overview.html", "overview", overview=found, broken=broken, sparkline=_sparkline)


def _sparkline(row: Row) -> Markup:
    """Nothing where there is no line to draw yet."""
    if len(row.sparkline) < 2:  # noqa: PLR2004
        return Markup()
    levels = [point.live for point in row.sparkline]
    first, last = (value(live.value) for live in (levels[0], levels[-1]))
    says = f"{words(row.metric)} of the last {len(levels)} looks: from {first} to {last}"
    return sparkline(levels, says, row.floor)


@router.get("/models/{name}")
def show_model(visit: Visiting, name: str, since: Moment = None, until: Moment = None) -> HTMLResponse:
    page = model.model_page(visit.workspace, visit.model(name), visit.now, since=since, until=until)
    return visit.answer(model_page.render(page, visit.frame("model", name)))


@router.get("/models/{name}/drift/{column:path}")
def show_distribution(
    visit: Visiting, name: str, column: str, end: Annotated[datetime, AfterValidator(_utc)]
) -> HTMLResponse:
    found = drift.distribution(visit.workspace, visit.model(name), column, end)
    return visit.answer(distribution.render(found, visit.frame("model", name)))


@router.get("/models/{name}/versions/{number}")
def show_version(visit: Visiting, name: str, number: int) -> HTMLResponse:
    page = version.version_page(visit.workspace, visit.model(name), number, visit.now)
    return visit.answer(version_page.render(page, visit.frame("version", name)))


@router.get("/models/{name}/compare")
def show_comparison(visit: Visiting, name: str, left: int, right: int) -> HTMLResponse:
    found = version.compare(visit.workspace, visit.model(name), left, right, visit.now)
    return visit.answer(version_page.render_comparison(found, visit.frame("version", name)))


@router.get("/models/{name}/versions/{number}/card")
def show_card(visit: Visiting, name: str, number: int) -> HTMLResponse:
    page = version.version_page(visit.workspace, visit.model(name), number, visit.now)
    if page.card is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"No card of version {number} was written.")
    headers = {"content-security-policy": CARD_POLICY}
    return HTMLResponse(visit.workspace.store.read_page(page.card), headers=headers)


@router.get("/models/{name}/test-rows")
def show_test_rows(visit: Visiting, name: str) -> HTMLResponse:
    rows = sealed.test_rows(visit.workspace, visit.model(name), visit.now)
    return visit.show("test_rows.html", "test_rows", name, rows=rows)


@dataclass(frozen=True)
class Asked:
    """The filter of the decisions as people have filled it in, and as it is applied."""

    fields: dict[str, Any]
    filter: Filter


def asked(
    visit: Visiting,
    model: str = "",
    kind: Annotated[list[str] | None, Query()] = None,
    text: str = "",
    since: Day = None,
    until: Day = None,
) -> Asked:
    """Of models only those that the person may read; days are those of UTC, the last one included."""
    if model:
        visit.model(model)
    kinds = tuple(one for one in kind or () if one)
    fields = {"model": model, "kind": kinds, "text": text.strip(), "since": since, "until": until}
    models = frozenset({model}) if model else visit.readable
    after = _midnight(until + timedelta(days=1)) if until else None
    return Asked(fields, Filter(models, kinds, text.strip(), _midnight(since) if since else None, after))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


Asking = Annotated[Asked, Depends(asked)]


@router.get("/decisions")
def show_decisions(visit: Visiting, asked: Asking, before: Number = None, at: Number = None) -> HTMLResponse:
    newest = before if at is None else at + 1
    found = decisions(visit.workspace, asked.filter, newest)
    model = asked.fields["model"] or None
    return visit.show(
        "decisions.html",
        "decisions",
        model,
        found=found,
        fields=asked.fields,
        models=sorted(visit.readable),
        newest=newest,
        at=at,
        may_verify=bool(visit.editable),
    )


@router.get("/decisions.{kind_of_file}")
def download_decisions(visit: Visiting, asked: Asking, kind_of_file: Literal["csv", "json"]) -> StreamingResponse:
    rows = export(visit.workspace, asked.filter)
    lines, media = (as_csv(rows), "text/csv") if kind_of_file == "csv" else (as_json(rows), "application/json")
    name = f"decisions-{visit.now:%Y%m%d-%H%M%S}.{kind_of_file}"
    return StreamingResponse(
        _begun(lines), media_type=media, headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def _begun(lines: Iterator[str]) -> Iterator[str]:
    """The same text, the first piece of it made now: a ledger that is away is a page that says so, not half a file."""
    pieces = _joined(lines)
    return chain([next(pieces, "")], pieces)


def _joined(lines: Iterator[str]) -> Iterator[str]:
    """In pieces that are worth sending: each takes a turn of the server."""
    text = io.StringIO()
    for line in lines:
        text.write(line)
        if text.tell() >= PIECE:
            yield text.getvalue()
            text = io.StringIO()
    yield text.getvalue()


@router.get("/dags/{dag_id}")
@router.get("/dags/{dag_id}/runs/{run_id:path}")
def show_of_dag(visit: Visiting, dag_id: str, run_id: str = "") -> RedirectResponse:
    """From a page of Airflow to the page about the same thing: the version that a run has made, or else the model."""
    name, _, kind = dag_id.rpartition(".")
    if not name or kind not in ("train", "monitor", "score"):
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"{dag_id} is none of Steward's DAGs.")
    visit.model(name)
    version = version_of_run(visit.workspace, name, run_id) if run_id and kind == "train" else None
    page = visit.link("model", model=name) if version is None else visit.link("version", model=name, version=version)
    return RedirectResponse(page, status.HTTP_303_SEE_OTHER)


@router.get("/{path:path}")
def show_nothing(path: str) -> None:
    """Every other address; who is signed out is not told that either."""
    raise HTTPException(status.HTTP_404_NOT_FOUND, f"Nothing is at {path}.")


def version_of_run(workspace: Workspace, model: str, run_id: str) -> int | None:
    """What a training was registered as; None before that, or if it was not. Trainings of a model follow one another."""
    asked = workspace.ledger.find(model, "trigger", run_id)
    if asked is None:
        return None
    later = [entry.sequence for entry in workspace.ledger.entries(model, "trigger") if entry.sequence > asked.sequence]
    end = min(later, default=None)
    for entry in workspace.ledger.entries(model, "promotion"):
        ours = entry.sequence > asked.sequence and (end is None or entry.sequence < end)
        if ours and "act" not in entry.body:
            return int(entry.body["version"])
    return None
