"""The FastAPI application: routes, refusals as pages, and the headers of every answer."""

import logging
from datetime import UTC, datetime

from fastapi import Depends, FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steward.errors import LedgerUnavailable, OrchestratorRefused, StewardError, UnknownModel, VersionUnknown
from steward.io.workspace import Workspace
from steward.pages import acting, reading
from steward.pages.access import Forms, Gate, SignedOut
from steward.pages.addresses import Addresses
from steward.pages.model_files import ModelFiles
from steward.pages.orchestration import Orchestrator
from steward.pages.visit import Frame, Installation, visit
from steward.reports import drawing
from steward.reports.templating import environment

log = logging.getLogger(__name__)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
"""Nothing comes from another host, and no script and no style but those of our own files."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer that does not say otherwise."""


def create_app(gate: Gate, orchestrator: Orchestrator, workspace: Workspace, key: bytes) -> FastAPI:
    """The pages of one installation.

    Parameters
    ----------
    gate : who asks, and what they may do; every route asks it.
    orchestrator : runs DAGs and holds questions, with the rights of the person who asks.
    key : secret of the forms; the same in every process that serves these pages.
    """
    app = FastAPI(title="Steward", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(visit)])
    app.state.installation = Installation(gate, orchestrator, workspace, ModelFiles(workspace.settings), Forms(key))
    app.include_router(acting.router)
    app.include_router(reading.router)
    app.exception_handler(SignedOut)(_sign_in)
    app.exception_handler(StewardError)(_refused)
    app.exception_handler(HTTPException)(_answered)
    app.exception_handler(RequestValidationError)(_misread)
    app.add_middleware(Shell)
    return app


def prepare(app: FastAPI) -> None:
    """Do what the first visitor of a process would have to wait for: model files are read, templates compiled, and the
    plotting library is loaded. About a second of work for 300 models.
    """
    installation: Installation = app.state.installation
    installation.model_files.among({path.stem for path in installation.workspace.settings.model_paths()})
    for name in environment().list_templates(["html"]):
        environment().get_template(name)
    drawing.svg(drawing.figure()[0], "first", "nothing")


class Shell:
    """Around every answer: its headers, and a page in place of a stack trace that would reach Airflow."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def dressed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, dressed)
        except Exception:
            log.exception("A page of Steward failed: %s", scope["path"])
            if begun:
                raise
            page = message_page(
                Request(scope),
                status.HTTP_500_INTERNAL_SERVER_ERROR,
                "This page could not be made",
                ["That is a fault in Steward, not in your data. The API server's log has the details."],
            )
            await page(scope, receive, dressed)


def message_page(request: Request, code: int, title: str, says: list[str]) -> HTMLResponse:
    """A page with a sentence or more and nothing else; it needs neither ledger nor person."""
    frame = Frame("", "message", None, False, "", datetime.now(UTC))
    link = Addresses(request.scope.get("root_path", ""))
    text = environment().get_template("message.html").render(frame=frame, link=link, title=title, says=says)
    return HTMLResponse(text, code)


async def _sign_in(request: Request, _: Exception) -> Response:
    """To the login and back for somebody who looks at a page; everybody else is told what is missing."""
    installation: Installation = request.app.state.installation
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(installation.gate.login(back), status.HTTP_303_SEE_OTHER)
    return PlainTextResponse("Sign in first.\n", status.HTTP_401_UNAUTHORIZED, {"www-authenticate": "Bearer"})


STATUS: dict[type[StewardError], int] = {
    UnknownModel: status.HTTP_404_NOT_FOUND,
    VersionUnknown: status.HTTP_404_NOT_FOUND,
    OrchestratorRefused: status.HTTP_502_BAD_GATEWAY,
}
"""Where it is not 503 for what may pass by itself, and 409 for what will not."""


async def _refused(request: Request, problem: StewardError) -> Response:
    usual = status.HTTP_503_SERVICE_UNAVAILABLE if problem.retryable else status.HTTP_409_CONFLICT
    code = problem.facts.get("status") or STATUS.get(type(problem), usual)
    title = "The ledger cannot be read now" if isinstance(problem, LedgerUnavailable) else problem.what
    return message_page(request, code, title, said(problem))


def said(problem: StewardError) -> list[str]:
    """What an error has to say, a sentence per fact."""
    found = None if problem.got is None else f"Found: {problem.got}"
    allowed = None if problem.allowed is None else f"Allowed: {problem.allowed}"
    return [f"{fact.rstrip('.')}." for fact in (problem.what, found, allowed, problem.do) if fact]


TITLES = {403: "You may not do that", 404: "There is no such page", 409: "Nothing was done"}


async def _answered(request: Request, problem: HTTPException) -> Response:
    title = TITLES.get(problem.status_code, "That did not work")
    return message_page(request, problem.status_code, title, [problem.detail])


async def _misread(request: Request, problem: RequestValidationError) -> Response:
    says = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}." for error in problem.errors()]
    return message_page(request, status.HTTP_422_UNPROCESSABLE_CONTENT, "The request could not be read", says)
