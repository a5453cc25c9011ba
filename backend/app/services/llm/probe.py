"""One tiny call of a chat model, to see whether it answers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from app.agent.core.interfaces import (
    ChatModel,
    ChatRequest,
    Finished,
    Message,
    ModelError,
    Role,
    TextDelta,
    Usage,
)

_REQUEST = ChatRequest([Message(Role.USER, "Reply with the single word: ready")], max_tokens=256)
"""With room for models that think before they speak."""


@dataclass(frozen=True, slots=True)
class Fault:
    code: str
    message: str


@dataclass(slots=True)
class Probe:
    """How it went, so far; times in milliseconds."""

    model: str | None = None
    text: str = ""
    first_text_ms: float | None = None
    duration_ms: float = 0
    usage: Usage | None = None
    error: Fault | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


async def probe(model: ChatModel, *, timeout_s: float) -> Probe:
    """Asks `model`; whatever goes wrong is part of the result."""
    found, began = Probe(model.name), time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            await _listen(model, found, began)
    except ModelError as error:
        found.error = Fault(error.code, error.message)
    except TimeoutError:
        found.error = Fault("timeout", f"no answer within {timeout_s:g} s")
    found.duration_ms = _since(began)
    return found


async def _listen(model: ChatModel, found: Probe, began: float) -> None:
    async for event in model.stream(_REQUEST):
        match event:
            case TextDelta():
                found.first_text_ms = found.first_text_ms or _since(began)
                found.text += event.text
            case Finished():
                found.usage = event.usage


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
