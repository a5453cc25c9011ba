"""Opens the way out. What it is made of is loaded with the first call: start-up need not wait for it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from app.core.egress.calls import Call, Limits, Reply, ReplyStream
from app.core.egress.resolving import Resolver, SystemResolver
from app.core.egress.rules import Rules

if TYPE_CHECKING:
    import httpx2

    from app.core.egress.client import Client


class Gate:
    """The way out of a process: a client that comes into being when it is first needed."""

    def __init__(self, limits: Limits, make: Callable[[], Client]) -> None:
        self.limits = limits
        self._make = make
        self._made: Client | None = None
        self._making = asyncio.Lock()

    def of(self, org_id: UUID) -> OrganizationEgress:
        """For calls of this organization. There is no way out for anybody else."""
        return OrganizationEgress(self, org_id)

    async def client(self) -> Client:
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    async def aclose(self) -> None:
        if self._made:
            await self._made.aclose()


@dataclass(frozen=True, slots=True)
class OrganizationEgress:
    """The `Egress` of one organization, which has its share of the connections."""

    gate: Gate
    org_id: UUID

    @property
    def limits(self) -> Limits:
        return self.gate.limits

    async def fetch(self, call: Call) -> Reply:
        return await (await self.gate.client()).fetch(self.org_id, call)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[ReplyStream]:
        async with (await self.gate.client()).stream(self.org_id, call) as reply:
            yield reply

    async def vendor_client(self, limits: Limits | None = None) -> httpx2.AsyncClient:
        """For SDKs that want an httpx2 client; see `Client.vendor_client`."""
        return (await self.gate.client()).vendor_client(self.org_id, limits)


@asynccontextmanager
async def open_egress(
    *,
    rules: Rules,
    limits: Limits,
    max_connections: int = 200,
    max_connections_per_organization: int = 100,
    keepalive_s: float = 15,
    resolver_threads: int = 16,
    trust: Callable[[], ssl.SSLContext] | None = None,
    resolver: Resolver | None = None,
) -> AsyncIterator[Gate]:
    """The way out until the context ends, which closes every connection.

    `trust` says which certificates are believed. For it and `resolver`, None means the system's.
    """
    system = SystemResolver(resolver_threads)

    def make() -> Client:
        from app.core.egress.client import Client  # noqa: PLC0415  (see the module's docstring)
        from app.core.egress.transport import GuardedTransport  # noqa: PLC0415

        transport = GuardedTransport(
            rules=rules,
            resolver=resolver or system,
            tls=(trust or system_trust)(),
            limits=limits,
            max_connections=max_connections,
            max_connections_per_organization=max_connections_per_organization,
            keepalive_s=keepalive_s,
        )
        return Client(transport, limits)

    gate = Gate(limits, make)
    try:
        yield gate
    finally:
        await gate.aclose()
        system.close()


def system_trust(ca_file: Path | None = None) -> ssl.SSLContext:
    """The system's certificates, and those of `ca_file` (PEM)."""
    import httpcore2  # noqa: PLC0415

    context = httpcore2.default_ssl_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
