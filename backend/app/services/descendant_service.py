"""Runs made of other runs: resumed where one failed, forked from a checkpoint, replayed from the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from app.core.errors import Conflict, FieldError, Invalid
from app.core.ids import new_id
from app.db.base import Json
from app.db.connection import DriverConnection
from app.db.postgres.channels import RUN_QUEUE
from app.db.postgres.models.agents import AgentRun, RunMode, RunOrigin, RunStatus
from app.db.postgres.repositories.agents import Agents, RunCheckpoints, Runs
from app.db.session import Database, Tenant
from app.services.agent_service import AgentService
from app.services.runs.executor import Executor
from app.services.runs.retention import demand_log
from app.services.runs.stored_json import stored_json
from app.services.runs.versions import checked_input, load_agent

_INSERT = """
    INSERT INTO agent_runs (org_id, id, project_id, mode, status, input, metadata, fence, last_seq, agent_id,
        version_id, parent_run_id, made_by, effects_of)
    SELECT a.org_id, $2, a.project_id, $4, 'queued', CAST($5 AS json), CAST($6 AS jsonb), 0, 0, a.id,
        $8, $9, $10, $11
    FROM agents a
    WHERE a.org_id = $1 AND a.project_id = $3 AND a.id = $7 AND a.deleted_at IS NULL
        AND a.archived_at IS NULL
    FOR SHARE OF a
    RETURNING id
"""
_COPY = """
    INSERT INTO agent_run_steps (org_id, run_id, node_path, visit, call, node_type, status, attempts, output,
        error, usage, handle, writes, request_hash, source_run_id, seq, started_at, duration_ms)
    SELECT {distinct} s.org_id, $3, s.node_path, {visit}, s.call, s.node_type, s.status, s.attempts, s.output,
        s.error, s.usage, s.handle, s.writes, s.request_hash, COALESCE(s.source_run_id, s.run_id), 0,
        s.started_at, s.duration_ms
    FROM agent_run_steps s WHERE s.org_id = $1 AND s.run_id = $2 {which}
"""
_COPY_ALL = _COPY.format(distinct="", visit="s.visit", which="")
"""For a replay, which does everything again as it was."""
_LATEST = _COPY.format(
    distinct="DISTINCT ON (s.node_path, s.call)",
    visit="1",
    which="""
        AND {ended} ORDER BY s.node_path, s.call, s.visit DESC""",
)
"""What came to an end, the last time where it was tried again."""
_COPY_DONE = _LATEST.format(
    ended="""(s.status IN ('succeeded', 'skipped') OR s.call > 0
            AND (s.status = 'started' OR s.status = 'failed' AND s.error ->> 'code' = 'rejected'))"""
)
"""Without failures: what failed may do better when a run is resumed. But with what people have decided."""
_COPY_UPTO = _LATEST.format(
    ended="""(s.status IN ('succeeded', 'skipped') OR s.status = 'failed' AND s.output IS NOT NULL
            OR s.status = 'started' AND s.call > 0)
            AND s.seq > 0 AND s.seq <= $4"""
)
"""All that a run went on with up to a place in its log."""

Version = Literal["same", "live", "draft"] | int | UUID


@dataclass(frozen=True, slots=True)
class Wanted:
    """`version`: that of the other run, or one of its agent. `input`: another one than it had."""

    mode: RunMode = RunMode.WAIT
    version: Version = "same"
    input: Json | None = None
    metadata: Json | None = None


@dataclass(slots=True)
class DescendantService:
    """They are queued; any process goes on with them. What they are made of stays as it is."""

    database: Database
    tenant: Tenant
    agents: AgentService
    executor: Executor

    async def resume(self, run_id: UUID, wanted: Wanted) -> UUID:
        """The id of a run that goes on where this one failed or was cancelled.

        Steps that had come to an end are taken over where the version asks the same of them. The keys of
        effects are those of the first run of the line, so that what is in doubt is done once.
        """
        parent = await self._own(run_id)
        if parent.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
            raise Conflict(
                f"The run is {parent.status}: only a failed or cancelled one is resumed. Fork it instead.",
                code="not_resumable",
            )
        effects_of = parent.effects_of or parent.id
        return await self._made(parent, wanted, RunOrigin.RESUME, effects_of=effects_of)

    async def fork(self, run_id: UUID, checkpoint: int, wanted: Wanted) -> UUID:
        """The id of a run that goes on from a checkpoint of this one, 0 for its beginning; effects that come
        after it are done again."""
        parent = await self._own(run_id)
        known = await self.checkpoints(run_id)
        if checkpoint and checkpoint not in known:
            raise _no_checkpoint(checkpoint, known)
        return await self._made(parent, wanted, RunOrigin.FORK, upto=checkpoint)

    async def replay(self, run_id: UUID, wanted: Wanted) -> UUID:
        """The id of a run that does what this one did, on its recorded answers, the network closed.

        Of a replay that is what the run did which it replayed, with the version of the replay.
        """
        named = parent = await self._run(run_id)
        while parent.made_by is RunOrigin.REPLAY and parent.parent_run_id is not None:
            parent = await self._run(parent.parent_run_id)
        if named.finished_at is None:
            message = f"The run is {named.status}: one that has ended is replayed."
            raise Conflict(message, code="not_finished")
        if parent.started_at is None or parent.last_seq <= 1:
            raise Conflict("The run had not begun when it ended: nothing was recorded.", code="not_recorded")
        if wanted.version == "same":
            wanted = replace(wanted, version=named.version_id)
        return await self._made(parent, wanted, RunOrigin.REPLAY)

    async def _run(self, run_id: UUID) -> AgentRun:
        """Raises `Gone` where its log, of which the new run is made, is not kept any more."""
        async with self.database.unit_of_work(self.tenant) as session:
            run = await Runs(session, self.tenant).get(run_id)
        await demand_log(self.database, run_id)
        return run

    async def _own(self, run_id: UUID) -> AgentRun:
        """A run that did something itself: a replay has had no effects, and has no keys of theirs."""
        run = await self._run(run_id)
        if run.made_by is RunOrigin.REPLAY:
            message = f"The run is a replay: resume or fork the one that it replayed, {run.parent_run_id}."
            raise Conflict(message, code="is_replay")
        return run

    async def checkpoints(self, run_id: UUID) -> Sequence[int]:
        """Their places in the run's log."""
        async with self.database.unit_of_work(self.tenant) as session:
            return await RunCheckpoints(session, self.tenant).places(run_id)

    async def _made(
        self,
        parent: AgentRun,
        wanted: Wanted,
        made_by: RunOrigin,
        *,
        effects_of: UUID | None = None,
        upto: int | None = None,
    ) -> UUID:
        version_id = await self._version(parent, wanted.version)
        given = parent.input if wanted.input is None else wanted.input
        metadata = parent.run_metadata if wanted.metadata is None else wanted.metadata
        run_id = new_id()
        async with self.database.writing(self.tenant, subject_id=run_id) as connection:
            agent = await load_agent(connection, self.executor.factory, self.tenant, version_id)
            checked_input(agent, given)
            rows = await connection.fetch(
                _INSERT,
                *(self.tenant.org_id, run_id, self.tenant.project, wanted.mode),
                *(stored_json(given), stored_json(metadata), parent.agent_id, version_id),
                *(parent.id, made_by, effects_of),
            )
            if not rows:
                raise await self.agents.unrunnable(str(parent.agent_id), "live")
            await self._copy(connection, parent.id, run_id, made_by, upto)
            await demand_log(self.database, parent.id)  # else it may have been dropped amid all this
            await connection.fetch("SELECT pg_notify($1, '')", RUN_QUEUE)
        self.executor.queue_news.set()
        return run_id

    async def _copy(
        self, connection: DriverConnection, source: UUID, target: UUID, made_by: RunOrigin, upto: int | None
    ) -> None:
        keys = (self.tenant.org_id, source, target)
        match made_by:
            case RunOrigin.REPLAY:
                await connection.fetch(_COPY_ALL, *keys)
            case RunOrigin.FORK:
                await connection.fetch(_COPY_UPTO, *keys, upto)
            case RunOrigin.RESUME:
                await connection.fetch(_COPY_DONE, *keys)

    async def _version(self, parent: AgentRun, wanted: Version) -> UUID:
        """Its id."""
        if wanted == "same":
            return parent.version_id
        if isinstance(wanted, UUID):
            return wanted
        if wanted == "draft":
            return (await self.agents.snapshot(str(parent.agent_id))).id
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(str(parent.agent_id))
            return (await self.agents.named(session, agent, str(wanted))).id


def _no_checkpoint(wanted: int, known: Sequence[int]) -> Invalid:
    shown = ", ".join(map(str, known[:20])) + (", …" if len(known) > 20 else "")
    valid = f"0 (its beginning), {shown}" if known else "0 (its beginning) alone"
    message = f"The run has no checkpoint {wanted}; it has {valid}."
    return Invalid(message, errors=[FieldError("/body/checkpoint", "no_checkpoint", message)])
