"""When something happened, as text: ISO 8601 in UTC, to the millisecond."""

from datetime import UTC, datetime
from functools import lru_cache


def timestamp(at: float) -> str:
    """Seconds since 1970 as text.

    >>> timestamp(1_767_225_600.123)
    '2026-01-01T00:00:00.123+00:00'
    """
    second, milliseconds = divmod(int(at * 1_000), 1_000)
    return f"{_second(second)}.{milliseconds:03d}+00:00"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    """Requests of one second share what costs the most."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
