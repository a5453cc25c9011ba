"""A service whose calls have effects: a real HTTP server that honours `Idempotency-Key` and keeps count."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

_KEPT_S = 60
"""Longer than callers keep a connection: one that is closed while a call is on its way fails that call."""

Step = tuple[str, str]
"""An order and what is done for it."""


@dataclass(slots=True)
class Effects:
    """`POST /{order}/{step}` has an effect, once per key, and then is answered after a pause.

    A key that was seen gets the answer of then, which follows from the step and the body alone. What its body
    wants to be refused has no effect: `"refuse": "once"` is answered 503 the first time, `"always"` 422.
    """

    lots: random.Random
    pause_s: tuple[float, float] = (0.02, 0.15)
    url: str = ""
    calls: defaultdict[Step, list[str]] = field(default_factory=lambda: defaultdict(list))
    done: dict[str, Step] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    bodies: dict[Step, str] = field(default_factory=dict)

    def count(self, step: Step) -> int:
        """How often it was called."""
        return len(self.calls.get(step, ()))

    def effects(self, order: str) -> Sequence[str]:
        """What was done for `order`, in order, each as often as it was."""
        return [step for found, step in self.done.values() if found == order]

    def keys(self, order: str) -> dict[str, set[str]]:
        """Of all calls for `order`, by step, whether they had an effect or not."""
        return {step: set(keys) for (found, step), keys in self.calls.items() if found == order}

    def told(self, order: str) -> dict[str, str]:
        """The body of each call for `order` that had an effect."""
        return {step: body for (found, step), body in self.bodies.items() if found == order}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = await _body(receive)
        if body is None:
            return
        _, order, step = scope["path"].split("/")
        key = dict(scope["headers"]).get(b"idempotency-key", b"").decode()
        self.calls[order, step].append(key)
        if not key:
            await _answer(send, 400, b'{"error": "there is no Idempotency-Key"}')
            return
        if status := _refusal(body, seen=self.calls[order, step].count(key)):
            await _answer(send, status, b'{"error": "refused"}')
            return
        if key not in self.done:
            self.done[key] = (order, step)
            self.bodies[order, step] = body.decode()
            self.answers[key] = json.dumps({"receipt": receipt(step, body)}).encode()
        await asyncio.sleep(self.lots.uniform(*self.pause_s))
        await _answer(send, 200, self.answers[key])


def receipt(step: str, body: bytes) -> str:
    """What the service answers."""
    return f"{step}-{sha256(body).hexdigest()[:16]}"


def _refusal(body: bytes, *, seen: int) -> int | None:
    match json.loads(body).get("refuse"):
        case "once" if seen == 1:
            return 503
        case "always":
            return 422
    return None


async def _body(receive: Receive) -> bytes | None:
    """None where the caller died before it had sent all of it."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def effects(lots: random.Random) -> AsyncIterator[Effects]:
    """Listens on loopback, on a free port."""
    service = Effects(lots)
    config = uvicorn.Config(
        service,
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_keep_alive=_KEPT_S,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        service.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield service
    finally:
        server.should_exit = True
        await task
