"""Agents, their immutable versions, and runs with their steps, events and commands."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, CreatedAt, Json, ProjectRow, TenantRow, UpdatedAt, tenant_key


class RunStatus(StrEnum):
    """An `interrupted` run waits for a person, a `waiting` one for a time; no process is at them."""

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


SUSPENDED = frozenset({RunStatus.INTERRUPTED, RunStatus.WAITING})


class RunMode(StrEnum):
    """How its creator hears of a run; `background` runs wait for a process that has room."""

    WAIT = "wait"
    STREAM = "stream"
    BACKGROUND = "background"


class RunOrigin(StrEnum):
    """How a run was made of another one."""

    RESUME = "resume"
    FORK = "fork"
    REPLAY = "replay"


class CommandKind(StrEnum):
    CANCEL = "cancel"


class InterruptStatus(StrEnum):
    """`expired`: nobody answered in time; `withdrawn`: nobody needs the answer any more."""

    OPEN = "open"
    ANSWERED = "answered"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class Agent(ProjectRow):
    """`draft` is what people edit, under the optimistic lock `revision`; `live_version` is what is served.

    With `archived_at` it is kept for reading, and neither runs nor changes.
    With `deleted_at` it is gone for everybody but the work that erases it.
    """

    __tablename__ = "agents"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        Index(
            "uq_agents_slug",
            "org_id",
            "project_id",
            "slug",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("ix_agents_list", "org_id", "project_id", "created_at", "id"),
        Index("ix_agents_name", "org_id", "project_id", "name", "id"),
    )

    slug: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    draft: Mapped[Json]
    revision: Mapped[int] = mapped_column(default=1)
    live_version: Mapped[int | None]
    archived_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    updated_at: Mapped[UpdatedAt]


class AgentVersion(TenantRow):
    """An immutable graph, its collections bound by id. `version` is null for a snapshot of a draft.

    The newest version is the live one. `restores` is the number of the one that a rollback repeated.
    """

    __tablename__ = "agent_versions"
    __table_args__ = (
        tenant_key("agent_id", "agents"),
        UniqueConstraint("org_id", "agent_id", "version"),
        Index(
            "uq_agent_versions_snapshot",
            "org_id",
            "agent_id",
            "content_hash",
            unique=True,
            postgresql_where=text("version IS NULL"),
        ),
    )

    agent_id: Mapped[UUID]
    version: Mapped[int | None]
    graph: Mapped[Json]
    bindings: Mapped[Json] = mapped_column(default=dict)
    content_hash: Mapped[str]
    note: Mapped[str] = mapped_column(default="")
    author_id: Mapped[UUID | None]
    restores: Mapped[int | None]


class AgentRun(ProjectRow):
    """One execution. Whoever holds the lease with the current `fence` is its only writer.

    An open run without a lease waits to be claimed, or, with `due_at`, is suspended until then or until it
    is answered; `answers` counts those it was given. `recoveries` counts the processes that died over it
    since it last brought a step to its end. `made_by` says how it was made of `parent_run_id`; `effects_of`
    is the run by whose id the keys of its effects are made, if not its own. `input` keeps its order (`json`,
    not `jsonb`): what is made of it must be the same whoever makes it.
    """

    __tablename__ = "agent_runs"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("agent_id", "agents"),
        tenant_key("version_id", "agent_versions"),
        Index("ix_agent_runs_agent", "org_id", "agent_id", "created_at", "id"),
        Index("ix_agent_runs_version", "org_id", "version_id"),
        Index("ix_agent_runs_list", "org_id", "project_id", "created_at", "id"),
        Index(
            "ix_agent_runs_leased",
            "lease_until",
            postgresql_where=text("finished_at IS NULL AND lease_until IS NOT NULL"),
        ),
        Index(
            "ix_agent_runs_waiting",
            "org_id",
            "created_at",
            "id",
            postgresql_where=text("finished_at IS NULL AND lease_until IS NULL AND due_at IS NULL"),
        ),
        Index(
            "ix_agent_runs_due",
            "due_at",
            postgresql_where=text("finished_at IS NULL AND due_at IS NOT NULL"),
        ),
        Index("ix_agent_runs_parent", "org_id", "parent_run_id"),
    )

    agent_id: Mapped[UUID]
    version_id: Mapped[UUID]
    mode: Mapped[RunMode]
    status: Mapped[RunStatus] = mapped_column(default=RunStatus.QUEUED)
    input: Mapped[Json] = mapped_column(JSON)
    output: Mapped[Json | None]
    error: Mapped[Json | None]
    usage: Mapped[Json | None]
    run_metadata: Mapped[Json] = mapped_column("metadata", default=dict)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    recoveries: Mapped[int] = mapped_column(default=0, server_default="0")
    due_at: Mapped[datetime | None]
    answers: Mapped[int] = mapped_column(default=0, server_default="0")
    parent_run_id: Mapped[UUID | None]
    made_by: Mapped[RunOrigin | None]
    effects_of: Mapped[UUID | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class AgentRunStep(Base):
    """The step journal: one row per (node path, visit, call). Range-partitioned on the run's UUIDv7.

    `status` is `started` (before an effect) or `waiting`, then `succeeded`, `failed` or `skipped`. `handle`
    is the way out that was taken, `writes` are `[field, value]` of the state. `request_hash` stands for what
    the node was asked, `source_run_id` is the run from which the entry was taken over. `seq` is that of the
    last event by then: a checkpoint, from which another run can go on. JSON of what came of it keeps its
    order.
    """

    __tablename__ = "agent_run_steps"
    __table_args__ = ({"postgresql_partition_by": "RANGE (run_id)"},)

    org_id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    node_path: Mapped[str] = mapped_column(primary_key=True)
    visit: Mapped[int] = mapped_column(primary_key=True)
    call: Mapped[int] = mapped_column(primary_key=True, default=0)
    node_type: Mapped[str]
    status: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=1)
    output: Mapped[Json | None] = mapped_column(JSON)
    error: Mapped[Json | None]
    usage: Mapped[Json | None]
    handle: Mapped[str | None]
    writes: Mapped[list[Any] | None] = mapped_column(JSON)
    request_hash: Mapped[str | None]
    source_run_id: Mapped[UUID | None]
    seq: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[datetime]
    duration_ms: Mapped[float]


class AgentRunCommand(TenantRow):
    """What somebody wants of a run whose lease they do not hold; its holder obeys."""

    __tablename__ = "agent_run_commands"
    __table_args__ = (
        tenant_key("run_id", "agent_runs"),
        Index("ix_agent_run_commands_run", "org_id", "run_id"),
    )

    run_id: Mapped[UUID]
    kind: Mapped[CommandKind]
    consumed_at: Mapped[datetime | None]


class AgentRunInterrupt(ProjectRow):
    """What a run waits for: an answer (`human`, `approval`) or a time (`timer`). It is closed once.

    The run's holder opens it, whoever answers closes it. `choice` and `data` are the answer; an approval is
    about the call `tool_call_id` of `tool`.
    """

    __tablename__ = "agent_run_interrupts"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("run_id", "agent_runs"),
        Index("ix_agent_run_interrupts_run", "org_id", "run_id"),
        Index("ix_agent_run_interrupts_list", "org_id", "project_id", "status", "created_at", "id"),
    )

    run_id: Mapped[UUID]
    node_path: Mapped[str]
    kind: Mapped[str] = mapped_column(String(32))
    status: Mapped[InterruptStatus]
    message: Mapped[str]
    choices: Mapped[list[Any] | None]
    form: Mapped[Json | None]
    prefill: Mapped[Json | None]
    assignee: Mapped[str | None]
    tool: Mapped[str | None]
    tool_call_id: Mapped[str | None]
    due_at: Mapped[datetime | None]
    choice: Mapped[str | None]
    data: Mapped[Json | None]
    answered_by: Mapped[str | None]
    closed_at: Mapped[datetime | None]


class AgentRunCheckpoint(Base):
    """A state of the graph between two supersteps: what changed since `parent_id` (msgpack).

    `body` is LangGraph's checkpoint without values, `channels` the values. Range-partitioned on the run.
    """

    __tablename__ = "agent_run_checkpoints"
    __table_args__ = ({"postgresql_partition_by": "RANGE (run_id)"},)

    org_id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    ns: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    parent_id: Mapped[str | None]
    body: Mapped[bytes]
    channels: Mapped[bytes]
    checkpoint_metadata: Mapped[Json] = mapped_column("metadata")
    created_at: Mapped[CreatedAt]


class AgentRunCheckpointWrite(Base):
    """What a task wrote after a checkpoint and before the next one (msgpack)."""

    __tablename__ = "agent_run_checkpoint_writes"
    __table_args__ = ({"postgresql_partition_by": "RANGE (run_id)"},)

    org_id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    ns: Mapped[str] = mapped_column(primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(primary_key=True)
    idx: Mapped[int] = mapped_column(primary_key=True)
    task_path: Mapped[str]
    channel: Mapped[str]
    value: Mapped[bytes]


class DroppedRunLog(Base):
    """A month (UTC) whose runs have no events, steps and checkpoints any more. `month` is its first day."""

    __tablename__ = "dropped_run_logs"

    month: Mapped[date] = mapped_column(primary_key=True)
    dropped_at: Mapped[CreatedAt]


class AgentRunEvent(Base):
    """The event log: `seq` is gapless from 1 per run. Range-partitioned on the run's UUIDv7.

    `event` keeps the text that was written (`json`, not `jsonb`), so that replay is the same, byte by byte.
    """

    __tablename__ = "agent_run_events"
    __table_args__ = ({"postgresql_partition_by": "RANGE (run_id)"},)

    org_id: Mapped[UUID] = mapped_column(primary_key=True)
    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    ts: Mapped[CreatedAt]
    node_path: Mapped[str] = mapped_column(default="")
    type: Mapped[str]
    event: Mapped[Json] = mapped_column(JSON)
