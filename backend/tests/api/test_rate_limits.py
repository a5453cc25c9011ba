"""Rate limits over HTTP: told in every answer, refused with 429 and a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from app.core.config import Settings
from tests.api.calls import API, new_agent, ok, problem
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client, running_server

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def limited(settings: Settings, **limits: float) -> AsyncIterator[Running]:
    """A server whose windows are so long that none ends during a test."""
    changed = {f"rate_limit_{name}": value for name, value in limits.items()}
    async with running_server(
        settings.model_copy(update={"rate_limit_window_s": 86_400.0} | changed)
    ) as server:
        yield server


class TestHeaders:
    async def test_count_down(self, client: httpx2.AsyncClient) -> None:
        first, second = [(await client.get(f"{API}/agents")).headers for _ in range(2)]
        assert first["RateLimit-Limit"] == second["RateLimit-Limit"] == "10000"
        assert int(first["RateLimit-Remaining"]) <= 9999
        assert 1 <= int(first["RateLimit-Reset"]) <= 10

    async def test_are_on_errors_and_streams(self, client: httpx2.AsyncClient) -> None:
        agent = await new_agent(client)
        body = {"input": {"name": "Ada"}, "mode": "stream"}
        stream = await client.post(f"{API}/agents/{agent}/runs", json=body)
        missing = await client.get(f"{API}/agents/nobody")
        assert "RateLimit-Remaining" in stream.headers
        assert "RateLimit-Remaining" in missing.headers

    async def test_are_absent_where_nothing_is_limited(
        self, settings: Settings, member: Member, client: httpx2.AsyncClient
    ) -> None:
        assert "RateLimit-Limit" not in (await client.get("/health/live")).headers
        async with (
            limited(settings, credential=0, project=0, organization=0) as server,
            http_client(server, member.key) as free,
        ):
            assert "RateLimit-Limit" not in (await free.get(f"{API}/agents")).headers


class TestLimit:
    @pytest.mark.parametrize("scope", ["credential", "project", "organization"])
    async def test_is_429_with_a_time(self, settings: Settings, member: Member, scope: str) -> None:
        async with limited(settings, **{scope: 3}) as server, http_client(server, member.key) as client:
            for _ in range(3):
                ok(await client.get(f"{API}/agents"))
            response = await client.get(f"{API}/agents")
            body = problem(response, 429, "rate_limited")
            assert f"ORRERY_RATE_LIMIT_{scope.upper()}" in body["detail"]
            assert int(response.headers["Retry-After"]) >= 1
            assert (response.headers["RateLimit-Limit"], response.headers["RateLimit-Remaining"]) == (
                "3",
                "0",
            )
            ok(await client.get("/health/live"))

    async def test_of_a_credential_leaves_others_alone(
        self, settings: Settings, member: Member, make: Factory
    ) -> None:
        async with limited(settings, credential=1) as server:
            for key in (member.key, (await make.key(member)).key):
                async with http_client(server, key) as client:
                    ok(await client.get(f"{API}/agents"))
                    problem(await client.get(f"{API}/agents"), 429, "rate_limited")

    async def test_of_a_credential_is_one_however_it_is_written(
        self, settings: Settings, member: Member
    ) -> None:
        async with limited(settings, credential=2) as server, http_client(server, None) as client:
            answers = [
                await client.get(f"{API}/agents", headers={"Authorization": f"Bearer{space}{member.key}"})
                for space in (" ", "  ", " \t")
            ]
        assert [answer.status_code for answer in answers] == [200, 200, 429]

    @pytest.mark.parametrize("path", ["login", "refresh", "logout"])
    async def test_of_an_address_holds_before_any_credential_is_looked_at(
        self, settings: Settings, path: str
    ) -> None:
        body = {"email": "nobody@example.test", "password": "x"} if path == "login" else None
        async with limited(settings, address=2) as server, http_client(server, None) as client:
            for _ in range(2):
                assert (await client.post(f"{API}/auth/{path}", json=body)).status_code < 429
            refused = await client.post(f"{API}/auth/{path}", json=body)
            assert "ORRERY_RATE_LIMIT_ADDRESS" in problem(refused, 429, "rate_limited")["detail"]

    async def test_of_an_organization_holds_for_all_its_members(
        self, settings: Settings, member: Member, make: Factory
    ) -> None:
        colleague, stranger = await make.member(of=member.tenant), await make.member()
        async with limited(settings, organization=1) as server:
            async with http_client(server, member.key) as client:
                ok(await client.get(f"{API}/agents"))
            async with http_client(server, colleague.key) as client:
                problem(await client.get(f"{API}/agents"), 429, "rate_limited")
            async with http_client(server, stranger.key) as client:
                ok(await client.get(f"{API}/agents"))

    async def test_does_not_fail_without_redis(self, settings: Settings, member: Member) -> None:
        nowhere = settings.model_copy(update={"redis_url": type(settings.redis_url)("redis://127.0.0.1:1")})
        async with limited(nowhere, credential=4) as server, http_client(server, member.key) as client:
            statuses = [(await client.get(f"{API}/agents")).status_code for _ in range(6)]
        assert statuses == [200] * 4 + [429] * 2
