"""Logical models and connections over HTTP: registered, changed, resolved, tested; keys are never shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from app.core.config import Settings
from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.egress import Rule
from app.core.ids import new_id
from app.db.postgres.models.identity import Role
from tests.api.calls import API, new_agent, ok, pointers, problem
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client, running_server
from tests.graphs import HELLO_GRAPH, asking_graph
from tests.openai_compatible_double import Double, Script, double, fails, fails_amid, says, sends

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "sk-canary-connection-51ad08b7"
ELSEWHERE = "https://models.example/v1"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hosted() -> AsyncIterator[Double]:
    async with double(key=KEY) as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(settings: Settings, hosted: Double) -> AsyncIterator[Running]:
    """The operator has opened the double to tenants; names are kept longer than any test takes."""
    opened = (Rule.parse(f"127.0.0.1:{hosted.port}"),)
    async with running_server(
        settings.model_copy(update={"egress_allow": opened, "model_cache_s": 60})
    ) as running:
        yield running


async def connect(client: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    body = {"slug": f"c-{new_id().hex[-12:]}", "base_url": ELSEWHERE, "api_key": KEY} | changes
    return ok(await client.post(f"{API}/model-connections", json=body), 201)


async def register(client: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    body = {"slug": f"m-{new_id().hex[-12:]}", "model": "extractive"} | changes
    return ok(await client.post(f"{API}/models", json=body), 201)


async def called(client: httpx2.AsyncClient, hosted: Double, **changes: Any) -> dict[str, Any]:
    """A model of the double."""
    connection = await connect(client, base_url=hosted.base_url)
    return await register(client, model="double-1", connection=connection["id"], **changes)


async def answer(client: httpx2.AsyncClient, model: str) -> dict[str, Any]:
    """A run that asks the model."""
    agent = await new_agent(client, asking_graph(model))
    return ok(await client.post(f"{API}/agents/{agent}/runs", json={"input": {"name": "Why?"}}))


class TestConnections:
    async def test_answer_metadata_and_a_hint_of_the_key(self, client: httpx2.AsyncClient) -> None:
        made = await connect(client, slug="vendor", base_url=f"{ELSEWHERE}/", description="Ours")
        named = ("slug", "provider", "base_url", "description", "has_key", "hint")
        assert [made[name] for name in named] == [
            *("vendor", "openai_compatible", ELSEWHERE, "Ours", True, "…08b7")
        ]

    async def test_show_the_key_nowhere(self, client: httpx2.AsyncClient) -> None:
        made = await connect(client)
        path = f"{API}/model-connections/{made['id']}"
        for response in (
            await client.get(path),
            await client.get(f"{API}/model-connections"),
            await client.patch(path, json={"api_key": KEY}),
            await client.patch(path, json={"api_key": [KEY]}),
            await client.patch(path, json={"apikey": KEY}),
            await client.patch(path, json={"api_key": KEY, "base_url": "ftp://x"}),
        ):
            assert KEY not in response.text

    async def test_may_have_no_key(self, client: httpx2.AsyncClient) -> None:
        made = await connect(client, api_key=None)
        assert (made["has_key"], made["hint"], made["key_changed_at"]) == (False, None, None)

    @pytest.mark.parametrize(
        "url",
        [
            *("", "models.example/v1", "ftp://models.example", "https://", "https://u:p@models.example/v1"),
            *("https://models.example/v1?x=1", "https://models.example/#x", "http://127.1/v1", "https://a b"),
            *("https://models.example:99999/v1", "https://models.example:x/v1", "https://[fe80::1%25x]/v1"),
        ],
    )
    async def test_refuse_what_is_no_base_url(self, client: httpx2.AsyncClient, url: str) -> None:
        response = await client.post(f"{API}/model-connections", json={"slug": "wrong", "base_url": url})
        assert pointers(response) == ["/body/base_url"]

    @pytest.mark.parametrize("key", ["", "with space", "line\nbreak", "schlüssel", "x" * 9000])
    async def test_refuse_a_key_that_fits_into_no_header(self, client: httpx2.AsyncClient, key: str) -> None:
        body = {"slug": "wrong", "base_url": ELSEWHERE, "api_key": key}
        response = await client.post(f"{API}/model-connections", json=body)
        assert pointers(response) == ["/body/api_key"]
        assert len(key) < 2 or key not in response.text

    @pytest.mark.parametrize(
        "url", ["https://other.example/v1", "http://models.example/v1", "https://models.example:8443/v1"]
    )
    async def test_of_another_host_need_the_key_again(self, client: httpx2.AsyncClient, url: str) -> None:
        path = f"{API}/model-connections/{(await connect(client))['id']}"
        response = await client.patch(path, json={"base_url": url})
        assert pointers(response) == ["/body/api_key"]
        assert ok(await client.get(path))["base_url"] == ELSEWHERE
        changed = ok(await client.patch(path, json={"base_url": url, "api_key": "another"}))
        assert (changed["base_url"], changed["hint"]) == (url, None)

    async def test_of_another_host_may_lose_the_key(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/model-connections/{(await connect(client))['id']}"
        changed = ok(await client.patch(path, json={"base_url": "https://other.example", "api_key": None}))
        assert changed["has_key"] is False

    async def test_of_another_path_keep_the_key(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/model-connections/{(await connect(client))['id']}"
        changed = ok(await client.patch(path, json={"base_url": "https://models.example/v2"}))
        assert (changed["has_key"], changed["hint"]) == (True, "…08b7")

    async def test_that_models_use_are_not_deleted(self, client: httpx2.AsyncClient) -> None:
        made = await connect(client)
        model = await register(client, connection=made["slug"], model="m")
        path = f"{API}/model-connections/{made['id']}"
        assert repr(model["slug"]) in problem(await client.delete(path), 409, "in_use")["detail"]
        assert (await client.delete(f"{API}/models/{model['id']}")).status_code == 204
        assert (await client.delete(path)).status_code == 204
        problem(await client.get(path), 404, "not_found")

    async def test_are_written_by_administrators_and_not_read_by_viewers(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        statuses = {}
        for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER):
            colleague = await make.member(role=role, of=member.tenant)
            async with http_client(server, colleague.key) as client:
                body = {"slug": f"c-{new_id().hex[-12:]}", "base_url": ELSEWHERE}
                made = await client.post(f"{API}/model-connections", json=body)
                read = await client.get(f"{API}/model-connections")
                statuses[role] = (made.status_code, read.status_code)
        assert statuses == {Role.ADMIN: (201, 200), Role.MEMBER: (403, 200), Role.VIEWER: (403, 403)}


class TestModels:
    async def test_stand_for_a_model_of_a_connection(self, client: httpx2.AsyncClient) -> None:
        connection = await connect(client)
        made = await register(client, slug="fast", model="gpt-5-mini", connection=connection["slug"])
        assert [made[name] for name in ("slug", "kind", "provider", "model", "connection_id", "config")] == [
            *("fast", "chat", "openai_compatible", "gpt-5-mini", connection["id"], {})
        ]

    async def test_without_a_connection_are_local(self, client: httpx2.AsyncClient) -> None:
        made = await register(client)
        assert (made["provider"], made["model"], made["connection_id"]) == ("local", "extractive", None)

    async def test_that_are_not_local_need_a_connection(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/models", json={"slug": "big", "model": "gpt-5"})
        assert pointers(response) == ["/body/model"]
        assert "POST /api/v1/model-connections" in response.json()["detail"]

    async def test_refuse_the_connection_of_another_project(
        self, client: httpx2.AsyncClient, server: Running, make: Factory
    ) -> None:
        """In a change as in a new model (`test_tenancy`): it is like a missing one."""
        async with http_client(server, (await make.member()).key) as owner:
            theirs = await connect(owner, slug="theirs")
        mine = await register(client)
        for reference in (theirs["id"], theirs["slug"]):
            body = {"connection": reference, "model": "x"}
            problem(await client.patch(f"{API}/models/{mine['id']}", json=body), 404, "not_found")

    async def test_by_a_slug_that_is_taken_are_409(self, client: httpx2.AsyncClient) -> None:
        body = {"slug": (await register(client))["slug"], "model": "extractive"}
        problem(await client.post(f"{API}/models", json=body), 409, "duplicate")

    async def test_change_their_config_piece_by_piece(self, client: httpx2.AsyncClient) -> None:
        connection = await connect(client)
        config = {"capabilities": ["streaming"], "extra_body": {"seed": 1, "top_p": 0.5}}
        made = await register(client, connection=connection["id"], model="m", config=config)
        patch = {"config": {"capabilities": None, "extra_body": {"seed": 2, "top_p": None}}}
        changed = ok(await client.patch(f"{API}/models/{made['id']}", json=patch))
        assert changed["config"] == {"extra_body": {"seed": 2}}

    @pytest.mark.parametrize(
        ("config", "pointer"),
        [
            ({"capabilities": ["flying"]}, "/body/config/capabilities/0"),
            ({"extra_body": {"stream": False}}, "/body/config/extra_body"),
            ({"max_tokens_field": "limit"}, "/body/config/max_tokens_field"),
            ({"temperature": 1}, "/body/config/temperature"),
        ],
    )
    async def test_refuse_a_config_that_means_nothing(
        self, client: httpx2.AsyncClient, config: dict[str, Any], pointer: str
    ) -> None:
        made = await register(client)
        body = {"slug": "other", "model": "extractive", "config": config}
        assert pointers(await client.post(f"{API}/models", json=body)) == [pointer]
        assert pointers(await client.patch(f"{API}/models/{made['id']}", json={"config": config})) == [
            pointer
        ]

    async def test_that_published_agents_call_are_not_deleted(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, connection=(await connect(client))["slug"], model="m")
        path = f"{API}/models/{made['slug']}"
        callers = [await new_agent(client, asking_graph(name)) for name in (made["slug"], made["id"])]
        told = problem(await client.delete(path), 409, "in_use")["detail"]
        assert all(repr(slug) in told for slug in callers)
        for slug in callers:
            assert (await client.delete(f"{API}/agents/{slug}")).status_code in (202, 204)
        assert (await client.delete(path)).status_code == 204

    async def test_are_looked_up_by_name_when_they_are_called(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, slug=DEFAULT_CHAT_MODEL, connection=(await connect(client))["slug"])
        agent = await new_agent(client, asking_graph(DEFAULT_CHAT_MODEL))
        assert (await client.delete(f"{API}/models/{made['id']}")).status_code == 204
        run = await client.post(f"{API}/agents/{agent}/runs", json={"input": {"name": "Ada"}})
        assert ok(run)["status"] == "succeeded"


class TestRuns:
    async def test_call_the_model_by_its_connection(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        hosted.next(says("So it is."))
        made = await called(client, hosted, config={"extra_body": {"seed": 7}})
        run = await answer(client, made["slug"])
        assert run["output"] == {"text": "So it is."}
        assert (hosted.calls[-1]["model"], hosted.calls[-1]["seed"]) == ("double-1", 7)

    async def test_ask_for_no_stream_where_the_model_cannot(
        self, client: httpx2.AsyncClient, hosted: Double
    ) -> None:
        hosted.next(says("All", " at once.", tokens=(4, 2)))
        made = await called(client, hosted, config={"capabilities": ["tools"]})
        run = await answer(client, made["slug"])
        assert (run["output"], run["usage"]["output_tokens"]) == ({"text": "All at once."}, 2)
        assert hosted.calls[-1]["stream"] is False

    async def test_are_refused_by_hosts_that_are_not_open_to_tenants(
        self, client: httpx2.AsyncClient
    ) -> None:
        connection = await connect(client, base_url="http://127.0.0.1:1/v1")
        made = await register(client, connection=connection["id"], model="m")
        run = await answer(client, made["slug"])
        assert run["error"]["code"] == "bad_request"
        named = f"model {made['slug']!r} ({connection['slug']}/m) at http://127.0.0.1:1/v1"
        assert f"{named} gave no answer: '127.0.0.1' may not be called" in run["error"]["message"]

    async def test_take_a_change_at_once(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        made = await called(client, hosted)
        await answer(client, made["slug"])
        ok(await client.patch(f"{API}/models/{made['slug']}", json={"model": "double-2"}))
        await answer(client, made["slug"])
        assert [call["model"] for call in hosted.calls[-2:]] == ["double-1", "double-2"]

    async def test_take_another_key_at_once(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        made = await called(client, hosted)
        await answer(client, made["slug"])
        path = f"{API}/model-connections/{made['connection_id']}"
        ok(await client.patch(path, json={"api_key": "sk-wrong"}))
        run = await answer(client, made["slug"])
        assert run["error"]["code"] == "auth"
        assert "sk-wrong" not in run["error"]["message"]

    @pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}])
    async def test_take_a_project_s_own_default_at_once(
        self, client: httpx2.AsyncClient, hosted: Double, headers: dict[str, str]
    ) -> None:
        connection = await connect(client, base_url=hosted.base_url)
        assert "documents" in (await answer(client, DEFAULT_CHAT_MODEL))["output"]["text"]
        body = {"slug": DEFAULT_CHAT_MODEL, "model": "double-1", "connection": connection["id"]}
        ok(await client.post(f"{API}/models", json=body, headers=headers), 201)
        hosted.next(says("Mine."))
        assert (await answer(client, DEFAULT_CHAT_MODEL))["output"]["text"] == "Mine."

    async def test_fail_once_the_model_is_deleted(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        made = await called(client, hosted)
        agent = await new_agent(client, asking_graph(made["slug"]))
        path = f"{API}/agents/{agent}/runs"
        ok(await client.post(path, json={"input": {"name": "Why?"}}))
        ok(await client.patch(f"{API}/agents/{agent}", json={"graph": HELLO_GRAPH}))
        ok(await client.post(f"{API}/agents/{agent}/publish", json={}), 201)
        assert (await client.delete(f"{API}/models/{made['id']}")).status_code == 204
        run = ok(await client.post(path, json={"input": {"name": "Why?"}, "version": 1}))
        assert run["error"]["code"] == "not_found"
        assert repr(made["slug"]) in run["error"]["message"]


class TestKeys:
    @pytest.mark.parametrize("capabilities", [["streaming"], []], ids=["streamed", "whole"])
    @pytest.mark.parametrize(
        "script",
        [
            fails(401, f"no such key: {KEY}"),
            fails(302, Location=f"https://other.example/?key={KEY}"),
            fails_amid("Well", error={"message": f"no such key: {KEY}"}),
            sends(f"{'x' * 60} no such key: {KEY}".encode()),
            sends(f'{{"choices": ["{"x" * 60} no such key: {KEY}"]}}'.encode()),
        ],
        ids=["status", "redirect", "report", "no protocol", "no answer"],
    )
    async def test_that_the_provider_repeats_are_shown_nowhere(
        self,
        client: httpx2.AsyncClient,
        hosted: Double,
        script: Script,
        capabilities: list[str],
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        hosted.next(script)
        made = await called(client, hosted, config={"capabilities": capabilities})
        run = await answer(client, made["slug"])
        assert run["status"] == "failed"
        path = f"{API}/runs/{run['id']}"
        shown = [(await client.get(f"{path}{part}")).text for part in ("", "/steps", "/events")]
        assert all(made["slug"] in text for text in shown)
        logged = [caplog.text, *capfd.readouterr()]
        assert any("run_ended" in text for text in logged)
        assert [text for text in (*shown, *logged) if KEY[3:12] in text] == []

    async def test_that_the_provider_repeats_are_not_in_a_test(
        self, client: httpx2.AsyncClient, hosted: Double
    ) -> None:
        hosted.next(fails(401, f"no such key: {KEY}"))
        made = await called(client, hosted, config={"capabilities": []})
        response = await client.post(f"{API}/models/{made['slug']}/test")
        assert ok(response)["error"]["message"].endswith("no such key: …")
        assert KEY not in response.text


class TestResolve:
    async def test_of_the_built_in_name_says_why(self, client: httpx2.AsyncClient) -> None:
        found = ok(await client.get(f"{API}/models/{DEFAULT_CHAT_MODEL}/resolve"))
        assert (found["source"], found["provider"], found["model"]) == ("built_in", "local", "extractive")
        assert "registry" in found["why"]

    async def test_of_a_registered_model_names_its_connection(self, client: httpx2.AsyncClient) -> None:
        connection = await connect(client)
        config = {"capabilities": ["streaming", "images"]}
        made = await register(client, connection=connection["id"], model="m-1", config=config)
        found = ok(await client.get(f"{API}/models/{made['id']}/resolve"))
        assert {name: found[name] for name in ("source", "model", "connection", "base_url")} == {
            "source": "registry",
            "model": "m-1",
            "connection": connection["slug"],
            "base_url": ELSEWHERE,
        }
        assert found["capabilities"] == ["images", "streaming"]

    async def test_of_an_unknown_name_is_404(self, client: httpx2.AsyncClient) -> None:
        problem(await client.get(f"{API}/models/nothing/resolve"), 404, "not_found")


class TestTest:
    async def test_tells_text_and_times(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        hosted.next(says("re", "ady", tokens=(9, 1)))
        made = await called(client, hosted)
        found = ok(await client.post(f"{API}/models/{made['slug']}/test"))
        assert (found["ok"], found["text"], found["error"]) == (True, "ready", None)
        assert found["usage"] == {"input_tokens": 9, "output_tokens": 1}
        assert 0 < found["first_text_ms"] <= found["duration_ms"]

    async def test_tells_what_the_server_refuses(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        hosted.next(fails(404, "The model `double-1` does not exist"))
        made = await called(client, hosted)
        found = ok(await client.post(f"{API}/models/{made['slug']}/test"))
        assert (found["ok"], found["text"], found["error"]["code"]) == (False, "", "bad_request")
        assert "404 Not Found: The model `double-1` does not exist" in found["error"]["message"]

    async def test_works_for_the_built_in_name(self, client: httpx2.AsyncClient) -> None:
        assert ok(await client.post(f"{API}/models/{DEFAULT_CHAT_MODEL}/test"))["ok"] is True
