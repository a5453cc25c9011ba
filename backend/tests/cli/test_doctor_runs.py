"""What the doctor says of runs that wait."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest
from pydantic import SecretStr

from app.cli.doctor.finding import Level
from app.cli.doctor.work import run_findings, work_gets_done
from app.core.config import Settings
from app.core.ids import new_id
from app.db.inspection import RunFacts
from app.db.migrate import migrate
from app.embedded import Services
from tests.cli.doctoring import subject_of, wrong
from tests.cli.test_doctor_services import fresh_database

_PLANTED = """
    INSERT INTO agent_runs (org_id, id, project_id, agent_id, version_id, input, metadata, last_seq,
        created_at, mode, status, lease_until, lease_owner, fence, due_at)
    VALUES ($1, $2, $1, $1, $1, '{}', '{}', 0,
        now() - interval '5 hours', $3, CAST($4 AS text), now() + $5::interval, $6, $7,
        CASE WHEN CAST($4 AS text) = 'interrupted' THEN now() + interval '1 day' END)
"""


async def plant(services: Services, *run: object) -> None:
    """A run of nobody's agent: mode, status, what is left of its lease, its holder, and its fence."""
    owner = await asyncpg.connect(services.migration_url)
    try:
        await owner.execute("SET session_replication_role = replica")  # what it refers to is not there
        await owner.execute(_PLANTED, new_id(), new_id(), *run)
    finally:
        await owner.close()


async def test_that_nobody_takes_up_are_counted_and_timed(services: Services) -> None:
    async with fresh_database(services) as fresh:
        await migrate(fresh.migration_url)
        urls = {
            "database_url": SecretStr(fresh.database_url),
            "redis_url": SecretStr(fresh.redis_url),
        }
        subject = subject_of(Settings(_env_file=None), **urls)
        await plant(fresh, "background", "queued", None, None, 0)
        await plant(fresh, "wait", "running", None, None, 1)
        await plant(fresh, "wait", "interrupted", None, None, 1)  # waits for a person, and not for a process
        await plant(fresh, "stream", "running", timedelta(seconds=20), "api", 1)
        found = await wrong(work_gets_done, subject)
        assert "warn: 2 runs have been waiting, the oldest for 1800" in found
        assert "and no process takes them up → start 'orrery worker --runs'" in found
        await plant(fresh, "background", "running", timedelta(seconds=20), "worker", 1)
        assert "warn: 2 runs wait, the oldest for 1800" in await wrong(work_gets_done, subject)


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (RunFacts(0, 0, 0, 0, 0), Level.OK, "runs that wait: 0"),
        (RunFacts(3, 1, 0, 0, 0), Level.OK, "runs that wait: 3"),
        (RunFacts(3, 50, 0, 0, 9), Level.OK, "runs that wait: 3"),
        (
            RunFacts(3, 50, 0, 0, 0),
            Level.WARN,
            "3 runs have been waiting, the oldest for 50 s, and no process",
        ),
        (RunFacts(3, 600, 0, 0, 9), Level.WARN, "3 runs wait, the oldest for 600 s, while 9 execute"),
        (
            RunFacts(0, 0, 2, 600, 0),
            Level.WARN,
            "2 runs have been waiting, the oldest for 600 s, and no process",
        ),
        (RunFacts(0, 0, 2, 600, 9), Level.FAIL, "2 runs of a dead process were not taken up"),
    ],
)
def test_of_a_platform_that_runs(facts: RunFacts, level: Level, said: str) -> None:
    *_, found = run_findings(facts, Settings(_env_file=None), works=True)
    assert (found.level, found.what[: len(said)]) == (level, said)
