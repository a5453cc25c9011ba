"""The one task: drain a queue. One event loop and one set of resources per worker process."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from celery import signals
from celery.exceptions import CPendingDeprecationWarning

from app.core.config import get_settings
from app.core.logging import configure_logging
from app.core.processes import die_with_parent
from app.resources import demanded, process_name
from app.services.job_service import Drain
from app.workers.celery_app import app, configure_from_settings, wake
from app.workers.job_manager import open_drain


class WorkerProcess:
    """One event loop and what is open in it; closed when the process ends."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.stack = AsyncExitStack()
        try:
            self.drain = self.runner.run(self._open())
        except BaseException:
            self.close()
            raise

    async def _open(self) -> Drain:
        settings = get_settings()
        return await self.stack.enter_async_context(
            open_drain(
                settings,
                database_url=demanded(settings.database_url, "ORRERY_DATABASE_URL"),
                redis_url=demanded(settings.redis_url, "ORRERY_REDIS_URL"),
                wake=wake,
                owner=os.environ.get("ORRERY_WORKER_ID") or process_name(settings),
            )
        )

    def close(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()


_process: WorkerProcess | None = None


@signals.celeryd_init.connect
def _configure(**_: Any) -> None:
    configure_from_settings()


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    configure_logging(get_settings())


@signals.celeryd_after_setup.connect
def _no_advice(**_: Any) -> None:
    """At each loss of Redis Celery advises to end what is being worked on, by an option that would cost an
    attempt: the work is held by a lease in PostgreSQL, and outlives its message."""
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)


@signals.worker_process_init.connect
def _begin(**_: Any) -> None:
    die_with_parent()
    gc.freeze()  # what was loaded before the fork stays: see `core.garbage`
    _opened()


def _opened() -> WorkerProcess:
    """Opened when the process begins, or by the next task where the database was away then."""
    global _process
    if _process is None:
        _process = WorkerProcess()
    return _process


@signals.worker_process_shutdown.connect
def _close(**_: Any) -> None:
    if _process is not None:
        _process.close()


@app.task(name="drain")
def drain(queue: str) -> None:
    """Works `queue` off. Messages may come twice or not at all; what is due is in the database."""
    process = _opened()
    process.runner.run(process.drain.run(queue))
