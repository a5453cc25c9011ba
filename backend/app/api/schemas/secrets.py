"""Secrets on the wire: values go in, and never come out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, SecretStr

from app.api.schemas.common import Body, Read, Slug, example

Value = Annotated[SecretStr, Field(min_length=1, description="Write-only", examples=["sk-…"])]
Description = Annotated[str, Field(max_length=2000)]


class SecretCreate(Body):
    """Tools, model connections and nodes refer to it by `name`."""

    model_config = example(name="weather-api", value="sk-…", description="For the weather tool")

    name: Slug = Field(examples=["weather-api"])
    value: Value
    description: Description = ""


class SecretValue(Body):
    """Replaces the value."""

    model_config = example(value="sk-…")

    value: Value


class SecretUpdate(Body):
    """JSON Merge Patch (RFC 7396)."""

    model_config = example(description="For the weather tool")

    description: Description | None = None


class SecretRead(Read):
    """`hint` is the end of a long value, null for a short one. The value itself is never shown.

    `revision` counts changes; it begins the ETag.
    """

    id: UUID
    name: str = Field(validation_alias="slug")
    description: str
    hint: str | None
    revision: int
    value_changed_at: datetime
    created_at: datetime
    updated_at: datetime
