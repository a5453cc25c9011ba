"""G5: requests that are equal and carry the same `Idempotency-Key` have one effect and one answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import func, select, text, update

from app.core.config import Settings
from app.core.ids import new_id
from app.db.postgres.models.idempotency import IdempotencyKey
from app.db.postgres.repositories.idempotency import sweep_expired
from app.db.session import Effect
from tests.api.calls import API, keyed, new_agent, new_collection, ok, problem, total, work
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client, running_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARALLEL = 50


@pytest_asyncio.fixture(loop_scope="session")
async def neighbour(settings: Settings, member: Member) -> AsyncIterator[httpx2.AsyncClient]:
    """The same member at another process on the same database."""
    async with running_server(settings) as other, http_client(other, member.key) as opened:
        yield opened


@asynccontextmanager
async def impatient(settings: Settings, member: Member) -> AsyncIterator[httpx2.AsyncClient]:
    """A server that waits for nobody."""
    changed = settings.model_copy(update={"idempotency_wait_s": 0})
    async with running_server(changed) as other, http_client(other, member.key) as opened:
        yield opened


async def at_once(send: Callable[[], Awaitable[httpx2.Response]], count: int) -> list[httpx2.Response]:
    return list(await asyncio.gather(*(send() for _ in range(count))))


class TestParallel:
    @pytest.mark.parametrize("route", ["agents", "collections"])
    async def test_creates_are_one(self, client: httpx2.AsyncClient, route: str) -> None:
        headers = keyed()
        before = await total(client, route)
        answers = await at_once(
            lambda: client.post(f"{API}/{route}", json={"name": "Handbook"}, headers=headers), PARALLEL
        )
        assert {(a.status_code, a.text, a.headers.get("ETag")) for a in answers} == {
            (201, answers[0].text, answers[0].headers.get("ETag"))
        }
        assert await total(client, route) == before + 1
        assert sum("Idempotency-Replayed" in a.headers for a in answers) == PARALLEL - 1

    async def test_creates_through_two_processes_are_one(
        self, client: httpx2.AsyncClient, neighbour: httpx2.AsyncClient
    ) -> None:
        headers, body = keyed(), {"name": "Handbook"}
        first, second = await asyncio.gather(
            at_once(lambda: client.post(f"{API}/agents", json=body, headers=headers), 10),
            at_once(lambda: neighbour.post(f"{API}/agents", json=body, headers=headers), 10),
        )
        assert {(a.status_code, a.text) for a in [*first, *second]} == {(201, first[0].text)}
        assert await total(client, "agents") == 1

    async def test_publications_are_one(self, client: httpx2.AsyncClient) -> None:
        agent, headers = await new_agent(client, publish=False), keyed()
        answers = await at_once(lambda: client.post(f"{API}/agents/{agent}/publish", headers=headers), 10)
        assert {(a.status_code, a.text) for a in answers} == {(201, answers[0].text)}
        assert await total(client, f"agents/{agent}/versions") == 1

    async def test_runs_are_one_and_all_get_its_end(self, client: httpx2.AsyncClient) -> None:
        agent, headers = await new_agent(client), keyed()
        body = {"input": {"name": "Ada"}}
        answers = await at_once(
            lambda: client.post(f"{API}/agents/{agent}/runs", json=body, headers=headers), PARALLEL
        )
        assert {(a.status_code, a.text) for a in answers} == {(200, answers[0].text)}
        assert answers[0].json()["output"] == {"text": "Hello, Ada!"}
        assert await total(client, f"runs?agent={agent}") == 1

    async def test_uploads_are_one_whatever_boundary_they_have(
        self, client: httpx2.AsyncClient, neighbour: httpx2.AsyncClient
    ) -> None:
        path, headers = f"{API}/collections/{await new_collection(client)}/documents", keyed()
        content = [("files", (f"{n}.txt", b"Lighthouses warn ships. " * 9000)) for n in range(3)]
        answers = await asyncio.gather(
            *(caller.post(path, files=content, headers=headers) for caller in (client, neighbour) * 5)
        )
        assert {(a.status_code, a.text) for a in answers} == {(202, answers[0].text)}
        assert len({a.request.headers["Content-Type"] for a in answers}) == len(answers)
        assert await total(client, path.removeprefix(f"{API}/")) == 3
        assert await total(client, "jobs") == 1


class TestAgain:
    async def test_gets_the_answer_of_then(self, client: httpx2.AsyncClient) -> None:
        headers, body = keyed(), {"name": "Handbook"}
        first = await client.post(f"{API}/agents", json=body, headers=headers)
        ok(await client.patch(f"{API}/agents/{first.json()['id']}", json={"name": "Renamed"}))
        again = await client.post(f"{API}/agents", json=body, headers=headers)
        assert (again.status_code, again.text) == (201, first.text)
        assert again.headers["ETag"] == first.headers["ETag"]
        assert again.headers["Content-Type"] == "application/json"
        assert again.headers["Idempotency-Replayed"] == "true"
        assert "Idempotency-Replayed" not in first.headers

    @pytest.mark.parametrize("change", [{"json": {"name": "Other"}}, {"content": b'{"name":  "Handbook"}'}])
    async def test_with_another_body_is_refused(
        self, client: httpx2.AsyncClient, change: dict[str, Any]
    ) -> None:
        headers = keyed() | {"Content-Type": "application/json"}
        ok(await client.post(f"{API}/agents", json={"name": "Handbook"}, headers=headers), 201)
        response = await client.post(f"{API}/agents", headers=headers, **change)
        problem(response, 409, "idempotency_key_reused")
        assert await total(client, "agents") == 1

    async def test_with_another_file_is_refused(self, client: httpx2.AsyncClient) -> None:
        path, headers = f"{API}/collections/{await new_collection(client)}/documents", keyed()
        for content, status in ((b"One.", 202), (b"Two.", 409)):
            response = await client.post(path, files=[("files", ("a.txt", content))], headers=headers)
            assert response.status_code == status, response.text
        assert await total(client, path.removeprefix(f"{API}/")) == 1

    async def test_on_another_route_is_another_request(self, client: httpx2.AsyncClient) -> None:
        headers, body = keyed(), {"name": "Handbook"}
        ok(await client.post(f"{API}/agents", json=body, headers=headers), 201)
        ok(await client.post(f"{API}/collections", json=body, headers=headers), 201)

    async def test_by_somebody_else_is_another_request(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        headers, body = keyed(), {"name": "Handbook", "slug": "mine"}
        ok(await client.post(f"{API}/agents", json=body, headers=headers), 201)
        colleague = await make.member(of=member.tenant)
        async with http_client(server, colleague.key) as other:
            problem(await other.post(f"{API}/agents", json=body, headers=headers), 409, "duplicate")
        async with http_client(server, (await make.member()).key) as stranger:
            ok(await stranger.post(f"{API}/agents", json=body, headers=headers), 201)

    async def test_in_another_project_is_another_request(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        second = await make.project(member, slug=f"p-{new_id().hex[-12:]}")
        headers, body = keyed(), {"name": "Handbook"}
        async with http_client(server, (await make.key(member, unbound=True)).key) as both:
            for project in (member.tenant.project_id, second.project_id):
                named = headers | {"X-Project-Id": str(project)}
                ok(await both.post(f"{API}/agents", json=body, headers=named), 201)

    async def test_without_the_permission_gets_nothing(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        headers, body = keyed(), {"name": "Handbook"}
        ok(await client.post(f"{API}/agents", json=body, headers=headers), 201)
        narrow = await make.key(member, permissions=["agents:read"])
        async with http_client(server, narrow.key) as reader:
            problem(await reader.post(f"{API}/agents", json=body, headers=headers), 403, "forbidden")

    async def test_after_a_refusal_may_be_mended(self, client: httpx2.AsyncClient) -> None:
        headers = keyed()
        ok(await client.post(f"{API}/agents", json={"name": "A", "slug": "taken"}), 201)
        for body in ({"name": ""}, {"name": "B", "slug": "taken"}):
            response = await client.post(f"{API}/agents", json=body, headers=headers)
            assert response.status_code in (409, 422)
        ok(await client.post(f"{API}/agents", json={"name": "B", "slug": "free"}, headers=headers), 201)

    async def test_when_the_key_has_expired_is_a_new_request(
        self, client: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        headers, body = keyed(), {"items": [{"title": "Map", "text": "Gold."}]}
        path = f"{API}/collections/{await new_collection(client)}/documents/text"
        first = ok(await client.post(path, json=body, headers=headers), 202)
        async with server.resources.database.unit_of_work(member.tenant) as session:
            await session.execute(update(IdempotencyKey).values(expires_at=func.now()))
        second = ok(await client.post(path, json=body, headers=headers), 202)
        assert second["job_id"] != first["job_id"]
        assert second["items"][0]["status"] == "unchanged"

    async def test_is_for_posts_that_make_something_only(self, client: httpx2.AsyncClient) -> None:
        headers, agent = keyed(), await new_agent(client)
        for graph in ({}, None):
            path = f"{API}/agents/{agent}/validate"
            ok(await client.post(path, json={"graph": graph}, headers=headers))


class TestKey:
    @pytest.mark.parametrize("key", ["", "x" * 256, "with space", "ümlaut", "tab\there"])
    async def test_that_is_none_is_400(self, client: httpx2.AsyncClient, key: str) -> None:
        headers = [(b"Idempotency-Key", key.encode())]
        response = await client.post(f"{API}/agents", json={"name": "A"}, headers=headers)
        body = problem(response, 400, "invalid_idempotency_key")
        assert [error["pointer"] for error in body["errors"]] == ["/header/Idempotency-Key"]

    async def test_may_not_be_two(self, client: httpx2.AsyncClient) -> None:
        headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
        response = await client.post(f"{API}/agents", json={"name": "A"}, headers=headers)
        problem(response, 400, "invalid_idempotency_key")

    @pytest.mark.parametrize("key", ["!", "~" * 255, '"quoted"', "a/b?c=d"])
    async def test_may_be_any_visible_ascii(self, client: httpx2.AsyncClient, key: str) -> None:
        ok(await client.post(f"{API}/agents", json={"name": "Agent"}, headers=keyed(key)), 201)


class TestWhileTheFirstExecutes:
    @asynccontextmanager
    async def held(self, server: Running, member: Member, slug: str) -> AsyncIterator[None]:
        """The slug is taken by a transaction that does not end, so that a create has to wait for it."""
        async with server.resources.database.unit_of_work(member.tenant) as session:
            row = {"org": member.tenant.org_id, "project": member.tenant.project_id, "slug": slug}
            await session.execute(
                text(
                    "INSERT INTO agents (org_id, id, project_id, slug, name, description, draft, revision) "
                    "VALUES (:org, gen_random_uuid(), :project, :slug, 'Held', '', '{}', 1)"
                ),
                row,
            )
            yield
            await session.rollback()

    async def test_the_others_wait_in_this_process_and_the_next(
        self, client: httpx2.AsyncClient, neighbour: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        slug, headers = f"slow-{new_id().hex[-12:]}", keyed()
        body = {"name": "Slow", "slug": slug}
        async with self.held(server, member, slug):
            posts = [
                asyncio.create_task(caller.post(f"{API}/agents", json=body, headers=headers))
                for caller in (client, client, neighbour)
            ]
            _, waiting = await asyncio.wait(posts, timeout=0.5)
            assert len(waiting) == 3
        answers = await asyncio.gather(*posts)
        assert {(a.status_code, a.text) for a in answers} == {(201, answers[0].text)}

    async def test_they_are_told_so_in_the_end(
        self, settings: Settings, client: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        slug, headers = f"slow-{new_id().hex[-12:]}", keyed()
        body = {"name": "Slow", "slug": slug}
        async with impatient(settings, member) as other:
            async with self.held(server, member, slug):
                first = asyncio.create_task(client.post(f"{API}/agents", json=body, headers=headers))
                await asyncio.wait({first}, timeout=0.5)
                response = await other.post(f"{API}/agents", json=body, headers=headers)
                problem(response, 409, "idempotency_in_progress")
                assert int(response.headers["Retry-After"]) >= 1
            made = ok(await first, 201)
            again = await other.post(f"{API}/agents", json=body, headers=headers)
            assert ok(again, 201)["id"] == made["id"]


class TestCrash:
    async def test_before_the_commit_leaves_neither_effect_nor_key(
        self, client: httpx2.AsyncClient, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The database loses the connection when everything is written: all that a kill -9 shows it."""
        keep, headers, body = Effect.keep, keyed(), {"name": "Handbook"}

        async def die(effect: Effect) -> None:
            assert effect.connection
            pid = (await effect.connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            async with server.resources.database.engine.connect() as killer:
                await killer.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            await keep(effect)

        monkeypatch.setattr(Effect, "keep", die)
        response = await client.post(f"{API}/agents", json=body, headers=headers)
        problem(response, 503, "unavailable")
        assert await total(client, "agents") == 0
        monkeypatch.setattr(Effect, "keep", keep)
        ok(await client.post(f"{API}/agents", json=body, headers=headers), 201)
        assert await total(client, "agents") == 1

    async def test_after_the_commit_leaves_both(
        self, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keep, headers, body = Effect.keep, keyed(), {"name": "Handbook"}

        async def keep_and_die(effect: Effect) -> None:
            await keep(effect)
            raise RuntimeError("gone before anything was sent")

        monkeypatch.setattr(Effect, "keep", keep_and_die)
        problem(await client.post(f"{API}/agents", json=body, headers=headers), 500, "internal_error")
        monkeypatch.setattr(Effect, "keep", keep)
        made = ok(await client.post(f"{API}/agents", json=body, headers=headers), 201)
        assert [agent["id"] for agent in ok(await client.get(f"{API}/agents"))["items"]] == [made["id"]]


class TestWhatIsKept:
    async def test_is_no_secret(self, client: httpx2.AsyncClient, server: Running, member: Member) -> None:
        headers, body = keyed(), {"name": "Spare"}
        made = ok(await client.post(f"{API}/auth/api-keys", json=body, headers=headers), 201)
        again = await client.post(f"{API}/auth/api-keys", json=body, headers=headers)
        assert made["id"] in problem(again, 409, "idempotency_not_replayable")["detail"]
        assert await total(client, "auth/api-keys") == 2
        async with server.resources.database.unit_of_work(member.tenant) as session:
            rows = (await session.execute(text("SELECT idempotency_keys::text FROM idempotency_keys"))).all()
        assert rows
        assert made["key"] not in str(rows)
        assert made["key"].encode().hex() not in str(rows)

    async def test_is_forgotten_with_the_document(
        self, client: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        path = f"{API}/collections/{await new_collection(client)}/documents/text"
        headers, body = keyed(), {"items": [{"title": "Canary of the title", "text": "Gold."}]}
        taken = ok(await client.post(path, json=body, headers=headers), 202)
        document = taken["items"][0]["document_id"]
        await work(server)
        ok(await client.delete(f"{API}/documents/{document}"), 202)
        await server.drain().run("ingest")
        problem(await client.post(path, json=body, headers=headers), 409, "idempotency_not_replayable")
        async with server.resources.database.unit_of_work(member.tenant) as session:
            bodies = list((await session.execute(select(IdempotencyKey.body))).scalars())
        assert bodies == [None]

    async def test_is_swept_when_it_has_expired(
        self, client: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        for _ in range(2):
            ok(
                await client.post(
                    f"{API}/agents", json={"name": "Agent"} | {"slug": f"a-{new_id().hex}"}, headers=keyed()
                ),
                201,
            )
        database = server.resources.database
        async with database.unit_of_work(member.tenant) as session:
            newest = select(func.max(IdempotencyKey.created_at)).scalar_subquery()
            await session.execute(
                update(IdempotencyKey)
                .where(IdempotencyKey.created_at < newest)
                .values(expires_at=func.now() - text("interval '1 second'"))
            )
        async with database.system_work() as session:
            await sweep_expired(session)
        async with database.unit_of_work(member.tenant) as session:
            assert (await session.execute(select(func.count()).select_from(IdempotencyKey))).scalar_one() == 1
