"""Who asks, what they may see and do, and whether a form came from a page of ours."""

import hmac
import secrets
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response, status

COOKIE = "steward_form"
"""Names the browser to which a form was given; it opens nothing by itself."""


class SignedOut(Exception):
    """Nobody is signed in."""


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in; `user` is whatever the gate knows them by."""

    name: str
    user: Any = None


class Gate(Protocol):
    """Knows people and their rights."""

    async def person(self, request: Request) -> Person:
        """Who asks; raises SignedOut."""

    def readable(self, person: Person) -> frozenset[str]:
        """The models that they may read."""

    def editable(self, person: Person) -> frozenset[str]:
        """The models that they may act on."""

    def login(self, back: str) -> str:
        """Where one signs in, and comes `back` from."""


class Forms:
    """Forms that only a page of ours, in the browser of the person that it was made for, can send.

    A token is bound to the person and to a random cookie, which a browser does not send along with a request that another
    site has made (`SameSite=Strict`); a browser that says where a request comes from must name this site.

    Parameters
    ----------
    key : the same in every process that serves these pages.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def begin(self, request: Request) -> str:
        """The random name of this browser: the one that it has, or a new one."""
        found = request.cookies.get(COOKIE, "")
        return found if len(found) == len(secrets.token_urlsafe(32)) else secrets.token_urlsafe(32)

    def keep(self, request: Request, response: Response, browser: str) -> None:
        if request.cookies.get(COOKIE) != browser:
            secure = request.url.scheme == "https"
            path = request.scope.get("root_path") or "/"
            response.set_cookie(COOKIE, browser, path=path, httponly=True, secure=secure, samesite="strict")

    def token(self, browser: str, person: Person) -> str:
        return hmac.digest(self._key, f"{browser}\n{person.name}".encode(), "sha256").hex()

    def check(self, request: Request, person: Person, token: str) -> None:
        """Raises 403 unless the form is ours and theirs."""
        browser = request.cookies.get(COOKIE, "")
        if not from_here(request) or not hmac.compare_digest(self.token(browser, person).encode(), token.encode()):
            raise HTTPException(
                status.HTTP_403_FORBIDDEN,
                "This form was not sent from a page of Steward in your browser, or you have signed in as somebody else "
                "since it was opened. Nothing was done. Open the page again and repeat what you wanted.",
            )


def from_here(request: Request) -> bool:
    """Whether the browser says that a page of this very site has made the request; one that says nothing is not believed."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host")
