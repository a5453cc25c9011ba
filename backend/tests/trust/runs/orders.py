"""Runs that are asked for by clients which do not give up."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.trust.runs.streams import opened

MODES = ("wait", "stream", "background")
BROKEN = (OSError, asyncio.IncompleteReadError, AssertionError)
"""What comes of a call whose process dies over it."""


@dataclass(slots=True)
class Order:
    """A run, asked for with one key until it is answered. `input` is what it is given besides its id."""

    agent: str
    input: dict[str, Any]
    mode: str
    id: str = field(default_factory=lambda: uuid4().hex)
    run_id: str = ""

    async def place(self, url: str) -> None:
        body: dict[str, Any] = {"input": {"order": self.id, **self.input}, "mode": self.mode}
        if self.mode == "wait":
            body["wait_timeout_s"] = 0.01
        path, headers = f"/agents/{self.agent}/runs", {"Idempotency-Key": self.id}
        async with opened(url, path, body=body, headers=headers) as answer:
            assert answer.status in (200, 202), await answer.text()
            if self.mode == "stream":
                self.run_id = answer.headers["location"].rpartition("/")[2]
            else:
                self.run_id = json.loads(await answer.text())["id"]

    async def place_anyhow(self, url: str) -> None:
        """Places it, unless the process dies over it."""
        with suppress(*BROKEN):
            await self.place(url)
