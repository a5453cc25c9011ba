"""Rate limits of requests: counted once the caller is known, told in every answer."""

from __future__ import annotations

from hashlib import sha256

from starlette.requests import HTTPConnection

from app.api.middleware import EXTRA_HEADERS
from app.core.errors import RateLimited
from app.core.rate_limits import RateLimiter, Verdict
from app.services.auth_service import AuthContext


def count_request(connection: HTTPConnection, caller: AuthContext, limiter: RateLimiter) -> None:
    """429 where the credential, its project or its organization has asked too often."""
    callers = [("credential", _credential(connection, caller)), ("organization", caller.tenant.org_id)]
    if caller.tenant.project_id is not None:
        callers.append(("project", caller.tenant.project_id))
    verdict = limiter.take(callers)
    if verdict is None:
        return
    connection.scope.setdefault(EXTRA_HEADERS, []).extend(_headers(verdict))
    if verdict.retry_after_s is not None:
        raise _too_many(verdict, limiter.window_s)


def _credential(connection: HTTPConnection, caller: AuthContext) -> object:
    """The API key, by its digest; people by their id, whose tokens change every few minutes."""
    token = connection.headers.get("authorization", "").partition(" ")[2]
    if not token or token.count(".") == 2:
        return caller.principal
    return sha256(token.encode()).hexdigest()


def _headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    return [
        (b"ratelimit-limit", b"%d" % verdict.limit.requests),
        (b"ratelimit-remaining", b"%d" % verdict.remaining),
        (b"ratelimit-reset", b"%d" % verdict.reset_s),
    ]


def _too_many(verdict: Verdict, window_s: float) -> RateLimited:
    limit = verdict.limit
    error = RateLimited(
        f"This {limit.scope} has made {limit.requests} requests within {window_s:g} s, which is its limit "
        f"({limit.setting})."
    )
    error.retry_after_s = verdict.retry_after_s
    return error
