"""Redis: reachable, new enough, and not made to throw messages away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.subject import NOTHING_RUNS, Subject

_PATIENCE_S = 3.0
_OLDEST, _WANTED = 6, 7
_MOSTLY = 0.8


async def broker_answers(subject: Subject) -> list[Finding]:
    if not subject.redis_url:
        return [ok(f"the broker is not looked at: {NOTHING_RUNS}")]
    try:
        async with Redis.from_url(
            subject.redis_url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S
        ) as client:
            await client.ping()
            facts = await client.info()
    except AuthenticationError as error:
        return [fail(f"Redis refuses the login ({error})", "check the password in ORRERY_REDIS_URL")]
    except ValueError as error:
        return [fail(f"ORRERY_REDIS_URL is no URL of a Redis ({error})", "it looks like redis://host:6379/0")]
    except (RedisError, OSError) as error:
        return [fail(f"Redis does not answer ({error})", "start it, or correct ORRERY_REDIS_URL")]
    embedded = subject.settings.redis_url is None
    return [*_version(str(facts.get("redis_version", "0")), embedded=embedded), *_memory(facts)]


def _version(version: str, *, embedded: bool) -> Iterator[Finding]:
    major = int(version.partition(".")[0])
    if major < _OLDEST:
        yield fail(f"Redis {version} is too old", f"upgrade it to {_WANTED} or newer")
    elif major < _WANTED and not embedded:
        yield warn(f"Redis {version} gets no more repairs", f"upgrade it to {_WANTED} or newer")
    else:
        yield ok(f"Redis {version} answers")


def _memory(facts: dict[str, Any]) -> Iterator[Finding]:
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        yield warn(
            f"Redis evicts keys when its memory is full ({policy}), also messages",
            "set maxmemory-policy to noeviction",
        )
    used, limit = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if limit and used > _MOSTLY * limit:
        yield warn(
            f"Redis uses {used // 2**20} of {limit // 2**20} MB", "raise maxmemory, or look why queues grow"
        )
    else:
        yield ok(f"Redis uses {used // 2**20} MB" + (f" of {limit // 2**20}" if limit else ""))
