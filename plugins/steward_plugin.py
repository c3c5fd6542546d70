"""Steward's pages in Airflow's own web interface: in its menu, and as a tab of every DAG, run and task.

Every process of Airflow executes this file, so that it imports nothing but what Airflow has loaded anyway. The pages are
imported by the first request for one in the API server, usually that for their picture in the menu; if that fails, their
address says so and Airflow goes on.
"""

import logging
from functools import cached_property
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import Request

    from steward.pages.access import Person
    from steward.pages.orchestration import Kind, Question

log = logging.getLogger(__name__)

PREFIX = "/steward"
ROOT = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
"""Path under which Airflow itself is served."""

PASSED_ON = (403, 404, 409)
"""Refusals of Airflow that are the page's refusals too."""

NO_PAGES = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Steward</title><h1>Steward's pages cannot be shown</h1>
<p>The package <code>steward</code> could not be loaded in Airflow's API server, or its settings are wrong. The server's log
says why. Airflow's other pages are not affected.</p></html>"""


class StewardPages:
    """An ASGI application that becomes Steward's pages with its first request."""

    def __init__(self) -> None:
        self._pages: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._pages is None:
            self._pages = await self._load(scope["app"])
        await (self._pages or self._say_so)(scope, receive, send)

    async def _load(self, airflow: Any) -> Any:
        from starlette.concurrency import run_in_threadpool

        try:
            return await run_in_threadpool(make_pages, airflow)
        except Exception:
            log.exception("Steward's pages cannot be shown")
            return None

    async def _say_so(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import HTMLResponse

        headers = {"content-security-policy": "default-src 'none'; frame-ancestors 'self'"}
        await HTMLResponse(NO_PAGES, 503, headers)(scope, receive, send)


def make_pages(airflow: Any) -> Any:
    """The pages of the installation that the environment describes."""
    from airflow.api_fastapi.auth.tokens import get_signing_key

    from steward.config import Settings
    from steward.io.workspace import Workspace
    from steward.pages.app import create_app, prepare

    workspace = Workspace(Settings.from_environment())
    key = f"steward's forms {get_signing_key('api', 'secret_key')}".encode()
    app = create_app(AirflowGate(), AirflowOrchestrator(airflow), workspace, key)
    Thread(target=prepare, args=(app,), daemon=True).start()
    return app


class AirflowGate:
    """Airflow's signed-in user, and their rights on `<model>.train`."""

    @cached_property
    def _manager(self) -> Any:
        from airflow.api_fastapi.app import get_auth_manager

        return get_auth_manager()

    async def person(self, request: "Request") -> "Person":
        from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
        from fastapi import HTTPException

        from steward.pages.access import Person, SignedOut

        try:
            user = await get_user(request, None, await bearer_scheme(request))
        except HTTPException as problem:
            raise SignedOut from problem
        return Person(user.get_name(), user)

    def readable(self, person: "Person") -> frozenset[str]:
        return self._models(person, "GET")

    def editable(self, person: "Person") -> frozenset[str]:
        return self._models(person, "PUT")

    def _models(self, person: "Person", method: str) -> frozenset[str]:
        allowed = self._manager.get_authorized_dag_ids(user=person.user, method=method)
        return frozenset(dag_id.removesuffix(".train") for dag_id in allowed if dag_id.endswith(".train"))

    def login(self, back: str) -> str:
        return str(self._manager.get_url_login(next_url=back))


class AirflowOrchestrator:
    """Airflow's public REST interface, asked inside its own process with the credentials of the request at hand.

    So every right is checked, and every act is in the audit log, as if the person had used the interface themselves.
    """

    def __init__(self, airflow: Any) -> None:
        self._airflow = airflow

    def start(self, request: "Request", model: str, kind: "Kind", run_id: str, reason: str) -> None:
        form = {"reason": reason} if kind == "train" else {}
        body = {"dag_run_id": run_id, "logical_date": None, "conf": form}
        self._ask(request, "POST", f"/dags/{_part(f'{model}.{kind}')}/dagRuns", body, (200, 409))

    def questions(self, request: "Request", model: str) -> "list[Question]":
        from steward.pages.orchestration import Question

        asked = "response_received=false&task_id=ask&state=deferred&state=awaiting_input&order_by=-created_at"
        found = self._ask(request, "GET", f"/dags/{_part(f'{model}.train')}/dagRuns/~/hitlDetails?{asked}")
        return [
            Question(one["task_instance"]["dag_run_id"], one["subject"], one["body"] or "")
            for one in found["hitl_details"]
        ]

    def answer(self, request: "Request", model: str, run_id: str, *, approve: bool, why: str) -> None:
        run = f"/dags/{_part(f'{model}.train')}/dagRuns/{_part(run_id)}"
        body = {"chosen_options": ["Approve" if approve else "Reject"], "params_input": {"why": why}}
        self._ask(request, "PATCH", f"{run}/taskInstances/ask/-1/hitlDetails", body)

    def run_page(self, model: str, kind: "Kind", run_id: str) -> str:
        return f"{ROOT}/dags/{_part(f'{model}.{kind}')}/runs/{_part(run_id)}"

    def _ask(
        self, request: "Request", method: str, path: str, body: Any = None, expected: tuple[int, ...] = (200,)
    ) -> Any:
        """From a route's thread."""
        from anyio import from_thread

        from steward.errors import OrchestratorRefused

        code, answer = from_thread.run(self._send, request, method, f"{ROOT}/api/v2{path}", body)
        if code not in expected:
            said = answer.get("detail") if isinstance(answer, dict) else answer
            raise OrchestratorRefused(
                "Airflow did not do that",
                got=f"{code}: {said}",
                do="The DAG's page in Airflow says more; whoever gives rights in Airflow can give one that is missing",
                status=code if code in PASSED_ON else 502,
            )
        return answer

    async def _send(self, request: "Request", method: str, url: str, body: Any) -> tuple[int, Any]:
        from httpx import ASGITransport, AsyncClient

        kept = ("authorization", "cookie", "host", "user-agent")
        headers = {name: request.headers[name] for name in kept if name in request.headers}
        headers["referer"] = str(request.url)  # the audit log then says that it was done from the web interface
        transport = ASGITransport(self._airflow, client=(request.client.host, 0) if request.client else ("", 0))
        base = f"{request.url.scheme}://{request.url.netloc}"
        async with AsyncClient(transport=transport, base_url=base, headers=headers, timeout=60) as client:
            answer = await client.request(method, url, json=body)
        return answer.status_code, answer.json() if answer.content else None


def _part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _view(name: str, destination: str, path: str, **more: Any) -> dict[str, Any]:
    icons = {"icon": "steward.svg", "icon_dark_mode": "steward-dark.svg"}
    return {
        "name": "Steward",
        "destination": destination,
        "href": f"{ROOT}{PREFIX}{path}",
        "url_route": name,
        **{field: f"{ROOT}{PREFIX}/static/{file}" for field, file in icons.items()},
        **more,
    }


class StewardPlugin(AirflowPlugin):  # type: ignore[misc]
    """What Airflow is told."""

    name = "steward"
    fastapi_apps = [{"app": StewardPages(), "url_prefix": PREFIX, "name": "Steward"}]  # noqa: RUF012 - Airflow's own form
    external_views = [  # noqa: RUF012
        _view("steward", "nav", "/", nav_top_level=True),
        _view("steward-dag", "dag", "/dags/{DAG_ID}"),
        _view("steward-run", "dag_run", "/dags/{DAG_ID}/runs/{RUN_ID}"),
        _view("steward-task", "task", "/dags/{DAG_ID}"),
        _view("steward-task-instance", "task_instance", "/dags/{DAG_ID}/runs/{RUN_ID}"),
    ]
