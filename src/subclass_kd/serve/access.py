"""Who may ask: names of the server that are its own, pages of its own, and the token."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from subclass_kd.errors import UserError
from subclass_kd.serve.limits import RefusedError

# What tells nothing of the student: the page must come before it can ask for the token.
OPEN = frozenset({"/", "/page.js", "/style.css", "/icon.svg", "/healthz", "/openapi.json"})


@dataclass(frozen=True)
class Access:
    """What a request must show.

    Args:
        token: that all but :data:`OPEN` paths need; None for none.
        loopback: whether the server listens on this computer alone. Then it answers to names of this computer alone:
            else a page from elsewhere could have its own name point here (DNS rebinding) and read the answers.
    """

    token: str | None
    loopback: bool

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Let a request pass.

        Args:
            path: of the URL.
            headers: whose names are small letters.

        Raises:
            RefusedError: 421 for another name, 403 for another site's page, 401 without the token.
        """
        if self.loopback and not is_loopback(host_of(headers.get("host", ""))):
            remedy = "Ask for http://127.0.0.1 or localhost; a proxy must pass such a Host."
            raise RefusedError(
                421, UserError("header Host", "a name of another computer", "one of this computer", remedy)
            )
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and path not in OPEN:
            raise RefusedError(403, UserError("the request", "another site's page that asks", "this server's own page"))
        if self.token is not None and path not in OPEN and not self._has_token(headers.get("authorization", "")):
            found = "another token" if "authorization" in headers else "no token"
            reason = UserError("header Authorization", found, "Bearer and the server's token", "Ask who runs it.")
            raise RefusedError(401, reason, {"WWW-Authenticate": "Bearer"})

    def _has_token(self, given: str) -> bool:
        scheme, _, token = given.partition(" ")
        # In constant time: how long a comparison takes must not tell how much of a guess is right.
        same = hmac.compare_digest(token.strip().encode("utf-8", "replace"), (self.token or "").encode())
        return same and scheme.lower() == "bearer"


def host_of(header: str) -> str:
    """Give the name or address in a Host header, without its port.

    >>> host_of("localhost:8000"), host_of("[::1]:80"), host_of("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def is_loopback(name: str) -> bool:
    """Tell whether a name or address is this computer's own, without asking any name server.

    >>> is_loopback("localhost"), is_loopback("127.0.0.2"), is_loopback("::1"), is_loopback("localhost.example.org")
    (True, True, True, False)
    """
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
