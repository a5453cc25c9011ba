"""The client behind `Egress`: builds requests, follows redirects, reads answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from uuid import UUID

import httpx2

from app.core.egress.budget import Budget
from app.core.egress.calls import Call, Limits, Reply, ReplyStream, ServerEvent
from app.core.egress.errors import EgressDenied, EgressFailed, EgressInvalid, EgressTooLarge
from app.core.egress.headers import checked_headers, checked_items
from app.core.egress.redirects import is_redirect, redirected
from app.core.egress.transport import BUDGET, ORGANIZATION, GuardedTransport, checked_url, shown

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_USER_AGENT = "Orrery"


class Client:
    """Calls of organizations over one transport. Keeps nothing of a call but its connection."""

    def __init__(self, transport: GuardedTransport, limits: Limits) -> None:
        self._transport = transport
        self._limits = limits

    async def fetch(self, org_id: UUID, call: Call) -> Reply:
        async with self.stream(org_id, call) as reply:
            body = b"".join([chunk async for chunk in reply.chunks()])
            return Reply(reply.url, reply.status, reply.headers, body)

    @asynccontextmanager
    async def stream(self, org_id: UUID, call: Call) -> AsyncIterator[ReplyStream]:
        limits = call.limits or self._limits
        response = await self._answer(org_id, call, Budget.start(limits))
        try:
            yield _Stream(response, limits)
        finally:
            await response.aclose()

    async def _answer(self, org_id: UUID, call: Call, budget: Budget) -> httpx2.Response:
        """The first answer that is no redirect. Each hop is checked as if it were the first."""
        request = _request(call)
        for _ in range(budget.limits.max_redirects + 1):
            request.extensions |= {BUDGET: budget, ORGANIZATION: org_id}
            response = await self._transport.handle_async_request(request)
            if not (call.follow and is_redirect(response)):
                return response
            await response.aclose()
            request = redirected(request, response)
        most = budget.limits.max_redirects
        raise EgressFailed(f"{shown(_request(call).url)!r} redirected more than {most} times.")

    def vendor_client(self, org_id: UUID, limits: Limits | None = None) -> httpx2.AsyncClient:
        """An httpx2 client for a vendor's SDK, over the same guard; no redirects, cookies or proxies.

        What an SDK puts into headers is checked like the headers of a `Call`.
        """
        client = httpx2.AsyncClient(
            transport=_Shared(self._transport, org_id, limits or self._limits),
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=None,  # ours hold
        )
        for name in ("accept-encoding", "connection"):  # httpx2 sets them, and so do we
            del client.headers[name]
        return client

    async def aclose(self) -> None:
        await self._transport.aclose()


def _request(call: Call) -> httpx2.Request:
    """Raises `EgressInvalid` for a method, URL or header that is never sent."""
    try:
        return _built(call)
    except EgressDenied as error:
        raise EgressInvalid(error.detail) from error


def _built(call: Call) -> httpx2.Request:
    if call.method not in _METHODS:
        raise EgressDenied(f"{call.method!r} is not a method for calls; choose from {', '.join(_METHODS)}.")
    headers = {"User-Agent": _USER_AGENT, "Accept": "*/*", **checked_headers(call.headers)}
    try:
        url = httpx2.URL(call.url.strip())
    except (httpx2.InvalidURL, ValueError):
        raise EgressDenied("The address is not a valid URL, such as `https://example.com/path`.") from None
    return httpx2.Request(call.method, checked_url(url), headers=headers, content=call.body)


@dataclass(frozen=True, slots=True)
class _Stream:
    """A `ReplyStream` over a response whose body is bounded already."""

    _response: httpx2.Response
    _limits: Limits

    @property
    def url(self) -> str:
        return str(self._response.url)

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return dict(self._response.headers)

    def chunks(self) -> AsyncIterator[bytes]:
        return self._response.aiter_bytes()

    def lines(self) -> AsyncIterator[str]:
        self._response.encoding = "utf-8"
        return self._response.aiter_lines()

    async def events(self) -> AsyncIterator[ServerEvent]:
        self._response.encoding = "utf-8"
        source = httpx2.EventSource(self._response, self._limits.max_event_bytes)
        kind = self.headers.get("content-type", "").partition(";")[0].strip()
        if kind.lower() != "text/event-stream":
            raise EgressFailed(f"Server-sent events were expected, not {kind[:100]!r}.")
        try:
            async for found in source:
                yield ServerEvent(found.event, found.data, found.id)
        except httpx2.SSEError as error:
            most = self._limits.max_event_bytes
            raise EgressTooLarge(f"An event is larger than {most} bytes, the most that is taken.") from error


class _Shared(httpx2.AsyncBaseTransport):
    """A transport that a client cannot close, with the organization and the limits of that client."""

    def __init__(self, transport: GuardedTransport, org_id: UUID, limits: Limits) -> None:
        self._transport = transport
        self._org_id = org_id
        self._limits = limits

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        request.headers = httpx2.Headers(checked_items(given, host=request.url.netloc.decode()))
        request.extensions |= {BUDGET: Budget.start(self._limits), ORGANIZATION: self._org_id}
        return await self._transport.handle_async_request(request)
