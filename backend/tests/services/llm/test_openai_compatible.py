"""The provider `openai_compatible` against a real server: what it sends, and what it takes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from app.agent.core.interfaces import (
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
from app.services.llm.openai_compatible import Endpoint, OpenAICompatible, list_models, usual_token_limit
from tests.chat_completions import Calls
from tests.core.peers import way_out
from tests.openai_compatible_double import (
    Double,
    says,
    sends,
    whole,
)
from tests.services.llm.calling import ASK, KEY, LIMITS, calling, model, raw, server
from tests.services.llm.chat_model_conformance import CONTEXT, ChatModelConformance, collect, text_of

__all__ = ["model", "server"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

WEATHER = ToolDefinition("weather", "Tells the weather.", {"type": "object", "properties": {}})


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


class TestModels:
    async def test_are_listed(self, server: Double) -> None:
        async with way_out("127.0.0.1") as egress:
            endpoint = Endpoint("vendor", server.base_url, egress, LIMITS, SecretStr(KEY))
            assert await list_models(endpoint) == ["double-1"]

    async def test_of_who_has_no_key_are_refused(self, server: Double) -> None:
        async with way_out("127.0.0.1") as egress:
            with pytest.raises(ModelError, match="vendor answered 401"):
                await list_models(Endpoint("vendor", server.base_url, egress, LIMITS))
