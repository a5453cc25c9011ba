"""`http`: what is sent, what comes back, and how each failure is told; over a real way out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from app.agent.graph.nodes.http import HttpConfig
from app.agent.graph.ports import RunFailed
from app.services.http_service import ProjectHttp
from tests.agent.documents import end, graph, node
from tests.agent.doubles import Kept
from tests.agent.http_calls import FORM, JSON, TOKEN, Vault, bench, document, other_side, run
from tests.core.peers import (
    Script,
    hangs_up_after,
    in_turn,
    ok,
    peer,
    redirects,
    says,
    way_out,
)

BUSY = says(ok(b"slow down", status="429 Busy", headers=["Retry-After: 7"]))


class TestRequest:
    async def test_values_in_the_url_stay_in_their_place(self) -> None:
        async with other_side() as (there, http):
            found = document(f"{there.url}items/{{{{ inputs.x }}}}?a={{{{ inputs.x }}}}")
            await run(bench(found, http), x="../admin?b=c&d#é")
        quoted = "..%2Fadmin%3Fb%3Dc%26d%23%C3%A9"
        assert there.requests[0].target == f"/items/{quoted}?a={quoted}"

    async def test_a_reference_at_the_beginning_is_the_address(self) -> None:
        async with other_side() as (there, http):
            await run(bench(document("{{ inputs.x }}/end"), http), x=f"{there.url}a/b?c=d")
        assert there.requests[0].target == "/a/b?c=d/end"

    async def test_query_is_added_with_lists_and_without_nulls(self) -> None:
        query = {"q": "{{ inputs.x }}", "n": 3, "yes": True, "tag": ["a b", "c"], "none": None}
        async with other_side() as (there, http):
            await run(bench(document(f"{there.url}?z=1#frag", query=query), http), x="a&b=c")
        assert there.requests[0].target == "/?z=1&q=a%26b%3Dc&n=3&yes=true&tag=a+b&tag=c"

    @pytest.mark.parametrize(
        ("body", "kind", "sent"),
        [
            ({"json": {"q": "{{ inputs.x }}", "n": [1, None]}}, JSON, b'{"q":{"a":"\xc3\xa9"},"n":[1,null]}'),
            ({"text": "x={{ inputs.x }}"}, "Content-Type: text/plain; charset=utf-8", b'x={"a": "\xc3\xa9"}'),
            ({"form": {"a b": "c&d", "e": [1, 2]}}, FORM, b"a+b=c%26d&e=1&e=2"),
        ],
    )  # fmt: skip
    async def test_bodies(self, body: Any, kind: str, sent: bytes) -> None:
        async with other_side() as (there, http):
            await run(bench(document(there.url, method="POST", body=body), http), x={"a": "é"})
        assert "Content-Type: " + there.requests[0].headers["content-type"] == kind
        assert there.requests[0].body == sent

    async def test_headers_of_the_author_win(self) -> None:
        headers = {"content-type": "application/vnd.api+json", "X-Who": "{{ inputs.x }}"}
        async with other_side() as (there, http):
            found = document(there.url, method="PUT", body={"json": 1}, headers=headers)
            await run(bench(found, http), x="Ada")
        sent = there.requests[0].headers
        assert (sent["content-type"], sent["x-who"]) == ("application/vnd.api+json", "Ada")

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "\x00"])
    async def test_no_value_can_add_a_header(self, value: str) -> None:
        async with other_side() as (there, http):
            with pytest.raises(RunFailed, match="X-Who") as failure:
                await run(bench(document(there.url, headers={"X-Who": "{{ inputs.x }}"}), http), x=value)
        assert (failure.value.code, there.requests) == ("bad_request", [])

    @pytest.mark.parametrize(
        "url", ["", "not a url", "file:///etc/passwd", "http://", "https://a:b@c.example/"]
    )
    async def test_what_is_no_address_is_not_called(self, url: str) -> None:
        async with other_side() as (_, http):
            with pytest.raises(RunFailed) as failure:
                await run(bench(document("{{ inputs.x }}"), http), x=url)
        assert failure.value.code == "bad_request"

    async def test_a_redirect_to_where_nothing_may_be_called_is_no_mistake_of_the_request(self) -> None:
        async with other_side(redirects(302, "ftp://127.0.0.1/")) as (there, http):
            with pytest.raises(RunFailed) as failure:
                await run(bench(document(there.url), http))
        assert failure.value.code == "egress_denied"

    @pytest.mark.parametrize("field", ["query", "form"])
    async def test_nested_values_have_no_place_in_pairs(self, field: str) -> None:
        more: Any = (
            {"query": {"a": "{{ inputs.x }}"}}
            if field == "query"
            else {"body": {"form": {"a": "{{ inputs.x }}"}}}
        )
        async with other_side() as (there, http):
            with pytest.raises(
                RunFailed, match=rf"{field}.a takes text, numbers and lists of them, not object"
            ):
                await run(bench(document(there.url, method="POST", **more), http), x={"b": 1})


class TestReply:
    @pytest.mark.parametrize(
        ("response", "headers", "sent", "body"),
        [
            ("auto", [JSON], b'{"a": [1, null]}', {"a": [1, None]}),
            ("auto", ["Content-Type: application/problem+json; charset=utf-8"], b"3", 3),
            ("auto", ["Content-Type: text/html; charset=iso-8859-1"], b"\xe9", "é"),
            ("auto", [], b"plain", "plain"),
            ("auto", ["Content-Type: image/png"], b"\x89PNG", "iVBORw=="),
            ("auto", [JSON], b"", None),
            ("json", ["Content-Type: text/plain"], b"[]", []),
            ("text", [JSON], b"{", "{"),
            ("base64", [JSON], b"{}", "e30="),
        ],
    )
    async def test_body_is_read_as_it_is_meant(
        self, response: str, headers: list[str], sent: bytes, body: Any
    ) -> None:
        async with other_side(says(ok(sent, headers=headers))) as (there, http):
            result = await run(bench(document(there.url, response=response), http))
        assert result.output["body"] == body

    async def test_gives_status_headers_and_address_but_no_cookies(self) -> None:
        headers = [JSON, "X-Rate: 5", "Set-Cookie: a=b", "X-Long: " + "x" * 3000]
        script = in_turn(redirects(302, "/there"), says(ok(b"1", status="201 Made", headers=headers)))
        async with other_side(script) as (there, http):
            output = (await run(bench(document(there.url), http))).output
        assert (output["status"], output["url"]) == (201, f"{there.url}there")
        assert output["headers"] == {"content-type": "application/json", "content-length": "1", "x-rate": "5"}

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (b"{", "invalid_response"),
            (b"NaN", "invalid_response"),
            (b"[" * 100_000, "invalid_response"),
            (b"[" * 40 + b"]" * 40, "too_large"),
            (b"[" + b"0," * 120_000 + b"0]", "too_large"),
        ],
    )
    async def test_json_that_is_none_or_too_much_fails(self, sent: bytes, code: str) -> None:
        async with other_side(says(ok(sent, headers=[JSON]))) as (there, http):
            with pytest.raises(RunFailed) as failure:
                await run(bench(document(there.url), http))
        assert failure.value.code == code

    @pytest.mark.parametrize("limits", [(100, None), (2**20, 100)])
    async def test_is_bounded_by_the_installation_and_the_node(self, limits: tuple[int, int | None]) -> None:
        async with other_side(says(ok(b"x" * 101)), max_bytes=limits[0]) as (there, http):
            with pytest.raises(RunFailed, match="more than 100 bytes") as failure:
                await run(bench(document(there.url, max_bytes=limits[1]), http))
        assert failure.value.code == "too_large"


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "expected", "code"),
        [
            ("404 Gone", None, "http_status"),
            ("301 Moved", None, "http_status"),
            ("429 Busy", None, "rate_limit"),
            ("503 Down", None, "server_error"),
            ("200 OK", [201], "http_status"),
        ],
    )
    async def test_that_is_not_expected_fails(self, status: str, expected: Any, code: str) -> None:
        more = {"expect_status": expected} if expected else {}
        async with other_side(says(ok(b"why\n not", status=status))) as (there, http):
            with pytest.raises(RunFailed, match=f"answered {status[:3]}: why not") as failure:
                await run(bench(document(there.url, **more), http))
        assert failure.value.code == code

    @pytest.mark.parametrize("expected", [[404], ["4xx"], [200, "4xx"]])
    async def test_that_is_expected_is_an_answer(self, expected: Any) -> None:
        async with other_side(says(ok(b"", status="404 Gone"))) as (there, http):
            result = await run(bench(document(there.url, expect_status=expected), http))
        assert (result.output["status"], result.output["body"]) == (404, None)

    async def test_redirects_are_answers_if_they_are_not_followed(self) -> None:
        async with other_side(redirects(302, "/there")) as (there, http):
            found = document(there.url, follow_redirects=False, expect_status=[302])
            result = await run(bench(found, http))
        assert (result.output["status"], result.output["headers"]["location"]) == (302, "/there")


class TestRetry:
    async def test_waits_as_long_as_it_was_asked_to(self) -> None:
        async with other_side(in_turn(BUSY, says(ok()))) as (there, http):
            call = bench(document(there.url, retry={"initial_s": 1, "jitter": False}), http)
            await run(call)
        assert (call.clock.slept, len(there.requests)) == ([7.0], 2)

    @pytest.mark.parametrize("asked", ["Fri, 31 Dec 1999 23:59:59 GMT", "soon", "-1", "9" * 50])
    async def test_a_strange_wait_does_no_harm(self, asked: str) -> None:
        busy = says(ok(status="503 Down", headers=[f"Retry-After: {asked}"]))
        async with other_side(in_turn(busy, says(ok()))) as (there, http):
            call = bench(document(there.url, retry={"initial_s": 1, "jitter": False}), http)
            await run(call)
        assert call.clock.slept == [3600.0 if asked.isdecimal() else 1]

    @pytest.mark.parametrize("script", [hangs_up_after(), says(ok(status="500 Broken"))])
    async def test_covers_what_may_pass(self, script: Script) -> None:
        async with other_side(in_turn(script, says(ok()))) as (there, http):
            call = bench(document(there.url, retry={"initial_s": 0}), http)
            assert (await run(call)).output["status"] == 200

    async def test_a_time_out_of_the_way_out_is_one(self) -> None:
        async def never(*_: Any) -> None:
            return None

        async with other_side(never) as (there, http):
            with pytest.raises(RunFailed) as failure:
                await run(
                    bench(
                        document(there.url, timeout_s=0.1, retry={"on": ["timeout"], "max_attempts": 2}), http
                    )
                )
        assert (failure.value.code, len(there.requests)) == ("timeout", 2)

    async def test_private_addresses_are_closed_and_not_tried_again(self) -> None:
        async with peer() as there, way_out("10.0.0.1") as egress:
            http = ProjectHttp(egress, Vault(), 1000)
            with pytest.raises(RunFailed, match="may not be called") as failure:
                await run(bench(document(there.url, retry={}), http))
        assert (failure.value.code, there.connections) == ("egress_denied", 0)


class TestIdempotencyKey:
    async def keys(
        self, runs: Sequence[str], script: Script | None = None, **config: Any
    ) -> list[str | None]:
        """What each request carried. Each run has a process of its own: nothing is shared but its id."""
        async with other_side(script) as (there, http):
            for run_id in runs:
                await run(bench(document(there.url, **config), http), run_id)
        return [request.headers.get("idempotency-key") for request in there.requests]

    async def test_is_the_same_in_every_attempt_and_process(self) -> None:
        script = in_turn(BUSY, says(ok()))
        first, again, elsewhere = await self.keys(["r1", "r1"], script, method="POST", retry={"initial_s": 0})
        assert first
        assert first == again == elsewhere

    async def test_is_the_same_though_a_branch_that_lost_has_ended_meanwhile(self) -> None:
        body = {"json": {"first": '{{ quick.text ?? slow.text ?? "" }}'}}
        arrived = asyncio.Event()

        async def says_nothing(*_: Any) -> None:
            arrived.set()

        async with other_side(in_turn(says_nothing, says(ok()))) as (there, http):
            race = graph(
                node("quick", "nap"),
                node("slow", "nap", {"seconds": 60}),
                node("call", "http", {"url": there.url, "method": "POST", "body": body}, join="any"),
                end(status="{{ call.status }}"),
                edges=["start > quick", "start > slow", "quick > call", "slow > call", "call > done"],
            )
            dying = bench(race, http)
            running = asyncio.create_task(run(dying, "r", question="?"))
            await asyncio.wait_for(arrived.wait(), 30)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            going_on = bench(race, http)
            quick = next(step for step in dying.log.steps if step.node_path == "quick")
            known = [quick, replace(quick, node_path="slow"), *dying.log.begun]
            going_on.log.known = {step.key: step for step in known}
            await run(going_on, "r", question="?")
        first, second = (request.headers["idempotency-key"] for request in there.requests)
        assert first == second

    async def test_differs_between_runs(self) -> None:
        assert len(set(await self.keys(["r1", "r2"], method="DELETE"))) == 2

    async def test_differs_between_nodes(self) -> None:
        async with other_side() as (there, http):
            found = document(there.url, method="POST")
            found["nodes"].insert(2, {**found["nodes"][1], "id": "next"})
            found["edges"][1:] = [{"source": "call", "target": "next"}, {"source": "next", "target": "done"}]
            await run(bench(found, http))
        assert len({request.headers["idempotency-key"] for request in there.requests}) == 2

    async def test_of_the_author_wins(self) -> None:
        headers = {"idempotency-key": "order-{{ inputs.x }}"}
        assert await self.keys(["r"], method="POST", headers=headers) == ["order-"]

    @pytest.mark.parametrize(
        ("config", "sent"),
        [
            ({"method": "GET"}, False),
            ({"method": "HEAD"}, False),
            ({"method": "PATCH"}, True),
            ({"method": "GET", "effect": "write"}, True),
            ({"method": "POST", "effect": "read"}, False),
        ],
    )
    async def test_is_sent_where_something_is_written(self, config: dict[str, Any], sent: bool) -> None:
        assert [bool(key) for key in await self.keys(["r"], **config)] == [sent]


class TestSecrets:
    HEADERS = {"Authorization": {"secret": "crm-token", "prefix": "Bearer "}}  # noqa: RUF012

    async def test_are_put_in_when_the_request_is_sent(self) -> None:
        async with other_side() as (there, http):
            await run(bench(document(there.url, headers=self.HEADERS), http))
        assert there.requests[0].headers["authorization"] == f"Bearer {TOKEN}"

    async def test_are_in_no_event_step_or_output_even_if_they_are_sent_back(self) -> None:
        answers = (
            says(ok(json.dumps({"sent": f"Bearer {TOKEN}"}).encode(), headers=[JSON, f"X-Echo: {TOKEN}"])),
            says(ok(f"no: {TOKEN}".encode(), status="400 Bad")),
            redirects(302, f"/?token={TOKEN}"),
        )
        for response, answer in (
            ("auto", answers[0]),
            ("base64", answers[0]),
            ("auto", answers[1]),
            ("auto", answers[2]),
        ):
            async with other_side(in_turn(answer, says(ok()))) as (there, http):
                call = bench(
                    document(there.url, headers=self.HEADERS, response=response, cache={"ttl_s": 9}),
                    http,
                    cache=Kept(),
                )
                try:
                    told = repr((await run(call)).output)
                except RunFailed as failure:
                    told = repr((failure, failure.detail))
                kept = call.more["cache"].steps
            assert TOKEN not in told + repr(call.log.entries) + repr(kept)
            assert TOKEN not in repr([vars(event) for event in call.log.events if hasattr(event, "__dict__")])

    async def test_that_do_not_exist_fail_the_node(self) -> None:
        async with other_side() as (there, http):
            with pytest.raises(RunFailed, match="no secret 'absent'") as failure:
                await run(bench(document(there.url, headers={"X": {"secret": "absent"}}), http))
        assert (failure.value.code, there.requests) == ("not_found", [])

    async def test_do_not_follow_a_redirect_to_somebody_else(self) -> None:
        async with (
            peer() as stranger,
            peer(redirects(302, stranger.url)) as there,
            way_out(there.authority, stranger.authority) as egress,
        ):
            http = ProjectHttp(egress, Vault(), 2**20)
            await run(bench(document(there.url, headers=self.HEADERS), http))
        assert "authorization" not in stranger.requests[0].headers


def test_a_secret_is_written_as_it_was_read() -> None:
    headers = {"Authorization": {"secret": "crm-token", "prefix": "Bearer "}, "X-Who": "{{ inputs.x }}"}
    config = HttpConfig.model_validate({"url": "https://a.example/", "headers": headers})
    assert config.model_dump(mode="json")["headers"] == headers
