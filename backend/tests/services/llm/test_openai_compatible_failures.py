"""How calls of the provider `openai_compatible` fail, and how they are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from pydantic import SecretStr

from app.agent.core.interfaces import (
    ChatEvent,
    ModelError,
    TextDelta,
)
from app.core.egress import Limits
from app.services.llm.openai_compatible import Endpoint, OpenAICompatible
from tests.core.peers import nobody_listening, way_out
from tests.openai_compatible_double import (
    Double,
    Exchange,
    breaks_off,
    fails,
    fails_amid,
    hangs,
    sends,
)
from tests.services.llm.calling import ASK, KEY, LIMITS, NAMED, model, raw, server
from tests.services.llm.chat_model_conformance import collect, text_of

__all__ = ["model", "server"]

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def failure(model: OpenAICompatible) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await collect(model, ASK)
    assert KEY not in caught.value.message
    return caught.value


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
        place = f" at {server.base_url}" if status in (302, 404) else ""
        assert error.message.startswith(f"{NAMED}{place} answered {status}")
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
        assert (found.code, found.message) == (code, f"{NAMED} broke off its answer: over")

    async def test_by_breaking_off_are_told(self, model: OpenAICompatible, server: Double) -> None:
        server.next(breaks_off("Half"))
        found = await failure(model)
        assert found.code == "server_error"
        assert found.message.startswith(f"{NAMED} at {server.base_url} broke off its answer: ")

    async def test_by_ending_too_early_are_told(self, model: OpenAICompatible, server: Double) -> None:
        server.next(sends(raw({"content": "Half"}, done=False)))
        assert (await failure(model)).message == f"{NAMED} broke off before its answer was finished"

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
        assert found.code == "server_error"
        assert found.message.startswith(f"{NAMED} at {server.base_url} gave no answer of its protocol: ")

    @pytest.mark.parametrize(
        "around",
        [
            *(b"data: %s\n\n", b'data: ["%s"]\n\n', b'data: {"choices": ["%s"]}\n\n', b"{%s"),
            b'{"choices": ["%s"]}',
        ],
    )
    @pytest.mark.parametrize("before", [60, 75, 85])
    async def test_quote_no_piece_of_the_key_where_they_are_cut(
        self, model: OpenAICompatible, server: Double, around: bytes, before: int
    ) -> None:
        server.next(sends(around % (b"x" * before + KEY.encode())))
        message = (await failure(model)).message
        assert "x…" in message
        assert KEY[:5] not in message

    async def test_to_be_reached_are_told(self, server: Double) -> None:
        async with way_out() as closed:
            endpoint = Endpoint("vendor", server.base_url, closed, LIMITS, SecretStr(KEY))
            found = await failure(OpenAICompatible(endpoint, "m"))
        assert (found.code, "may not be called" in found.message) == ("bad_request", True)

    async def test_to_be_there_name_model_base_url_host_and_port(self) -> None:
        async with way_out("127.0.0.1") as egress:
            with nobody_listening() as port:
                url = f"http://127.0.0.1:{port}/v1"
                found = await failure(OpenAICompatible(Endpoint("vendor", url, egress, LIMITS), "m"))
        assert (found.code, found.message) == (
            "server_error",
            f"vendor/m at {url} gave no answer: No connection to '127.0.0.1:{port}' could be made: "
            "it refused, or cannot be reached.",
        )

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
