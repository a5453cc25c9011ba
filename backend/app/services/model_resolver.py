"""Logical models: what a name in a graph stands for in this project right now.

A row of the project's registry comes first. Without one, `default-chat` is what the environment of the
platform binds it to (`llm.environment`), and else the offline model, `local/extractive`. Other names exist
by their rows only. `docs/models.md` says so to users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from pydantic import SecretStr

from app.agent.core.interfaces import Capability, Catalog, ChatModel, ModelError
from app.api.schemas.models import ModelConfig
from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.egress import Gate, Limits
from app.core.envelope import MasterKeys, Unreadable
from app.core.errors import AppError, Invalid, NotFound
from app.core.timed_cache import TimedCache
from app.db.postgres.models.registry import ModelConnection, ModelRegistry
from app.db.postgres.models.secrets import OrganizationKey
from app.db.postgres.repositories.registry import Models, Target
from app.db.session import Database, Tenant
from app.services.llm.environment import LOCAL_PROVIDER, OPENAI_COMPATIBLE, EnvironmentModel
from app.services.llm.openai_compatible import DEFAULT_CAPABILITIES, Endpoint, OpenAICompatible
from app.services.llm.priced import PricedModel
from app.services.llm.probe import Fault, Probe, probe
from app.services.sealing import open_from, opened

MakeModel = Callable[[str], ChatModel]
OFFLINE: Final = "extractive"
_REGISTER: Final = (
    "or register a model with a connection (POST /api/v1/model-connections, then /api/v1/models)"
)
_LOCAL_REMEDY: Final = f"set OPENAI_API_KEY or OPENAI_BASE_URL where the platform runs, {_REGISTER}"
_DECLARE: Final = "name it in config.capabilities of the model, if the model can do it"


class Source(StrEnum):
    """Who says what a name stands for, the strongest first."""

    REGISTRY = "registry"
    ENVIRONMENT = "environment"
    BUILT_IN = "built_in"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What would be called now, and why."""

    reference: str
    source: Source
    provider: str
    model: str | None
    capabilities: list[Capability]
    why: str
    connection: str | None = None
    base_url: str | None = None
    problem: str | None = None


class KeyUnreadable(AppError):
    """The stored key of a connection does not open: the row was changed by other hands."""

    code, title = "secret_unreadable", "Secret unreadable"


@dataclass(frozen=True, slots=True)
class _Known:
    project: tuple[UUID, UUID]
    target: Target | None


Cache = TimedCache[tuple[UUID, UUID, str], _Known]


@dataclass(frozen=True, slots=True)
class ModelSources:
    """What this process makes models of. `providers` make those that need no connection, by their names.

    `cache` holds what names stand for, with keys still sealed; `forget` it where that changes.
    """

    database: Database
    masters: MasterKeys
    gate: Gate
    limits: Limits
    providers: dict[str, MakeModel]
    environment: EnvironmentModel | None
    cache: Cache

    def forget(self, tenant: Tenant) -> None:
        project = (tenant.org_id, tenant.project)
        self.cache.drop(lambda known: known.project == project)


@dataclass(frozen=True, slots=True)
class ModelResolver:
    """Models of one project. Implements `Models` of the engine; costs a query now and then (`cache`)."""

    sources: ModelSources
    tenant: Tenant

    async def chat(self, reference: str) -> ChatModel:
        """The model behind a slug or a registry id.

        Raises `NotFound` and `Invalid`, which say what is wrong with it, and `ModelError` where the
        environment's server has to be asked which model it has.
        """
        target = await self._target(reference)
        if target is not None:
            return await self._registered(*target)
        environment = self.sources.environment
        if environment is not None and environment.choice.provider != LOCAL_PROVIDER:
            return await environment.chat(self.tenant.org_id)
        return self._local(LOCAL_PROVIDER, OFFLINE)

    async def resolve(self, reference: str) -> Resolution:
        """`NotFound` where the name stands for nothing."""
        target = await self._target(reference)
        if target is not None:
            return self._of_row(reference, target[0], target[1])
        environment = self.sources.environment
        if environment is None:
            why = "no row of the registry and nothing in the environment says otherwise"
            return Resolution(
                reference, Source.BUILT_IN, LOCAL_PROVIDER, OFFLINE, self._default_capabilities(), why
            )
        model, problem = environment.choice.model, None
        if model is None:
            try:
                model = await environment.model(self.tenant.org_id)
            except ModelError as error:
                problem = error.message
        return Resolution(
            reference,
            Source.ENVIRONMENT,
            environment.choice.label,
            model,
            self._default_capabilities(),
            f"{environment.choice.why}, and no row of the registry says otherwise",
            problem=problem,
        )

    async def probe(self, reference: str, *, timeout_s: float) -> Probe:
        """One tiny call, whose failure is a result; `NotFound` where the name stands for nothing."""
        try:
            model = await self.chat(reference)
        except NotFound:
            raise
        except ModelError as error:
            return Probe(error=Fault(error.code, error.message))
        except AppError as error:
            return Probe(error=Fault(error.code, error.detail))
        return await probe(model, timeout_s=timeout_s)

    async def catalog(self, *, collections: frozenset[str], secrets: frozenset[str] | None = None) -> Catalog:
        """Every chat model of the project, by slug and by id, beside its collections and secrets."""
        rows = [row for row in await self._rows() if self._exists(row)]
        found = {DEFAULT_CHAT_MODEL: frozenset(self._default_capabilities())}
        remedies = {}
        if Capability.TOOLS not in found[DEFAULT_CHAT_MODEL]:
            remedies[DEFAULT_CHAT_MODEL] = _LOCAL_REMEDY
        for row in rows:
            for name in (row.slug, str(row.id)):
                found[name] = frozenset(self._capabilities(row))
                remedies[name] = _DECLARE if row.connection_id else _LOCAL_REMEDY
        return Catalog(found, remedies, collections, secrets=secrets)

    async def _rows(self) -> list[ModelRegistry]:
        async with self.sources.database.unit_of_work(self.tenant) as session:
            models = Models(session, self.tenant)
            return await models.many(models.chat())

    def _exists(self, row: ModelRegistry) -> bool:
        return row.connection_id is not None or row.provider in self.sources.providers

    async def _target(self, reference: str) -> Target | None:
        """The row behind a name; None for `default-chat` without one."""
        tenant = self.tenant
        key = (tenant.org_id, tenant.project, reference)
        return (await self.sources.cache.get(key, lambda: self._load(reference))).target

    async def _load(self, reference: str) -> _Known:
        async with self.sources.database.unit_of_work(self.tenant) as session:
            models = Models(session, self.tenant)
            target = await models.target(reference)
        if target is None and reference != DEFAULT_CHAT_MODEL:
            raise models.missing(reference)
        return _Known((self.tenant.org_id, self.tenant.project), target)

    async def _registered(
        self, row: ModelRegistry, connection: ModelConnection | None, key: OrganizationKey | None
    ) -> ChatModel:
        config = ModelConfig.model_validate(row.config)
        if connection is None:
            made = self._local(row.provider, row.model)
        else:
            made = await self._connected(row, connection, key, config)
        return PricedModel(made, config.prices) if config.prices else made

    async def _connected(
        self,
        row: ModelRegistry,
        connection: ModelConnection,
        key: OrganizationKey | None,
        config: ModelConfig,
    ) -> ChatModel:
        return OpenAICompatible(
            Endpoint(
                connection.slug,
                connection.base_url,
                self.sources.gate.of(self.tenant.org_id),
                self.sources.limits,
                await self._key(connection, key),
                slug=row.slug,
            ),
            row.model,
            capabilities=frozenset(self._capabilities(row)),
            token_limit=config.max_tokens_field,
            extra_body=config.extra_body,
        )

    async def _key(self, connection: ModelConnection, key: OrganizationKey | None) -> SecretStr | None:
        if key is None:
            return None
        try:
            data_key = await opened(self.sources.database, self.sources.masters, key)
            return SecretStr(open_from(connection, data_key).decode())
        except Unreadable as error:
            raise KeyUnreadable(
                f"The key of the model connection {connection.slug!r} cannot be decrypted ({error}): "
                "set it again."
            ) from error

    def _local(self, provider: str, model: str) -> ChatModel:
        providers = self.sources.providers
        if provider not in providers:
            raise Invalid(f"There is no model provider {provider!r}; there are {sorted(providers)}.")
        return providers[provider](model)

    def _of_row(self, reference: str, row: ModelRegistry, connection: ModelConnection | None) -> Resolution:
        by = f" by the connection {connection.slug!r}" if connection else ""
        return Resolution(
            reference,
            Source.REGISTRY,
            row.provider,
            row.model,
            self._capabilities(row),
            f"the model {row.slug!r} of the registry says so{by}",
            connection=connection.slug if connection else None,
            base_url=connection.base_url if connection else None,
        )

    def _capabilities(self, row: ModelRegistry) -> list[Capability]:
        if row.connection_id is None:
            return sorted(self._local(row.provider, row.model).capabilities)
        declared = row.config.get("capabilities")
        return sorted(DEFAULT_CAPABILITIES if declared is None else map(Capability, declared))

    def _default_capabilities(self) -> list[Capability]:
        environment = self.sources.environment
        if environment is not None and environment.choice.provider == OPENAI_COMPATIBLE:
            return sorted(DEFAULT_CAPABILITIES)
        return sorted(self._local(LOCAL_PROVIDER, OFFLINE).capabilities)


def local_models(extractive: ChatModel) -> MakeModel:
    """The provider `local`: models that need no network."""

    def make(model: str) -> ChatModel:
        if model != OFFLINE:
            raise NotFound(f"The provider 'local' has no model {model!r}; it has {OFFLINE!r}.")
        return extractive

    return make
