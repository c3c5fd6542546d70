"""Where every page is. Whatever a name says, it stays one part of a path or one value of a query."""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import steward.reports

STATIC = Path(__file__).parent / "static"
FILES = {
    "steward.css": (Path(steward.reports.__file__).parent / "templates" / "steward.css", "text/css"),
    "pages.css": (STATIC / "pages.css", "text/css"),
    "pages.js": (STATIC / "pages.js", "text/javascript"),
    "steward.svg": (STATIC / "steward.svg", "image/svg+xml"),
    "steward-dark.svg": (STATIC / "steward-dark.svg", "image/svg+xml"),
}
"""Style sheets, script and icons, by name: where they are, and what they are."""

PATHS = {
    "overview": "/",
    "model": "/models/{model}",
    "version": "/models/{model}/versions/{version}",
    "compare": "/models/{model}/compare",
    "compare_form": "/models/{model}/compare",
    "distribution": "/models/{model}/drift/{column}",
    "test_rows": "/models/{model}/test-rows",
    "card": "/models/{model}/versions/{version}/card",
    "decisions": "/decisions",
    "download": "/decisions.{format}",
    "chain": "/chain",
    "act": "/models/{model}/act",
    "train": "/models/{model}/train",
    "monitor": "/models/{model}/monitor",
    "answer": "/models/{model}/answer",
    "promote": "/models/{model}/promote",
    "rollback": "/models/{model}/rollback",
    "static": "/static/{name}",
}


class Addresses:
    """`link(kind, **names)`: names that the path of this kind has no place for become its query; None ones are left out.

    >>> Addresses("/steward")("version", model="risk", version=3)
    '/steward/models/risk/versions/3'
    >>> Addresses("")("decisions", model="risk", text="a&b", kind=None)
    '/decisions?model=risk&text=a%26b'
    """

    def __init__(self, root: str, mlflow: str | None = None) -> None:
        self._root = root
        self._mlflow = (mlflow or "").rstrip("/")

    def __call__(self, kind: str, /, **names: Any) -> str:
        path = PATHS[kind]
        placed = {name: quote(str(value), safe="") for name, value in names.items() if f"{{{name}}}" in path}
        asked = {name: _plain(value) for name, value in names.items() if name not in placed and value not in (None, "")}
        query = f"?{urlencode(asked, doseq=True)}" if asked else ""
        return f"{self._root}{path.format(**placed)}{query}"

    def asset(self, name: str) -> str:
        """A file of `FILES`; its address changes with its content, so that browsers may keep it."""
        return self("static", name=name, v=version_of(name))

    def mlflow(self, model: str, version: int) -> str | None:
        """The version's page in MLflow, if MLflow has a web address."""
        return f"{self._mlflow}/#/models/{quote(model, safe='')}/versions/{version}" if self._mlflow else None


@cache
def version_of(name: str) -> str:
    return sha256(FILES[name][0].read_bytes()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


Link = Callable[..., str]
