"""What belongs to somebody else answers exactly like what is not there, on every route there is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from app.core.ids import new_id
from tests.api.calls import API, add_texts, new_agent, new_collection, ok, work
from tests.api.operations import BODIES, DOCUMENT, OURS, Operation
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLS = [call for call in OURS if call.parameters and call.id != "node_types_get"]  # they are everybody's

STREAMS = {"runs_events", "jobs_events", "documents_original"}

REFERENCES: dict[tuple[str, str], str] = {
    ("search", "body/collections/0"): "collection",
    ("api_keys_create", "body/project"): "project",
    ("models_create", "body/connection"): "connection",
    ("runs_list", "query/agent"): "agent",
    ("interrupts_list", "query/agent"): "agent",
    ("runs_list", "query/version"): "version",
}
"""Where a body or a query names something: operation and place → what of the treasure."""

OPAQUE = re.compile(
    r"body/(name|slug|title|description|note|query|input|metadata|settings|value)"
    r"|body/items/0/(title|text|external_id|metadata)"
    r"|body/(email|password|current_password|new_password|refresh_token)"
    r"|body/organization"  # of a login, which has tests of its own
    r"|body/connection"  # `models_update` has a test of its own for it
    r"|body/(model|base_url|api_key|config(/.*)?)"  # of models elsewhere
    r"|body/(operation|arguments(/.*)?|confirm)"  # of a tool that is found by the path
    r"|body/(graph|from|to|document|bindings)(/.*)?"  # what bindings name has a test of its own
    r"|query/(cursor|q|external_id)"
    r"|query/(from|to|version)|body/version"  # of the agent in the path
    r"|body/(choice|data(/.*)?)|query/assignee"  # of a question that is found by the path, or of a person
    r"|header/(X-Project-Id|if-match|if-none-match|Idempotency-Key)"
)
"""Fields that name nothing that is stored, or (the project, the graph, cursors) are tested for all routes."""


ASKING: dict[str, Any] = {
    "schema_version": "1",
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "ask", "type": "human", "config": {"message": "Where is the gold?"}},
        {"id": "done", "type": "end"},
    ],
    "edges": [{"source": "start", "target": "ask"}, {"source": "ask", "target": "done"}],
}


@dataclass(slots=True)
class Treasure:
    """One of everything that a project can own; `ids` by the name of the path parameter."""

    owner: Member
    ids: dict[str, str]
    slugs: dict[str, str] = field(default_factory=dict)

    async def snapshot(self, client: httpx2.AsyncClient) -> list[Any]:
        """All of it, as its owner sees it."""
        keys = ok(await client.get(f"{API}/auth/api-keys"))["items"]
        return [{"keys": {key["id"] for key in keys}}] + [
            ok(await client.get(call.path.format_map(self.ids)))
            for call in CALLS
            if call.method == "GET" and call.id not in STREAMS
        ]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def treasure(server: Running) -> Treasure:
    owner = await Factory(server.resources).member()
    async with http_client(server, owner.key) as client:
        agent, collection = await new_agent(client), await new_collection(client)
        run = ok(await client.post(f"{API}/agents/{agent}/runs", json={"input": {"name": "Ada"}}))
        taken = await add_texts(client, collection, {"title": "Map", "text": "The gold is on the island."})
        await work(server)
        key = ok(await client.post(f"{API}/auth/api-keys", json={"name": "Spare"}), 201)
        colleague = await Factory(server.resources).person(of=owner.tenant)
        session = ok(await client.post(f"{API}/auth/login", json=colleague.login), 200)
        secret = ok(await client.post(f"{API}/secrets", json={"name": "gold", "value": "island"}), 201)
        place = {"slug": "vault", "base_url": "https://gold.example/v1", "api_key": "island"}
        connection = ok(await client.post(f"{API}/model-connections", json=place), 201)
        named = {"slug": "smith", "model": "gold-1", "connection": "vault"}
        model = ok(await client.post(f"{API}/models", json=named), 201)
        calculator = {"kind": "builtin", "function": "calculator"}
        tool = ok(await client.post(f"{API}/tools", json={"slug": "pick", "config": calculator}), 201)
        asked = ok(
            await client.post(f"{API}/agents/{await new_agent(client, ASKING)}/runs", json={"input": {}})
        )
        (question,) = ok(await client.get(f"{API}/runs/{asked['id']}/interrupts"))["items"]
        ids = {
            "interrupt_id": question["id"],
            "type": "llm",
            "tool": tool["id"],
            "connection": connection["id"],
            "model": model["id"],
            "session_id": session["session_id"],
            "agent": run["agent_id"],
            "run_id": run["id"],
            "collection": ok(await client.get(f"{API}/collections/{collection}"))["id"],
            "document_id": taken["items"][0]["document_id"],
            "job_id": taken["job_id"],
            "key_id": key["id"],
            "secret": secret["id"],
            "project": str(owner.tenant.project_id),
            "version": run["version_id"],
        }
    slugs = {"connection": "vault", "model": "smith", "secret": "gold", "tool": "pick"}
    return Treasure(owner, ids, slugs | {"agent": agent, "collection": collection})


@pytest_asyncio.fixture(loop_scope="session", params=["another organization", "another project"])
async def stranger(
    request: pytest.FixtureRequest, server: Running, make: Factory, treasure: Treasure
) -> httpx2.AsyncClient:
    """Somebody who may do everything, but elsewhere."""
    if request.param == "another organization":
        return http_client(server, (await make.member()).key)
    second = await make.project(treasure.owner, slug=f"p-{new_id().hex[-12:]}")
    client = http_client(server, (await make.key(treasure.owner, unbound=True)).key)
    client.headers["X-Project-Id"] = str(second.project_id)
    return client


def places(operation: Operation) -> list[str]:
    """Where a request of `operation` may name something, its path apart."""
    found = [f"body{pointer}" for pointer in operation.fields(DOCUMENT)]
    found += [f"query/{name}" for name in operation.names("query")]
    return found + [f"header/{name}" for name in operation.names("header")]


def naming(operation: str, place: str, value: str) -> dict[str, Any]:
    """What to send so that `place` names `value`."""
    kind, _, name = place.partition("/")
    if kind == "query":
        return {"params": {name: value}}
    body = dict(BODIES[operation]["json"])
    first, _, rest = name.partition("/")
    body[first] = [value] if rest == "0" else value
    return {"json": body}


class TestForeignIds:
    @pytest.mark.parametrize("call", CALLS, ids=lambda call: call.id)
    async def test_answer_like_missing_ones(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, call: Operation
    ) -> None:
        missing = {name: str(new_id()) for name in treasure.ids}
        async with stranger:
            theirs = await call.answer(stranger, treasure.ids)
            assert theirs == await call.answer(stranger, missing)
        assert theirs[0] == 404

    @pytest.mark.parametrize(
        "call",
        [
            c
            for c in CALLS
            if {"agent", "collection", "connection", "model", "secret", "tool"} & set(c.parameters)
        ],
        ids=lambda call: call.id,
    )
    async def test_are_not_found_by_slug_either(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, call: Operation
    ) -> None:
        missing = {name: f"none-{new_id().hex[-12:]}" for name in treasure.slugs}
        async with stranger:
            theirs = await call.answer(stranger, treasure.slugs | {"version": "1"})
            assert theirs == await call.answer(stranger, missing | {"version": "1"})
        assert theirs[0] == 404

    async def test_leave_everything_as_it_was(
        self, server: Running, stranger: httpx2.AsyncClient, treasure: Treasure
    ) -> None:
        async with http_client(server, treasure.owner.key) as owner:
            before = await treasure.snapshot(owner)
            assert len(before) >= len(treasure.ids)
            async with stranger:
                for call in CALLS:
                    await call.answer(stranger, treasure.ids)
            assert await treasure.snapshot(owner) == before

    async def test_have_an_example_for_every_parameter(self, treasure: Treasure) -> None:
        assert {name for call in CALLS for name in call.parameters} <= set(treasure.ids)


class TestForeignReferences:
    async def test_are_known_wherever_a_route_takes_text(self) -> None:
        """A new field that may name something must be given an example above, or be said to name nothing."""
        unknown = [
            (operation.id, place)
            for operation in OURS
            for place in places(operation)
            if (operation.id, place) not in REFERENCES and not OPAQUE.fullmatch(place)
        ]
        assert unknown == []

    @pytest.mark.parametrize("by", ["ids", "slugs"])
    @pytest.mark.parametrize(("operation", "place"), REFERENCES)
    async def test_answer_like_missing_ones(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, operation: str, place: str, by: str
    ) -> None:
        kind = REFERENCES[operation, place]
        known: str | None = getattr(treasure, by).get(kind)
        if known is None or (kind == "project" and "X-Project-Id" in stranger.headers):
            pytest.skip(f"this {kind} is no secret of another organization")
        (route,) = [candidate for candidate in OURS if candidate.id == operation]
        answers = []
        async with stranger:
            for value in (known, str(new_id()) if by == "ids" else f"none-{new_id().hex[-12:]}"):
                status, headers, body = await route.answer(stranger, {}, **naming(operation, place, value))
                answers.append((status, headers, body.replace(value, "…")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404

    @pytest.mark.parametrize(
        "operation", [o for o in OURS if o.permission], ids=lambda operation: operation.id
    )
    async def test_to_a_project_answer_like_missing_ones(
        self, server: Running, make: Factory, treasure: Treasure, operation: Operation
    ) -> None:
        """Whatever the route, and whether the key is bound to a project of its own or not."""
        member = await make.member()
        ids = treasure.ids | {"project": str(new_id())}
        for key in (member.key, (await make.key(member, unbound=True)).key):
            answers = []
            for project in (treasure.ids["project"], str(new_id())):
                async with http_client(server, key) as client:
                    client.headers["X-Project-Id"] = project
                    status, headers, body = await operation.answer(client, ids)
                    answers.append((status, headers, body.replace(project, "…")))
            assert answers[0] == answers[1]
            assert answers[0][0] == 404

    async def test_in_a_graph_do_not_compile(self, stranger: httpx2.AsyncClient, treasure: Treasure) -> None:
        graph = {
            "schema_version": "1",
            "bindings": {"collections": {"kb": treasure.ids["collection"]}},
            "nodes": [
                {"id": "start", "type": "start"},
                {"id": "search", "type": "retrieve", "config": {"collection": "kb", "query": "gold"}},
                {"id": "done", "type": "end", "config": {"output": {"found": "{{ search.results }}"}}},
            ],
            "edges": [{"source": "start", "target": "search"}, {"source": "search", "target": "done"}],
        }
        async with stranger:
            slug = await new_agent(stranger, graph, publish=False)
            response = await stranger.post(f"{API}/agents/{slug}/publish")
        assert response.status_code == 422
        assert "/bindings/collections/kb" in {error["pointer"] for error in response.json()["errors"]}

    @pytest.mark.parametrize("by", ["ids", "slugs"])
    async def test_in_an_imported_graph_are_unknown_and_not_suggested(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, by: str
    ) -> None:
        names: dict[str, str] = getattr(treasure, by)
        graph = {
            "schema_version": "1",
            "bindings": {"collections": {"kb": names["collection"]}, "models": {"main": names["model"]}},
            "nodes": [{"id": "start", "type": "start"}],
        }
        document = {"kind": "agent", "schema_version": "1", "slug": "seeker", "name": "S", "graph": graph}
        async with stranger:
            told = ok(await stranger.post(f"{API}/agents/import?dry_run=true", json={"document": document}))
        assert [bound["resolved"] for bound in told["bindings"]] == [False, False]
        suggested = {slug for bound in told["bindings"] for slug in bound["suggestions"]}
        assert not suggested & set(treasure.slugs.values())


LISTS = [
    operation for operation in OURS if operation.method == "GET" and "cursor" in operation.names("query")
]


class TestLists:
    @pytest.mark.parametrize(
        "operation", [each for each in LISTS if not each.parameters], ids=lambda operation: operation.id
    )
    async def test_show_nothing_of_others(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, operation: Operation
    ) -> None:
        async with stranger:
            shown = ok(await operation.call(stranger, {}))["items"]
        theirs = {*treasure.ids.values(), *treasure.slugs.values()}
        assert not theirs & set(re.findall(r"[\w-]+", str(shown)))

    async def test_are_all_of_them_held_against_strangers(self) -> None:
        pages = {each.id for each in OURS if "next_cursor" in str(each.answered(DOCUMENT))}
        assert pages == {each.id for each in LISTS}

    async def test_cannot_be_paged_into_others(
        self, client: httpx2.AsyncClient, server: Running, treasure: Treasure
    ) -> None:
        async with http_client(server, treasure.owner.key) as owner:
            await new_agent(owner, publish=False)
            cursor = ok(await owner.get(f"{API}/agents", params={"limit": 1}))["next_cursor"]
        assert cursor
        assert ok(await client.get(f"{API}/agents", params={"cursor": cursor}))["items"] == []
