"""`default-chat` from the operator's environment, in runs over HTTP, against a server of that protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from app.core.config import Settings
from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.ids import new_id
from tests.api.calls import API, add_texts, arriving, frames, new_agent, new_collection, ok, work
from tests.factories import Factory
from tests.fixtures import Running, http_client, running_server
from tests.graphs import asking_graph
from tests.openai_compatible_double import Double, double, fails, hangs, says

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "sk-canary-environment-7f19ab3c"
INPUT = {"input": {"name": "Why?"}}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def hosted() -> AsyncIterator[Double]:
    async with double(key=KEY) as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bound(settings: Settings, hosted: Double) -> AsyncIterator[Running]:
    """A platform whose environment names the double, which is on loopback.

    It leaves alone the runs of the others, which share the database but not the environment.
    """
    changed = {"openai_api_key": KEY, "openai_base_url": hosted.base_url, "run_claims": False}
    environment = Settings.model_validate(settings.model_dump(by_alias=False) | changed)
    async with running_server(environment) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def caller(bound: Running) -> AsyncIterator[httpx2.AsyncClient]:
    member = await Factory(bound.resources).member()
    async with http_client(bound, member.key) as client:
        yield client


class TestPrecedence:
    async def test_of_the_environment_is_told(self, caller: httpx2.AsyncClient, hosted: Double) -> None:
        found = ok(await caller.get(f"{API}/models/{DEFAULT_CHAT_MODEL}/resolve"))
        assert (found["source"], found["model"]) == ("environment", "double-1")
        assert "OPENAI_BASE_URL is set" in found["why"]
        assert str(hosted.port) not in str(found)

    async def test_puts_the_registry_before_the_environment(self, caller: httpx2.AsyncClient) -> None:
        body = {"slug": DEFAULT_CHAT_MODEL, "model": "extractive"}
        ok(await caller.post(f"{API}/models", json=body), 201)
        found = ok(await caller.get(f"{API}/models/{DEFAULT_CHAT_MODEL}/resolve"))
        assert (found["source"], found["provider"]) == ("registry", "local")
        assert (await caller.delete(f"{API}/models/{DEFAULT_CHAT_MODEL}")).status_code == 204

    async def test_lets_tenants_call_the_operators_server_by_its_name_only(
        self, caller: httpx2.AsyncClient, hosted: Double
    ) -> None:
        place = {"slug": f"c-{new_id().hex[-12:]}", "base_url": hosted.base_url, "api_key": KEY}
        ok(await caller.post(f"{API}/model-connections", json=place), 201)
        model = {"slug": f"m-{new_id().hex[-12:]}", "model": "double-1", "connection": place["slug"]}
        ok(await caller.post(f"{API}/models", json=model), 201)
        found = ok(await caller.post(f"{API}/models/{model['slug']}/test"))
        assert "may not be called" in found["error"]["message"]


class TestEmbeddings:
    async def test_stay_with_the_model_of_the_collection(
        self, bound: Running, server: Running, make: Factory, hosted: Double
    ) -> None:
        """A collection that was filled before there was a key is searched, and filled, as before."""
        member = await make.member()
        before = len(hosted.received)
        answers = []
        for platform in (server, bound):
            async with http_client(platform, member.key) as client:
                if not answers:
                    shelf = await new_collection(client)
                    await add_texts(client, shelf, {"title": "Map", "text": "The gold is on the island."})
                    await work(platform)
                body = {"collections": [shelf], "query": "Where is the treasure?", "mode": "dense"}
                found = ok(await client.post(f"{API}/search", json=body))["items"]
                model = ok(await client.get(f"{API}/collections/{shelf}"))["index"]["embedding_model"]
                answers.append((model, [(item["chunk_id"], item["score"]) for item in found]))
        assert answers[0] == answers[1]
        assert len(answers[0][1]) == 1
        assert len(hosted.received) == before


class TestRun:
    async def test_streams_what_the_server_says(self, caller: httpx2.AsyncClient, hosted: Double) -> None:
        hosted.next(says("Because", " of", " that."))
        agent = await new_agent(caller, asking_graph(DEFAULT_CHAT_MODEL))
        response = await caller.post(f"{API}/agents/{agent}/runs", json=INPUT | {"mode": "stream"})
        text = [f.data["event"] for f in frames(response.text) if f.event == "TEXT_MESSAGE_CONTENT"]
        assert "".join(event["delta"] for event in text) == "Because of that."

    async def test_counts_the_tokens_that_the_server_counts(
        self, caller: httpx2.AsyncClient, hosted: Double
    ) -> None:
        hosted.next(says("Yes.", tokens=(11, 2)))
        agent = await new_agent(caller, asking_graph(DEFAULT_CHAT_MODEL))
        run = ok(await caller.post(f"{API}/agents/{agent}/runs", json=INPUT))
        assert run["usage"]["by_model"] == {
            "openai_compatible/double-1": {"input_tokens": 11, "output_tokens": 2}
        }

    async def test_fails_with_what_the_server_says_without_the_key(
        self, caller: httpx2.AsyncClient, hosted: Double
    ) -> None:
        hosted.next(fails(400, f"no such thing for {KEY}"))
        agent = await new_agent(caller, asking_graph(DEFAULT_CHAT_MODEL))
        run = ok(await caller.post(f"{API}/agents/{agent}/runs", json=INPUT))
        assert (run["status"], run["error"]["code"]) == ("failed", "bad_request")
        assert run["error"]["message"] == (
            f"node 'ask' failed: model {DEFAULT_CHAT_MODEL!r} (openai_compatible/double-1) "
            "answered 400 Bad Request: no such thing for …"
        )

    async def test_that_is_cancelled_closes_the_connection(
        self, caller: httpx2.AsyncClient, hosted: Double
    ) -> None:
        hosted.next(hangs("Well"))
        left = hosted.left
        agent = await new_agent(caller, asking_graph(DEFAULT_CHAT_MODEL))
        path = f"{API}/agents/{agent}/runs"
        async with caller.stream("POST", path, json=INPUT | {"mode": "stream"}) as response:
            async for frame in arriving(response):
                if frame.event == "TEXT_MESSAGE_CONTENT":
                    ok(await caller.post(response.headers["Location"] + "/cancel"))
                    break
        await hosted.until_left(left + 1)
