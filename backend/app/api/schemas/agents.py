"""Agents, versions and runs on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol, Self
from uuid import UUID

from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from app.agent.graph.schema import AgentGraph
from app.api.schemas.common import Body, Description, ItemError, Name, Read, Slug, example
from app.core.report import Issue


class _DescribedAsGraph:
    """A draft may be unfinished, so any object is taken; the description shows what it is to become."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(AgentGraph.__pydantic_core_schema__), handler(schema)]}


_GREETING: dict[str, Any] = {
    "schema_version": "1",
    "inputs": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "greet", "type": "template", "config": {"text": "Hello, {{ inputs.name }}!"}},
        {"id": "done", "type": "end", "config": {"output": {"text": "{{ greet.text }}"}}},
    ],
    "edges": [{"source": "start", "target": "greet"}, {"source": "greet", "target": "done"}],
}
Graph = Annotated[
    dict[str, Any],
    _DescribedAsGraph(),
    Field(description="An `AgentGraph`; a draft may be incomplete, `validate` tells.", examples=[_GREETING]),
]


class AgentCreate(Body):
    model_config = example(name="Greeter", slug="greeter", graph=_GREETING)

    name: Name
    slug: Slug | None = None
    description: Description = ""
    graph: Graph | None = None


class AgentUpdate(Body):
    """JSON Merge Patch (RFC 7396); `graph` is one value and replaces the whole draft. Null empties."""

    model_config = example(name="Friendly greeter", description="Says hello.")

    name: Name = ""
    description: Description | None = None
    graph: Graph | None = None


class AgentSummary(Read):
    """`revision` counts changes; it begins the ETag. With `archived_at` it neither runs nor changes."""

    id: UUID
    slug: str
    name: str
    description: str
    revision: int
    live_version: int | None
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime


class AgentRead(AgentSummary):
    draft: dict[str, Any]


class Validate(Body):
    """Without a graph, the draft is checked."""

    model_config = example(graph=_GREETING)

    graph: Any = None


class ValidateGraph(Body):
    """Any JSON value: what is wrong with it is the answer."""

    model_config = example(graph=_GREETING)

    graph: Any


class ReportRead(Read):
    valid: bool
    issues: list[Issue]


Note = Annotated[str, Field(max_length=2000, description="What this version is about")]
MAX_INT4 = 2**31 - 1
MAX_INT8 = 2**63 - 1
VersionNumber = Annotated[int, Field(ge=1, le=MAX_INT4)]


class Publish(Body):
    model_config = example(note="Greets by name")

    note: Note = ""


class Rollback(Body):
    """Without a note, it says which version was brought back."""

    model_config = example(version=1, note="The new greeting confused people")

    version: VersionNumber
    note: Note = ""


class Person(Protocol):
    """A user, as far as others may know them."""

    @property
    def name(self) -> str: ...

    @property
    def email(self) -> str: ...


class AuthorRead(Read):
    """Who published a version. Name and email are null where the caller may not know them (`users:read`),
    and where the author is no member any more."""

    id: UUID
    kind: Literal["user"] = "user"
    name: str | None = None
    email: str | None = None


class VersionSummary(Read):
    """`version` is null for what a run of the draft was made of. The newest version is the live one.

    `restores` is the number of the version that a rollback brought back as this one.
    """

    id: UUID
    version: int | None
    content_hash: str
    note: str
    author_id: UUID | None
    author: AuthorRead | None = None
    restores: int | None
    created_at: datetime

    @classmethod
    def of(cls, version: object, authors: Mapping[UUID, Person]) -> Self:
        """`authors` are those whom the caller may know."""
        read = cls.model_validate(version)
        if read.author_id is None:
            return read
        known = authors.get(read.author_id)
        names = {"name": known.name or None, "email": known.email} if known else {}
        return read.model_copy(update={"author": AuthorRead(id=read.author_id, **names)})


class VersionRead(VersionSummary):
    """`bindings` say what the graph's names stood for when it was published."""

    graph: dict[str, Any]
    bindings: dict[str, Any]


class RunCreate(Body):
    """`wait` answers when the run has ended (202 after `wait_timeout_s`), `stream` with its events,
    `background` at once (202); such a run waits until some process has room for it.

    Without a `mode`, the header `Accept: text/event-stream` asks for the stream.
    """

    model_config = example(input={"name": "Ada"}, mode="wait")

    input: dict[str, Any] = Field(default_factory=dict)
    mode: Literal["wait", "stream", "background"] = "wait"
    version: Literal["live", "draft"] | VersionNumber = "live"
    metadata: dict[str, Any] = Field(default_factory=dict)
    wait_timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None


class RunAgain(Body):
    """A run made of another one. `version`: the `same` that it had, or one of its agent."""

    model_config = example(mode="wait")

    mode: Literal["wait", "stream", "background"] = "wait"
    version: Literal["same", "live", "draft"] | VersionNumber = "same"
    metadata: dict[str, Any] | None = None
    wait_timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None


class RunFork(RunAgain):
    """`checkpoint` is the `seq` of one of the run's checkpoints, 0 for its beginning; `input` another one
    than it had."""

    model_config = example(checkpoint=0, mode="wait")

    checkpoint: Annotated[int, Field(ge=0, le=MAX_INT8)]
    input: dict[str, Any] | None = None


class CheckpointRead(Read):
    """A place in a run from which another one can go on: all that was done up to its event `seq`."""

    seq: int
    node_path: str
    node_type: str
    visit: int
    call: int
    status: str
    handle: str | None
    started_at: datetime


class RunSummary(Read):
    id: UUID
    agent_id: UUID
    version_id: UUID
    mode: str
    status: str
    error: ItemError | None
    parent_run_id: UUID | None = None
    made_by: str | None = None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunRead(RunSummary):
    input: dict[str, Any]
    output: dict[str, Any] | None
    usage: dict[str, Any] | None
    metadata: Annotated[dict[str, Any], Field(validation_alias="run_metadata")]


class StepRead(Read):
    """One entry of the journal: what one node did, or one of its calls (from 1). `source_run_id` is the run
    from which it was taken over."""

    node_path: str
    node_type: str
    visit: int
    call: int
    status: str
    attempts: int
    handle: str | None
    output: dict[str, Any] | None
    error: ItemError | None
    usage: dict[str, Any] | None
    source_run_id: UUID | None
    started_at: datetime
    duration_ms: float


class CallRead(Read):
    """A call of a model or a tool, as it was journalled."""

    call: int
    node_type: str
    status: str
    output: dict[str, Any] | None
    error: ItemError | None
    usage: dict[str, Any] | None
    duration_ms: float


class TimelineEntryRead(Read):
    """One node once, begun with the event `seq`.

    `status` is `succeeded`, `failed`, `running`, or `lost` where its process died and it was begun anew.
    `inputs` are the values that it read, by reference; these and `output` are null where they cannot be
    worked out. `retries` tell of the attempts after the first, `calls` of those of models and tools.
    """

    seq: int
    node_path: str
    node_type: str
    started_at_ms: int
    status: str
    handle: str | None
    attempts: int
    duration_ms: float | None
    cached: bool
    taken_from: UUID | None
    inputs: dict[str, Any] | None
    output: dict[str, Any] | None
    usage: dict[str, Any] | None
    error: ItemError | None
    retries: list[dict[str, Any]]
    calls: list[CallRead]


class TimelineRead(Read):
    """`next` is the `after` of the following part, null at the end. `incomplete` says why inputs and outputs
    of some nodes are missing, if they are."""

    items: list[TimelineEntryRead]
    next: int | None
    incomplete: str | None


class EventRead(Read):
    """The envelope of one event; `event` is an AG-UI 1.0 event."""

    run_id: UUID
    seq: int
    ts: datetime
    node_path: str
    event: dict[str, Any]
