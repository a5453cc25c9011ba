"""Agents over HTTP: drafted, checked, published, run and deleted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx2
import pytest

from app.core.ids import new_id
from app.db.postgres.models.identity import Role
from tests.api import conftest as shared
from tests.api.calls import API, ended, new_agent, next_version, ok, pointers, problem, total
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client
from tests.graphs import HELLO_GRAPH, asking_graph, greeting_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")

settings, server, make, member, client = (
    shared.settings,
    shared.server,
    shared.make,
    shared.member,
    shared.client,
)

BROKEN_GRAPH: dict[str, Any] = HELLO_GRAPH | {
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "greet", "type": "template", "config": {"text": "Hello, {{ inputs.nam }}!"}},
        {"id": "lost", "type": "telepathy"},
        {"id": "done", "type": "end", "config": {"output": {"text": "{{ greet.text }}"}}},
    ],
}
"""An input that does not exist, and a node type that does not."""


def calling_graph(secret: str) -> dict[str, Any]:
    """Calls somebody with a secret in place of the greeting."""
    config = {"url": "https://api.example/", "headers": {"X-Key": {"secret": secret}}}
    start, _, done = HELLO_GRAPH["nodes"]
    nodes = [start, {"id": "greet", "type": "http", "config": config}, done]
    nodes[2] = done | {"config": {"output": {"text": "{{ greet.body }}"}}}
    return HELLO_GRAPH | {"nodes": nodes}


class TestCreate:
    async def test_answers_the_draft_as_it_was_given(self, client: httpx2.AsyncClient) -> None:
        body = {"name": "Greeter", "slug": "greeter", "description": "Greets", "graph": HELLO_GRAPH}
        agent = ok(await client.post(f"{API}/agents", json=body), 201)
        assert (agent["draft"], agent["description"]) == (HELLO_GRAPH, "Greets")

    async def test_begins_at_revision_one_unpublished(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/agents", json={"name": "Greeter"})
        agent = ok(response, 201)
        assert (agent["revision"], agent["live_version"]) == (1, None)
        assert response.headers["ETag"].startswith('"1-')

    async def test_makes_a_slug_of_the_name(self, client: httpx2.AsyncClient) -> None:
        agent = ok(await client.post(f"{API}/agents", json={"name": "Häuser & Gärten 2"}), 201)
        assert agent["slug"] == "hauser-garten-2"

    async def test_refuses_a_slug_that_is_taken(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        response = await client.post(f"{API}/agents", json={"name": "Other", "slug": slug})
        assert slug in problem(response, 409, "duplicate")["detail"]

    async def test_takes_a_slug_that_another_organization_has(
        self, client: httpx2.AsyncClient, server: Running, make: Factory
    ) -> None:
        slug = await new_agent(client, publish=False)
        async with http_client(server, (await make.member()).key) as other:
            ok(await other.post(f"{API}/agents", json={"name": "Other", "slug": slug}), 201)

    @pytest.mark.parametrize(
        "slug",
        ["", "a", "Upper", "2fast", "with space", "a" * 64, "-dash", "c0ffee00-0000-4000-8000-00000000000a"],
    )
    async def test_refuses_a_bad_slug(self, client: httpx2.AsyncClient, slug: str) -> None:
        response = await client.post(f"{API}/agents", json={"name": "Agent", "slug": slug})
        assert any(p.startswith("/body/slug") for p in pointers(response))

    async def test_refuses_a_name_that_makes_no_slug(self, client: httpx2.AsyncClient) -> None:
        assert pointers(await client.post(f"{API}/agents", json={"name": "日本語"})) == ["/body/slug"]

    async def test_names_every_wrong_field_at_once(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/agents", json={"name": "", "grahp": {}, "description": 3})
        assert pointers(response) == ["/body/name", "/body/description", "/body/grahp"]

    async def test_keeps_an_unfinished_draft(self, client: httpx2.AsyncClient) -> None:
        agent = ok(await client.post(f"{API}/agents", json={"name": "Agent", "graph": {"nodes": 7}}), 201)
        assert agent["draft"] == {"nodes": 7}


class TestRead:
    async def test_finds_by_id_and_by_slug(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        by_slug = ok(await client.get(f"{API}/agents/{slug}"))
        assert ok(await client.get(f"{API}/agents/{by_slug['id']}")) == by_slug

    async def test_of_what_is_not_there_is_404(self, client: httpx2.AsyncClient) -> None:
        for reference in ("nobody", str(new_id())):
            body = problem(await client.get(f"{API}/agents/{reference}"), 404, "not_found")
            assert repr(reference) in body["detail"]

    async def test_lists_the_newest_first_in_pages(self, client: httpx2.AsyncClient) -> None:
        slugs = [await new_agent(client, publish=False) for _ in range(3)]
        first = ok(await client.get(f"{API}/agents", params={"limit": 2}))
        last = ok(await client.get(f"{API}/agents", params={"limit": 2, "cursor": first["next_cursor"]}))
        assert [agent["slug"] for agent in first["items"] + last["items"]] == slugs[::-1]
        assert last["next_cursor"] is None

    @pytest.mark.parametrize(
        ("name", "value"), [("limit", "0"), ("limit", "201"), ("cursor", "?"), ("cursor", "ä")]
    )
    async def test_refuses_a_bad_page(self, client: httpx2.AsyncClient, name: str, value: str) -> None:
        assert pointers(await client.get(f"{API}/agents", params={name: value})) == [f"/query/{name}"]


class TestUpdate:
    async def test_changes_only_what_is_sent(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        agent = ok(await client.patch(f"{API}/agents/{slug}", json={"description": "New"}))
        assert (agent["name"], agent["description"], agent["draft"]) == ("Agent", "New", HELLO_GRAPH)

    async def test_replaces_the_whole_draft(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        agent = ok(await client.patch(f"{API}/agents/{slug}", json={"graph": {"nodes": []}}))
        assert agent["draft"] == {"nodes": []}

    async def test_takes_a_merge_patch_by_its_media_type(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        headers = {"Content-Type": "application/merge-patch+json"}
        agent = await client.patch(f"{API}/agents/{slug}", content='{"name": "New"}', headers=headers)
        assert ok(agent)["name"] == "New"

    async def test_raises_the_revision(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        response = await client.patch(f"{API}/agents/{slug}", json={"name": "New"})
        assert (ok(response)["revision"], response.headers["ETag"][:3]) == (2, '"2-')

    async def test_with_the_current_etag_succeeds(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        etag = (await client.get(f"{API}/agents/{slug}")).headers["ETag"]
        response = await client.patch(
            f"{API}/agents/{slug}", json={"name": "New"}, headers={"If-Match": etag}
        )
        assert ok(response)["name"] == "New"

    async def test_with_an_old_etag_changes_nothing(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        ok(await client.patch(f"{API}/agents/{slug}", json={"name": "Mine"}))
        stale = {"If-Match": '"1"'}
        response = await client.patch(f"{API}/agents/{slug}", json={"name": "Yours"}, headers=stale)
        problem(response, 412, "precondition_failed")
        assert ok(await client.get(f"{API}/agents/{slug}"))["name"] == "Mine"

    async def test_refuses_an_if_match_that_is_no_etag(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        response = await client.patch(f"{API}/agents/{slug}", json={}, headers={"If-Match": "yesterday"})
        problem(response, 400, "bad_request")

    async def test_does_not_touch_what_is_published(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        ok(await client.patch(f"{API}/agents/{slug}", json={"graph": {}}))
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": "Ada"}}))
        assert run["output"] == {"text": "Hello, Ada!"}


class TestDelete:
    async def test_takes_the_agent_with_its_runs(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": "Ada"}}))
        assert (await client.delete(f"{API}/agents/{slug}")).status_code == 204
        problem(await client.get(f"{API}/agents/{slug}"), 404, "not_found")
        problem(await client.get(f"{API}/runs/{run['id']}"), 404, "not_found")

    async def test_waits_for_no_run(self, client: httpx2.AsyncClient, make: Factory, member: Member) -> None:
        gate = await make.gate(member)
        slug = await new_agent(client, asking_graph(gate.slug))
        body = {"input": {"name": "Ada"}, "wait_timeout_s": 0.01}
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=body), 202)
        problem(await client.delete(f"{API}/agents/{slug}"), 409, "runs_open")
        gate.opened.set()
        await ended(client, run["id"])
        assert (await client.delete(f"{API}/agents/{slug}")).status_code == 204

    async def test_frees_the_slug(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        await client.delete(f"{API}/agents/{slug}")
        ok(await client.post(f"{API}/agents", json={"name": "Next", "slug": slug}), 201)


class TestValidate:
    async def test_without_a_body_checks_the_draft(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        assert ok(await client.post(f"{API}/agents/{slug}/validate")) == {"valid": True, "issues": []}

    async def test_finds_every_issue_at_once(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        report = ok(await client.post(f"{API}/agents/{slug}/validate", json={"graph": BROKEN_GRAPH}))
        assert not report["valid"]
        assert {"/nodes/1/config/text", "/nodes/2/type"} <= {issue["pointer"] for issue in report["issues"]}
        assert all(issue["code"] and issue["message"] for issue in report["issues"])

    async def test_leaves_the_draft_alone(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        await client.post(f"{API}/agents/{slug}/validate", json={"graph": BROKEN_GRAPH})
        agent = ok(await client.get(f"{API}/agents/{slug}"))
        assert (agent["draft"], agent["revision"]) == (HELLO_GRAPH, 1)

    @pytest.mark.parametrize("graph", [[], "graph", 3, {}, {"nodes": None}, [[[]]]])
    async def test_reports_what_is_no_graph_at_all(self, client: httpx2.AsyncClient, graph: Any) -> None:
        slug = await new_agent(client, publish=False)
        assert not ok(await client.post(f"{API}/agents/{slug}/validate", json={"graph": graph}))["valid"]

    async def test_reports_a_collection_that_is_not_there(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        graph = asking_graph("default-chat", collection="nowhere")
        report = ok(await client.post(f"{API}/agents/{slug}/validate", json={"graph": graph}))
        assert [issue["pointer"] for issue in report["issues"]] == ["/bindings/collections/kb"]

    async def test_warns_of_a_secret_that_is_not_there_whoever_may_see_secrets(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        body = {"graph": calling_graph(secret="absent")}
        (issue,) = ok(await client.post(f"{API}/agents/validate", json=body))["issues"]
        assert (issue["code"], issue["severity"]) == ("unknown_secret", "warning")
        viewer = await make.member(role=Role.VIEWER, of=member.tenant)
        async with http_client(server, viewer.key) as caller:
            assert ok(await caller.post(f"{API}/agents/validate", json=body))["issues"] == []

    async def test_knows_the_secrets_of_the_project(self, client: httpx2.AsyncClient) -> None:
        secret = {"name": f"s-{new_id().hex[-12:]}", "value": "sk-canary-77c1"}
        made = ok(await client.post(f"{API}/secrets", json=secret), 201)
        for name in (made["name"], made["id"]):
            body = {"graph": calling_graph(secret=name)}
            assert ok(await client.post(f"{API}/agents/validate", json=body))["issues"] == []

    async def test_a_warning_does_not_keep_from_publishing(self, client: httpx2.AsyncClient) -> None:
        await new_agent(client, calling_graph(secret="absent"))


class TestPublish:
    async def test_counts_versions_up(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        published = [await next_version(client, slug, note, note=note) for note in ("first", "second")]
        assert [(version["version"], version["note"]) for version in published] == [
            (1, "first"),
            (2, "second"),
        ]
        assert ok(await client.get(f"{API}/agents/{slug}"))["live_version"] == 2

    async def test_of_what_is_live_already_answers_that(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        path = f"{API}/agents/{slug}/publish"
        first = ok(await client.post(path, json={"note": "first"}), 201)
        moved = HELLO_GRAPH | {"layout": {"greet": {"x": 1, "y": 2}}}
        ok(await client.patch(f"{API}/agents/{slug}", json={"graph": moved}))
        assert ok(await client.post(path, json={"note": "second"}), 200) == first
        assert await total(client, f"agents/{slug}/versions") == 1

    async def test_of_another_revision_than_was_read_is_refused(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        read = (await client.get(f"{API}/agents/{slug}")).headers["ETag"]
        ok(await client.patch(f"{API}/agents/{slug}", json={"graph": greeting_graph("Bye!")}))
        path = f"{API}/agents/{slug}/publish"
        problem(await client.post(path, headers={"If-Match": read}), 412, "precondition_failed")
        ok(await client.post(path, headers={"If-Match": '"2"'}), 201)

    async def test_of_an_invalid_draft_says_where_it_is_wrong(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, BROKEN_GRAPH, publish=False)
        response = await client.post(f"{API}/agents/{slug}/publish", json={})
        body = problem(response, 422, "invalid_graph")
        assert {"/nodes/1/config/text", "/nodes/2/type"} <= {
            e["pointer"].removeprefix("/draft") for e in body["errors"]
        }
        assert ok(await client.get(f"{API}/agents/{slug}/versions"))["items"] == []

    async def test_lists_versions_newest_first(self, client: httpx2.AsyncClient, member: Member) -> None:
        slug = await new_agent(client)
        await next_version(client, slug, "Bye!")
        versions = ok(await client.get(f"{API}/agents/{slug}/versions"))["items"]
        assert [version["version"] for version in versions] == [2, 1]
        assert {version["author_id"] for version in versions} == {str(member.user_id)}


class TestRun:
    async def test_answers_the_output_when_it_has_ended(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        body = {"input": {"name": "Ada"}, "mode": "wait", "metadata": {"ticket": 7}}
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=body))
        assert (run["status"], run["output"], run["error"]) == ("succeeded", {"text": "Hello, Ada!"}, None)
        assert (run["input"], run["metadata"]) == ({"name": "Ada"}, {"ticket": 7})

    async def test_runs_code_and_expressions_of_the_graph(self, client: httpx2.AsyncClient) -> None:
        given, left = {"name": "{{ inputs.name }}"}, {"loud": "string"}
        shout = {"code": "loud = name.upper()", "inputs": given, "outputs": left}
        sizes = {"values": {"size": "len({{ shout.loud }} + '!')"}}
        start, _, done = HELLO_GRAPH["nodes"]
        path = ["start", "shout", "sizes", "done"]
        made = HELLO_GRAPH | {
            "nodes": [
                start,
                {"id": "shout", "type": "code", "config": shout},
                {"id": "sizes", "type": "transform", "config": sizes},
                done | {"config": {"output": {"text": "{{ shout.loud }} {{ sizes.size }}"}}},
            ],
            "edges": [{"source": a, "target": b} for a, b in pairwise(path)],
        }
        slug = await new_agent(client, made)
        body = {"input": {"name": "Ada"}, "mode": "wait"}
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=body))
        assert (run["status"], run["output"]) == ("succeeded", {"text": "ADA 4"})

    async def test_points_at_wrong_input(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        response = await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": 7}})
        assert pointers(response, "invalid_input") == ["/body/input/name"]

    async def test_with_wrong_input_leaves_no_run(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        assert pointers(await client.post(f"{API}/agents/{slug}/runs", json={}), "invalid_input") == [
            "/body/input"
        ]
        assert ok(await client.get(f"{API}/runs", params={"agent": slug}))["items"] == []

    async def test_of_an_unpublished_agent_says_what_to_do(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        response = await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": "Ada"}})
        assert "publish it" in problem(response, 409, "not_published")["detail"]

    async def test_of_the_draft_needs_no_publishing(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, publish=False)
        body = {"input": {"name": "Ada"}, "version": "draft"}
        assert ok(await client.post(f"{API}/agents/{slug}/runs", json=body))["status"] == "succeeded"
        assert ok(await client.get(f"{API}/agents/{slug}/versions"))["items"] == []

    async def test_of_an_invalid_draft_is_refused(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, BROKEN_GRAPH, publish=False)
        body = {"input": {"name": "Ada"}, "version": "draft"}
        problem(await client.post(f"{API}/agents/{slug}/runs", json=body), 422, "invalid_graph")

    async def test_of_an_old_version_runs_the_old_graph(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        text = {"id": "greet", "type": "template", "config": {"text": "Bye, {{ inputs.name }}!"}}
        nodes = [HELLO_GRAPH["nodes"][0], text, HELLO_GRAPH["nodes"][2]]
        ok(await client.patch(f"{API}/agents/{slug}", json={"graph": HELLO_GRAPH | {"nodes": nodes}}))
        ok(await client.post(f"{API}/agents/{slug}/publish"), 201)
        outputs = {}
        for version in ("live", 1, 2):
            body = {"input": {"name": "Ada"}, "version": version}
            run = ok(await client.post(f"{API}/agents/{slug}/runs", json=body))
            outputs[version] = run["output"]["text"]
        assert outputs == {"live": "Bye, Ada!", 1: "Hello, Ada!", 2: "Bye, Ada!"}

    async def test_of_an_unknown_version_is_404(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        body = {"input": {"name": "Ada"}, "version": 2**31 - 1}
        problem(await client.post(f"{API}/agents/{slug}/runs", json=body), 404, "not_found")

    @pytest.mark.parametrize("version", ["newest", 0, -1, 2**31, None])
    async def test_refuses_what_is_no_version(self, client: httpx2.AsyncClient, version: Any) -> None:
        slug = await new_agent(client)
        body = {"input": {"name": "Ada"}, "version": version}
        response = await client.post(f"{API}/agents/{slug}/runs", json=body)
        assert all(p.startswith("/body/version") for p in pointers(response))
