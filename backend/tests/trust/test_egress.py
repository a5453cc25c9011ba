"""G12: no outgoing connection escapes the egress policy. Internal listeners see nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import product

import pytest
import pytest_asyncio

from app.core.config import Settings
from app.core.egress import Call, EgressDenied, EgressFailed, OrganizationEgress
from app.core.ids import new_id
from app.resources.outgoing import way_out
from tests.core.hostile_hosts import INTERNAL, LOOPBACK, MALFORMED
from tests.core.peers import Names, peer, redirects
from tests.core.peers import way_out as way_out_by

REBINDING = [
    (["127.0.0.1"],),
    (["::1"],),
    (["0.0.0.0"],),
    (["::"],),
    (["::ffff:127.0.0.1"],),
    (["8.8.8.8", "127.0.0.1"],),
    (["127.0.0.1", "8.8.8.8"],),
    (["2606:4700::1", "::1"],),
    ([],),
]


@dataclass(slots=True)
class Inside:
    """What listens on every interface of this machine, IPv4 and IPv6, and has seen so many connections."""

    port: int
    connections: int = 0

    async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


@pytest_asyncio.fixture(loop_scope="class", scope="class")
async def inside() -> AsyncIterator[Inside]:
    found = Inside(0)
    async with AsyncExitStack() as stack:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            if family == socket.AF_INET6 and not socket.has_ipv6:
                continue
            server = await asyncio.start_server(found.serve, host, found.port, family=family)
            await stack.enter_async_context(server)
            found.port = server.sockets[0].getsockname()[1]
        yield found


@pytest_asyncio.fixture(loop_scope="class", scope="class")
async def egress() -> AsyncIterator[OrganizationEgress]:
    """As a fresh installation has it, with the system's resolver."""
    async with way_out(Settings(egress_connect_timeout_s=5, _env_file=None)) as gate:
        yield gate.of(new_id())


@pytest.mark.asyncio(loop_scope="class")
class TestInternalHosts:
    @pytest.mark.parametrize(("scheme", "host"), list(product(("http", "https"), LOOPBACK)))
    async def test_on_this_machine_see_nothing(
        self, egress: OrganizationEgress, inside: Inside, scheme: str, host: str
    ) -> None:
        with pytest.raises(EgressDenied):
            await egress.fetch(Call("GET", f"{scheme}://{host}:{inside.port}/"))
        assert inside.connections == 0

    async def test_by_the_name_of_this_machine_see_nothing(
        self, egress: OrganizationEgress, inside: Inside
    ) -> None:
        with pytest.raises((EgressDenied, EgressFailed)):
            await egress.fetch(Call("GET", f"http://{socket.gethostname()}:{inside.port}/"))
        assert inside.connections == 0

    @pytest.mark.parametrize("host", INTERNAL)
    async def test_elsewhere_are_not_called(self, egress: OrganizationEgress, host: str) -> None:
        with pytest.raises(EgressDenied):
            await egress.fetch(Call("GET", f"http://{host}/latest/meta-data/"))

    @pytest.mark.parametrize("url", MALFORMED, ids=lambda url: url[:40])
    async def test_in_malformed_addresses_are_not_called(self, egress: OrganizationEgress, url: str) -> None:
        with pytest.raises(EgressDenied):
            await egress.fetch(Call("GET", url))

    @pytest.mark.parametrize("answers", REBINDING)
    async def test_behind_public_names_see_nothing(self, inside: Inside, answers: tuple[list[str]]) -> None:
        resolver = Names(public_example=answers)
        async with way_out_by(resolver=resolver) as egress:
            with pytest.raises(EgressDenied):
                await egress.fetch(Call("GET", f"http://public.example:{inside.port}/"))
        assert inside.connections == 0

    @pytest.mark.parametrize("host", LOOPBACK)
    async def test_behind_redirects_see_nothing(self, inside: Inside, host: str) -> None:
        location = f"http://{host}:{inside.port}/"
        script = redirects(307, location.encode("utf-8").decode("latin-1"))
        async with peer(script, host="127.0.0.3") as outer, way_out_by(outer.authority) as egress:
            with pytest.raises((EgressDenied, EgressFailed)):
                await egress.fetch(Call("POST", outer.url, body=b"x"))
        assert inside.connections == 0

    @pytest.mark.parametrize(
        "name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
    )
    async def test_named_as_proxies_see_nothing(
        self, inside: Inside, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv(name, f"http://127.0.0.1:{inside.port}")
        async with peer(host="127.0.0.3") as outer, way_out_by(outer.authority) as egress:
            assert (await egress.fetch(Call("GET", outer.url))).status == 200
            async with await egress.vendor_client() as client:
                assert (await client.get(outer.url)).status_code == 200
        assert inside.connections == 0


class TestOperator:
    async def test_opens_an_internal_host_by_name_and_port(self) -> None:
        async with peer() as inner:
            settings = Settings(egress_allow=f"localhost:{inner.port}", _env_file=None)
            async with way_out(settings) as gate:
                egress = gate.of(new_id())
                reply = await egress.fetch(Call("GET", f"http://localhost:{inner.port}/"))
        assert reply.body == b"fine"

    async def test_opens_nothing_beside_it(self) -> None:
        async with peer() as inner, peer() as beside:
            settings = Settings(egress_allow=f"127.0.0.1:{inner.port}", _env_file=None)
            async with way_out(settings) as gate:
                egress = gate.of(new_id())
                with pytest.raises(EgressDenied):
                    await egress.fetch(Call("GET", beside.url))
        assert beside.connections == 0
