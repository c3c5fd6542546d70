"""What went wrong, as HTTP says it: one status per error, one form for every body."""

from typing import Any

import msgspec

from steward.core.requests import problems_of
from steward.errors import (
    AnswerInvalid,
    LedgerUnavailable,
    LogUnavailable,
    NoChampion,
    RecordInvalid,
    RequestRefused,
    StewardError,
    UnknownModel,
)

STATUSES: dict[type[StewardError], int] = {
    RecordInvalid: 422,
    UnknownModel: 404,
    RequestRefused: 400,
    NoChampion: 503,
    AnswerInvalid: 503,
    LogUnavailable: 503,
    LedgerUnavailable: 503,
}
"""`RequestRefused` may carry another 4xx in its facts."""

LONGEST = 200
"""Characters of a sent value that are repeated in an answer."""


def status_of(problem: StewardError) -> int:
    """The HTTP status of an error; 500 for one that no request should meet."""
    status = problem.facts.get("status") if isinstance(problem, RequestRefused) else None
    return status or STATUSES.get(type(problem), 500)


def refusal(
    status: int, what: str, *, got: object = None, allowed: object = None, do: str | None = None, **facts: Any
) -> RequestRefused:
    """A request that is not taken, with its HTTP status."""
    return RequestRefused(what, got=got, allowed=allowed, do=do, status=status, **facts)


def body_of(problem: StewardError, request_id: str) -> bytes:
    """The JSON body of a refusal: only what the caller sent, and what the contract allows."""
    body: dict[str, Any] = {
        "error": problem.name,
        "what": problem.what,
        "got": _shown(problem.got),
        "allowed": _shown(problem.allowed, 10 * LONGEST),
        "do": problem.do if not isinstance(problem, RecordInvalid) else None,
        "problems": [],
        "request_id": request_id,
    }
    if isinstance(problem, RecordInvalid):
        found = list(problems_of(problem)) or [{"field": problem.facts.get("field"), **body}]
        body["problems"] = [
            {
                "record": problem.facts.get("record"),
                "field": _shown(each["field"]),
                "what": each["what"],
                "got": _shown(each["got"]),
                "allowed": _shown(each["allowed"], 10 * LONGEST),
            }
            for each in found
        ]
    return msgspec.json.encode(body)


def _shown(value: object, longest: int = LONGEST) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
