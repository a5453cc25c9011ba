"""`orrery worker --runs`: a process that executes runs nobody waits for, beside the API's."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

import structlog

from app.cli.following import WORKER_ID
from app.cli.stopping import Stop
from app.core.config import Settings
from app.db.failures import explained
from app.resources import open_resources, process_name

logger = structlog.get_logger(__name__)


async def work_on_runs(settings: Settings, *, database_url: str, redis_url: str) -> None:
    """Takes up background runs, and those of dead processes, until SIGTERM or SIGINT.

    What is not done by then goes back into the queue.

    Raises:
        Misconfigured: the database cannot be used; says what to do.
    """
    child = os.environ.get(WORKER_ID)
    stop = Stop(forcible=child is None)
    with stop.listening():
        try:
            async with AsyncExitStack() as stack:
                with explained(database_url, setting="ORRERY_DATABASE_URL"):
                    opening = open_resources(
                        settings,
                        database_url=database_url,
                        redis_url=redis_url,
                        wake=_nobody,
                        owner=child or process_name(settings),
                    )
                    executor = (await stack.enter_async_context(opening)).executor
                await stack.enter_async_context(executor.running())
                stop.started()
                logger.info("ready", runs_at_once=executor.claim_concurrency)
                await stop.begun.wait()
        except asyncio.CancelledError:
            if not stop.begun.is_set():
                raise


async def _nobody(_: str) -> None:
    """Runs put nothing into queues of documents."""
