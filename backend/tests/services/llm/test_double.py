"""The double speaks the protocol: the vendor's own client is content with it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI, AuthenticationError, RateLimitError
from openai.types.chat import ChatCompletionUserMessageParam

from tests.chat_completions import Calls
from tests.openai_compatible_double import Double, double, fails, says

ASK: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Why?"}]


@pytest.fixture
async def server() -> AsyncIterator[Double]:
    async with double(says("Be", "cause.", tokens=(4, 2)), key="sk-right") as made:
        yield made


@pytest.fixture
async def client(server: Double) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.base_url, api_key="sk-right", max_retries=0) as made:
        yield made


class TestVendorClient:
    async def test_reads_a_stream_with_usage(self, client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="m", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(text) == "Because."
        assert chunks[-1].usage is not None
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (4, 2)

    async def test_reads_an_answer_that_is_not_streamed(self, client: AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(model="m", messages=ASK)
        assert answer.choices[0].message.content == "Because."

    async def test_puts_tool_calls_together(self, client: AsyncOpenAI, server: Double) -> None:
        server.next(says(calls=[Calls("c1", "one", ['{"a"', ":1}"]), Calls("c2", "two", ["{}"])]))
        async with client.chat.completions.stream(model="m", messages=ASK) as stream:
            message = (await stream.get_final_completion()).choices[0].message
        made = [call.function for call in message.tool_calls or () if call.type == "function"]
        assert [(call.name, call.arguments) for call in made] == [("one", '{"a":1}'), ("two", "{}")]

    async def test_takes_failures_for_what_they_are(self, client: AsyncOpenAI, server: Double) -> None:
        server.next(fails(429, "slow down", Retry_After="1"))
        with pytest.raises(RateLimitError, match="slow down") as caught:
            await client.chat.completions.create(model="m", messages=ASK)
        assert caught.value.response.headers["retry-after"] == "1"
        with pytest.raises(AuthenticationError):
            await client.with_options(api_key="sk-wrong").models.list()

    async def test_lists_the_models(self, client: AsyncOpenAI) -> None:
        assert [model.id async for model in client.models.list()] == ["double-1"]
