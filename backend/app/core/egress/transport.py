"""The one door: an httpx2 transport that checks where a request goes and bounds what comes back."""

from __future__ import annotations

from contextlib import AsyncExitStack
from ssl import SSLContext

import httpcore2
import httpx2

from app.core.addresses import read_host
from app.core.egress.bodies import ACCEPT_ENCODING, BoundedBody, inflater, too_large
from app.core.egress.budget import Budget
from app.core.egress.calls import Limits
from app.core.egress.errors import EgressDenied, EgressFailed
from app.core.egress.failures import reported
from app.core.egress.network import PinnedNetwork, PinnedPool
from app.core.egress.resolving import CALLER, Resolver
from app.core.egress.rules import Rules
from app.core.egress.shares import Shares

BUDGET = "egress.budget"
"""The extension of a request that holds its `Budget`; without it the call starts with this request."""
ORGANIZATION = "egress.organization"
"""The extension that holds the id of the organization whose call it is. Nothing goes out without one."""

_PORTS = {"http": 80, "https": 443}
_BODILESS = (204, 304)
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
_BROKEN_OFF = (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError)
_DECODED = (b"content-encoding", b"content-length")


def shown(url: httpx2.URL) -> str:
    """The host as it is sent. `url.host` decodes international names, and fails for some of them."""
    return url.raw_host.decode()


def called(url: httpx2.URL) -> str:
    """Host and port, as messages name whom a checked URL calls."""
    host, port = shown(url), url.port or _PORTS[url.scheme]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def checked_url(url: httpx2.URL) -> httpx2.URL:
    """`url` with its host as it is going to be called. Raises `EgressDenied`; looks nothing up."""
    if url.scheme not in ("http", "https"):
        raise EgressDenied(f"Only http and https are called, not {url.scheme!r}.")
    if url.userinfo:
        raise EgressDenied(f"The address of {shown(url)!r} holds a user name or password: send a header.")
    if url.port is not None and not 0 < url.port < 65536:
        raise EgressDenied(f"{url.port} is not a port between 1 and 65535.")
    try:
        _ = url.host  # clients decode it, too
        host = read_host(url.raw_host.decode())
    except ValueError as error:
        raise EgressDenied(f"{shown(url)!r} cannot be called: {error}.") from None
    return url.copy_with(host=str(host), fragment=None)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Every request through it is one hop: checked on its own, never redirected, no cookies, no proxies.

    Bodies come decompressed, without `Content-Encoding` and `Content-Length` then, so that whatever client
    stands on top cannot be made to inflate more than the limits allow.
    """

    def __init__(
        self,
        *,
        rules: Rules,
        resolver: Resolver,
        tls: SSLContext,
        limits: Limits,
        max_connections: int,
        max_connections_per_organization: int,
        keepalive_s: float,
    ) -> None:
        self._limits = limits
        self._shares = Shares(max_connections_per_organization)
        network = PinnedNetwork(rules, resolver)
        self._pool = PinnedPool(network, tls, max_connections=max_connections, keepalive_s=keepalive_s)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        budget = request.extensions.get(BUDGET) or Budget.start(self._limits)
        url = checked_url(request.url)
        org_id = request.extensions[ORGANIZATION]
        place = self._shares.place(org_id, until=budget.soon(budget.limits.connect_s))
        CALLER.set(org_id)
        held = AsyncExitStack()
        try:
            await held.enter_async_context(place)
            hop = _hop(request, url, budget.limits)
            answer = await self._ask(hop, called(url), budget, repeatable=_is_repeatable(request))
            held.push_async_callback(answer.aclose)
            return _response(request, answer, held, called(url), budget)
        except BaseException:
            await held.aclose()
            raise

    async def _ask(
        self, hop: httpcore2.Request, host: str, budget: Budget, *, repeatable: bool
    ) -> httpcore2.Response:
        """A server may close a kept connection at the moment that we use it: then it is asked once more."""
        limits = budget.limits
        again = repeatable and self._pool.keeps_one(hop.url.origin)
        with reported(host, limits):
            async with budget.within(limits.first_byte_s, f"{host!r} did not answer"):
                try:
                    return await self._pool.handle_async_request(hop)
                except _BROKEN_OFF:
                    if not again:
                        raise
                return await self._pool.handle_async_request(hop)

    async def aclose(self) -> None:
        await self._pool.aclose()


def _is_repeatable(request: httpx2.Request) -> bool:
    """Whether it may be sent twice (RFC 9110, 9.2.2), and can be."""
    safe = request.method in _IDEMPOTENT or "idempotency-key" in request.headers
    return safe and isinstance(request.stream, httpx2.ByteStream)


def _hop(request: httpx2.Request, url: httpx2.URL, limits: Limits) -> httpcore2.Request:
    request.headers["Host"] = url.netloc.decode()
    request.headers["Accept-Encoding"] = ACCEPT_ENCODING
    timeouts = {"connect": limits.connect_s, "pool": limits.connect_s, "write": limits.idle_s}
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions={"timeout": timeouts},
    )


def _response(
    request: httpx2.Request, answer: httpcore2.Response, held: AsyncExitStack, host: str, budget: Budget
) -> httpx2.Response:
    """Raises when the head alone says that the body will not do."""
    headers = httpx2.Headers(answer.headers)
    if answer.status == 101:
        raise EgressFailed(f"{host!r} switched to another protocol than HTTP.")
    has_body = request.method != "HEAD" and answer.status not in _BODILESS
    length = headers.get("content-length", "")
    if has_body and length.isdecimal() and int(length) > budget.limits.max_bytes:
        raise too_large(host, budget.limits.max_bytes)
    inflate = inflater(headers.get("content-encoding", "")) if has_body else None
    kept = [(n, v) for n, v in headers.raw if inflate is None or n.lower() not in _DECODED]
    body = BoundedBody(answer, held=held, host=host, budget=budget, inflater=inflate)
    return httpx2.Response(answer.status, headers=kept, stream=body, request=request)
