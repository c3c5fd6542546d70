import asyncio
import time

from steward.io.latencies import HOUR, LatencyStore
from steward.io.ledger import Ledger
from steward.serving.latency_log import LatencyLog
from steward.serving.metrics import Metrics


def counted():
    metrics = Metrics(dict, {})
    return metrics, metrics.observe


def test_each_hour_has_what_came_in_it(tmp_path):
    metrics, observe = counted()
    store = LatencyStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    log = LatencyLog(metrics.latency, store)
    observe("predict", "risk", 200, 0.0004)
    asyncio.run(log.write(HOUR + 60))
    observe("predict", "risk", 200, 0.002)
    observe("predict", "risk", 422, 0.0002)
    observe("predict/batch", "risk", 200, 5)
    observe("predict", "", 404, 5)
    asyncio.run(log.write(HOUR + 120))
    observe("predict", "risk", 200, 0.2)
    asyncio.run(log.write(2 * HOUR))
    hours = store.hours("risk", 0)
    assert {hour: found.requests for hour, found in hours.items()} == {HOUR: 3, 2 * HOUR: 1}
    assert abs(hours[HOUR].seconds - 0.0026) < 1e-9
    assert store.hours("", 0) == {}


def test_what_could_not_be_written_is_written_next_time(tmp_path):
    metrics, observe = counted()
    place = tmp_path / "ledger.db"
    place.mkdir()
    store = LatencyStore(Ledger(f"sqlite:///{place}"))
    log = LatencyLog(metrics.latency, store)
    observe("predict", "risk", 200, 0.0004)
    asyncio.run(log.write(HOUR))
    place.rmdir()
    asyncio.run(log.write(2 * HOUR))
    assert {hour: found.requests for hour, found in store.hours("risk", 0).items()} == {HOUR: 1}


def test_a_service_leaves_its_latencies_when_it_ends(trained, start):
    service = start(trained)
    record = {"files": 3, "team": "web"}
    answers = [service.predict(record).status for _ in range(5)]
    assert service.stop() == 0
    hours = trained.workspace.latencies.hours("risk", time.time() - HOUR)
    assert sum(found.requests for found in hours.values()) == len(answers)
    assert all(0 < found.mean < 60 for found in hours.values())
