"""Agents, versions and runs on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from app.agent.graph.schema import AgentGraph
from app.api.schemas.common import Body, ItemError, Name, Read, Slug
from app.core.report import Issue


class _DescribedAsGraph:
    """A draft may be unfinished, so any object is taken; the description shows what it is to become."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(AgentGraph.__pydantic_core_schema__), handler(schema)]}


Graph = Annotated[
    dict[str, Any],
    _DescribedAsGraph(),
    Field(
        description="An `AgentGraph`; a draft may be incomplete, `validate` tells.",
        examples=[
            {
                "schema_version": "1",
                "inputs": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
                    "required": ["name"],
                },
                "nodes": [
                    {"id": "start", "type": "start"},
                    {"id": "greet", "type": "template", "config": {"text": "Hello, {{ inputs.name }}!"}},
                    {"id": "done", "type": "end", "config": {"output": {"text": "{{ greet.text }}"}}},
                ],
                "edges": [{"source": "start", "target": "greet"}, {"source": "greet", "target": "done"}],
            }
        ],
    ),
]


class AgentCreate(Body):
    name: Name
    slug: Slug | None = None
    description: Annotated[str, Field(max_length=2000)] = ""
    graph: Graph | None = None


class AgentUpdate(Body):
    """JSON Merge Patch (RFC 7396); `graph` replaces the whole draft."""

    name: Name = ""
    description: Annotated[str, Field(max_length=2000)] = ""
    graph: Graph = Field(default_factory=dict)


class AgentRead(Read):
    """`revision` counts changes of the draft and is the ETag."""

    id: UUID
    slug: str
    name: str
    description: str
    draft: dict[str, Any]
    revision: int
    live_version: int | None
    created_at: datetime
    updated_at: datetime


class Validate(Body):
    """Without a graph, the draft is checked."""

    graph: Any = None


class ReportRead(Read):
    valid: bool
    issues: list[Issue]


class Publish(Body):
    note: Annotated[str, Field(max_length=2000)] = ""


class VersionRead(Read):
    id: UUID
    version: int
    content_hash: str
    note: str
    author_id: UUID | None
    bindings: dict[str, Any]
    created_at: datetime


MAX_INT4 = 2**31 - 1


class RunCreate(Body):
    """`wait` answers when the run has ended (202 after `wait_timeout_s`), `stream` with its events."""

    input: dict[str, Any] = Field(default_factory=dict)
    mode: Literal["wait", "stream"] = "wait"
    version: Literal["live", "draft"] | Annotated[int, Field(ge=1, le=MAX_INT4)] = "live"
    metadata: dict[str, Any] = Field(default_factory=dict)
    wait_timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None


class RunRead(Read):
    id: UUID
    agent_id: UUID
    version_id: UUID
    mode: str
    status: str
    input: dict[str, Any]
    output: dict[str, Any] | None
    error: ItemError | None
    usage: dict[str, Any] | None
    metadata: Annotated[dict[str, Any], Field(validation_alias="run_metadata")]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


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


class StepsRead(Read):
    items: list[StepRead]


class EventRead(Read):
    """The envelope of one event; `event` is an AG-UI 1.0 event."""

    run_id: UUID
    seq: int
    ts: datetime
    node_path: str
    event: dict[str, Any]
