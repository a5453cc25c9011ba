"""`local/extractive`: a chat model without weights of its own, answering with the context's sentences."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.agent.core.interfaces import (
    Capability,
    ChatEvent,
    ChatRequest,
    Citation,
    Finished,
    ModelError,
    Passage,
    Role,
    TextDelta,
    Usage,
)
from app.core.errors import AppError
from app.rag.types import Embedder
from app.services.llm.evidence import Reading, read
from app.services.llm.ranking import choose, fits
from app.services.llm.rendering import Candidate

UNKNOWN = "I do not know: the given documents do not answer this question."
NO_CONTEXT = "I can only answer from documents, and none were given with this question."

_MAX_EMBEDDED = 256
"""Sentences embedded per answer (about 1 s of two cores); of more, those with the best words."""
_WORD = re.compile(r"\s*\S+")
_TOKEN = re.compile(r"[\u2e80-\u9fff\uac00-\ud7a3]|\w+|[^\w\s]")


class Extractive:
    """`ChatModel` that says the sentences of `request.context` which best answer the last user message.

    Sentences are weighed by embedding, BM25 and coverage of the question's words (`ranking`), at most
    four are said; where none fits, it says that it does not know. It uses no knowledge of its own, no
    earlier messages and no randomness: the same request gives the same answer. With
    `request.citations`, a marker `[n]` and a `Citation` follow each sentence; the quote is the exact
    text of the passage, of which the sentence said may be a cleaned form. Tokens, in `max_tokens` and
    in the usage, are words, ideographs and punctuation marks.
    """

    name = "local/extractive"
    capabilities = frozenset({Capability.STREAMING})

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Raises `ModelError`: `bad_request` without a user message, `server_error` if embedding fails."""
        question = _question(request)
        parts = await self._answer(question, request)
        spoken = count_tokens("".join(message.content for message in request.messages))
        spoken += sum(count_tokens(passage.text) for passage in request.context)
        said = 0
        for part in parts:
            if isinstance(part, Citation):
                yield part
                continue
            said += count_tokens(part)
            if request.max_tokens is not None and said > request.max_tokens:
                said -= count_tokens(part)
                yield Finished("length", Usage(spoken, said))
                return
            yield TextDelta(part)
        yield Finished("stop", Usage(spoken, said))

    async def _answer(self, question: str, request: ChatRequest) -> Iterator[str | Citation]:
        if not request.context:
            return _words(NO_CONTEXT)
        reading = await asyncio.to_thread(_read, question, request.context)
        cosines = await self._cosines(question, reading)
        if not fits(reading, cosines):
            return _words(UNKNOWN)
        return _spoken(choose(reading, cosines), request)

    async def _cosines(self, question: str, reading: Reading) -> NDArray[np.float32]:
        texts = [question, *(one.candidate.in_context for one in reading.evidence)]
        try:
            vectors = await self._embedder.embed(texts)
        except AppError as error:
            raise ModelError("server_error", f"The embedding model failed: {error.detail}") from error
        return np.asarray(vectors[1:] @ vectors[0], np.float32)


def count_tokens(text: str) -> int:
    """Words, ideographs and punctuation marks."""
    return len(_TOKEN.findall(text))


def _question(request: ChatRequest) -> str:
    for message in reversed(request.messages):
        if message.role is Role.USER:
            return message.content
    raise ModelError("bad_request", "The request holds no user message.")


def _read(question: str, context: Sequence[Passage]) -> Reading:
    reading = read(question, context)
    if len(reading.evidence) <= _MAX_EMBEDDED:
        return reading
    best = sorted(reading.evidence, key=lambda one: -(one.bm25 + one.coverage))[:_MAX_EMBEDDED]
    kept = {id(one) for one in best}
    return Reading(reading.language, [one for one in reading.evidence if id(one) in kept])


def _spoken(chosen: Sequence[Candidate], request: ChatRequest) -> Iterator[str | Citation]:
    """The answer word by word, each sentence with its marker and citation behind it."""
    gap = ""
    for candidate in chosen:
        block = "\n" in candidate.text
        words = _words(candidate.text)
        yield ("\n\n" if block and gap else gap) + next(words)
        yield from words
        if request.citations:
            before = "\n" if candidate.text.endswith("```") else " "
            yield f"{before}[{candidate.passage + 1}]"
            yield _citation(candidate, request.context[candidate.passage])
        gap = "\n\n" if block else " "


def _citation(candidate: Candidate, passage: Passage) -> Citation:
    start, end = candidate.span
    return Citation(
        index=candidate.passage + 1,
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        title=passage.title,
        start=passage.start + start,
        end=passage.start + end,
        quote=passage.text[start:end],
        page=passage.page_at(passage.start + start),
    )


def _words(text: str) -> Iterator[str]:
    return (match.group() for match in _WORD.finditer(text))
