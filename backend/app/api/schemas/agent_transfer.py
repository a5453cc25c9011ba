"""Diffs of agents, and agents as documents, on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from app.agent.graph.changes import Change
from app.agent.graph.edits import Edit
from app.agent.graph.portable import PortableAgent
from app.api.schemas.agents import Graph, Note, VersionRead
from app.api.schemas.common import Body, Read, Slug
from app.core.report import Issue

Target = Annotated[str, Field(min_length=1, max_length=200)]
_DOCUMENT: dict[str, Any] = {
    "kind": "agent",
    "schema_version": "1",
    "slug": "greeter",
    "name": "Greeter",
    "graph": {"schema_version": "1", "nodes": [{"id": "start", "type": "start"}]},
}


class DiffGraphs(Body):
    """Two graphs; they may be unfinished."""

    model_config = ConfigDict(populate_by_name=True)

    before: Annotated[Graph, Field(alias="from")]
    after: Annotated[Graph, Field(alias="to")]


class ChangesRead(Read):
    """What makes the second graph of the first. `summary` has one line per change, for people.

    `layout` is what moved in editors: it changes nothing of what the agent does, nor its content hash.
    """

    identical: bool
    summary: list[str]
    changes: list[Change]
    layout: list[Edit]


class DiffSide(Read):
    """A version; the draft has neither number nor id."""

    version: int | None = None
    id: UUID | None = None


class DiffRead(ChangesRead):
    model_config = ConfigDict(populate_by_name=True, from_attributes=True)

    before: Annotated[DiffSide, Field(alias="from")]
    after: Annotated[DiffSide, Field(alias="to")]


class Rebinding(Body):
    """By kind: names in the document's bindings → slugs (or ids) of what they are to stand for here."""

    models: dict[str, Target] = Field(default_factory=dict)
    collections: dict[str, Target] = Field(default_factory=dict)
    tools: dict[str, Target] = Field(default_factory=dict)
    agents: dict[str, Target] = Field(default_factory=dict)


class Import(Body):
    """The document may also be the whole body."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"document": _DOCUMENT}]})

    document: PortableAgent
    bindings: Rebinding = Field(default_factory=Rebinding)
    slug: Annotated[Slug | None, Field(description="Instead of the document's")] = None
    on_conflict: Annotated[
        Literal["fail", "update"], Field(description="What to do where the slug is taken")
    ] = "fail"
    publish: Annotated[bool, Field(description="Publish it in the same transaction")] = False
    note: Note = ""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"document": value} if isinstance(value, dict) and "kind" in value else value


class BoundNameRead(Read):
    """A name that the document binds. `resolved`: its target is there; `suggestions` would do instead."""

    kind: str
    name: str
    target: str
    resolved: bool
    suggestions: list[str]


class ImportRead(Read):
    """What was done, or with `dry_run` would be. The changes begin at the draft of before.

    `conflict` (only in a dry run): the slug is taken, and `on_conflict` is `fail`. `publishes`: a new version
    is made. `version` is null in a dry run, and where nothing was to be published.
    """

    dry_run: bool
    action: Literal["create", "update", "unchanged", "conflict"]
    slug: str
    agent_id: UUID | None
    revision: int | None
    bindings: list[BoundNameRead]
    changes: ChangesRead
    valid: bool
    issues: list[Issue]
    publishes: bool
    version: VersionRead | None = None
