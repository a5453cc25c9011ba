"""What every process shares, opened once: database, blobs, models, parsers, the executor of runs."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any
from uuid import UUID

import structlog
from redis.asyncio import Redis
from sqlalchemy import text

from app.agent.core.limits import EngineLimits
from app.agent.factory import AgentFactory
from app.agent.graph.compiler import AgentCompiler
from app.core import failpoints
from app.core.blobs import Blobs, open_blobs
from app.core.config import Settings
from app.core.egress import Gate
from app.core.envelope import MasterKeys
from app.core.errors import Misconfigured
from app.core.expressions import ExpressionLimits, open_expressions
from app.core.ids import new_id
from app.core.passwords import Passwords
from app.core.rate_limits import RateLimiter, make_rate_limiter
from app.core.sandbox.code import CodeLimits, CodePool, open_code
from app.core.security import derive_key, master_keys
from app.core.session_tokens import SessionTokens
from app.core.timed_cache import TimedCache
from app.db.connection import open_engine
from app.db.migrate import check_runtime_role
from app.db.session import Database, Tenant, Wake, make_database
from app.db.system_connection import SystemConnection
from app.rag.components.parsers.limits import ParseLimits
from app.rag.components.parsers.pool import ParserPool
from app.rag.providers.model.minilm import MiniLM
from app.rag.providers.model.query_cache import CachedQueries
from app.resources.outgoing import model_sources, way_out
from app.resources.tools import Toolbox, open_toolbox
from app.services.agent_service import AgentService
from app.services.auth_service import AuthService
from app.services.descendant_service import DescendantService
from app.services.idempotency_service import IdempotencyService
from app.services.ingestion_service import Parse
from app.services.installation_service import api_key_pepper, warn_of_lost_keys
from app.services.model_resolver import MakeModel, ModelResolver, ModelSources
from app.services.rag_service import RagService
from app.services.run_service import RunService
from app.services.runs.event_log import EventLog
from app.services.runs.executor import Executor
from app.services.runs.leases import LOCAL
from app.services.runs.node_cache import NodeCaches
from app.services.runs.outfit import Outfit
from app.services.runs.streams import RunStreams
from app.services.runs.timeline import TimelineLimits
from app.services.runs.watch import Watch
from app.services.secret_service import SecretService
from app.services.session_service import SessionService
from app.services.tool_resolver import ProjectTools

logger = structlog.get_logger(__name__)

_CHECK_S = 2
_LEAST_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Resources:
    """Open for as long as the process serves or works."""

    settings: Settings
    database: Database
    broker: Redis
    blobs: Blobs
    egress: Gate
    embedder: CachedQueries
    parse: Parse
    auth: AuthService
    sessions: SessionService
    idempotency: IdempotencyService
    rates: RateLimiter
    executor: Executor
    streams: RunStreams
    compiler: AgentCompiler
    model_sources: ModelSources
    toolbox: Toolbox
    masters: MasterKeys = field(repr=False)

    @property
    def providers(self) -> dict[str, MakeModel]:
        """What makes models that need no connection, by the provider's name."""
        return self.model_sources.providers

    def models(self, tenant: Tenant) -> ModelResolver:
        return ModelResolver(self.model_sources, tenant)

    def tools(self, tenant: Tenant) -> ProjectTools:
        return self.toolbox.of(tenant)

    def secrets(self, tenant: Tenant) -> SecretService:
        return SecretService(self.database, tenant, self.masters, self.settings.max_secret_bytes)

    def rag(self, tenant: Tenant) -> RagService:
        return RagService(self.database, tenant, self.embedder)

    def agents(
        self, tenant: Tenant, principal: UUID, *, sees_secrets: bool = False, sees_people: bool = False
    ) -> AgentService:
        return AgentService(
            database=self.database,
            tenant=tenant,
            principal=principal,
            compiler=self.compiler,
            models=self.models(tenant),
            tools=self.tools(tenant),
            sees_secrets=sees_secrets,
            sees_people=sees_people,
        )

    def runs(self, tenant: Tenant, principal: UUID) -> RunService:
        return RunService(
            database=self.database,
            tenant=tenant,
            agents=self.agents(tenant, principal),
            executor=self.executor,
            streams=self.streams,
            text_search_limit=self.settings.run_text_search_limit,
            timeline_limits=TimelineLimits(
                self.settings.run_timeline_events, self.settings.run_timeline_timeout_s
            ),
        )

    def descendants(self, tenant: Tenant, principal: UUID) -> DescendantService:
        agents = self.agents(tenant, principal)
        return DescendantService(self.database, tenant, agents, self.executor)

    async def check(self) -> dict[str, str]:
        """What this process depends on, each `ok` or `unreachable`; the log says why.

        Without blobs only documents do not work.
        """
        asked = {"database": self._ask_database(), "broker": self._ask_broker(), "blobs": self._ask_blobs()}
        return {name: await _outcome(name, answer) for name, answer in asked.items()}

    async def _ask_database(self) -> None:
        async with self.database.no_ones_work() as session:
            await session.execute(text("SELECT 1"))

    async def _ask_broker(self) -> None:
        await self.broker.ping()

    async def _ask_blobs(self) -> None:
        await asyncio.to_thread(self.blobs.check)


async def _outcome(name: str, check: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(_CHECK_S):
            await check
    except Exception as error:
        logger.warning("dependency_unreachable", dependency=name, error=repr(error))
        return "unreachable"
    return "ok"


def process_name(settings: Settings) -> str:
    """Who holds this process's leases. With embedded services only this machine can be meant."""
    host = LOCAL if settings.database_url is None else socket.gethostname()
    return f"{host}:{os.getpid()}:{new_id().hex[-8:]}"


@asynccontextmanager
async def open_resources(
    settings: Settings,
    *,
    database_url: str,
    redis_url: str,
    wake: Wake,
    owner: str,
    session_secret: bytes | None = None,
) -> AsyncIterator[Resources]:
    """Opens everything; closes it in reverse. The executor is opened by `serving`, where runs execute.

    `session_secret` keys people's sessions. A worker, to which nobody logs in, is not given it.
    """
    failpoints.arm(settings.failpoints)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(_open_database(settings, database_url, wake))
        embedder = CachedQueries(_local_embedder(settings))
        parsers = await stack.enter_async_context(ParserPool(size=settings.parse_processes))
        egress = await stack.enter_async_context(way_out(settings))
        expressions = await stack.enter_async_context(
            open_expressions(expression_limits(settings), settings.sandbox)
        )
        code = await stack.enter_async_context(open_code(code_limits(settings), settings.sandbox))
        watch = Watch()
        log = EventLog(database, watch, patience_s=settings.lease_s)
        sources = await stack.enter_async_context(model_sources(settings, database, egress, embedder))
        toolbox = open_toolbox(settings, database, egress, expressions, code, embedder=embedder)
        executor = _make_executor(
            settings,
            owner,
            log=log,
            listen_url=listen_url(settings, database_url),
            sources=sources,
            code=code,
            toolbox=toolbox,
        )
        auth = make_auth(settings, database, await _pepper(settings, database), session_secret)
        yield Resources(
            settings=settings,
            database=database,
            broker=await stack.enter_async_context(Redis.from_url(redis_url, socket_timeout=_CHECK_S)),
            blobs=open_blobs(settings.blob_url, settings.data_dir),
            egress=egress,
            embedder=embedder,
            parse=partial(parsers.parse, limits=parse_limits(settings)),
            auth=auth,
            sessions=SessionService(database, auth.tokens, auth.passwords, settings, auth.forget_sessions),
            idempotency=_make_idempotency(settings, database, auth.pepper),
            rates=make_rate_limiter(settings, redis_url),
            executor=executor,
            streams=RunStreams(database, watch),
            compiler=AgentCompiler(),
            model_sources=sources,
            toolbox=toolbox,
            masters=sources.masters,
        )


def _make_executor(
    settings: Settings,
    owner: str,
    *,
    log: EventLog,
    listen_url: str | None,
    sources: ModelSources,
    code: CodePool,
    toolbox: Toolbox,
) -> Executor:
    database = log.database
    return Executor(
        database=database,
        log=log,
        outfit=Outfit(
            database=database,
            factory=AgentFactory(checkpointer=partial(_make_checkpoints, database, log)),
            retriever=toolbox.retriever,
            models=lambda tenant: ModelResolver(sources, tenant),
            http=toolbox.http,
            expressions=toolbox.expressions,
            tools=toolbox.of,
            code=lambda tenant: code.of(tenant.org_id),
            caches=NodeCaches(database, settings.node_cache_max_entry, settings.node_cache_max_project),
            limits=EngineLimits(
                map_items=settings.run_map_items,
                loop_rounds=settings.run_loop_rounds,
                agent_depth=settings.run_agent_depth,
                offered_tools=settings.run_offered_tools,
                tool_calls=settings.run_tool_calls,
            ),
        ),
        owner=owner,
        lease_s=settings.lease_s,
        timeout_s=settings.run_timeout_s,
        concurrency=settings.run_concurrency,
        claims=settings.run_claims,
        claim_concurrency=settings.run_claim_concurrency,
        recoveries=settings.run_recoveries,
        log_retention_days=settings.run_log_retention_days,
        listen_url=listen_url,
        sweep_interval_s=settings.sweep_interval_s,
        grace_s=settings.shutdown_grace_s,
        warm_up=settings.run_warm_up,
    )


def _make_checkpoints(database: Database, log: EventLog) -> Any:
    """The saver of all graphs of this process. Its module imports LangGraph, which is loaded by then."""
    module = import_module("app.services.runs.checkpoints")
    return module.RunCheckpoints(database, log.logs.__getitem__)


def listen_url(settings: Settings, database_url: str) -> str | None:
    """Where connections keep their state, so that notices are heard; None behind a transaction pooler."""
    if settings.database_listen_url is not None:
        return settings.database_listen_url.get_secret_value()
    return database_url if settings.database_prepared_statements else None


def _local_embedder(settings: Settings) -> MiniLM:
    return MiniLM(
        settings.data_dir.resolve() / "models",
        threads=settings.embedding_threads,
        batch_size=settings.embedding_batch_size,
        int8=settings.embedding_int8,
    )


@asynccontextmanager
async def _open_database(settings: Settings, url: str, wake: Wake) -> AsyncIterator[Database]:
    async with open_engine(
        url,
        pool_size=settings.database_pool_size,
        timeout_s=settings.database_timeout_s,
        prepared=settings.database_prepared_statements,
    ) as engine:
        await check_runtime_role(engine)
        direct = listen_url(settings, url)
        system = SystemConnection(direct, _statement_timeout_s(settings)) if direct else None
        try:
            yield make_database(engine, wake, system)
        finally:
            if system is not None:
                system.close()


def _statement_timeout_s(settings: Settings) -> float:
    """How long a statement on leased rows may take: a connection that fell silent must not cost the lease."""
    return min(settings.database_timeout_s, max(settings.lease_s / 3, _LEAST_TIMEOUT_S))


async def _pepper(settings: Settings, database: Database) -> bytes:
    """The pepper of API keys; the log says how many other keys there are that do not open."""
    pepper = await api_key_pepper(database, settings)
    await warn_of_lost_keys(database, master_keys(settings))
    return pepper


def make_auth(
    settings: Settings, database: Database, pepper: bytes, session_secret: bytes | None
) -> AuthService:
    secret = session_secret or secrets.token_bytes(32)
    return AuthService(
        database,
        pepper,
        tokens=SessionTokens(secret, access_s=settings.access_token_s),
        passwords=Passwords(concurrency=settings.password_concurrency, queue=settings.password_queue),
        cache=TimedCache(ttl_s=settings.auth_cache_s, size=settings.auth_cache_size),
    )


def _make_idempotency(settings: Settings, database: Database, pepper: bytes) -> IdempotencyService:
    return IdempotencyService(
        database=database,
        pepper=derive_key(pepper, "idempotency-keys"),
        retention_s=settings.idempotency_retention_s,
        wait_s=settings.idempotency_wait_s,
    )


def expression_limits(settings: Settings) -> ExpressionLimits:
    return ExpressionLimits(
        timeout_s=settings.expression_timeout_s,
        grace_s=settings.expression_grace_s,
        memory_bytes=settings.expression_memory_bytes,
        recursion=settings.expression_recursion,
        processes=settings.expression_processes,
        wait_s=settings.expression_wait_s,
    )


def code_limits(settings: Settings) -> CodeLimits:
    return CodeLimits(
        timeout_s=settings.code_timeout_s,
        grace_s=settings.code_grace_s,
        memory_bytes=settings.code_memory_bytes,
        recursion=settings.code_recursion,
        processes=settings.code_processes,
        wait_s=settings.code_wait_s,
        output_bytes=settings.code_output_bytes,
        log_bytes=settings.code_log_bytes,
    )


def parse_limits(settings: Settings) -> ParseLimits:
    return ParseLimits(
        timeout_s=settings.parse_timeout_s,
        memory_bytes=settings.parse_memory_bytes,
        max_pages=settings.parse_max_pages,
        max_text_bytes=settings.parse_max_text_bytes,
        max_archive_ratio=settings.parse_max_archive_ratio,
    )


def demanded(value: object, name: str) -> str:
    """A setting that this process cannot do without."""
    secret = getattr(value, "get_secret_value", None)
    if value is None or secret is None:
        raise Misconfigured(f"{name} is not set, and no running `orrery serve` was found in the data folder.")
    return str(secret())
