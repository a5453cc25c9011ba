"""Agents, versions and runs on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
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
    """`revision` counts changes; it begins the ETag."""

    id: UUID
    slug: str
    name: str
    description: str
    revision: int
    live_version: int | None
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


class Publish(Body):
    model_config = example(note="Greets by name")

    note: Annotated[str, Field(max_length=2000)] = ""


class VersionSummary(Read):
    """`version` is null for what a run of the draft was made of."""

    id: UUID
    version: int | None
    content_hash: str
    note: str
    author_id: UUID | None
    created_at: datetime


class VersionRead(VersionSummary):
    """`bindings` say what the graph's names stood for when it was published."""

    graph: dict[str, Any]
    bindings: dict[str, Any]


MAX_INT4 = 2**31 - 1


class RunCreate(Body):
    """`wait` answers when the run has ended (202 after `wait_timeout_s`), `stream` with its events,
    `background` at once (202); such a run waits until some process has room for it.

    Without a `mode`, the header `Accept: text/event-stream` asks for the stream.
    """

    model_config = example(input={"name": "Ada"}, mode="wait")

    input: dict[str, Any] = Field(default_factory=dict)
    mode: Literal["wait", "stream", "background"] = "wait"
    version: Literal["live", "draft"] | Annotated[int, Field(ge=1, le=MAX_INT4)] = "live"
    metadata: dict[str, Any] = Field(default_factory=dict)
    wait_timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None


class RunSummary(Read):
    id: UUID
    agent_id: UUID
    version_id: UUID
    mode: str
    status: str
    error: ItemError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunRead(RunSummary):
    input: dict[str, Any]
    output: dict[str, Any] | None
    usage: dict[str, Any] | None
    metadata: Annotated[dict[str, Any], Field(validation_alias="run_metadata")]


class StepRead(Read):
    """One entry of the journal: what one node did."""

    node_path: str
    node_type: str
    visit: int
    status: str
    attempts: int
    output: dict[str, Any] | None
    error: ItemError | None
    usage: dict[str, Any] | None
    started_at: datetime
    duration_ms: float


class EventRead(Read):
    """The envelope of one event; `event` is an AG-UI 1.0 event."""

    run_id: UUID
    seq: int
    ts: datetime
    node_path: str
    event: dict[str, Any]
