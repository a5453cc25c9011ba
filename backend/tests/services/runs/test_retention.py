"""Old logs go month by month; what is open, or ended lately, keeps its month."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from app.core.errors import Gone
from app.core.ids import new_id
from app.core.paging import PageRequest
from app.db.session import Database
from app.embedded import Services
from app.services.runs import retention
from app.services.runs.partitions import ensure_partitions
from app.services.runs.retention import LOGS, drop_old_logs, is_log_kept
from app.services.runs.streams import RunStreams
from app.services.runs.watch import Watch
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")

DAYS = 3650
"""Nothing but what these tests make is older."""
_MONTHS = (date(1990 + number // 12, number % 12 + 1, 1) for number in count())
_ROWS = (
    "INSERT INTO agent_run_events (org_id, run_id, seq, node_path, type, event)"
    " SELECT :org, :run, n, '', 'X', '{}' FROM generate_series(1, :rows) AS n",
    "INSERT INTO agent_run_steps (org_id, run_id, node_path, visit, call, node_type, status, attempts,"
    " started_at, duration_ms) SELECT :org, :run, 'n', n, 0, 'x', 'succeeded', 1, now(), 0"
    " FROM generate_series(1, :rows) AS n",
    "INSERT INTO agent_run_checkpoints (org_id, run_id, ns, id, body, channels, metadata)"
    " SELECT :org, :run, '', n::text, '', '', '{}' FROM generate_series(1, :rows) AS n",
    "INSERT INTO agent_run_checkpoint_writes (org_id, run_id, ns, checkpoint_id, task_id, idx, task_path,"
    " channel, value) SELECT :org, :run, '', '1', 't', n, '', 'c', '' FROM generate_series(1, :rows) AS n",
)


def next_month(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def id_at(month: date, *, ms: int = 3_600_000) -> UUID:
    """Of a run that was made so many milliseconds after the beginning of a month, or before it."""
    begin_ms = int(datetime(month.year, month.month, 1, tzinfo=UTC).timestamp() * 1000)
    random = new_id().int & ((1 << 80) - 1)
    return UUID(int=(begin_ms + ms) << 80 | random)


@dataclass(slots=True)
class Archive:
    """Logs of long ago."""

    bench: Bench
    owner: asyncpg.Connection

    @property
    def database(self) -> Database:
        return self.bench.resources.database

    async def month(self) -> date:
        """A month that has partitions, and that no other test looks at."""
        month = next(_MONTHS)
        bounds = [
            await self.owner.fetchval("SELECT orrery_uuid7_floor($1::date)", begin)
            for begin in (month, next_month(month))
        ]
        for log in LOGS:
            child = f"CREATE TABLE {log}_{month:%Y%m} PARTITION OF {log}"
            await self.owner.execute(f"{child} FOR VALUES FROM ('{bounds[0]}') TO ('{bounds[1]}')")
        return month

    async def run(self, run_id: UUID, *, status: str = "succeeded", ended: str = "2000-01-01") -> UUID:
        """A run with a log; `ended` is a time, and counts where the status is a last one."""
        await self.bench.planted(run_id=run_id)
        over = status in ("succeeded", "failed", "cancelled")
        change = (
            "UPDATE agent_runs SET status = :status, finished_at = CAST(CAST(:ended AS text) AS timestamptz)"
        )
        lease = "" if status == "running" else ", lease_owner = NULL, lease_until = NULL"
        async with self.database.unit_of_work(self.bench.tenant) as session:
            values = {"status": status, "ended": ended if over else None, "id": run_id}
            await session.execute(text(f"{change}{lease} WHERE id = :id"), values)
            for statement in _ROWS:
                row = {"org": self.bench.tenant.org_id, "run": run_id, "rows": 5}
                await session.execute(text(statement), row)
        return run_id

    async def rows(self, run_id: UUID) -> list[int]:
        async with self.database.unit_of_work(self.bench.tenant) as session:
            queries = [text(f"SELECT count(*) FROM {log} WHERE run_id = :id") for log in LOGS]
            return [(await session.execute(query, {"id": run_id})).scalar_one() for query in queries]

    async def partitions(self, month: date) -> int:
        query = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE $1"
        return int(await self.owner.fetchval(query, f"agent_run%{month:%Y%m}"))


@pytest_asyncio.fixture(loop_scope="session")
async def archive(bench: Bench, services: Services) -> AsyncIterator[Archive]:
    url = make_url(services.migration_url).set(drivername="postgresql")
    owner = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        yield Archive(bench, owner)
    finally:
        await owner.close()


class TestDropping:
    async def test_takes_whole_months_of_which_all_runs_ended(self, archive: Archive) -> None:
        month = await archive.month()
        run = await archive.run(id_at(month))
        assert await archive.rows(run) == [5, 5, 5, 5]
        assert month in await drop_old_logs(archive.database, days=DAYS)
        assert (await archive.rows(run), await archive.partitions(month)) == ([0, 0, 0, 0], 0)
        assert (await archive.bench.run(run)).status == "succeeded"

    @pytest.mark.parametrize("status", ["queued", "running", "interrupted", "waiting"])
    async def test_leaves_months_with_an_open_run(self, archive: Archive, status: str) -> None:
        month = await archive.month()
        ended, open_ = await archive.run(id_at(month)), await archive.run(id_at(month), status=status)
        assert month not in await drop_old_logs(archive.database, days=DAYS)
        assert await archive.rows(ended) == await archive.rows(open_) == [5, 5, 5, 5]
        assert await is_log_kept(archive.database, ended)

    async def test_leaves_months_of_which_a_run_ended_lately(self, archive: Archive) -> None:
        month = await archive.month()
        run = await archive.run(id_at(month), ended="now")
        assert month not in await drop_old_logs(archive.database, days=DAYS)
        assert await archive.rows(run) == [5, 5, 5, 5]

    async def test_leaves_months_that_are_younger(self, archive: Archive) -> None:
        month = await archive.month()
        run = await archive.run(id_at(month))
        age = (datetime.now(UTC).date() - next_month(month)).days
        assert await drop_old_logs(archive.database, days=age + 1) == []
        assert await archive.rows(run) == [5, 5, 5, 5]

    async def test_goes_by_the_month_in_which_a_run_was_made(self, archive: Archive) -> None:
        one, other = await archive.month(), await archive.month()
        late = await archive.run(id_at(next_month(one), ms=-1), status="running")
        early = await archive.run(id_at(other, ms=0))
        dropped = await drop_old_logs(archive.database, days=DAYS)
        assert (one in dropped, other in dropped) == (False, True)
        assert (await archive.rows(late), await archive.rows(early)) == ([5, 5, 5, 5], [0, 0, 0, 0])

    async def test_empties_the_default_partition_of_such_months(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "_BATCH", 2)
        gone, kept = next(_MONTHS), next(_MONTHS)
        run, open_ = await archive.run(id_at(gone)), await archive.run(id_at(kept), status="queued")
        assert gone in await drop_old_logs(archive.database, days=DAYS)
        assert (await archive.rows(run), await archive.rows(open_)) == ([0, 0, 0, 0], [5, 5, 5, 5])

    async def test_by_several_processes_at_once_is_done_once(self, archive: Archive) -> None:
        months = [await archive.month() for _ in range(3)]
        for month in months:
            await archive.run(id_at(month))
        tasks = [drop_old_logs(archive.database, days=DAYS) for _ in range(4)]
        found = await asyncio.gather(*tasks, ensure_partitions(archive.database))
        assert set(months) <= {month for dropped in found[:-1] for month in dropped or ()}
        assert [await archive.partitions(month) for month in months] == [0, 0, 0]

    async def test_waits_for_no_reader_and_is_taken_up_again(self, archive: Archive) -> None:
        month = await archive.month()
        run = await archive.run(id_at(month))
        async with archive.owner.transaction():
            await archive.owner.execute("LOCK TABLE agent_run_steps IN ACCESS SHARE MODE")
            with pytest.raises(DBAPIError, match="lock timeout"):
                await drop_old_logs(archive.database, days=DAYS)
            assert not await is_log_kept(archive.database, run)
        assert month in await drop_old_logs(archive.database, days=DAYS)
        assert await archive.partitions(month) == 0

    async def test_of_months_that_are_not_over_is_refused_by_the_database(self, archive: Archive) -> None:
        this_month = datetime.now(UTC).date().replace(day=1)
        async with archive.database.system_work() as session:
            query = text("SELECT orrery_drop_log('agent_run_events', :month, 1)")
            with pytest.raises(DBAPIError, match="not the first day of a month that is over"):
                await session.execute(query, {"month": this_month})


class TestDroppedLog:
    async def test_is_told_from_an_empty_one(self, archive: Archive) -> None:
        run = await archive.run(id_at(await archive.month()))
        runs = archive.bench.runs(archive.bench.executor("local:none"))
        await drop_old_logs(archive.database, days=DAYS)
        for asked in (runs.events(run, after=0), runs.steps(run, PageRequest())):
            with pytest.raises(Gone) as gone:
                await asked
            assert gone.value.code == "log_dropped"

    async def test_ends_the_streams_that_are_reading_it(self, archive: Archive) -> None:
        run = await archive.run(id_at(await archive.month()))
        stream = RunStreams(archive.database, Watch()).follow(archive.bench.tenant, run)
        assert (await anext(stream)).seq == 1
        await drop_old_logs(archive.database, days=DAYS)
        async with asyncio.timeout(30):
            assert [event.seq async for event in stream] == [2, 3, 4, 5]

    async def test_is_none_of_a_run_that_was_just_made(self, archive: Archive) -> None:
        assert await is_log_kept(archive.database, new_id())
