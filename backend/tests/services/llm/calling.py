"""A provider `openai_compatible` that calls a double on loopback: fixtures `server` and `model`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest_asyncio
from pydantic import SecretStr

from app.agent.core.interfaces import ChatRequest, Message, Role
from app.core.egress import Limits
from app.services.llm.openai_compatible import Endpoint, OpenAICompatible
from tests.core.peers import way_out
from tests.openai_compatible_double import Double, Exchange, double, says

NAMED = "model 'careful' (vendor/double-1)"
"""How messages name the model."""
KEY = "sk-canary-provider-c0ffee42"
ASK = ChatRequest([Message(Role.USER, "Why?")])
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
        endpoint = Endpoint("vendor", server.base_url, egress, LIMITS, SecretStr(KEY), slug="careful")
        yield OpenAICompatible(endpoint, "double-1", **given)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def model(server: Double) -> AsyncIterator[OpenAICompatible]:
    async with calling(server) as made:
        yield made


def raw(*chunks: Any, done: bool = True) -> bytes:
    """Chunks as a server of no vendor sends them: each the delta, or the finish reason, of one choice."""
    choices = [{"finish_reason": c} if isinstance(c, str) else {"delta": c} for c in chunks]
    lines = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()
