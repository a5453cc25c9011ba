"""How the tests ask one check of the doctor."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any
from uuid import UUID

from app.cli.doctor.finding import Check, Level
from app.cli.doctor.subject import Subject, find_subject
from app.core.config import Settings
from app.embedded import ServicesFile

NOWHERE = "127.0.0.1:9"


def announced(url: str, keys: Iterable[UUID]) -> ServicesFile:
    """A platform that was started with those master keys."""
    return ServicesFile(
        pid=1,
        api_url=f"http://{NOWHERE}",
        database_url=url,
        migration_url=url,
        redis_url="redis://x",
        started_at=datetime.now(UTC),
        master_keys=tuple(keys),
    )


def subject_of(settings: Settings, **changes: Any) -> Subject:
    return find_subject(settings.model_copy(update=changes), {})


async def wrong(check: Check, subject: Subject) -> str:
    """All that the check finds wrong, worst first, each with what to do about it."""
    found = check(subject)
    findings = [f for f in (await found if isawaitable(found) else found) if f.level is not Level.OK]
    assert all(f.remedy for f in findings)
    return " | ".join(f"{f.level}: {f.what} → {f.remedy}" for f in sorted(findings, key=lambda f: f.level))
