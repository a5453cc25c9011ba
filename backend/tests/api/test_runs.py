"""Runs over HTTP: streamed, watched again from any event, waited for, cancelled."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from sqlalchemy import text

from app.core.ids import new_id
from tests.api.calls import API, arriving, ended, frames, new_agent, ok, pointers, problem
from tests.factories import Factory, Gate, Member
from tests.fixtures import Running, http_client
from tests.graphs import asking_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")

INPUT = {"input": {"name": "Ada"}}
TERMINAL = {"RUN_FINISHED", "RUN_ERROR"}


async def waiting_run(client: httpx2.AsyncClient, gate: Gate) -> str:
    """The id of a run that has come as far as the gate."""
    slug = await new_agent(client, asking_graph(gate.slug))
    run = ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT | {"wait_timeout_s": 0.01}), 202)
    await asyncio.wait_for(gate.entered.wait(), 30)
    return str(run["id"])


class TestStream:
    async def test_numbers_its_events_without_gaps(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        response = await client.post(f"{API}/agents/{slug}/runs", json=INPUT | {"mode": "stream"})
        seen = frames(response.text)
        assert [frame.id for frame in seen] == list(range(1, len(seen) + 1))
        assert [frame.data["seq"] for frame in seen] == [frame.id for frame in seen]

    async def test_names_each_event_by_its_type(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        response = await client.post(f"{API}/agents/{slug}/runs", json=INPUT | {"mode": "stream"})
        seen = frames(response.text)
        assert all(frame.event == frame.data["event"]["type"] for frame in seen)
        assert seen[0].event == "RUN_STARTED"

    async def test_ends_with_its_one_terminal_event(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        response = await client.post(f"{API}/agents/{slug}/runs", json=INPUT | {"mode": "stream"})
        names = [frame.event for frame in frames(response.text)]
        assert [name for name in names if name in TERMINAL] == ["RUN_FINISHED"] == names[-1:]

    async def test_is_what_is_stored(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        live = await client.post(f"{API}/agents/{slug}/runs", json=INPUT | {"mode": "stream"})
        again = await client.get(live.headers["Location"] + "/events")
        assert again.content == live.content

    async def test_is_not_held_back_by_proxies(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        response = await client.post(f"{API}/agents/{slug}/runs", json=INPUT | {"mode": "stream"})
        headers = {
            name: response.headers[name] for name in ("X-Accel-Buffering", "Cache-Control", "Content-Type")
        }
        assert headers == {
            "X-Accel-Buffering": "no",
            "Cache-Control": "no-store",
            "Content-Type": "text/event-stream; charset=utf-8",
        }

    async def test_shows_text_while_the_model_speaks(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        slug = await new_agent(client, asking_graph(gate.slug))
        said = []
        body = INPUT | {"mode": "stream"}
        async with client.stream("POST", f"{API}/agents/{slug}/runs", json=body) as response:
            async for frame in arriving(response):
                if frame.event == "TEXT_MESSAGE_CONTENT":
                    said.append(frame.data["event"]["delta"])
                    gate.opened.set()
        assert said == ["Wait", " is over"]

    async def test_goes_on_when_its_reader_is_gone(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        slug = await new_agent(client, asking_graph(gate.slug))
        body = INPUT | {"mode": "stream"}
        async with client.stream("POST", f"{API}/agents/{slug}/runs", json=body) as response:
            async for frame in arriving(response):
                run_id = frame.data["run_id"]
                break
        await asyncio.wait_for(gate.entered.wait(), 30)
        await asyncio.sleep(0.1)  # time enough for a disconnect to do harm
        gate.opened.set()
        run = await ended(client, run_id)
        assert (run["status"], run["output"]) == ("succeeded", {"text": "Wait is over"})

    async def test_beats_while_nothing_happens(
        self, server: Running, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        run_id = await waiting_run(client, gate)
        app_settings = server.resources.settings
        usual, app_settings.sse_heartbeat_s = app_settings.sse_heartbeat_s, 0.05
        try:
            async with client.stream("GET", f"{API}/runs/{run_id}/events") as response:
                async for line in response.aiter_lines():
                    if line.startswith(": heartbeat"):
                        gate.opened.set()
        finally:
            app_settings.sse_heartbeat_s = usual
        assert gate.opened.is_set()

    async def test_refuses_wrong_input_before_it_begins(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        response = await client.post(f"{API}/agents/{slug}/runs", json={"input": {}, "mode": "stream"})
        assert pointers(response, "invalid_input") == ["/body/input"]


class TestEvents:
    async def test_continue_after_any_event(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT))
        path = f"{API}/runs/{run['id']}/events"
        everything = frames((await client.get(path)).text)
        for seen in range(len(everything) + 1):
            by_query = await client.get(path, params={"after": seen})
            by_header = await client.get(path, headers={"Last-Event-ID": str(seen)})
            assert frames(by_query.text) == frames(by_header.text) == everything[seen:]

    async def test_behind_the_last_end_at_once(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT))
        response = await client.get(f"{API}/runs/{run['id']}/events", params={"after": 2**63 - 1})
        assert (response.status_code, response.text) == (200, "")

    @pytest.mark.parametrize("after", ["-1", "one", str(2**63)])
    async def test_refuse_what_is_no_number(self, client: httpx2.AsyncClient, after: str) -> None:
        response = await client.get(f"{API}/runs/{new_id()}/events", params={"after": after})
        assert pointers(response) == ["/query/after"]

    async def test_of_an_unknown_run_are_a_problem_and_no_stream(self, client: httpx2.AsyncClient) -> None:
        problem(await client.get(f"{API}/runs/{new_id()}/events"), 404, "not_found")

    async def test_reach_several_readers_alike(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        run_id = await waiting_run(client, gate)
        readers = [asyncio.create_task(client.get(f"{API}/runs/{run_id}/events")) for _ in range(3)]
        await asyncio.sleep(0.05)
        gate.opened.set()
        first, *others = [response.content for response in await asyncio.gather(*readers)]
        assert others == [first, first]


class TestWait:
    async def test_gives_up_with_202_and_where_to_look(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        slug = await new_agent(client, asking_graph(gate.slug))
        body = INPUT | {"mode": "wait", "wait_timeout_s": 0.05}
        response = await client.post(f"{API}/agents/{slug}/runs", json=body)
        run = ok(response, 202)
        assert (run["status"], response.headers["Location"]) == ("running", f"{API}/runs/{run['id']}")
        gate.opened.set()
        assert (await ended(client, run["id"]))["status"] == "succeeded"

    async def test_answers_a_failed_run_with_200_and_the_reason(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        slug = await new_agent(client, asking_graph(gate.slug))
        del server.resources.providers[gate.slug]
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT))
        assert (run["status"], run["output"]) == ("failed", None)
        assert gate.slug in run["error"]["message"]

    @pytest.mark.parametrize("timeout_s", [0, -1, 3601, "soon"])
    async def test_refuses_a_bad_timeout(self, client: httpx2.AsyncClient, timeout_s: object) -> None:
        slug = await new_agent(client)
        body = INPUT | {"wait_timeout_s": timeout_s}
        assert pointers(await client.post(f"{API}/agents/{slug}/runs", json=body)) == ["/body/wait_timeout_s"]


class TestCancel:
    async def test_ends_the_run(self, client: httpx2.AsyncClient, make: Factory, member: Member) -> None:
        run_id = await waiting_run(client, await make.gate(member))
        run = ok(await client.post(f"{API}/runs/{run_id}/cancel", params={"wait": "true"}))
        assert (run["status"], run["error"]["code"]) == ("cancelled", "cancelled")

    async def test_ends_the_stream_with_one_terminal_event(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        run_id = await waiting_run(client, await make.gate(member))
        reader = asyncio.create_task(client.get(f"{API}/runs/{run_id}/events"))
        ok(await client.post(f"{API}/runs/{run_id}/cancel"))
        names = [frame.event for frame in frames((await reader).text)]
        assert [name for name in names if name in TERMINAL] == ["RUN_ERROR"] == names[-1:]

    async def test_twice_is_the_same(self, client: httpx2.AsyncClient, make: Factory, member: Member) -> None:
        run_id = await waiting_run(client, await make.gate(member))
        first = ok(await client.post(f"{API}/runs/{run_id}/cancel", params={"wait": "true"}))
        assert ok(await client.post(f"{API}/runs/{run_id}/cancel")) == first

    async def test_leaves_what_has_ended_as_it_is(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT))
        assert ok(await client.post(f"{API}/runs/{run['id']}/cancel", params={"wait": "true"})) == run


class TestList:
    async def test_shows_one_agents_runs(self, client: httpx2.AsyncClient) -> None:
        one, other = await new_agent(client), await new_agent(client)
        run = ok(await client.post(f"{API}/agents/{one}/runs", json=INPUT))
        ok(await client.post(f"{API}/agents/{other}/runs", json=INPUT))
        (found,) = ok(await client.get(f"{API}/runs", params={"agent": one}))["items"]
        assert found.items() <= run.items()
        assert run.keys() - found.keys() == {"input", "output", "usage", "metadata"}
        assert len(ok(await client.get(f"{API}/runs"))["items"]) == 2

    async def test_of_an_unknown_agent_is_404(self, client: httpx2.AsyncClient) -> None:
        problem(await client.get(f"{API}/runs", params={"agent": "nobody"}), 404, "not_found")


class TestTextFilter:
    async def found(self, client: httpx2.AsyncClient, q: str, **more: str) -> list[str]:
        runs = ok(await client.get(f"{API}/runs", params={"q": q} | more))["items"]
        return [run["id"] for run in runs]

    async def run(self, client: httpx2.AsyncClient, slug: str, name: str) -> str:
        return str(ok(await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": name}}))["id"])

    async def test_finds_text_of_input_and_output_in_any_case(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        ada, _ = await self.run(client, slug, "Ada Ölgur"), await self.run(client, slug, "Grace")
        for q in ("ada", "HELLO, ADA", "ölgur!", "ÖLGUR"):
            assert await self.found(client, q) == [ada], q
        assert len(await self.found(client, "hello")) == 2

    @pytest.mark.parametrize("said", ['a "quoted" word', "back\\slash", "100%", "a_b", "two\nlines", "4.20"])
    async def test_takes_text_literally(self, client: httpx2.AsyncClient, said: str) -> None:
        slug = await new_agent(client)
        run, _ = await self.run(client, slug, f"<{said}>"), await self.run(client, slug, "axb 1000 4x20")
        assert await self.found(client, said) == [run]

    async def test_finds_values_and_no_keys(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        await self.run(client, slug, "Ada")
        assert await self.found(client, "name") == []

    async def test_finds_a_run_by_the_beginning_of_its_id(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        run = await self.run(client, slug, "Ada")
        assert await self.found(client, run) == await self.found(client, run[:30].upper()) == [run]
        assert await self.found(client, run[5:]) == []

    async def test_holds_beside_the_other_filters(self, client: httpx2.AsyncClient) -> None:
        one, other = await new_agent(client), await new_agent(client)
        run, _ = await self.run(client, one, "Ada"), await self.run(client, other, "Ada")
        assert await self.found(client, "ada", agent=one) == [run]
        assert await self.found(client, "ada", agent=one, status="failed") == []

    async def test_looks_into_the_newest_only(self, server: Running, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        runs = [await self.run(client, slug, "Ada") for _ in range(3)]
        before = ok(await client.get(f"{API}/runs/{runs[2]}"))["created_at"]
        settings = server.resources.settings
        usual, settings.run_text_search_limit = settings.run_text_search_limit, 2
        try:
            assert await self.found(client, "ada") == [runs[2], runs[1]]
            assert await self.found(client, "ada", created_before=before) == [runs[1], runs[0]]
        finally:
            settings.run_text_search_limit = usual

    async def test_is_counted_and_paged(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        runs = [await self.run(client, slug, name) for name in ("Ada", "Bob", "Ada")]
        query = {"q": "ada", "limit": "1", "count": "true"}
        first = ok(await client.get(f"{API}/runs", params=query))
        rest = ok(await client.get(f"{API}/runs", params=query | {"cursor": first["next_cursor"]}))
        assert [page["items"][0]["id"] for page in (first, rest)] == [runs[2], runs[0]]
        assert (first["total"], rest["next_cursor"]) == (2, None)


class TestSteps:
    async def test_show_what_each_impure_node_did(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        gate.opened.set()
        slug = await new_agent(client, asking_graph(gate.slug))
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT))
        (step,) = ok(await client.get(f"{API}/runs/{run['id']}/steps"))["items"]
        assert (step["node_path"], step["node_type"], step["status"]) == ("ask", "llm", "succeeded")
        assert step["output"]["text"] == "Wait is over"


class TestDroppedLog:
    async def test_is_a_problem_and_no_stream(self, server: Running, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT))["id"]
        old = f"00000000{run[8:]}"  # as if it had been made in 1970
        async with server.resources.database.system_work() as session:
            await session.execute(
                text("UPDATE agent_runs SET id = :old WHERE id = :id"), {"old": old, "id": run}
            )
            month = "INSERT INTO dropped_run_logs (month) VALUES ('1970-01-01') ON CONFLICT DO NOTHING"
            await session.execute(text(month))
        assert ok(await client.get(f"{API}/runs/{old}"))["output"]
        for what in ("events", "steps", "checkpoints", "timeline"):
            problem(await client.get(f"{API}/runs/{old}/{what}"), 410, "log_dropped")
        problem(await client.post(f"{API}/runs/{old}/replay"), 410, "log_dropped")


class TestOtherProject:
    async def test_does_not_see_the_run(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        slug = await new_agent(client)
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=INPUT))
        second = await make.project(member)
        everywhere = await make.key(member, unbound=True)
        async with http_client(server, everywhere.key) as other:
            other.headers["X-Project-Id"] = str(second.project_id)
            problem(await other.get(f"{API}/runs/{run['id']}"), 404, "not_found")
            problem(await other.post(f"{API}/runs/{run['id']}/cancel"), 404, "not_found")
