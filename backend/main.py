"""Application entry point: the API, assembled. `orrery serve` runs it as `main:create_app`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import __version__
from app.api.application import Api, install_middleware
from app.api.docs import install_docs
from app.api.errors import install_error_handlers
from app.api.guard import check_keys, check_permissions
from app.api.pages import install_pages
from app.api.routers import (
    agent_documents,
    agent_versions,
    agents,
    auth,
    collections,
    documents,
    health,
    interrupts,
    jobs,
    model_connections,
    models,
    node_types,
    projects,
    root,
    run_descendants,
    runs,
    search,
    secrets,
    sessions,
    tools,
    usage,
)
from app.core.config import Settings, get_settings
from app.core.failpoints import failpoint
from app.core.logging import configure_logging
from app.core.outages import Outage
from app.core.security import jwt_key
from app.core.tasks import end
from app.db.postgres.repositories.idempotency import sweep_expired
from app.db.postgres.repositories.node_cache import sweep_cache
from app.db.session import Database
from app.embedded import read_services_file
from app.resources import Resources, demanded, open_resources, process_name
from app.services.runs.claims import queues_due
from app.services.runs.clock import mend_times
from app.services.runs.commands import sweep_commands
from app.workers import celery_app

logger = structlog.get_logger(__name__)

_MEND_EVERY_S = 60
_EXPOSED = [
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "X-Request-Id",
]
_TAGS = [
    "auth",
    "projects",
    "agents",
    "runs",
    "collections",
    "documents",
    "search",
    "jobs",
    "models",
    "tools",
    "model-connections",
    "secrets",
    "health",
]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API. Services are found by `settings`, else through a running `orrery serve` in the data folder."""
    settings = settings or get_settings()
    app = Api(
        title="Orrery",
        version=__version__,
        summary="Self-hosted platform for AI agents",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        openapi_tags=[{"name": tag} for tag in _TAGS],
        max_body_size=settings.max_request_bytes,
    )
    app.state.settings = settings
    app.state.stopping = asyncio.Event()
    for module in (
        *(auth, sessions, projects, node_types, agent_documents, agents, agent_versions, runs, usage),
        *(
            run_descendants,
            interrupts,
            collections,
            documents,
            search,
            jobs,
            models,
            model_connections,
            secrets,
            tools,
        ),
    ):
        app.router.routes.extend(module.router.routes)
    app.include_router(documents.intake_router, max_body_size=settings.max_upload_request_bytes)
    app.router.routes.extend([*health.router.routes, *root.router.routes])
    if settings.docs_enabled:
        install_docs(app)
        install_pages(app)
    install_error_handlers(app)
    install_middleware(app, settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
    check_permissions(app)
    check_keys(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    configure_logging(settings)
    async with serving(settings) as resources:
        app.state.resources = resources
        yield


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Resources]:
    """Resources with the executor of runs and the sweeper of queues at work."""
    found = read_services_file(settings)
    database_url = found.database_url if found else demanded(settings.database_url, "ORRERY_DATABASE_URL")
    redis_url = found.redis_url if found else demanded(settings.redis_url, "ORRERY_REDIS_URL")
    celery_app.configure(redis_url)
    async with (
        open_resources(
            settings,
            database_url=database_url,
            redis_url=redis_url,
            wake=celery_app.wake,
            owner=process_name(settings),
            session_secret=jwt_key(settings),
        ) as resources,
        resources.executor.running(),
        resources.rates.sharing(),
    ):
        sweeper = asyncio.create_task(
            _wake_forever(resources.database, settings.sweep_interval_s), name="queue-sweeper"
        )
        clock = asyncio.create_task(_mend_forever(resources.database, settings.lease_s), name="clock")
        try:
            yield resources
        finally:
            await end(sweeper)
            await end(clock)


async def _mend_forever(database: Database, lease_s: float) -> None:
    """Looks from time to time whether the clock was set back."""
    outage = Outage(logger, "times_not_mended")
    while True:
        try:
            await mend_times(database, lease_s=lease_s)
            outage.over()
        except Exception as error:
            outage.failed(error)
        await asyncio.sleep(_MEND_EVERY_S)


async def _wake_forever(database: Database, interval_s: float) -> None:
    """Wakes queues whose message was lost, whose retry is due, or whose worker died; sweeps what is old."""
    outage = Outage(logger, "queue_sweep_failed")
    while True:
        await asyncio.sleep(interval_s)
        try:
            failpoint("queue.sweeping")
            async with database.system_work() as session:
                due = await queues_due(session)
                await sweep_expired(session)
                await sweep_cache(session)
                await sweep_commands(session)
            for queue in due:
                await database.wake(queue)
            outage.over()
        except Exception as error:
            outage.failed(error)
