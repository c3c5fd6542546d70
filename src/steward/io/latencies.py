"""How long the service's requests took: a row per model, hour and process beside the prediction log.

A row is a histogram, so that answering does not cost more and a year of a busy model is a few thousand rows.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import msgspec
from sqlalchemy import BigInteger, Column, Connection, Double, MetaData, Table, Text, delete, insert, select, tuple_

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds up to which requests are counted together."""
HOUR = 3_600

latencies = Table(
    "latencies",
    MetaData(),
    Column("model", Text, primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("service", Text, primary_key=True),
    Column("counts", Text, nullable=False),
    Column("seconds", Double, nullable=False),
)


@dataclass(frozen=True)
class Latency:
    """How many requests took how long.

    >>> found = Latency((90, 0, 9, 1, *[0] * 13), 0.025)
    >>> found.requests, found.mean, found.within(0.5), found.within(0.99), found.within(1)
    (100, 0.00025, 0.0001, 0.0005, 0.001)

    Attributes
    ----------
    counts : requests by the first of `BOUNDS` within which they were answered; the last ones took longer than all.
    seconds : of all of them together.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    def __add__(self, other: "Latency") -> "Latency":
        return Latency(tuple(map(int.__add__, self.counts, other.counts)), self.seconds + other.seconds)

    def __sub__(self, other: "Latency") -> "Latency":
        return Latency(tuple(map(int.__sub__, self.counts, other.counts)), self.seconds - other.seconds)

    @property
    def requests(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Seconds of a request; of at least one."""
        return self.seconds / self.requests

    def within(self, share: float) -> float | None:
        """The first bound within which such a share was answered, in seconds; None if even the last one is exceeded."""
        wanted = share * self.requests
        reached = zip(BOUNDS, accumulate(self.counts), strict=False)
        return next((bound for bound, answered in reached if answered >= wanted), None)


class Database(Protocol):
    """What of the ledger is needed here."""

    def connected(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        """A transaction on a current schema; writers take turns. Raises LedgerUnavailable."""


class LatencyStore:
    """The table of latencies in the ledger's database; every method raises LedgerUnavailable."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def write(self, service: str, found: Mapping[tuple[str, int], Latency]) -> None:
        """What a process has counted by model and hour (its start, seconds since 1970), in place of what it wrote before."""
        place = (latencies.c.model, latencies.c.hour)
        rows = [
            (model, hour, service, msgspec.json.encode(one.counts).decode(), one.seconds)
            for (model, hour), one in found.items()
        ]
        with self.database.connected(write=True) as connection:
            connection.execute(delete(latencies).where(latencies.c.service == service, tuple_(*place).in_(list(found))))
            connection.execute(insert(latencies), [dict(zip(latencies.c.keys(), row, strict=True)) for row in rows])

    def hours(self, model: str, since: float) -> dict[int, Latency]:
        """Of all processes together, by hour, from the one that a moment is in, oldest first."""
        query = select(latencies.c.hour, latencies.c.counts, latencies.c.seconds)
        query = query.where(latencies.c.model == model, latencies.c.hour >= since // HOUR * HOUR)
        found: dict[int, Latency] = {}
        with self.database.connected() as connection:
            for hour, counts, seconds in connection.execute(query.order_by(latencies.c.hour)):
                found[hour] = found.get(hour, Latency()) + Latency(tuple(msgspec.json.decode(counts)), seconds)
        return found

    def prune(self, model: str, before: float) -> None:
        """Delete what is older than a moment."""
        with self.database.connected(write=True) as connection:
            connection.execute(delete(latencies).where(latencies.c.model == model, latencies.c.hour < before - HOUR))
