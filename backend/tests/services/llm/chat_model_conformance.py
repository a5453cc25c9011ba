"""What every `ChatModel` must do: a provider's tests inherit `ChatModelConformance`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import cast
from uuid import UUID

from app.agent.core.interfaces import (
    ChatEvent,
    ChatModel,
    ChatRequest,
    Citation,
    Finished,
    Message,
    Passage,
    Role,
    TextDelta,
)

QUESTION = "Within how many days can an item be returned?"
TEXTS = [
    "Our shop was founded in 1998. An item can be returned within 30 days of delivery. It must be unused.",
    "Parcels are sent from Hamburg. Express parcels arrive the next day.",
]


def passage(text: str, *, title: str = "", start: int = 0, number: int = 1) -> Passage:
    ids = UUID(int=number), UUID(int=1000 + number)
    return Passage(
        *ids, title=title, text=text, start=start, end=start + len(text), score=1 / number, page=number
    )


def request(
    question: str = QUESTION, *context: Passage, citations: bool = True, max_tokens: int | None = None
) -> ChatRequest:
    return ChatRequest(
        (Message(Role.USER, question),), context=context, citations=citations, max_tokens=max_tokens
    )


async def collect(model: ChatModel, asked: ChatRequest) -> list[ChatEvent]:
    return [event async for event in model.stream(asked)]


def text_of(events: Sequence[ChatEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def citations_of(events: Sequence[ChatEvent]) -> list[Citation]:
    return [event for event in events if isinstance(event, Citation)]


CONTEXT = (
    passage(TEXTS[0], title="Returns", start=500),
    passage(TEXTS[1], title="Shipping", start=20, number=2),
)


class ChatModelConformance:
    """Needs a fixture `model`."""

    async def test_finishes_once_and_last(self, model: ChatModel) -> None:
        events = await collect(model, request(QUESTION, *CONTEXT))
        assert [isinstance(event, Finished) for event in events].count(True) == 1
        assert isinstance(events[-1], Finished)

    async def test_says_something(self, model: ChatModel) -> None:
        assert text_of(await collect(model, request(QUESTION, *CONTEXT))).strip()

    async def test_works_without_context(self, model: ChatModel) -> None:
        assert text_of(await collect(model, request("Good morning!"))).strip()

    async def test_counts_tokens(self, model: ChatModel) -> None:
        finished = (await collect(model, request(QUESTION, *CONTEXT)))[-1]
        assert isinstance(finished, Finished)
        assert finished.usage.input_tokens > 0
        assert finished.usage.output_tokens > 0

    async def test_stops_at_the_limit_of_tokens(self, model: ChatModel) -> None:
        finished = (await collect(model, request(QUESTION, *CONTEXT, max_tokens=3)))[-1]
        assert isinstance(finished, Finished)
        assert finished.reason == "length"
        assert finished.usage.output_tokens <= 3

    async def test_citations_point_into_the_context(self, model: ChatModel) -> None:
        for citation in citations_of(await collect(model, request(QUESTION, *CONTEXT))):
            source = CONTEXT[citation.index - 1]
            assert (citation.chunk_id, citation.document_id) == (source.chunk_id, source.document_id)
            assert citation.quote == source.text[citation.start - source.start : citation.end - source.start]

    async def test_cites_nothing_unless_asked(self, model: ChatModel) -> None:
        assert not citations_of(await collect(model, request(QUESTION, *CONTEXT, citations=False)))

    async def test_the_stream_may_be_closed_early(self, model: ChatModel) -> None:
        stream = cast(AsyncGenerator[ChatEvent], model.stream(request(QUESTION, *CONTEXT)))
        assert isinstance(await anext(stream), TextDelta)
        await stream.aclose()

    async def test_has_a_name(self, model: ChatModel) -> None:
        assert model.name
