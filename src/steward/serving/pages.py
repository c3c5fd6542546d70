"""What the service says about itself: models, and the page on which everything can be tried by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steward.serving.lineup import Lineup
from steward.serving.versions import Versions

STATIC = Path(__file__).parent / "static"

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing comes from another host, and no script but ours runs."""

FILES = {
    "/docs": ("try.html", b"text/html; charset=utf-8"),
    "/docs/try.js": ("try.js", b"text/javascript; charset=utf-8"),
    "/docs/try.css": ("try.css", b"text/css; charset=utf-8"),
}


def page(path: str) -> tuple[bytes, int, bytes, tuple[tuple[bytes, bytes], ...]]:
    """Body, status, content type and headers of one of `FILES`."""
    name, kind = FILES[path]
    headers = ((b"content-security-policy", POLICY), (b"cache-control", b"no-cache"))
    return (STATIC / name).read_bytes(), 200, kind, headers


class Documents:
    """The OpenAPI document, made anew only when some model's lineup has changed: FastAPI takes its time to load."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._made: tuple[Mapping[str, Lineup], bytes] | None = None

    def openapi(self, most: int) -> bytes:
        """As JSON; `most` is how many records a batch may hold."""
        from steward.serving import openapi

        lineups = self._versions.lineups
        if self._made is None or self._made[0] != lineups:
            self._made = (lineups, openapi.document(lineups.values(), most))
        return self._made[1]


def summary(lineup: Lineup) -> dict[str, Any]:
    """A model in a list."""
    model = lineup.model
    return {
        "name": model.name,
        "description": model.description,
        "task": model.task,
        "champion": lineup.champion,
        "previous": lineup.previous,
    }


def description(lineup: Lineup) -> dict[str, Any]:
    """A model with its contract: what may be sent, and what comes back."""
    contract, serve = lineup.contract, lineup.model.serve
    first = lineup.contenders[0].engine if lineup.contenders else None
    return {
        **summary(lineup),
        "answers": None if first is None else {"version": first.number, "engine": first.predictor.engine},
        "columns": {name: column.model_dump(mode="json") for name, column in contract.columns.items()},
        "classes": list(contract.classes),
        "example": None if first is None else first.predictor.made.example,
        "serve": serve.model_dump(mode="json"),
    }
