"""Projects on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from app.api.schemas.common import Body, Name, Read, Slug, example

Settings = Annotated[dict[str, Any], Field(examples=[{"contact": "platform@example.org"}])]


class ProjectCreate(Body):
    """`settings` is an object of your own."""

    model_config = example(name="Support", slug="support", settings={"contact": "platform@example.org"})

    name: Name
    slug: Slug | None = None
    settings: Settings = Field(default_factory=dict)


class ProjectUpdate(Body):
    """JSON Merge Patch (RFC 7396): `settings` is merged, null removes members or all of it."""

    model_config = example(name="Customer support", settings={"contact": None})

    name: Name = ""
    settings: Settings | None = None


class ProjectSummary(Read):
    """`revision` counts changes; it begins the ETag."""

    id: UUID
    slug: str
    name: str
    revision: int
    created_at: datetime
    updated_at: datetime


class ProjectRead(ProjectSummary):
    settings: dict[str, Any]
