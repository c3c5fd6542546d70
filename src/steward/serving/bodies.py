"""The body of a request: read within limits, then JSON without surprises.

Memory stays bounded whatever is sent: a body is refused by its declared or counted length, by how many braces, commas
and colons it has (which bound what a parser could make of it), and while too many bytes of others are under way.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from steward.errors import RecordInvalid, RequestRefused
from steward.serving.problems import refusal

Scalar = str | int | float | bool | None
Record = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
JSON = b"application/json"
DEEPEST = 32

_record = msgspec.json.Decoder(dict[str, Scalar])
_records = msgspec.json.Decoder(list[dict[str, Scalar]])


class ClientGone(Exception):
    """The client closed the connection before its request was complete; nobody is there to hear about it."""


@dataclass(frozen=True)
class Limits:
    """How much of what a request may bring."""

    record_bytes: int = 256 * 1024
    batch_bytes: int = 8 * 1024 * 1024
    batch_records: int = 10_000
    fields: int = 500_000
    """Pairs of name and value of one body."""
    values: int = 1_000_000
    """Values of one body."""
    under_way: int = 64 * 1024 * 1024
    """Bytes of all bodies that are being read or answered."""


class Bodies:
    """Reads bodies, and knows how many bytes of them are under way."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.under_way = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive, most: int) -> bytes:
        """The whole body of at most `most` bytes; `release` its length when it is answered.

        Raises
        ------
        RequestRefused : 413, 415 or 503 (too many bytes under way).
        ClientGone : it closed the connection, or was too slow (`protocol.py`).
        """
        _check_form(headers)
        if int(headers.get(b"content-length", b"0")) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        length = 0
        try:
            while True:
                message = await receive()
                _demand_client(message)
                part = message.get("body", b"")
                length += len(part)
                self.under_way += len(part)
                self._check(length, most)
                if not message.get("more_body"):
                    return b"".join((*parts, part)) if parts else part
                parts.append(part)
        except BaseException:
            self.under_way -= length
            raise

    def release(self, body: bytes) -> None:
        self.under_way -= len(body)

    def _check(self, length: int, most: int) -> None:
        if length > most:
            raise _too_large(most)
        if self.under_way > self.limits.under_way:
            raise refusal(503, "too many large requests are under way", do="Try again in a second", retry_after=1)


def _demand_client(message: Mapping[str, Any]) -> None:
    if message["type"] == "http.disconnect":
        raise ClientGone


def _check_form(headers: Mapping[bytes, bytes]) -> None:
    kind = headers.get(b"content-type", b"")
    if kind != JSON and kind.split(b";")[0].strip().lower() != JSON:
        raise refusal(
            415, "the body must be JSON", got=kind.decode("latin-1"), allowed="Content-Type: application/json"
        )
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() != b"identity":
        raise refusal(
            415, "compressed bodies are not taken", got=encoding.decode("latin-1"), allowed="Content-Encoding: identity"
        )


def _too_large(most: int) -> RequestRefused:
    return refusal(413, "the body is too large", allowed=f"{most} bytes", close=True)


def record_in(body: bytes, limits: Limits) -> Record:
    """The one JSON object of a body; raises RequestRefused (400, 413) or RecordInvalid."""
    try:
        record = _record.decode(body)
    except msgspec.ValidationError:
        found = _anything(body, limits)
        if not isinstance(found, dict):
            raise RecordInvalid("the body is not one JSON object", got=found, allowed="one record") from None
        record = found
    except ValueError as problem:
        raise _not_json(problem) from problem
    if body.count(b":") != len(record):
        _look_for_repetition(body)
    return record


def records_in(body: bytes, limits: Limits, what: str = "records") -> list[Record]:
    """The JSON array of objects of a body; raises RequestRefused (400, 413) or RecordInvalid."""
    _check_size(body, limits)
    try:
        records = _records.decode(body)
    except msgspec.ValidationError:
        found = _anything(body, limits)
        if not isinstance(found, list):
            raise RecordInvalid("the body is not a JSON array", got=found, allowed=f"an array of {what}") from None
        for position, item in enumerate(found):
            if not isinstance(item, dict):
                raise RecordInvalid("not a JSON object", got=item, allowed="one record", record=position) from None
        records = found
    except ValueError as problem:
        raise _not_json(problem) from problem
    if not 1 <= len(records) <= limits.batch_records:
        raise refusal(422, f"too many {what}, or none", got=len(records), allowed=_most(limits))
    if body.count(b":") != sum(map(len, records)):
        _look_for_repetition(body)
    return records


def _check_size(body: bytes, limits: Limits) -> None:
    """Bounds what a parser can make of a body, before it does."""
    nested = body.count(b"{") + body.count(b"[")
    if nested > 4 * limits.batch_records:
        raise refusal(422, "too many records", got=nested, allowed=_most(limits))
    if body.count(b":") > limits.fields or body.count(b",") > limits.values:
        raise refusal(413, "too many values", allowed=f"{limits.fields} fields", do="Send fewer records at a time")


def _most(limits: Limits) -> str:
    return f"1 to {limits.batch_records}"


def _anything(body: bytes, limits: Limits) -> Any:
    """A body that is not what it should be, so that the refusal can say where; its depth is bounded."""
    _check_size(body, limits)
    try:
        found = msgspec.json.decode(body)
    except RecursionError:
        raise refusal(400, "the JSON is nested too deeply", allowed=f"{DEEPEST} levels") from None
    except ValueError as problem:
        raise _not_json(problem) from problem
    if _is_deep(found):
        raise refusal(400, "the JSON is nested too deeply", allowed=f"{DEEPEST} levels")
    return found


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True


def _not_json(problem: ValueError) -> RequestRefused:
    """The position only: a parser's message may repeat what is none of its business."""
    return refusal(400, "the body is not JSON", got=str(problem)[:100], do="Send UTF-8 JSON (RFC 8259)")


def _look_for_repetition(body: bytes) -> None:
    """There are more colons than fields: in texts, or because a field stands twice and one value would be lost."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) != len(found):
            seen: set[str] = set()
            name = next(name for name, _ in found if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise RecordInvalid(f"{name[:64]} stands twice in one record", allowed="every field once", field=name)
        return made

    json.loads(body, object_pairs_hook=pairs)
