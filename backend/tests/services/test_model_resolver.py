"""Logical models: what a name stands for in one project."""

from dataclasses import replace

import pytest

from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.errors import Invalid, NotFound
from app.core.ids import new_id
from app.core.timed_cache import TimedCache
from app.db.postgres.models.registry import ModelKind, ModelRegistry
from app.db.session import Tenant
from app.services.model_resolver import ModelResolver
from tests.factories import Factory, Gate
from tests.workers.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


def resolver(world: World, tenant: Tenant | None = None) -> ModelResolver:
    sources = world.resources.model_sources
    providers = sources.providers | {"other": lambda model: Gate(slug="g", name=f"other/{model}")}
    fresh = replace(sources, providers=providers, cache=TimedCache(ttl_s=60, size=10))
    return ModelResolver(fresh, tenant or world.tenant)


async def register(world: World, slug: str, *, provider: str = "other", model: str = "big") -> ModelRegistry:
    row = ModelRegistry(
        org_id=world.tenant.org_id,
        id=new_id(),
        project_id=world.tenant.project,
        slug=slug,
        kind=ModelKind.CHAT,
        provider=provider,
        model=model,
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


class TestCatalogue:
    async def test_names_what_graphs_may_bind_to(self, world: World) -> None:
        row = await register(world, "mine")
        found = resolver(world)
        catalog = await found.catalog(collections=frozenset())
        assert set(catalog.models) == {DEFAULT_CHAT_MODEL, "mine", str(row.id)}
        assert await found.ids() == {"mine": str(row.id)}

    async def test_leaves_out_models_whose_provider_is_gone(self, world: World) -> None:
        await register(world, "mine", provider="vanished")
        assert set((await resolver(world).catalog(collections=frozenset())).models) == {DEFAULT_CHAT_MODEL}
