"""How a process comes to its end: asked by a signal once, forced by a second one, or for a reason."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.core.errors import AppError

logger = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Stop:
    """Set `begun` says that the end has begun; the API reads it, too. `reason`: why, if nobody asked.

    `forcible`: whether a second signal ends the process at once. Not that of a child, which a signal to all
    processes of a service reaches twice: from its sender, and from the parent.
    """

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    reason: AppError | None = None
    starting: asyncio.Task[Any] | None = None
    forcible: bool = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals reach this stop inside the block, and `starting` is the task that they interrupt."""
        loop = asyncio.get_running_loop()
        self.starting = asyncio.current_task()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def for_reason(self, reason: AppError) -> None:
        """Begins the end because something cannot go on."""
        if self.reason is None and not self.begun.is_set():
            self.reason = reason
            self._begin()

    def started(self) -> None:
        """From now on the end is orderly: what listens to `begun` ends itself."""
        self.starting = None

    def _signalled(self, number: signal.Signals) -> None:
        if self.begun.is_set():
            if self.forcible:
                self._force(number)
            return
        logger.info("stopping", signal=number.name)
        self._begin()

    def _begin(self) -> None:
        self.begun.set()
        if self.starting is not None:
            self.starting.cancel()

    def _force(self, number: signal.Signals) -> None:
        """Ends the process now. The kernel stops its children; the next start takes up what they held."""
        sys.stderr.write("Stopped at once; the next start takes up what was in work.\n")
        sys.stderr.flush()
        os._exit(128 + number)
