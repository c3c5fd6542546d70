"""Who may do what: API keys, kept as digests in a file, and how often."""

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from steward.errors import SettingsError
from steward.serving.problems import refusal

RIGHTS = ("predict", "outcomes")
EVERY_MODEL = "*"
PREFIX = "stw_"
FILE = "keys.json"
RATE = 1_000.0
"""Requests per second of a key, unless said otherwise."""
BURST_SECONDS = 2.0
"""For how long a key that was quiet may ask at twice its rate."""


@dataclass(frozen=True)
class Key:
    """One caller. The key itself is nowhere: only its SHA-256 is kept, and 256 random bits need no salt."""

    name: str
    sha256: str
    models: tuple[str, ...]
    rights: tuple[str, ...]
    rate: float
    """Requests per second."""
    created: str

    def may(self, right: str, model: str) -> bool:
        return right in self.rights and self.knows(model)

    def knows(self, model: str) -> bool:
        """May it do anything with this model?"""
        return model in self.models or EVERY_MODEL in self.models

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "models": list(self.models), "rights": list(self.rights)}


class KeyFile:
    """The keys of an installation: `keys.json` in its home, readable by its owner only."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE

    def read(self) -> tuple[Key, ...] | None:
        """Every key; None if there never was one. Raises SettingsError if the file cannot be used."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return tuple(
                Key(**{**key, "models": tuple(key["models"]), "rights": tuple(key["rights"])}) for key in found
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as problem:
            raise SettingsError(
                f"{self.path} cannot be read", got=str(problem), do="Restore it, or remove it and add keys anew"
            ) from problem

    def add(
        self, name: str, models: Iterable[str], rights: Iterable[str], *, rate: float = RATE, at: datetime
    ) -> tuple[Key, str]:
        """A new key and, this once, its secret; raises SettingsError for a name that is taken or a right that is none."""
        keys = self.read() or ()
        if any(key.name == name for key in keys):
            raise SettingsError("there is a key of this name", got=name, do="Revoke it, or choose another name")
        if unknown := [right for right in rights if right not in RIGHTS]:
            raise SettingsError("there is no such right", got=unknown[0], allowed=", ".join(RIGHTS))
        secret = PREFIX + secrets.token_urlsafe(32)
        key = Key(name, _digest(secret.encode()), tuple(models), tuple(rights), rate, at.isoformat())
        self._write((*keys, key))
        return key, secret

    def revoke(self, name: str) -> Key:
        """Remove a key; raises SettingsError if there is none of this name."""
        keys = self.read() or ()
        for key in keys:
            if key.name == name:
                self._write(other for other in keys if other is not key)
                return key
        known = ", ".join(key.name for key in keys) or "none yet"
        raise SettingsError("there is no key of this name", got=name, allowed=known)

    def _write(self, keys: Iterable[Key]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=self.path.parent, prefix=f"{FILE}.")  # mode 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump([key.as_json() for key in keys], stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, self.path)


@dataclass
class Bucket:
    """A token bucket: `rate` tokens a second, at most `BURST_SECONDS` of them saved up."""

    rate: float
    tokens: float = field(init=False)
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = self.rate * BURST_SECONDS

    def wait(self, now: float) -> float:
        """Takes a token and answers 0, or answers the seconds until there is one."""
        self.tokens = min(self.rate * BURST_SECONDS, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.rate


class Access:
    """Decides about requests. Keys are demanded as soon as there is a key file; without one only loopback is served."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._buckets: dict[str, Bucket] = {}
        self.required = False
        self.problem: str | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the key file again if it has changed; one that cannot be read keeps the keys as they were."""
        try:
            found = self._file.path.stat()
        except OSError:
            if self.required:
                self.problem = f"{self._file.path.name} is gone; the keys it held stay valid until the next start"
            return
        if self._seen == (found.st_mtime_ns, found.st_ino):
            return
        try:
            keys = self._file.read() or ()
        except SettingsError as problem:
            self.problem, self.required = problem.what, True
            return
        self._seen, self.problem, self.required = (found.st_mtime_ns, found.st_ino), None, True
        self._keys = {key.sha256: key for key in keys}
        self._buckets = {
            digest: bucket if (bucket := self._buckets.get(digest)) and bucket.rate == key.rate else Bucket(key.rate)
            for digest, key in self._keys.items()
        }

    def admit(self, headers: Mapping[bytes, bytes], right: str | None, model: str) -> Key | None:
        """The caller's key; None where no key is needed.

        Parameters
        ----------
        right : what the caller wants to do with the model; None where any valid key will do.

        Raises
        ------
        RequestRefused : 401 without a valid key, 403 without the right, 429 too often, 421 for a foreign host name.
        """
        if not self.required:
            _check_host(headers.get(b"host", b""))
            return None
        key = self._find(headers.get(b"authorization", b""))
        if key is None:
            raise refusal(401, "this needs a valid API key", do="Send it as Authorization: Bearer KEY", bearer=True)
        if right is not None and not key.may(right, model):
            raise refusal(403, f"this key may not do this ({right})", got=model)
        if wait := self._buckets[key.sha256].wait(time.monotonic()):
            raise refusal(429, "too many requests", allowed=f"{key.rate:g} a second", retry_after=max(1, round(wait)))
        return key

    def _find(self, authorization: bytes) -> Key | None:
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        digest, found = _digest(secret.strip()), None
        for known, key in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = key
        return found


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _check_host(host: bytes) -> None:
    """Without keys, a web page whose name was made to point here (DNS rebinding) must not get an answer."""
    name = host.decode("latin-1").rsplit(":", 1)[0] if not host.endswith(b"]") else host.decode("latin-1")
    if name and not is_loopback(name.strip("[]")):
        raise refusal(421, "without API keys only this machine is served", got=name[:100], allowed="localhost")


def is_loopback(host: str) -> bool:
    """Is this an address of this machine that no other reaches?

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
