"""What the service counts, as Prometheus reads it.

Counting must not cost more than answering, so that everything counts in plain dictionaries of the event loop's thread;
`prometheus_client` writes them out when somebody asks.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from steward.io.latencies import BOUNDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many requests took how long."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus has them."""
        found, so_far = [], 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found


class Metrics(Collector):
    """Counters of one process.

    Parameters
    ----------
    versions : asked at every scrape: per model the numbers of champion and previous, None where there is none.
    gauges : asked at every scrape: name and help of a number → the number.
    """

    def __init__(
        self,
        versions: Callable[[], Mapping[str, Mapping[str, int | None]]],
        gauges: Mapping[tuple[str, str], Callable[[], float]],
    ) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """By endpoint, model and status."""
        self.latency: dict[tuple[str, str], Histogram] = {}
        """By endpoint and model."""
        self.predictions: Counter[tuple[str, str]] = Counter()
        """By model and version."""
        self.fallbacks: Counter[tuple[str, str]] = Counter()
        """By model and what answered instead."""
        self.unseen: Counter[tuple[str, str]] = Counter()
        """By model and column."""
        self.flags: Counter[tuple[str, str]] = Counter()
        """By model and kind of flag."""
        self.unlogged: Counter[tuple[str]] = Counter()
        """By model: answers whose row is spooled."""
        self._versions = versions
        self._gauges = gauges
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def observe(self, endpoint: str, model: str, status: int, seconds: float) -> None:
        """One answered request."""
        self.requests[endpoint, model, status] += 1
        histogram = self.latency.get((endpoint, model))
        if histogram is None:
            histogram = self.latency[endpoint, model] = Histogram()
        histogram.observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield _counter("steward_requests", "Requests answered", ("endpoint", "model", "status"), self.requests)
        latency = HistogramMetricFamily(
            "steward_request_seconds",
            "Time from the first byte of a request to its answer",
            labels=("endpoint", "model"),
        )
        for labels, histogram in list(self.latency.items()):
            latency.add_metric(labels, histogram.buckets(), histogram.total)
        yield latency
        yield _counter("steward_predictions", "Records answered", ("model", "version"), self.predictions)
        yield _counter("steward_fallbacks", "Records not answered by the champion", ("model", "by"), self.fallbacks)
        yield _counter(
            "steward_unseen_values", "Categories that training did not know", ("model", "column"), self.unseen
        )
        yield _counter("steward_flagged_records", "Unusual records that were accepted", ("model", "flag"), self.flags)
        yield _counter("steward_spooled_predictions", "Answers not yet in the database", ("model",), self.unlogged)
        version = GaugeMetricFamily("steward_version", "Version that serves; 0 if none", labels=("model", "alias"))
        for model, aliases in self._versions().items():
            for alias, number in aliases.items():
                version.add_metric((model, alias), number or 0)
        yield version
        for (name, meaning), ask in self._gauges.items():
            yield GaugeMetricFamily(name, meaning, value=ask())


def _counter(name: str, meaning: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    """`counts` is by the values of the labels."""
    for values, count in list(counts.items()):
        family.add_metric([str(value) for value in values], count)
    return family
