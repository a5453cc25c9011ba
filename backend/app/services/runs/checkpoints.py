"""Checkpoints of graphs in our database: LangGraph's saver, as a part of the run's group commit.

A thread is a run. What is put waits in the run's log and is stored, fenced, with the next commit; nobody
waits for it, because what must not be done twice is in the journal. Of a channel only what changed is kept.

Importing this module imports LangGraph: import it when first used.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from sqlalchemy.exc import DBAPIError

from app.agent.graph.ports import Undeliverable
from app.core.errors import AppError
from app.db.session import Database, Tenant
from app.services.runs.run_log import CheckpointRow, RunLog, WriteRow
from app.services.runs.stored_json import stored_json

_WHOLE: Final = 0
_ADDED: Final = 1
_JSON: Final = b"J"  # in msgpack a number, which is never all that is packed
"""How a channel's value is kept: all of it, or the keys that it has beyond an earlier version."""

_CHECKPOINTS = """
    SELECT ns, id, parent_id, body, channels, metadata::text FROM agent_run_checkpoints
    WHERE org_id = $1 AND run_id = $2 ORDER BY id
"""
_WRITES = """
    SELECT ns, checkpoint_id, task_id, idx, task_path, channel, value FROM agent_run_checkpoint_writes
    WHERE org_id = $1 AND run_id = $2 ORDER BY task_path, task_id, idx
"""
_OURS = "EXISTS (SELECT FROM agent_runs r WHERE r.org_id = $1 AND r.id = $2 AND r.fence = $3)"
_DELETE = tuple(
    f"DELETE FROM {table} WHERE org_id = $1 AND run_id = $2 AND {_OURS} AND NOT {key} = ANY($4::text[])"  # noqa: S608
    for table, key in (("agent_run_checkpoints", "id"), ("agent_run_checkpoint_writes", "checkpoint_id"))
)


class RunCheckpoints(BaseCheckpointSaver[int]):
    """`log_of` gives the log of a run that executes in this process, by its thread id.

    `journalled`: what nodes write is recalled from the journal, so that of the writes between two checkpoints
    only LangGraph's own (errors, interrupts, resumptions) are kept.
    """

    def __init__(self, database: Database, log_of: Callable[[str], RunLog], *, journalled: bool = True):
        super().__init__(serde=JsonPlusSerializer(pickle_fallback=False, allowed_msgpack_modules=None))
        self._database = database
        self._log_of = log_of
        self._journalled = journalled

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread_id, ns, parent_id = _place(config)
        run = self._log_of(thread_id)
        body = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        kept = stored_json(dict(get_checkpoint_metadata(config, metadata))) or "{}"
        channels = self._changed(run, ns, checkpoint["channel_values"], new_versions)
        row = CheckpointRow(ns, checkpoint["id"], parent_id, self.packed(body), self.packed(channels), kept)
        run.keep([row])
        return _config(thread_id, ns, checkpoint["id"])

    def _changed(
        self, run: RunLog, ns: str, values: Mapping[str, Any], versions: ChannelVersions
    ) -> dict[str, list[Any]]:
        """For each channel with a new version: the version, how the value is kept, the value, its base."""
        changed: dict[str, list[Any]] = {}
        for channel, version in versions.items():
            if channel not in values:
                continue
            value = values[channel]
            base, before = run.channels.get((ns, channel), (None, None))
            if _extends(value, before):
                added = {key: item for key, item in value.items() if key not in before}
                changed[channel] = [version, _ADDED, added, base]
            else:
                changed[channel] = [version, _WHOLE, value, None]
            run.channels[ns, channel] = (version, value)
        return changed

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        thread_id, ns, checkpoint_id = _place(config)
        rows = [
            WriteRow(
                *(ns, checkpoint_id or "", task_id, WRITES_IDX_MAP.get(channel, index), task_path, channel),
                self.packed([value]),
            )
            for index, (channel, value) in enumerate(writes)
            if channel in WRITES_IDX_MAP or not self._journalled
        ]
        if rows:
            self._log_of(thread_id).keep([], rows)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread_id, ns, checkpoint_id = _place(config)
        if self._log_of(thread_id).fresh:
            return None
        thread = await self._thread(thread_id)
        found = [id for space, id in thread.rows if space == ns and checkpoint_id in (None, "", id)]
        return thread.at(ns, found[-1]) if found else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The newest first. Of one thread, which `config` names."""
        if config is None:
            raise ValueError("checkpoints are listed for one run: name its thread_id")
        thread_id, ns, checkpoint_id = _place(config)
        any_ns = "checkpoint_ns" not in config["configurable"]
        cursor = _place(before)[2] if before else None
        thread = await self._thread(thread_id)
        given = 0
        for space, id in reversed(thread.rows):
            found = thread.at(space, id)
            wanted = any_ns or space == ns
            wanted = wanted and checkpoint_id in (None, id) and (cursor is None or id < cursor)
            if not wanted or not _matches(found.metadata, filter or {}):
                continue
            if limit is not None and given >= limit:
                return
            given += 1
            yield found

    async def adelete_thread(self, thread_id: str) -> None:
        await self._delete(self._log_of(thread_id), keeping=())

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        source, target = await self._thread(source_thread_id), self._log_of(target_thread_id)
        target.keep(list(source.rows.values()), source.writes)
        await target.settled()

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`keep_latest` keeps the newest checkpoint of each namespace, `delete` none."""
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy {strategy!r} is none of 'keep_latest' and 'delete'")
        for thread_id in thread_ids:
            run = self._log_of(thread_id)
            if strategy == "delete":
                await self._delete(run, keeping=())
                continue
            thread = await self._thread(thread_id)
            latest = dict(thread.rows)  # by namespace the last one wins
            kept = {ns: thread.whole(ns, id) for ns, id in latest}
            run.keep(list(kept.values()))
            await run.settled()
            await self._delete(run, keeping=[row.id for row in kept.values()])

    async def _delete(self, run: RunLog, *, keeping: Iterable[str]) -> None:
        await run.settled()
        run.channels.clear()
        lease = run.lease
        async with self._database.writing(Tenant(lease.org_id)) as connection:
            for statement in _DELETE:
                await connection.fetch(statement, lease.org_id, lease.id, lease.fence, list(keeping))

    async def _thread(self, thread_id: str) -> _Thread:
        """Raises `Undeliverable` where the database is away: the run then goes on later."""
        run = self._log_of(thread_id)
        key = (run.lease.org_id, run.lease.id)
        try:
            await run.settled()
            async with self._database.reading(Tenant(run.lease.org_id)) as connection:
                rows = await connection.fetch(_CHECKPOINTS, *key)
                writes = await connection.fetch(_WRITES, *key)
        except (AppError, DBAPIError) as error:
            raise Undeliverable("the checkpoints cannot be read") from error
        return _Thread(
            thread_id,
            {(row[0], row[1]): CheckpointRow(*row) for row in rows},
            [WriteRow(*row) for row in writes],
            self,
        )

    def packed(self, value: Any) -> bytes:
        """msgpack; JSON after a mark where that cannot hold it: integers beyond 64 bits, half surrogates."""
        try:
            return self.serde.dumps_typed(value)[1]
        except TypeError:
            return _JSON + json.dumps(value).encode()

    def unpacked(self, data: bytes) -> Any:
        if data.startswith(_JSON):
            return json.loads(data[len(_JSON) :])
        return self.serde.loads_typed(("msgpack", data))


@dataclass(slots=True)
class _Thread:
    """All that is stored of one run's graph: checkpoints by (namespace, id) in their order, and writes."""

    id: str
    rows: dict[tuple[str, str], CheckpointRow]
    writes: list[WriteRow]
    saver: RunCheckpoints
    _pieces: dict[tuple[str, str, Any], list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows.values():
            for channel, piece in self.saver.unpacked(row.channels).items():
                self._pieces[row.ns, channel, piece[0]] = piece

    def at(self, ns: str, checkpoint_id: str) -> CheckpointTuple:
        row = self.rows[ns, checkpoint_id]
        body = self.saver.unpacked(row.body)
        pending = [
            (write.task_id, write.channel, self.saver.unpacked(write.value)[0])
            for write in self.writes
            if (write.ns, write.checkpoint_id) == (ns, checkpoint_id)
        ]
        return CheckpointTuple(
            _config(self.id, ns, row.id),
            cast(Checkpoint, body | {"channel_values": self._values(ns, body["channel_versions"])}),
            cast(CheckpointMetadata, orjson.loads(row.metadata)),
            _config(self.id, ns, row.parent_id) if row.parent_id else None,
            pending,
        )

    def whole(self, ns: str, checkpoint_id: str) -> CheckpointRow:
        """The checkpoint as a row that needs no other one."""
        row = self.rows[ns, checkpoint_id]
        versions = self.saver.unpacked(row.body)["channel_versions"]
        values = self._values(ns, versions)
        pieces = {channel: [versions[channel], _WHOLE, value, None] for channel, value in values.items()}
        return replace(row, channels=self.saver.packed(pieces))

    def _values(self, ns: str, versions: Mapping[str, Any]) -> dict[str, Any]:
        found = {channel: self._value(ns, channel, version) for channel, version in versions.items()}
        return {channel: value for channel, value in found.items() if value is not _ABSENT}

    def _value(self, ns: str, channel: str, version: Any) -> Any:
        """The value of a channel at a version; what was added since the last whole one is added up."""
        added: list[dict[str, Any]] = []
        while (piece := self._pieces.get((ns, channel, version))) is not None:
            _, kind, value, version = piece
            if kind == _WHOLE:
                return value if not added else {**value, **ChainMap(*added)}
            added.append(value)
        return _ABSENT


_ABSENT: Final = object()


def _extends(value: Any, before: Any) -> bool:
    """Whether `value` is `before` with some keys more."""
    return (
        isinstance(value, dict)
        and isinstance(before, dict)
        and len(value) >= len(before)
        and all(value.get(key, _ABSENT) is item for key, item in before.items())
    )


def _matches(metadata: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(metadata.get(key) == value for key, value in wanted.items())


def _place(config: RunnableConfig) -> tuple[str, str, str | None]:
    """Thread, namespace and checkpoint that a configuration names."""
    named = config["configurable"]
    return named["thread_id"], named.get("checkpoint_ns", ""), named.get("checkpoint_id")


def _config(thread_id: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}}
