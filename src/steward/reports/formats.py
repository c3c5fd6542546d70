"""Figures as people read them: every number with its unit."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from steward.records import Estimate, figure

KIB = 1_024
SHORT = 12
"""Hex digits that tell digests apart where people read them."""
UNITS = ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute"))


def words(name: str) -> str:
    """A metric's or a candidate's name as people write it.

    >>> words("gradient_boosting")
    'gradient boosting'
    """
    return name.replace("_", " ")


def value(measured: float | None) -> str:
    """A metric's value with the digits that the ledger, the terminal and a model file have it in: a decimal, not per cent.

    >>> value(0.91234), value(23456.7), value(None)
    ('0.9123', '23,457', '—')
    """
    return "—" if measured is None or not isfinite(measured) else figure(measured)


def share(part: float | None) -> str:
    """A share of rows as per cent, with a digit more where there are few.

    >>> share(0.25), share(0.0042), share(0.00001), share(None)
    ('25 %', '0.4 %', '< 0.1 %', '—')
    """
    if part is None:
        return "—"
    if 0 < part < 0.001:  # noqa: PLR2004
        return "< 0.1 %"
    return f"{100 * part:.1f} %" if 0 < part < 0.1 else f"{100 * part:.0f} %"  # noqa: PLR2004


def number(many: float | None) -> str:
    """How many, with separators between thousands.

    >>> number(12345), number(None)
    ('12,345', '—')
    """
    return "—" if many is None else f"{many:,.0f}"


def interval(estimate: Estimate | None) -> str:
    """A value and its confidence interval.

    >>> interval(Estimate(value=0.9, low=0.88, high=0.92))
    '0.9000 (0.8800 to 0.9200)'
    """
    return "—" if estimate is None else estimate.shown


def difference(estimate: Estimate | None) -> str:
    """A signed difference and its confidence interval.

    >>> difference(Estimate(value=0.012, low=-0.004, high=0.028))
    '+0.0120 (-0.0040 to +0.0280)'
    """
    if estimate is None:
        return "—"
    middle, low, high = (
        f"{'+' if one > 0 else ''}{figure(one)}" for one in (estimate.value, estimate.low, estimate.high)
    )
    return f"{middle} ({low} to {high})"


def p_value(p: float) -> str:
    """A p-value, which nobody reads to the last digit.

    >>> p_value(0.034), p_value(3.2e-9), p_value(0)
    ('0.034', '3e-09', '< 1e-300')
    """
    if p < 1e-300:  # noqa: PLR2004 - smaller ones are zero to a computer
        return "< 1e-300"
    return f"{p:.2g}" if p >= 0.001 else f"{p:.0e}"  # noqa: PLR2004


def size(count: int) -> str:
    """Bytes as people read them.

    >>> size(512), size(2_500_000)
    ('512 B', '2.4 MiB')
    """
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < KIB:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= KIB
    return f"{amount:.1f} GiB"


def duration(microseconds: float | None) -> str:
    """A short time span in the unit that suits it.

    >>> duration(16), duration(2_345), duration(83_000_000)
    ('16 µs', '2.3 ms', '83.0 s')
    """
    if microseconds is None:
        return "—"
    if microseconds < 1_000:  # noqa: PLR2004
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1e3:.1f} ms" if microseconds < 1e6 else f"{microseconds / 1e6:.1f} s"  # noqa: PLR2004


def span(length: timedelta) -> str:
    """A long time span in its largest unit.

    >>> span(timedelta(days=7)), span(timedelta(hours=30)), span(timedelta(seconds=20))
    ('7 days', '1 day', 'less than a minute')
    """
    for unit, name in UNITS:
        if length >= unit:
            many = length // unit
            return f"{many} {name}{'s' if many > 1 else ''}"
    return "less than a minute"


def moment(at: datetime) -> str:
    """A moment in UTC, to the minute.

    >>> moment(datetime(2026, 3, 1, 6, tzinfo=UTC))
    '1 March 2026, 06:00 UTC'
    """
    return f"{at.astimezone(UTC):%-d %B %Y, %H:%M UTC}"


def day(at: datetime) -> str:
    """A day in UTC.

    >>> day(datetime(2026, 3, 1, 6, tzinfo=UTC))
    '1 March 2026'
    """
    return f"{at.astimezone(UTC):%-d %B %Y}"


def iso(at: datetime) -> str:
    """A moment for machines.

    >>> iso(datetime(2026, 3, 1, 6, tzinfo=UTC))
    '2026-03-01T06:00:00Z'
    """
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def short(digest: str) -> str:
    """The beginning of a digest."""
    return digest[:SHORT]


def address(uri: str) -> str | None:
    """What a link may lead to: a web page or a local file, and nothing else.

    >>> address("/home/me/page.html"), address("javascript:alert(1)")
    ('file:///home/me/page.html', None)
    """
    if uri.startswith("/"):
        return PurePosixPath(uri).as_uri()
    return uri if urlsplit(uri).scheme in ("http", "https", "file") else None


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names in a sentence; how many more there are where they are many.

    >>> listed(["a", "b"]), listed("abcdefg")
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
