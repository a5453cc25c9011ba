"""G10: revocation, suspension and demotion bite within 5 s on access token, API key and open stream.

Two servers share a database; what happens through one, or behind the back of both, ends what the other
serves. How soon is shown by a clock of the test's own over the real parts; the soak run measures it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import text

from app.api.credentials import Credential, Standing
from app.core.config import Settings
from app.core.constants import REVOCATION_BITES_S
from app.core.errors import AppError
from app.core.permissions import Permission
from app.core.timed_cache import TimedCache
from app.embedded import Services
from app.resources import make_auth
from app.services.auth_service import AuthService
from tests.api.calls import API, ended, new_agent, ok
from tests.factories import Factory, Gate, Member, Person
from tests.fixtures import JWT_KEY, Running, http_client, running_server, settings_for
from tests.graphs import asking_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG_S = 60
"""For what must happen but is not what is measured."""


@dataclass(slots=True)
class World:
    """Two servers on one database: who is watched calls `here`, what ends it happens `there`."""

    here: Running
    there: Running


@asynccontextmanager
async def world_of(settings: Settings) -> AsyncIterator[World]:
    async with running_server(settings) as here, running_server(settings) as there:
        yield World(here, there)


@pytest.fixture(scope="session")
def usual(services: Services, services_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    found = settings_for(services, services_dir, blobs=tmp_path_factory.mktemp("blobs"))
    return found.model_copy(update={"lease_s": 30})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(usual: Settings) -> AsyncIterator[World]:
    """Quick to forget, so that the tests are quick."""
    quick = usual.model_copy(update={"auth_cache_s": 0.3, "stream_recheck_s": 0.2})
    async with world_of(quick) as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real_world(usual: Settings) -> AsyncIterator[World]:
    """With the settings as they are by default."""
    async with world_of(usual) as opened:
        yield opened


@dataclass(slots=True)
class Caller:
    """A person on the first server, by a session or by a key."""

    world: World
    person: Person
    headers: dict[str, str]
    credential: dict[str, Any]

    @property
    def make(self) -> Factory:
        return Factory(self.world.here.resources)

    def client(self, running: Running) -> httpx2.AsyncClient:
        client = http_client(running, None)
        client.headers.update(self.headers)
        return client


async def caller_by(world: World, channel: str) -> Caller:
    make = Factory(world.here.resources)
    person = await make.person()
    async with http_client(world.here, None) as client:
        grant = ok(await client.post(f"{API}/auth/login", json=person.login))
        headers = {"Authorization": f"Bearer {grant['access_token']}", "X-Project-Id": "default"}
        if channel == "session":
            return Caller(world, person, headers, {"path": f"sessions/{grant['session_id']}", **grant})
        made = ok(await client.post(f"{API}/auth/api-keys", json={"name": "k"}, headers=headers), 201)
    headers = {"Authorization": f"Bearer {made['key']}"}
    return Caller(world, person, headers, {"path": f"api-keys/{made['id']}", **made})


Ending = Callable[[Caller], Awaitable[None]]


async def revoke(caller: Caller) -> None:
    """Through the other server."""
    async with caller.client(caller.world.there) as client:
        response = await client.delete(f"{API}/auth/{caller.credential['path']}")
        assert response.status_code == 204


async def reuse(caller: Caller) -> None:
    """Somebody else has the session's refresh token, and both use it."""
    token = caller.credential["refresh_token"]
    async with http_client(caller.world.there, None) as client:
        for _ in range(2):
            body = {"refresh_token": token}
            token = ok(await client.post(f"{API}/auth/refresh", json=body))["refresh_token"]
        body = {"refresh_token": caller.credential["refresh_token"]}
        assert (await client.post(f"{API}/auth/refresh", json=body)).status_code == 401


async def suspend(caller: Caller) -> None:
    async with caller.world.there.resources.database.system_work() as session:
        query = text("UPDATE users SET suspended_at = now() WHERE id = :user")
        await session.execute(query, {"user": caller.person.user_id})


async def demote(caller: Caller) -> None:
    """Down to a role that may not run agents."""
    await _change_membership(caller, "UPDATE memberships SET role = 'viewer' WHERE user_id = :user")


async def expel(caller: Caller) -> None:
    await _change_membership(caller, "DELETE FROM memberships WHERE user_id = :user")


async def _change_membership(caller: Caller, statement: str) -> None:
    async with caller.world.there.resources.database.unit_of_work(caller.person.tenant) as session:
        await session.execute(text(statement), {"user": caller.person.user_id})


CASES = [
    pytest.param(channel, ending, id=f"{channel}-{ending.__name__}")
    for channel in ("session", "key")
    for ending in (revoke, reuse, suspend, demote, expel)
    if (channel, ending) != ("key", reuse)
]


async def refused(client: httpx2.AsyncClient) -> bool:
    """Whether a change is refused; asked with a name that makes none."""
    response = await client.post(f"{API}/agents", json={"name": ""})
    assert response.status_code in (401, 403, 422)
    return response.status_code != 422


async def bites_on_requests(world: World, channel: str, ending: Ending) -> float:
    """Seconds from the ending until no request passes."""
    caller = await caller_by(world, channel)
    async with caller.client(world.here) as client, asyncio.timeout(LONG_S):
        assert not await refused(client)
        await ending(caller)
        since = time.monotonic()
        while not await refused(client):
            await asyncio.sleep(0.02)
        return time.monotonic() - since


@dataclass(slots=True)
class OpenStream:
    """A run that waits at a gate, and a stream of it."""

    caller: Caller
    gate: Gate
    client: httpx2.AsyncClient
    response: httpx2.Response
    run_id: str

    async def ends(self) -> str:
        """What comes until the server closes."""
        return "".join([part async for part in self.response.aiter_text()])


@asynccontextmanager
async def open_stream(world: World, channel: str, kind: str) -> AsyncIterator[OpenStream]:
    caller = await caller_by(world, channel)
    owner = await caller.make.member(of=caller.person.tenant)
    gate = await caller.make.gate(owner)
    async with http_client(world.here, owner.key) as helper, caller.client(world.here) as client:
        agent = await new_agent(helper, asking_graph(gate.slug))
        body: dict[str, Any] = {"input": {"name": "Ada"}}
        path = f"{API}/agents/{agent}/runs"
        if kind == "followed":
            run_id = ok(await helper.post(path, json=body | {"wait_timeout_s": 0.01}), 202)["id"]
            request = client.build_request("GET", f"{API}/runs/{run_id}/events")
            response = await client.send(request, stream=True)
        else:
            request = client.build_request("POST", path, json=body | {"mode": "stream"})
            response = await client.send(request, stream=True)
            run_id = response.headers["Location"].rpartition("/")[2]
        assert response.status_code == 200
        await asyncio.wait_for(gate.entered.wait(), LONG_S)
        try:
            yield OpenStream(caller, gate, helper, response, run_id)
        finally:
            gate.opened.set()
            await response.aclose()
            await ended(helper, run_id)


async def bites_on_streams(world: World, channel: str, kind: str, ending: Ending) -> float:
    """Seconds from the ending until the server closes the stream."""
    async with open_stream(world, channel, kind) as stream, asyncio.timeout(LONG_S):
        await ending(stream.caller)
        since = time.monotonic()
        said = await stream.ends()
        took = time.monotonic() - since
        assert said.endswith(": ended: the credential holds no more\n\n")
        assert "RUN_FINISHED" not in said
        return took


class TestRequests:
    @pytest.mark.parametrize(("channel", "ending"), CASES)
    async def test_are_refused_once_the_credential_has_ended(
        self, world: World, channel: str, ending: Ending
    ) -> None:
        await bites_on_requests(world, channel, ending)

    @pytest.mark.parametrize("channel", ["session", "key"])
    async def test_are_refused_at_once_where_it_was_revoked(self, world: World, channel: str) -> None:
        caller = await caller_by(world, channel)
        async with caller.client(world.here) as client:
            assert not await refused(client)
            await client.delete(f"{API}/auth/{caller.credential['path']}")
            assert await refused(client)


STREAM_CASES = [
    *(pytest.param(case.values[0], "created", case.values[1], id=f"created-{case.id}") for case in CASES),
    pytest.param("session", "followed", revoke, id="followed-session-revoke"),
    pytest.param("key", "followed", revoke, id="followed-key-revoke"),
    pytest.param("key", "followed", suspend, id="followed-key-suspend"),
    pytest.param("session", "followed", expel, id="followed-session-expel"),
]


class TestStreams:
    @pytest.mark.parametrize(("channel", "kind", "ending"), STREAM_CASES)
    async def test_end_once_the_credential_has_ended(
        self, world: World, channel: str, kind: str, ending: Ending
    ) -> None:
        await bites_on_streams(world, channel, kind, ending)

    async def test_of_who_may_still_read_go_on(self, world: World) -> None:
        async with open_stream(world, "key", "followed") as stream, asyncio.timeout(LONG_S):
            await demote(stream.caller)
            async with stream.caller.client(world.here) as client:
                while not await refused(client):
                    await asyncio.sleep(0.02)
            stream.gate.opened.set()
            assert "RUN_FINISHED" in await stream.ends()

    async def test_leave_the_run_to_go_on(self, world: World) -> None:
        async with open_stream(world, "key", "created") as stream, asyncio.timeout(LONG_S):
            await revoke(stream.caller)
            await stream.ends()
            stream.gate.opened.set()
            run = await ended(stream.client, stream.run_id)
        assert (run["status"], run["output"]) == ("succeeded", {"text": "Wait is over"})

    async def test_show_nothing_that_was_stored_after_it(self, world: World) -> None:
        async with open_stream(world, "session", "created") as stream, asyncio.timeout(LONG_S):
            await suspend(stream.caller)
            said = await stream.ends()
            stream.gate.opened.set()
            await ended(stream.client, stream.run_id)
        assert " is over" not in said


@dataclass(slots=True)
class Clock:
    now: float = 1000.0


@dataclass(slots=True)
class Watched:
    """A key, as one server with the settings sees it whose clock the test turns."""

    auth: AuthService
    clock: Clock
    member: Member
    settings: Settings
    streams: list[Standing] = field(default_factory=list)

    async def request_passes(self) -> bool:
        try:
            await self.auth.authenticate(self.member.key)
        except AppError:
            return False
        return True

    def open_stream(self) -> Standing:
        credential = Credential(self.member.key, by_cookie=False, project=None)
        every_s = self.settings.stream_recheck_s
        read = [Permission.AGENTS_READ]
        return Standing(self.auth, credential, read, every_s, clock=lambda: self.clock.now)


async def watched(world: World, settings: Settings) -> Watched:
    clock, member = Clock(), await Factory(world.here.resources).member()
    here = world.here.resources
    auth = make_auth(settings, here.database, here.auth.pepper, JWT_KEY.encode())
    auth.cache = TimedCache(ttl_s=settings.auth_cache_s, size=10, clock=lambda: clock.now)
    return Watched(auth, clock, member, settings)


def moments(seed: int) -> Iterator[float]:
    """Steps of time between a request, or a stream's look, and the next."""
    yield from (0.05 + (seed * (step + 7) % 13) / 13 for step in range(40))


class TestBound:
    """Whatever the settings that are allowed, and whenever things happen."""

    @pytest.mark.parametrize("cache_s", [0, pytest.param(0.5, marks=pytest.mark.soak), 2, 5])
    @pytest.mark.parametrize("recheck_s", [0.1, pytest.param(2, marks=pytest.mark.soak), 3])
    @pytest.mark.parametrize("seed", [1, pytest.param(5, marks=pytest.mark.soak)])
    async def test_is_kept(
        self, world: World, usual: Settings, cache_s: float, recheck_s: float, seed: int
    ) -> None:
        settings = usual.model_copy(update={"auth_cache_s": cache_s, "stream_recheck_s": recheck_s})
        one = await watched(world, settings)
        streams = [one.open_stream()]
        assert await one.request_passes()
        for step in (1.7, 0.9):
            one.clock.now += step
            assert await one.request_passes()
            assert await streams[0].holds()
            streams.append(one.open_stream())
        async with world.here.resources.database.unit_of_work(one.member.tenant) as session:
            await session.execute(text("UPDATE api_keys SET revoked_at = now()"))
        since = one.clock.now
        last = since
        for step in moments(seed):
            one.clock.now += step
            passes = [await one.request_passes(), *[await stream.holds() for stream in streams]]
            if any(passes):
                last = one.clock.now
        assert last - since <= REVOCATION_BITES_S
        assert not await one.request_passes()

    async def test_what_cannot_be_checked_ends_a_stream_and_is_no_revocation(
        self, world: World, usual: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(*_: Any, **__: Any) -> Any:
            raise ConnectionResetError("the database restarts")

        one = await watched(world, usual)
        stream = one.open_stream()
        monkeypatch.setattr(type(stream.auth), "authenticate", away)
        one.clock.now += stream.every_s
        assert not await stream.holds()
        assert stream.in_doubt

    async def test_costs_a_hot_credential_one_look_up(self, world: World, usual: Settings) -> None:
        one = await watched(world, usual)
        for _ in range(100):
            one.clock.now += 0.01
            assert await one.request_passes()
        async with world.here.resources.database.unit_of_work(one.member.tenant) as session:
            await session.execute(text("UPDATE api_keys SET revoked_at = now()"))
        assert await one.request_passes()
        one.clock.now += usual.auth_cache_s
        assert not await one.request_passes()


@pytest.mark.soak
class TestInRealTime:
    """With the settings as they are."""

    @pytest.mark.parametrize(("channel", "ending"), CASES)
    async def test_requests_are_refused_within_the_time(
        self, real_world: World, channel: str, ending: Ending
    ) -> None:
        assert await bites_on_requests(real_world, channel, ending) <= REVOCATION_BITES_S

    @pytest.mark.parametrize(("channel", "kind", "ending"), STREAM_CASES)
    async def test_streams_end_within_the_time(
        self, real_world: World, channel: str, kind: str, ending: Ending
    ) -> None:
        assert await bites_on_streams(real_world, channel, kind, ending) <= REVOCATION_BITES_S
