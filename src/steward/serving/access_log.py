"""One JSON line per request: never a record, never a key, only who asked for what and how it went."""

import asyncio
import time
from typing import BinaryIO

import msgspec

from steward.serving.timestamps import timestamp

FLUSH_SECONDS = 0.25
FLUSH_LINES = 256


class Line(msgspec.Struct, frozen=True, gc=False):
    at: str
    request_id: str
    client: str | None
    key: str | None
    """The key's name."""
    method: str
    path: str
    status: int
    milliseconds: float
    received: int
    """Bytes of the request's body."""
    sent: int


class AccessLog:
    """Collects lines and writes them a few times a second.

    Parameters
    ----------
    stream : where the lines go; None for nowhere.
    """

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = stream
        self._lines: list[Line] = []
        self._encode = msgspec.json.Encoder().encode_lines
        self._flush_is_due: asyncio.TimerHandle | None = None

    def write(
        self, request_id: str, client: str | None, key: str | None, method: str, path: str, status: int,
        seconds: float, received: int, sent: int,
    ) -> None:  # fmt: skip
        if self._stream is None:
            return
        at, milliseconds = timestamp(time.time()), round(seconds * 1_000, 3)
        self._lines.append(Line(at, request_id, client, key, method, path, status, milliseconds, received, sent))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._flush_is_due is None:
            self._flush_is_due = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._flush_is_due is not None:
            self._flush_is_due.cancel()
            self._flush_is_due = None
        lines, self._lines = self._lines, []
        if lines and self._stream is not None:
            try:
                self._stream.write(self._encode(lines))
                self._stream.flush()
            except OSError:  # whoever reads the log has gone, or its disk is full: predictions are worth more
                self._stream = None
