"""LISTEN: hints from other processes, over a connection of its own that is opened again when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from sqlalchemy import make_url

from app.core.outages import Outage

logger = structlog.get_logger(__name__)

_AGAIN_S = 0.2
_LONGEST_AGAIN_S = 5.0
_ASK_EVERY_S = 15.0
_ANSWER_S = 5.0

Handler = Callable[[str], object]
"""Takes the payload; an empty one means that anything may have happened."""


@dataclass(slots=True)
class Listener:
    """`url` leads to the database itself: a transaction pooler passes no notices on.

    `heard(True)` is called when notices arrive from now on, `heard(False)` when they may be missed.
    """

    url: str
    handlers: Mapping[str, Handler]
    heard: Callable[[bool], object]

    async def listen_forever(self) -> None:
        """Listens until it is cancelled."""
        outage = Outage(logger, "not_listening", _AGAIN_S, _LONGEST_AGAIN_S)
        while True:
            pause_s = _AGAIN_S
            try:
                await self._listen(outage)
            except Exception as error:
                pause_s = outage.failed(error)
            finally:
                self.heard(False)
            await asyncio.sleep(pause_s)

    async def _listen(self, outage: Outage) -> None:
        """Until the connection breaks."""
        url = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(url, timeout=_ANSWER_S)
        try:
            closed = asyncio.Event()
            connection.add_termination_listener(lambda _: closed.set())
            for channel in self.handlers:
                await connection.add_listener(channel, self._hear)
            self.heard(True)
            outage.over()
            for handle in self.handlers.values():
                handle("")  # nobody told us what happened before
            while not closed.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ASK_EVERY_S):
                        await closed.wait()
                if not closed.is_set():
                    await connection.execute("SELECT 1", timeout=_ANSWER_S)
        finally:
            connection.terminate()

    def _hear(self, _connection: Any, _pid: int, channel: str, payload: Any) -> None:
        self.handlers[channel](str(payload))
