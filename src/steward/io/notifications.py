"""Messages to people, through the Apprise URLs of `notify`: one per cause, and no run fails because of one.

An Apprise URL holds a secret as often as not. So no URL gets into a log, the ledger or an error: a service is named by
its place in the list and the kind of URL, and Apprise's own log, which quotes URLs, is silent meanwhile.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from steward.errors import StewardError
from steward.io.ledger import Ledger

KIND = "notification"
PATIENCE = 20.0
"""Seconds that all services together may take to accept one message."""
VARIABLE = re.compile(r"\$\{(\w+)\}")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """A message to people.

    Attributes
    ----------
    cause : identity of what happened; it is told once, however often it is found.
    text : figures and reasons, in sentences.
    """

    cause: str
    title: str
    text: str
    level: Literal["info", "success", "warning", "failure"] = "info"


def tell(
    ledger: Ledger, model: str, urls: Sequence[str], notices: Iterable[Notice], *, link: str | None, at: datetime
) -> int:
    """Send every notice whose cause was not told before; answers how many were sent. Never raises.

    A message is put on record when at least one service has accepted it. So one that nobody accepted is tried again when
    its cause is found again, and one whose sender was killed in between may come twice rather than never.

    Parameters
    ----------
    urls : of `notify`; `${NAME}` is replaced from the environment.
    link : where to see more.
    """
    if not urls:
        return 0
    return sum(_tell(ledger, model, urls, notice, link, at) for notice in notices)


def _tell(ledger: Ledger, model: str, urls: Sequence[str], notice: Notice, link: str | None, at: datetime) -> bool:
    try:
        if ledger.find(model, KIND, notice.cause):
            return False
        text = f"{notice.text}\n{link}" if link else notice.text
        refused = [_shown(number, url) for number, url in enumerate(urls) if not _send(url, notice, text)]
        for service in refused:
            log.warning("%s did not accept the message %r", service, notice.title)
        if len(refused) == len(urls):
            return False
        body = {"title": notice.title, "text": text, "accepted": len(urls) - len(refused), "refused": refused}
        ledger.append(model, KIND, notice.cause, body, at)
    except StewardError as problem:
        log.warning("the message %r was not put on record: %s", notice.title, problem)
        return False
    return True


def _send(url: str, notice: Notice, text: str) -> bool:
    """Whether the service behind a URL has accepted the message."""
    import apprise

    with _silent("apprise"):
        try:
            service = apprise.Apprise(asset=apprise.AppriseAsset(app_id="Steward", app_desc="Steward"))
            if not service.add(_filled(url, os.environ)):
                return False
            kind, plain = apprise.NotifyType(notice.level), apprise.NotifyFormat.TEXT  # a service of HTML escapes it
            return bool(service.notify(text, notice.title, kind, body_format=plain, timeout=PATIENCE))
        except Exception:  # noqa: BLE001 - a plugin's error may quote the URL; the caller says which service it was
            return False


def _filled(url: str, environment: Mapping[str, str]) -> str:
    """A URL with every `${NAME}` replaced; raises KeyError for one that is not set."""
    return VARIABLE.sub(lambda name: environment[name[1]], url)


def _shown(number: int, url: str) -> str:
    """A service without anything secret.

    >>> _shown(0, "slack://token/#channel"), _shown(1, "${TEAM_CHANNEL}")
    ('notify[0] (slack)', 'notify[1]')
    """
    kind = re.match(r"[a-z0-9]+(?=://)", url)
    return f"notify[{number}] ({kind[0]})" if kind else f"notify[{number}]"


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """No line of this logger is written; threads of one process share that, which costs nothing but log lines."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
