"""Rate limits of requests: counted once the caller is known, told in every answer."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import HTTPConnection

from app.api.middleware import EXTRA_HEADERS
from app.core.client_address import counted_address
from app.core.errors import RateLimited
from app.core.rate_limits import RateLimiter, Verdict
from app.services.auth_service import AuthContext


def count_request(connection: HTTPConnection, caller: AuthContext, limiter: RateLimiter) -> None:
    """429 where the credential, its project or its organization has asked too often."""
    callers = [("credential", caller.key_id or caller.principal), ("organization", caller.tenant.org_id)]
    if caller.tenant.project_id is not None:
        callers.append(("project", caller.tenant.project_id))
    _count(connection, callers, limiter)


def count_stranger(connection: HTTPConnection, limiter: RateLimiter) -> None:
    """429 where the address that a request comes from has knocked too often."""
    address = counted_address(connection.client.host if connection.client else None)
    _count(connection, [("address", address)], limiter)


def _count(connection: HTTPConnection, callers: Sequence[tuple[str, object]], limiter: RateLimiter) -> None:
    verdict = limiter.take(callers)
    if verdict is None:
        return
    connection.scope.setdefault(EXTRA_HEADERS, []).extend(_headers(verdict))
    if verdict.retry_after_s is not None:
        raise _too_many(verdict, limiter.window_s)


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
