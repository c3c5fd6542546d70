from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from steward.errors import LedgerUnavailable
from steward.io.latencies import BOUNDS, HOUR, Latency, LatencyStore
from steward.io.ledger import Ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LatencyStore:
    if request.param == "sqlite":
        return LatencyStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    server = request.getfixturevalue("server")
    name = f"latencies_{abs(hash(tmp_path))}"
    engine = create_engine(make_url(f"{server}postgres").set(drivername="postgresql+psycopg"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return LatencyStore(Ledger(f"{server}{name}"))


def latency(seconds: float, **requests: int) -> Latency:
    """So many requests within the bound of this number, as `b3=2`; all of them together took so long."""
    counts = [requests.get(f"b{place}", 0) for place in range(len(BOUNDS) + 1)]
    return Latency(tuple(counts), seconds)


def test_processes_add_up_and_a_process_replaces_what_it_wrote(store):
    store.write(
        "a", {("risk", 0): latency(0.1, b0=1), ("risk", HOUR): latency(0.2, b1=2), ("price", 0): latency(9, b9=1)}
    )
    store.write("b", {("risk", HOUR): latency(0.5, b1=1, b16=1)})
    store.write("a", {("risk", HOUR): latency(0.3, b1=3)})
    assert store.hours("risk", 0) == {0: latency(0.1, b0=1), HOUR: latency(0.8, b1=4, b16=1)}
    assert list(store.hours("risk", HOUR + 5.5)) == [HOUR]
    assert store.hours("other", 0) == {}


def test_old_hours_are_pruned_of_one_model(store):
    store.write("a", {(model, hour * HOUR): latency(1, b0=1) for model in ("risk", "price") for hour in range(4)})
    store.prune("risk", 2.5 * HOUR)
    assert list(store.hours("risk", 0)) == [2 * HOUR, 3 * HOUR]
    assert len(store.hours("price", 0)) == 4


@pytest.mark.parametrize(
    ("share", "within"),
    [(0.5, BOUNDS[1]), (0.9, BOUNDS[1]), (0.91, BOUNDS[4]), (0.99, BOUNDS[4]), (1, None)],
)
def test_within(share, within):
    assert latency(1, b0=40, b1=50, b4=9, b16=1).within(share) == within


def test_a_database_that_is_away_is_said(tmp_path):
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(LedgerUnavailable, match="cannot be used now"):
        LatencyStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")).hours("risk", 0)
