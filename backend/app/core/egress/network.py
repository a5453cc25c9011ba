"""Connections that go to an address which was checked, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from ssl import SSLContext
from typing import Any

import anyio
import httpcore2
import structlog

from app.core.addresses import Address, canonical, read_host
from app.core.egress.errors import EgressFailed, EgressTimeout
from app.core.egress.resolving import Resolver
from app.core.egress.rules import Rules

logger = structlog.get_logger(__name__)

_TRIED = 4
"""Addresses of one host that are dialled: a host with a thousand would have us scan them."""


class PinnedNetwork(httpcore2.AsyncNetworkBackend):
    """Looks the host up, checks every address, and connects to one of these very addresses.

    Nothing is looked up a second time, so a name cannot change its mind between check and connection.
    SNI and `Host` are made of the name, above this layer.
    """

    def __init__(self, rules: Rules, resolver: Resolver) -> None:
        self._rules = rules
        self._resolver = resolver
        self._tcp = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Tries the addresses in turn, each for its share of what is left of `timeout`."""
        loop = asyncio.get_running_loop()
        timeout = timeout or 0.0
        ends = loop.time() + timeout
        addresses = (await self._checked(host, port, timeout))[:_TRIED]
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = max(0.0, ends - loop.time()) / left
            try:
                return PinnedStream(await self._tcp.connect_tcp(str(address), port, timeout=share))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if left == 1:
                    raise
        raise AssertionError("hosts without an address are refused")

    async def _checked(self, name: str, port: int, limit_s: float) -> Sequence[Address]:
        host = read_host(name)
        addresses = await self._look_up(host, port, limit_s) if isinstance(host, str) else [host]
        if not self._rules.admit(host, port, addresses):
            # Only the operator may learn where a name leads.
            logger.warning("egress_denied", host=name, port=port, addresses=[str(a) for a in addresses[:8]])
            raise self._rules.refusal(host, port)
        return addresses

    async def _look_up(self, host: str, port: int, limit_s: float) -> Sequence[Address]:
        try:
            async with asyncio.timeout(limit_s):
                found = await self._resolver.resolve(host, port)
        except TimeoutError:
            raise EgressTimeout(f"The name {host!r} could not be looked up within {limit_s:g} s.") from None
        except OSError as error:
            raise EgressFailed(
                f"The name {host!r} could not be looked up: no name server answers."
            ) from error
        return list(dict.fromkeys(map(canonical, found)))


class PinnedStream(httpcore2.AsyncNetworkStream):
    """A TCP stream that is closed also when a TLS handshake on it is cancelled (AnyIO's stays open)."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return PinnedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Connection(httpcore2.AsyncHTTPConnection):
    """One that is not used again when the server sent more than it had announced.

    The surplus would be read as the answer to the next request, which may be another tenant's.
    """

    def has_expired(self) -> bool:
        return super().has_expired() or self._has_surplus()

    def _has_surplus(self) -> bool:
        inner = self._connection
        return isinstance(inner, httpcore2.AsyncHTTP11Connection) and bool(inner._h11_state.trailing_data[0])


class PinnedPool(httpcore2.AsyncConnectionPool):
    """Connections by origin (scheme, name, port), kept for reuse by the same origin only.

    The rules do not change while a pool lives, and a kept connection leads to an address that was checked
    for this origin: if its name moves inside later, that is seen (and refused) at the next connection.
    """

    def __init__(
        self, network: PinnedNetwork, tls: SSLContext, *, max_connections: int, keepalive_s: float
    ) -> None:
        super().__init__(
            ssl_context=tls,
            max_connections=max_connections,
            keepalive_expiry=keepalive_s,
            network_backend=network,
        )

    def keeps_one(self, origin: httpcore2.Origin) -> bool:
        """Whether a connection to `origin` lies idle, to be used by the next request."""
        return any(one.is_idle() and one.can_handle_request(origin) for one in self.connections)

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        return _Connection(
            origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
        )
