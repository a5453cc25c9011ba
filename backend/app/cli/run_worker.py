"""`orrery worker --runs`: a process that executes runs nobody waits for, beside the API's."""

from __future__ import annotations

import asyncio

import structlog

from app.cli.stopping import Stop
from app.core.config import Settings
from app.resources import open_resources, process_name

logger = structlog.get_logger(__name__)


async def work_on_runs(settings: Settings, *, database_url: str, redis_url: str) -> None:
    """Takes up background runs, and those of dead processes, until SIGTERM or SIGINT.

    What is not done by then goes back into the queue.
    """
    stop = Stop()
    with stop.listening():
        try:
            async with (
                open_resources(
                    settings,
                    database_url=database_url,
                    redis_url=redis_url,
                    wake=_nobody,
                    owner=process_name(settings),
                ) as resources,
                resources.executor.running(),
            ):
                stop.started()
                logger.info("ready", runs_at_once=resources.executor.claim_concurrency)
                await stop.begun.wait()
        except asyncio.CancelledError:
            if not stop.begun.is_set():
                raise


async def _nobody(_: str) -> None:
    """Runs put nothing into queues of documents."""
