"""What people do from the pages: the same operations as from the command line, on record with their name."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Query, status
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import StringConstraints

from steward.config import ModelFile
from steward.errors import VersionUnknown
from steward.pages.visit import Visit, Visiting
from steward.views.chain import verify_chain
from steward.views.model import VersionLine, versions

router = APIRouter()
LONGEST = 500
"""Characters of a reason, as in Airflow's own form."""

Token = Annotated[str, Form()]
Reason = Annotated[str, Form(), StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST)]
Perhaps = Annotated[str, Form(), StringConstraints(strip_whitespace=True, max_length=LONGEST)]
Once = Annotated[str, Form(), StringConstraints(pattern=r"^\d{8}T\d{6}-[0-9a-f]{8}$")]
RunId = Annotated[str, Form(), StringConstraints(min_length=1, max_length=250)]


@router.get("/models/{name}/act")
def show_acts(
    visit: Visiting,
    name: str,
    done: str = "",
    run: Annotated[str, Query(max_length=250)] = "",
    entry: int | None = None,
) -> HTMLResponse:
    """All that can be done; `done`, `run` and `entry` say what just was."""
    model = visit.editable_model(name)
    row, lines = versions(visit.workspace, model, visit.now)
    questions = visit.orchestrator.questions(visit.request, name)
    kind: Literal["train", "monitor"] = "monitor" if done == "monitor" else "train"
    return visit.show(
        "act.html",
        "act",
        name,
        model=model,
        row=row,
        versions=lines,
        questions=questions,
        once=f"{visit.now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        longest=LONGEST,
        done=done,
        entry=entry,
        run=run,
        run_page=visit.orchestrator.run_page(name, kind, run) if run else None,
    )


@router.post("/models/{name}/train")
def train(visit: Visiting, name: str, token: Token, once: Once, reason: Reason) -> Response:
    return _start(visit, name, token, "train", once, reason)


@router.post("/models/{name}/monitor")
def monitor(visit: Visiting, name: str, token: Token, once: Once) -> Response:
    return _start(visit, name, token, "monitor", once, "")


def _start(visit: Visit, name: str, token: str, kind: Literal["train", "monitor"], once: str, reason: str) -> Response:
    """A form that is sent twice starts one run: the run is named after the form."""
    _check(visit, name, token)
    run_id = f"pages__{once}"
    visit.orchestrator.start(visit.request, name, kind, run_id, reason)
    return _back(visit, name, kind, run=run_id)


@router.post("/models/{name}/answer")
def answer(
    visit: Visiting,
    name: str,
    token: Token,
    run: RunId,
    decision: Annotated[Literal["approve", "refuse"], Form()],
    why: Reason,
) -> Response:
    _check(visit, name, token)
    visit.orchestrator.answer(visit.request, name, run, approve=decision == "approve", why=why)
    return _back(visit, name, decision, run=run)


@dataclass(frozen=True)
class Move:
    """What making a version the champion would change."""

    act: Literal["promote", "rollback"]
    champion: VersionLine | None
    target: VersionLine
    previous: int | None
    challenger: int | None


@router.get("/models/{name}/promote")
def show_promote(visit: Visiting, name: str, version: int) -> HTMLResponse:
    return _confirm(visit, name, "promote", version)


@router.get("/models/{name}/rollback")
def show_rollback(visit: Visiting, name: str, version: int | None = None) -> HTMLResponse:
    """To the previous champion unless a version is named."""
    return _confirm(visit, name, "rollback", version)


def _confirm(visit: Visit, name: str, act: Literal["promote", "rollback"], version: int | None) -> HTMLResponse:
    model = visit.editable_model(name)
    move = _move(visit, model, act, version)
    return visit.show("confirm.html", "act", name, move=move, longest=LONGEST)


def _move(visit: Visit, model: ModelFile, act: Literal["promote", "rollback"], number: int | None) -> Move:
    """Raises VersionUnknown if there is no such version, or none to go back to."""
    _, lines = versions(visit.workspace, model, visit.now)
    by_alias = {line.alias: line for line in lines if line.alias}
    by_number = {line.number: line for line in lines}
    target = by_alias.get("previous") if number is None else by_number.get(number)
    if target is None:
        raise VersionUnknown(
            f"{model.name} has no previous champion" if number is None else f"{model.name} has no such version",
            got=number,
            allowed=", ".join(map(str, by_number)) or "none yet",
            do="Choose a version from the list of the model's page",
        )
    champion, challenger = by_alias.get("champion"), by_alias.get("challenger")
    return Move(act, champion, target, _number(by_alias.get("previous")), _number(challenger))


def _number(line: VersionLine | None) -> int | None:
    return None if line is None else line.number


@dataclass(frozen=True)
class Confirmed:
    """The form of a confirmation: the version that shall serve, and the one that did when the person was asked."""

    token: Token
    version: Annotated[int, Form()]
    champion: Annotated[str, Form()]
    why: Reason


Confirming = Annotated[Confirmed, Depends()]


@router.post("/models/{name}/promote")
def promote(visit: Visiting, name: str, confirmed: Confirming) -> Response:
    from steward import operations

    return _enthrone(visit, name, confirmed, operations.promote_by_hand, "promote")


@router.post("/models/{name}/rollback")
def rollback(visit: Visiting, name: str, confirmed: Confirming) -> Response:
    from steward import operations

    return _enthrone(visit, name, confirmed, operations.rollback, "rollback")


def _enthrone(
    visit: Visit, name: str, confirmed: Confirmed, operation: Callable[..., dict[str, Any]], done: str
) -> Response:
    """Only what was confirmed: if another champion came meanwhile, the person looks again."""
    from steward import notices

    model = _check(visit, name, confirmed.token)
    serving = visit.workspace.registry.aliases(name).get("champion")
    if str(serving or "") != confirmed.champion:
        raise HTTPException(
            status.HTTP_409_CONFLICT,
            f"Meanwhile version {serving} has become the champion of {name}. Nothing was changed; look again and decide.",
        )
    moved = operation(visit.workspace, model, confirmed.version, why=confirmed.why, by=visit.person.name, at=visit.now)
    notices.tell_of_move(visit.workspace, model, moved, at=visit.now)
    return _back(visit, name, done, entry=moved["sequence"])


@router.post("/chain")
def walk_chain(visit: Visiting, token: Token) -> Response:
    """Walk the whole ledger."""
    visit.installation.forms.check(visit.request, visit.person, token)
    if not visit.editable:
        raise HTTPException(status.HTTP_403_FORBIDDEN, f"{visit.person.name} may not act on any model.")
    verify_chain(visit.workspace, by=visit.person.name, at=visit.now)
    return RedirectResponse(visit.link("decisions"), status.HTTP_303_SEE_OTHER)


def _check(visit: Visit, name: str, token: str) -> ModelFile:
    """The model, for somebody who may act on it and has sent a form of ours."""
    model = visit.editable_model(name)
    visit.installation.forms.check(visit.request, visit.person, token)
    return model


def _back(visit: Visit, name: str, done: str, **what: Any) -> Response:
    """To the page with the forms, which says what was done; reloading it does nothing again."""
    return RedirectResponse(visit.link("act", model=name, done=done, **what), status.HTTP_303_SEE_OTHER)
