"""A model that talks slowly: the question says how many words, and how far apart, it is to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from tests.openai_compatible_double import Double, Exchange, says

_PATIENCE_S = 60


def question(words: int, *, every_s: float) -> dict[str, str]:
    """The input of an agent whose model is to answer so many words."""
    return {"name": f"{words} {every_s}"}


def answer(words: int) -> str:
    """What it then says."""
    return "".join(_words(words))


def _words(count: int) -> list[str]:
    return [f"word-{number} " for number in range(count)]


@dataclass(slots=True)
class Talker:
    """The script that answers `question`; a plain text gets three words at once.

    It speaks once `crowd` questions wait for it, so that they are answered side by side.
    """

    crowd: int = 1
    here: list[asyncio.Event] = field(default_factory=list)

    async def __call__(self, exchange: Exchange) -> None:
        await self._all_here()
        asked = str(exchange.received.body["messages"][-1]["content"]).split()
        words, every_s = (int(asked[0]), float(asked[1])) if len(asked) == 2 else (3, 0)
        await says(*_words(words), every_s=every_s)(exchange)

    async def _all_here(self) -> None:
        complete = asyncio.Event()
        self.here.append(complete)
        if len(self.here) >= self.crowd:
            for waiting in self.here:
                waiting.set()
            self.here.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(complete.wait(), _PATIENCE_S)


def model_settings(model: Double) -> Mapping[str, str]:
    """Makes it the model that every project has."""
    return {
        "ORRERY_OPENAI_BASE_URL": model.base_url,
        "ORRERY_DEFAULT_CHAT_MODEL": f"openai/{model.models[0]}",
    }
