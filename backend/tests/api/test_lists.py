"""What every list of the API has in common, held against each of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import event, inspect

from app.db.postgres.models.agents import AgentRunStep
from app.db.postgres.models.sessions import UserSession
from app.db.postgres.repositories.agents import Agents, AgentVersions, Runs
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.identity import Projects
from app.db.postgres.repositories.rag import Documents
from app.db.postgres.repositories.work import WorkItems
from tests.api.calls import API, add_texts, new_agent, new_collection, next_version, ok, pointers
from tests.api.operations import OURS, Operation
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")

LISTS = [operation for operation in OURS if "cursor" in operation.names("query")]
ROWS = 5
LARGE: dict[str, type[Repository[Any]]] = {
    "agents_list": Agents,
    "agents_versions": AgentVersions,
    "documents_list": Documents,
    "jobs_items": WorkItems,
    "projects_list": Projects,
    "runs_list": Runs,
}
"""Lists of what has large columns."""

each_list = pytest.mark.parametrize("listed", LISTS, ids=lambda operation: operation.id)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def household(server: Running) -> tuple[Member, dict[str, str]]:
    """An organization with `ROWS` rows or more in each list, and the ids that paths need."""
    make = Factory(server.resources)
    owner = await make.member()
    everywhere = await make.key(owner, unbound=True)
    for number in range(ROWS):
        await make.project(owner, slug=f"room-{number}")
        await make.key(owner)
    async with http_client(server, owner.key) as client:
        agents = [await new_agent(client, publish=False) for _ in range(ROWS)]
        for number in range(ROWS):
            await next_version(client, agents[0], f"Greeting {number}")
        for _ in range(ROWS):
            ok(await client.post(f"{API}/agents/{agents[0]}/runs", json={"input": {"name": "Ada"}}))
        asking = await new_agent(client, asking_often())
        asked = ok(await client.post(f"{API}/agents/{asking}/runs", json={"input": {}}))["id"]
        for number in range(ROWS):
            secret = {"name": f"secret-{number}", "value": "a value of some length"}
            ok(await client.post(f"{API}/secrets", json=secret), 201)
            place = {"slug": f"place-{number}", "base_url": f"https://{number}.example/v1"}
            ok(await client.post(f"{API}/model-connections", json=place), 201)
            model = {"slug": f"model-{number}", "model": "extractive"}
            ok(await client.post(f"{API}/models", json=model), 201)
            tool = {"slug": f"tool-{number}", "config": {"kind": "builtin", "function": "calculator"}}
            ok(await client.post(f"{API}/tools", json=tool), 201)
        collections = [await new_collection(client) for _ in range(ROWS)]
        texts = [{"title": f"Text {n}", "text": f"Sentence {n}.", "metadata": {"n": n}} for n in range(ROWS)]
        taken = await add_texts(client, collections[0], *texts)
        for number in range(ROWS):
            await add_texts(client, collections[1], {"title": f"Other {number}", "text": "Other."})
    async with server.resources.database.unit_of_work(owner.tenant) as session:
        session.add_all(steps(owner, UUID(asked)))
    async with server.resources.database.system_work() as session:
        session.add_all([login(owner) for _ in range(ROWS)])
    ids = {"agent": agents[0], "collection": collections[0], "run_id": asked, "job_id": taken["job_id"]}
    return Member(everywhere.user_id, owner.tenant, everywhere.key), ids


def asking_often() -> dict[str, Any]:
    """A graph that asks `ROWS` people at once."""
    names = [f"ask_{number}" for number in range(ROWS)]
    asks = [{"id": name, "type": "human", "config": {"message": name}} for name in names]
    pairs = [pair for name in names for pair in (("start", name), (name, "done"))]
    return {
        "schema_version": "1",
        "nodes": [{"id": "start", "type": "start"}, *asks, {"id": "done", "type": "end"}],
        "edges": [{"source": source, "target": target} for source, target in pairs],
    }


def login(owner: Member) -> UserSession:
    return UserSession(
        user_id=owner.user_id,
        organization_id=owner.tenant.org_id,
        user_agent="tests",
        address_hint="127.0.0.0/24",
        browser=False,
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )


def steps(owner: Member, run_id: UUID) -> Iterator[AgentRunStep]:
    """As a loop makes them, some of which began at once."""
    for visit in range(ROWS):
        yield AgentRunStep(
            org_id=owner.tenant.org_id,
            run_id=run_id,
            node_path="ask",
            visit=visit + 1,
            node_type="llm",
            status="succeeded",
            seq=visit + 1,
            started_at=datetime(2026, 1, 1 + visit // 2, tzinfo=UTC),
            duration_ms=1,
        )


@pytest_asyncio.fixture(loop_scope="session")
async def caller(
    server: Running, household: tuple[Member, dict[str, str]]
) -> AsyncIterator[httpx2.AsyncClient]:
    async with http_client(server, household[0].key) as client:
        yield client


class Listed:
    """One list, asked for as its path needs."""

    def __init__(self, operation: Operation, client: httpx2.AsyncClient, ids: dict[str, str]) -> None:
        self.client = client
        self.path = operation.path.format_map(ids)
        (sort,) = [p["schema"] for p in operation.description["parameters"] if p["name"] == "sort"]
        self.sorts: list[str] = sort["enum"]
        self.usual: str = sort["default"]
        tenant = {} if operation.id == "projects_list" else {"X-Project-Id": "default"}
        self.client.headers.update(tenant)

    async def answer(self, **params: Any) -> httpx2.Response:
        return await self.client.get(self.path, params=params)

    async def page(self, **params: Any) -> dict[str, Any]:
        return ok(await self.answer(**params))

    async def walk(self, **params: Any) -> list[dict[str, Any]]:
        """The items of all pages."""
        page = await self.page(**params)
        items: list[dict[str, Any]] = page["items"]
        while page["next_cursor"] is not None:
            page = await self.page(**params, cursor=page["next_cursor"])
            items += page["items"]
        return items


@pytest.fixture
def rows(listed: Operation, caller: httpx2.AsyncClient, household: tuple[Member, dict[str, str]]) -> Listed:
    return Listed(listed, caller, household[1])


@contextmanager
def statements(server: Running) -> Iterator[list[str]]:
    """What is sent to the database inside the block."""
    sent: list[str] = []
    engine = server.resources.database.engine.sync_engine

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


class TestLists:
    async def test_are_all_here(self) -> None:
        """Whatever answers `items` with a cursor takes one."""
        answering = {
            operation.id
            for operation in OURS
            if "PageRead" in str(operation.description["responses"].get("200", {}).get("content"))
        }
        assert {operation.id for operation in LISTS} == answering
        assert len(answering) >= 10

    @each_list
    async def test_have_as_many_items_as_are_asked_for(self, rows: Listed) -> None:
        everything = await rows.page(limit=200)
        assert everything["next_cursor"] is None
        for limit in (1, 2, len(everything["items"])):
            page = await rows.page(limit=limit)
            assert page["items"] == everything["items"][:limit]
            assert (page["next_cursor"] is None) == (limit == len(everything["items"]))

    @each_list
    async def test_are_whole_whatever_the_limit_and_the_sort(self, rows: Listed) -> None:
        for sort in rows.sorts:
            once = (await rows.page(limit=200, sort=sort))["items"]
            assert await rows.walk(limit=2, sort=sort) == once

    @each_list
    async def test_are_sorted_by_what_is_asked_for(self, rows: Listed) -> None:
        for sort in rows.sorts:
            key = sort.removeprefix("-")
            values = [item[key] for item in await rows.walk(limit=200, sort=sort)]
            assert values == sorted(values, reverse=sort.startswith("-"))

    @each_list
    async def test_are_turned_round_by_the_sign(self, rows: Listed) -> None:
        for sort in rows.sorts:
            if not sort.startswith("-"):
                assert (await rows.walk(sort=sort))[::-1] == await rows.walk(sort=f"-{sort}")

    @each_list
    async def test_have_a_usual_sort(self, rows: Listed) -> None:
        assert await rows.page() == await rows.page(sort=rows.usual)

    @each_list
    async def test_refuse_an_unknown_sort_with_the_valid_ones(self, rows: Listed) -> None:
        response = await rows.answer(sort="colour")
        assert pointers(response) == ["/query/sort"]
        assert all(repr(sort) in response.json()["detail"] for sort in rows.sorts)

    @each_list
    async def test_have_a_total_only_where_it_is_asked_for(self, rows: Listed) -> None:
        everything = await rows.walk()
        assert set(await rows.page()) == set(await rows.page(count=False)) == {"items", "next_cursor"}
        first = await rows.page(limit=1, count=True)
        assert first["total"] == len(everything)
        if first["next_cursor"]:
            assert (await rows.page(limit=1, count=True, cursor=first["next_cursor"]))["total"] == first[
                "total"
            ]

    @each_list
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("limit", "0"),
            ("limit", "201"),
            ("limit", "x"),
            ("count", "perhaps"),
            ("cursor", "?"),
            ("cursor", ""),
        ],
    )
    async def test_refuse_a_bad_page(self, rows: Listed, name: str, value: str) -> None:
        assert pointers(await rows.answer(**{name: value})) == [f"/query/{name}"]

    @each_list
    async def test_refuse_unknown_parameters(self, rows: Listed) -> None:
        assert pointers(await rows.answer(colour="red")) == ["/query/colour"]

    @each_list
    async def test_refuse_a_cursor_of_another_sort(self, rows: Listed) -> None:
        cursor = (await rows.page(limit=1))["next_cursor"]
        if cursor is None:
            pytest.skip("one page has it all")
        (other, *_) = [sort for sort in rows.sorts if sort != rows.usual]
        response = await rows.answer(cursor=cursor, sort=other)
        assert pointers(response) == ["/query/cursor"]
        assert repr(other) in response.json()["detail"]

    @each_list
    async def test_refuse_a_cursor_of_other_filters(self, listed: Operation, rows: Listed) -> None:
        if "q" not in listed.names("query"):
            pytest.skip("it has no such filter")
        cursor = (await rows.page(limit=1))["next_cursor"]
        assert pointers(await rows.answer(cursor=cursor, q="e")) == ["/query/cursor"]

    async def test_refuse_a_cursor_of_another_list(
        self, caller: httpx2.AsyncClient, household: tuple[Member, dict[str, str]]
    ) -> None:
        agents, collections = (
            Listed(operation, caller, household[1])
            for operation in LISTS
            if operation.id in ("agents_list", "collections_list")
        )
        cursor = (await agents.page(limit=1))["next_cursor"]
        assert pointers(await collections.answer(cursor=cursor)) == ["/query/cursor"]

    @pytest.mark.parametrize(
        "listed", [o for o in LISTS if o.id in LARGE], ids=lambda operation: operation.id
    )
    async def test_do_not_load_what_they_do_not_show(
        self, server: Running, listed: Operation, rows: Listed
    ) -> None:
        repository = LARGE[listed.id]
        columns = inspect(repository.model).columns
        large = [columns[attribute.key].name for attribute in repository.large]
        with statements(server) as sent:
            items = (await rows.page())["items"]
        table = repository.model.__tablename__
        (query,) = [statement for statement in sent if f"FROM {table}" in statement and "LIMIT" in statement]
        assert items
        for name in large:
            assert name not in items[0]
            assert not re.search(rf"\b{table}\.{name}\b", query)


class TestRepeated:
    async def test_parameters_are_refused_where_one_is_taken(self, client: httpx2.AsyncClient) -> None:
        response = await client.get(f"{API}/agents?limit=1&limit=2&limit=3&q=a")
        assert pointers(response) == ["/query/limit"]
        assert "'limit' is taken once only" in response.json()["detail"]

    async def test_parameters_are_taken_where_several_are(self, client: httpx2.AsyncClient) -> None:
        ok(await client.get(f"{API}/runs?status=queued&status=running"))


class TestFilters:
    async def find(self, client: httpx2.AsyncClient, path: str, **params: Any) -> list[dict[str, Any]]:
        return list(ok(await client.get(f"{API}/{path}", params=params))["items"])

    async def test_find_text_in_any_case(self, client: httpx2.AsyncClient) -> None:
        for name in ("Gärtner 100%", "Gardener_1", "Other"):
            ok(await client.post(f"{API}/agents", json={"name": name}), 201)
        for q, expected in (("gÄRT", 1), ("gard", 1), ("100%", 1), ("_1", 1), ("%", 1), ("er", 3), ("", 3)):
            assert len(await self.find(client, "agents", q=q)) == expected, q

    @pytest.mark.parametrize("path", ["agents", "collections"])
    async def test_find_text_in_slugs(self, client: httpx2.AsyncClient, path: str) -> None:
        for slug in ("one-slug", "other"):
            ok(await client.post(f"{API}/{path}", json={"name": "Name", "slug": slug}), 201)
        assert [row["slug"] for row in await self.find(client, path, q="E-S")] == ["one-slug"]

    async def test_of_runs_hold_together(self, client: httpx2.AsyncClient) -> None:
        one, other = await new_agent(client), await new_agent(client)
        made = []
        for slug in (one, one, other):
            run = ok(await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": "Ada"}}))
            made.append(run)
        ids = [run["id"] for run in made]
        wanted: list[tuple[dict[str, Any], list[str]]] = [
            ({"status": "succeeded"}, ids),
            ({"status": "failed"}, []),
            ({"status": ["failed", "succeeded"]}, ids),
            ({"agent": one}, ids[:2]),
            ({"agent": one, "version": "1"}, ids[:2]),
            ({"version": made[2]["version_id"]}, ids[2:]),
            ({"agent": one, "version": made[2]["version_id"], "status": "failed"}, []),
            ({"created_after": made[0]["created_at"]}, ids[1:]),
            ({"created_before": made[2]["created_at"], "agent": one}, ids[:2]),
        ]
        for params, expected in wanted[:6] + wanted[7:]:
            found = await self.find(client, "runs", sort="created_at", **params)
            assert [run["id"] for run in found] == expected, params

    async def test_of_runs_by_version_need_the_agent_or_an_id(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        assert pointers(await client.get(f"{API}/runs", params={"version": "1"})) == ["/query/version"]
        for version in ("2", "-1", "9" * 30, "live"):
            response = await client.get(f"{API}/runs", params={"version": version, "agent": slug})
            assert response.status_code == 404

    @pytest.mark.parametrize("value", ["yesterday", "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00"])
    async def test_refuse_what_is_no_time(self, client: httpx2.AsyncClient, value: str) -> None:
        response = await client.get(f"{API}/runs", params={"created_after": value})
        assert pointers(response) == ["/query/created_after"]

    async def test_of_documents(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        texts = [{"title": f"Text {n}", "text": "Text.", "external_id": f"id/{n}"} for n in range(3)]
        await add_texts(client, slug, *texts)
        path = f"collections/{slug}/documents"
        assert [d["title"] for d in await self.find(client, path, external_id="id/1")] == ["Text 1"]
        assert [d["title"] for d in await self.find(client, path, q="t 2")] == ["Text 2"]
        assert len(await self.find(client, path, status=["accepted", "ready"])) == 3
        assert await self.find(client, path, status="ready", q="Text") == []

    async def test_of_jobs(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        taken = await add_texts(client, slug, {"title": "A", "text": "A."})
        gone = ok(await client.delete(f"{API}/collections/{slug}"), 202)
        ids = [gone["job_id"], taken["job_id"]]
        assert [job["id"] for job in await self.find(client, "jobs", status="queued")] == ids
        assert [job["id"] for job in await self.find(client, "jobs", kind="ingestion")] == ids[1:]
        assert await self.find(client, "jobs", status="succeeded") == []
        assert pointers(await client.get(f"{API}/jobs", params={"kind": "magic"})) == ["/query/kind/0"]

    async def test_of_the_items_of_a_job(self, client: httpx2.AsyncClient) -> None:
        taken = await add_texts(client, await new_collection(client), {"title": "A", "text": "A."})
        path = f"jobs/{taken['job_id']}/items"
        assert len(await self.find(client, path, status="queued")) == 1
        assert await self.find(client, path, status=["failed", "cancelled"]) == []

    async def test_of_keys(self, client: httpx2.AsyncClient, make: Factory, member: Member) -> None:
        ok(await client.post(f"{API}/auth/api-keys", json={"name": "Nightly job"}), 201)
        assert [key["name"] for key in await self.find(client, "auth/api-keys", q="night")] == ["Nightly job"]
