"""Logical models: what a name stands for in one project."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.errors import Invalid, NotFound
from app.core.ids import new_id
from app.core.timed_cache import TimedCache
from app.db.postgres.models.registry import ModelKind, ModelRegistry
from app.db.postgres.repositories.registry import Models, Target
from app.db.session import Tenant
from app.services.llm.openai_compatible import OpenAICompatible
from app.services.model_connection_service import ModelConnectionService
from app.services.model_resolver import ModelResolver
from tests.factories import Factory, Gate
from tests.workers.world import World

CANARY = "sk-canary-resolver-9d3e51"
pytestmark = pytest.mark.asyncio(loop_scope="session")


def resolver(world: World, tenant: Tenant | None = None) -> ModelResolver:
    sources = world.resources.model_sources
    providers = sources.providers | {"other": lambda model: Gate(slug="g", name=f"other/{model}")}
    fresh = replace(sources, providers=providers, cache=TimedCache(ttl_s=60, size=10))
    return ModelResolver(fresh, tenant or world.tenant)


async def register(
    world: World,
    slug: str,
    *,
    provider: str = "other",
    model: str = "big",
    connection_id: UUID | None = None,
) -> ModelRegistry:
    row = ModelRegistry(
        org_id=world.tenant.org_id,
        id=new_id(),
        project_id=world.tenant.project,
        slug=slug,
        kind=ModelKind.CHAT,
        provider=provider,
        model=model,
        connection_id=connection_id,
    )
    async with world.work() as session:
        session.add(row)
    return row


class TestChat:
    async def test_is_the_offline_model_where_nothing_is_configured(self, world: World) -> None:
        assert (await resolver(world).chat(DEFAULT_CHAT_MODEL)).name == "local/extractive"

    async def test_is_what_the_project_says_before_what_is_built_in(self, world: World) -> None:
        await register(world, DEFAULT_CHAT_MODEL)
        assert (await resolver(world).chat(DEFAULT_CHAT_MODEL)).name == "other/big"

    async def test_is_found_by_slug_and_by_id(self, world: World) -> None:
        row = await register(world, "mine")
        names = [(await resolver(world).chat(reference)).name for reference in ("mine", str(row.id))]
        assert names == ["other/big"] * 2

    async def test_of_another_project_does_not_exist(self, world: World) -> None:
        row = await register(world, "mine")
        stranger = (await Factory(world.resources).member()).tenant
        for reference in ("mine", str(row.id)):
            with pytest.raises(NotFound):
                await resolver(world, stranger).chat(reference)

    async def test_that_is_unknown_is_not_found(self, world: World) -> None:
        with pytest.raises(NotFound, match="'nowhere'"):
            await resolver(world).chat("nowhere")

    async def test_of_an_unknown_provider_names_those_there_are(self, world: World) -> None:
        await register(world, "mine", provider="vanished")
        with pytest.raises(Invalid, match=r"'vanished'.*'local', 'other'"):
            await resolver(world).chat("mine")

    async def test_that_the_provider_has_not_is_not_found(self, world: World) -> None:
        await register(world, "mine", provider="local", model="gpt")
        with pytest.raises(NotFound, match="'extractive'"):
            await resolver(world).chat("mine")


class TestCache:
    async def test_saves_the_query_of_the_next_call(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await register(world, "mine")
        found = resolver(world)
        loads: list[str] = []
        load = Models.target

        async def counted(models: Models, reference: str) -> Target | None:
            loads.append(reference)
            return await load(models, reference)

        monkeypatch.setattr(Models, "target", counted)
        for _ in range(3):
            for reference in ("mine", DEFAULT_CHAT_MODEL):
                await found.chat(reference)
        assert loads == ["mine", DEFAULT_CHAT_MODEL]

    async def test_forgets_one_project_only(self, world: World) -> None:
        found = resolver(world)
        stranger = resolver(world, (await Factory(world.resources).member()).tenant)
        both = ModelResolver(found.sources, stranger.tenant)
        for one in (found, both):
            await one.chat(DEFAULT_CHAT_MODEL)
        found.sources.forget(found.tenant)
        assert len(found.sources.cache) == 1

    async def test_keeps_keys_sealed(self, world: World) -> None:
        connections = ModelConnectionService(
            world.resources.database, world.tenant, world.resources.masters, lambda _: None
        )
        made = await connections.create(
            "vendor", provider="openai_compatible", base_url="https://v.example", api_key=SecretStr(CANARY)
        )
        await register(world, "mine", provider="openai_compatible", connection_id=made.id)
        found = resolver(world)
        model = await found.chat("mine")
        assert isinstance(model, OpenAICompatible)
        assert model._endpoint.api_key == SecretStr(CANARY)
        known = await found.sources.cache.get((*_project(world), "mine"), _never)
        assert known.target is not None
        assert CANARY not in repr([vars(row) for row in known.target if row is not None])


def _project(world: World) -> tuple[UUID, UUID]:
    return world.tenant.org_id, world.tenant.project


async def _never() -> Any:
    raise AssertionError("it is in the cache")


class TestCatalogue:
    async def test_names_what_graphs_may_bind_to(self, world: World) -> None:
        row = await register(world, "mine")
        found = resolver(world)
        catalog = await found.catalog(collections=frozenset())
        assert set(catalog.models) == {DEFAULT_CHAT_MODEL, "mine", str(row.id)}

    async def test_leaves_out_models_whose_provider_is_gone(self, world: World) -> None:
        await register(world, "mine", provider="vanished")
        assert set((await resolver(world).catalog(collections=frozenset())).models) == {DEFAULT_CHAT_MODEL}
