"""Chat models behind `POST {base_url}/chat/completions`: OpenAI and the many servers that speak its protocol.

Plain HTTP through the guarded way out; what vendors' SDKs add costs more per call than the rest of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.agent.core.interfaces import Capability, ChatEvent, ChatRequest
from app.core.egress import Call, Egress, Limits, ReplyStream
from app.core.errors import AppError
from app.services.llm.chat_answer import ChatAnswer, EventData, Malformed, Reported
from app.services.llm.chat_payload import payload
from app.services.llm.provider_errors import MAX_ERROR_BYTES, ProviderErrors

DEFAULT_CAPABILITIES = frozenset(
    {Capability.STREAMING, Capability.TOOLS, Capability.STRUCTURED_OUTPUT, Capability.INSTRUCTIONS}
)
_TAIL_S = 0.2
"""How long the end of the body is waited for, so that the connection can be used again."""
_NEW_LIMIT = ("api.openai.com", ".openai.azure.com", ".services.ai.azure.com")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is called. `label` is how usage names it; `limits` bound each call.

    Messages name it as the logical model `slug`, if there is one, `at` some place: the base URL if empty.
    """

    label: str
    base_url: str
    egress: Egress
    limits: Limits
    api_key: SecretStr | None = field(default=None, repr=False)
    slug: str = ""
    at: str = ""

    def errors(self, model: str) -> ProviderErrors:
        """Of calls for this model of the provider."""
        named = f"model {self.slug!r} ({model})" if self.slug else model
        return ProviderErrors(named, self.api_key, place=self.at or self.base_url)

    def patient(self) -> Endpoint:
        """For answers that come all at once: their first byte takes as long as all of it."""
        return replace(self, limits=replace(self.limits, first_byte_s=self.limits.total_s))

    def call(self, method: str, path: str, body: object = None) -> Call:
        headers = {"Accept": "text/event-stream, application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key.get_secret_value()}"
        url = f"{self.base_url}{path}"
        if body is None:
            return Call(method, url, headers, limits=self.limits, follow=False)
        return Call.with_json(method, url, body, headers=headers, limits=self.limits, follow=False)


class OpenAICompatible:
    """`ChatModel` over chat completions. Tokens are the server's; 0 where it tells none.

    `token_limit` names the field that `max_tokens` goes into: `max_completion_tokens` at OpenAI and Azure,
    whose reasoning models refuse the other one, else `max_tokens`, which all other servers know.
    `extra_body` is added to every request. Passages go into the prompt, numbered as citations name them.
    Without the capability `streaming` the server is asked for its answer all at once.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        capabilities: frozenset[Capability] = DEFAULT_CAPABILITIES,
        token_limit: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = f"{endpoint.label}/{model}"
        self.capabilities = capabilities
        self._streamed = Capability.STREAMING in capabilities
        self._endpoint = endpoint if self._streamed else endpoint.patient()
        self._model = model
        self._token_limit = token_limit or usual_token_limit(endpoint.base_url)
        self._extra_body = dict(extra_body or {})
        self._errors = endpoint.errors(self.name)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Raises `ModelError`, also for an answer that breaks off. Closing it closes the connection."""
        body = payload(request, self._model, token_limit=self._token_limit, streamed=self._streamed)
        call = self._endpoint.call("POST", "/chat/completions", body | self._extra_body)
        answer = ChatAnswer()
        with _translated(self._errors, answer):
            async with self._endpoint.egress.stream(call) as reply:
                await _refuse(reply, self._errors)
                body_of = _Body(reply.chunks(), answer, self._endpoint.limits.max_event_bytes)
                while (events := await body_of.read()) is not None:
                    for event in events:
                        yield event
            if not answer.begun:
                raise Malformed("it sent nothing of the kind; is the base URL right? Most end in '/v1'")
        if not answer.complete:
            raise self._errors.broken_off()
        for event in answer.finish():
            yield event


class _Body:
    """The body of an answer, read as the events it makes: streamed or, from some servers, all at once."""

    def __init__(self, chunks: AsyncIterator[bytes], answer: ChatAnswer, max_event_bytes: int) -> None:
        self._chunks = chunks
        self._answer = answer
        self._data = EventData(max_event_bytes)
        self._whole: list[bytes] | None = None
        self._looked = self._ended = False

    async def read(self) -> Iterable[ChatEvent] | None:
        """What the next bytes make, often nothing; None at the end."""
        if self._ended:
            return None
        piece = await anext(self._chunks, None)
        if piece is None:
            self._ended = True
            return self._last()
        if not self._looked:
            self._look(piece)
        if self._whole is not None:
            self._whole.append(piece)
            return ()
        events = self._taken(self._data.feed(piece))
        if self._answer.done:
            self._ended = True
            await self._read_tail()
        return events

    def _look(self, piece: bytes) -> None:
        """Tells by the first byte how the body comes; types of content are often wrong."""
        first = piece.lstrip(b" \t\r\n\xef\xbb\xbf")[:1]
        self._looked = bool(first)
        if first == b"<":
            raise Malformed("it sent a web page; is the base URL right? Most end in '/v1'")
        if first == b"{":
            self._whole = []

    def _taken(self, data: Iterable[bytes]) -> list[ChatEvent]:
        return [event for one in data for event in self._answer.take(one)]

    def _last(self) -> Iterable[ChatEvent]:
        if self._whole is not None:
            return self._answer.take_whole(b"".join(self._whole))
        return self._taken(self._data.end())

    async def _read_tail(self) -> None:
        with suppress(TimeoutError, AppError):
            async with asyncio.timeout(_TAIL_S):
                while await anext(self._chunks, None) is not None:
                    pass


async def list_models(endpoint: Endpoint) -> list[str]:
    """The ids that `GET {base_url}/models` tells, sorted. Raises `ModelError`."""
    errors = endpoint.errors(endpoint.label)
    with _translated(errors):
        async with endpoint.egress.stream(endpoint.call("GET", "/models")) as reply:
            await _refuse(reply, errors)
            body = b"".join([piece async for piece in reply.chunks()])
        try:
            return sorted(str(entry["id"]) for entry in json.loads(body)["data"])
        except (KeyError, TypeError, ValueError) as error:
            raise Malformed("its list of models is none") from error


def usual_token_limit(base_url: str) -> str:
    host = urlsplit(base_url).hostname or ""
    return "max_completion_tokens" if host.endswith(_NEW_LIMIT) else "max_tokens"


async def _refuse(reply: ReplyStream, errors: ProviderErrors) -> None:
    """Raises the `ModelError` of an answer that is no success, with the beginning of its body."""
    if 200 <= reply.status < 300:
        return
    body = b""
    with suppress(AppError):
        async for piece in reply.chunks():
            body += piece
            if len(body) >= MAX_ERROR_BYTES:
                break
    raise errors.of_status(reply.status, reply.headers, body[:MAX_ERROR_BYTES])


@contextmanager
def _translated(errors: ProviderErrors, answer: ChatAnswer | None = None) -> Iterator[None]:
    """What goes wrong inside, as `ModelError`."""
    try:
        yield
    except AppError as error:
        raise errors.of_transport(error, begun=_begun(answer)) from error
    except Malformed as error:
        raise errors.malformed(error.what, error.said) from error
    except Reported as error:
        raise errors.reported(error.error, begun=_begun(answer)) from error


def _begun(answer: ChatAnswer | None) -> bool:
    return answer is not None and answer.begun
