"""Who is calling: keys, what narrows them, what ends them, and the first start."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import event, func, select, text

from app.core.config import Settings
from app.core.errors import Invalid, Misconfigured, NotFound, Unauthenticated
from app.core.ids import new_id
from app.core.paging import PageRequest
from app.core.permissions import ALL, Permission, granted
from app.core.security import api_key_hint
from app.core.timed_cache import TimedCache
from app.db.connection import open_engine
from app.db.postgres.models.identity import ApiKey, Organization, Role
from app.db.session import Tenant
from app.embedded import Services
from app.resources import make_auth
from app.services.auth_service import AuthContext, AuthService
from app.services.session_service import Client, Grant, Login, SessionService
from tests.factories import CHEAP_ARGON2, PASSWORD, Factory, Member, Person
from tests.workers.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def auth(world: World) -> AuthService:
    """Looks every credential up each time."""
    uncached = world.resources.settings.model_copy(update={"auth_cache_s": 0})
    known = world.resources
    return make_auth(uncached, known.database, known.auth.pepper, session_secret=b"s" * 32)


@pytest.fixture
def sessions(auth: AuthService, world: World) -> SessionService:
    auth.passwords.argon2 = CHEAP_ARGON2
    settings = world.resources.settings
    return SessionService(auth.database, auth.tokens, auth.passwords, settings, auth.forget_sessions)


@pytest.fixture
def make(world: World) -> Factory:
    return Factory(world.resources)


class TestAuthenticate:
    async def test_answers_who_and_what(self, auth: AuthService, make: Factory) -> None:
        member = await make.member(role=Role.MEMBER)
        context = await auth.authenticate(member.key)
        assert (context.principal, context.tenant) == (member.user_id, member.tenant)
        assert context.permissions == granted("member", None)

    @pytest.mark.parametrize("token", [None, "", "short", "x" * 64, "orr_" + "0" * 32 + "_" + "a" * 43])
    async def test_refuses_what_it_does_not_know(self, auth: AuthService, token: str | None) -> None:
        with pytest.raises(Unauthenticated):
            await auth.authenticate(token)

    async def test_is_exact(self, auth: AuthService, make: Factory) -> None:
        member = await make.member()
        for token in (member.key + "x", member.key[:-1], member.key.upper(), f" {member.key}"):
            with pytest.raises(Unauthenticated):
                await auth.authenticate(token)

    @pytest.mark.parametrize(
        "ending",
        [
            "UPDATE api_keys SET revoked_at = now() WHERE user_id = :user",
            "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE user_id = :user",
            "UPDATE users SET suspended_at = now() WHERE id = :user",
        ],
    )
    async def test_refuses_from_the_moment_it_ends(
        self, auth: AuthService, make: Factory, services: Services, ending: str
    ) -> None:
        member = await make.member()
        await auth.authenticate(member.key)
        async with open_engine(services.migration_url) as engine, engine.begin() as connection:
            await connection.execute(text(ending), {"user": member.user_id})
        with pytest.raises(Unauthenticated):
            await auth.authenticate(member.key)

    async def test_answers_every_failure_in_the_same_words(
        self, auth: AuthService, make: Factory, world: World
    ) -> None:
        member = await make.member()
        async with world.resources.database.unit_of_work(member.tenant) as session:
            await session.execute(text("UPDATE api_keys SET revoked_at = now()"))
        said = set()
        for token in (member.key, "orr_" + "0" * 32 + "_" + "a" * 43):
            with pytest.raises(Unauthenticated) as raised:
                await auth.authenticate(token)
            said.add(raised.value.detail)
        assert len(said) == 1

    async def test_notes_when_a_key_was_used(self, auth: AuthService, make: Factory, world: World) -> None:
        member = await make.member()
        await auth.authenticate(member.key)
        async with world.resources.database.unit_of_work(member.tenant) as session:
            used = (await session.execute(select(ApiKey.last_used_at))).scalar_one()
        assert used
        assert abs(datetime.now(UTC) - used) < timedelta(minutes=1)

    async def test_of_a_bound_key_reaches_no_other_project(self, auth: AuthService, make: Factory) -> None:
        member = await make.member()
        second = await make.project(member)
        with pytest.raises(NotFound):
            await auth.authenticate(member.key, project=str(second.project_id))

    async def test_of_an_unbound_key_reaches_projects_of_its_organization_only(
        self, auth: AuthService, make: Factory
    ) -> None:
        member, stranger = await make.member(), await make.member()
        unbound = await make.key(member, unbound=True)
        context = await auth.authenticate(unbound.key, project="default")
        assert context.tenant.org_id == member.tenant.org_id
        with pytest.raises(NotFound):
            await auth.authenticate(unbound.key, project=str(stranger.tenant.project_id))


class TestAccessTokens:
    """The session's row decides, whatever the token says."""

    async def test_answer_who_and_what(
        self, auth: AuthService, sessions: SessionService, make: Factory
    ) -> None:
        person = await make.person(role=Role.VIEWER)
        grant = await log_in(sessions, person)
        context = await auth.authenticate(grant.access_token, project="default")
        assert (context.principal, context.tenant) == (person.user_id, person.tenant)
        assert context.permissions == granted("viewer", None)
        assert (context.session_id, context.key_id) == (grant.session.id, None)

    @pytest.mark.parametrize("wrong", ["user_id", "session_id", "org_id"])
    async def test_of_a_session_that_is_anothers_are_refused(
        self, auth: AuthService, sessions: SessionService, make: Factory, wrong: str
    ) -> None:
        mine = (await log_in(sessions, await make.person())).session
        theirs = (await log_in(sessions, await make.person())).session
        row = {name: mine for name in ("user_id", "session_id", "org_id")} | {wrong: theirs}
        token = auth.tokens.access_token(
            user_id=row["user_id"].user_id,
            session_id=row["session_id"].id,
            org_id=row["org_id"].organization_id,
        )
        with pytest.raises(Unauthenticated):
            await auth.authenticate(token)

    @pytest.mark.parametrize(
        "ending",
        [
            "UPDATE user_sessions SET ended_at = now() WHERE user_id = :user",
            "UPDATE user_sessions SET expires_at = now() WHERE user_id = :user",
            "DELETE FROM user_sessions WHERE user_id = :user",
            "UPDATE users SET suspended_at = now() WHERE id = :user",
            "DELETE FROM memberships WHERE user_id = :user",
        ],
    )
    async def test_end_with_what_they_rest_on(
        self,
        auth: AuthService,
        sessions: SessionService,
        make: Factory,
        services: Services,
        ending: str,
    ) -> None:
        person = await make.person()
        token = (await log_in(sessions, person)).access_token
        await auth.authenticate(token)
        async with open_engine(services.migration_url) as engine, engine.begin() as connection:
            await connection.execute(text(ending), {"user": person.user_id})
        with pytest.raises(Unauthenticated):
            await auth.authenticate(token)

    async def test_reach_projects_of_their_organization_only(
        self, auth: AuthService, sessions: SessionService, make: Factory
    ) -> None:
        person, stranger = await make.person(), await make.member()
        token = (await log_in(sessions, person)).access_token
        second = await make.project(Member(person.user_id, person.tenant, ""))
        for named in (str(second.project_id), "second"):
            assert (await auth.authenticate(token, project=named)).tenant == second
        with pytest.raises(NotFound):
            await auth.authenticate(token, project=str(stranger.tenant.project_id))


class TestCache:
    """What is known of a credential is kept for a moment."""

    @pytest.fixture
    def caching(self, auth: AuthService) -> AuthService:
        """On a clock that stands still."""
        auth.cache = TimedCache(ttl_s=2, size=3, clock=lambda: 0.0)
        return auth

    async def test_lets_a_hot_credential_ask_nothing(
        self, caching: AuthService, make: Factory, world: World
    ) -> None:
        member = await make.member()
        first = await caching.authenticate(member.key, project="default")
        with statements(world) as asked:
            for _ in range(5):
                assert await caching.authenticate(member.key, project="default") == first
        assert asked == []

    async def test_takes_one_transaction_to_fill(
        self, caching: AuthService, make: Factory, world: World
    ) -> None:
        member = await make.member()
        await caching.authenticate(member.key)
        with statements(world) as asked:
            await asyncio.gather(*(caching.authenticate(member.key, project="default") for _ in range(20)))
        assert len([one for one in asked if one.startswith("SELECT")]) == 1

    async def test_tells_projects_apart(self, caching: AuthService, make: Factory) -> None:
        member = await make.member()
        second = await make.project(member)
        everywhere = await make.key(member, unbound=True)
        tenants = [
            (await caching.authenticate(everywhere.key, project=p)).tenant
            for p in ("default", "second", None)
        ]
        assert tenants == [member.tenant, second, Tenant(member.tenant.org_id)]

    async def test_holds_no_secret(self, caching: AuthService, make: Factory) -> None:
        member = await make.member()
        await caching.authenticate(member.key)
        assert member.key not in repr(caching.cache._kept)
        assert member.key.encode() not in {key[0] for key in caching.cache._kept}

    async def test_has_a_limit(self, caching: AuthService, make: Factory) -> None:
        for _ in range(5):
            await caching.authenticate((await make.member()).key)
        assert len(caching.cache) == 3

    async def test_keeps_no_refusal(self, caching: AuthService, make: Factory) -> None:
        member = await make.member()
        caller = await caching.authenticate(member.key)
        for token in ("x" * 64, "orr_" + "0" * 32 + "_" + "a" * 43):
            with pytest.raises(Unauthenticated):
                await caching.authenticate(token)
        assert list(caching.cache._kept.values()) == [(0.0, caller)]

    async def test_forgets_at_once_what_is_revoked_here(self, caching: AuthService, make: Factory) -> None:
        caller = await caching.authenticate((await make.member()).key)
        row, key = await caching.create_key(caller, name="ci")
        await caching.authenticate(key)
        await caching.revoke_key(caller, row.id)
        with pytest.raises(Unauthenticated):
            await caching.authenticate(key)

    async def test_does_not_prolong_a_key(self, caching: AuthService, make: Factory) -> None:
        member = await make.member()
        short = await make.key(member, expires_at=datetime.now(UTC) + timedelta(seconds=1))
        await caching.authenticate(short.key)
        while True:
            try:
                await caching.authenticate(short.key)
            except Unauthenticated:
                break
            await asyncio.sleep(0.05)
        assert len(caching.cache) == 1  # it would still be there

    async def test_notes_use_at_most_once_a_minute(
        self, auth: AuthService, make: Factory, world: World
    ) -> None:
        member = await make.member()
        with statements(world) as asked:
            for _ in range(3):
                await auth.authenticate(member.key)
        assert len([one for one in asked if one.startswith("UPDATE api_keys")]) == 1
        async with world.resources.database.unit_of_work(member.tenant) as session:
            await session.execute(text("UPDATE api_keys SET last_used_at = now() - interval '61 seconds'"))
        with statements(world) as asked:
            await auth.authenticate(member.key)
        assert len([one for one in asked if one.startswith("UPDATE api_keys")]) == 1


@contextmanager
def statements(world: World) -> Iterator[list[str]]:
    """What the database is asked in the block."""
    asked: list[str] = []

    def note(_c: Any, _k: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    engine = world.resources.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def log_in(sessions: SessionService, person: Person) -> Grant:
    return await sessions.login(Login(person.email, PASSWORD), Client(None, "tests"))


class TestKeys:
    async def caller(self, auth: AuthService, member: Member) -> AuthContext:
        return await auth.authenticate(member.key)

    async def test_work_as_soon_as_they_are_made(self, auth: AuthService, make: Factory) -> None:
        caller = await self.caller(auth, await make.member())
        _, key = await auth.create_key(caller, name="ci", permissions=["search"])
        assert (await auth.authenticate(key)).permissions == {Permission.SEARCH}

    async def test_never_exceed_their_maker(self, auth: AuthService, make: Factory) -> None:
        caller = await self.caller(auth, await make.member(permissions=["search", "keys:write"]))
        with pytest.raises(Invalid, match="agents:write"):
            await auth.create_key(caller, name="more", permissions=["agents:write"])
        _, key = await auth.create_key(caller, name="same")
        assert (await auth.authenticate(key)).permissions == caller.permissions

    async def test_shrink_with_the_role_of_their_owner(
        self, auth: AuthService, make: Factory, world: World
    ) -> None:
        member = await make.member(of=(await make.member()).tenant)
        _, key = await auth.create_key(await self.caller(auth, member), name="ci")
        async with world.resources.database.unit_of_work(member.tenant) as session:
            demote = text("UPDATE memberships SET role = 'viewer' WHERE user_id = :user")
            await session.execute(demote, {"user": member.user_id})
        assert (await auth.authenticate(key)).permissions == granted("viewer", None)

    async def test_are_stored_without_their_secret(
        self, auth: AuthService, make: Factory, world: World
    ) -> None:
        member = await make.member()
        _, key = await auth.create_key(await self.caller(auth, member), name="ci")
        async with world.resources.database.unit_of_work(member.tenant) as session:
            rows = str(list(await session.execute(text("SELECT api_keys::text FROM api_keys"))))
        assert key.split("_", 2)[2] not in rows

    async def test_that_are_revoked_end_at_once(self, auth: AuthService, make: Factory) -> None:
        caller = await self.caller(auth, await make.member())
        row, key = await auth.create_key(caller, name="ci")
        await auth.revoke_key(caller, row.id)
        with pytest.raises(Unauthenticated):
            await auth.authenticate(key)
        with pytest.raises(NotFound):
            await auth.revoke_key(caller, row.id)

    async def test_of_strangers_cannot_be_seen_or_revoked(self, auth: AuthService, make: Factory) -> None:
        first = await self.caller(auth, await make.member())
        second = await self.caller(auth, await make.member())
        row, key = await auth.create_key(first, name="mine")
        with pytest.raises(NotFound):
            await auth.revoke_key(second, row.id)
        assert row.id not in {one.id for one in (await auth.keys(second, PageRequest())).items}
        assert (await auth.authenticate(key)).tenant == first.tenant


class TestBootstrap:
    async def test_may_be_repeated_and_raced(self, auth: AuthService, world: World, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, _env_file=None)
        before = await organizations(world)
        made = await asyncio.gather(*(auth.bootstrap(settings) for _ in range(4)))
        assert len({one.tenant for one in made}) == 1
        assert await organizations(world) == max(1, before)
        assert sum(one.api_key is not None for one in made) == (before == 0)

    async def test_makes_a_given_key_valid_later_too(self, auth: AuthService, tmp_path: Path) -> None:
        key = f"given-{tmp_path.name}-of-more-than-32-characters"
        settings = Settings(data_dir=tmp_path, bootstrap_api_key=SecretStr(key), _env_file=None)
        made = await auth.bootstrap(settings)
        await auth.bootstrap(settings)
        context = await auth.authenticate(key)
        assert (context.tenant, context.permissions) == (made.tenant, ALL)

    async def test_leaves_a_revoked_key_revoked(
        self, auth: AuthService, world: World, tmp_path: Path
    ) -> None:
        key = SecretStr("orr_bootstrap_" + new_id().hex)
        settings = Settings(data_dir=tmp_path, bootstrap_api_key=key, _env_file=None)
        await auth.bootstrap(settings)
        context = await auth.authenticate(key.get_secret_value())
        page = await auth.keys(context, PageRequest(limit=200))
        (row,) = [one for one in page.items if one.hint == api_key_hint(key.get_secret_value())]
        await auth.revoke_key(context, row.id)
        await auth.bootstrap(settings)
        with pytest.raises(Unauthenticated):
            await auth.authenticate(key.get_secret_value())

    async def test_refuses_a_short_key_without_quoting_it(self, auth: AuthService, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, bootstrap_api_key=SecretStr("guessme"), _env_file=None)
        with pytest.raises(Misconfigured) as raised:
            await auth.bootstrap(settings)
        assert "guessme" not in raised.value.detail


async def organizations(world: World) -> int:
    async with world.resources.database.system_work() as session:
        return int((await session.execute(select(func.count()).select_from(Organization))).scalar_one())
