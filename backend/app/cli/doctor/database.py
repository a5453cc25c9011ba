"""PostgreSQL: reachable, new enough, walled, migrated, with room for our connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from app.cli.credentials import credentials_path, load_api_key
from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.subject import NOTHING_RUNS, Subject
from app.core.config import Settings
from app.core.errors import Misconfigured
from app.core.security import api_key_digest
from app.db.connection import open_engine
from app.db.failures import explained, place_of
from app.db.inspection import (
    RoleFacts,
    ServerFacts,
    WallFacts,
    hears_notifications,
    revision,
    role_facts,
    server_facts,
    vector_extension,
    wall_facts,
)
from app.db.migrate import newest_revision
from app.db.outage import sqlstate
from app.db.postgres.repositories.identity import Identities
from app.db.session import make_database
from app.services.installation_service import api_key_pepper

_PATIENCE_S = 5.0
_OLDEST, _OLDEST_VECTOR = 150000, (0, 8)
_SKEW_S, _LARGE_SKEW_S = 1.0, 30.0
_PROCESSES = 2  # the API and one worker
_BESIDE_POOL = 3  # connections of a process: for notices, for what runs tell and do, for heartbeats
_FORBIDDEN = "42501"
_MIGRATE = "run 'orrery migrate' (with embedded services, 'orrery serve' does it)"


async def database_answers(subject: Subject) -> list[Finding]:
    """All about the server and our role in it: what one connection can see."""
    if not subject.database_url:
        return [ok(f"the database is not looked at: {NOTHING_RUNS}")]
    with explained(subject.database_url, setting="ORRERY_DATABASE_URL"):
        async with brief_engine(subject, subject.database_url) as engine, engine.connect() as connection:
            facts = await server_facts(connection)
            role = await role_facts(connection)
            vector = await vector_extension(connection)
            walls = await wall_facts(connection)
    return [
        *server_findings(facts, place_of(subject.database_url), subject.settings),
        *_role(role),
        *_vector(vector),
        *_walls(walls),
    ]


@asynccontextmanager
async def brief_engine(subject: Subject, url: str) -> AsyncIterator[AsyncEngine]:
    """For a look or two, without much patience."""
    timeout_s = min(subject.settings.database_timeout_s, _PATIENCE_S)
    prepared = subject.settings.database_prepared_statements
    async with open_engine(url, pool_size=2, timeout_s=timeout_s, prepared=prepared) as engine:
        yield engine


def server_findings(facts: ServerFacts, place: str, settings: Settings) -> Iterator[Finding]:
    if facts.version_number < _OLDEST:
        yield fail(f"PostgreSQL {facts.version} is too old", "upgrade it to 15 or newer")
    else:
        yield ok(f"PostgreSQL {facts.version} answers at {place}")
    needed = _PROCESSES * (settings.database_pool_size + _BESIDE_POOL)
    if needed > facts.usable_connections:
        yield warn(
            f"PostgreSQL lets us have {facts.usable_connections} connections, and {_PROCESSES} processes "
            f"may open {needed}",
            "raise max_connections (or the role's limit), or lower ORRERY_DATABASE_POOL_SIZE",
        )
    else:
        yield ok(f"{facts.connected} connections are open, {facts.usable_connections} are possible")
    yield from _clock(facts.skew_s)
    timeout_s = facts.statement_timeout_ms / 1000
    if 0 < timeout_s < settings.database_timeout_s:
        yield warn(
            f"PostgreSQL ends statements after {timeout_s:g} s, before ORRERY_DATABASE_TIMEOUT_S "
            f"({settings.database_timeout_s:g} s)",
            "raise statement_timeout of the role, or lower the setting",
        )


def _clock(skew_s: float) -> Iterator[Finding]:
    if abs(skew_s) < _SKEW_S:
        yield ok("the clocks of the database and of this machine agree")
        return
    text = f"the database's clock is {abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}"
    level = fail if abs(skew_s) >= _LARGE_SKEW_S else warn
    yield level(text, "let both machines take the time from NTP")


def _role(role: RoleFacts) -> Iterator[Finding]:
    wrong = [
        what
        for what, holds in (
            ("is a superuser", role.superuser),
            ("bypasses row-level security", role.bypasses),
            ("inherits the rights of other roles", role.inherits),
        )
        if holds
    ]
    if wrong:
        yield fail(
            f"the role {role.name!r} {', '.join(wrong)}: it could see every tenant",
            "point ORRERY_DATABASE_URL at the role 'orrery_app' that 'orrery migrate' creates",
        )
    elif not role.may_be_system:
        yield fail(f"the role {role.name!r} may not take the role 'orrery_system'", _MIGRATE)
    else:
        yield ok(f"the role {role.name!r} is bound by row-level security")


def _vector(found: tuple[str, str] | None) -> Iterator[Finding]:
    if found is None:
        yield fail("pgvector is not installed in this database", f"install pgvector 0.8, then {_MIGRATE}")
        return
    version, schema = found
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if parts < _OLDEST_VECTOR:
        yield fail(
            f"pgvector {version} is too old", "install 0.8 or newer, then ALTER EXTENSION vector UPDATE"
        )
    else:
        yield ok(f"pgvector {version} in schema {schema!r}")


def _walls(facts: WallFacts) -> Iterator[Finding]:
    if facts.open:
        yield fail(
            f"row-level security is not enabled and forced on {', '.join(map(repr, facts.open))}",
            "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY as the owner",
        )
    if facts.exposed:
        yield fail(
            f"partitions can be read past the wall of their tables: {', '.join(map(repr, facts.exposed))}",
            "REVOKE ALL on them from 'orrery_app'",
        )
    if facts.missing:
        yield fail(f"tables are missing: {', '.join(map(repr, facts.missing))}", _MIGRATE)
    if not (facts.open or facts.exposed or facts.missing):
        yield ok(f"row-level security is enabled and forced on all {len(facts.walled)} tables")


async def schema_is_current(subject: Subject) -> list[Finding]:
    if not subject.owner_url:
        return []
    name = "ORRERY_DATABASE_MIGRATION_URL"
    try:
        with explained(subject.owner_url, setting=name):
            async with brief_engine(subject, subject.owner_url) as engine, engine.connect() as connection:
                found = await revision(connection)
    except Misconfigured as error:
        cause = error.__cause__ or error
        if sqlstate(cause) == _FORBIDDEN and subject.owner_url == subject.database_url:
            return [warn("the schema's revision is not readable for this role", f"set {name}")]
        raise
    newest = newest_revision()
    if found == newest:
        return [ok(f"the schema is the newest ({newest})")]
    if found > newest:
        return [fail(f"the schema is {found!r}, of a newer Orrery than this ({newest!r})", "upgrade Orrery")]
    return [fail(f"the schema is {found or 'empty'!r}, and the newest is {newest!r}", _MIGRATE)]


async def notifications_arrive(subject: Subject) -> list[Finding]:
    if not subject.database_url:
        return []
    with explained(subject.database_url, setting="ORRERY_DATABASE_URL"):
        async with brief_engine(subject, subject.database_url) as engine:
            heard = await hears_notifications(engine)
    if heard:
        return [ok("LISTEN and NOTIFY work")]
    remedy = "nothing needs them here; connections are shared, so keep that in mind"
    if subject.settings.database_prepared_statements:
        remedy = "set ORRERY_DATABASE_PREPARED_STATEMENTS=false, as transaction poolers need"
    return [warn("notifications do not arrive: there is a transaction pooler in between", remedy)]


async def saved_key_is_known(subject: Subject) -> list[Finding]:
    """The key of the command line is found by a hash under the master key: both fit the database, or not."""
    if not subject.database_url or not credentials_path(subject.settings).exists():
        return []
    key = load_api_key(subject.settings)
    with explained(subject.database_url, setting="ORRERY_DATABASE_URL"):
        known = await _knows(subject, key or "")
    if known is None:
        return []
    if known:
        return [ok("the master key fits the database: the command line's key is known")]
    return [
        fail(
            "the command line's API key is unknown to this database",
            "if it was not revoked, the master key is another than before: restore it; else run "
            "'orrery keys create --save'",
        )
    ]


async def _knows(subject: Subject, key: str) -> bool | None:
    """None where the master key is another: that is told by `encryption`, once."""
    async with brief_engine(subject, subject.database_url) as engine:
        database = make_database(engine, nobody)
        try:
            digest = api_key_digest(key, await api_key_pepper(database, subject.settings))
        except Misconfigured:
            return None
        async with database.system_work() as session:
            return await Identities(session).key_holder(digest) is not None


async def nobody(_: str) -> None:
    """Looking queues nothing."""
