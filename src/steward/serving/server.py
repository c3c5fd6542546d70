"""Starts the service: checks that it may, listens, and ends without losing a prediction."""

import gc
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from types import FrameType
from typing import BinaryIO

import uvicorn

from steward.config import Settings
from steward.errors import SettingsError
from steward.io.ledger import Ledger
from steward.io.predictions import PredictionStore
from steward.serving.access import Access, KeyFile, is_loopback
from steward.serving.access_log import AccessLog
from steward.serving.app import Service
from steward.serving.bodies import Limits
from steward.serving.prediction_log import PredictionLog
from steward.serving.protocol import Protocol
from steward.serving.versions import Versions

KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 20
CONNECTIONS = 2_048
SWITCH_SECONDS = 0.0005
"""How long a thread that loads a version or writes the log may keep the event loop waiting; Python's own 5 ms are many answers."""
LEDGER_SECONDS = 5.0
"""How long outcomes wait for a locked database."""


@dataclass(frozen=True)
class Listening:
    """Where the service listens and what it tells."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: str | None = None
    private_key: str | None = None
    access_log: bool = True


def serve(settings: Settings, listening: Listening, limits: Limits | None = None) -> None:
    """Serve until a signal ends it; answered predictions are on record by then.

    Raises
    ------
    SettingsError : another interface than loopback and no API keys, or an address that cannot be had.
    """
    access = Access(KeyFile(settings.home))
    _check_exposure(listening, access)
    stream: BinaryIO | None = sys.stderr.buffer if listening.access_log else None
    _keep_journal()
    sys.setswitchinterval(SWITCH_SECONDS)
    versions = Versions(settings)
    with _listen(listening) as taken:
        versions.start()
        store = PredictionStore(Ledger(settings.ledger_url, LEDGER_SECONDS))
        log = PredictionLog(store, settings.home / "spool")
        service = Service(versions, log, store, access, limits or Limits(), AccessLog(stream))
        gc.freeze()  # what was loaded stays: looking for garbage in it takes milliseconds of somebody's answer
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn ends gracefully, then raises them once more
            signal.signal(number, _ignore)
        uvicorn.Server(_configuration(service, listening)).run(sockets=[taken])


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """What had to be done about this signal is done."""


def _check_exposure(listening: Listening, access: Access) -> None:
    if not access.required and not is_loopback(listening.host):
        raise SettingsError(
            "without API keys the service answers this machine only",
            got=listening.host,
            allowed="127.0.0.1, ::1 or localhost",
            do="`steward keys add NAME --model MODEL` makes a key",
        )


def _listen(listening: Listening) -> socket.socket:
    """The socket is taken before anything is loaded, so that a taken port is said at once."""
    family = socket.AF_INET6 if ":" in listening.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((listening.host, listening.port))
    except OSError as problem:
        taken.close()
        raise SettingsError(
            "this address cannot be listened on", got=f"{listening.host}:{listening.port} ({problem.strerror})",
            do="Choose another with --host and --port",
        ) from problem  # fmt: skip
    return taken


def _configuration(service: Service, listening: Listening) -> uvicorn.Config:
    return uvicorn.Config(
        service,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        access_log=False,
        log_config=None,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        limit_concurrency=CONNECTIONS,
        backlog=CONNECTIONS,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.private_key,
    )


def _keep_journal() -> None:
    """What happens, in one line each, on stderr; request lines are the access log's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name, level in (("steward", logging.INFO), ("uvicorn", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
