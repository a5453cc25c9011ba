"""Streams whose reader is gone: nobody watches the run any more the moment the response ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from ag_ui.core import CustomEvent

from app.api import sse
from app.api.credentials import Credential, Standing
from app.api.sse import Reader, event_stream
from app.resources import Resources
from app.services.runs.event_log import EventLog
from app.services.runs.leases import Lease
from app.services.runs.run_log import RunLog
from app.services.runs.streams import RunStreams
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")
SCOPE = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}


@dataclass(slots=True)
class Client:
    """The other end of a response. Once `takes` pieces came it does `then`; a `full` one takes no more."""

    takes: int
    then: Callable[[], object]
    full: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if not message.get("body"):
            return
        self.takes -= 1
        if self.takes == 0:
            self.then()
            if self.full:
                await asyncio.Event().wait()


@pytest.fixture
def reader(resources: Resources, bench: Bench) -> Reader:
    credential = Credential(bench.member.key, by_cookie=False, project=None)
    standing = Standing(resources.auth, credential, (), every_s=1000)
    return Reader(heartbeat_s=15, standing=standing, stopping=asyncio.Event())


async def answered(client: Client, bench: Bench, log: EventLog, lease: Lease, reader: Reader) -> None:
    """Streams the run to `client`, and looks whether anybody still watches it when that is over."""
    batches = RunStreams(bench.resources.database, log.watch).batches(bench.tenant, lease.id)
    await event_stream(batches, reader)(SCOPE, client.receive, client.send)
    assert lease.id not in log.watch.waiting
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def say(log: EventLog, lease: Lease) -> None:
    await RunLog(log, lease).emit(CustomEvent(name="n", value=1))
    await log.flush()


class TestWatchers:
    @pytest.mark.parametrize("full", [False, True], ids=["between-events", "amid-an-event"])
    async def test_are_gone_when_a_client_vanished(
        self, bench: Bench, log: EventLog, reader: Reader, full: bool
    ) -> None:
        lease = await bench.planted()
        await say(log, lease)
        client = Client(1, lambda: client.gone.set(), full=full)
        await answered(client, bench, log, lease, reader)

    async def test_are_gone_when_the_process_stops(
        self, bench: Bench, log: EventLog, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sse, "_LAST_EVENTS_S", 0)
        lease = await bench.planted()
        await say(log, lease)
        client = Client(1, reader.stopping.set)
        await answered(client, bench, log, lease, reader)

    async def test_are_gone_when_the_connection_fails_under_an_event(
        self, bench: Bench, log: EventLog, reader: Reader
    ) -> None:
        def broken() -> None:
            raise OSError("the connection broke")

        lease = await bench.planted()
        await say(log, lease)
        with pytest.raises(Exception, match="broke"):
            await answered(Client(1, broken), bench, log, lease, reader)
        assert lease.id not in log.watch.waiting
