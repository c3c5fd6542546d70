"""What it costs to put a prediction on record before it is answered, by level and number of connections.

Connections are coroutines of one event loop, each of which waits for its answer before it predicts again. Beside the
log, a request does --request microseconds of work: as much as the fastest plausible service takes, so that levels are
compared by what a caller feels; 0 shows the log alone. Levels take turns within a round, and so does what limits
`durable` at one connection: a row appended to a file and its `fdatasync`. PostgreSQL is started on a spare port where
its binaries are. The latency that is compared is the mean one of a closed loop, connections / rate: a request waits for
the work of the others, too.

    python benchmarks/prediction_log.py --rounds 10
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steward.io.ledger import Ledger
from steward.io.predictions import Logged, PredictionStore, new_id
from steward.serving.prediction_log import PredictionLog

LEVELS = ("relaxed", "crash_safe", "durable")
CONNECTIONS = (1, 8, 32)
RECORD = json.dumps({"files_changed": 12, "environment": "prod", "team": "web", "hour": 4, "previous_failures": None})
ANSWER = json.dumps(
    {
        "prediction": "High",
        "confidence": 0.81,
        "probabilities": {"Low": 0.07, "Medium": 0.12, "High": 0.81},
        "interval": None,
        "action": "require_approval",
        "unseen": [],
        "flags": [],
    }
)


def prediction(number: int) -> Logged:
    at = time.time()
    key = f"deployment-{number}"
    return Logged(new_id(at), "risk", at, 3, key, RECORD, ANSWER, "High", 0.81, "require_approval", False, None)


def work(microseconds: float) -> None:
    end = time.perf_counter() + microseconds / 1e6
    while time.perf_counter() < end:
        pass


async def measured(log: PredictionLog, level: str, connections: int, seconds: float, request: float) -> list[float]:
    """Seconds from request to answer."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def connection() -> None:
        while (began := time.perf_counter()) < end:
            work(request)
            await log.write([prediction(len(taken))], level, "spool")
            taken.append(time.perf_counter() - began)
            await asyncio.sleep(0)

    await asyncio.gather(*(connection() for _ in range(connections)))
    await log.write([prediction(0)], "crash_safe", "spool")  # behind everything that still waits
    return taken


def synced(folder: Path, seconds: float) -> list[float]:
    """Seconds of one row appended to a file and `fdatasync`."""
    taken = []
    line = (RECORD + ANSWER).encode()
    descriptor = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        os.write(descriptor, line)
        os.fdatasync(descriptor)
        taken.append(time.perf_counter() - began)
    os.close(descriptor)
    return taken


def percentile(taken: list[float], share: float) -> float:
    """Milliseconds."""
    return 1e3 * sorted(taken)[min(len(taken) - 1, int(share * len(taken)))]


async def rounds(url: str, folder: Path, options: argparse.Namespace) -> None:
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    halves: dict[tuple[str, int], list[float]] = defaultdict(list)
    tails: dict[tuple[str, int], list[float]] = defaultdict(list)
    floors = []
    store = PredictionStore(Ledger(url))
    log = PredictionLog(store, folder / "spool")
    await log.start()
    written = 0
    for _ in range(options.rounds):
        floors.append(percentile(synced(folder, options.seconds / 2), 0.5))
        for connections in CONNECTIONS:
            for level in LEVELS:
                taken = await measured(log, level, connections, options.seconds, options.request)
                rates[level, connections].append(len(taken) / options.seconds)
                halves[level, connections].append(percentile(taken, 0.5))
                tails[level, connections].append(percentile(taken, 0.99))
                written += len(taken) + 1
    await log.close()
    floor = statistics.median(floors)
    print(
        f"| level | connections | predictions/s | p50 ms | p99 ms | latency / relaxed | p50 - fdatasync ({floor:.2f} ms) |"
    )
    print("|---|---|---|---|---|---|---|")
    for level in LEVELS:
        for connections in CONNECTIONS:
            rate, half, tail = (statistics.median(table[level, connections]) for table in (rates, halves, tails))
            ratio = statistics.median(rates["relaxed", connections]) / rate
            beyond = f"{half - floor:+.2f}" if level == "durable" else ""
            print(f"| {level} | {connections} | {rate:,.0f} | {half:.3f} | {tail:.2f} | {ratio:.2f} | {beyond} |")
    print(f"\n{written:,} rows answered, {store.count():,} in the database\n")


@contextmanager
def postgresql() -> Iterator[str | None]:
    """The URL of a server of our own; None where there are no binaries."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="steward-benchmark-"))
    owner = {"user": "postgres"} if os.geteuid() == 0 else {}
    if owner:
        shutil.chown(folder, "postgres")

    def run(*command: str | Path) -> None:
        subprocess.run(
            [found[-1].parent / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL, cwd="/", **owner
        )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    run("initdb", "-D", data, "-A", "trust", "-U", "steward")
    listening = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    run("pg_ctl", "-D", data, "-o", listening, "-w", "start")
    try:
        yield f"postgresql://steward@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    parser.add_argument("--request", type=float, default=150.0, help="microseconds of work per request beside the log")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; a temporary one without it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        print("## SQLite\n")
        asyncio.run(rounds(f"sqlite:///{folder / 'ledger.db'}", folder, options))
        with postgresql() as url:
            if url:
                print("## PostgreSQL\n")
                asyncio.run(rounds(url, folder, options))


if __name__ == "__main__":
    main()
