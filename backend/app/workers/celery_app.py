"""Celery: its messages only say which queue has work; the work itself is in PostgreSQL."""

from __future__ import annotations

import asyncio

from celery import Celery

from app.core.config import get_settings
from app.core.constants import INGEST_QUEUE
from app.resources import demanded

_VISIBILITY_S = 300
_MESSAGE_LIFE_S = 60
_WAKE_S = 1.0
_START_S = 120.0  # a worker process may have to wait for the database

app = Celery("orrery", include=["app.workers.tasks"])


def configure(redis_url: str) -> None:
    """Points the app at its broker. A lost or repeated message does no harm: a sweeper wakes queues again."""
    app.conf.update(
        broker_url=redis_url,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_S,
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
        },
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=INGEST_QUEUE,
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=_START_S,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
    )


def configure_from_settings() -> None:
    configure(demanded(get_settings().redis_url, "ORRERY_REDIS_URL"))


async def wake(queue: str) -> None:
    """Tells the workers of `queue` that it has work. Raises `TimeoutError` where the broker hangs."""
    async with asyncio.timeout(_WAKE_S):
        await asyncio.to_thread(_send, queue)


def _send(queue: str) -> None:
    app.send_task(
        "drain", args=[queue], queue=queue, expires=_MESSAGE_LIFE_S, retry=False, ignore_result=True
    )
