"""A further API process of a running platform, whose offline model writes at a fixed pace.

The user message is the number of tokens to write; the pace in seconds is the first argument.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from app.agent.core.interfaces import Capability, ChatEvent, ChatRequest, Finished, TextDelta, Usage
from benchmarks.serving import serve
from main import create_app

TOKEN = "token "  # noqa: S105  (a word, not a secret)


class Paced:
    """`ChatModel` that costs next to nothing."""

    name = "local/paced"
    capabilities = frozenset({Capability.STREAMING})

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        count = int(request.messages[-1].content)
        for _ in range(count):
            await asyncio.sleep(self._pace_s)
            yield TextDelta(TOKEN)
        yield Finished("stop", Usage(1, count))


if __name__ == "__main__":
    app = create_app()
    paced = Paced(float(sys.argv[1]))
    serve(app, started=lambda: app.state.resources.providers.update(local=lambda model: paced))
