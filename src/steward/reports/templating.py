"""The templates of cards and pages. Whatever a value says, it is text: every template escapes."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from steward.reports import formats

UNORDERED = {number: f"\\u{number:04x}" for number in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that turn the direction of all text after them; a name that has one shows its code instead."""


def _in_order(shown: Any) -> Any:
    """What a template shows, with nothing in it that could turn what stands after it."""
    return shown.translate(UNORDERED) if isinstance(shown, str) and not shown.isascii() else shown


@cache
def environment() -> Environment:
    """The one environment that every template of Steward is read by."""
    made = Environment(
        loader=PackageLoader("steward.reports"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        finalize=_in_order,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: dict[str, Any] = {
        name: getattr(formats, name)
        for name in (
            "address", "day", "difference", "duration", "interval", "iso", "listed", "moment", "number", "p_value",
            "share", "short", "size", "span", "value", "words",
        )
    }  # fmt: skip
    made.filters |= shown
    return made


@cache
def stylesheet() -> dict[str, str]:
    """What a page that stands alone needs: the style, and the hash by which its content security policy allows it."""
    text = (files("steward.reports") / "templates" / "steward.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"style": Markup(text), "style_hash": f"sha256-{digest}"}  # noqa: S704 - a file of ours
