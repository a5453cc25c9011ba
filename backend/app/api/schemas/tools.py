"""Tools on the wire."""

from __future__ import annotations

from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from uuid import UUID

from pydantic import Field

import app.agent.tools.kinds  # noqa: F401  (registers the kinds the union below is made of)
from app.agent.tools.kind import TOOL_KINDS, ToolConfig
from app.api.schemas.common import Body, Description, ItemError, Read, Slug, example

Effect = Literal["pure", "read", "write"]
Approval = Literal["never", "writes", "always"]


def _union() -> Any:
    union = reduce(or_, [cast(Any, kind.config) for kind in TOOL_KINDS.values()])
    return Annotated[union, Field(discriminator="kind")]


if TYPE_CHECKING:
    AnyToolConfig = ToolConfig
else:
    AnyToolConfig = _union()

_WEATHER = {
    "kind": "http",
    "request": {"url": "https://weather.example/v1/{{ arguments.city }}"},
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class ToolCreate(Body):
    """`approval`: which calls that a model asks for a person has to agree to, by what they do."""

    model_config = example(slug="weather", config=_WEATHER, description="The weather of a city, now.")

    slug: Slug = Field(examples=["weather"])
    config: AnyToolConfig
    approval: Approval = "never"
    description: Description = ""


class ToolUpdate(Body):
    """JSON Merge Patch (RFC 7396), also inside of `config`. The kind stays."""

    model_config = example(approval="always")

    config: Annotated[dict[str, Any], Field(max_length=50)] | None = None
    approval: Approval = "never"
    description: Description | None = None


class UnusableRead(Read):
    """What is offered but cannot be called here, and why."""

    name: str
    reason: str


class ToolSummary(Read):
    """`revision` counts changes; it begins the ETag."""

    id: UUID
    slug: str
    kind: str
    description: str
    approval: Approval
    revision: int
    created_at: datetime
    updated_at: datetime


class ToolRead(ToolSummary):
    """`unusable`: what its server or document offers besides its operations, each with the reason."""

    config: dict[str, Any]
    unusable: list[UnusableRead]


class OperationRead(Read):
    """One function, as models see it. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]
    effect: Effect
    needs_approval: bool


class OperationsRead(Read):
    items: list[OperationRead]


class ToolInvoke(Body):
    """`operation` may be left out where the tool offers only one."""

    model_config = example(arguments={"city": "Vienna"})

    operation: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)


class ToolResultRead(Read):
    """How one call went. `content` is JSON, `text` what a model is shown; `error` is null if it went well.

    `is_error`: the tool did answer, and says that it could not do what was asked.
    """

    ok: bool
    content: Any
    text: str
    is_error: bool
    duration_ms: float
    error: ItemError | None


class ToolRefresh(Body):
    """Without `confirm` nothing changes; with the `digest` of an answer, what that answer showed holds."""

    model_config = example()

    confirm: Annotated[str, Field(max_length=64)] | None = None


class OfferedRead(Read):
    name: str
    description: str
    parameters: dict[str, Any]
    effect: Effect


class RefreshRead(Read):
    """What the tool offers now against what is registered."""

    digest: str
    confirmed: bool
    added: list[OfferedRead]
    changed: list[OfferedRead]
    removed: list[str]
    unusable: list[UnusableRead]
