"""The Celery worker as a child of `orrery serve`: started, restarted when it dies, stopped with it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL, SIGQUIT, SIGTERM

import structlog

from app.core.config import Settings
from app.core.constants import INGEST_QUEUE
from app.core.processes import die_with
from app.core.security import master_key
from app.core.tasks import end
from app.embedded import Services, end_processes, find_workers
from app.embedded.process import exited, stop

logger = structlog.get_logger(__name__)

QUIET = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}
"""In a worker's environment: Celery warns root of pickled messages; ours are JSON only."""
_LONGEST_PAUSE_S = 30.0
_HEALTHY_AFTER_S = 60.0


def worker_arguments(name: str) -> list[str]:
    """One process that works several items at once; more workers are more such commands."""
    flags = ["--pool", "prefork", "--concurrency", "1", "--queues", INGEST_QUEUE, "--hostname", name]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    return [
        sys.executable,
        "-m",
        "celery",
        "--quiet",
        "--app",
        "app.workers.celery_app",
        "worker",
        *flags,
        *quiet,
    ]


def worker_environment(settings: Settings, services: Services, worker_id: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "ORRERY_JWT_KEY"}
    return (
        inherited
        | QUIET
        | {
            "ORRERY_DATA_DIR": str(settings.data_dir.resolve()),
            "ORRERY_DATABASE_URL": services.database_url,
            "ORRERY_REDIS_URL": services.redis_url,
            "ORRERY_MASTER_KEY": master_key(settings).decode(),
            "ORRERY_WORKER_ID": worker_id,
            "TMPDIR": str(_temporary(settings)),
        }
    )


@asynccontextmanager
async def supervised_worker(settings: Settings, services: Services, *, worker_id: str) -> AsyncIterator[None]:
    """Keeps one worker alive for the length of the block; what a dead one held, its successor takes over.

    A worker of the same id that a killed platform left behind is ended first (Linux ends it at once).
    """
    left = find_workers(settings.data_dir.resolve(), worker_id)
    await end_processes(left, name="worker", polite=SIGTERM, firm=SIGKILL)
    task = asyncio.create_task(_keep_alive(settings, services, worker_id), name="worker-supervisor")
    try:
        yield
    finally:
        await end(task)


async def _keep_alive(settings: Settings, services: Services, worker_id: str) -> None:
    pause_s = 0.5
    while True:
        started = asyncio.get_running_loop().time()
        process = _start(settings, services, worker_id)
        try:
            while not await exited(process, timeout_s=3600, poll_s=0.2):
                continue
        except asyncio.CancelledError:
            await stop(process, ((SIGTERM, settings.shutdown_grace_s / 4), (SIGQUIT, 2.0), (SIGKILL, 5.0)))
            raise
        healthy = asyncio.get_running_loop().time() - started > _HEALTHY_AFTER_S
        pause_s = 0.5 if healthy else min(pause_s * 2, _LONGEST_PAUSE_S)
        logger.warning("worker_died", code=process.returncode, restart_in_s=pause_s)
        await asyncio.sleep(pause_s)


def _temporary(settings: Settings) -> Path:
    return settings.run_dir.resolve() / "worker-tmp"


def _start(settings: Settings, services: Services, worker_id: str) -> subprocess.Popen[bytes]:
    # What a killed worker left there goes before the next one starts.
    shutil.rmtree(_temporary(settings), ignore_errors=True)
    _temporary(settings).mkdir(mode=0o700, parents=True)
    return subprocess.Popen(
        worker_arguments(f"{worker_id.replace(':', '-')}@localhost"),
        env=worker_environment(settings, services, worker_id),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with(os.getpid(), SIGKILL),
    )
