"""Runs made of other runs over HTTP: resumed, forked from a checkpoint, replayed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.api.calls import API, frames, new_agent, ok, pointers, problem
from tests.counting_model import Counting, counting_behind
from tests.factories import Factory, Member
from tests.fixtures import Running, claims_alone, http_client
from tests.graphs import HELLO_GRAPH

pytestmark = pytest.mark.asyncio(loop_scope="session")

INPUT = {"input": {"name": "Ada"}}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, server: Running) -> None:
    claims_alone(monkeypatch, server)


@pytest_asyncio.fixture(loop_scope="session")
async def model(server: Running, make: Factory, member: Member) -> tuple[Counting, str]:
    gate = await make.gate(member)
    counting = counting_behind(server.resources, gate)
    return counting, await make.model(member, provider=gate.slug, model="counting")


def line(model: str, *nodes: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    parts = [
        {"id": "start", "type": "start"},
        *nodes,
        {"id": "done", "type": "end", "config": {"output": output}},
    ]
    edges = [{"source": a["id"], "target": b["id"]} for a, b in pairwise(parts)]
    bindings = {"models": {"main": model}}
    return HELLO_GRAPH | {"interface": {}, "bindings": bindings, "nodes": parts, "edges": edges}


def ask(name: str, text: str) -> dict[str, Any]:
    prompt = [{"role": "user", "content": text}]
    return {"id": name, "type": "llm", "config": {"model": "main", "prompt": prompt}}


def failing(model: str, code: str = "1 / 0") -> dict[str, Any]:
    """Asks twice, and then does what fails."""
    compute = {"id": "compute", "type": "transform", "config": {"values": {"n": code}}}
    parts = (ask("one", "{{ inputs.name }}"), ask("two", "{{ one.text }}"), compute)
    output = {"one": "{{ one.text }}", "two": "{{ two.text }}", "n": "{{ compute.n }}"}
    return line(model, *parts, output=output)


async def run_of(client: httpx2.AsyncClient, slug: str) -> dict[str, Any]:
    return dict(ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT)))


async def corrected(client: httpx2.AsyncClient, slug: str, graph: dict[str, Any]) -> None:
    ok(await client.patch(f"{API}/agents/{slug}", json={"graph": graph}))
    ok(await client.post(f"{API}/agents/{slug}/publish", json={}), 201)


async def again(client: httpx2.AsyncClient, run: dict[str, Any], how: str, **body: Any) -> dict[str, Any]:
    return dict(ok(await client.post(f"{API}/runs/{run['id']}/{how}", json=body)))


class TestResumed:
    async def test_on_a_corrected_version_repeats_no_call(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        counting, name = model
        slug = await new_agent(client, failing(name))
        run = await run_of(client, slug)
        assert (run["status"], len(counting.calls)) == ("failed", 2)
        await corrected(client, slug, failing(name, "1 + 1"))
        resumed = await again(client, run, "resume", version="live")
        assert resumed["output"] == {"one": "call 1", "two": "call 2", "n": 2}
        assert len(counting.calls) == 2
        assert (resumed["parent_run_id"], resumed["made_by"]) == (run["id"], "resume")
        assert resumed["usage"]["input_tokens"] == 0

    async def test_asks_again_where_the_version_asks_something_else(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        name = model[1]
        slug = await new_agent(client, failing(name))
        run = await run_of(client, slug)
        changed = failing(name, "1 + 1")
        changed["nodes"][1] = ask("one", "Dear {{ inputs.name }}")
        await corrected(client, slug, changed)
        resumed = await again(client, run, "resume", version="live")
        assert resumed["output"] == {"one": "call 3", "two": "call 4", "n": 2}

    async def test_tells_what_it_took_over(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        slug = await new_agent(client, failing(model[1]))
        run = await run_of(client, slug)
        response = await client.post(f"{API}/runs/{run['id']}/resume", json={"mode": "stream"})
        told = [frame.data["event"].get("value", {}) for frame in frames(response.text)]
        ends = [value for value in told if "handle" in value or "error" in value]
        taken = {value["node_id"]: value.get("taken_from") for value in ends}
        assert taken == {"start": None, "one": run["id"], "two": run["id"], "compute": None}

    async def test_again_is_taken_from_the_first(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        counting, name = model
        run = await run_of(client, await new_agent(client, failing(name)))
        second = await again(client, run, "resume")
        await again(client, second, "resume")
        assert len(counting.calls) == 2

    async def test_asks_again_what_failed_and_was_handled(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        graph = failing(model[1])
        caught = {"id": "fetch", "type": "http", "config": {"url": "http://127.0.0.1:1/"}}
        graph["nodes"].insert(1, caught)
        graph["edges"][0] = {"source": "start", "target": "fetch"}
        graph["edges"] += [{"source": "fetch", "handle": way, "target": "one"} for way in ("out", "error")]
        run = await run_of(client, await new_agent(client, graph))
        resumed = await again(client, run, "resume")
        found = ok(await client.get(f"{API}/runs/{resumed['id']}/timeline"))["items"]
        taken = {entry["node_path"]: entry["taken_from"] for entry in found}
        assert (taken["fetch"], taken["one"]) == (None, run["id"])

    async def test_must_have_failed(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, await new_agent(client))
        response = await client.post(f"{API}/runs/{run['id']}/resume", json={})
        assert "succeeded" in problem(response, 409, "not_resumable")["detail"]

    async def test_of_another_organization_is_not_found(
        self, client: httpx2.AsyncClient, server: Running, make: Factory
    ) -> None:
        run = await run_of(client, await new_agent(client))
        async with http_client(server, (await make.member()).key) as stranger:
            for how in ("resume", "fork", "replay"):
                body = {"checkpoint": 0} if how == "fork" else {}
                problem(await stranger.post(f"{API}/runs/{run['id']}/{how}", json=body), 404, "not_found")

    async def test_twice_with_one_key_is_one_run(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1])))
        path, headers = f"{API}/runs/{run['id']}/resume", {"Idempotency-Key": "again"}
        made = [ok(await client.post(path, json={}, headers=headers))["id"] for _ in range(2)]
        assert made[0] == made[1] != run["id"]


class TestForked:
    async def test_goes_on_from_a_checkpoint(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        counting, name = model
        run = await run_of(client, await new_agent(client, failing(name, "1 + 1")))
        found = ok(await client.get(f"{API}/runs/{run['id']}/checkpoints"))["items"]
        assert [one["node_path"] for one in found] == ["one", "two"]
        forked = await again(client, run, "fork", checkpoint=found[0]["seq"])
        assert forked["output"] == {"one": "call 1", "two": "call 3", "n": 2}
        assert len(counting.calls) == 3

    async def test_from_the_beginning_does_all_again(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1], "1 + 1")))
        forked = await again(client, run, "fork", checkpoint=0, input={"name": "Bob"})
        assert forked["output"] == {"one": "call 3", "two": "call 4", "n": 2}
        assert forked["input"] == {"name": "Bob"}

    async def test_of_a_resumed_run_does_again_what_that_took_over(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        counting, name = model
        slug = await new_agent(client, failing(name))
        run = await run_of(client, slug)
        await corrected(client, slug, failing(name, "1 + 1"))
        resumed = await again(client, run, "resume", version="live")
        found = ok(await client.get(f"{API}/runs/{resumed['id']}/checkpoints"))["items"]
        assert [one["node_path"] for one in found] == ["one", "two"]
        part = await again(client, resumed, "fork", checkpoint=found[0]["seq"])
        assert part["output"] == {"one": "call 1", "two": "call 3", "n": 2}
        whole = await again(client, resumed, "fork", checkpoint=0)
        assert whole["output"] == {"one": "call 4", "two": "call 5", "n": 2}
        assert len(counting.calls) == 5

    async def test_takes_no_checkpoint_that_is_none(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1], "1 + 1")))
        response = await client.post(f"{API}/runs/{run['id']}/fork", json={"checkpoint": 3})
        assert pointers(response) == ["/body/checkpoint"]
        assert "it has 0 (its beginning)" in response.json()["detail"]

    async def test_takes_no_input_that_does_not_fit(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, await new_agent(client))
        response = await client.post(f"{API}/runs/{run['id']}/fork", json={"checkpoint": 0, "input": {}})
        assert pointers(response, "invalid_input") == ["/body/input"]


def told(text: str) -> list[Any]:
    """The events of a stream, without ids and times."""
    return [bare(frame.data["event"]) | {"at": frame.data["node_path"]} for frame in frames(text)]


def bare(value: Any) -> Any:
    passing = {"runId", "threadId", "messageId", "message_id", "interrupt_id", "duration_ms", "delay_ms"}
    if isinstance(value, dict):
        return {name: bare(item) for name, item in value.items() if name not in passing}
    return [bare(item) for item in value] if isinstance(value, list) else value


async def log_of(client: httpx2.AsyncClient, run: dict[str, Any]) -> list[Any]:
    return told((await client.get(f"{API}/runs/{run['id']}/events")).text)


class TestReplayed:
    async def test_tells_the_same(self, client: httpx2.AsyncClient, model: tuple[Counting, str]) -> None:
        counting, name = model
        run = await run_of(client, await new_agent(client, failing(name, "1 + 1")))
        replay = await again(client, run, "replay")
        assert replay["error"] is None
        assert await log_of(client, replay) == await log_of(client, run)
        assert (replay["output"], len(counting.calls)) == (run["output"], 2)

    async def test_fails_where_the_run_failed(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1])))
        replay = await again(client, run, "replay")
        assert (replay["status"], replay["error"]) == ("failed", run["error"])
        assert await log_of(client, replay) == await log_of(client, run)

    async def test_says_what_another_version_does_differently(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        slug = await new_agent(client, failing(model[1], "1 + 1"))
        run = await run_of(client, slug)
        await corrected(client, slug, failing(model[1], "1 + 2"))
        replay = await again(client, run, "replay", version="live")
        assert replay["error"]["code"] == "replay_diverged"
        assert replay["error"]["message"].endswith("/result/n: recorded 2; now 3")

    async def test_says_that_a_model_is_asked_something_else(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        slug = await new_agent(client, failing(model[1], "1 + 1"))
        run = await run_of(client, slug)
        changed = failing(model[1], "1 + 1")
        changed["nodes"][2] = ask("two", "Dear {{ one.text }}")
        await corrected(client, slug, changed)
        replay = await again(client, run, "replay", version="live")
        expected = "node 'two' is asked something else than was recorded"
        assert replay["error"] == {"code": "replay_diverged", "message": expected}

    async def test_is_neither_resumed_nor_forked(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1])))
        replay = await again(client, run, "replay")
        for how, body in (("resume", {}), ("fork", {"checkpoint": 0})):
            response = await client.post(f"{API}/runs/{replay['id']}/{how}", json=body)
            assert run["id"] in problem(response, 409, "is_replay")["detail"]

    async def test_can_be_replayed_again(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1], "1 + 1")))
        second = await again(client, await again(client, run, "replay"), "replay")
        assert (second["error"], second["output"]) == (None, run["output"])
        assert second["parent_run_id"] == run["id"]

    async def test_of_a_run_that_never_began_is_refused(
        self, client: httpx2.AsyncClient, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server.resources.executor, "claims", False)
        slug = await new_agent(client)
        made = await client.post(f"{API}/agents/{slug}/runs", json=INPUT | {"mode": "background"})
        run = ok(made, 202)
        assert ok(await client.get(f"{API}/runs/{run['id']}/timeline"))["items"] == []
        ok(await client.post(f"{API}/runs/{run['id']}/cancel?wait=true"))
        response = await client.post(f"{API}/runs/{run['id']}/replay", json={})
        assert "had not begun" in problem(response, 409, "not_recorded")["detail"]


class TestTimeline:
    async def test_has_what_each_node_read_and_gave(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1], "len({{ one.text }})")))
        found = ok(await client.get(f"{API}/runs/{run['id']}/timeline"))
        entries = {entry["node_path"]: entry for entry in found["items"]}
        assert list(entries) == ["start", "one", "two", "compute", "done"]
        assert entries["two"]["inputs"] == {"one.text": "call 1"}
        assert entries["two"]["output"]["text"] == "call 2"
        assert entries["two"]["usage"]["input_tokens"] == 2
        assert entries["compute"]["output"] == {"n": 6}
        assert (found["next"], found["incomplete"]) == (None, None)

    async def test_of_a_failed_run_says_where(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1])))
        last = ok(await client.get(f"{API}/runs/{run['id']}/timeline"))["items"][-1]
        assert (last["node_path"], last["status"], last["output"]) == ("compute", "failed", None)
        assert last["error"]["code"] == "expression_failed"

    async def test_of_a_run_that_waits_goes_so_far(self, client: httpx2.AsyncClient) -> None:
        asked = {"id": "ask", "type": "human", "config": {"message": "{{ inputs.name }}?"}}
        run = await run_of(client, await new_agent(client, line("default-chat", asked, output={})))
        last = ok(await client.get(f"{API}/runs/{run['id']}/timeline"))["items"][-1]
        assert (last["status"], last["inputs"]) == ("running", {"inputs.name": "Ada"})

    async def test_of_a_large_run_has_no_values(
        self, client: httpx2.AsyncClient, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = await run_of(client, await new_agent(client))
        monkeypatch.setattr(server.resources.settings, "run_timeline_events", 3)
        found = ok(await client.get(f"{API}/runs/{run['id']}/timeline"))
        assert "ORRERY_RUN_TIMELINE_EVENTS" in found["incomplete"]
        assert [entry["inputs"] for entry in found["items"]] == [None] * 3

    async def test_comes_in_parts(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, await new_agent(client))
        path, after, paths = f"{API}/runs/{run['id']}/timeline?limit=1", 0, []
        while after is not None:
            part = ok(await client.get(f"{path}&after={after}"))
            paths += [entry["node_path"] for entry in part["items"]]
            after = part["next"]
        assert paths == ["start", "greet", "done"]

    async def test_of_a_replay_is_that_of_the_run(
        self, client: httpx2.AsyncClient, model: tuple[Counting, str]
    ) -> None:
        run = await run_of(client, await new_agent(client, failing(model[1], "1 + 1")))
        replay = await again(client, run, "replay")
        found = [ok(await client.get(f"{API}/runs/{one['id']}/timeline"))["items"] for one in (run, replay)]
        outputs = [[entry["output"] for entry in items] for items in found]
        assert outputs[0] == outputs[1]
