"""A browser's session in cookies: out of reach of scripts, and of no use to other origins.

The access and refresh tokens are HttpOnly and SameSite=Strict. Whatever changes something needs the CSRF
token too, in `X-CSRF-Token`: it is a keyed hash of the session (a signed double submit), which only our
own origin can read from its cookie. The prefixes make browsers enforce the attributes (RFC 6265bis).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from app.core.constants import API_PREFIX
from app.core.errors import CrossSite

CSRF_HEADER = "X-CSRF-Token"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class SessionCookies:
    """`public_url` is where browsers find us, if that is known; https makes the cookies secure."""

    public_url: str | None

    @property
    def secure(self) -> bool:
        return (self.public_url or "").startswith("https:")

    @property
    def access(self) -> str:
        return self._named("__Host-", "orrery_access")

    @property
    def csrf(self) -> str:
        return self._named("__Host-", "orrery_csrf")

    @property
    def refresh(self) -> str:
        return self._named("__Secure-", "orrery_refresh")

    def _named(self, prefix: str, name: str) -> str:
        return prefix + name if self.secure else name

    def put(
        self, response: Response, *, access: str, refresh: str, csrf: str, access_s: int, until: datetime
    ) -> None:
        rest_s = max(0, int((until - datetime.now(UTC)).total_seconds()))
        self._set(response, self.access, access, max_age=access_s)
        self._set(response, self.refresh, refresh, max_age=rest_s, path=_REFRESH_PATH)
        self._set(response, self.csrf, csrf, max_age=rest_s, httponly=False)

    def clear(self, response: Response) -> None:
        for name, path in ((self.access, "/"), (self.refresh, _REFRESH_PATH), (self.csrf, "/")):
            self._set(response, name, "", max_age=0, path=path)

    def _set(
        self,
        response: Response,
        name: str,
        value: str,
        *,
        max_age: int,
        path: str = "/",
        httponly: bool = True,
    ) -> None:
        attributes: dict[str, Any] = {"secure": self.secure, "httponly": httponly, "samesite": "strict"}
        response.set_cookie(name, value, max_age=max_age, path=path, **attributes)

    def check_use(self, connection: HTTPConnection, *, csrf: str) -> None:
        """`CrossSite` where cookies alone, which a browser sends unasked, would change something.

        WebSockets always tell their origin, but cannot carry a header.
        """
        method = connection.scope.get("method")
        if method in _SAFE:
            return
        self.check_origin(connection)
        given = connection.headers.get(CSRF_HEADER, "")
        if method is not None and not hmac.compare_digest(given.encode(), csrf.encode()):
            raise CrossSite(
                f"With cookies, this needs the header {CSRF_HEADER}: send the value of the cookie "
                f"{self.csrf!r}, or `csrf_token` of the login.",
                code="csrf_token_wrong" if given else "csrf_token_missing",
            )

    def check_origin(self, connection: HTTPConnection) -> None:
        """`CrossSite` for a request that a page of another origin makes."""
        origin = connection.headers.get("origin")
        if origin is None:
            return
        host = f"{origin.partition('://')[0]}://{connection.headers.get('host', '')}"
        own = _place(self.public_url or host)
        if own is None or _place(origin) != own:
            raise CrossSite(
                f"The origin {origin!r} is not this server's: cookies are for its own pages. "
                "Others send `Authorization: Bearer`; ORRERY_PUBLIC_URL says what the own origin is.",
                code="cross_origin",
            )


_REFRESH_PATH = f"{API_PREFIX}/auth"


def _place(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port."""
    try:
        parts = urlsplit(url)
        if not parts.hostname:
            return None
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
