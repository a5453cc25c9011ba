"""An organization's share of the connections: what it uses up, others still have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from app.core.egress import Call, EgressBusy, OrganizationEgress
from app.core.ids import new_id
from tests.core.peers import QUICK, Peer, Request, ok, peer, way_out

SETTING = "ORRERY_EGRESS_MAX_CONNECTIONS_PER_ORGANIZATION"
SHARE = 2


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Two organizations and a server, which is slow at `/head` and `/body`."""

    one: OrganizationEgress
    other: OrganizationEgress
    server: Peer

    def at(self, path: str) -> Call:
        return Call("GET", f"{self.server.url}{path}")

    async def arrived(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.server.requests) < count:
                await asyncio.sleep(0.005)


async def serve(request: Request, writer: asyncio.StreamWriter) -> None:
    match request.target:
        case "/head":
            return
        case "/body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1")
        case "/away":
            writer.write(ok(b"", status="302 Elsewhere", headers=["Location: /"]))
        case _:
            writer.write(ok())


@pytest.fixture
async def neighbours() -> AsyncIterator[Neighbours]:
    async with (
        peer(serve) as server,
        way_out(
            server.authority, limits=replace(QUICK, connect_s=0.3), max_connections=3, share=SHARE
        ) as one,
    ):
        yield Neighbours(one, one.gate.of(new_id()), server)


@asynccontextmanager
async def used_up(neighbours: Neighbours) -> AsyncIterator[AsyncExitStack]:
    """All of `one`'s share is taken by answers that do not end."""
    async with AsyncExitStack() as streams:
        for _ in range(SHARE):
            await streams.enter_async_context(neighbours.one.stream(neighbours.at("body")))
        yield streams


class TestShare:
    async def test_used_up_by_answers_without_end_leaves_the_others_theirs(
        self, neighbours: Neighbours
    ) -> None:
        async with used_up(neighbours):
            with pytest.raises(EgressBusy, match=SETTING) as busy:
                await neighbours.one.fetch(neighbours.at(""))
            assert (await neighbours.other.fetch(neighbours.at(""))).body == b"fine"
        assert (busy.value.status, busy.value.code, busy.value.retry_after_s) == (503, "egress_busy", 1)

    async def test_used_up_by_a_server_that_never_answers_leaves_the_others_theirs(
        self, neighbours: Neighbours
    ) -> None:
        calls = [asyncio.create_task(neighbours.one.fetch(neighbours.at("head"))) for _ in range(SHARE)]
        await neighbours.arrived(SHARE)
        with pytest.raises(EgressBusy, match=SETTING):
            await neighbours.one.fetch(neighbours.at(""))
        assert (await neighbours.other.fetch(neighbours.at(""))).body == b"fine"
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (await neighbours.one.fetch(neighbours.at(""))).body == b"fine"

    async def test_is_waited_for(self, neighbours: Neighbours) -> None:
        async with used_up(neighbours) as streams:
            waiting = asyncio.create_task(neighbours.one.fetch(neighbours.at("")))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await streams.aclose()
            assert (await waiting).body == b"fine"

    async def test_is_not_used_up_by_those_who_wait_in_vain(self, neighbours: Neighbours) -> None:
        async with used_up(neighbours):
            waiting = [asyncio.create_task(neighbours.one.fetch(neighbours.at(""))) for _ in range(4)]
            await asyncio.sleep(0.05)
            waiting[0].cancel()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            kinds = [type(each) for each in found]
            assert kinds == [asyncio.CancelledError, EgressBusy, EgressBusy, EgressBusy]
        calls = [neighbours.one.fetch(neighbours.at("")) for _ in range(SHARE)]
        assert [reply.body for reply in await asyncio.gather(*calls)] == [b"fine"] * SHARE

    async def test_counts_a_call_with_redirects_once(self, neighbours: Neighbours) -> None:
        calls = [neighbours.one.fetch(neighbours.at("away")) for _ in range(SHARE)]
        assert [reply.body for reply in await asyncio.gather(*calls)] == [b"fine"] * SHARE

    async def test_holds_for_the_clients_of_vendors(self, neighbours: Neighbours) -> None:
        async with (
            await neighbours.one.vendor_client() as client,
            await neighbours.other.vendor_client() as other,
            used_up(neighbours),
        ):
            with pytest.raises(EgressBusy, match=SETTING):
                await client.get(neighbours.server.url)
            assert (await other.get(neighbours.server.url)).content == b"fine"

    async def test_is_given_back_by_the_clients_of_vendors(self, neighbours: Neighbours) -> None:
        async with await neighbours.one.vendor_client() as client:
            for _ in range(2 * SHARE):
                async with client.stream("GET", f"{neighbours.server.url}body") as response:
                    assert response.status_code == 200
