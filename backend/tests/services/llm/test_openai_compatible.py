"""The provider `openai_compatible` against a real server: what it sends, what it takes, how it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import pytest_asyncio
from pydantic import SecretStr

from app.agent.core.interfaces import (
    ChatEvent,
    ChatRequest,
    Finished,
    Message,
    ModelError,
    Role,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolDefinition,
    Usage,
)
from app.core.egress import Limits
from app.services.llm.openai_compatible import Endpoint, OpenAICompatible, list_models, usual_token_limit
from tests.core.peers import way_out
from tests.openai_compatible_double import (
    Calls,
    Double,
    Exchange,
    breaks_off,
    double,
    fails,
    fails_amid,
    hangs,
    says,
    sends,
    whole,
)
from tests.services.llm.chat_model_conformance import CONTEXT, ChatModelConformance, collect, text_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "sk-canary-provider-c0ffee42"
ASK = ChatRequest([Message(Role.USER, "Why?")])
WEATHER = ToolDefinition("weather", "Tells the weather.", {"type": "object", "properties": {}})
LIMITS = Limits(connect_s=5, first_byte_s=5, idle_s=5, total_s=20, max_event_bytes=2**16)


async def obliging(exchange: Exchange) -> None:
    """Says as many words as it may."""
    limit = exchange.received.body.get("max_tokens", 100)
    words = ["Within ", "30 ", "days ", "of ", "delivery."][:limit]
    await says(*words, tokens=(20, len(words)), reason="length" if limit < 5 else None)(exchange)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[Double]:
    async with double(obliging, key=KEY) as made:
        yield made


@asynccontextmanager
async def calling(server: Double, **given: Any) -> AsyncIterator[OpenAICompatible]:
    async with way_out("127.0.0.1") as egress:
        endpoint = Endpoint("vendor", server.base_url, egress, LIMITS, SecretStr(KEY))
        yield OpenAICompatible(endpoint, "double-1", **given)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def model(server: Double) -> AsyncIterator[OpenAICompatible]:
    async with calling(server) as made:
        yield made


async def failure(model: OpenAICompatible) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await collect(model, ASK)
    assert KEY not in caught.value.message
    return caught.value


def raw(*chunks: Any, done: bool = True) -> bytes:
    """Chunks as a server of no vendor sends them: each the delta, or the finish reason, of one choice."""
    choices = [{"finish_reason": c} if isinstance(c, str) else {"delta": c} for c in chunks]
    lines = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


class TestConformance(ChatModelConformance):
    pass


class TestAnswers:
    async def test_come_as_they_are_written(self, model: OpenAICompatible, server: Double) -> None:
        server.next(says("Be", "cause", ".", tokens=(8, 3)))
        assert await collect(model, ASK) == [
            *map(TextDelta, ("Be", "cause", ".")),
            Finished("stop", Usage(8, 3)),
        ]

    async def test_without_usage_count_no_tokens(self, model: OpenAICompatible, server: Double) -> None:
        server.next(says("Yes.", tokens=None))
        assert (await collect(model, ASK))[-1] == Finished("stop", Usage())

    async def test_may_end_without_saying_so(self, model: OpenAICompatible, server: Double) -> None:
        server.next(says("Yes.", done=False))
        assert text_of(await collect(model, ASK)) == "Yes."

    @pytest.mark.parametrize(
        "body",
        [
            raw({"role": "assistant", "content": None}, {"content": "Yes."}, "stop"),
            raw({"reasoning_content": "Hm.", "content": None}, {"reasoning": "Hm."}, {"content": "Yes."}),
            raw({"content": "Yes."}, "eos"),
            raw({"content": [{"type": "text", "text": "Yes."}]}, "stop"),
            b": keep-alive\n\n" + raw({"content": "Yes."}, "stop"),
            b'data: {"choices":[],"prompt_filter_results":[]}\n\n' + raw({"content": "Yes."}, "stop"),
            raw({"content": "Yes."}, "stop").replace(b"\n", b"\r\n"),
            raw({"content": "Yes."}, "stop").replace(b"data: ", b"data:"),
            raw({"content": "Yes."}, "stop", done=False).rstrip(b"\n"),
            raw({"content": "Yes."}, "stop").replace(b"data: ", b"event: chunk\nid: 7\ndata: "),
            raw({"content": "Yes."}, "stop").replace(b'{"choices"', b'{\ndata: "choices"'),
            b"\n\n" + raw({"content": "Yes."}, "stop"),
        ],
    )
    async def test_of_other_servers_are_read_too(
        self, model: OpenAICompatible, server: Double, body: bytes
    ) -> None:
        server.next(sends(body))
        events = await collect(model, ASK)
        assert text_of(events) == "Yes."
        assert events[-1] == Finished("stop")

    @pytest.mark.parametrize("size", [1, 2, 7, 50])
    async def test_may_be_cut_anywhere(self, model: OpenAICompatible, server: Double, size: int) -> None:
        body = raw({"content": "Grüße, 世界"}, {"content": "!"}, "stop")
        server.next(sends(*(body[at : at + size] for at in range(0, len(body), size))))
        assert text_of(await collect(model, ASK)) == "Grüße, 世界!"

    @pytest.mark.parametrize(
        ("reason", "told"),
        [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("eos", "stop")],
    )
    async def test_tell_why_they_ended(
        self, model: OpenAICompatible, server: Double, reason: str, told: str
    ) -> None:
        server.next(sends(raw({"content": "Yes"}, reason)))
        assert (await collect(model, ASK))[-1] == Finished(told)

    async def test_that_refuse_are_filtered(self, model: OpenAICompatible, server: Double) -> None:
        server.next(sends(raw({"refusal": "I cannot."}, "stop")))
        assert await collect(model, ASK) == [TextDelta("I cannot."), Finished("content_filter")]

    async def test_may_come_all_at_once(self, model: OpenAICompatible, server: Double) -> None:
        server.next(whole("Yes.", calls=[Calls("c1", "weather", ["{}"])], tokens=(3, 4)))
        assert await collect(model, ASK) == [
            TextDelta("Yes."),
            ToolCallDelta("c1", "weather", "{}"),
            ToolCall("c1", "weather", "{}"),
            Finished("tool_calls", Usage(3, 4)),
        ]

    async def test_leave_the_connection_for_the_next_one(self, server: Double) -> None:
        async with calling(server) as model:
            before = server.connections
            for _ in range(3):
                await collect(model, ASK)
            assert server.connections == before + 1


class TestToolCalls:
    async def test_that_interleave_are_put_together(self, model: OpenAICompatible, server: Double) -> None:
        calls = [Calls("c1", "weather", ['{"at":', '"Rome"}']), Calls("c2", "time", ["{", "}"])]
        server.next(says(calls=calls))
        events = await collect(model, ASK)
        assert [e for e in events if isinstance(e, ToolCallDelta)] == [
            ToolCallDelta("c1", "weather", ""),
            ToolCallDelta("c2", "time", ""),
            ToolCallDelta("c1", "weather", '{"at":'),
            ToolCallDelta("c2", "time", "{"),
            ToolCallDelta("c1", "weather", '"Rome"}'),
            ToolCallDelta("c2", "time", "}"),
        ]
        assert events[-3:-1] == [ToolCall("c1", "weather", '{"at":"Rome"}'), ToolCall("c2", "time", "{}")]
        assert events[-1] == Finished("tool_calls", Usage(7, 5))

    @pytest.mark.parametrize(
        "pieces",
        [
            # without index
            [{"id": "a", "function": {"name": "f", "arguments": "{"}}, {"function": {"arguments": "}"}}],
            # the id again and again
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
                {"index": 0, "id": "a", "function": {"arguments": "}"}},
            ],
            # empty ids and names later
            [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}},
                {"index": 0, "id": "", "function": {"name": "", "arguments": "{}"}},
            ],
            # the name after the first piece of the arguments
            [
                {"index": 0, "id": "a", "function": {"arguments": "{"}},
                {"index": 0, "function": {"name": "f", "arguments": "}"}},
            ],
            # an object instead of its JSON, or nothing
            [{"index": 0, "id": "a", "function": {"name": "f", "arguments": {}}}],
            [{"index": 0, "id": "a", "function": {"name": "f"}}],
        ],
    )
    async def test_of_other_servers_are_read_too(
        self, model: OpenAICompatible, server: Double, pieces: list[dict[str, Any]]
    ) -> None:
        server.next(sends(raw(*({"tool_calls": [piece]} for piece in pieces), "stop")))
        events = await collect(model, ASK)
        assert events[-2:] == [ToolCall("a", "f", "{}"), Finished("tool_calls")]
        deltas = [e for e in events if isinstance(e, ToolCallDelta)]
        assert "".join(e.arguments for e in deltas) in ("{}", "")
        assert {(e.id, e.name) for e in deltas} == {("a", "f")}

    async def test_that_share_an_index_are_told_by_their_ids(
        self, model: OpenAICompatible, server: Double
    ) -> None:
        calls = [{"index": 0, "id": i, "function": {"name": "f", "arguments": "{}"}} for i in ("a", "b")]
        server.next(sends(raw({"tool_calls": calls}, "tool_calls")))
        assert [e.id for e in await collect(model, ASK) if isinstance(e, ToolCall)] == ["a", "b"]

    async def test_without_an_id_get_one(self, model: OpenAICompatible, server: Double) -> None:
        server.next(sends(raw({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, "stop")))
        (call,) = [e for e in await collect(model, ASK) if isinstance(e, ToolCall)]
        assert call.id.startswith("call_")


class TestRequests:
    """The double refuses whatever the vendor's own types do not take."""

    async def sent(self, server: Double, request: ChatRequest, **given: Any) -> dict[str, Any]:
        async with calling(server, **given) as model:
            await collect(model, request)
        body: dict[str, Any] = server.calls[-1]
        return body

    async def test_ask_for_a_stream_with_usage(self, server: Double) -> None:
        body = await self.sent(server, ASK)
        assert (body["model"], body["stream"], body["stream_options"]) == (
            "double-1",
            True,
            {"include_usage": True},
        )
        assert set(body) == {"model", "messages", "stream", "stream_options"}

    async def test_carry_limits_and_extras(self, server: Double) -> None:
        request = ChatRequest(ASK.messages, max_tokens=9, temperature=0.0)
        body = await self.sent(server, request, extra_body={"seed": 3})
        assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.0, 3)

    @pytest.mark.parametrize(
        ("url", "field"),
        [
            ("https://api.openai.com/v1", "max_completion_tokens"),
            ("https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
            ("http://localhost:11434/v1", "max_tokens"),
            ("https://api.openai.com.example/v1", "max_tokens"),
        ],
    )
    async def test_name_the_limit_as_the_server_takes_it(self, url: str, field: str) -> None:
        assert usual_token_limit(url) == field

    async def test_may_name_the_limit_otherwise(self, server: Double) -> None:
        request = ChatRequest(ASK.messages, max_tokens=9)
        assert (await self.sent(server, request, token_limit="max_completion_tokens"))[
            "max_completion_tokens"
        ] == 9

    async def test_put_passages_into_the_one_system_message(self, server: Double) -> None:
        messages = [Message(Role.SYSTEM, "Be brief."), Message(Role.SYSTEM, "Be kind."), *ASK.messages]
        body = await self.sent(server, ChatRequest(messages, CONTEXT, citations=True))
        system, user = body["messages"]
        assert system["content"].startswith("Be brief.\n\nBe kind.\n\n")
        assert all(f"[{n}] " in system["content"] for n in range(1, len(CONTEXT) + 1))
        assert all(passage.text in system["content"] for passage in CONTEXT)
        assert "square brackets" in system["content"]
        assert user == {"role": "user", "content": "Why?"}

    async def test_ask_for_no_citations_unless_they_are_wanted(self, server: Double) -> None:
        body = await self.sent(server, ChatRequest(ASK.messages, CONTEXT))
        assert "square brackets" not in body["messages"][0]["content"]

    async def test_tell_tools_calls_and_results(self, server: Double) -> None:
        call = ToolCall("c1", "weather", '{"at": "Rome"}')
        messages = [
            *ASK.messages,
            Message(Role.ASSISTANT, "", tool_calls=(call,)),
            Message(Role.TOOL, "Sunny", tool_call_id="c1"),
        ]
        body = await self.sent(server, ChatRequest(messages, tools=[WEATHER], parallel_tool_calls=False))
        assert body["messages"][1:] == [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": call.arguments},
                    }
                ],
            },
            {"role": "tool", "content": "Sunny", "tool_call_id": "c1"},
        ]
        assert body["tools"][0]["function"]["name"] == "weather"
        assert body["parallel_tool_calls"] is False

    @pytest.mark.parametrize(
        ("choice", "sent"),
        [
            (ToolChoice.AUTO, None),
            (ToolChoice.NONE, "none"),
            (ToolChoice.REQUIRED, "required"),
            (WEATHER, {"type": "function", "function": {"name": "weather"}}),
        ],
    )
    async def test_tell_which_tool_is_wanted(
        self, server: Double, choice: ToolChoice | ToolDefinition, sent: Any
    ) -> None:
        body = await self.sent(server, ChatRequest(ASK.messages, tools=[WEATHER], tool_choice=choice))
        assert body.get("tool_choice") == sent

    @pytest.mark.parametrize(
        ("changes", "strict"),
        [
            ({}, True),
            ({"additionalProperties": True}, False),
            ({"required": []}, False),
            ({"minProperties": 1}, False),
            ({"properties": {"a": {"type": "object"}}}, False),
            ({"properties": {"a": {"type": "array", "items": {"type": "string"}}}}, True),
            ({"properties": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}]}}, "$defs": {}}, True),
        ],
    )
    async def test_ask_for_json_strictly_where_servers_can(
        self, server: Double, changes: dict[str, Any], strict: bool
    ) -> None:
        schema = {
            "type": "object",
            "properties": {"a": {"type": "string"}},
            "required": ["a"],
            "additionalProperties": False,
        } | changes
        body = await self.sent(server, ChatRequest(ASK.messages, response_schema=schema))
        assert body["response_format"]["json_schema"] == {
            "name": "answer",
            "schema": schema,
            "strict": strict,
        }


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            *((400, "bad_request"), (401, "auth"), (403, "auth"), (404, "bad_request"), (408, "timeout")),
            *((409, "server_error"), (413, "bad_request"), (422, "bad_request"), (429, "rate_limit")),
            *((500, "server_error"), (502, "server_error"), (503, "server_error"), (504, "timeout")),
            *((529, "server_error"), (302, "bad_request")),
        ],
    )
    async def test_of_the_server_have_a_code_and_its_words(
        self, model: OpenAICompatible, server: Double, status: int, code: str
    ) -> None:
        server.next(fails(status, f"because of {KEY}", Location="https://other.example/"))
        error = await failure(model)
        assert error.code == code
        assert f"vendor answered {status}" in error.message
        assert "because of …" in error.message or "correct the base URL" in error.message

    @pytest.mark.parametrize(
        ("headers", "wait_s"),
        [
            ({"Retry_After": "2"}, 2),
            ({"Retry_After": "1", "Retry_After_Ms": "250"}, 0.25),
            ({"Retry_After": "Thu, 01 Jan 2015 00:00:00 GMT"}, 0),
            ({"Retry_After": "-5"}, 0),
            ({"Retry_After": "1e300"}, 3600),
            ({"Retry_After": "nan"}, None),
            ({"Retry_After": "soon"}, None),
            ({}, None),
        ],
    )
    async def test_of_haste_tell_how_long_to_wait(
        self, model: OpenAICompatible, server: Double, headers: dict[str, str], wait_s: float | None
    ) -> None:
        server.next(fails(429, **headers))
        assert (await failure(model)).retry_after_s == wait_s

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b'{"error": {"message": "over"}}', "503 Service Unavailable: over"),
            (b'{"error": "over"}', "503 Service Unavailable: over"),
            (b'{"detail": "over"}', "503 Service Unavailable: over"),
            (b'[{"error": {"message": "over"}}]', "503 Service Unavailable: over"),
            (b'{"detail": [{"loc": ["x"]}]}', 'Unavailable: [{"loc": ["x"]}]'),
            (b"over\nand out", "503 Service Unavailable: over and out"),
            (b"<html>over</html>", "503 Service Unavailable"),
            (b"", "503 Service Unavailable"),
            (b"\xff" * 100_000, "503 Service Unavailable: "),
        ],
    )
    async def test_quote_the_server_however_it_speaks(
        self, model: OpenAICompatible, server: Double, body: bytes, said: str
    ) -> None:
        async def script(exchange: Exchange) -> None:
            await exchange.answer(503, body)

        server.next(script)
        message = (await failure(model)).message
        assert said in message
        assert len(message) < 600

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            ({"message": "over", "code": 429}, "rate_limit"),
            ({"message": "over", "code": "rate_limit_exceeded"}, "rate_limit"),
            ({"message": "over", "type": "invalid_request_error", "code": None}, "bad_request"),
            ({"message": "over", "code": "502"}, "server_error"),
            ("over", "server_error"),
        ],
    )
    async def test_amid_an_answer_are_told(
        self, model: OpenAICompatible, server: Double, error: Any, code: str
    ) -> None:
        server.next(fails_amid("Half", error=error))
        found = await failure(model)
        assert (found.code, found.message) == (code, "vendor broke off its answer: over")

    async def test_by_breaking_off_are_told(self, model: OpenAICompatible, server: Double) -> None:
        server.next(breaks_off("Half"))
        found = await failure(model)
        assert (found.code, "vendor broke off" in found.message) == ("server_error", True)

    async def test_by_ending_too_early_are_told(self, model: OpenAICompatible, server: Double) -> None:
        server.next(sends(raw({"content": "Half"}, done=False)))
        assert (await failure(model)).message == "vendor broke off before its answer was finished"

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"hello", b"<!doctype html><title>x</title>", b"{}", b'{"choices": []}', b"{", b"[]"),
            *(b"data: {\n\n", b"data: 1\n\n", b"data: [DONE]\n\n", b'data: {"choices": "x"}\n\n'),
            *(b'data: {"choices": [{"delta": "x"}]}\n\n', b'data: {"choices": [1]}\n\n'),
            *(b'data: {"choices": [{"delta": {"tool_calls": "x"}}]}\n\n', b"data: " + b"x" * 2**17),
            *(
                b'{"choices": [{"message": {"content": 7}}]}',
                b'data: {"choices": [{"delta": {"content": 7}}]}\n\n',
            ),
        ],
    )
    async def test_to_speak_the_protocol_are_told(
        self, model: OpenAICompatible, server: Double, body: bytes
    ) -> None:
        server.next(sends(body))
        found = await failure(model)
        assert (found.code, found.message.startswith("vendor gave no answer of its protocol")) == (
            "server_error",
            True,
        )

    async def test_to_be_reached_are_told(self, server: Double) -> None:
        async with way_out() as closed:
            endpoint = Endpoint("vendor", server.base_url, closed, LIMITS, SecretStr(KEY))
            found = await failure(OpenAICompatible(endpoint, "m"))
        assert (found.code, "may not be called" in found.message) == ("bad_request", True)

    async def test_to_answer_in_time_are_told(self, server: Double) -> None:
        server.next(hangs("Half"))
        limits = Limits(idle_s=0.05)
        async with way_out("127.0.0.1") as egress:
            endpoint = Endpoint("vendor", server.base_url, egress, limits, SecretStr(KEY))
            found = await failure(OpenAICompatible(endpoint, "m"))
        assert found.code == "timeout"


class TestClosing:
    async def test_the_stream_closes_the_connection(self, model: OpenAICompatible, server: Double) -> None:
        server.next(hangs("Well"))
        left = server.left
        stream = cast(AsyncGenerator[ChatEvent], model.stream(ASK))
        assert await anext(stream) == TextDelta("Well")
        await stream.aclose()
        await server.until_left(left + 1)

    @pytest.mark.parametrize("deltas", [(), ("Well",)])
    async def test_by_cancelling_closes_the_connection(
        self, model: OpenAICompatible, server: Double, deltas: tuple[str, ...]
    ) -> None:
        server.next(hangs(*deltas))
        left, asked = server.left, len(server.calls)
        task = asyncio.create_task(collect(model, ASK))
        async with asyncio.timeout(10):
            while len(server.calls) == asked or server.open == 0:
                await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until_left(left + 1)

    async def test_does_not_wait_for_a_server_that_does_not_end(
        self, model: OpenAICompatible, server: Double
    ) -> None:
        async def endless(exchange: Exchange) -> None:
            await exchange.send(raw({"content": "Yes."}, "stop"))
            await exchange.wait(None)

        server.next(endless)
        assert text_of(await collect(model, ASK)) == "Yes."


class TestModels:
    async def test_are_listed(self, server: Double) -> None:
        async with way_out("127.0.0.1") as egress:
            endpoint = Endpoint("vendor", server.base_url, egress, LIMITS, SecretStr(KEY))
            assert await list_models(endpoint) == ["double-1"]

    async def test_of_who_has_no_key_are_refused(self, server: Double) -> None:
        async with way_out("127.0.0.1") as egress:
            with pytest.raises(ModelError, match="vendor answered 401"):
                await list_models(Endpoint("vendor", server.base_url, egress, LIMITS))
