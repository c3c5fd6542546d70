"""Puts on record how long requests took, for those who look hours later: once a minute, from what was counted anyway."""

import asyncio
import logging
import time
from collections.abc import Mapping

from steward.errors import LedgerUnavailable
from steward.io.latencies import HOUR, Latency, LatencyStore
from steward.io.predictions import new_id
from steward.serving.metrics import Histogram

SECONDS = 60.0
"""Between two times that it is written."""

journal = logging.getLogger(__name__)


class LatencyLog:
    """What one process has counted, by model and hour; belongs to one event loop.

    Parameters
    ----------
    counted : by endpoint and model, since the process began. Requests for one prediction are put on record.
    """

    def __init__(self, counted: Mapping[tuple[str, str], Histogram], store: LatencyStore) -> None:
        self._counted = counted
        self._store = store
        self._service = new_id(time.time())
        self._seen: dict[str, Latency] = {}
        self._hours: dict[tuple[str, int], Latency] = {}
        self._unwritten: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Write every minute, until it is cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            await self.write(time.time())

    async def write(self, at: float) -> None:
        """What has come since the last time belongs to the hour of `at`; what cannot be written now is written next time."""
        hour = int(at // HOUR * HOUR)
        self._gather(hour)
        if not self._unwritten:
            return
        try:
            found = {place: self._hours[place] for place in self._unwritten}
            await asyncio.to_thread(self._store.write, self._service, found)
        except LedgerUnavailable as problem:
            journal.warning("latencies are not on record yet: %s", problem)
            return
        self._unwritten.clear()
        self._hours = {place: told for place, told in self._hours.items() if place[1] == hour}

    def _gather(self, hour: int) -> None:
        for (endpoint, model), histogram in self._counted.items():
            now = Latency(tuple(histogram.counts), histogram.total)
            news = now - self._seen.get(model, Latency())
            if endpoint == "predict" and model and news.requests:
                self._seen[model] = now
                self._hours[model, hour] = self._hours.get((model, hour), Latency()) + news
                self._unwritten.add((model, hour))
