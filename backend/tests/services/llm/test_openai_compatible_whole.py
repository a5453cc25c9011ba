"""The provider `openai_compatible` with a model that does not stream: one answer, the same events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from app.agent.core.interfaces import (
    Capability,
    ChatRequest,
    Finished,
    ModelError,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from app.core.egress import Limits
from app.services.llm.openai_compatible import Endpoint, OpenAICompatible
from tests.chat_completions import Calls
from tests.core.peers import way_out
from tests.openai_compatible_double import Double, breaks_off, fails, fails_amid, hangs, says, sends
from tests.services.llm.calling import ASK, KEY, calling, server
from tests.services.llm.chat_model_conformance import ChatModelConformance, collect, text_of

__all__ = ["server"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

WITHOUT = frozenset({Capability.TOOLS, Capability.STRUCTURED_OUTPUT})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def model(server: Double) -> AsyncIterator[OpenAICompatible]:
    async with calling(server, capabilities=WITHOUT) as made:
        yield made


@asynccontextmanager
async def limited(server: Double, **limits: Any) -> AsyncIterator[OpenAICompatible]:
    async with way_out("127.0.0.1") as egress:
        endpoint = Endpoint("vendor", server.base_url, egress, Limits(**limits), SecretStr(KEY))
        yield OpenAICompatible(endpoint, "double-1", capabilities=WITHOUT)


async def failure(model: OpenAICompatible) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await collect(model, ASK)
    assert KEY not in caught.value.message
    return caught.value


class TestConformance(ChatModelConformance):
    pass


class TestAnswers:
    async def test_are_not_asked_for_as_a_stream(self, model: OpenAICompatible, server: Double) -> None:
        await collect(model, ASK)
        assert server.calls[-1]["stream"] is False
        assert "stream_options" not in server.calls[-1]

    async def test_make_the_events_of_a_stream(self, model: OpenAICompatible, server: Double) -> None:
        calls = [Calls("c1", "weather", ['{"at":', '"Rome"}']), Calls("c2", "time", ["{}"])]
        server.next(says("Let me ", "see.", calls=calls, tokens=(8, 3)))
        assert await collect(model, ASK) == [
            TextDelta("Let me see."),
            ToolCallDelta("c1", "weather", '{"at":"Rome"}'),
            ToolCallDelta("c2", "time", "{}"),
            ToolCall("c1", "weather", '{"at":"Rome"}'),
            ToolCall("c2", "time", "{}"),
            Finished("tool_calls", Usage(8, 3)),
        ]

    @pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
    async def test_tell_why_they_ended(self, model: OpenAICompatible, server: Double, reason: str) -> None:
        server.next(says("Yes", reason=reason, tokens=None))
        assert (await collect(model, ASK))[-1] == Finished(reason)

    async def test_that_refuse_are_filtered(self, model: OpenAICompatible, server: Double) -> None:
        choice = {"message": {"role": "assistant", "refusal": "I cannot."}, "finish_reason": "stop"}
        server.next(sends(json.dumps({"choices": [choice]}).encode(), content_type="application/json"))
        assert await collect(model, ASK) == [TextDelta("I cannot."), Finished("content_filter")]

    async def test_may_be_json_that_a_schema_asked_for(self, model: OpenAICompatible, server: Double) -> None:
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
        server.next(says("{}"))
        assert text_of(await collect(model, ChatRequest(ASK.messages, response_schema=schema))) == "{}"
        assert server.calls[-1]["response_format"]["json_schema"]["schema"] == schema

    async def test_that_come_as_a_stream_all_the_same_are_read(self, server: Double) -> None:
        async with calling(server, capabilities=WITHOUT, extra_body={"stream": True}) as model:
            server.next(says("Be", "cause."))
            assert text_of(await collect(model, ASK)) == "Because."

    async def test_leave_the_connection_for_the_next_one(self, server: Double) -> None:
        async with calling(server, capabilities=WITHOUT) as model:
            before = server.connections
            for _ in range(3):
                await collect(model, ASK)
            assert server.connections == before + 1


class TestFailures:
    @pytest.mark.parametrize(("status", "code"), [(400, "bad_request"), (401, "auth"), (503, "server_error")])
    async def test_of_the_server_have_a_code_and_its_words(
        self, model: OpenAICompatible, server: Double, status: int, code: str
    ) -> None:
        server.next(fails(status, f"because of {KEY}"))
        error = await failure(model)
        assert error.code == code
        assert "because of …" in error.message

    async def test_of_haste_tell_how_long_to_wait(self, model: OpenAICompatible, server: Double) -> None:
        server.next(fails(429, Retry_After="2"))
        assert (await failure(model)).retry_after_s == 2

    async def test_told_under_a_200_are_failures(self, model: OpenAICompatible, server: Double) -> None:
        server.next(fails_amid(error={"message": f"over, {KEY}", "code": 429}))
        error = await failure(model)
        assert (error.code, "answered with an error: over, …" in error.message) == ("rate_limit", True)

    async def test_by_breaking_off_are_told(self, model: OpenAICompatible, server: Double) -> None:
        server.next(breaks_off("Half of it"))
        error = await failure(model)
        assert (error.code, "broke off" in error.message) == ("server_error", True)

    @pytest.mark.parametrize("body", [b"", b"hello", b"<html></html>", b"{}", b'{"choices": []}', b"{"])
    async def test_to_speak_the_protocol_are_told(
        self, model: OpenAICompatible, server: Double, body: bytes
    ) -> None:
        server.next(sends(body, content_type="application/json"))
        error = await failure(model)
        assert (error.code, "gave no answer of its protocol" in error.message) == ("server_error", True)


class TestLimits:
    async def test_let_an_answer_take_its_time_before_its_first_byte(self, server: Double) -> None:
        server.next(says("Well", every_s=0.15))
        async with limited(server, first_byte_s=0.05, total_s=20) as model:
            assert text_of(await collect(model, ASK)) == "Well"

    @pytest.mark.parametrize(
        ("deltas", "limits"), [((), {"total_s": 0.05}), (("Half of it",), {"idle_s": 0.05})]
    )
    async def test_of_time_hold(
        self, server: Double, deltas: tuple[str, ...], limits: dict[str, float]
    ) -> None:
        server.next(hangs(*deltas))
        async with limited(server, **limits) as model:
            assert (await failure(model)).code == "timeout"

    async def test_of_size_hold(self, server: Double) -> None:
        server.next(says("x" * 5000))
        async with limited(server, max_bytes=4096) as model:
            error = await failure(model)
        assert (error.code, "more than 4096 bytes" in error.message) == ("bad_request", True)


class TestCancelling:
    @pytest.mark.parametrize("deltas", [(), ("Half of it",)])
    async def test_closes_the_connection(
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
