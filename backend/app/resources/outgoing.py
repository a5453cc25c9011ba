"""The ways out of the platform: the egress guard as the operator set it, and the models behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial

from app.core.base_urls import authority
from app.core.config import Settings
from app.core.egress import Gate, Limits, Rule, Rules, open_egress, system_trust
from app.core.security import master_keys
from app.core.timed_cache import TimedCache
from app.db.session import Database
from app.rag.types import Embedder
from app.services.llm.environment import LOCAL_PROVIDER, EnvironmentChoice, EnvironmentModel, chosen
from app.services.llm.extractive import Extractive
from app.services.model_resolver import ModelSources, local_models


@asynccontextmanager
async def model_sources(
    settings: Settings, database: Database, egress: Gate, embedder: Embedder
) -> AsyncIterator[ModelSources]:
    """Where logical models are found: registry, environment, built in."""
    async with _environment_model(settings, egress) as environment:
        yield ModelSources(
            database=database,
            masters=master_keys(settings),
            gate=egress,
            limits=_model_limits(settings),
            providers={LOCAL_PROVIDER: local_models(Extractive(embedder))},
            environment=environment,
            cache=TimedCache(ttl_s=settings.model_cache_s, size=settings.model_cache_size),
        )


@asynccontextmanager
async def _environment_model(settings: Settings, egress: Gate) -> AsyncIterator[EnvironmentModel | None]:
    """The model that the operator's environment names, with a way out of its own."""
    choice = chosen(settings)
    if choice is None or choice.provider == LOCAL_PROVIDER:
        yield EnvironmentModel(choice, egress, egress.limits) if choice else None
        return
    async with way_to(choice, settings) as gate:
        yield EnvironmentModel(choice, gate, _model_limits(settings))


def way_to(choice: EnvironmentChoice, settings: Settings) -> AbstractAsyncContextManager[Gate]:
    """The way out to the server of the environment's model.

    It may be an internal one: the operator named it, so it is opened, for this alone.
    """
    rule = Rule.parse(authority(choice.base_url))
    return way_out(settings, rule, max_connections=settings.model_max_connections)


def _model_limits(settings: Settings) -> Limits:
    return replace(
        _limits(settings),
        first_byte_s=settings.model_first_byte_timeout_s,
        idle_s=settings.model_idle_timeout_s,
        total_s=settings.model_total_timeout_s,
    )


def way_out(
    settings: Settings, *also: Rule, max_connections: int | None = None
) -> AbstractAsyncContextManager[Gate]:
    """The guarded way out, as the operator set it; `also` opens more.

    With `max_connections`, an organization may have half of them.
    """
    each = (max_connections + 1) // 2 if max_connections else settings.egress_max_connections_per_organization
    return open_egress(
        rules=Rules((*settings.egress_allow, *also), settings.egress_deny, settings.egress_ports),
        limits=_limits(settings),
        max_connections=max_connections or settings.egress_max_connections,
        max_connections_per_organization=each,
        keepalive_s=settings.egress_keepalive_s,
        resolver_threads=settings.egress_resolver_threads,
        trust=partial(system_trust, settings.egress_ca_file),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        connect_s=settings.egress_connect_timeout_s,
        first_byte_s=settings.egress_first_byte_timeout_s,
        idle_s=settings.egress_idle_timeout_s,
        total_s=settings.egress_total_timeout_s,
        max_bytes=settings.egress_max_bytes,
        max_event_bytes=settings.egress_max_event_bytes,
        max_redirects=settings.egress_max_redirects,
    )
