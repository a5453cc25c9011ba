"""The system's resolver: threads of its own, shared out between organizations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from uuid import UUID

import pytest

from app.core.egress import Call, EgressTimeout
from app.core.egress.resolving import CALLER, SystemResolver
from app.core.ids import new_id
from tests.core.peers import NAME, QUICK, peer, way_out

SILENT = "silent.example"


@dataclass(slots=True)
class NameServer:
    """Answers at once, but for `SILENT`: there it waits until the test ends."""

    over: threading.Event = field(default_factory=threading.Event)
    threads: list[str] = field(default_factory=list)
    waiting: int = 0

    def look_up(self, host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        self.threads.append(threading.current_thread().name)
        if host == SILENT:
            self.waiting += 1
            self.over.wait(30)
        return [(2, 1, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr("app.core.egress.resolving._look_up", server.look_up)
    yield server
    server.over.set()


async def _asks(resolver: SystemResolver, org_id: UUID, host: str = NAME) -> list[str]:
    CALLER.set(org_id)
    return [str(address) for address in await resolver.resolve(host, 80)]


async def _gives_up(resolver: SystemResolver, org_id: UUID) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await _asks(resolver, org_id, SILENT)


class TestThreads:
    async def test_are_not_those_of_the_loop(self, server: NameServer) -> None:
        resolver = SystemResolver(threads=1)
        assert await _asks(resolver, new_id()) == ["127.0.0.1"]
        resolver.close()
        assert server.threads[0].startswith("resolve")

    async def test_are_left_to_others_by_names_that_nobody_answers_for(self, server: NameServer) -> None:
        resolver, hostile = SystemResolver(threads=4), new_id()
        await asyncio.gather(*(_gives_up(resolver, hostile) for _ in range(20)))
        assert server.waiting == 2
        async with asyncio.timeout(5):
            assert await _asks(resolver, new_id()) == ["127.0.0.1"]
        server.over.set()
        async with asyncio.timeout(5):
            assert await _asks(resolver, hostile) == ["127.0.0.1"]
        resolver.close()

    async def test_count_for_the_organization_that_calls(self, server: NameServer) -> None:
        resolver = SystemResolver(threads=2)
        async with (
            peer() as there,
            way_out(there.authority, resolver=resolver, limits=replace(QUICK, connect_s=0.2)) as egress,
        ):
            with pytest.raises(EgressTimeout, match="could not be looked up"):
                await egress.fetch(Call("GET", f"http://{SILENT}:{there.port}/"))
            with pytest.raises(EgressTimeout, match="could not be looked up"):
                await egress.fetch(Call("GET", f"http://{NAME}:{there.port}/"))
            assert (await egress.gate.of(new_id()).fetch(Call("GET", f"http://{NAME}:{there.port}/"))).status
        assert server.waiting == 1
        resolver.close()


async def test_literal_addresses_are_found() -> None:
    resolver = SystemResolver(threads=1)
    CALLER.set(new_id())
    assert list(await resolver.resolve("127.0.0.1", 80)) == [ip_address("127.0.0.1")]
    resolver.close()
