"""One request of one person: what they may see, and the frame around what they see."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request, status
from fastapi.responses import HTMLResponse

from steward.config import ModelFile
from steward.io.workspace import Workspace
from steward.pages.access import Forms, Gate, Person
from steward.pages.addresses import Addresses
from steward.pages.model_files import ModelFiles
from steward.pages.orchestration import Orchestrator
from steward.reports.templating import environment


@dataclass(frozen=True)
class Installation:
    """Everything that the pages of one installation share."""

    gate: Gate
    orchestrator: Orchestrator
    workspace: Workspace
    model_files: ModelFiles
    forms: Forms


@dataclass(frozen=True)
class Frame:
    """What `base.html` draws around a page."""

    person: str
    here: str
    model: str | None
    may_act: bool
    token: str
    drawn_at: datetime


class Visit:
    """A request; everything on it that blocks is asked for in the route's own thread."""

    def __init__(self, installation: Installation, request: Request, person: Person) -> None:
        self.installation = installation
        self.request = request
        self.person = person
        self.workspace = installation.workspace
        self.orchestrator = installation.orchestrator
        self.now = datetime.now(UTC)
        self.link = Addresses(request.scope.get("root_path", ""), installation.workspace.settings.mlflow_ui)

    @cached_property
    def readable(self) -> frozenset[str]:
        return self.installation.gate.readable(self.person)

    @cached_property
    def editable(self) -> frozenset[str]:
        return self.installation.gate.editable(self.person)

    @cached_property
    def _browser(self) -> str:
        return self.installation.forms.begin(self.request)

    def model(self, name: str) -> ModelFile:
        """A model that they may read: 403 if they may not, UnknownModel if it has no file any more."""
        if name not in self.readable:
            raise HTTPException(
                status.HTTP_403_FORBIDDEN, f"Airflow has no DAG {name}.train, or {self.person.name} may not read it."
            )
        models, problems = self.installation.model_files.among([name])
        for problem in problems:
            raise problem
        return models[0] if models else self.workspace.model(name)

    def editable_model(self, name: str) -> ModelFile:
        """A model that they may act on; 403 if they may not."""
        model = self.model(name)
        if name not in self.editable:
            raise HTTPException(
                status.HTTP_403_FORBIDDEN,
                f"{self.person.name} may read {name} and not act on it: that takes the right to edit its DAG {name}.train.",
            )
        return model

    def frame(self, here: str, model: str | None = None) -> dict[str, Any]:
        """What every template is given; `here` names the page for the navigation."""
        token = self.installation.forms.token(self._browser, self.person)
        frame = Frame(self.person.name, here, model, model in self.editable, token, self.now)
        return {"frame": frame, "link": self.link}

    def answer(self, html: str) -> HTMLResponse:
        """A page, with the cookie that its forms need."""
        response = HTMLResponse(html)
        self.installation.forms.keep(self.request, response, self._browser)
        return response

    def show(self, template: str, here: str, of: str | None = None, **values: Any) -> HTMLResponse:
        """A page from a template of ours; `of` is the model that it is about."""
        page: Mapping[str, Any] = {**self.frame(here, of), **values}
        return self.answer(environment().get_template(template).render(**page))


async def visit(request: Request) -> Visit:
    """Of every route; raises SignedOut."""
    installation: Installation = request.app.state.installation
    return Visit(installation, request, await installation.gate.person(request))


Visiting = Annotated[Visit, Depends(visit)]
