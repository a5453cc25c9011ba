"""What a stranger learns by logging in, which is nothing, and how often they may try."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import text

from app.core.config import Settings
from app.core.ids import new_id
from tests.api.calls import API, ok, problem
from tests.factories import Factory, Person
from tests.fixtures import Running, http_client, running_server

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def replicas(
    settings: Settings, count: int = 1, **changes: Any
) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """Fresh servers behind a proxy that they trust."""
    changed = settings.model_copy(update={"trusted_proxies": ["127.0.0.1"]} | changes)
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(running_server(changed)) for _ in range(count)]
        yield [await stack.enter_async_context(http_client(one, None)) for one in running]


def address() -> dict[str, str]:
    """A client's that nobody has used yet."""
    parts = [str(byte) for byte in new_id().bytes[-3:]]
    return {"X-Forwarded-For": f"10.{'.'.join(parts)}"}


async def fail(
    client: httpx2.AsyncClient, email: str, *, headers: dict[str, str] | None = None
) -> httpx2.Response:
    body = {"email": email, "password": "wrong"}
    return await client.post(f"{API}/auth/login", json=body, headers=headers)


async def lock_waits(server: Running) -> int:
    """How many attempts to log in wait for another one's transaction."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%login_att%'"
    )
    async with server.resources.database.no_ones_work() as session:
        return int((await session.execute(text(query))).scalar_one())


def refused(response: httpx2.Response) -> tuple[str, dict[str, str]]:
    """What a refused login shows, without what differs in any two answers."""
    problem(response, 401, "invalid_credentials")
    headers = dict(response.headers)
    for name in ("date", "x-request-id"):
        del headers[name]
    return re.sub(r'"request_id":"\w+"', "", response.text), headers


class TestStrangers:
    @pytest.mark.parametrize(
        "state",
        [
            "SELECT 1",
            "UPDATE users SET suspended_at = now() WHERE id = :user",
            "UPDATE users SET password_hash = NULL WHERE id = :user",
            "UPDATE users SET password_hash = 'nonsense' WHERE id = :user",
            "UPDATE users SET email = email || '.moved' WHERE id = :user",
        ],
        ids=["wrong", "suspended", "no password", "unknown hash", "unknown email"],
    )
    async def test_hear_the_same_of_every_user(
        self, anyone: httpx2.AsyncClient, server: Running, make: Factory, person: Person, state: str
    ) -> None:
        nobody = refused(await fail(anyone, f"{new_id().hex}@example.test"))
        async with server.resources.database.system_work() as session:
            await session.execute(text(state), {"user": person.user_id} if ":user" in state else {})
        assert refused(await fail(anyone, person.email)) == nobody
        if state != "SELECT 1":
            assert refused(await anyone.post(f"{API}/auth/login", json=person.login)) == nobody

    async def test_hear_the_same_of_a_member_of_nothing(
        self, anyone: httpx2.AsyncClient, server: Running, person: Person
    ) -> None:
        nobody = refused(await fail(anyone, f"{new_id().hex}@example.test"))
        async with server.resources.database.unit_of_work(person.tenant) as session:
            leave = text("DELETE FROM memberships WHERE user_id = :user")
            await session.execute(leave, {"user": person.user_id})
        assert refused(await anyone.post(f"{API}/auth/login", json=person.login)) == nobody

    async def test_cause_the_same_work(
        self, anyone: httpx2.AsyncClient, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await fail(anyone, person.email)
        verified = Argon2Hasher.verify
        worked: list[str] = []

        def counting(self: Argon2Hasher, password: str, hash: str) -> bool:
            worked.append(hash.rsplit("$", 2)[0])
            return verified(self, password, hash)

        monkeypatch.setattr(Argon2Hasher, "verify", counting)
        for email in (person.email, f"{new_id().hex}@example.test"):
            await fail(anyone, email)
        assert len(worked) == 2
        assert worked[0] == worked[1]


class TestGuessing:
    async def test_one_email_is_bounded(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        for _ in range(5):
            refused(await fail(anyone, person.email))
        response = await anyone.post(f"{API}/auth/login", json=person.login)
        problem(response, 429, "too_many_logins")
        assert 1 <= int(response.headers["Retry-After"]) <= 180

    async def test_in_parallel_is_bounded_too(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        answers = await asyncio.gather(*(fail(anyone, person.email) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [401] * 5 + [429] * 15

    async def test_is_bounded_for_unknown_emails_alike(self, anyone: httpx2.AsyncClient) -> None:
        email = f"{new_id().hex}@example.test"
        answers = [await fail(anyone, email) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429]

    async def test_counts_an_email_however_it_is_written(
        self, anyone: httpx2.AsyncClient, person: Person
    ) -> None:
        for email in (person.email, person.email.upper(), f" {person.email}", person.email, person.email):
            refused(await fail(anyone, email))
        problem(await fail(anyone, person.email.title()), 429, "too_many_logins")

    async def test_leaves_others_alone(
        self, anyone: httpx2.AsyncClient, person: Person, make: Factory
    ) -> None:
        for _ in range(6):
            await fail(anyone, person.email)
        ok(await anyone.post(f"{API}/auth/login", json=(await make.person()).login))

    async def test_starts_anew_after_a_good_login(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        for _ in range(3):
            for _ in range(4):
                refused(await fail(anyone, person.email))
            ok(await anyone.post(f"{API}/auth/login", json=person.login))

    async def test_is_forgiven_with_time(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        for _ in range(6):
            await fail(anyone, person.email)
        async with server.resources.database.system_work() as session:
            await session.execute(
                text("UPDATE login_attempts SET forgiven_at = forgiven_at - interval '200 seconds'")
            )
        ok(await anyone.post(f"{API}/auth/login", json=person.login))

    async def test_holds_across_replicas_and_restarts(self, settings: Settings, person: Person) -> None:
        async with replicas(settings, 2) as (one, two):
            for client in (one, two, one, two, one):
                refused(await fail(client, person.email))
            problem(await fail(two, person.email), 429, "too_many_logins")
        async with replicas(settings) as (restarted,):
            problem(await fail(restarted, person.email), 429, "too_many_logins")


class TestAddress:
    async def test_is_bounded_over_all_emails(self, settings: Settings, person: Person) -> None:
        here = address()
        async with replicas(settings, login_attempts_per_address=3) as (client,):
            for _ in range(3):
                refused(await fail(client, f"{new_id().hex}@example.test", headers=here))
            response = await client.post(f"{API}/auth/login", json=person.login, headers=here)
            problem(response, 429, "too_many_logins")
            assert int(response.headers["Retry-After"]) >= 1
            ok(await client.post(f"{API}/auth/login", json=person.login, headers=address()))

    async def test_is_not_charged_for_good_logins(self, settings: Settings, person: Person) -> None:
        here = address()
        async with replicas(settings, login_attempts_per_address=3) as (client,):
            for _ in range(5):
                ok(await client.post(f"{API}/auth/login", json=person.login, headers=here))

    async def test_of_a_network_of_ipv6_is_one(self, settings: Settings) -> None:
        network = f"2001:db8:{new_id().hex[-4:]}:{new_id().hex[-8:-4]}"
        async with replicas(settings, login_attempts_per_address=2) as (client,):
            codes = []
            for host in (1, 2, 3):
                headers = {"X-Forwarded-For": f"{network}::{host}"}
                response = await fail(client, f"{new_id().hex}@example.test", headers=headers)
                codes.append(response.status_code)
        assert codes == [401, 401, 429]

    async def test_is_not_what_a_client_says(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        answers = [await fail(anyone, person.email, headers=address()) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429]

    async def test_before_the_proxy_is_not_what_a_client_says(
        self, settings: Settings, person: Person
    ) -> None:
        real = address()["X-Forwarded-For"]
        async with replicas(settings) as (client,):
            codes = []
            for _ in range(6):
                headers = {"X-Forwarded-For": f"{address()['X-Forwarded-For']}, {real}"}
                codes.append((await fail(client, person.email, headers=headers)).status_code)
        assert codes == [401] * 5 + [429]


class TestFlood:
    @pytest.fixture
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Passwords take their time, as they do in earnest."""
        verified = Argon2Hasher.verify

        def slowly(self: Argon2Hasher, password: str, hash: str) -> bool:
            time.sleep(0.1)
            return verified(self, password, hash)

        monkeypatch.setattr(Argon2Hasher, "verify", slowly)

    @pytest.mark.usefixtures("slow")
    async def test_is_turned_away_where_too_many_wait(self, settings: Settings) -> None:
        changes = {"password_concurrency": 1, "password_queue": 1}
        async with replicas(settings, **changes) as (client,):
            emails = [f"{new_id().hex}@example.test" for _ in range(30)]
            answers = await asyncio.gather(*(fail(client, email) for email in emails))
            codes = {answer.status_code for answer in answers}
            assert codes == {401, 503}
            turned_away = [answer for answer in answers if answer.status_code == 503]
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in turned_away)
            refused(await fail(client, emails[0]))

    @pytest.mark.usefixtures("slow")
    async def test_counts_nobody_who_was_turned_away(self, settings: Settings, person: Person) -> None:
        async with replicas(settings, password_concurrency=1, password_queue=0) as (client,):
            answers = await asyncio.gather(*(fail(client, person.email) for _ in range(30)))
            codes = [answer.status_code for answer in answers]
            assert 503 in codes
            tried = codes.count(401)
            left = [(await fail(client, person.email)).status_code for _ in range(6)].count(401)
        assert tried + left == 5

    async def test_that_the_database_holds_up_leaves_room_for_others(
        self, settings: Settings, server: Running, person: Person
    ) -> None:
        slow, here = f"{new_id().hex}@example.test", address()
        async with replicas(settings, password_concurrency=1, password_queue=0) as (client,):
            refused(await fail(client, slow, headers=here))
            async with server.resources.database.system_work() as session:
                await session.execute(text("SELECT FROM login_attempts FOR UPDATE"))
                held = [asyncio.create_task(fail(client, slow, headers=here)) for _ in range(3)]
                while await lock_waits(server) < len(held):
                    await asyncio.sleep(0.02)
                ok(await client.post(f"{API}/auth/login", json=person.login, headers=address()))
            assert {(await answer).status_code for answer in held} <= {401, 503}
